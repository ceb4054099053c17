//! A model of which some fields are replaced; its other bytes are copied as they are, also what is not known here.

use std::path::Path;

use prost::Message;

use super::proto::{GRAPH, NODE, Node, field};
use heat_ood::{Error, Result};

/// What becomes of a field.
pub(super) enum Field {
    /// It stays.
    Same,
    /// These stand for it.
    Anew(Vec<Vec<u8>>),
}

/// What becomes of a field with this number and body; `None`: the body is damaged.
type Anew<'a> = &'a dyn Fn(u64, &[u8]) -> Option<Field>;

/// A model with what becomes of the fields of its graph.
///
/// # Errors
/// If it is not a whole model.
pub(super) fn graph(path: &Path, bytes: &[u8], anew: Anew<'_>) -> Result<Vec<u8>> {
    let of_model = |number, body: &[u8]| match number {
        GRAPH => Some(Field::Anew(vec![message(body, anew)?])),
        _ => Some(Field::Same),
    };
    let broken = || Error::format(path, "not a whole ONNX model; export or copy it again");
    message(bytes, &of_model).ok_or_else(broken)
}

/// A model where others stand for some of its nodes.
///
/// # Errors
/// If it is not a whole model.
pub(super) fn nodes(
    path: &Path,
    bytes: &[u8],
    anew: impl Fn(Node) -> Option<Vec<Node>>,
) -> Result<Vec<u8>> {
    let of_graph = |number, body: &[u8]| {
        let node = (number == NODE).then(|| Node::decode(body).ok()).flatten();
        let nodes = node.and_then(&anew);
        let bodies = nodes.map(|nodes| nodes.iter().map(Node::encode_to_vec).collect());
        Some(bodies.map_or(Field::Same, Field::Anew))
    };
    graph(path, bytes, &of_graph)
}

/// A message with what becomes of its fields.
fn message(mut rest: &[u8], anew: Anew<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(rest.len() + 64);
    while !rest.is_empty() {
        let start = rest;
        let (key, body) = field(&mut rest)?;
        match body.map_or(Some(Field::Same), |body| anew(key >> 3, body))? {
            Field::Same => out.extend(&start[..start.len() - rest.len()]),
            Field::Anew(bodies) => {
                for body in bodies {
                    prost::encoding::encode_varint(key, &mut out);
                    prost::encoding::encode_varint(body.len() as u64, &mut out);
                    out.extend(body);
                }
            }
        }
    }
    Some(out)
}
