//! Stein variational gradient descent in place of Langevin steps (METHOD §4).
//!
//! z ← Π( z + λ_t (K ∇log p + ∇K)/B + σ_t ε ), log p = −E, with the kernel
//! K_ij = exp(−‖zᵢ − zⱼ‖²/2h) and the median heuristic
//! h = median(‖zᵢ − zⱼ‖²)/(2 ln(B + 1)) over all B² pairs. (∇K)_i =
//! Σ_j K_ij (zᵢ − zⱼ)/h drives the particles apart. All rows of a batch meet:
//! O(B²·D) a step, memory O(B²).
//!
//! Reference: Liu and Wang, NeurIPS 2016.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sampler::{ChainKey, ChainWorkspace, Energy, Langevin};
use crate::math::matmul::{Aligned, Keep, Packed, View, gemm};
use crate::math::parallel::{Pieces, Slices, SlicesMut};
use crate::math::rng::{Purpose, Stream};
use crate::math::{BLOCK_ROWS, reduce};

/// Memory of the particles; grown once, then kept.
#[derive(Default)]
pub(super) struct SvgdWorkspace {
    score: Vec<f32>,
    kernel: Vec<f32>,
    sorted: Vec<f32>,
    noise: Vec<f32>,
    pull: Vec<f32>,
    packed: Packed,
    /// Ends the run of all particles before the last step.
    pub stop: Option<Arc<AtomicBool>>,
}

impl Energy<'_> {
    /// Run all steps on the rows `z` (`[B, D]`) in place, on the current pool.
    pub(super) fn svgd(
        &self,
        chain: &Langevin,
        key: ChainKey,
        z: &mut [f32],
        ws: &mut SvgdWorkspace,
        gradient: impl Fn(&Energy<'_>, usize, &[f32], &mut [f32]) + Sync,
    ) {
        let dim = self.prior.dim();
        let n = z.len() / dim;
        ws.score.resize(z.len(), 0.0);
        ws.pull.resize(z.len(), 0.0);
        ws.noise.resize(z.len(), 0.0);
        for t in 0..chain.steps {
            if ws.stop.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                break;
            }
            let block = BLOCK_ROWS * dim;
            let blocks = ws.score.par_chunks_mut(block).zip(z.par_chunks(block)).enumerate();
            blocks.for_each(|(i, (score, z))| gradient(self, i, z, score));
            let h = ws.kernel(z, dim);
            ws.packed.set_parallel(View::rows(&ws.score, dim), n, dim);
            product(&ws.kernel, &ws.packed, &mut ws.pull, n, dim);
            // (K ∇log p)_i = −Σ_j K_ij ∇E_j.
            ws.pull.par_iter_mut().for_each(|v| *v = -*v);
            ws.packed.set_parallel(View::rows(z, dim), n, dim);
            product(&ws.kernel, &ws.packed, &mut ws.score, n, dim);
            let (step, eps) = chain.sizes(t);
            if eps > 0.0 {
                let name = key.block << 32 | t as u64;
                let mut stream = Stream::new(key.seed, Purpose::Langevin, key.step, name);
                stream.fill_normal(&mut ws.noise);
            } else {
                ws.noise.fill(0.0);
            }
            let rows = z.par_chunks_mut(dim).zip(ws.kernel.par_chunks(n));
            let rows = rows.zip(ws.pull.par_chunks(dim)).zip(ws.score.par_chunks(dim));
            rows.zip(ws.noise.par_chunks(dim)).for_each(|((((z, k), pull), kz), noise)| {
                let mass: f32 = k.iter().map(|&v| f64::from(v)).sum::<f64>() as f32;
                for (((z, p), kz), e) in z.iter_mut().zip(pull).zip(kz).zip(noise) {
                    let push = (mass * *z - kz) / h;
                    *z += step * (p + push) / n as f32 + eps * e;
                }
                self.projection.apply(z, dim);
            });
        }
    }
}

impl SvgdWorkspace {
    /// Fill K (`[n, n]`) and return h.
    fn kernel(&mut self, z: &[f32], dim: usize) -> f32 {
        let n = z.len() / dim;
        let norms: Vec<f32> = z.chunks_exact(dim).map(|r| reduce::norm2(r) as f32).collect();
        self.packed.set_parallel(View::rows(z, dim).t(), dim, n);
        self.kernel.resize(n * n, 0.0);
        product(z, &self.packed, &mut self.kernel, n, n);
        self.kernel.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
            for ((d, norm), j) in row.iter_mut().zip(&norms).zip(0..) {
                *d = if i == j { 0.0 } else { (norms[i] + norm - 2.0 * *d).max(0.0) };
            }
        });
        self.sorted.clone_from(&self.kernel);
        let h = (f64::from(median(&mut self.sorted)) / (2.0 * (n as f64 + 1.0).ln())).max(0.0);
        // As published: 1/(1e-8 + 2σ²), σ = √h.
        let h = (0.5e-8 + h) as f32;
        self.kernel.par_iter_mut().for_each(|d| *d = (-*d / (2.0 * h)).exp());
        h
    }
}

/// numpy's median: the mean of the two middle values of an even number.
fn median(x: &mut [f32]) -> f32 {
    let n = x.len();
    let (low, high, _) = x.select_nth_unstable_by(n / 2, f32::total_cmp);
    let high = *high;
    if n % 2 == 1 {
        return high;
    }
    let low = low.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    0.5 * (low + high)
}

/// out `[m, n]` = a `[m, k]` · packed, in blocks of rows.
fn product(a: &[f32], packed: &Packed, out: &mut [f32], m: usize, n: usize) {
    let k = a.len() / m;
    out.par_chunks_mut(BLOCK_ROWS * n).zip(a.par_chunks(BLOCK_ROWS * k)).for_each(|(out, a)| {
        let rows = out.len() / n;
        gemm(View::rows(a, k), rows, packed, out, n, &mut Aligned::default(), &mut Keep);
    });
}

/// Gradient of one block with its own share of the labels.
pub(super) fn block_gradient(
    energy: &Energy<'_>,
    block: usize,
    z: &[f32],
    out: &mut [f32],
    ws: &mut ChainWorkspace,
) {
    let first = block * BLOCK_ROWS;
    energy.of_rows(first, z.len() / energy.prior.dim()).gradient(z, out, ws);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_as_numpy() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
