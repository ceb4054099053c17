//! Rows of a set as bytes, by block.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;

use half::{bf16, f16};

use super::underflow::Underflow;
use crate::error::{Error, Result};
use crate::features::Batch;
use crate::features::shard::Shard;
use crate::features::{FeatureSet, Field, Head, Pooling};
use crate::io::Dtype;
use crate::math::blocks;
use crate::math::matmul::Aligned;
use crate::math::parallel::{Pieces, SlicesMut, run_all};
use crate::observe::{Event, Observer};

/// Rows that one task encodes.
const ROWS: usize = 256;

/// Values of a block, about: 16 MiB as f64.
const BLOCK: usize = 1 << 21;

/// A matrix or the labels, as they will be written.
pub(super) struct Column<'a> {
    pub(super) name: &'static str,
    pub(super) source: Source<'a>,
    /// Number of columns; `None` for the labels, a vector.
    pub(super) width: Option<usize>,
    pub(super) dtype: Dtype,
}

/// Where the values come from.
pub(super) enum Source<'a> {
    Field(Field),
    /// Logits of `avg`.
    Head(&'a Head),
    Label,
}

impl Column<'_> {
    /// Values in a row.
    pub(super) fn cols(&self) -> usize {
        self.width.unwrap_or(1)
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.cols() * self.dtype.size()
    }

    /// What becomes 0 of its values, none yet.
    pub(super) fn underflow(&self) -> Underflow {
        Underflow::of(self.name, self.cols(), self.dtype)
    }

    /// Shape with `rows` rows.
    pub(super) fn shape(&self, rows: usize) -> Vec<usize> {
        std::iter::once(rows).chain(self.width).collect()
    }
}

/// Streams columns of a set and reports how far it is.
pub(super) struct Writer<'a> {
    pub(super) set: &'a FeatureSet,
    observer: &'a mut dyn Observer,
    done: u64,
    /// What became 0 in each column, by name.
    underflow: BTreeMap<&'static str, Underflow>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(set: &'a FeatureSet, observer: &'a mut dyn Observer) -> Self {
        Writer { set, observer, done: 0, underflow: BTreeMap::new() }
    }

    /// Write the rows of `range`, row-major and little-endian.
    pub(super) fn rows(
        &mut self,
        column: &Column<'_>,
        range: Range<usize>,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let set = self.set;
        let seen = self.underflow.entry(column.name).or_insert_with(|| column.underflow());
        let rows = |start: usize, bytes: &mut [u8]| {
            if let Source::Label = column.source {
                return labels(set, start..start + bytes.len() / 8, column.dtype, bytes);
            }
            let n = bytes.len() / column.row_bytes();
            let values = values(set, column, start..start + n)?;
            seen.see(start, &values);
            round(set.name(), column, start, &values, bytes)
        };
        stream(column, range, out, rows, |n| {
            self.done += n as u64;
            self.observer.on(Event::Advance { done: self.done, loss: None });
        })
    }

    /// Values of some rows of a column, as they become in its type.
    pub(super) fn values(&mut self, column: &Column<'_>, range: Range<usize>) -> Result<Vec<f64>> {
        let mut values = values(self.set, column, range.clone())?;
        let seen = self.underflow.entry(column.name).or_insert_with(|| column.underflow());
        seen.see(range.start, &values);
        let mut bytes = vec![0; values.len() * column.dtype.size()];
        round(self.set.name(), column, range.start, &values, &mut bytes)?;
        if column.dtype == Dtype::F32 {
            values.iter_mut().for_each(|v| *v = f64::from(*v as f32));
        }
        self.done += range.len() as u64;
        self.observer.on(Event::Advance { done: self.done, loss: None });
        Ok(values)
    }

    /// After the last row: say what became 0.
    ///
    /// # Errors
    /// If a column or a row did.
    pub(super) fn finish(&mut self, columns: &[Column<'_>]) -> Result<()> {
        for column in columns {
            let Some(seen) = self.underflow.get(column.name) else { continue };
            let lost = seen.finish(self.set.name(), 1)?;
            if let Some(text) = seen.warning(self.set.name(), lost) {
                self.observer.on(Event::Warning(&text));
            }
        }
        Ok(())
    }
}

/// Write the rows of `range` by block. `encode` fills bytes with as many rows,
/// from one row on; `written` is told the number of rows of each block.
pub(super) fn stream(
    column: &Column<'_>,
    range: Range<usize>,
    out: &mut Output<'_>,
    encode: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
    mut written: impl FnMut(usize),
) -> Result<()> {
    // Of very wide rows, one at a time.
    let size = match BLOCK / column.cols() {
        few @ 0..ROWS => few.max(1),
        many => many.next_multiple_of(ROWS),
    };
    let mut bytes = Vec::new();
    for block in blocks(range.len(), size) {
        let (start, n) = (range.start + block.start, block.len());
        bytes.resize(n * column.row_bytes(), 0);
        let chunks = bytes.par_chunks_mut(ROWS * column.row_bytes()).enumerate();
        run_all(chunks.map(|(i, out)| encode(start + i * ROWS, out)))?;
        out.write(&bytes)?;
        written(n);
    }
    Ok(())
}

/// A file being written; failures name its final place.
pub(super) struct Output<'a> {
    pub(super) to: &'a mut dyn Write,
    pub(super) place: &'a std::path::Path,
}

impl Output<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(Error::io("write", self.place))
    }
}

