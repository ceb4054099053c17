//! Values that a narrow type makes 0.
//!
//! A few do no harm and are counted. A column or a row in which nothing but 0
//! is left is lost, and that is refused.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::io::Dtype;

/// What was seen of the values of one matrix.
pub(super) struct Underflow {
    name: &'static str,
    dtype: Dtype,
    /// Values up to here become 0; 0 where none does.
    largest: f64,
    columns: Vec<Seen>,
    lost: AtomicU64,
    /// One more than the first row that is lost.
    row: AtomicUsize,
}

/// Of one column: values that stay, and that become 0.
#[derive(Default)]
struct Seen {
    kept: AtomicU32,
    lost: AtomicU32,
}

impl Underflow {
    /// Of a matrix of that name, so many columns and this type.
    pub(super) fn of(name: &'static str, cols: usize, dtype: Dtype) -> Self {
        // Half of the smallest number, which is a tie and goes to the even 0.
        let exponent = match dtype {
            Dtype::F16 => -25,
            Dtype::Bf16 => -134,
            Dtype::F32 => -150,
            _ => 0,
        };
        let largest = if exponent == 0 { 0.0 } else { 2f64.powi(exponent) };
        let columns = if exponent == 0 { 0 } else { cols };
        let columns = (0..columns).map(|_| Seen::default()).collect();
        let (lost, row) = (AtomicU64::new(0), AtomicUsize::new(0));
        Underflow { name, dtype, largest, columns, lost, row }
    }

    /// Take in the rows from `start`.
    pub(super) fn see(&self, start: usize, values: &[f64]) {
        let cols = self.columns.len();
        if cols == 0 {
            return;
        }
        let (mut kept, mut lost) = (vec![0u32; cols], vec![0u32; cols]);
        for (i, row) in values.chunks_exact(cols).enumerate() {
            let (mut some_kept, mut some_lost) = (false, false);
            for ((v, kept), lost) in row.iter().zip(&mut kept).zip(&mut lost) {
                let (zero, small) = (*v == 0.0, v.abs() <= self.largest);
                *kept += u32::from(!small);
                *lost += u32::from(small && !zero);
                some_kept |= !small;
                some_lost |= small && !zero;
            }
            if some_lost && !some_kept {
                let row = start + i + 1;
                let smallest = |now| (now == 0 || row < now).then_some(row);
                let _ = self.row.fetch_update(Relaxed, Relaxed, smallest);
            }
        }
        for (seen, (kept, lost)) in self.columns.iter().zip(kept.into_iter().zip(lost)) {
            seen.kept.fetch_add(kept, Relaxed);
            seen.lost.fetch_add(lost, Relaxed);
            self.lost.fetch_add(u64::from(lost), Relaxed);
        }
    }

    /// How many values became 0, after the last row. A column in which fewer
    /// than `few` were lost does not count as one.
    ///
    /// # Errors
    /// If a column or a row has become 0.
    pub(super) fn finish(&self, place: &str, few: u32) -> Result<u64> {
        let lost = self.lost.load(Relaxed);
        let gone = |s: &&Seen| {
            s.kept.load(Relaxed) == 0 && s.lost.load(Relaxed) > 0 && s.lost.load(Relaxed) >= few
        };
        let columns = self.columns.iter().filter(gone).count();
        let first = self.columns.iter().position(|s| gone(&s));
        let row = self.row.load(Relaxed);
        let what = match (first, row) {
            (Some(first), _) => format!("all of column {first} ({columns} column(s) in all)"),
            (None, 0) => return Ok(lost),
            (None, row) => format!("all of row {}", row - 1),
        };
        let kept: u64 = self.columns.iter().map(|s| u64::from(s.kept.load(Relaxed))).sum();
        let wider = if self.dtype == Dtype::F32 { "f64" } else { "f32" };
        let problem = format!(
            "{lost} of {} values of `{}` that are not 0 would become 0 as {}, {what}: write it as \
             `{wider}`, or scale the features",
            lost + kept,
            self.name,
            name(self.dtype),
        );
        Err(Error::format(place, problem))
    }

    /// What to say of so many values.
    pub(super) fn warning(&self, place: &str, lost: u64) -> Option<String> {
        let (field, narrow) = (self.name, name(self.dtype));
        let text = format!("{lost} values of `{field}` of {place} became 0 as {narrow}");
        (lost > 0).then_some(text)
    }
}

fn name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "f16",
        Dtype::Bf16 => "bf16",
        Dtype::F32 => "f32",
        _ => "f64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(dtype: Dtype, rows: &[[f64; 2]], few: u32) -> Result<u64> {
        let underflow = Underflow::of("avg", 2, dtype);
        underflow.see(0, rows.as_flattened());
        underflow.finish("x", few)
    }

    /// The smallest half is 2⁻²⁴, the smallest bf16 2⁻¹³³, the smallest f32 2⁻¹⁴⁹.
    #[test]
    fn what_is_lost_is_counted_and_what_dies_is_refused() {
        let (tie, above) = (2f64.powi(-25), 2f64.powi(-25) * 1.0001);
        assert_eq!(seen(Dtype::F16, &[[1.0, tie], [0.5, above]], 1).unwrap(), 1);
        assert_eq!(seen(Dtype::Bf16, &[[1.0, tie], [0.5, 0.0]], 1).unwrap(), 0);
        assert_eq!(seen(Dtype::F64, &[[1e-300, 0.0]], 1).unwrap(), 0);
        assert_eq!(seen(Dtype::F16, &[[0.0, 0.0], [1.0, 0.0]], 1).unwrap(), 0);
        let said = |dtype, rows: &[[f64; 2]]| seen(dtype, rows, 1).unwrap_err().to_string();
        let column = said(Dtype::F16, &[[1.0, 1e-9], [2.0, -1e-9]]);
        assert!(column.contains("2 of 4 values") && column.contains("column 1"), "{column}");
        assert!(column.contains("write it as `f32`"), "{column}");
        let row = said(Dtype::F16, &[[1.0, 1.0], [0.0, 1e-9]]);
        assert!(row.contains("all of row 1"), "{row}");
        assert!(said(Dtype::F32, &[[1.0, 1e-60]]).contains("write it as `f64`"));
        assert_eq!(seen(Dtype::F16, &[[1.0, 1e-9], [2.0, 0.0]], 2).unwrap(), 1);
    }

    /// The bounds are those of the rounding itself.
    #[test]
    fn the_bounds_are_those_of_rounding() {
        let half = |v: f64| half::f16::from_f64(v).to_f64();
        assert_eq!((half(2f64.powi(-25)), half(2f64.powi(-25) * 1.01) > 0.0), (0.0, true));
        let brain = |v: f64| half::bf16::from_f64(v).to_f64();
        assert_eq!((brain(2f64.powi(-134)), brain(2f64.powi(-134) * 1.01) > 0.0), (0.0, true));
        assert_eq!((2f64.powi(-150) as f32, (2f64.powi(-150) * 1.01) as f32 > 0.0), (0.0, true));
    }
}
