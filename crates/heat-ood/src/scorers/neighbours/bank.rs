//! Rows that queries are compared with, and their orders in single precision: a
//! bank of `cfood` and `relation`, which want the orders of all rows.
//!
//! The rows are shared: those of an open detector stay in its file. A block of
//! queries is packed once and meets piece after piece of the bank, whose rows
//! the product packs as they come; its results are turned at once into orders:
//! the smaller, the nearer. Nothing of the size of queries × bank is ever held
//! here, and no second copy of the bank.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::Result;
use crate::io::Floats;
use crate::math::matmul::{Aligned, Epilogue, Packed, View, gemm};
use crate::math::parallel::{Pieces, Slices, SlicesMut};
use crate::math::{blocks, parallel, reduce};

/// Rows of the bank whose orders are held at a time.
pub(super) const PIECE: usize = 1024;

/// Of these so many are multiplied at a time: packed, they stay in the
/// second-level cache.
const TOGETHER: usize = 128;

/// Queries that meet a piece together: each read of the bank serves so many.
pub(super) const QUERIES: usize = 256;

/// Rows read at a time.
const READ: usize = 256;

/// What makes a row x of the bank near to a query q.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Order {
    /// ‖x‖² − 2q·x, which orders by distance.
    Distance,
    /// −q·x.
    Product,
}

/// `n` rows in memory; `read` gives those of a range, `[len, dim]`.
pub(super) fn gather(
    n: usize,
    dim: usize,
    read: impl Fn(Range<usize>) -> Result<Vec<f32>> + Sync,
) -> Result<Floats> {
    let mut rows = Aligned::zeros(n * dim);
    let pieces = rows.par_chunks_mut(READ * dim).enumerate();
    parallel::run_all(pieces.map(|(i, out)| {
        let start = i * READ;
        out.copy_from_slice(&read(start..start + out.len() / dim)?);
        Ok(())
    }))?;
    Ok(Floats::new(rows))
}

/// Rows and what makes them near.
pub(super) struct Bank {
    order: Order,
    dim: usize,
    rows: Floats,
    /// Squared norms, of [`Order::Distance`].
    norms: Vec<f32>,
    /// Magnitudes below it count as zero.
    least: f32,
}

/// Turns q·x, a row of x, into the order of x.
struct ToDistance<'a>(&'a [f32]);

impl Epilogue for ToDistance<'_> {
    #[inline(always)]
    fn apply(&mut self, row: usize, _: usize, values: &mut [f32]) {
        let norm = self.0[row];
        values.iter_mut().for_each(|v| *v = norm - 2.0 * *v);
    }
}

struct Negate;

impl Epilogue for Negate {
    #[inline(always)]
    fn apply(&mut self, _: usize, _: usize, values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = -*v);
    }
}

impl Bank {
    /// Bank these rows, `[n, dim]`.
    pub fn new(rows: Floats, dim: usize, order: Order) -> Self {
        let all = &rows[..];
        let norms = match order {
            Order::Distance => all.par_chunks(dim).map(|r| reduce::norm2(r) as f32).collect(),
            Order::Product => Vec::new(),
        };
        Bank { order, dim, rows, norms, least: 0.0 }
    }

    /// Take magnitudes below `least` to be zero, in queries too.
    pub fn at_least(self, least: f32) -> Self {
        Bank { least, ..self }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len() / self.dim
    }

    /// All rows, `[n, dim]`.
    pub fn rows(&self) -> &Floats {
        &self.rows
    }

    /// Queries as [`Bank::orders`] wants them.
    pub fn pack(&self, queries: &[f32]) -> Packed {
        let queries = &self.flushed(queries);
        Packed::new(View::rows(queries, self.dim).t(), self.dim, queries.len() / self.dim)
    }

