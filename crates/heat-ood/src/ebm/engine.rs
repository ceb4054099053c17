//! What training asks of a device: run chains, take a loss gradient.
//!
//! The trainer is written against [`Engine`]; [`Cpu`] is the one there is.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::loss::{LossValues, contrastive_divergence};
use super::mlp::{BatchWorkspace, Mlp};
use super::sampler::{ChainKey, ChainWorkspace, Energy, Langevin};
use crate::math::matmul::Aligned;
use crate::math::{BLOCK_ROWS, parallel};

/// One batch for the loss: real rows, then generated ones.
pub struct LossBatch<'a> {
    /// `[n, D]`.
    pub rows: &'a [f32],
    /// How many of them are real.
    pub real: usize,
    /// T.
    pub temperature: f64,
    /// Weight of the squared energies.
    pub l2_coef: f64,
    /// Factor on the gradient (1/accum_iter).
    pub weight: f64,
}

/// Runs the two heavy parts of training.
pub trait Engine: Send {
    /// Run the chains of all rows of `z` (`[n, D]`) in place. Row blocks of
    /// [`BLOCK_ROWS`] are independent: `key.block` is the first one's number.
    fn sample(&mut self, energy: &Energy<'_>, chain: &Langevin, key: ChainKey, z: &mut [f32]);

    /// Add the gradient of the loss to `grad` and return the loss.
    fn loss_gradient(&mut self, net: &Mlp, batch: &LossBatch<'_>, grad: &mut [f32]) -> LossValues;
}

/// The processor, all threads of the library's pool.
#[derive(Default)]
pub struct Cpu {
    chains: Vec<Mutex<ChainWorkspace>>,
    batch: BatchWorkspace,
    energies: Aligned,
}

impl Cpu {
    /// Give every worker its memory by a step nobody sees.
    fn grow(&mut self, energy: &Energy<'_>, chain: &Langevin, block: &[f32]) {
        if self.chains.len() == parallel::threads() {
            return;
        }
        self.chains.resize_with(parallel::threads(), Mutex::default);
        let once = Langevin { steps: 1, eps: (1.0, 1.0), ..*chain };
        let key = ChainKey { seed: 0, step: 0, block: 0 };
        parallel::each_worker(|i| {
            let ws = &mut self.chains[i].lock().unwrap_or_else(PoisonError::into_inner);
            energy.sgld(&once, key, &mut block.to_vec(), ws);
        });
    }
}

impl Engine for Cpu {
    fn sample(&mut self, energy: &Energy<'_>, chain: &Langevin, key: ChainKey, z: &mut [f32]) {
        let block = BLOCK_ROWS * energy.prior.dim();
        parallel::run(|| {
            self.grow(energy, chain, &z[..block.min(z.len())]);
            let chains = &self.chains;
            z.par_chunks_mut(block).enumerate().for_each(|(i, z)| {
                let mine = &chains[parallel::worker() % chains.len()];
                let ws = &mut mine.lock().unwrap_or_else(PoisonError::into_inner);
                let block = key.block + i as u64;
                energy.sgld(chain, ChainKey { block, ..key }, z, ws);
            });
        });
    }

    fn loss_gradient(&mut self, net: &Mlp, batch: &LossBatch<'_>, grad: &mut [f32]) -> LossValues {
        let n = batch.rows.len() / net.architecture().input_dim;
        self.energies.reserve(n);
        let energies = &mut self.energies[..n];
        parallel::run(|| {
            net.forward_all(batch.rows, n, &mut self.batch, energies);
            let LossBatch { real, temperature, l2_coef, weight, .. } = *batch;
            let loss = contrastive_divergence(energies, real, temperature, l2_coef, weight);
            net.backward_all(batch.rows, energies, &mut self.batch, grad);
            loss
        })
    }
}
