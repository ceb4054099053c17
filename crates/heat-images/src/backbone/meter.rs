//! What a model's messages would take in memory, counted before they are
//! decoded: two bytes can be a message of a hundred.

use super::proto::{self, Attribute, Dim, Entry, Node, Opset, Tensor, Value};

/// Decoding takes at most this, or four times the file's size if that is more.
const FLOOR: usize = 32 << 20;

/// Lists that grow hold up to three times their length for a moment.
const GROWTH: usize = 3;

/// A text in a list, with its place in a table of names.
const TEXT: usize = GROWTH * size_of::<String>() + 64;

/// Messages that are decoded, in the words of `proto`.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Opset,
    Graph,
    Node,
    Attribute,
    Tensor,
    Entry,
    Value,
    Type,
    TensorType,
    Shape,
    Dim,
}

/// What a field holds.
enum Field {
    Message(Kind),
    Text,
    /// Numbers of as many bytes, one or a packed list.
    Numbers(usize),
    /// It is skipped.
    Other,
}

fn field(kind: Kind, number: u64) -> Field {
    use Field::{Message, Numbers, Other, Text};
    match (kind, number) {
        (Kind::Model, 7) => Message(Kind::Graph),
        (Kind::Model, 8) => Message(Kind::Opset),
        (Kind::Graph, 1) => Message(Kind::Node),
        (Kind::Graph, 5) | (Kind::Attribute, 5) => Message(Kind::Tensor),
        (Kind::Graph, 11 | 12) => Message(Kind::Value),
        (Kind::Node, 5) => Message(Kind::Attribute),
        (Kind::Tensor, 13) => Message(Kind::Entry),
        (Kind::Value, 2) => Message(Kind::Type),
        (Kind::Type, 1) => Message(Kind::TensorType),
        (Kind::TensorType, 2) => Message(Kind::Shape),
        (Kind::Shape, 1) => Message(Kind::Dim),
        (Kind::Model, 2) | (Kind::Node, 1..=4 | 7) | (Kind::Dim, 2) => Text,
        (Kind::Tensor, 5 | 8 | 9 | 10) | (Kind::Entry, 1 | 2) => Text,
        (Kind::Opset | Kind::Attribute | Kind::Value, 1) => Text,
        (Kind::Graph, 2) | (Kind::Attribute, 4) => Text,
        (Kind::Tensor, 4) | (Kind::Attribute, 7) => Numbers(4),
        (Kind::Attribute, 8) | (Kind::Tensor, 1 | 7) => Numbers(8),
        _ => Other,
    }
}

/// Bytes of a message in a list; those of which there is one are part of others.
fn size(kind: Kind) -> usize {
    let size = match kind {
        Kind::Node => size_of::<Node>(),
        Kind::Attribute => size_of::<Attribute>(),
        Kind::Tensor => size_of::<Tensor>() + size_of::<usize>() * 4,
        Kind::Entry => size_of::<Entry>(),
        Kind::Value => size_of::<Value>(),
        Kind::Dim => size_of::<Dim>(),
        Kind::Opset => size_of::<Opset>(),
        Kind::Model | Kind::Graph | Kind::Type | Kind::TensorType | Kind::Shape => 0,
    };
    GROWTH * size
}

/// Why a model is not decoded.
#[derive(Debug, PartialEq)]
pub(super) enum Flaw {
    Damaged,
    TooMuch,
}

type Result<T> = std::result::Result<T, Flaw>;

/// Check a whole model.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let mut budget = FLOOR.max(bytes.len().saturating_mul(4));
    walk(bytes, Kind::Model, &mut budget)
}

fn spend(budget: &mut usize, bytes: usize) -> Result<()> {
    *budget = budget.checked_sub(bytes).ok_or(Flaw::TooMuch)?;
    Ok(())
}

/// The fields of one message. No kind of message is within itself, so this
/// ends after nine steps down.
fn walk(mut rest: &[u8], kind: Kind, budget: &mut usize) -> Result<()> {
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let field = field(kind, key >> 3);
        let fixed = match key & 7 {
            0 => {
                varint(&mut rest)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).map_err(|_| Flaw::Damaged)?,
            5 => 4,
            _ => return Err(Flaw::Damaged),
        };
        let (body, after) = rest.split_at_checked(fixed).ok_or(Flaw::Damaged)?;
        rest = after;
        match field {
            Field::Message(kind) => {
                spend(budget, size(kind))?;
                walk(body, kind, budget)?;
            }
            Field::Text => spend(budget, TEXT + body.len())?,
            Field::Numbers(4) => spend(budget, GROWTH * body.len())?,
            // One byte, at the least, for each.
            Field::Numbers(size) => spend(budget, GROWTH * size * body.len().max(1))?,
            Field::Other => {}
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    proto::varint(rest).ok_or(Flaw::Damaged)
}
