//! Rows that come one after the other from a pipe: tables, JSON lines, an `.npy` matrix.
//!
//! Some rows at a time become a set in memory, so that memory does not grow with their number.

mod guard;
mod json;
mod matrix;

use std::io::{Cursor, Read};
use std::path::Path;

use super::shard::Shard;
use super::table::Table;
use super::{FeatureSet, OpenOptions};
use crate::error::{Error, Result};
use crate::io::{Array, Budget, Texts, kind_of};
use guard::Guard;
use json::JsonLines;
use matrix::MatrixRows;

/// What a stream is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamForm {
    /// A table of text, as [`FeatureSet::open`] reads it.
    Csv,
    /// A JSON value a line: a row of `avg` as an array, or an object of fields.
    Jsonl,
    /// An `.npy` matrix of `avg`.
    Npy,
}

/// Bytes of the values of some rows at a time.
const BLOCK: usize = 16 << 20;

/// Longest line: a row of a hundred thousand features in full.
const LONGEST_LINE: usize = 1 << 22;

/// Rows of features that are read one after the other.
pub struct FeatureStream<'r> {
    name: String,
    rows: Rows<'r>,
    read: u64,
    notices: Vec<String>,
}

enum Rows<'r> {
    Table(Table<'r>),
    Json(JsonLines<'r>),
    Matrix(MatrixRows<'r>),
}

/// Some rows as arrays, with their names.
#[derive(Default)]
struct Piece {
    arrays: Vec<(String, Array)>,
    names: Option<Texts>,
}

impl<'r> FeatureStream<'r> {
    /// Begin to read rows, in a form that is told or else found by the first bytes; `name` is
    /// used in messages.
    ///
    /// # Errors
    /// If nothing comes, or something else than rows of features.
    pub fn open(
        name: &str,
        mut reader: Box<dyn Read + 'r>,
        form: Option<StreamForm>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let path = Path::new(name);
        let mut start = Vec::new();
        // Enough for what tells the form, and no more than comes with it.
        while start.len() < 8 && !start.contains(&b'\n') {
            let mut piece = vec![0; 1 << 13];
            match reader.read(&mut piece) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", path)(e)),
                Ok(0) => break,
                Ok(n) => start.extend(&piece[..n]),
            }
        }
        if start.starts_with(b"\xef\xbb\xbf") {
            start.drain(..3);
        }
        if start.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::format(path, "is empty: no row came"));
        }
        let form = form.map_or_else(|| found(path, &start), Ok)?;
        let reader: Box<dyn Read + 'r> = Box::new(Cursor::new(start).chain(reader));
        let lines = |reader| -> Box<dyn Read + 'r> { Box::new(Guard::new(reader, LONGEST_LINE)) };
        let mut notices = Vec::new();
        let label = options.label_column.as_deref();
        let rows = match form {
            StreamForm::Csv => {
                let table = Table::open(path, lines(reader), label, &mut notices)?;
                if table.width() == 0 {
                    let remedy = "a column of numbers for each feature is expected";
                    return Err(Error::missing(name, "features", remedy));
                }
                Rows::Table(table.without_labels())
            }
            StreamForm::Jsonl => Rows::Json(JsonLines::new(path, lines(reader))),
            StreamForm::Npy => Rows::Matrix(MatrixRows::open(path, reader)?),
        };
        Ok(FeatureStream { name: name.to_owned(), rows, read: 0, notices })
    }

    /// What is worth telling about how it is read.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The next rows, at most `most`; after the first no more than come while `more` says that
    /// some are there, so that none waits for those behind it. `None` at the end.
    ///
    /// # Errors
    /// If a row is not like the first, a value is no finite number, or reading fails.
    pub fn next(&mut self, most: usize, more: &dyn Fn() -> bool) -> Result<Option<FeatureSet>> {
        let within = |width: usize| most.min(BLOCK / (4 * width).max(1)).max(1);
        let piece = match &mut self.rows {
            Rows::Table(table) => {
                let read = table.read(within(table.width()), &mut Budget::of_content(0), more)?;
                Piece { arrays: read.arrays, names: read.names }
            }
            Rows::Json(lines) => lines.read(most, BLOCK, more)?,
            Rows::Matrix(matrix) => matrix.read(within(matrix.width()))?,
        };
        let count = piece.arrays.first().map_or(0, |(_, array)| array.rows());
        if count == 0 {
            return Ok(None);
        }
        let name = match self.read {
            0 => self.name.clone(),
            read => format!("{} (row {read} there is row 0)", self.name),
        };
        self.read += count as u64;
        let shard = Shard::new(Path::new(&name), piece.arrays)?.named(piece.names)?;
        FeatureSet::assemble(Path::new(&name), Vec::new(), vec![shard]).map(Some)
    }
}

/// The form that the first bytes tell.
fn found(path: &Path, start: &[u8]) -> Result<StreamForm> {
    let text = start.trim_ascii_start();
    match kind_of(start) {
        Some(crate::io::NPY) => Ok(StreamForm::Npy),
        _ if text.starts_with(b"{") || text.starts_with(b"[") => Ok(StreamForm::Jsonl),
        None | Some("a CSV text" | "a text") => Ok(StreamForm::Csv),
        Some(kind) => {
            let problem = format!("is {kind}, which cannot be read from a pipe: name the file");
            Err(Error::format(path, problem))
        }
    }
}

#[cfg(test)]
mod tests;
