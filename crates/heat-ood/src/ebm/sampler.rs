//! Stochastic gradient Langevin dynamics (METHOD §4, steps 2 and 3).
//!
//! z ← Π( z − λ_t ∇E(z) − σ_t ε ), E the whole energy, prior included. A block
//! of rows runs all its steps on one thread without meeting another: the
//! result is a pure function of weights, seed, training step and block.
//!
//! Reference: Welling and Teh, ICML 2011.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::mlp::{Mlp, Workspace};
use crate::math::matmul::Aligned;
use crate::math::rng::{Purpose, Stream};
use crate::scorers::{Prior, Scratch};

/// E(z) = E_nn(z)/T + E_prior(z)/T_prior, with the region its samples lie in.
#[derive(Clone, Copy)]
pub struct Energy<'a> {
    /// The residual.
    pub net: &'a Mlp,
    /// The prior.
    pub prior: &'a dyn Prior,
    /// T.
    pub temperature: f64,
    /// T_prior; infinite for a residual alone.
    pub temperature_prior: f64,
    /// Π.
    pub projection: Projection,
    /// The class of each row, where the prior's energy is that given a class.
    pub labels: Option<&'a [u32]>,
}

/// Π: ReLU, then L2-normalise; or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Projection {
    /// Clip at zero.
    pub relu: bool,
    /// Divide by the L2 norm.
    pub normalize: bool,
    /// Whether the halves of a row, `avg` and `std` side by side, are normalised each.
    pub halves: bool,
}

impl Projection {
    /// The projection that goes with a prior's feature steps.
    pub fn new(prior: &dyn Prior, relu: bool) -> Self {
        let steps = prior.steps();
        if steps.pca.is_some() {
            return Projection::default();
        }
        Projection { relu, normalize: steps.normalize, halves: steps.halves }
    }

    /// Project rows of `dim`.
    pub fn apply(self, rows: &mut [f32], dim: usize) {
        crate::math::arch().dispatch(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(dim) {
                    self.row(row);
                }
            },
        );
    }

    #[inline(always)]
    fn row(self, row: &mut [f32]) {
        if self.relu {
            for v in row.iter_mut() {
                *v = v.max(0.0);
            }
        }
        if self.normalize {
            let (first, second) = row.split_at_mut(if self.halves { row.len() / 2 } else { 0 });
            for part in [first, second] {
                normalize(part);
            }
        }
    }
}

#[inline(always)]
fn normalize(row: &mut [f32]) {
    let mut sums = [0.0f32; 32];
    let (chunks, tail) = row.as_chunks::<32>();
    for c in chunks {
        for (s, v) in sums.iter_mut().zip(c) {
            *s += v * v;
        }
    }
    let sum: f32 = sums.iter().sum::<f32>() + tail.iter().map(|v| v * v).sum::<f32>();
    let scale = 1.0 / sum.sqrt().max(1e-12);
    for v in row {
        *v *= scale;
    }
}

/// The chains' length and step sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Langevin {
    /// Number of steps.
    pub steps: usize,
    /// λ at the start and at the end.
    pub step_size: (f64, f64),
    /// σ at the start and at the end.
    pub eps: (f64, f64),
    /// Step in the prior's whitened coordinates: z ← Π(z − λ_t Σ∇E − σ_t Lε).
    pub precondition: bool,
    /// Stein variational gradient descent instead of Langevin steps.
    pub svgd: bool,
}

impl Langevin {
    /// λ_t and σ_t.
    pub fn sizes(&self, t: usize) -> (f32, f32) {
        (self.at(self.step_size, t), self.at(self.eps, t))
    }

    /// Polynomial decay: v(t) = (start − end)(1 − t/steps)² + end.
    fn at(&self, (start, end): (f64, f64), t: usize) -> f32 {
        let rest = 1.0 - t as f64 / self.steps as f64;
        ((start - end) * rest * rest + end) as f32
    }
}

/// What names a block's noise.
#[derive(Debug, Clone, Copy)]
pub struct ChainKey {
    /// The run's seed.
    pub seed: u64,
    /// Training step.
    pub step: u64,
    /// Block of rows.
    pub block: u64,
}

/// Memory for one thread's chains; grown once, then kept.
#[derive(Default)]
pub struct ChainWorkspace {
    net: Workspace,
    prior: Scratch,
    gradient: Aligned,
    noise: Aligned,
    energies: Aligned,
    /// Ends chains before their last step.
    stop: Option<Arc<AtomicBool>>,
}

