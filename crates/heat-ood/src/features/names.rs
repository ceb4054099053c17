//! Names of the rows: of images, their files.
//!
//! In safetensors they are the bytes `name` (U8), UTF-8 texts one after the other, and
//! `name_offset` (I64), where each begins and the last ends: N + 1 numbers. In numpy's formats they
//! are the texts `name`, in tables a column.

use std::borrow::Cow;
use std::path::Path;

use super::FeatureSet;
use crate::error::{Error, Result};
use crate::io::{TensorFile, Texts};
use crate::printable;

/// The array or column of names.
pub(super) const NAME: &str = "name";

/// Where the names begin in the bytes of a safetensors file.
pub(super) const OFFSETS: &str = "name_offset";

/// Names of the rows of a set, looked up where they lie: [`FeatureSet::names`].
#[derive(Clone, Copy)]
pub struct RowNames<'a>(&'a FeatureSet);

impl<'a> RowNames<'a> {
    /// The name of a row as it is stored, which may be any text of a file: see
    /// [`RowNames::printable`].
    pub fn get(self, row: usize) -> Cow<'a, str> {
        let row = self.0.view.stored_row(row);
        let shard = self.0.shard_of(row);
        shard.names.as_ref().map_or("".into(), |names| names.get(row - shard.start))
    }

    /// The name of a row as one short line that any terminal shows.
    pub fn printable(self, row: usize) -> String {
        printable(&self.get(row))
    }
}

impl FeatureSet {
    /// Names of the rows, where the set has them: of images, the files they came from.
    pub fn names(&self) -> Option<RowNames<'_>> {
        self.shards[0].names.as_ref().map(|_| RowNames(self))
    }

    /// The first of some rows by number, and by name where they have one, for messages.
    pub(crate) fn rows_text(&self, rows: &[u32]) -> String {
        const LISTED: usize = 10;
        let text = |row: &u32| match self.names() {
            Some(names) => format!("{row} ({})", names.printable(*row as usize)),
            None => row.to_string(),
        };
        let listed: Vec<String> = rows.iter().take(LISTED).map(text).collect();
        let more = if rows.len() > LISTED { ", …" } else { "" };
        format!("row {}{more}", listed.join(", "))
    }
}

/// Names of a safetensors file.
///
/// # Errors
/// If they are in another form.
pub(super) fn of_tensors(file: &TensorFile) -> Result<Option<Texts>> {
    let (Some(bytes), Some(offsets)) = (file.array(NAME), file.array(OFFSETS)) else {
        return Ok(None);
    };
    Texts::joined(bytes?, offsets?).map(Some).map_err(|problem| wrong(file.path(), &problem))
}

pub(super) fn wrong(path: &Path, problem: &str) -> Error {
    let remedy = "take the names out of the file, or create it again";
    Error::format(path, format!("`{NAME}` {problem}: {remedy}"))
}
