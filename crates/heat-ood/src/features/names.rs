//! Names of the rows: of images, their files.
//!
//! In safetensors they are the bytes `name` (U8), UTF-8 texts one after the other, and
//! `name_offset` (I64), where each begins and the last ends: N + 1 numbers. In numpy's formats they
//! are the texts `name`, in tables a column.

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::{TensorFile, Texts};

/// The array or column of names.
pub(in crate::features) const NAME: &str = "name";

/// Where the names begin in the bytes of a safetensors file.
pub(in crate::features) const OFFSETS: &str = "name_offset";

/// Names of a safetensors file.
///
/// # Errors
/// If they are in another form.
pub(in crate::features) fn of_tensors(file: &TensorFile) -> Result<Option<Texts>> {
    let (Some(bytes), Some(offsets)) = (file.array(NAME), file.array(OFFSETS)) else {
        return Ok(None);
    };
    Texts::joined(bytes?, offsets?).map(Some).map_err(|problem| wrong(file.path(), &problem))
}

pub(in crate::features) fn wrong(path: &Path, problem: &str) -> Error {
    let remedy = "take the names out of the file, or create it again";
    Error::format(path, format!("`{NAME}` {problem}: {remedy}"))
}
