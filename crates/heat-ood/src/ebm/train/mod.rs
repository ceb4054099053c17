//! Training by contrastive divergence: propose, sample, apply.
//!
//! One step of [`Trainer`] is three calls. `propose` reads the real rows and
//! draws where the chains start; `sample` runs the chains, a pure function of
//! weights, seed, step and row block; `apply` takes the loss gradient and
//! moves the weights. Everything random comes from streams named by the seed
//! and the step, so a checkpoint needs only counters to go on bit for bit.

mod components;
mod standard;
mod step;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::config::HeatConfig;
use super::engine::{Cpu, Engine};
use super::heat::Heat;
use super::log::Sums;
use super::mlp::Mlp;
use super::negatives::Negatives;
use super::optim::Adam;
use super::prior::IntoPrior;
use super::proposal::{Proposal, ProposalWorkspace};
use super::replay::Replay;
use super::sampler::{Langevin, Projection};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field};
use crate::observe::{EpochLog, Event, Observer};
use crate::provenance::Provenance;
use crate::scorers::{Fit, Fitted, Prior, TrainingData};
use components::batch_labels;
use standard::standardisation;

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
pub struct Trainer {
    pub(super) config: HeatConfig,
    pub(super) prior: Arc<dyn Prior>,
    /// Networks that are done, where E_nn is the mean of several.
    pub(super) done: Vec<Mlp>,
    pub(super) net: Mlp,
    pub(super) adam: Adam,
    pub(super) gradient: Vec<f32>,
    pub(super) state: State,
    pub(super) train: FeatureSet,
    negatives: Option<Negatives>,
    pub(super) input_dim: usize,
    engine: Box<dyn Engine>,
    hook: Option<GradientHook>,
    /// Set when the run is to stop at once.
    stop: Option<Arc<AtomicBool>>,
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

impl Trainer {
    /// A run from the beginning.
    ///
    /// # Errors
    /// If a setting cannot work, the set lacks the prior's field or has fewer
    /// rows than a batch, the prior cannot give the proposals asked for, or the settings name
    /// negatives that cannot be read or are none for this set.
    pub fn new(config: HeatConfig, prior: impl IntoPrior, train: &FeatureSet) -> Result<Self> {
        let negatives = config.open_negatives()?;
        Self::begin(config, prior, train, negatives)
    }

    /// The same, with the negatives given, not named by the settings; the proposal is `features`.
    /// (A run that is resumed finds them where the settings say.)
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn against(
        mut config: HeatConfig,
        prior: impl IntoPrior,
        train: &FeatureSet,
        negatives: Negatives,
    ) -> Result<Self> {
        config.ebm.model.proposal_type = Proposal::Features;
        Self::begin(config, prior, train, Some(negatives))
    }

    fn begin(
        config: HeatConfig,
        prior: impl IntoPrior,
        train: &FeatureSet,
        negatives: Option<Negatives>,
    ) -> Result<Self> {
        let (prior, _) = prior.into_prior();
        let net = Mlp::new(config.ebm.model.architecture(prior.dim()), config.seed)?;
        let adam = config.optimiser(net.parameters().len());
        let state = State::default();
        let mut run = Self::assemble(config, prior, train, negatives, vec![net], adam, state)?;
        run.begin_net()?;
        Ok(run)
    }

    /// Begin with the next network.
    fn begin_net(&mut self) -> Result<()> {
        let (model, seed) = (&self.config.ebm.model, self.seed());
        let mut net = Mlp::new(model.architecture(self.prior.dim()), seed)?;
        if model.use_spectral_norm {
            net = net.with_spectral_norm(seed);
        }
        if self.config.standardize {
            let negatives = self.negatives.as_ref();
            let (mean, deviation) = standardisation(&self.train, negatives, &*self.prior)?;
            net = net.with_standardised_inputs(mean, deviation);
        }
        self.adam = self.config.optimiser(net.parameters().len());
        self.gradient.fill(0.0);
        self.replay = self.config.replay(self.prior.dim())?;
        self.net = net;
        Ok(())
    }

    /// The seed of the network under way.
    pub(super) fn seed(&self) -> u64 {
        self.config.seed.wrapping_add(self.done.len() as u64)
    }

    /// Epochs that the network under way has behind it.
    pub(super) fn epochs_of_net(&self) -> usize {
        self.state.epoch - self.done.len() * self.config.n_epochs
    }

    /// Batches that the network under way has behind it.
    pub(super) fn step_of_net(&self) -> u64 {
        let before = (self.done.len() * self.config.n_epochs * self.batches()) as u64;
        self.state.step - before
    }

    pub(super) fn assemble(
        config: HeatConfig,
        prior: Arc<dyn Prior>,
        train: &FeatureSet,
        negatives: Option<Negatives>,
        mut nets: Vec<Mlp>,
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
        if let Some(negatives) = &negatives {
            negatives.check(train, prior.pooling())?;
        }
        let labels = batch_labels(model, &*prior, train)?;
        let dim = prior.dim();
        let replay = config.replay(dim)?;
        let Some(net) = nets.pop() else {
            return Err(Error::config("ebm.model.nets", 0, "there is no network to train"));
        };
        let made = model.use_spectral_norm || config.standardize;
        let batch_gradient = if made { net.parameters().len() } else { 0 };
        Ok(Trainer {
            chain: model.langevin(),
            projection: Projection::new(&*prior, model.sgld_relu),
            gradient: vec![0.0; net.parameters().len()],
            engine: Box::new(Cpu::default()),
            hook: None,
            stop: None,
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
            done: nets,
            net,
            adam,
            state,
            train: train.clone(),
            negatives,
            input_dim,
        })
    }

