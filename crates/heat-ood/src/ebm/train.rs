//! Training by contrastive divergence: propose, sample, apply.
//!
//! One step of [`Trainer`] is three calls. `propose` reads the real rows and
//! draws where the chains start; `sample` runs the chains, a pure function of
//! weights, seed, step and row block; `apply` takes the loss gradient and
//! moves the weights. Everything random comes from streams named by the seed
//! and the step, so a checkpoint needs only counters to go on bit for bit.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::{HeatConfig, ModelConfig};
use super::engine::{Cpu, Engine, LossBatch};
use super::heat::Heat;
use super::log::{EpochLog, Sums};
use super::loss::{LossValues, Objective};
use super::mlp::Mlp;
use super::optim::Adam;
use super::proposal::{Components, Proposal, ProposalWorkspace, Request};
use super::replay::Replay;
use super::run::{Outcome, RunFolder};
use super::sampler::{ChainKey, Energy, Langevin, Projection};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field};
use crate::math::parallel;
use crate::math::rng::{Purpose, Stream};
use crate::observe::{Event, Observer};
use crate::scorers::Prior;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct State {
    /// Epochs finished.
    pub epoch: usize,
    /// Batches finished in the epoch under way.
    pub batch: usize,
    /// Batches finished in all.
    pub step: u64,
    /// Running sums of the epoch under way.
    pub(super) sums: Sums,
    /// Finished epochs.
    pub history: Vec<EpochLog>,
}

/// Is given the accumulated gradient before the optimiser's step, and may
/// replace it: by the mean over several processes, say.
pub type GradientHook = Box<dyn FnMut(&mut [f32]) -> Result<()> + Send>;

/// A training run.
pub struct Trainer<'a> {
    pub(super) config: HeatConfig,
    pub(super) prior: Arc<dyn Prior>,
    pub(super) net: Mlp,
    pub(super) adam: Adam,
    pub(super) gradient: Vec<f32>,
    pub(super) state: State,
    pub(super) train: &'a FeatureSet,
    pub(super) input_dim: usize,
    engine: Box<dyn Engine>,
    hook: Option<GradientHook>,
    chain: Langevin,
    projection: Projection,
    proposals: ProposalWorkspace,
    order: Vec<u32>,
    order_of: Option<usize>,
    labels: Option<Vec<u32>>,
    batch_labels: Vec<u32>,
    /// The class of each chain, where the prior's energy is that given one.
    chain_labels: Vec<u32>,
    pub(super) replay: Option<Replay>,
    /// Gradient of one batch, where it must be changed before it is added.
    batch_gradient: Vec<f32>,
    raw: Vec<f32>,
    /// Real rows, final samples, initial samples: `[3B, D]`.
    rows: Vec<f32>,
}

impl<'a> Trainer<'a> {
    /// A run from the beginning.
    ///
    /// # Errors
    /// If a setting cannot work, the set lacks the prior's field or has fewer
    /// rows than a batch, or the prior cannot give the proposals asked for.
    pub fn new(config: HeatConfig, prior: Arc<dyn Prior>, train: &'a FeatureSet) -> Result<Self> {
        let mut net = Mlp::new(config.ebm.model.architecture(prior.dim()), config.seed)?;
        if config.ebm.model.use_spectral_norm {
            net = net.with_spectral_norm(config.seed);
        }
        let adam = Adam::new(config.ebm.optimizer.opt.betas, net.parameters().len());
        Self::assemble(config, prior, train, net, adam, State::default())
    }

