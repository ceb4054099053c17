//! One step of training: propose, sample, apply.

use std::sync::atomic::Ordering;

use super::super::engine::LossBatch;
use super::super::loss::{LossValues, Objective};
use super::super::mlp::Dropout;
use super::super::proposal::{Proposal, Request};
use super::super::sampler::{ChainKey, Energy};
use super::Trainer;
use super::components::components;
use crate::error::{Error, Result};
use crate::features::Field;
use crate::math::parallel;
use crate::math::rng::{Purpose, Stream};

impl Trainer {
    /// Read the next real rows, draw and project the chains' starting points.
    ///
    /// # Errors
    /// If a row is not finite.
    pub fn propose(&mut self) -> Result<()> {
        let (batch, dim) = (self.config.batch_size, self.prior.dim());
        if self.order_of != Some(self.state.epoch) {
            let epoch = self.epochs_of_net() as u64;
            let mut stream = Stream::new(self.seed(), Purpose::Shuffle, epoch, 0);
            self.order = stream.permutation(self.train.len() as u32);
            self.order_of = Some(self.state.epoch);
        }
        let (seed, step) = (self.seed(), self.step_of_net());
        let picked = &self.order[self.state.batch * batch..][..batch];
        let field = Field::Features(self.prior.pooling());
        self.train.gather(field, picked, &mut self.raw)?;
        let steps = self.prior.steps();
        let (real, generated) = self.rows.split_at_mut(batch * dim);
        if steps.pca.is_some() {
            real.copy_from_slice(&steps.apply(&self.raw, self.input_dim));
        } else {
            steps.clip_and_normalize(&mut self.raw, self.input_dim);
            real.copy_from_slice(&self.raw);
        }
        if let Some(labels) = &self.labels {
            self.batch_labels.clear();
            self.batch_labels.extend(picked.iter().map(|&i| labels[i as usize]));
        }
        let (chains, initial) = generated.split_at_mut(batch * dim);
        let request = Request {
            prior: &*self.prior,
            seed,
            step,
            real,
            components: components(&self.config.ebm.model, &*self.prior, &self.batch_labels),
            negatives: self.negatives.as_ref(),
        };
        let model = &self.config.ebm.model;
        model.proposal_type.draw(&request, &mut self.proposals, chains)?;
        if model.conditional() {
            self.chain_labels.clone_from(&self.proposals.components);
        }
        if let Some(replay) = &self.replay {
            replay.draw(seed, step, chains, &mut self.chain_labels);
        }
        // Given rows are what they are; chains that start there are projected step by step.
        if self.config.ebm.model.proposal_type != Proposal::Features {
            self.projection.apply(chains, dim);
        }
        initial.copy_from_slice(chains);
        Ok(())
    }

