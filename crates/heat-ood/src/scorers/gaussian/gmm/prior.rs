//! The mixture as a prior: energy, gradient, sampling, whitened steps.

use super::Gmm;
use crate::error::Result;
use crate::features::{Pooling, Preprocessing};
use crate::math::matmul::{Keep, Packed, View, gemm, gemm_add};
use crate::math::{reduce, rng::Stream};
use crate::scorers::{Form, Mixture, Prior, Scratch};

/// Responsibilities that vanish beside the rounding of the largest.
const NEGLIGIBLE: f32 = 1e-15;

/// The f32 operands of the gradient and of sampling.
pub(super) struct Fast {
    centre: Vec<f32>,
    means: Vec<f32>,
    /// log π_k − ½‖w_k‖².
    offset: Vec<f32>,
    cumulative: Vec<f64>,
    whiten: Packed,
    to_means: Packed,
    from_means: Packed,
    back: Packed,
    colour: Packed,
    /// L as right operand: a gradient's whitened coordinates.
    uncolour: Packed,
}

impl Fast {
    pub(super) fn new(gmm: &Gmm) -> Self {
        let (d, k) = (gmm.input.dim, gmm.probs.len());
        let Mixture { centre, whiten, white_means, offset, means, colour } = gmm.mixture_form();
        let mut total = 0.0;
        Fast {
            centre,
            means,
            offset,
            cumulative: gmm
                .probs
                .iter()
                .map(|p| {
                    total += p;
                    total
                })
                .collect(),
            whiten: Packed::new(View::rows(&whiten, d).t(), d, d),
            to_means: Packed::new(View::rows(&white_means, d).t(), d, k),
            from_means: Packed::new(View::rows(&white_means, d), k, d),
            back: Packed::new(View::rows(&whiten, d), d, d),
            colour: Packed::new(View::rows(&colour, d).t(), d, d),
            uncolour: Packed::new(View::rows(&colour, d), d, d),
        }
    }
}

impl Gmm {
    fn mixture_form(&self) -> Mixture {
        let single = |x: &[f64]| x.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let offset = self
            .white_means
            .chunks_exact(self.input.dim)
            .zip(&self.probs)
            .map(|(m, p)| (p.ln() - 0.5 * m.iter().map(|v| v * v).sum::<f64>()) as f32);
        Mixture {
            centre: single(&self.centre),
            whiten: single(&self.inverse),
            white_means: single(&self.white_means),
            offset: offset.collect(),
            means: single(&self.means),
            colour: single(&self.scale_tril),
        }
    }
}

impl Prior for Gmm {
    fn pooling(&self) -> Pooling {
        self.config.pooling
    }

    fn steps(&self) -> &Preprocessing {
        &self.input.steps
    }

    fn dim(&self) -> usize {
        self.input.dim
    }

    fn energy(&self, z: &[f32], out: &mut [f32]) {
        let distances = self.distances(z);
        let constant = self.log_normaliser();
        for (o, d) in out.iter_mut().zip(distances.chunks_exact(self.probs.len())) {
            let terms = d.iter().zip(&self.log_probs).map(|(d, p)| p - 0.5 * d);
            *o = (constant - reduce::logsumexp(terms)) as f32;
        }
    }

    fn add_gradient(&self, z: &[f32], scale: f32, grad: &mut [f32], scratch: &mut Scratch) {
        let fast = self.fast();
        let (d, k) = (self.input.dim, self.probs.len());
        let n = z.len() / d;
        let Scratch { a, b, gemm: pack } = scratch;
        a.reserve(n * d);
        b.reserve(n * d.max(k));
        let (white, other) = (&mut a[..n * d], &mut b[..]);
        let centred = &mut other[..n * d];
        for (out, row) in centred.chunks_exact_mut(d).zip(z.chunks_exact(d)) {
            for ((o, v), c) in out.iter_mut().zip(row).zip(&fast.centre) {
                *o = v - c;
            }
        }
        gemm(View::rows(centred, d), n, &fast.whiten, white, d, pack, &mut Keep);
        let resp = &mut other[..n * k];
        gemm(View::rows(white, d), n, &fast.to_means, resp, k, pack, &mut Keep);
        for row in resp.chunks_exact_mut(k) {
            for (r, o) in row.iter_mut().zip(&fast.offset) {
                *r += o;
            }
            reduce::softmax(row);
            // Negated, because the product is added to w below. Real features
            // lie so far from all but one mean that the other responsibilities
            // are subnormal, on which processors take a hundred times as long;
            // below NEGLIGIBLE they cannot change an f32 sum.
            row.iter_mut().for_each(|r| *r = if *r < NEGLIGIBLE { 0.0 } else { -*r });
        }
        // w − Σ r_k w_k, then back through L⁻ᵀ.
        gemm_add(View::rows(&other[..n * k], k), n, &fast.from_means, white, d, pack);
        white.iter_mut().for_each(|v| *v *= scale);
        gemm_add(View::rows(white, d), n, &fast.back, grad, d, pack);
    }

