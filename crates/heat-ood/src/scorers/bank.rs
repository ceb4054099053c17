//! A bank of rows that queries are compared with, exactly: the index of
//! `knn`, `nnguide`, `cfood` and `relation`.
//!
//! The rows are packed for products, 4·N·D bytes. A block of queries meets a
//! piece of the bank in one product, which is turned at once into an order:
//! the smaller, the nearer. Candidates below a query's current k-th are kept
//! and cut back by partial selection, so that nothing of the size of
//! queries × bank is ever held.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::Result;
use crate::math::matmul::{Aligned, Epilogue, Packed, View, gemm};
use crate::math::{blocks, parallel, reduce};

/// Rows of the bank multiplied at a time: their products with a block of
/// queries (256·1024 floats) stay in the second-level cache.
pub(super) const PIECE: usize = 1024;

/// Queries that meet a piece together: each read of the bank serves so many.
pub(super) const QUERIES: usize = 256;

/// What makes a row x of the bank near to a query q.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Order {
    /// ‖x‖² − 2q·x, which orders by distance.
    Distance,
    /// −q·x.
    Product,
}

/// Packed rows.
pub(super) struct Bank {
    dim: usize,
    rows: usize,
    pieces: Vec<Piece>,
}

/// Up to [`PIECE`] rows.
struct Piece {
    rows: Packed,
    norms: Vec<f32>,
}

impl Piece {
    fn new(rows: &[f32], dim: usize) -> Self {
        let norms = rows.chunks_exact(dim).map(|r| reduce::norm2(r) as f32).collect();
        let packed = Packed::new(View::rows(rows, dim).t(), dim, rows.len() / dim);
        Piece { rows: packed, norms }
    }
}

/// Turns q·x into the order of x.
struct ToDistance<'a>(&'a [f32]);

impl Epilogue for ToDistance<'_> {
    #[inline(always)]
    fn apply(&mut self, _: usize, column: usize, values: &mut [f32]) {
        for (v, norm) in values.iter_mut().zip(&self.0[column..]) {
            *v = norm - 2.0 * *v;
        }
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
    /// Bank `n` rows; `read` gives those of a range, `[len, dim]`.
    pub fn build(
        n: usize,
        dim: usize,
        read: impl Fn(Range<usize>) -> Result<Vec<f32>> + Sync,
    ) -> Result<Self> {
        let pieces: Result<Vec<Piece>> = parallel::run(|| {
            let ranges: Vec<_> = blocks(n, PIECE).collect();
            ranges.into_par_iter().map(|range| Ok(Piece::new(&read(range)?, dim))).collect()
        });
        Ok(Bank { dim, rows: n, pieces: pieces? })
    }

    /// Bank these rows, `[n, dim]`.
    pub fn of(rows: &[f32], dim: usize) -> Self {
        let pieces = rows.chunks(PIECE * dim).map(|r| Piece::new(r, dim)).collect();
        Bank { dim, rows: rows.len() / dim, pieces }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Number of pieces that [`Bank::orders`] knows.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Copy row `i`.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        self.pieces[i / PIECE].rows.column(i % PIECE, out);
    }

    /// All rows, `[n, dim]`.
    pub fn to_rows(&self) -> Vec<f32> {
        self.pieces.iter().flat_map(|piece| piece.rows.columns()).collect()
    }

    /// Orders of the rows of a piece for every query: `out` has [`PIECE`]
    /// columns, of which the returned number are filled.
    pub fn orders(
        &self,
        piece: usize,
        queries: &[f32],
        order: Order,
        out: &mut Aligned,
        scratch: &mut Aligned,
    ) -> usize {
        let n = queries.len() / self.dim;
        out.reserve(n * PIECE);
        let (q, piece) = (View::rows(queries, self.dim), &self.pieces[piece]);
        match order {
            Order::Distance => {
                let to = &mut ToDistance(&piece.norms);
                gemm(q, n, &piece.rows, out, PIECE, scratch, to);
            }
            Order::Product => gemm(q, n, &piece.rows, out, PIECE, scratch, &mut Negate),
        }
        piece.norms.len()
    }

    /// The k nearest rows of each query, with their orders: in no order, but
    /// that the k-th is last. Ties go to the row that comes first.
    pub fn nearest(&self, queries: &[f32], k: usize, order: Order) -> Vec<Vec<(f32, u32)>> {
        let n = queries.len() / self.dim;
        let mut nearest: Vec<Nearest> = (0..n).map(|_| Nearest::new(k)).collect();
        let (mut orders, mut scratch) = (Aligned::default(), Aligned::default());
        let arch = pulp::Arch::new();
        for i in 0..self.pieces.len() {
            let width = self.orders(i, queries, order, &mut orders, &mut scratch);
            for (nearest, orders) in nearest.iter_mut().zip(orders.chunks_exact(PIECE)) {
                arch.dispatch(
                    #[inline(always)]
                    || nearest.take(&orders[..width], i * PIECE),
                );
            }
        }
        let cut = |mut n: Nearest| {
            n.cut();
            n.found
        };
        nearest.into_iter().map(cut).collect()
    }
}

