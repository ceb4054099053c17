//! Rows and queries in eight bits, and the lower bounds of their orders.

use super::super::bank::{CENTRE_ROWS, Order, centre};
use super::search::Search;
use super::{ROUNDING, UNDERFLOW};
use crate::math::int8::{self, Eight, PanelSink, Panels, Range, WIDTH};
use crate::math::reduce;

/// What is subtracted before rounding.
pub(super) struct Centres {
    /// From rows: c.
    pub(super) rows: Vec<f32>,
    /// From queries: b.
    pub(super) queries: Vec<f32>,
}

impl Centres {
    /// Queries of distances are taken to be like the rows, queries of products
    /// to have their directions.
    pub(super) fn new(rows: &[f32], dim: usize, order: Order) -> Self {
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
pub(super) struct Piece {
    pub(super) panels: Panels,
    pub(super) error: Vec<f32>,
    pub(super) norm: Vec<f32>,
    /// How far below the exact value `own` may be, and as much again.
    pub(super) below: Vec<f32>,
    /// The largest error and norm of a panel.
    pub(super) largest: Vec<[f32; 2]>,
    /// The largest squared norm of a row.
    pub(super) longest: f64,
}

/// What makes a [`Piece`], compiled for this processor.
struct Make<'a>(&'a [f32], &'a Centres, Order);

impl pulp::WithSimd for Make<'_> {
    type Output = Piece;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Piece {
        let Make(rows, centres, order) = self;
        let (dim, depth) = (centres.rows.len(), int8::depth(centres.rows.len()));
        let mut bytes = vec![0; rows.len() / dim * depth];
        let (mut own, mut scale, mut error, mut norm) = (vec![], vec![], vec![], vec![]);
        let mut below = vec![];
        let mut longest = 0.0f64;
        let factor = order.factor();
        let between = reduce::dot(&centres.rows, &centres.queries);
        for (row, bytes) in rows.chunks_exact(dim).zip(bytes.chunks_exact_mut(depth)) {
            let eight = Eight::round(row, &centres.rows, Range::ROWS, bytes);
            longest = longest.max(reduce::norm2(row));
            // And more than what f64 loses where the terms cancel.
            let (exact, lost) = match order {
                Order::Distance => (reduce::distance2(row, &centres.rows), 0.0),
                Order::Product => {
                    let along = reduce::dot(row, &centres.queries);
                    (between - along, 1e-12 * (between.abs() + along.abs()))
                }
            };
            let up = factor * (1.0 + ROUNDING);
            let off = ROUNDING * exact.abs() + lost + UNDERFLOW;
            let bound = (exact - off) as f32;
            below.push((2.0 * off) as f32);
            // NaN is below every limit: the row is always looked at.
            own.push(if bound.is_finite() { bound } else { f32::NAN });
            scale.push((factor * f64::from(eight.scale)) as f32);
            error.push((up * (eight.error + ROUNDING * eight.norm)) as f32);
            norm.push((up * eight.norm) as f32);
        }
        let max = |values: &[f32]| values.iter().copied().fold(0.0, f32::max);
        let panels = error.chunks(WIDTH).zip(norm.chunks(WIDTH));
        let largest = panels.map(|(error, norm)| [max(error), max(norm)]).collect();
        let panels = Panels::new(&bytes, depth, own, scale);
        Piece { panels, error, norm, below, largest, longest }
    }
}

impl Piece {
    pub(super) fn new(rows: &[f32], centres: &Centres, order: Order) -> Self {
        crate::math::arch().dispatch(Make(rows, centres, order))
    }
}

/// A query in eight bits.
pub(super) struct Query {
    /// s.
    pub(super) scale: f32,
    /// ‖q − b‖.
    pub(super) norm: f32,
    /// ‖s‖.
    pub(super) error: f32,
}

impl Query {
    /// Round a query; the squared norm is ‖q − b‖².
    pub(super) fn new(query: &[f32], b: &[f32], square: f64, range: Range, out: &mut [i8]) -> Self {
        let eight = crate::math::arch().dispatch(
            #[inline(always)]
            || Eight::round(query, b, range, out),
        );
        let up = |v: f64| (v * (1.0 + ROUNDING)) as f32;
        Query { scale: eight.scale, norm: up(square.sqrt()), error: up(eight.error) }
    }
}

/// Finds the rows whose lower bounds are below the bound of a search: first of
/// a whole panel, with its largest error and norm, then each.
pub(super) struct Bounds<'a, 'b> {
    pub(super) piece: &'a Piece,
    pub(super) start: usize,
    pub(super) queries: &'a [Query],
    pub(super) searches: &'a mut [Search<'b>],
}

impl PanelSink for Bounds<'_, '_> {
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
            // Beyond the last row.
            if row >= self.piece.error.len() {
                break;
            }
            let slack = q.norm * self.piece.error[row] + q.error * self.piece.norm[row];
            let lower = values[i] - slack;
            if !lower.is_finite() || !(lower >= search.bound) {
                let upper = values[i] + slack + self.piece.below[row];
                search.open(lower, upper, self.start + row);
            }
        }
    }
}
