//! The rows nearest to a query, exactly: the index of `knn` and `nnguide`.
//!
//! A search filters, then refines. Products in eight bits, or in single
//! precision where the processor has no instruction for those, give every row
//! a lower bound of its order; a row whose bound is not below the k-th order
//! found so far is out. For those that remain (of 50,000 rows some hundred) the
//! order is computed in single precision, and for the last few in f64, so that
//! the result does not depend on the filter.
//!
//! With x = c + x̂ + r and q = b + q̂ + s, x̂ and q̂ in eight bits, b and c any
//! points (near to queries and rows, so that little is rounded):
//! |(q − b)·(x − c) − q̂·x̂| ≤ ‖q − b‖‖r‖ + ‖s‖‖x̂‖ (Cauchy and Schwarz).
//!
//! Memory: 5·N·D bytes, or 8·N·D in single precision.

// Other processors always filter in single precision.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

use std::ops::Range;

use rayon::prelude::*;

use super::bank::{Bank, CENTRE_ROWS, Order, PIECE, centre};
use crate::error::Result;
use crate::math::eight::{self, Below, Eight, Instruction, Panels, WIDTH};
use crate::math::matmul::Aligned;
use crate::math::{LINE, blocks, parallel, prefetch, reduce};

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

/// Rows that queries are compared with.
pub(super) struct Neighbours {
    order: Order,
    dim: usize,
    /// `[N, D]`.
    rows: Aligned,
    /// The largest norm of a row.
    largest: f64,
    filter: Filter,
}

enum Filter {
    Eight { with: Instruction, centres: Centres, pieces: Vec<Piece> },
    Single(Bank),
}

/// What is subtracted before rounding.
struct Centres {
    /// From rows: c.
    rows: Vec<f32>,
    /// From queries: b.
    queries: Vec<f32>,
}

impl Centres {
    /// Queries of distances are taken to be like the rows, queries of products
    /// to have their directions.
    fn new(rows: &[f32], dim: usize, order: Order) -> Self {
        let rows = &rows[..rows.len().min(CENTRE_ROWS * dim)];
        let mean = centre(rows, dim);
        let queries = match order {
            Order::Distance => mean.clone(),
            Order::Product => {
                let mut directions = rows.to_vec();
                directions.chunks_exact_mut(dim).for_each(reduce::normalize);
                centre(&directions, dim)
            }
        };
        Centres { rows: mean, queries }
    }
}

/// Up to [`PIECE`] rows in eight bits, and the parts of their lower bounds:
/// order ≥ own − scale·q.scale·q̂·x̂ − (‖q − b‖·error + ‖s‖·norm) + what depends
/// on q alone.
struct Piece {
    panels: Panels,
    error: Vec<f32>,
    norm: Vec<f32>,
    /// The largest error and norm of a panel.
    largest: Vec<[f32; 2]>,
}

impl Piece {
    fn new(rows: &[f32], centres: &Centres, order: Order) -> Self {
        let (dim, depth) = (centres.rows.len(), eight::depth(centres.rows.len()));
        let mut bytes = vec![0; rows.len() / dim * depth];
        let (mut own, mut scale, mut error, mut norm) = (vec![], vec![], vec![], vec![]);
        let factor = order.factor();
        let between = reduce::dot(&centres.rows, &centres.queries);
        for (row, bytes) in rows.chunks_exact(dim).zip(bytes.chunks_exact_mut(depth)) {
            let eight = Eight::round(row, &centres.rows, bytes);
            // And more than what f64 loses where the terms cancel.
            let (exact, lost) = match order {
                Order::Distance => (reduce::distance2(row, &centres.rows), 0.0),
                Order::Product => {
                    let along = reduce::dot(row, &centres.queries);
                    (between - along, 1e-12 * (between.abs() + along.abs()))
                }
            };
            let up = factor * (1.0 + ROUNDING);
            let bound = (exact - ROUNDING * exact.abs() - lost - UNDERFLOW) as f32;
            // NaN is below every limit: the row is always looked at.
            own.push(if bound.is_finite() { bound } else { f32::NAN });
            scale.push((factor * f64::from(eight.scale)) as f32);
            error.push((up * (eight.error + ROUNDING * eight.norm)) as f32);
            norm.push((up * eight.norm) as f32);
        }
        let max = |values: &[f32]| values.iter().copied().fold(0.0, f32::max);
        let panels = error.chunks(WIDTH).zip(norm.chunks(WIDTH));
        let largest = panels.map(|(error, norm)| [max(error), max(norm)]).collect();
        Piece { panels: Panels::new(&bytes, depth, own, scale), error, norm, largest }
    }
}

