//! The search for the rows nearest to one query: what is open, what is known.

use super::super::bank::{Order, PIECE};
use super::{Neighbours, UNDERFLOW};
use crate::math::{LINE, prefetch, reduce};

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
    /// Rows below it, with their bounds.
    pub(super) open: Vec<(f32, u32)>,
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
    pub(super) fn open(&mut self, bound: f32, row: usize) {
        let bound = if bound.is_finite() { bound } else { f32::NAN };
        self.open.push((bound, row as u32));
    }

    /// Lower the bound when many rows are open.
    pub(super) fn tighten(&mut self) {
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
    pub(super) fn refine(&mut self) {
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
    pub(super) fn resolve(&mut self) {
        crate::math::arch().dispatch(Resolve(self));
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
    pub(super) fn settle(&mut self) {
        for (order, row) in &mut self.known {
            *order = self.among.order.of(self.query, self.among.row(*row));
        }
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
pub(super) fn nearer(a: &(f64, u32), b: &(f64, u32)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// The least single-precision number that is not below `v`; NaN beyond the largest.
pub(super) fn above(v: f64) -> f32 {
    let single = v as f32;
    let single = if f64::from(single) < v { single.next_up() } else { single };
    if single.is_finite() { single } else { f32::NAN }
}
