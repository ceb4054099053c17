//! A whole batch on all threads: energies and the parameter gradient.

use std::sync::{Mutex, PoisonError};

use super::{Mask, Mlp, stride};
use crate::math::matmul::{Aligned, Packed, View, gemm, gemm_add, scratch_length};
use crate::math::parallel::{Pieces, Slices, SlicesMut};
use crate::math::rng::{Purpose, Stream};
use crate::math::{BLOCK_ROWS, parallel};

/// Dropout of a training forward: each hidden activation is set to zero with this probability, and
/// what is left is divided by 1 − probability (Srivastava et al., 2014). Which ones is told by seed, step, layer
/// and block of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// At least 0, less than 1.
    pub probability: f64,
    /// The run's seed.
    pub seed: u64,
    /// Training step.
    pub step: u64,
}

impl Dropout {
    /// The factor on activations that are kept.
    pub fn scale(self) -> f32 {
        (1.0 / (1.0 - self.probability)) as f32
    }

    /// Drop activations of a block of rows, the first `width` of every `ld`.
    fn apply(self, layer: usize, block: usize, rows: &mut [f32], ld: usize, width: usize) {
        let name = (layer as u64) << 32 | block as u64;
        let mut stream = Stream::new(self.seed, Purpose::Dropout, self.step, name);
        let (probability, scale) = (self.probability as f32, self.scale());
        let mut uniform = [0.0; 256];
        for row in rows.chunks_exact_mut(ld) {
            for values in row[..width].chunks_mut(uniform.len()) {
                let uniform = &mut uniform[..values.len()];
                stream.fill_uniform(uniform, 0.0, 1.0);
                for (v, u) in values.iter_mut().zip(uniform) {
                    *v = if *u < probability { 0.0 } else { scale * *v };
                }
            }
        }
    }

    /// Take ∂L/∂(activation after dropout) to that before. What is zero was dropped.
    fn back(self, delta: &mut [f32], ld: usize, activations: &[f32], activations_ld: usize) {
        let scale = self.scale();
        let rows = delta.chunks_exact_mut(ld).zip(activations.chunks_exact(activations_ld));
        for (delta, activations) in rows {
            for (d, a) in delta.iter_mut().zip(activations) {
                *d = if *a == 0.0 { 0.0 } else { scale * *d };
            }
        }
    }
}

/// Memory for a whole batch on all threads.
#[derive(Default)]
pub struct BatchWorkspace {
    /// Of the last forward.
    dropout: Option<Dropout>,
    activations: Vec<Aligned>,
    delta: [Aligned; 2],
    packed: Packed,
    scratch: Vec<Mutex<Aligned>>,
}

impl Mlp {
    /// E_nn of all `n` rows of `z` on the current pool, keeping activations.
    pub fn forward_all(
        &self,
        z: &[f32],
        n: usize,
        dropout: Option<Dropout>,
        ws: &mut BatchWorkspace,
        out: &mut [f32],
    ) {
        ws.dropout = dropout;
        if ws.scratch.len() != parallel::threads() {
            let fresh = || Mutex::new(Aligned::zeros(scratch_length(128, usize::MAX)));
            ws.scratch = (0..parallel::threads()).map(|_| fresh()).collect();
        }
        ws.activations.resize_with(self.order.len(), Aligned::default);
        for layer in 0..self.order.len() {
            let ld = stride(self.width(layer));
            ws.activations[layer].reserve(n * ld);
            let (before, after) = ws.activations.split_at_mut(layer);
            let (input, input_ld) = match before.last() {
                Some(a) => (&a[..], stride(self.width(layer - 1))),
                None => (z, self.architecture.input_dim),
            };
            let scratch = &ws.scratch;
            after[0][..n * ld]
                .par_chunks_mut(BLOCK_ROWS * ld)
                .zip(input.par_chunks(BLOCK_ROWS * input_ld))
                .enumerate()
                .for_each(|(block, (out, input))| {
                    let rows = out.len() / ld;
                    with_scratch(scratch, |s| {
                        self.layer_forward(layer, View::rows(input, input_ld), rows, out, s);
                    });
                    if let Some(dropout) = dropout {
                        dropout.apply(layer, block, out, ld, self.width(layer));
                    }
                });
        }
        let ld = stride(self.last().input);
        let top = &ws.activations[self.order.len() - 1];
        out[..n]
            .par_chunks_mut(BLOCK_ROWS)
            .zip(top.par_chunks(BLOCK_ROWS * ld))
            .for_each(|(out, top)| self.output(top, out));
    }