    /// Run the chains.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn sample(&mut self) -> Result<()> {
        self.run_chains().map(drop)
    }

    /// The same; whether they ran to their ends. Otherwise nothing has changed but rows that
    /// `propose` draws anew.
    pub(super) fn run_chains(&mut self) -> Result<bool> {
        let size = self.config.batch_size * self.prior.dim();
        let model = &self.config.ebm.model;
        let moves = model.moves() && self.objective() != Objective::NoiseContrastive;
        let key = ChainKey { seed: self.seed(), step: self.step_of_net(), block: 0 };
        let chains = &mut self.rows[size..2 * size];
        if moves {
            let energy = Energy {
                net: &self.net,
                prior: &*self.prior,
                temperature: model.temperature,
                temperature_prior: model.prior_temperature(),
                projection: self.projection,
                labels: model.conditional().then_some(&self.chain_labels[..]),
            };
            self.engine.sample(&energy, &self.chain, key, chains)?;
            if self.stop.as_ref().is_some_and(|flag| flag.load(Ordering::SeqCst)) {
                return Ok(false);
            }
        }
        if let Some(replay) = &mut self.replay {
            replay.push(chains, &self.chain_labels);
        }
        Ok(true)
    }

    fn objective(&self) -> Objective {
        self.config.ebm.loss.objective
    }

    /// Rows that the loss sees: real, final and (with Langevin steps) initial ones.
    fn loss_rows(&self) -> usize {
        let cd = self.objective() == Objective::ContrastiveDivergence;
        let sets = if cd && !self.config.ebm.model.use_svgd { 3 } else { 2 };
        sets * self.config.batch_size * self.prior.dim()
    }

    /// Take the loss gradient of the batch; move the weights when enough
    /// batches are accumulated.
    ///
    /// # Errors
    /// If the loss is not finite, or the engine or the gradient hook fails.
    pub fn apply(&mut self) -> Result<LossValues> {
        let last = self.state.batch + 1 == self.batches();
        if last {
            self.log_prior();
        }
        self.add_input_noise();
        self.net.power_iteration();
        let probability = self.config.ebm.model.dropout;
        let (seed, step) = (self.seed(), self.step_of_net());
        let batch = LossBatch {
            rows: &self.rows[..self.loss_rows()],
            real: self.config.batch_size,
            temperature: self.config.ebm.model.temperature,
            objective: self.objective(),
            l2_coef: self.config.ebm.loss.l2_coef,
            weight: 1.0 / self.config.accum_iter as f64,
            dropout: (probability > 0.0).then_some(Dropout { probability, seed, step }),
        };
        let loss = if self.batch_gradient.is_empty() {
            self.engine.loss_gradient(&self.net, &batch, &mut self.gradient)?
        } else {
            self.batch_gradient.fill(0.0);
            let loss = self.engine.loss_gradient(&self.net, &batch, &mut self.batch_gradient)?;
            self.net.through_parameters(&mut self.batch_gradient);
            self.gradient.iter_mut().zip(&self.batch_gradient).for_each(|(a, b)| *a += b);
            loss
        };
        if !loss.loss.is_finite() {
            return Err(Error::Diverged {
                epoch: self.state.epoch + 1,
                step: self.state.step + 1,
                what: "the loss",
                value: loss.loss as f32,
            });
        }
        self.state.sums.add(&loss);
        self.state.batch += 1;
        self.state.step += 1;
        if last || self.state.batch.is_multiple_of(self.config.accum_iter) {
            if let Some(hook) = &mut self.hook {
                hook(&mut self.gradient)?;
            }
            let lr = self.rate();
            let (adam, gradient) = (&mut self.adam, &mut self.gradient);
            parallel::run(|| self.net.update(|p| adam.step(p, gradient, lr)));
            self.gradient.fill(0.0);
        }
        Ok(loss)
    }

    /// The learning rate now.
    pub(super) fn rate(&self) -> f64 {
        let optimizer = &self.config.ebm.optimizer;
        optimizer.opt.lr * optimizer.sch.factor(self.epochs_of_net())
    }

    /// δ ~ N(0, eps_data²) on every row of the loss.
    fn add_input_noise(&mut self) {
        let eps = self.config.ebm.loss.eps_data;
        if eps == 0.0 {
            return;
        }
        const CHUNK: usize = 1 << 12;
        let mut noise = [0.0; CHUNK];
        let mut stream = Stream::new(self.seed(), Purpose::Input, self.step_of_net(), 0);
        for rows in self.rows.chunks_mut(CHUNK) {
            let noise = &mut noise[..rows.len()];
            stream.fill_normal(noise);
            for (v, e) in rows.iter_mut().zip(noise) {
                *v += eps * *e;
            }
        }
    }

    /// The prior's energies of the rows that the loss sees. They are costly in
    /// f64: once an epoch, on its last batch. A residual alone has none.
    fn log_prior(&mut self) {
        let scale = self.config.ebm.model.prior_temperature();
        if scale.is_infinite() {
            return;
        }
        let batch = self.config.batch_size;
        let size = batch * self.prior.dim();
        let conditional = self.config.ebm.model.conditional();
        let mut energies = vec![0.0; batch];
        let mut mean = |rows: &[f32], labels: &[u32]| {
            let mut sum = 0.0;
            // Initial samples have the labels of the final ones.
            for rows in rows.chunks_exact(size) {
                if conditional {
                    self.prior.energy_given(rows, labels, &mut energies);
                } else {
                    self.prior.energy(rows, &mut energies);
                }
                sum += energies.iter().map(|&e| f64::from(e)).sum::<f64>();
            }
            sum / (rows.len() / size * batch) as f64 / scale
        };
        let real = mean(&self.rows[..size], &self.batch_labels);
        let generated = mean(&self.rows[size..self.loss_rows()], &self.chain_labels);
        self.state.sums.prior(real, generated);
    }
}
