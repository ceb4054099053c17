//! Quantiles of every column of a stream of rows: exact, in memory that does
//! not depend on the number of rows.
//!
//! A value's key (its bits, in order) is settled from the top: 11 bits of it,
//! 11 more, the last 10, with a pass for each. Values that were f16 or bf16
//! have nothing in the last 10.

use super::quantile::{interpolate, key, ranks, unkey};
use crate::error::{Error, Result};
use crate::math::parallel::{Pieces, SlicesMut};

/// Bits that a pass settles, but for the last of 10.
const BITS: u32 = 11;
const BINS: usize = 1 << BITS;

/// Bits left open by the first pass, and by the second.
const OPEN: [u32; 2] = [32 - BITS, 32 - 2 * BITS];

/// Columns that one task counts: its tables stay in the second-level cache.
const COLUMNS: usize = 32;

/// Most columns: tables of 1 GiB.
const MOST: usize = 1 << 15;

/// Counts of each column's values by their topmost bits: the first pass.
#[derive(Debug, Clone)]
pub struct ColumnCounts {
    d: usize,
    rows: u64,
    counts: Vec<u32>,
    /// Whether the last bits of every value are zero.
    halves: bool,
}

impl ColumnCounts {
    /// No rows yet.
    ///
    /// # Errors
    /// If there are too many columns.
    pub fn new(d: usize) -> Result<Self> {
        if d > MOST {
            let problem =
                format!("{d} columns, and quantiles of {MOST} are the most; use `pca=<n>`");
            return Err(Error::Fit { what: "quantiles of columns".into(), problem });
        }
        Ok(ColumnCounts { d, rows: 0, counts: vec![0; d * BINS], halves: true })
    }

    /// Count `rows` (`[n, d]`), finite, on the current pool.
    pub fn update(&mut self, rows: &[f32]) {
        let d = self.d;
        self.rows += (rows.len() / d) as u64;
        let tables = self.counts.par_chunks_mut(COLUMNS * BINS).enumerate();
        let low: Vec<u32> = tables
            .map(|(c, tables)| {
                let (start, width) = (c * COLUMNS, tables.len() / BINS);
                let mut low = 0;
                for row in rows.chunks_exact(d) {
                    let values = &row[start..start + width];
                    for (&v, table) in values.iter().zip(tables.chunks_exact_mut(BINS)) {
                        table[(key(v) >> OPEN[0]) as usize] += 1;
                        low |= v.to_bits();
                    }
                }
                low
            })
            .collect();
        self.halves &= low.iter().all(|low| low & ((1 << OPEN[1]) - 1) == 0);
    }

    /// The quantiles `qs` of every column, `[qs, d]`, with linear
    /// interpolation; `pass` must [update](Within::update) its argument with all rows again, in
    /// blocks, and is run once or twice.
    ///
    /// # Errors
    /// Whatever `pass` returns, or if there are no rows or 2³² and more.
    pub fn quantiles(
        &self,
        qs: &[f64],
        mut pass: impl FnMut(Within) -> Result<Within>,
    ) -> Result<Vec<f64>> {
        if self.rows == 0 || self.rows > u64::from(u32::MAX) {
            let problem = format!("{} rows, between 1 and {} are possible", self.rows, u32::MAX);
            return Err(Error::Fit { what: "quantiles of columns".into(), problem });
        }
        let wanted: Vec<([u64; 2], f64)> = qs.iter().map(|q| ranks(self.rows, *q)).collect();
        let targets = 2 * qs.len();
        let of_column = |table: &[u32]| -> Vec<Found> {
            let ranks = wanted.iter().flat_map(|(ranks, _)| ranks);
            ranks.map(|&rank| Found { prefix: 0, rest: rank }.within(table, BITS)).collect()
        };
        let mut found: Vec<Found> = self.counts.chunks_exact(BINS).flat_map(of_column).collect();
        let last = if self.halves { &OPEN[1..] } else { &[OPEN[1], 0][..] };
        for &open in last {
            let bits = if open == 0 { OPEN[1] } else { BITS };
            let counts = vec![0u32; self.d * targets * BINS];
            let Within { found: before, counts, .. } =
                pass(Within { d: self.d, targets, found, at: [open, bits], counts })?;
            let tables = counts.chunks_exact(BINS);
            found = before.iter().zip(tables).map(|(f, table)| f.within(table, bits)).collect();
        }
        let open = if self.halves { OPEN[1] } else { 0 };
        let value = |f: &Found| {
            let prefix = f.prefix << open;
            // The keys of negative values are their bits inverted.
            f64::from(unkey(if prefix >> 31 == 1 { prefix } else { prefix | ((1 << open) - 1) }))
        };
        let of_quantile = |(i, (_, t)): (usize, &([u64; 2], f64))| {
            let t = *t;
            let pairs = found.chunks_exact(targets).map(move |f| (&f[2 * i], &f[2 * i + 1]));
            pairs.map(move |(a, b)| interpolate(value(a), value(b), t)).collect::<Vec<_>>()
        };
        Ok(wanted.iter().enumerate().flat_map(of_quantile).collect())
    }
}

/// What is known of the value of a rank: the topmost bits of its key, and its
/// rank among the values that share them.
#[derive(Debug, Clone)]
struct Found {
    prefix: u32,
    rest: u64,
}

