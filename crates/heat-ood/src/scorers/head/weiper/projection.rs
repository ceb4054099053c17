//! The perturbed head.

use super::WeiperConfig;
use crate::features::Head;
use crate::math::matmul::{Epilogue, Packed, View, gemm, with_scratch};
use crate::math::parallel::{Pieces, Slices, SlicesMut};
use crate::math::reduce;
use crate::math::rng::{Purpose, Stream};

/// Columns of a group of copies, unless one copy has more: what they give a
/// block of rows stays in the second-level cache.
const COLUMNS: usize = 1024;

/// W̃z + b.
///
/// Rows meet some copies at a time: the copies, which may be a gigabyte, come
/// from memory once for a block of rows, not once for a few.
pub(super) struct Projection {
    /// Whole copies of the head, as right operands.
    groups: Vec<Packed>,
    bias: Vec<f32>,
    classes: usize,
    dim: usize,
}

struct AddBias<'a>(&'a [f32]);

impl Epilogue for AddBias<'_> {
    #[inline(always)]
    fn apply(&mut self, _: usize, column: usize, values: &mut [f32]) {
        let bias = self.0[column..].iter();
        values.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
    }
}

impl Projection {
    /// That of resolved settings.
    pub fn new(head: &Head, config: &WeiperConfig) -> Self {
        let (dim, classes) = (head.dim(), head.classes());
        let mut weight = vec![0.0; config.repeats * classes * dim];
        let distance = config.distance.unwrap_or_default();
        let perturb = |(copy, weight): (usize, &mut [f32])| {
            Stream::new(config.seed, Purpose::Projection, 2, copy as u64).fill_normal(weight);
            for (noise, w) in weight.chunks_exact_mut(dim).zip(head.weight().chunks_exact(dim)) {
                let length = reduce::norm2(noise).sqrt().max(1e-12);
                let scale = (distance * reduce::norm2(w).sqrt() / length) as f32;
                noise.iter_mut().zip(w).for_each(|(n, w)| *n = w + scale * *n);
            }
        };
        let copies = weight.par_chunks_mut(classes * dim).enumerate();
        copies.for_each(perturb);
        Self::of(head, &weight)
    }

    /// That of a perturbed weight, `[repeats·C, D]`.
    pub fn of(head: &Head, weight: &[f32]) -> Self {
        let (dim, classes) = (head.dim(), head.classes());
        let copies = (COLUMNS / classes).clamp(1, weight.len() / (classes * dim));
        let group = |w: &[f32]| Packed::new(View::rows(w, dim).t(), dim, w.len() / dim);
        let groups = weight.par_chunks(copies * classes * dim).map(group).collect();
        Projection { groups, bias: head.bias().repeat(copies), classes, dim }
    }

    /// The perturbed weight, `[repeats·C, D]`.
    pub fn weight(&self) -> Vec<f32> {
        self.groups.iter().flat_map(Packed::columns).collect()
    }

    /// Number of values a row has.
    pub fn columns(&self) -> usize {
        self.groups.iter().map(Packed::n).sum()
    }

    /// Call `f` with the projections of all rows, `[n, width]`, and their
    /// width, for some copies after the other.
    pub fn each(&self, rows: &[f32], mut f: impl FnMut(&[f32], usize)) {
        let n = rows.len() / self.dim;
        let mut out = vec![0.0; n * self.groups.first().map_or(0, Packed::n)];
        let view = View::rows(rows, self.dim);
        for group in &self.groups {
            let width = group.n();
            let (out, add) = (&mut out[..n * width], &mut AddBias(&self.bias));
            with_scratch(|scratch| gemm(view, n, group, out, width, scratch, add));
            f(out, width);
        }
    }

    /// Add the largest probability of each copy to `sum`.
    pub fn add_confidence(&self, projected: &[f32], sum: &mut f64) {
        for copy in projected.chunks_exact(self.classes) {
            let max = reduce::max(copy);
            *sum += 1.0 / f64::from(copy.iter().map(|v| (v - max).exp()).sum::<f32>());
        }
    }

    /// Number of copies.
    pub fn copies(&self) -> usize {
        self.columns() / self.classes
    }
}
