//! The rows nearest to a query, exactly: the index of `knn` and `nnguide`.
//!
//! A search filters, then refines. Products in eight bits give every row a
//! lower and an upper bound of its order; a row whose lower bound is not below
//! the k-th upper bound or order found so far is out. For those that remain (of 50,000 rows some hundred) the
//! order is computed in single precision, and for the last few in f64, so that
//! the result does not depend on the filter.
//!
//! With x = c + x̂ + r and q = b + q̂ + s, x̂ and q̂ in eight bits, b and c any
//! points (near to queries and rows, so that little is rounded):
//! |(q − b)·(x − c) − q̂·x̂| ≤ ‖q − b‖‖r‖ + ‖s‖‖x̂‖ (Cauchy and Schwarz).
//!
//! Memory: N·D bytes beside the rows, which are shared: those of an open
//! detector stay in its file.

mod bounds;
mod search;

use bounds::{Bounds, Centres, Piece, Query};
use search::{Search, nearer};

use super::bank::{Order, PIECE, QUERIES};
use crate::io::Floats;
use crate::math::int8::{self, Instruction};
use crate::math::parallel::{Pieces, Slices};
use crate::math::{parallel, reduce};

impl Order {
    /// Order of row x for query q, in f64: with ‖q‖², which the distance has.
    /// Where q or x has NaN, x is infinitely far.
    #[inline(always)]
    fn of(self, q: &[f32], x: &[f32]) -> f64 {
        let order = match self {
            Order::Distance => reduce::distance2(q, x),
            Order::Product => -reduce::dot(q, x),
        };
        if order.is_nan() { f64::INFINITY } else { order }
    }

    /// The same in single precision where that suffices.
    #[inline(always)]
    fn nearly(self, simd: impl pulp::Simd, q: &[f32], x: &[f32]) -> f64 {
        let order = match self {
            Order::Distance => reduce::distance2_single(simd, q, x),
            Order::Product => -reduce::dot_single(simd, q, x),
        };
        if order.is_finite() { f64::from(order) } else { self.of(q, x) }
    }

    /// How often the product counts in the order.
    fn factor(self) -> f64 {
        match self {
            Order::Distance => 2.0,
            Order::Product => 1.0,
        }
    }
}

/// More than what a bound loses to rounding in single precision, relative to
/// each of its terms.
const ROUNDING: f64 = 1e-6;

/// More than what it loses to numbers too small for single precision.
const UNDERFLOW: f64 = 1e-36;

/// Fewer pieces are not worth a thread of their own.
const WORTHWHILE: usize = 4;

/// Rows that queries are compared with.
pub(super) struct Neighbours {
    order: Order,
    dim: usize,
    /// `[N, D]`.
    rows: Floats,
    /// The largest norm of a row.
    largest: f64,
    with: Instruction,
    centres: Centres,
    pieces: Vec<Piece>,
}

impl Neighbours {
    /// Index these rows, `[n, dim]`.
    pub fn new(rows: Floats, dim: usize, order: Order) -> Self {
        Self::index(rows, dim, order, Instruction::detect())
    }

    fn index(rows: Floats, dim: usize, order: Order, with: Instruction) -> Self {
        let all = &rows[..];
        let centres = Centres::new(all, dim, order);
        let pieces = all.par_chunks(PIECE * dim);
        let pieces: Vec<Piece> = pieces.map(|rows| Piece::new(rows, &centres, order)).collect();
        let largest = pieces.iter().fold(0.0, |m: f64, piece| m.max(piece.longest)).sqrt();
        Neighbours { order, dim, rows, largest, with, centres, pieces }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len() / self.dim
    }

    /// All rows, `[n, dim]`.
    pub fn rows(&self) -> &Floats {
        &self.rows
    }

    /// Row `i`.
    pub fn row(&self, i: u32) -> &[f32] {
        &self.rows[i as usize * self.dim..][..self.dim]
    }

