//! The search for the rows nearest to one query: what is open, what is known.

use super::super::bank::{Order, PIECE};
use super::{Neighbours, UNDERFLOW};
use crate::math::{LINE, prefetch, reduce};

/// A row, and what its order is not below and not above; NaN where that is not known.
pub(super) struct Open {
    lower: f32,
    upper: f32,
    row: u32,
}

/// The search for the rows nearest to one query.
pub(super) struct Search<'a> {
    pub(super) among: &'a Neighbours,
    pub(super) query: &'a [f32],
    pub(super) k: usize,
    /// What [`Order::nearly`] may be off by, relative and absolute.
    pub(super) error: [f64; 2],
    /// Order less what the bounds are bounds of.
    pub(super) shift: f64,
    /// A row whose lower bound is not below this is not among the k nearest;
    /// NaN while there is no such number.
    pub(super) bound: f32,
    /// Rows below it.
    pub(super) open: Vec<Open>,
    /// Rows whose order is nearly known: all that may be among the k nearest.
    pub(super) known: Vec<(f64, u32)>,
}

impl<'a> Search<'a> {
    pub(super) fn new(among: &'a Neighbours, query: &'a [f32], k: usize) -> Self {
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

    /// Look at a row later; what overflowed bounds nothing.
    pub(super) fn open(&mut self, lower: f32, upper: f32, row: usize) {
        let known = |bound: f32| if bound.is_finite() { bound } else { f32::NAN };
        self.open.push(Open { lower: known(lower), upper: known(upper), row: row as u32 });
    }

    /// Lower the bound when many rows are open.
    pub(super) fn tighten(&mut self) {
        let many = 2 * self.k + 512;
        if self.open.len() >= many {
            self.narrow();
        }
        if self.open.len() >= many {
            self.refine();
            // Many rows of nearly the same order: they must not pile up.
            if self.open.len() >= many {
                self.resolve();
            }
        }
    }

    /// Drop what k open rows are certainly nearer than: no order is computed for that.
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    fn narrow(&mut self) {
        let by = |a: &Open, b: &Open| a.upper.total_cmp(&b.upper);
        let kth = self.open.select_nth_unstable_by(self.k - 1, by).1.upper;
        if !(kth >= self.bound) && !kth.is_nan() {
            self.bound = kth;
            self.open.retain(|open| !(open.lower >= kth));
        }
    }

    /// Compute the orders of the k rows of lowest bounds, and drop those that
    /// are out then.
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    pub(super) fn refine(&mut self) {
        let k = self.k.min(self.open.len());
        if k < self.open.len() {
            let by = |a: &Open, b: &Open| a.lower.total_cmp(&b.lower).then(a.row.cmp(&b.row));
            self.open.select_nth_unstable_by(k - 1, by);
        }
        let rest = self.open.split_off(k);
        self.resolve();
        self.open = rest;
        self.open.retain(|open| !(open.lower >= self.bound));
    }

    /// Find the orders of the open rows, nearly, and keep those that may be
    /// among the k nearest.
    pub(super) fn resolve(&mut self) {
        crate::math::arch().dispatch(Resolve(self));
        let Search { k, error: [relative, absolute], ref mut known, .. } = *self;
        if known.len() >= k {
            known.select_nth_unstable_by(k - 1, nearer);
            let last = known[k - 1].0;
            let last = last + 2.0 * (relative * last.abs() + absolute);
            if last.is_finite() {
                known.retain(|(order, _)| *order <= last);
                // Where one of them is NaN, the other.
                self.bound = self.bound.min(above(last - self.shift));
            }
            // Many rows of the same order: they must not pile up.
            if known.len() >= 4 * k + 1024 {
                self.settle();
            }
        }
    }

    /// Keep the k nearest of the known, by their orders in f64.
    pub(super) fn settle(&mut self) {
        let Search { among, query, ref mut known, .. } = *self;
        crate::math::arch().dispatch(
            #[inline(always)]
            || {
                known
                    .iter_mut()
                    .for_each(|(order, row)| *order = among.order.of(query, among.row(*row)))
            },
        );
        self.known.sort_unstable_by(nearer);
        self.known.truncate(self.k);
    }

    pub(super) fn finish(mut self) -> Vec<(f64, u32)> {
        if !self.open.is_empty() {
            self.refine();
            self.resolve();
        }
        self.settle();
        self.known
    }
}

/// The loop of [`Search::resolve`].
pub(super) struct Resolve<'a, 'b>(&'a mut Search<'b>);

impl pulp::WithSimd for Resolve<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Search { among, query, ref mut open, ref mut known, .. } = *self.0;
        for at in 0..open.len() {
            if let Some(next) = open.get(at + 1) {
                let row = among.row(next.row);
                (0..row.len()).step_by(LINE).for_each(|at| prefetch(row, at));
            }
            let row = open[at].row;
            known.push((among.order.nearly(simd, query, among.row(row)), row));
        }
        open.clear();
    }
}

/// By order; rows of the same order as they come.
pub(super) fn nearer(a: &(f64, u32), b: &(f64, u32)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// The least single-precision number that is not below `v`; NaN beyond the largest.
pub(super) fn above(v: f64) -> f32 {
    let single = v as f32;
    let single = if f64::from(single) < v { single.next_up() } else { single };
    if single.is_finite() { single } else { f32::NAN }
}