    /// Add ∂L/∂parameters to `grad`, given ∂L/∂E_nn of each row last given to
    /// [`Mlp::forward_all`] with the same `z`.
    pub fn backward_all(
        &self,
        z: &[f32],
        energy_grad: &[f32],
        ws: &mut BatchWorkspace,
        grad: &mut [f32],
    ) {
        let n = energy_grad.len();
        let ld = stride(self.widest());
        let BatchWorkspace { dropout, activations, delta: [a, b], packed, scratch } = ws;
        let dropout = *dropout;
        a.reserve(n * ld);
        b.reserve(n * ld);
        let (mut now, mut next) = (a, b);
        let top = self.order.len() - 1;
        let top_ld = stride(self.width(top));
        let last = self.last();
        column_sums(&activations[top], top_ld, Some(energy_grad), &mut grad[last.weight()]);
        grad[last.bias()][0] += energy_grad.iter().map(|&g| f64::from(g)).sum::<f64>() as f32;
        now[..n * ld]
            .par_chunks_mut(BLOCK_ROWS * ld)
            .zip(activations[top].par_chunks(BLOCK_ROWS * top_ld))
            .zip(energy_grad.par_chunks(BLOCK_ROWS))
            .for_each(|((delta, a), g)| {
                self.seed_delta(a, g.len(), |i| g[i], delta, ld);
                if let Some(dropout) = dropout {
                    dropout.back(delta, ld, a, top_ld);
                }
            });
        for layer in (0..=top).rev() {
            let index = self.order[layer];
            let linear = &self.linears[index];
            let (input, input_ld) = match layer {
                0 => (z, self.architecture.input_dim),
                l => (&activations[l - 1][..], stride(self.width(l - 1))),
            };
            let delta = View::rows(&now[..n * ld], ld);
            packed.set_parallel(View::rows(input, input_ld), n, linear.input);
            weight_gradient(delta, packed, scratch, &mut grad[linear.weight()]);
            column_sums(&now[..n * ld], ld, None, &mut grad[linear.bias()]);
            if layer > 0 {
                next[..n * ld]
                    .par_chunks_mut(BLOCK_ROWS * ld)
                    .zip(now[..n * ld].par_chunks(BLOCK_ROWS * ld))
                    .zip(input[..n * input_ld].par_chunks(BLOCK_ROWS * input_ld))
                    .for_each(|((out, delta), activations)| {
                        let rows = out.len() / ld;
                        let delta = View::rows(delta, ld);
                        let weight = &self.packs().backward[index];
                        let mut mask = Mask { activations, ld: input_ld };
                        with_scratch(scratch, |s| {
                            gemm(delta, rows, weight, out, ld, s, &mut mask);
                        });
                        if let Some(dropout) = dropout {
                            dropout.back(out, ld, activations, input_ld);
                        }
                    });
                std::mem::swap(&mut now, &mut next);
            }
        }
    }
}

/// Run `f` with this worker's own scratch memory.
fn with_scratch(all: &[Mutex<Aligned>], f: impl FnOnce(&mut Aligned)) {
    let mine = &all[parallel::worker() % all.len()];
    f(&mut mine.lock().unwrap_or_else(PoisonError::into_inner));
}

/// `grad += deltaᵀ·input` (`[out, in]`), in parallel over rows of the result.
fn weight_gradient(delta: View<'_>, input: &Packed, scratch: &[Mutex<Aligned>], grad: &mut [f32]) {
    // Each task reads all of the packed input: fewer, taller tasks read less.
    const HEIGHT: usize = 128;
    let width = input.n();
    grad.par_chunks_mut(HEIGHT * width).enumerate().for_each(|(i, grad)| {
        let left = delta.t().rows_from(i * HEIGHT);
        let rows = grad.len() / width;
        with_scratch(scratch, |s| gemm_add(left, rows, input, grad, width, s));
    });
}

/// Add Σ_i weightᵢ·rows[i, j] to `out[j]`, in f64, in parallel over columns.
fn column_sums(rows: &[f32], ld: usize, weights: Option<&[f32]>, out: &mut [f32]) {
    const COLUMNS: usize = 64;
    let n = weights.map_or(rows.len() / ld, <[f32]>::len);
    out.par_chunks_mut(COLUMNS).enumerate().for_each(|(c, out)| {
        let mut sums = [0.0f64; COLUMNS];
        for i in 0..n {
            let weight = weights.map_or(1.0, |w| f64::from(w[i]));
            let row = &rows[i * ld + c * COLUMNS..][..out.len()];
            for (s, v) in sums.iter_mut().zip(row) {
                *s += weight * f64::from(*v);
            }
        }
        for (o, s) in out.iter_mut().zip(sums) {
            *o += s as f32;
        }
    });
}