    pub(super) fn assemble(
        config: HeatConfig,
        prior: Arc<dyn Prior>,
        train: &'a FeatureSet,
        net: Mlp,
        adam: Adam,
        state: State,
    ) -> Result<Self> {
        config.check()?;
        let model = &config.ebm.model;
        let input_dim = train.require(Field::Features(prior.pooling()))?;
        config.check_rows(train)?;
        let batch = config.batch_size;
        let statistics = model.sample_from_batch_statistics;
        model.proposal_type.check(&*prior, statistics)?;
        if model.precondition {
            check_precondition(&*prior)?;
        }
        let labels = batch_labels_of(model, &*prior, train)?;
        let dim = prior.dim();
        let replay = match model.use_pcd {
            true => Some(Replay::new(dim, model.buffer_size, model.restart_prob)?),
            false => None,
        };
        let batch_gradient = if model.use_spectral_norm { net.parameters().len() } else { 0 };
        Ok(Trainer {
            chain: model.langevin(),
            projection: Projection::new(&*prior, model.sgld_relu),
            gradient: vec![0.0; net.parameters().len()],
            engine: Box::new(Cpu::default()),
            hook: None,
            proposals: ProposalWorkspace::default(),
            order: Vec::new(),
            order_of: None,
            labels,
            batch_labels: Vec::new(),
            chain_labels: Vec::new(),
            replay,
            batch_gradient: vec![0.0; batch_gradient],
            raw: vec![0.0; batch * input_dim],
            rows: vec![0.0; 3 * batch * dim],
            config,
            prior,
            net,
            adam,
            state,
            train,
            input_dim,
        })
    }

    /// Run on another engine.
    pub fn with_engine(mut self, engine: Box<dyn Engine>) -> Self {
        self.engine = engine;
        self
    }

    /// Call `hook` with each gradient before the optimiser takes it. Trainers
    /// that begin with the same seed and whose hooks leave them the same
    /// gradients keep the same weights. An error ends the run; it goes on from
    /// its last checkpoint.
    pub fn with_gradient_hook(mut self, hook: GradientHook) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Batches in an epoch.
    pub fn batches(&self) -> usize {
        let whole = self.train.len() / self.config.batch_size;
        whole.min(self.config.ebm.model.train_max_iter.unwrap_or(whole))
    }

    /// Where the run stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The settings.
    pub fn config(&self) -> &HeatConfig {
        &self.config
    }

    /// The network as trained so far.
    pub fn net(&self) -> &Mlp {
        &self.net
    }

    /// The scorer, ending the run.
    pub fn into_heat(self) -> Heat {
        self.heat()
    }

    /// The scorer as trained so far.
    pub fn heat(&self) -> Heat {
        Heat {
            temperature: self.config.ebm.model.temperature,
            temperature_prior: self.config.ebm.model.prior_temperature(),
            prior: self.prior.clone(),
            net: self.net.baked(),
            input_dim: self.input_dim,
        }
    }

