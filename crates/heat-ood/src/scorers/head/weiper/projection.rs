//! The perturbed head.

use super::WeiperConfig;
use crate::features::Head;
use crate::math::matmul::{Aligned, Epilogue, Packed, View, gemm};
use crate::math::reduce;
use crate::math::rng::{Purpose, Stream};

/// Numbers held at a time.
const HELD: usize = 1 << 20;

/// W̃z + b.
pub(super) struct Projection {
    weight: Packed,
    bias: Vec<f32>,
    classes: usize,
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
        for (copy, weight) in weight.chunks_exact_mut(classes * dim).enumerate() {
            Stream::new(config.seed, Purpose::Projection, 2, copy as u64).fill_normal(weight);
            for (noise, w) in weight.chunks_exact_mut(dim).zip(head.weight().chunks_exact(dim)) {
                let length = reduce::norm2(noise).sqrt().max(1e-12);
                let scale = (distance * reduce::norm2(w).sqrt() / length) as f32;
                noise.iter_mut().zip(w).for_each(|(n, w)| *n = w + scale * *n);
            }
        }
        Self::of(head, &weight)
    }

    /// That of a perturbed weight, `[repeats·C, D]`.
    pub fn of(head: &Head, weight: &[f32]) -> Self {
        let (dim, classes) = (head.dim(), head.classes());
        let columns = weight.len() / dim;
        let weight = Packed::new(View::rows(weight, dim).t(), dim, columns);
        Projection { weight, bias: head.bias().repeat(columns / classes), classes }
    }

    /// The perturbed weight, `[repeats·C, D]`.
    pub fn weight(&self) -> Vec<f32> {
        self.weight.columns()
    }

    /// Number of values a row has.
    pub fn columns(&self) -> usize {
        self.bias.len()
    }

    /// Call `f` with rows and their projections, a few rows at a time.
    pub fn each(&self, rows: &[f32], dim: usize, mut f: impl FnMut(&[f32], &[f32])) {
        let columns = self.columns();
        let step = (HELD / columns).clamp(1, 256);
        let (mut out, mut scratch) = (vec![0.0; step * columns], Aligned::default());
        for row in rows.chunks(step * dim) {
            let n = row.len() / dim;
            let out = &mut out[..n * columns];
            let add = &mut AddBias(&self.bias);
            gemm(View::rows(row, dim), n, &self.weight, out, columns, &mut scratch, add);
            for (row, projected) in row.chunks_exact(dim).zip(out.chunks_exact(columns)) {
                f(row, projected);
            }
        }
    }

    /// Mean over the copies of the largest probability.
    pub fn confidence(&self, projected: &[f32]) -> f64 {
        let copies = projected.chunks_exact(self.classes);
        let count = copies.len() as f64;
        let largest = |l: &[f32]| {
            let max = reduce::max(l);
            1.0 / f64::from(l.iter().map(|v| (v - max).exp()).sum::<f32>())
        };
        copies.map(largest).sum::<f64>() / count
    }
}