/// Values of some rows of a matrix.
fn values(set: &FeatureSet, column: &Column<'_>, range: Range<usize>) -> Result<Vec<f64>> {
    let mut values = vec![0.0f64; range.len() * column.cols()];
    match column.source {
        Source::Label => {}
        Source::Field(field) => {
            set.read_through(field, range, &mut values, Shard::read_f64)?;
        }
        Source::Head(head) => {
            let mut batch = Batch::default();
            let avg = Field::Features(Pooling::Avg);
            set.batch(&crate::features::FieldSet::of(avg), range, &mut batch)?;
            let mut logits = vec![0.0; values.len()];
            head.logits(batch.get(avg), &mut logits, &mut Aligned::default());
            values.iter_mut().zip(logits).for_each(|(v, l)| *v = f64::from(l));
        }
    }
    Ok(values)
}

/// Values of the rows from `start`, rounded to the column's type; `place` is
/// used in messages.
pub(super) fn round(
    place: &str,
    column: &Column<'_>,
    start: usize,
    values: &[f64],
    out: &mut [u8],
) -> Result<()> {
    let Some(i) = floats(values, column.dtype, out) else {
        return Ok(());
    };
    let (name, limit) = limit(column.dtype);
    let larger = if limit < 1e6 { "bf16` or `f32" } else { "f64" };
    Err(Error::format(
        place,
        format!(
            "`{}`, row {}, column {} is {}, beyond the {limit:e} that {name} can hold: \
             write it as `{larger}`, or scale the features",
            column.name,
            start + i / column.cols(),
            i % column.cols(),
            values[i]
        ),
    ))
}

/// Name and largest value of a type.
fn limit(dtype: Dtype) -> (&'static str, f64) {
    match dtype {
        Dtype::F16 => ("f16", f16::MAX.to_f64()),
        Dtype::Bf16 => ("bf16", bf16::MAX.to_f64()),
        Dtype::F32 => ("f32", f64::from(f32::MAX)),
        _ => ("f64", f64::MAX),
    }
}

/// Round to the nearest of `dtype`; the first value that is too large, if any.
fn floats(values: &[f64], dtype: Dtype, out: &mut [u8]) -> Option<usize> {
    let (_, limit) = limit(dtype);
    // Logits that overflow may be NaN.
    let too_large = values.iter().position(|v| v.is_nan() || v.abs() > limit);
    match dtype {
        Dtype::F16 => put(values, out, |v| f16::from_f32(to_odd(v)).to_le_bytes()),
        Dtype::Bf16 => put(values, out, |v| bf16::from_f32(to_odd(v)).to_le_bytes()),
        Dtype::F32 => put(values, out, |v| (v as f32).to_le_bytes()),
        _ => put(values, out, f64::to_le_bytes),
    }
    too_large
}

/// Single precision, rounded to odd: rounded once more, to half precision,
/// it is as if rounded once. (`half` goes by way of the nearest f32 on some
/// processors, and what it gives then depends on the processor.)
fn to_odd(v: f64) -> f32 {
    let nearest = v as f32;
    let back = f64::from(nearest);
    if back == v || nearest.is_infinite() {
        return nearest;
    }
    let bits = nearest.to_bits();
    f32::from_bits(if back.abs() > v.abs() { bits - 1 } else { bits } | 1)
}

fn put<const N: usize>(values: &[f64], out: &mut [u8], bytes: impl Fn(f64) -> [u8; N]) {
    for (o, &v) in out.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *o = bytes(v);
    }
}

fn labels(set: &FeatureSet, range: Range<usize>, dtype: Dtype, out: &mut [u8]) -> Result<()> {
    for (o, row) in out.as_chunks_mut::<8>().0.iter_mut().zip(range) {
        let label = set.raw_label(row)?;
        *o = if dtype == Dtype::F64 { (label as f64).to_le_bytes() } else { label.to_le_bytes() };
        if dtype == Dtype::F64 && label.unsigned_abs() > 1 << 52 {
            let problem = format!("row {row} has label {label}, which f64 cannot hold exactly");
            return Err(Error::format(set.name(), problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: f16 has 10 bits of mantissa, so 1 + 2⁻¹¹ is a tie (to even) and
    /// 1 + 2⁻¹¹ + 2⁻⁴⁰ is not, though single precision would make it one.
    #[test]
    fn rounds_once() {
        let half = |v: f64| {
            let mut out = [0; 2];
            assert_eq!(floats(&[v], Dtype::F16, &mut out), None);
            f16::from_le_bytes(out).to_f64()
        };
        assert_eq!(half(1.0 + 2f64.powi(-11)), 1.0);
        assert_eq!(half(1.0 + 2f64.powi(-11) + 2f64.powi(-40)), 1.0 + 2f64.powi(-10));
        // Just below a tie of single precision, and the smallest numbers of all.
        assert_eq!(half(1.0 + 3.0 * 2f64.powi(-11) - 2f64.powi(-40)), 1.0 + 2f64.powi(-10));
        assert_eq!(half(2f64.powi(-25)), 0.0);
        assert_eq!(half(2f64.powi(-25) + 2f64.powi(-70)), 2f64.powi(-24));
        assert_eq!(half(1e-300), 0.0);
        assert_eq!(half(65504.0), 65504.0);
        assert_eq!(half(-0.0).to_bits(), (-0.0f64).to_bits());
    }

    #[test]
    fn too_large_values_are_found() {
        let mut out = [0; 16];
        assert_eq!(floats(&[1.0, 65505.0], Dtype::F16, &mut out), Some(1));
        assert_eq!(floats(&[1.0, -65505.0], Dtype::Bf16, &mut out), None);
        assert_eq!(floats(&[3.5e38], Dtype::F32, &mut out), Some(0));
        assert_eq!(floats(&[3.5e38], Dtype::F64, &mut out), None);
    }
}