    fn form(&self) -> Option<Form> {
        Some(Form::Mixture(self.mixture_form()))
    }

    fn mixture(&self) -> Option<&[f64]> {
        Some(&self.probs)
    }

    fn energy_given(&self, z: &[f32], labels: &[u32], out: &mut [f32]) {
        self.energy_given_label(z, labels, out);
    }

    /// P(z − μ_y): two products of O(D²), no responsibilities.
    fn add_gradient_given(
        &self,
        z: &[f32],
        labels: &[u32],
        scale: f32,
        grad: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let fast = self.fast();
        let d = self.input.dim;
        let n = z.len() / d;
        let Scratch { a, b, gemm: pack } = scratch;
        a.reserve(n * d);
        b.reserve(n * d);
        let (white, centred) = (&mut a[..n * d], &mut b[..n * d]);
        let rows = centred.chunks_exact_mut(d).zip(z.chunks_exact(d)).zip(labels);
        for ((out, row), &y) in rows {
            let mean = &fast.means[y as usize * d..][..d];
            for ((o, v), m) in out.iter_mut().zip(row).zip(mean) {
                *o = scale * (v - m);
            }
        }
        gemm(View::rows(centred, d), n, &fast.whiten, white, d, pack, &mut Keep);
        gemm_add(View::rows(white, d), n, &fast.back, grad, d, pack);
    }

    fn whitened_step(
        &self,
        gradient: &mut [f32],
        step: f32,
        noise: &[f32],
        eps: f32,
        scratch: &mut Scratch,
    ) -> bool {
        let fast = self.fast();
        let d = self.input.dim;
        let n = gradient.len() / d;
        scratch.a.reserve(n * d);
        let white = &mut scratch.a[..n * d];
        // L(λ Lᵀg + σ ε).
        gemm(View::rows(gradient, d), n, &fast.uncolour, white, d, &mut scratch.gemm, &mut Keep);
        for (w, e) in white.iter_mut().zip(noise) {
            *w = step * *w + eps * e;
        }
        gemm(View::rows(white, d), n, &fast.colour, gradient, d, &mut scratch.gemm, &mut Keep);
        true
    }

    fn sample(
        &self,
        stream: &mut Stream,
        components: Option<&[u32]>,
        spread: Option<&[f32]>,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let fast = self.fast();
        let d = self.input.dim;
        let n = out.len() / d;
        let last = self.probs.len() - 1;
        // Components first, so that the noise has one place in the stream.
        scratch.b.reserve(n);
        for (i, slot) in scratch.b[..n].iter_mut().enumerate() {
            let u = stream.uniform();
            let drawn = fast.cumulative.partition_point(|&c| c <= u).min(last);
            *slot = components.map_or(drawn, |c| c[i] as usize) as f32;
        }
        scratch.a.reserve(n * d);
        let noise = &mut scratch.a[..n * d];
        stream.fill_normal(noise);
        if let Some(spread) = spread {
            for (row, s) in noise.chunks_exact_mut(d).zip(spread) {
                row.iter_mut().for_each(|v| *v *= s);
            }
        }
        gemm(View::rows(noise, d), n, &fast.colour, out, d, &mut scratch.gemm, &mut Keep);
        for (row, k) in out.chunks_exact_mut(d).zip(scratch.b.iter()) {
            let mean = &fast.means[*k as usize * d..][..d];
            for (v, m) in row.iter_mut().zip(mean) {
                *v += m;
            }
        }
        Ok(())
    }
}