/// A query in eight bits.
struct Query {
    /// s.
    scale: f32,
    /// ‖q − b‖.
    norm: f32,
    /// ‖s‖.
    error: f32,
}

impl Neighbours {
    /// Index `n` rows; `read` gives those of a range, `[len, dim]`.
    pub fn build(
        n: usize,
        dim: usize,
        order: Order,
        read: impl Fn(Range<usize>) -> Result<Vec<f32>> + Sync,
    ) -> Result<Self> {
        let mut rows = Aligned::zeros(n * dim);
        let ranges: Vec<_> = blocks(n, PIECE).collect();
        let pieces = rows.par_chunks_mut(PIECE * dim).zip(ranges);
        parallel::run_all(pieces.map(|(out, range)| {
            out.copy_from_slice(&read(range)?);
            Ok(())
        }))?;
        Ok(Self::index(rows, dim, order, Instruction::detect(dim)))
    }

    /// Index these rows, `[n, dim]`.
    pub fn of(rows: &[f32], dim: usize, order: Order) -> Self {
        let mut own = Aligned::zeros(rows.len());
        own.copy_from_slice(rows);
        Self::index(own, dim, order, Instruction::detect(dim))
    }

    fn index(rows: Aligned, dim: usize, order: Order, with: Option<Instruction>) -> Self {
        let filter = match with {
            Some(with) => {
                let centres = Centres::new(&rows, dim, order);
                let pieces = parallel::run(|| {
                    let pieces = rows.par_chunks(PIECE * dim);
                    pieces.map(|rows| Piece::new(rows, &centres, order)).collect()
                });
                Filter::Eight { with, centres, pieces }
            }
            None => Filter::Single(Bank::of(&rows, dim)),
        };
        let norms = || rows.par_chunks(dim).map(reduce::norm2).reduce(|| 0.0, f64::max);
        let largest = parallel::run(norms).sqrt();
        Neighbours { order, dim, rows, largest, filter }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len() / self.dim
    }

    /// All rows, `[n, dim]`.
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Row `i`.
    pub fn row(&self, i: u32) -> &[f32] {
        &self.rows[i as usize * self.dim..][..self.dim]
    }

    /// The k nearest rows of each query with their orders, nearest first; of
    /// rows of the same order the one that comes first is nearer.
    pub fn nearest(&self, queries: &[f32], k: usize) -> Vec<Vec<(f64, u32)>> {
        let mut searches: Vec<Search<'_>> =
            queries.chunks_exact(self.dim).map(|q| Search::new(self, q, k)).collect();
        match &self.filter {
            Filter::Eight { with, centres, pieces } => {
                let depth = eight::depth(self.dim);
                let mut bytes = vec![0i8; searches.len() * depth];
                let pairs = searches.iter_mut().zip(bytes.chunks_exact_mut(depth));
                let queries: Vec<Query> =
                    pairs.map(|(s, bytes)| self.query(s, centres, bytes)).collect();
                for (i, piece) in pieces.iter().enumerate() {
                    let start = i * PIECE;
                    let (searches, queries) = (&mut searches, &queries);
                    let mut bounds = Bounds { piece, start, queries, searches };
                    eight::values(*with, &bytes, &piece.panels, &mut bounds);
                    bounds.searches.iter_mut().for_each(Search::tighten);
                }
            }
            Filter::Single(bank) => self.single(bank, queries, &mut searches),
        }
        searches.into_iter().map(Search::finish).collect()
    }

    /// Round a query, and tell its search what the bounds leave out.
    fn query(&self, search: &mut Search<'_>, centres: &Centres, bytes: &mut [i8]) -> Query {
        let eight = Eight::round(search.query, &centres.queries, bytes);
        let square = reduce::distance2(search.query, &centres.queries);
        search.shift = match self.order {
            Order::Distance => square,
            Order::Product => -reduce::dot(search.query, &centres.rows),
        };
        let up = |v: f64| (v * (1.0 + ROUNDING)) as f32;
        Query { scale: eight.scale, norm: up(square.sqrt()), error: up(eight.error) }
    }

