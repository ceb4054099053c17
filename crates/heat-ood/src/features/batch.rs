//! What a scorer reads of a set, and some rows of it.

use std::borrow::Cow;
use std::ops::Range;

use super::{FeatureSet, Field, Part, Pooling};
use crate::error::{Error, Result};

/// Which fields a scorer reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSet(Vec<Field>);

impl FieldSet {
    /// One field.
    pub fn of(field: Field) -> Self {
        FieldSet(vec![field])
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
    #[must_use]
    pub fn and(mut self, other: FieldSet) -> Self {
        self.0.extend(other.0);
        self.0.sort_by_key(|field| field.order());
        self.0.dedup();
        self
    }

    /// The same fields of a part.
    #[must_use]
    pub fn within(mut self, part: Part) -> Self {
        self.0.iter_mut().for_each(|field| *field = field.within(part));
        self
    }

    /// The fields of files that these are made of.
    #[must_use]
    pub(crate) fn stored(&self) -> Self {
        let sides = |field: &Field| match field.base() {
            Field::Features(Pooling::AvgStd) => field.sides().to_vec(),
            _ => vec![*field],
        };
        FieldSet::default().and(FieldSet(self.0.iter().flat_map(sides).collect()))
    }

    /// The fields, those of the set itself first.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.0.iter().copied()
    }
}

/// Some consecutive rows of a set, as single precision: its own, or those of
/// the set where they lie there as they are.
#[derive(Debug, Clone, Default)]
pub struct Batch<'a> {
    rows: usize,
    fields: Vec<Values<'a>>,
}

/// The values of a field, `[rows, dim]`.
#[derive(Debug, Clone)]
struct Values<'a> {
    field: Field,
    dim: usize,
    values: Cow<'a, [f32]>,
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
            let dim = values.len() / rows;
            *batch.slot(field) = Values { field, dim, values: Cow::Owned(values) };
        }
        Ok(batch)
    }

    /// The fields that it has.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.fields.iter().filter(|f| f.dim > 0).map(|f| f.field)
    }

    /// Where a field's values are kept, in the usual order of fields.
    fn slot(&mut self, field: Field) -> &mut Values<'a> {
        let at = self.fields.partition_point(|f| f.field.order() < field.order());
        if self.fields.get(at).is_none_or(|f| f.field != field) {
            self.fields.insert(at, Values { field, dim: 0, values: Cow::Borrowed(&[]) });
        }
        &mut self.fields[at]
    }

    fn find(&self, field: Field) -> Option<&Values<'a>> {
        self.fields.iter().find(|f| f.field == field)
    }

    /// The fields of a part, as a batch of their own.
    pub(crate) fn part(&self, part: Part) -> Batch<'_> {
        let inside = |f: &'_ Values<'a>| Some((f.field.inside(part)?, f.dim));
        let mut batch = Batch { rows: self.rows, fields: Vec::new() };
        for own in &self.fields {
            if let Some((field, dim)) = inside(own) {
                *batch.slot(field) = Values { field, dim, values: Cow::Borrowed(&own.values) };
            }
        }
        batch
    }

    /// Add `scale`·`values` (`[rows, dim]`) to a field, which starts at zero.
    pub(crate) fn add(&mut self, field: Field, scale: f64, values: &[f64]) {
        let dim = values.len() / self.rows.max(1);
        let slot = self.slot(field);
        slot.dim = dim;
        let out = slot.values.to_mut();
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
        self.find(field).map_or(0, |f| f.dim)
    }

    /// A field's values, `[rows, dim]`; empty when it was not asked for.
    pub fn get(&self, field: Field) -> &[f32] {
        self.find(field).map_or(&[], |f| &f.values)
    }
}

impl FeatureSet {
    /// Read a batch of all the fields in `needs`.
    ///
    /// # Errors
    /// As [`FeatureSet::read`].
    pub fn batch<'a>(
        &'a self,
        needs: &FieldSet,
        range: Range<usize>,
        batch: &mut Batch<'a>,
    ) -> Result<()> {
        batch.rows = range.len();
        for field in needs.fields() {
            let dim = self.require(field)?;
            let slot = batch.slot(field);
            slot.dim = dim;
            let values = &mut slot.values;
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