    /// The k nearest rows of each query with their orders, nearest first; of
    /// rows of the same order the one that comes first is nearer.
    pub fn nearest(&self, queries: &[f32], k: usize) -> Vec<Vec<(f64, u32)>> {
        let (whole, n) = (self.pieces.len(), queries.len() / self.dim);
        // A whole block of queries has others beside it; a few are all there is.
        let most = if n < QUERIES { whole.div_ceil(WORTHWHILE) } else { 1 };
        let parts = most.min(parallel::threads()).max(1);
        if parts == 1 {
            return self.nearest_among(0, &self.pieces, queries, k);
        }
        let length = whole.div_ceil(parts);
        let among = |(i, pieces)| self.nearest_among(i * length, pieces, queries, k);
        let mut found = self.pieces.par_chunks(length).enumerate().map(among).collect().into_iter();
        let mut all = found.next().unwrap_or_default();
        for part in found {
            all.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
        }
        for all in &mut all {
            all.sort_unstable_by(nearer);
            all.truncate(k);
        }
        all
    }

    /// The same among the rows of some pieces, the first of which is the
    /// index's piece `first`.
    fn nearest_among(
        &self,
        first: usize,
        pieces: &[Piece],
        queries: &[f32],
        k: usize,
    ) -> Vec<Vec<(f64, u32)>> {
        let mut searches: Vec<Search<'_>> =
            queries.chunks_exact(self.dim).map(|q| Search::new(self, q, k)).collect();
        let depth = int8::depth(self.dim);
        let mut bytes = vec![0i8; searches.len() * depth];
        let pairs = searches.iter_mut().zip(bytes.chunks_exact_mut(depth));
        let queries: Vec<Query> = pairs.map(|(s, bytes)| self.query(s, bytes)).collect();
        for (i, piece) in pieces.iter().enumerate() {
            let start = (first + i) * PIECE;
            let mut bounds = Bounds { piece, start, queries: &queries, searches: &mut searches };
            int8::values(self.with, &bytes, &piece.panels, &mut bounds);
            searches.iter_mut().for_each(Search::tighten);
        }
        searches.into_iter().map(Search::finish).collect()
    }