impl Found {
    /// More of it, from counts by the next `bits` bits.
    fn within(&self, table: &[u32], bits: u32) -> Found {
        let mut rest = self.rest;
        for (bin, &count) in table.iter().enumerate() {
            if rest < u64::from(count) {
                return Found { prefix: self.prefix << bits | bin as u32, rest };
            }
            rest -= u64::from(count);
        }
        Found { prefix: self.prefix << bits | ((1 << bits) - 1), rest: 0 }
    }
}

/// Counts of the values that share their topmost bits with what was found, by the bits that follow:
/// another pass.
#[derive(Debug, Clone)]
pub struct Within {
    d: usize,
    /// Values looked for in each column.
    targets: usize,
    found: Vec<Found>,
    /// Bits that remain after those counted by, and these.
    at: [u32; 2],
    /// Tables `[d, targets]`.
    pub(crate) counts: Vec<u32>,
}

impl Within {
    /// Bits that remain open after this pass.
    pub(crate) fn open(&self) -> u32 {
        self.at[0]
    }

    /// Count `rows` (`[n, d]`), on the current pool.
    pub fn update(&mut self, rows: &[f32]) {
        let (d, targets, [open, bits]) = (self.d, self.targets, self.at);
        let pieces = self.counts.par_chunks_mut(COLUMNS * targets * BINS).enumerate();
        pieces.for_each(|(c, tables)| {
            let start = c * COLUMNS;
            let width = tables.len() / (targets * BINS);
            let found = &self.found[start * targets..][..width * targets];
            for row in rows.chunks_exact(d) {
                for (j, &v) in row[start..start + width].iter().enumerate() {
                    let above = key(v) >> (open + bits);
                    let bin = (key(v) >> open & ((1 << bits) - 1)) as usize;
                    for t in j * targets..(j + 1) * targets {
                        if found[t].prefix == above {
                            tables[t * BINS + bin] += 1;
                        }
                    }
                }
            }
        });
    }
}

impl ColumnCounts {
    /// Columns, rows, and whether the last bits of every value are zero; then what was counted.
    pub(crate) fn parts(&self) -> ([u64; 3], &[u32]) {
        ([self.d as u64, self.rows, u64::from(self.halves)], &self.counts)
    }

    /// Of that many columns, without counts.
    pub(crate) fn of_columns([d, ..]: [u64; 3]) -> Option<Self> {
        usize::try_from(d).ok().filter(|d| *d > 0).and_then(|d| Self::new(d).ok())
    }

    /// Of such parts; `None` if they do not fit each other.
    pub(crate) fn of_parts([d, rows, halves]: [u64; 3], counts: Vec<u32>) -> Option<Self> {
        let d = usize::try_from(d).ok().filter(|d| (1..=MOST).contains(d))?;
        (counts.len() == d * BINS).then_some(ColumnCounts { d, rows, counts, halves: halves != 0 })
    }

    /// Whether another has the same columns, and both together less than 2³² rows.
    pub(crate) fn fits(&self, other: &ColumnCounts) -> bool {
        self.d == other.d && self.rows.saturating_add(other.rows) <= u64::from(u32::MAX)
    }

    /// Add the rows of another that [fits](ColumnCounts::fits).
    pub(crate) fn merge(&mut self, other: &ColumnCounts) {
        self.rows += other.rows;
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a = a.saturating_add(*b));
        self.halves &= other.halves;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::quantile;

    fn check(values: &[f32], d: usize) {
        let mut counts = ColumnCounts::new(d).unwrap();
        values.chunks(97 * d).for_each(|rows| counts.update(rows));
        let qs = [0.0, 0.01, 0.6, 0.95, 1.0];
        let mut passes = 0;
        let got = counts.quantiles(&qs, |mut within| {
            passes += 1;
            values.chunks(131 * d).for_each(|rows| within.update(rows));
            Ok(within)
        });
        let got = got.unwrap();
        assert_eq!(passes, if counts.halves { 1 } else { 2 });
        for j in 0..d {
            let mut column: Vec<f64> =
                values.iter().skip(j).step_by(d).map(|&v| f64::from(v)).collect();
            column.sort_by(f64::total_cmp);
            for (i, q) in qs.iter().enumerate() {
                assert_eq!(got[i * d + j], quantile::sorted(&column, *q), "{j} {q}");
            }
        }
    }

    fn values(n: u32, scale: f32) -> Vec<f32> {
        let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 12) as f32 * scale - 40.0;
        (0..n).map(|i| if i % 3 == 0 { 0.0 } else { value(i) }).collect()
    }

    #[test]
    fn equal_sorting_each_column() {
        for d in [1, 7, 70] {
            check(&values(501 * d as u32, 1e-4), d);
        }
    }

    #[test]
    fn halves_take_a_pass_less() {
        let halves: Vec<f32> = values(3000, 1e-4).iter().map(|v| (v * 8.0).round() / 8.0).collect();
        check(&halves, 5);
    }

    #[test]
    fn too_many_columns_are_refused() {
        assert!(ColumnCounts::new(MOST + 1).is_err());
        let none = ColumnCounts::new(3).unwrap().quantiles(&[0.5], Ok);
        assert!(none.unwrap_err().to_string().contains("0 rows"));
    }
}