    /// Read the next real rows, draw and project the chains' starting points.
    ///
    /// # Errors
    /// If a row is not finite.
    pub fn propose(&mut self) -> Result<()> {
        let (batch, dim) = (self.config.batch_size, self.prior.dim());
        if self.order_of != Some(self.state.epoch) {
            let epoch = self.state.epoch as u64;
            let mut stream = Stream::new(self.config.seed, Purpose::Shuffle, epoch, 0);
            self.order = stream.permutation(self.train.len() as u32);
            self.order_of = Some(self.state.epoch);
        }
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
            seed: self.config.seed,
            step: self.state.step,
            real,
            components: components(&self.config.ebm.model, &*self.prior, &self.batch_labels),
        };
        let model = &self.config.ebm.model;
        model.proposal_type.draw(&request, &mut self.proposals, chains)?;
        if model.conditional() {
            self.chain_labels.clone_from(&self.proposals.components);
        }
        if let Some(replay) = &self.replay {
            let (seed, step) = (self.config.seed, self.state.step);
            replay.draw(seed, step, chains, &mut self.chain_labels);
        }
        self.projection.apply(chains, dim);
        initial.copy_from_slice(chains);
        Ok(())
    }

    /// Run the chains.
    pub fn sample(&mut self) {
        let size = self.config.batch_size * self.prior.dim();
        let model = &self.config.ebm.model;
        let moves = model.moves() && self.objective() != Objective::NoiseContrastive;
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
            let key = ChainKey { seed: self.config.seed, step: self.state.step, block: 0 };
            self.engine.sample(&energy, &self.chain, key, chains);
        }
        if let Some(replay) = &mut self.replay {
            replay.push(chains, &self.chain_labels);
        }
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
    /// If the loss is not finite, or the gradient hook fails.
    pub fn apply(&mut self) -> Result<LossValues> {
        let last = self.state.batch + 1 == self.batches();
        if last {
            self.log_prior();
        }
        self.add_input_noise();
        self.net.power_iteration();
        let batch = LossBatch {
            rows: &self.rows[..self.loss_rows()],
            real: self.config.batch_size,
            temperature: self.config.ebm.model.temperature,
            objective: self.objective(),
            l2_coef: self.config.ebm.loss.l2_coef,
            weight: 1.0 / self.config.accum_iter as f64,
        };
        let loss = if self.batch_gradient.is_empty() {
            self.engine.loss_gradient(&self.net, &batch, &mut self.gradient)
        } else {
            self.batch_gradient.fill(0.0);
            let loss = self.engine.loss_gradient(&self.net, &batch, &mut self.batch_gradient);
            self.net.through_spectral_norm(&mut self.batch_gradient);
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
    fn rate(&self) -> f64 {
        let optimizer = &self.config.ebm.optimizer;
        optimizer.opt.lr * optimizer.sch.factor(self.state.epoch)
    }

    /// δ ~ N(0, eps_data²) on every row of the loss.
    fn add_input_noise(&mut self) {
        let eps = self.config.ebm.loss.eps_data;
        if eps == 0.0 {
            return;
        }
        const CHUNK: usize = 1 << 12;
        let mut noise = [0.0; CHUNK];
        let mut stream = Stream::new(self.config.seed, Purpose::Input, self.state.step, 0);
        for rows in self.rows.chunks_mut(CHUNK) {
            let noise = &mut noise[..rows.len()];
            stream.fill_normal(noise);
            for (v, e) in rows.iter_mut().zip(noise) {
                *v += eps * *e;
            }
        }
    }

    /// The prior's energies are costly in f64: once an epoch, on its last batch.
    fn log_prior(&mut self) {
        let size = self.config.batch_size * self.prior.dim();
        let scale = self.config.ebm.model.temperature_prior;
        let conditional = self.config.ebm.model.conditional();
        let mut energies = vec![0.0; self.config.batch_size];
        let mut mean = |rows: &[f32], labels: &[u32]| {
            if conditional {
                self.prior.energy_given(rows, labels, &mut energies);
            } else {
                self.prior.energy(rows, &mut energies);
            }
            let sum: f64 = energies.iter().map(|&e| f64::from(e)).sum();
            sum / energies.len() as f64 / scale
        };
        let real = mean(&self.rows[..size], &self.batch_labels);
        let generated = mean(&self.rows[size..2 * size], &self.chain_labels);
        self.state.sums.prior(real, generated);
    }

    /// Weights that are not finite must not reach a checkpoint.
    fn check_weights(&self) -> Result<()> {
        match self.net.parameters().iter().find(|v| !v.is_finite()) {
            None => Ok(()),
            Some(&value) => Err(Error::Diverged {
                epoch: self.state.epoch + 1,
                step: self.state.step,
                what: "a weight",
                value,
            }),
        }
    }

    fn finish_epoch(&mut self) -> EpochLog {
        let lr = self.rate();
        self.state.epoch += 1;
        self.state.batch = 0;
        let sums = std::mem::take(&mut self.state.sums);
        let log = sums.finish(self.state.epoch, self.state.step, lr);
        self.state.history.push(log.clone());
        log
    }

    /// Train to the last epoch, or until the observer asks for a stop (then
    /// with a checkpoint, where there is a folder).
    ///
    /// # Errors
    /// If a row is not finite, training diverges, or the folder cannot be written.
    pub fn run(
        &mut self,
        mut folder: Option<&mut RunFolder>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        // One entry into the pool for the whole run: the steps then allocate nothing.
        parallel::run(|| {
            while self.state.epoch < self.config.n_epochs {
                let outcome = self.run_epoch(observer)?;
                self.check_weights()?;
                if outcome == Outcome::Stopped {
                    if let Some(folder) = &mut folder {
                        folder.save_interrupted(self)?;
                    }
                    return Ok(Outcome::Stopped);
                }
                let log = self.finish_epoch();
                if let Some(folder) = &mut folder {
                    folder.save_epoch(self)?;
                }
                observer.on(Event::Epoch(&log));
            }
            Ok(Outcome::Finished)
        })
    }

    fn run_epoch(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        let task = format!("epoch {}/{}", self.state.epoch + 1, self.config.n_epochs);
        observer.on(Event::Begin { task: &task, total: self.batches() as u64 });
        while self.state.batch < self.batches() {
            self.propose()?;
            self.sample();
            let loss = self.apply()?;
            observer
                .on(Event::Advance { done: self.state.batch as u64, loss: Some(loss.loss as f32) });
            if observer.should_stop() {
                observer.on(Event::End);
                return Ok(Outcome::Stopped);
            }
        }
        observer.on(Event::End);
        Ok(Outcome::Finished)
    }
}

impl HeatConfig {
    /// Whether the set has the rows of a batch.
    ///
    /// # Errors
    /// If it has fewer.
    pub fn check_rows(&self, train: &FeatureSet) -> Result<()> {
        if self.batch_size <= train.len() {
            return Ok(());
        }
        let problem = format!(
            "larger than the training set ({} rows), and incomplete batches are dropped",
            train.len()
        );
        Err(Error::config("batch_size", self.batch_size, problem))
    }
}

/// Where the components of a batch's proposals come from.
fn components<'a>(
    model: &ModelConfig,
    prior: &'a dyn Prior,
    batch_labels: &'a [u32],
) -> Components<'a> {
    if model.sample_from_batch_statistics {
        return Components::Statistics(batch_labels);
    }
    match prior.mixture() {
        Some(_) if model.conditional() && model.proposal_type == Proposal::Data => {
            Components::Labels(batch_labels)
        }
        Some(weights) if model.conditional() => Components::Mixture(weights),
        _ => Components::Untold,
    }
}