    /// The prior.
    pub fn prior(&self) -> &Arc<dyn Prior> {
        &self.prior
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

    /// What it sees besides the training set: rows that are no longer any to report results on.
    ///
    /// # Errors
    /// If a file of the negatives cannot be read.
    pub fn seen(&self) -> Result<Provenance> {
        let negatives = self.negatives.as_ref();
        negatives.map_or_else(|| Ok(Provenance::default()), |n| n.provenance(self.prior.pooling()))
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
            nets: self.done.iter().cloned().chain([self.net.baked()]).collect(),
            input_dim: self.input_dim,
        }
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

    /// Whether the last epoch is done.
    pub fn is_finished(&self) -> bool {
        self.state.epoch >= self.config.total_epochs()
    }

    /// Train to the end of the epoch under way. `None`: the observer asked for
    /// a stop before that.
    ///
    /// # Errors
    /// If a row is not finite, training diverges, the engine or the gradient
    /// hook fails, or a file of the training set was changed meanwhile.
    pub fn epoch(&mut self, observer: &mut dyn Observer) -> Result<Option<EpochLog>> {
        if self.epochs_of_net() >= self.config.n_epochs && !self.is_finished() {
            self.done.push(self.net.baked());
            self.begin_net()?;
        }
        let outcome = self.batches_left(observer)?;
        self.check_weights()?;
        // No checkpoint is written then: the last one is of what the files were.
        self.train.check_unchanged()?;
        for (_, set) in self.negatives.as_ref().map_or(&[][..], Negatives::kinds) {
            set.check_unchanged()?;
        }
        Ok((outcome == Outcome::Finished).then(|| self.finish_epoch()))
    }

    /// Train to the last epoch, or until the observer asks for a stop.
    ///
    /// # Errors
    /// As [`Trainer::epoch`].
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        while !self.is_finished() {
            let Some(log) = self.epoch(observer)? else {
                return Ok(Outcome::Stopped);
            };
            observer.on(Event::Epoch(&log));
        }
        Ok(Outcome::Finished)
    }

    fn batches_left(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        let task = format!("epoch {}/{}", self.state.epoch + 1, self.config.total_epochs());
        observer.on(Event::Begin { task: &task, total: self.batches() as u64 });
        self.stop = observer.stop_flag();
        self.engine.stop_on(self.stop.clone());
        while self.state.batch < self.batches() {
            self.propose()?;
            if !self.run_chains()? {
                observer.on(Event::End);
                return Ok(Outcome::Stopped);
            }
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

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// The observer asked for a stop.
    Stopped,
}

/// The prior that the settings name is fitted, then the residual trained.
impl Fit for HeatConfig {
    type Scorer = Heat;

    fn fit(&self, data: &TrainingData, observer: &mut dyn Observer) -> Result<Fitted<Heat>> {
        self.train(self.fit_prior(data, observer)?, data, observer)
    }
}

impl HeatConfig {
    /// Train a residual energy on a prior of your own, or one that is fitted
    /// already; as [`Fit::fit`] does on the one that the settings name.
    ///
    /// # Errors
    /// If a setting cannot work, a row is not finite, the prior cannot do
    /// what the settings ask, training diverges, or the observer asked for a stop.
    pub fn train(
        &self,
        prior: impl IntoPrior,
        data: &TrainingData,
        observer: &mut dyn Observer,
    ) -> Result<Fitted<Heat>> {
        let (prior, seen) = prior.into_prior();
        let mut trainer = Trainer::new(self.clone(), prior, &data.features)?;
        match trainer.run(observer)? {
            Outcome::Finished => {
                let negatives = trainer.seen()?;
                let fitted = Fitted::on(data, trainer.into_heat())?;
                Ok(fitted.including(&seen).including(&negatives))
            }
            Outcome::Stopped => Err(Error::Fit {
                what: "heat".into(),
                problem: "stopped before the last epoch".into(),
            }),
        }
    }
}

impl HeatConfig {
    /// The negatives that the settings name, where the proposal is `features`.
    ///
    /// # Errors
    /// If it is, and none are named or they cannot be read.
    pub fn open_negatives(&self) -> Result<Option<Negatives>> {
        let model = &self.ebm.model;
        if model.proposal_type != Proposal::Features {
            return Ok(None);
        }
        let Some(place) = &model.negatives else {
            let remedy = "name the directory of their feature sets with `ebm.model.negatives`";
            return Err(Error::needs("the proposal `features`", "rows to draw from", remedy));
        };
        Negatives::open(place).map(Some)
    }

    /// The buffer of persistent chains, where there are some.
    fn replay(&self, dim: usize) -> Result<Option<Replay>> {
        let model = &self.ebm.model;
        let new = || Replay::new(dim, model.buffer_size, model.restart_prob);
        model.use_pcd.then(new).transpose()
    }

    pub(super) fn optimiser(&self, parameters: usize) -> Adam {
        let opt = &self.ebm.optimizer.opt;
        Adam::new(opt.betas, parameters).with_weight_decay(opt.weight_decay)
    }

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