/// The nearest rows seen so far by one query.
struct Nearest {
    found: Vec<(f32, u32)>,
    bound: f32,
    k: usize,
}

impl Nearest {
    fn new(k: usize) -> Self {
        Nearest { found: Vec::with_capacity(3 * k + PIECE), bound: f32::NAN, k }
    }

    /// Take in the orders of rows `start..`.
    ///
    /// "Not at or above the bound", so that everything is taken before there
    /// is a bound, and orders that overflowed are not lost.
    #[inline(always)]
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    fn take(&mut self, orders: &[f32], start: usize) {
        for (i, orders) in orders.chunks(16).enumerate() {
            // A comparison of sixteen at a time; nearly always none is nearer.
            let near = orders.iter().fold(0u32, |n, &v| n | u32::from(!(v >= self.bound)));
            if near == 0 {
                continue;
            }
            for (j, &v) in orders.iter().enumerate() {
                if !(v >= self.bound) {
                    self.found.push((v, (start + i * 16 + j) as u32));
                }
            }
        }
        if self.found.len() >= 2 * self.k + 64 {
            self.cut();
        }
    }

    /// Keep the k nearest; ties are broken by row, so that order never matters.
    fn cut(&mut self) {
        if self.found.len() >= self.k {
            let by = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            self.found.select_nth_unstable_by(self.k - 1, by);
            self.found.truncate(self.k);
            self.bound = self.found[self.k - 1].0;
        }
    }
}

/// Mean row, from the first rows only: any point near the data will do.
pub(super) fn centre(
    n: usize,
    dim: usize,
    read: &impl Fn(Range<usize>) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let rows = read(0..n.min(4096))?;
    let mut sum = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        for (s, &v) in sum.iter_mut().zip(row) {
            *s += f64::from(v);
        }
    }
    let count = (rows.len() / dim) as f64;
    Ok(sum.into_iter().map(|s| (s / count) as f32).collect())
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

    /// The oracle: all products, sorted.
    #[test]
    fn the_k_most_similar_equal_sorting_all_products() {
        let (d, n) = (13, 2100);
        let (bank, queries) = (rows(n, d, 0), rows(9, d, 555));
        let found = Bank::of(&bank, d).nearest(&queries, 17, Order::Product);
        for (found, q) in found.iter().zip(queries.chunks(d)) {
            let dot = |x: &[f32]| x.iter().zip(q).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let mut all: Vec<f64> = bank.chunks(d).map(dot).collect();
            all.sort_by(|a, b| b.total_cmp(a));
            assert!((f64::from(-found[16].0) - all[16]).abs() < 1e-5);
            let sum: f64 = found.iter().map(|(o, _)| f64::from(-o)).sum();
            assert!((sum - all[..17].iter().sum::<f64>()).abs() < 1e-4);
        }
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let all = rows(1500, 7, 3);
        let bank = Bank::of(&all, 7);
        assert_eq!((bank.len(), bank.pieces()), (1500, 2));
        assert_eq!(bank.to_rows(), all);
        let built = Bank::build(1500, 7, |r| Ok(all[r.start * 7..r.end * 7].to_vec())).unwrap();
        assert_eq!(built.to_rows(), all);
    }
}
