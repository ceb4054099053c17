//! What a scorer reads of a set, and some rows of it.

use std::borrow::Cow;
use std::ops::Range;

use super::{FIELDS, FeatureSet, Field};
use crate::error::{Error, Result};

/// Which fields a scorer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldSet([bool; FIELDS]);

impl FieldSet {
    /// One field.
    pub fn of(field: Field) -> Self {
        let mut needs = FieldSet::default();
        needs.0[field.index()] = true;
        needs
    }

    /// One field, which must have `dim` columns: those of training.
    ///
    /// # Errors
    /// If the set lacks it or has another number of columns.
    pub fn checked(set: &FeatureSet, field: Field, dim: usize) -> Result<Self> {
        let got = set.require(field)?;
        if got == dim {
            return Ok(FieldSet::of(field));
        }
        Err(Error::Shape {
            place: set.name().into(),
            tensor: field.name().into(),
            expected: format!("[N, {dim}], as in training"),
            got: format!("[{}, {got}]", set.len()),
        })
    }

    /// Both this and `other`.
    pub fn and(self, other: FieldSet) -> Self {
        FieldSet(std::array::from_fn(|i| self.0[i] || other.0[i]))
    }

    /// The fields.
    pub fn fields(self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |f| self.0[f.index()])
    }
}

/// Some consecutive rows of a set, as single precision: its own, or those of
/// the set where they lie there as they are.
#[derive(Debug, Clone, Default)]
pub struct Batch<'a> {
    rows: usize,
    dims: [usize; FIELDS],
    values: [Cow<'a, [f32]>; FIELDS],
}

impl<'a> Batch<'a> {
    /// A batch of these fields, each `[rows, dim]`; empty ones are left out.
    ///
    /// # Errors
    /// If a field's values are not a whole number of `rows`.
    pub fn of(rows: usize, fields: impl IntoIterator<Item = (Field, Vec<f32>)>) -> Result<Self> {
        let mut batch = Batch { rows, ..Batch::default() };
        for (field, values) in fields.into_iter().filter(|(_, v)| !v.is_empty()) {
            if rows == 0 || !values.len().is_multiple_of(rows) {
                return Err(Error::Shape {
                    place: "batch".into(),
                    tensor: field.name().into(),
                    expected: format!("[{rows}, D]"),
                    got: format!("{} values", values.len()),
                });
            }
            batch.dims[field.index()] = values.len() / rows;
            batch.values[field.index()] = Cow::Owned(values);
        }
        Ok(batch)
    }

    /// The fields that it has.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(|f| self.dims[f.index()] > 0)
    }

    /// Add `scale`·`values` (`[rows, dim]`) to a field, which starts at zero.
    pub(crate) fn add(&mut self, field: Field, scale: f64, values: &[f64]) {
        let i = field.index();
        self.dims[i] = values.len() / self.rows.max(1);
        let out = self.values[i].to_mut();
        out.resize(values.len(), 0.0);
        for (o, v) in out.iter_mut().zip(values) {
            *o += (scale * v) as f32;
        }
    }

    /// Add the fields of `other`, row `i` times `factor(i)`.
    pub(crate) fn add_rows(&mut self, other: &Batch<'_>, factor: impl Fn(usize) -> f64) {
        for field in other.fields() {
            let dim = other.dim(field);
            let rows = other.get(field).chunks_exact(dim).enumerate();
            let scaled: Vec<f64> = rows
                .flat_map(|(i, row)| {
                    let factor = factor(i);
                    row.iter().map(move |&v| factor * f64::from(v))
                })
                .collect();
            self.add(field, 1.0, &scaled);
        }
    }

    /// A batch of as many rows without any field.
    pub(crate) fn empty_like(&self) -> Batch<'static> {
        Batch { rows: self.rows, ..Batch::default() }
    }

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
    pub fn batch<'a>(
        &'a self,
        needs: FieldSet,
        range: Range<usize>,
        batch: &mut Batch<'a>,
    ) -> Result<()> {
        batch.rows = range.len();
        for field in needs.fields() {
            let dim = self.require(field)?;
            batch.dims[field.index()] = dim;
            let values = &mut batch.values[field.index()];
            if let Some(stored) = self.borrow_rows(field, range.clone())? {
                *values = Cow::Borrowed(stored);
                continue;
            }
            if let Cow::Borrowed(_) = values {
                *values = Cow::Owned(Vec::new());
            }
            let values = values.to_mut();
            values.resize(range.len() * dim, 0.0);
            self.read(field, range.clone(), values)?;
        }
        Ok(())
    }
}