    /// Search with products in single precision.
    fn single(&self, bank: &Bank, queries: &[f32], searches: &mut [Search<'_>]) {
        // Each of D additions and products rounds once (Higham 2002, §3.1).
        let rounding = (self.dim as f64 + 16.0) * f64::from(f32::EPSILON);
        let slack: Vec<f32> = searches
            .iter_mut()
            .map(|s| {
                let (own, shift) = match self.order {
                    Order::Distance => (self.largest.powi(2), reduce::norm2(s.query)),
                    Order::Product => (0.0, 0.0),
                };
                s.shift = shift;
                let size = reduce::norm2(s.query).sqrt() * self.largest;
                (rounding * (self.order.factor() * size + own) + UNDERFLOW) as f32
            })
            .collect();
        let (mut orders, mut scratch) = (Aligned::default(), Aligned::default());
        let arch = pulp::Arch::new();
        for i in 0..bank.pieces() {
            let width = bank.orders(i, queries, self.order, &mut orders, &mut scratch);
            let each = searches.iter_mut().zip(orders.chunks_exact(PIECE)).zip(&slack);
            for ((search, orders), slack) in each {
                arch.dispatch(
                    #[inline(always)]
                    || search.take(i * PIECE, &orders[..width], *slack),
                );
                search.tighten();
            }
        }
    }
}

/// Finds the rows whose lower bounds are below the bound of a search: first of
/// a whole panel, with its largest error and norm, then each.
struct Bounds<'a, 'b> {
    piece: &'a Piece,
    start: usize,
    queries: &'a [Query],
    searches: &'a mut [Search<'b>],
}

impl Below for Bounds<'_, '_> {
    #[inline(always)]
    fn scale(&self, query: usize) -> f32 {
        self.queries[query].scale
    }

    #[inline(always)]
    fn limit(&self, query: usize, panel: usize) -> f32 {
        let (q, [error, norm]) = (&self.queries[query], self.piece.largest[panel]);
        let bound = self.searches[query].bound;
        let slack = q.norm * error + q.error * norm;
        let limit = bound + slack + (bound.abs() + slack) * ROUNDING as f32;
        // What overflowed bounds nothing.
        if limit.is_finite() { limit } else { f32::NAN }
    }

    #[inline(always)]
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    fn found(&mut self, query: usize, panel: usize, mut mask: u32, values: &[f32; WIDTH]) {
        let (q, search) = (&self.queries[query], &mut self.searches[query]);
        while mask != 0 {
            let i = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let row = panel * WIDTH + i;
            let (Some(error), Some(norm)) = (self.piece.error.get(row), self.piece.norm.get(row))
            else {
                break;
            };
            let bound = values[i] - (q.norm * error + q.error * norm);
            if !bound.is_finite() || !(bound >= search.bound) {
                search.open(bound, self.start + row);
            }
        }
    }
}

/// The search for the rows nearest to one query.
struct Search<'a> {
    among: &'a Neighbours,
    query: &'a [f32],
    k: usize,
    /// What [`Order::nearly`] may be off by, relative and absolute.
    error: [f64; 2],
    /// Order less what the bounds are bounds of.
    shift: f64,
    /// A row whose lower bound is not below this is not among the k nearest;
    /// NaN while there is no such number.
    bound: f32,
    /// Rows below it, with their bounds.
    open: Vec<(f32, u32)>,
    /// Rows whose order is nearly known: all that may be among the k nearest.
    known: Vec<(f64, u32)>,
}

impl<'a> Search<'a> {
    fn new(among: &'a Neighbours, query: &'a [f32], k: usize) -> Self {
        let (open, known) = (Vec::with_capacity(PIECE), Vec::with_capacity(k));
        let error = reduce::single_error(query.len());
        let error = match among.order {
            Order::Distance => [error, UNDERFLOW],
            Order::Product => {
                [0.0, error * reduce::norm2(query).sqrt() * among.largest + UNDERFLOW]
            }
        };
        Search { among, query, k, error, shift: 0.0, bound: f32::NAN, open, known }
    }

    /// Take in orders of rows `start..` that are right within `slack`.
    ///
    /// Those that overflowed are taken in too.
    #[inline(always)]
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    fn take(&mut self, start: usize, orders: &[f32], slack: f32) {
        for (i, orders) in orders.chunks(16).enumerate() {
            // A comparison of sixteen at a time; nearly always none is nearer.
            let bound = self.bound;
            let near = |v: f32| !(v - slack >= bound) || !v.is_finite();
            if orders.iter().fold(0u32, |n, &v| n | u32::from(near(v))) == 0 {
                continue;
            }
            for (j, &v) in orders.iter().enumerate() {
                if near(v) {
                    self.open(v - slack, start + i * 16 + j);
                }
            }
        }
    }

