//! What training asks of a device: run chains, take a loss gradient.
//!
//! The trainer is written against [`Engine`]; [`Cpu`] is the one there is.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::loss::{LossValues, Objective, contrastive_divergence, noise_contrastive};
use super::mlp::{BatchWorkspace, Dropout, Mlp};
use super::sampler::{ChainKey, ChainWorkspace, Energy, Langevin};
use super::svgd::{SvgdWorkspace, block_gradient};
use crate::error::Result;
use crate::math::matmul::Aligned;
use crate::math::parallel::{Pieces, SlicesMut};
use crate::math::{BLOCK_ROWS, parallel};

/// One batch for the loss: real rows, then generated ones.
pub struct LossBatch<'a> {
    /// `[n, D]`.
    pub rows: &'a [f32],
    /// How many of them are real.
    pub real: usize,
    /// T.
    pub temperature: f64,
    /// What is minimised.
    pub objective: Objective,
    /// Weight of the squared energies.
    pub l2_coef: f64,
    /// Factor on the gradient (1/accum_iter).
    pub weight: f64,
    /// Which activations are dropped, if any.
    pub dropout: Option<Dropout>,
}

impl LossBatch<'_> {
    /// The loss of the network energies of all rows, which are replaced by its gradient with respect to
    /// them.
    pub fn loss(&self, energies: &mut [f32]) -> LossValues {
        let objective = match self.objective {
            Objective::ContrastiveDivergence => contrastive_divergence,
            Objective::NoiseContrastive => noise_contrastive,
        };
        objective(energies, self.real, self.temperature, self.l2_coef, self.weight)
    }
}

/// Runs the two heavy parts of training. It is called on the thread that
/// drives the trainer, never on a worker of the library's pool.
pub trait Engine: Send {
    /// Run the chains of all rows of `z` (`[n, D]`) in place. Row blocks of
    /// [`BLOCK_ROWS`] are independent: `key.block` is the first one's number
    /// (but with SVGD, where all rows meet). `energy.labels`, where there are
    /// any, are those of all rows of `z`.
    ///
    /// # Errors
    /// If the rows cannot be had; the run then ends, and goes on from its last
    /// checkpoint.
    fn sample(
        &mut self,
        energy: &Energy<'_>,
        chain: &Langevin,
        key: ChainKey,
        z: &mut [f32],
    ) -> Result<()>;

    /// Add the gradient of the loss to `grad` and return the loss.
    ///
    /// # Errors
    /// As [`Engine::sample`].
    fn loss_gradient(
        &mut self,
        net: &Mlp,
        batch: &LossBatch<'_>,
        grad: &mut [f32],
    ) -> Result<LossValues>;

    /// Once this flag is set, [`Engine::sample`] may return before the last step: its rows are
    /// then not used. An engine that pays no heed to it is stopped after its chains.
    fn stop_on(&mut self, _flag: Option<Arc<AtomicBool>>) {}
}

/// The processor, all threads of the library's pool.
#[derive(Default)]
pub struct Cpu {
    chains: Vec<Mutex<ChainWorkspace>>,
    batch: BatchWorkspace,
    energies: Aligned,
    svgd: SvgdWorkspace,
}

impl Cpu {
    /// Give every worker its memory by a step nobody sees.
    fn grow(&mut self, energy: &Energy<'_>, chain: &Langevin, block: &[f32]) {
        if self.chains.len() == parallel::threads() {
            return;
        }
        self.chains.resize_with(parallel::threads(), Mutex::default);
        let once = Langevin { steps: 1, eps: (1.0, 1.0), svgd: false, ..*chain };
        let key = ChainKey { seed: 0, step: 0, block: 0 };
        parallel::each_worker(|i| {
            let ws = &mut self.chains[i].lock().unwrap_or_else(PoisonError::into_inner);
            ws.stop_on(self.svgd.stop.clone());
            let rows = block.len() / energy.prior.dim();
            energy.of_rows(0, rows).sgld(&once, key, &mut block.to_vec(), ws);
        });
    }
}

impl Engine for Cpu {
    fn sample(
        &mut self,
        energy: &Energy<'_>,
        chain: &Langevin,
        key: ChainKey,
        z: &mut [f32],
    ) -> Result<()> {
        let block = BLOCK_ROWS * energy.prior.dim();
        energy.net.pack();
        parallel::run(|| {
            self.grow(energy, chain, &z[..block.min(z.len())]);
            let chains = &self.chains;
            if chain.svgd {
                return energy.svgd(chain, key, z, &mut self.svgd, |energy, block, z, out| {
                    let mine = &chains[parallel::worker() % chains.len()];
                    let ws = &mut mine.lock().unwrap_or_else(PoisonError::into_inner);
                    block_gradient(energy, block, z, out, ws);
                });
            }
            z.par_chunks_mut(block).enumerate().for_each(|(i, z)| {
                let mine = &chains[parallel::worker() % chains.len()];
                let ws = &mut mine.lock().unwrap_or_else(PoisonError::into_inner);
                let block = key.block + i as u64;
                let energy = energy.of_rows(i * BLOCK_ROWS, z.len() / energy.prior.dim());
                energy.sgld(chain, ChainKey { block, ..key }, z, ws);
            });
        });
        Ok(())
    }

    fn loss_gradient(
        &mut self,
        net: &Mlp,
        batch: &LossBatch<'_>,
        grad: &mut [f32],
    ) -> Result<LossValues> {
        let n = batch.rows.len() / net.architecture().input_dim;
        self.energies.reserve(n);
        let energies = &mut self.energies[..n];
        net.pack();
        Ok(parallel::run(|| {
            net.forward_all(batch.rows, n, batch.dropout, &mut self.batch, energies);
            let loss = batch.loss(energies);
            net.backward_all(batch.rows, energies, &mut self.batch, grad);
            loss
        }))
    }

    fn stop_on(&mut self, flag: Option<Arc<AtomicBool>>) {
        for ws in &mut self.chains {
            ws.get_mut().unwrap_or_else(PoisonError::into_inner).stop_on(flag.clone());
        }
        self.svgd.stop = flag;
    }
}