impl ChainWorkspace {
    /// Chains end before their last step once this is set; their rows are then no samples.
    pub fn stop_on(&mut self, flag: Option<Arc<AtomicBool>>) {
        self.stop = flag;
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

impl<'a> Energy<'a> {
    /// The same energy for rows `first..first + n` of those that have labels.
    pub fn of_rows(&self, first: usize, n: usize) -> Energy<'a> {
        Energy { labels: self.labels.map(|l| &l[first..first + n]), ..*self }
    }
}

impl Energy<'_> {
    /// ∇E of the rows `z` into `out` (both `[n, D]`).
    pub fn gradient(&self, z: &[f32], out: &mut [f32], ws: &mut ChainWorkspace) {
        let dim = self.prior.dim();
        let n = z.len() / dim;
        ws.energies.reserve(n);
        self.net.energy(z, dim, n, &mut ws.net, &mut ws.energies);
        let scale = (1.0 / self.temperature) as f32;
        self.net.input_gradient(n, scale, &mut ws.net, out);
        let scale = (1.0 / self.temperature_prior) as f32;
        if scale == 0.0 {
            return;
        }
        match self.labels {
            Some(labels) => {
                self.prior.add_gradient_given(z, labels, scale, out, &mut ws.prior);
            }
            None => self.prior.add_gradient(z, scale, out, &mut ws.prior),
        }
    }

    /// Run the chains of the rows `z` (`[n, D]`) in place, on this thread.
    pub fn sgld(&self, chain: &Langevin, key: ChainKey, z: &mut [f32], ws: &mut ChainWorkspace) {
        let dim = self.prior.dim();
        let mut gradient = std::mem::take(&mut ws.gradient);
        let mut noise = std::mem::take(&mut ws.noise);
        gradient.reserve(z.len());
        noise.reserve(z.len());
        let arch = crate::math::arch();
        for t in 0..chain.steps {
            if ws.is_stopped() {
                break;
            }
            let grad = &mut gradient[..z.len()];
            self.gradient(z, grad, ws);
            let (mut step, mut eps) = chain.sizes(t);
            let noise = &mut noise[..z.len()];
            if eps > 0.0 {
                let name = key.block << 32 | t as u64;
                Stream::new(key.seed, Purpose::Langevin, key.step, name).fill_normal(noise);
            } else {
                noise.fill(0.0);
            }
            if chain.precondition && self.prior.whitened_step(grad, step, noise, eps, &mut ws.prior)
            {
                (step, eps) = (1.0, 0.0);
            }
            arch.dispatch(
                #[inline(always)]
                || {
                    let rows = z.chunks_exact_mut(dim).zip(grad.chunks_exact(dim));
                    for ((z, g), e) in rows.zip(noise.chunks_exact(dim)) {
                        for ((z, g), e) in z.iter_mut().zip(g).zip(e) {
                            *z -= step * g + eps * e;
                        }
                        self.projection.row(z);
                    }
                },
            );
        }
        (ws.gradient, ws.noise) = (gradient, noise);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: v(0) = start, v(steps/2) = (start − end)/4 + end.
    #[test]
    fn decay_by_hand() {
        let l = Langevin {
            steps: 4,
            step_size: (1.0, 0.2),
            eps: (0.0, 0.0),
            precondition: false,
            svgd: false,
        };
        assert_eq!(l.at(l.step_size, 0), 1.0);
        assert!((l.at(l.step_size, 2) - 0.4).abs() < 1e-7);
    }

    #[test]
    fn projection_by_hand() {
        let mut z = [3.0, -1.0, 4.0, -1.0, -2.0, -3.0];
        let both = Projection { relu: true, normalize: true, halves: false };
        both.apply(&mut z, 3);
        assert_eq!(z, [0.6, 0.0, 0.8, 0.0, 0.0, 0.0]);
        let mut z = [3.0, 4.0, -1.0, 2.0];
        Projection { halves: true, ..both }.apply(&mut z, 4);
        assert_eq!(z, [0.6, 0.8, 0.0, 1.0]);
        let mut z = [-1.0, 2.0];
        Projection::default().apply(&mut z, 2);
        assert_eq!(z, [-1.0, 2.0]);
    }
}