    /// Round a query, and tell its search what the bounds leave out.
    fn query(&self, search: &mut Search<'_>, bytes: &mut [i8]) -> Query {
        let centres = &self.centres;
        let square = reduce::distance2(search.query, &centres.queries);
        search.shift = match self.order {
            Order::Distance => square,
            Order::Product => -reduce::dot(search.query, &centres.rows),
        };
        let range = self.with.queries(self.dim);
        Query::new(search.query, &centres.queries, square, range, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::search::above;
    use super::*;

    fn rows(n: usize, d: usize, salt: u32) -> Vec<f32> {
        let value = |i: u32| (i + salt).wrapping_mul(2_654_435_761) % 1999;
        (0..(n * d) as u32).map(|i| value(i) as f32 / 1000.0 - 1.0).collect()
    }

    /// The oracle: all orders, sorted.
    fn sorted(order: Order, bank: &[f32], q: &[f32], k: usize) -> Vec<(f64, u32)> {
        let all = bank.chunks(q.len()).zip(0..);
        let mut all: Vec<_> = all.map(|(x, i)| (order.of(q, x), i)).collect();
        all.sort_by(nearer);
        all.truncate(k);
        all
    }

    /// Every way to filter that there is here.
    fn each_filter(bank: &[f32], d: usize, order: Order, f: impl Fn(Neighbours)) {
        for with in Instruction::all() {
            f(Neighbours::index(bank.to_vec().into(), d, order, with));
        }
    }

    #[test]
    fn equal_sorting_all_orders_with_every_filter() {
        for (d, n) in [(13, 5100), (64, 1500), (3, 40)] {
            let (mut bank, queries) = (rows(n, d, 0), rows(9, d, 555));
            // Some rows twice, and some far away.
            bank.copy_within(0..5 * d, 20 * d);
            bank[9 * d..12 * d].iter_mut().for_each(|v| *v *= 1e4);
            for order in [Order::Distance, Order::Product] {
                each_filter(&bank, d, order, |index| {
                    assert_eq!((index.len(), &index.rows()[..]), (n, &bank[..]));
                    for k in [1, 17, n.min(700), n] {
                        for (found, q) in index.nearest(&queries, k).iter().zip(queries.chunks(d)) {
                            assert_eq!(*found, sorted(order, &bank, q, k));
                        }
                    }
                });
            }
        }
    }

    /// More pieces than one thread takes, and a row twice in different parts.
    #[test]
    fn a_search_on_many_threads_finds_the_same() {
        let d = 5;
        let mut bank = rows(9 * PIECE + 17, d, 0);
        bank.copy_within(0..d, 8 * PIECE * d);
        let queries = [rows(2, d, 71), bank[..d].to_vec()].concat();
        let index = Neighbours::new(bank.clone().into(), d, Order::Distance);
        for threads in [1, 2, 3, 8] {
            let found = parallel::with_threads(threads, || index.nearest(&queries, 70)).unwrap();
            for (found, q) in found.iter().zip(queries.chunks(d)) {
                assert_eq!(*found, sorted(Order::Distance, &bank, q, 70), "{threads}");
            }
        }
    }

    #[test]
    fn equal_rows_come_in_order_and_do_not_pile_up() {
        let d = 7;
        let bank = rows(1, d, 8).repeat(3000);
        for order in [Order::Distance, Order::Product] {
            each_filter(&bank, d, order, |index| {
                let found = &index.nearest(&rows(1, d, 99), 3)[0];
                assert_eq!(found.iter().map(|f| f.1).collect::<Vec<_>>(), [0, 1, 2]);
            });
        }
    }

    #[test]
    fn orders_beyond_single_precision_are_found() {
        for scale in [1e30f32, 1e-30, 3e38] {
            let d = 5;
            let bank: Vec<f32> = rows(1200, d, 3).iter().map(|v| v * scale).collect();
            let queries: Vec<f32> = rows(3, d, 77).iter().map(|v| v * scale).collect();
            for order in [Order::Distance, Order::Product] {
                each_filter(&bank, d, order, |index| {
                    for (found, q) in index.nearest(&queries, 9).iter().zip(queries.chunks(d)) {
                        assert_eq!(*found, sorted(order, &bank, q, 9), "{scale}");
                    }
                });
            }
        }
    }

    /// Sums that overflow in single precision where their difference does not:
    /// the far row is the nearer one.
    #[test]
    fn rows_at_the_edge_of_single_precision_are_not_lost() {
        let d = 4096;
        let mut bank = vec![0.0f32; 1100 * d];
        let step = 0.99 * 1.5e19 / 254.0;
        bank.extend((0..d).map(|j| if j == 0 { 1.5e19 } else { step }));
        let query: Vec<f32> = (0..d).map(|j| if j == 0 { -5e18 } else { 1e18 }).collect();
        for (bank, query, d) in
            [(bank, query, d), ([vec![-2e18f32; 1100], vec![1.85e19]].concat(), vec![0.9e19], 1)]
        {
            let want = sorted(Order::Distance, &bank, &query, 1);
            assert_eq!(want[0].1, 1100);
            each_filter(&bank, d, Order::Distance, |index| {
                assert_eq!(index.nearest(&query, 1)[0], want);
            });
        }
    }

    #[test]
    fn rows_and_queries_with_nan_are_infinitely_far() {
        let d = 2;
        let mut bank = rows(1500, d, 1);
        bank[..4].copy_from_slice(&[f32::NAN, 0.0, f32::INFINITY, 1.0]);
        let queries = [0.5, 0.25, f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY];
        for order in [Order::Distance, Order::Product] {
            each_filter(&bank, d, order, |index| {
                for k in [1, 40, 1500] {
                    let found = index.nearest(&queries, k);
                    assert!(found.iter().all(|f| f.len() == k), "{order:?} {k}");
                    assert!(found[1].iter().all(|f| f.0 == f64::INFINITY));
                    assert_eq!(found[0], sorted(order, &bank, &queries[..d], k));
                }
            });
        }
    }

    #[test]
    fn rounding_up() {
        assert_eq!(above(1.0), 1.0);
        assert_eq!(above(1.0 + 1e-12), 1.0f32.next_up());
        assert_eq!(above(-1.0 - 1e-12), -1.0);
        assert!(above(1e39).is_nan());
    }
}