/// The labels of all rows, where batches need them.
fn batch_labels_of(
    model: &ModelConfig,
    prior: &dyn Prior,
    train: &FeatureSet,
) -> Result<Option<Vec<u32>>> {
    let conditional = model.conditional();
    if !conditional && !model.sample_from_batch_statistics {
        return Ok(None);
    }
    let refuse = |problem: &str| {
        let key = if conditional {
            "ebm.model.base_dist.use_simplified_mahalanobis_score"
        } else {
            "ebm.model.sample_from_batch_statistics"
        };
        Err(Error::config(key, true, problem))
    };
    let Some(mixture) = prior.mixture() else {
        return refuse("the prior has no components: it must be `gmm`");
    };
    if model.base_dist.use_kmeans {
        return refuse("the prior's components are clusters, and labels say nothing about them");
    }
    if conditional && model.precondition {
        return refuse("`precondition` steps with the energy of the whole mixture");
    }
    Ok(Some(train.labels(0..train.len(), mixture.len())?))
}

fn check_precondition(prior: &dyn Prior) -> Result<()> {
    let mut zeros = vec![0.0; prior.dim()];
    let noise = zeros.clone();
    let mut scratch = crate::scorers::Scratch::default();
    if prior.whitened_step(&mut zeros, 0.0, &noise, 0.0, &mut scratch) {
        return Ok(());
    }
    let problem = format!("the `{}` prior has no covariance to precondition with", prior.name());
    Err(Error::config("ebm.model.precondition", true, problem))
}