    /// Look at a row later; what overflowed bounds nothing.
    fn open(&mut self, bound: f32, row: usize) {
        let bound = if bound.is_finite() { bound } else { f32::NAN };
        self.open.push((bound, row as u32));
    }

    /// Lower the bound when many rows are open.
    fn tighten(&mut self) {
        if self.open.len() >= self.k + 512 {
            self.refine();
            // Many rows of nearly the same order: they must not pile up.
            if self.open.len() >= self.k + 512 {
                self.resolve();
            }
        }
    }

    /// Compute the orders of the k rows of lowest bounds, and drop those that
    /// are out then.
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    fn refine(&mut self) {
        let k = self.k.min(self.open.len());
        if k < self.open.len() {
            let by = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            self.open.select_nth_unstable_by(k - 1, by);
        }
        let rest = self.open.split_off(k);
        self.resolve();
        self.open = rest;
        self.open.retain(|(v, _)| !(*v >= self.bound));
    }

    /// Find the orders of the open rows, nearly, and keep those that may be
    /// among the k nearest.
    fn resolve(&mut self) {
        pulp::Arch::new().dispatch(Resolve(self));
        let Search { k, error: [relative, absolute], ref mut known, .. } = *self;
        if known.len() >= k {
            known.select_nth_unstable_by(k - 1, nearer);
            let last = known[k - 1].0;
            let last = last + 2.0 * (relative * last.abs() + absolute);
            if last.is_finite() {
                known.retain(|(order, _)| *order <= last);
                self.bound = above(last - self.shift);
            }
            // Many rows of the same order: they must not pile up.
            if known.len() >= 4 * k + 1024 {
                self.settle();
            }
        }
    }

    /// Keep the k nearest of the known, by their orders in f64.
    fn settle(&mut self) {
        for (order, row) in &mut self.known {
            *order = self.among.order.of(self.query, self.among.row(*row));
        }
        self.known.sort_unstable_by(nearer);
        self.known.truncate(self.k);
    }

    fn finish(mut self) -> Vec<(f64, u32)> {
        if !self.open.is_empty() {
            self.refine();
            self.resolve();
        }
        self.settle();
        self.known
    }
}

/// The loop of [`Search::resolve`].
struct Resolve<'a, 'b>(&'a mut Search<'b>);

impl pulp::WithSimd for Resolve<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Search { among, query, ref mut open, ref mut known, .. } = *self.0;
        for at in 0..open.len() {
            if let Some((_, next)) = open.get(at + 1) {
                let row = among.row(*next);
                (0..row.len()).step_by(LINE).for_each(|at| prefetch(row, at));
            }
            let (_, i) = open[at];
            known.push((among.order.nearly(simd, query, among.row(i)), i));
        }
        open.clear();
    }
}

/// By order; rows of the same order as they come.
fn nearer(a: &(f64, u32), b: &(f64, u32)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// The least single-precision number that is not below `v`; NaN beyond the largest.
fn above(v: f64) -> f32 {
    let single = v as f32;
    let single = if f64::from(single) < v { single.next_up() } else { single };
    if single.is_finite() { single } else { f32::NAN }
}

#[cfg(test)]
mod tests {
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
        let own = || {
            let mut own = Aligned::zeros(bank.len());
            own.copy_from_slice(bank);
            own
        };
        f(Neighbours::index(own(), d, order, None));
        if let Some(with) = Instruction::detect(d) {
            f(Neighbours::index(own(), d, order, Some(with)));
        }
    }

    #[test]
    fn equal_sorting_all_orders_with_every_filter() {
        for (d, n) in [(13, 2100), (64, 1500), (3, 40)] {
            let (mut bank, queries) = (rows(n, d, 0), rows(9, d, 555));
            // Some rows twice, and some far away.
            bank.copy_within(0..5 * d, 20 * d);
            bank[9 * d..12 * d].iter_mut().for_each(|v| *v *= 1e4);
            for order in [Order::Distance, Order::Product] {
                each_filter(&bank, d, order, |index| {
                    assert_eq!((index.len(), index.rows()), (n, &bank[..]));
                    for k in [1, 17, n] {
                        for (found, q) in index.nearest(&queries, k).iter().zip(queries.chunks(d)) {
                            assert_eq!(*found, sorted(order, &bank, q, k));
                        }
                    }
                });
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
