//! A bank of rows that queries are compared with: of `cfood` and `relation`,
//! which want all orders, and of the search for the nearest in `neighbours`.
//!
//! The rows are packed for products, 4·N·D bytes. A block of queries meets a
//! piece of the bank in one product, which is turned at once into an order:
//! the smaller, the nearer. Nothing of the size of queries × bank is ever
//! held.

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
        let (d, n) = (13, 1100);
        let (all, queries) = (rows(n, d, 0), rows(9, d, 555));
        let bank = Bank::of(&all, d);
        let (mut out, mut scratch) = (Aligned::default(), Aligned::default());
        for order in [Order::Distance, Order::Product] {
            let width = bank.orders(1, &queries, order, &mut out, &mut scratch);
            assert_eq!(width, n - PIECE);
            for (q, out) in queries.chunks(d).zip(out.chunks(PIECE)) {
                for (x, o) in all.chunks(d).skip(PIECE).zip(out) {
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
