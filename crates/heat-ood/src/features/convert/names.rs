//! Names of rows as bytes, row by row: memory does not grow with N.

use std::borrow::Cow;
use std::ops::Range;

use super::encode::Output;
use super::numpy::{numpy_text, text_header};
use crate::error::Result;
use crate::features::FeatureSet;

/// Bytes that are written together, about.
const PIECE: usize = 1 << 16;

/// The names of some rows.
#[derive(Clone)]
pub(super) struct NameRows<'a> {
    source: Source<'a>,
    rows: Range<usize>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Set(&'a FeatureSet),
    List(&'a [String]),
}

impl<'a> NameRows<'a> {
    /// Of rows of a set, if it has names.
    pub fn of(set: &'a FeatureSet, rows: Range<usize>) -> Option<Self> {
        set.names().map(|_| NameRows { source: Source::Set(set), rows })
    }

    /// Of a list.
    pub fn listed(names: &'a [String]) -> Self {
        NameRows { source: Source::List(names), rows: 0..names.len() }
    }

    /// The name of a row.
    pub fn get(&self, row: usize) -> Cow<'a, str> {
        match self.source {
            Source::Set(set) => set.names().map_or("".into(), |names| names.get(row)),
            Source::List(names) => names[row].as_str().into(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    fn each(&self) -> impl Iterator<Item = Cow<'a, str>> {
        self.rows.clone().map(|row| self.get(row))
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.each().map(|name| name.len()).sum()
    }

    /// Where each begins and the last ends.
    pub fn write_offsets(&self, out: &mut Output<'_>) -> Result<()> {
        let mut end = 0i64;
        let ends = self.each().map(|name| {
            end += name.len() as i64;
            end
        });
        pieces(std::iter::once(0).chain(ends), out, |piece, end| piece.extend(end.to_le_bytes()))
    }

    /// One after the other.
    pub fn write_joined(&self, out: &mut Output<'_>) -> Result<()> {
        pieces(self.each(), out, |piece, name| piece.extend(name.as_bytes()))
    }

    /// Characters of the longest.
    pub fn width(&self) -> usize {
        self.each().map(|name| name.chars().count()).max().unwrap_or(0).max(1)
    }

    /// As numpy's array of texts of equal width.
    pub fn write_numpy(&self, out: &mut Output<'_>) -> Result<()> {
        let width = self.width();
        out.write(&text_header(width, self.len()))?;
        pieces(self.each(), out, |piece, name| piece.extend(numpy_text(&name, width)))
    }
}

/// Write items as bytes, many together.
fn pieces<T>(
    items: impl Iterator<Item = T>,
    out: &mut Output<'_>,
    put: impl Fn(&mut Vec<u8>, T),
) -> Result<()> {
    let mut piece = Vec::new();
    for item in items {
        put(&mut piece, item);
        if piece.len() >= PIECE {
            out.write(&piece)?;
            piece.clear();
        }
    }
    out.write(&piece)
}
