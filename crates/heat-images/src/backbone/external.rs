//! Weights that a model keeps in other files: read into the model, which is
//! then as good as one file.

use std::collections::HashMap;
use std::path::{Component, Path};
use std::sync::Arc;

use prost::Message;

use super::proto::{self, Entry, GRAPH, Model, NODE, Tensor, field};
use heat_ood::io::{Bytes, map};
use heat_ood::{Error, Result};

/// The largest message that protobuf allows.
const MOST: usize = (1 << 31) - 1;

const INITIALIZER: u64 = 5;
const ATTRIBUTE: u64 = 5;
const TENSOR: u64 = 5;

/// Files already mapped.
type Files = HashMap<String, Arc<Bytes>>;

/// Whether some of a model's weights are in other files.
pub(super) fn some_are_outside(model: &Model) -> bool {
    model.graph.as_ref().is_some_and(|g| {
        let constants = g.node.iter().flat_map(|n| &n.attribute).filter_map(|a| a.t.as_ref());
        g.initializer.iter().chain(constants).any(|t| t.data_location != 0)
    })
}

/// The model with all its weights.
///
/// # Errors
/// If a file is missing or too short, or not beside or below the model.
pub(super) fn inlined(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut files = Files::new();
    let mut out = Vec::with_capacity(bytes.len());
    let broken = || Error::format(path, "not a whole ONNX model; export or copy it again");
    rewrite(path, bytes, Kind::Model, &mut files, &mut out)?.ok_or_else(broken)?;
    Ok(out)
}

/// Messages on the way to a tensor.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
}

/// What a field of a message holds.
enum Within {
    Message(Kind),
    Tensor,
    Other,
}

fn within(kind: Kind, field: u64) -> Within {
    match (kind, field) {
        (Kind::Model, GRAPH) => Within::Message(Kind::Graph),
        (Kind::Graph, NODE) => Within::Message(Kind::Node),
        (Kind::Node, ATTRIBUTE) => Within::Message(Kind::Attribute),
        (Kind::Graph, INITIALIZER) | (Kind::Attribute, TENSOR) => Within::Tensor,
        _ => Within::Other,
    }
}

/// Copy a message, its tensors filled. `None`: it is damaged.
fn rewrite(
    path: &Path,
    mut rest: &[u8],
    kind: Kind,
    files: &mut Files,
    out: &mut Vec<u8>,
) -> Result<Option<()>> {
    while !rest.is_empty() {
        let start = rest;
        let Some((key, body)) = field(&mut rest) else {
            return Ok(None);
        };
        let whole = &start[..start.len() - rest.len()];
        let replaced = match (within(kind, key >> 3), body) {
            (Within::Message(kind), Some(body)) => {
                let mut inner = Vec::new();
                if rewrite(path, body, kind, files, &mut inner)?.is_none() {
                    return Ok(None);
                }
                Some(inner)
            }
            (Within::Tensor, Some(body)) => filled(path, body, files)?,
            _ => None,
        };
        match replaced {
            Some(inner) => {
                prost::encoding::encode_varint(key, out);
                prost::encoding::encode_varint(inner.len() as u64, out);
                out.extend(inner);
            }
            None => out.extend(whole),
        }
        if out.len() > MOST {
            let problem = "more than 2 GiB of weights, which is more than a model in memory may \
                           have; export it in half precision";
            return Err(Error::format(path, problem));
        }
    }
    Ok(Some(()))
}

/// A tensor with its values from another file; `None` if it has them itself.
fn filled(path: &Path, body: &[u8], files: &mut Files) -> Result<Option<Vec<u8>>> {
    let tensor = Tensor::decode(body).map_err(|e| Error::format(path, e.to_string()))?;
    if tensor.data_location == 0 {
        return Ok(None);
    }
    let name = &tensor.name;
    let refuse = |problem: String| Error::format(path, format!("tensor `{name}`: {problem}"));
    let entry = |key: &str| tensor.external.iter().find(|e: &&Entry| e.key == key);
    let location = entry("location").map(|e| e.value.clone());
    let location =
        location.ok_or_else(|| refuse("its values are in a file that is not named".into()))?;
    let number =
        |key: &str| match entry(key) {
            None => Ok(None),
            Some(e) => e.value.parse::<usize>().map(Some).map_err(|_| {
                refuse(format!("its {key} is `{}`, expected a number of bytes", e.value))
            }),
        };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    let size = tensor.count().zip(element_size(tensor.data_type));
    let size = size.and_then(|(n, bits)| n.checked_mul(bits)).map(|bits| bits.div_ceil(8));
    let size = size.ok_or_else(|| refuse(format!("its type ({})", tensor.data_type)))?;
    if let Some(length) = length.filter(|l| *l != size) {
        let problem = format!("has {length} bytes in `{location}`, its shape {size}");
        return Err(refuse(problem));
    }
    let file = open(path, &location, files)?;
    let values = offset.checked_add(size).and_then(|end| file.get(offset..end));
    let values = values.ok_or_else(|| {
        let problem = format!(
            "bytes {offset} to {} of `{location}`, which has {}: is that file truncated, or of \
             another export? copy both again",
            offset.saturating_add(size),
            file.len()
        );
        refuse(problem)
    })?;
    let mut whole = Tensor { external: Vec::new(), data_location: 0, ..tensor };
    whole.raw_data = values.to_vec();
    Ok(Some(whole.encode_to_vec()))
}

/// Bits of a value.
fn element_size(element: i32) -> Option<usize> {
    Some(match element {
        proto::UINT8 | proto::INT8 | proto::BOOL | 17..=20 => 8,
        proto::UINT16 | proto::INT16 | proto::FLOAT16 | proto::BFLOAT16 => 16,
        proto::FLOAT | proto::INT32 | 12 => 32,
        proto::INT64 | proto::DOUBLE | 13 => 64,
        21 | 22 => 4,
        _ => return None,
    })
}

/// The bytes of a file beside or below the model.
fn open(path: &Path, location: &str, files: &mut Files) -> Result<Arc<Bytes>> {
    if let Some(bytes) = files.get(location) {
        return Ok(Arc::clone(bytes));
    }
    let relative = Path::new(location);
    let inside = !location.is_empty()
        && !location.contains('\\')
        && relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !inside {
        let problem = format!(
            "its weights are in `{}`, outside its directory: refused; put both files into one \
             directory and export or save the model there",
            location.escape_debug()
        );
        return Err(Error::format(path, problem));
    }
    let file = path.parent().unwrap_or_else(|| Path::new("")).join(relative);
    if !file.is_file() {
        let remedy = format!(
            "its weights are in that file: put it beside `{}` under this name",
            path.file_name().unwrap_or_default().to_string_lossy()
        );
        let what = format!("`{}`", file.display());
        return Err(Error::missing(path.display().to_string(), what, remedy));
    }
    let bytes = map(&file)?;
    files.insert(location.to_owned(), Arc::clone(&bytes));
    Ok(bytes)
}