    fn flushed<'a>(&self, rows: &'a [f32]) -> Cow<'a, [f32]> {
        if self.least == 0.0 {
            return rows.into();
        }
        rows.iter().map(|v| if v.abs() < self.least { 0.0 } else { *v }).collect()
    }

    /// The places of the rows of each piece.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        blocks(self.len(), PIECE)
    }

    /// Orders of the rows of a piece for every query: to `out`, a row of it for
    /// each row of the bank.
    pub fn orders(
        &self,
        piece: Range<usize>,
        queries: &Packed,
        out: &mut Aligned,
        scratch: &mut Aligned,
    ) {
        let (n, dim) = (queries.n(), self.dim);
        out.reserve(piece.len() * n);
        let rows = &self.rows[piece.start * dim..piece.end * dim];
        let parts = rows.chunks(TOGETHER * dim).zip(out.chunks_mut(TOGETHER * n));
        for (i, (rows, out)) in parts.enumerate() {
            let rows = &self.flushed(rows);
            let (a, m) = (View::rows(rows, dim), rows.len() / dim);
            match self.order {
                Order::Distance => {
                    let norms = &self.norms[piece.start + i * TOGETHER..];
                    gemm(a, m, queries, out, n, scratch, &mut ToDistance(norms));
                }
                Order::Product => gemm(a, m, queries, out, n, scratch, &mut Negate),
            }
        }
    }
}

/// As many rows give a [`centre`]: any point near the data will do.
pub(super) const CENTRE_ROWS: usize = 4096;

/// Mean of some rows.
pub(super) fn centre(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut sum = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        for (s, &v) in sum.iter_mut().zip(row) {
            *s += f64::from(v);
        }
    }
    let count = (rows.len() / dim) as f64;
    sum.into_iter().map(|s| (s / count) as f32).collect()
}

/// Subtract `centre` from every row.
pub(super) fn subtract(rows: &mut [f32], centre: &[f32]) {
    for row in rows.chunks_exact_mut(centre.len()) {
        row.iter_mut().zip(centre).for_each(|(v, c)| *v -= c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, d: usize, salt: u32) -> Vec<f32> {
        let value = |i: u32| (i + salt).wrapping_mul(2_654_435_761) % 1999;
        (0..(n * d) as u32).map(|i| value(i) as f32 / 1000.0 - 1.0).collect()
    }

    /// The oracle: two loops in f64.
    #[test]
    fn orders_equal_the_naive_ones() {
        let (d, n) = (13, 1300);
        let (all, queries) = (rows(n, d, 0), rows(9, d, 555));
        let (mut out, mut scratch) = (Aligned::default(), Aligned::default());
        for order in [Order::Distance, Order::Product] {
            let bank = Bank::new(all.clone().into(), d, order);
            assert_eq!((bank.len(), &bank.rows()[..]), (n, &all[..]));
            let piece = bank.pieces().nth(1).unwrap();
            assert_eq!(piece, PIECE..n);
            bank.orders(piece.clone(), &bank.pack(&queries), &mut out, &mut scratch);
            for (x, out) in all.chunks(d).skip(PIECE).zip(out.chunks(9)) {
                for (q, o) in queries.chunks(d).zip(out) {
                    let dot = reduce::dot(q, x);
                    let want = match order {
                        Order::Distance => reduce::norm2(x) - 2.0 * dot,
                        Order::Product => -dot,
                    };
                    assert!((f64::from(*o) - want).abs() < 1e-5);
                }
            }
        }
    }

    /// By hand: −4·5 and −(4·5 + 1·1), then 0 and −1·1.
    #[test]
    fn negligible_values_count_as_zero() {
        let bank = Bank::new(vec![4.0, 1e-20, 4.0, 1.0].into(), 2, Order::Product);
        let bank = bank.at_least(1e-18);
        let (mut out, mut scratch) = (Aligned::default(), Aligned::default());
        for (query, want) in [([5.0, 1.0], [-20.0, -21.0]), ([1e-30, 1.0], [0.0, -1.0])] {
            bank.orders(0..2, &bank.pack(&query), &mut out, &mut scratch);
            assert_eq!(out[..2], want);
        }
    }

    #[test]
    fn rows_are_gathered_in_order() {
        let all = rows(1500, 7, 3);
        let read = |r: Range<usize>| Ok(all[r.start * 7..r.end * 7].to_vec());
        assert_eq!(gather(1500, 7, read).unwrap()[..], all);
    }
}
