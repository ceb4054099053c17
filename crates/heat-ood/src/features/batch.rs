//! What a scorer reads of a set, and some rows of it.

use std::ops::Range;

use super::{FeatureSet, Field};
use crate::error::{Error, Result};

/// Which fields a scorer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs([bool; 4]);

impl Needs {
    /// One field.
    pub fn of(field: Field) -> Self {
        let mut needs = Needs::default();
        needs.0[field.index()] = true;
        needs
    }

    /// One field, which must have `dim` columns: those of training.
    ///
    /// # Errors
    /// If the set lacks it or has another number of columns.
    pub(crate) fn checked(set: &FeatureSet, field: Field, dim: usize) -> Result<Self> {
        let got = set.require(field)?;
        if got == dim {
            return Ok(Needs::of(field));
        }
        Err(Error::Shape {
            place: set.name().into(),
            tensor: field.name().into(),
            expected: format!("[N, {dim}], as in training"),
            got: format!("[{}, {got}]", set.len()),
        })
    }

    /// Both this and `other`.
    pub fn and(self, other: Needs) -> Self {
        Needs(std::array::from_fn(|i| self.0[i] || other.0[i]))
    }

    fn fields(self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |f| self.0[f.index()])
    }
}

/// Some consecutive rows of a set, as single precision.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    rows: usize,
    dims: [usize; 4],
    values: [Vec<f32>; 4],
}

impl Batch {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of a field, 0 when it was not asked for.
    pub fn dim(&self, field: Field) -> usize {
        self.dims[field.index()]
    }

    /// A field's values, `[rows, dim]`; empty when it was not asked for.
    pub fn get(&self, field: Field) -> &[f32] {
        &self.values[field.index()]
    }
}

impl FeatureSet {
    /// Read a batch of all the fields in `needs`.
    ///
    /// # Errors
    /// As [`FeatureSet::read`].
    pub fn batch(&self, needs: Needs, range: Range<usize>, batch: &mut Batch) -> Result<()> {
        batch.rows = range.len();
        for field in needs.fields() {
            let dim = self.require(field)?;
            batch.dims[field.index()] = dim;
            let values = &mut batch.values[field.index()];
            values.resize(range.len() * dim, 0.0);
            self.read(field, range.clone(), values)?;
        }
        Ok(())
    }
}
