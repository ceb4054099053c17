//! Settings of the energy model, under the published keys.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::base_dist::{BaseDistConfig, PriorKind};
use super::loss::{LossConfig, Objective};
use super::mlp::Architecture;
use super::optim::{OptimizerConfig, is_zero};
use super::proposal::Proposal;
use super::sampler::Langevin;
use crate::error::{Error, Result};
use crate::features::Pooling;

/// How to fit a prior and train a residual energy on it. The defaults are
/// those of `heat_gmm_c10`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeatConfig {
    /// Real rows per step; incomplete last batches are dropped.
    pub batch_size: usize,
    /// Passes over the training set.
    pub n_epochs: usize,
    /// Batches whose gradients are averaged into one optimiser step.
    pub accum_iter: usize,
    /// Epochs between two checkpoints; the last epoch always has one.
    pub save_freq: usize,
    /// Fixes every byte of the result.
    pub seed: u64,
    /// Which pooled features.
    pub pooling: Pooling,
    /// Divide each row by its L2 norm first.
    pub normalize: bool,
    /// Let the network see each coordinate less its mean and divided by its standard deviation: over
    /// the training rows and, where negatives are given, as many of these, kinds counting alike.
    #[serde(skip_serializing_if = "is_false")]
    pub standardize: bool,
    /// Project on principal components first.
    pub use_pca: bool,
    /// How many components.
    pub pca_n_principal_components: usize,
    /// Whiten the components.
    pub pca_whiten: bool,
    /// Network, sampler, loss and optimiser.
    pub ebm: EbmConfig,
}

impl Default for HeatConfig {
    fn default() -> Self {
        HeatConfig {
            batch_size: 1024,
            n_epochs: 20,
            accum_iter: 1,
            save_freq: 1,
            seed: 0,
            pooling: Pooling::Avg,
            normalize: true,
            standardize: false,
            use_pca: false,
            pca_n_principal_components: 256,
            pca_whiten: false,
            ebm: EbmConfig::default(),
        }
    }
}

/// Most networks of which E_nn is the mean.
pub(super) const MAX_NETS: usize = 64;

fn is_false(value: &bool) -> bool {
    !value
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

/// The `ebm` group of a recipe.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EbmConfig {
    /// The prior energy.
    pub prior: PriorKind,
    /// Network and sampler.
    pub model: ModelConfig,
    /// Loss.
    pub loss: LossConfig,
    /// Optimiser and schedule.
    pub optimizer: OptimizerConfig,
}

/// The `ebm.model` group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// H.
    pub hidden_dim: usize,
    /// Hidden layers after the first.
    pub n_hidden_layers: usize,
    /// Whether hidden layers share their weights (as the published code does).
    pub tied: bool,
    /// Whether the width halves with each block (the published ImageNet network).
    pub reduce_width: bool,
    /// Networks whose mean E_nn is: each is trained from a seed of its own (`seed`, `seed` + 1, …), for
    /// `n_epochs` each.
    #[serde(skip_serializing_if = "is_one")]
    pub nets: usize,
    /// Probability with which training sets a hidden activation to zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropout: f64,
    /// T.
    pub temperature: f64,
    /// T_prior.
    pub temperature_prior: f64,
    /// Where chains start.
    pub proposal_type: Proposal,
    /// Where the rows of the proposal `features` lie: a directory with a feature set a kind, or one set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negatives: Option<PathBuf>,
    /// Draw components with the batch's label frequencies.
    pub sample_from_batch_statistics: bool,
    /// Langevin steps.
    pub steps: usize,
    /// First step size λ.
    pub step_size_start: f64,
    /// Last step size; a tenth of the first unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size_end: Option<f64>,
    /// First noise σ.
    pub eps_start: f64,
    /// Last noise; a tenth of the first unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps_end: Option<f64>,
    /// Whether the projection clips at zero.
    pub sgld_relu: bool,
    /// Step in the prior's whitened coordinates (not in the published code).
    pub precondition: bool,
    /// Whether the prior is part of the energy (published `use_base_dist`).
    pub use_base_dist: bool,
    /// Whether chains run at all; without, negatives are the proposals.
    pub use_sgld: bool,
    /// Stein variational gradient descent in place of Langevin steps.
    pub use_svgd: bool,
    /// Persistent contrastive divergence: chains go on from a replay buffer.
    pub use_pcd: bool,
    /// Rows of the replay buffer.
    pub buffer_size: usize,
    /// Fraction of a batch that starts anew once the buffer is half full.
    pub restart_prob: f64,
    /// Spectral normalisation of every linear map but the last.
    pub use_spectral_norm: bool,
    /// Most batches per epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_max_iter: Option<usize>,
    /// Further settings of the `gmm` prior.
    pub base_dist: BaseDistConfig,
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig {
            hidden_dim: 1024,
            n_hidden_layers: 4,
            tied: true,
            reduce_width: false,
            nets: 1,
            dropout: 0.0,
            temperature: 1.0,
            temperature_prior: 1e3,
            proposal_type: Proposal::BaseDist,
            negatives: None,
            sample_from_batch_statistics: false,
            steps: 40,
            step_size_start: 1e-4,
            step_size_end: None,
            eps_start: 5e-3,
            eps_end: None,
            sgld_relu: true,
            precondition: false,
            use_base_dist: true,
            use_sgld: true,
            use_svgd: false,
            use_pcd: false,
            buffer_size: 40_000,
            restart_prob: 0.05,
            use_spectral_norm: false,
            train_max_iter: None,
            base_dist: BaseDistConfig::default(),
        }
    }
}

impl ModelConfig {
    /// The network for features of dimension `dim`.
    pub fn architecture(&self, dim: usize) -> Architecture {
        Architecture {
            input_dim: dim,
            hidden_dim: self.hidden_dim,
            n_hidden_layers: self.n_hidden_layers,
            tied: self.tied && !self.reduce_width,
            tapered: self.reduce_width,
        }
    }

    /// The chains.
    pub fn langevin(&self) -> Langevin {
        let end = |start: f64, end: Option<f64>| end.unwrap_or(start / 10.0);
        Langevin {
            steps: self.steps,
            step_size: (self.step_size_start, end(self.step_size_start, self.step_size_end)),
            eps: (self.eps_start, end(self.eps_start, self.eps_end)),
            precondition: self.precondition,
            svgd: self.use_svgd,
        }
    }

    /// Whether chains move: with Langevin steps or as particles.
    pub(super) fn moves(&self) -> bool {
        (self.use_sgld || self.use_svgd) && self.steps > 0
    }

    /// Whether the prior's energy is that given each chain's class.
    pub(super) fn conditional(&self) -> bool {
        self.base_dist.use_simplified_mahalanobis_score
    }

    /// T_prior, infinite where the prior is no part of the energy.
    pub fn prior_temperature(&self) -> f64 {
        if self.use_base_dist { self.temperature_prior } else { f64::INFINITY }
    }

    /// Whether a prior is needed: as part of the energy, or to draw, label or precondition chains.
    pub(super) fn needs_prior(&self) -> bool {
        let draws = self.proposal_type.is_of_prior() || self.sample_from_batch_statistics;
        self.use_base_dist || draws || self.precondition || self.conditional()
    }

    fn check(&self) -> Result<()> {
        let clash = |key: &str, value: bool, problem: &str| {
            if value {
                Err(Error::config(format!("ebm.model.{key}"), true, problem))
            } else {
                Ok(())
            }
        };
        if !(0.0..=1.0).contains(&self.restart_prob) {
            let problem = "a fraction lies between 0 and 1";
            return Err(Error::config("ebm.model.restart_prob", self.restart_prob, problem));
        }
        if !(1..=MAX_NETS).contains(&self.nets) {
            let problem = format!("between 1 and {MAX_NETS} networks are possible");
            return Err(Error::config("ebm.model.nets", self.nets, problem));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let problem = "a probability of at least 0 and less than 1";
            return Err(Error::config("ebm.model.dropout", self.dropout, problem));
        }
        if let Some(place) =
            self.negatives.as_ref().filter(|_| self.proposal_type != Proposal::Features)
        {
            let problem = "only `ebm.model.proposal_type=features` draws from them";
            return Err(Error::config("ebm.model.negatives", place.display(), problem));
        }
        clash(
            "use_svgd",
            self.use_svgd && self.precondition,
            "`precondition` is a way of taking Langevin steps",
        )?;
        clash(
            "use_pcd",
            self.use_pcd && !self.moves(),
            "without steps there are no chains to go on",
        )
    }
}

impl HeatConfig {
    /// Epochs of all networks together.
    pub fn total_epochs(&self) -> usize {
        self.n_epochs.saturating_mul(self.ebm.model.nets)
    }

    pub(crate) fn check(&self) -> Result<()> {
        for (key, value) in [
            ("batch_size", self.batch_size),
            ("n_epochs", self.n_epochs),
            ("accum_iter", self.accum_iter),
            ("save_freq", self.save_freq),
            ("ebm.model.train_max_iter", self.ebm.model.train_max_iter.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Error::config(key, value, "must be at least 1"));
            }
        }
        let m = &self.ebm.model;
        let l = m.langevin();
        for (key, value) in [
            ("ebm.model.temperature", m.temperature),
            ("ebm.model.temperature_prior", m.temperature_prior),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::config(key, value, "must be a positive number"));
            }
        }
        for (key, value) in [
            ("ebm.model.step_size_start", l.step_size.0),
            ("ebm.model.step_size_end", l.step_size.1),
            ("ebm.model.eps_start", l.eps.0),
            ("ebm.model.eps_end", l.eps.1),
            ("ebm.loss.l2_coef", self.ebm.loss.l2_coef),
            ("ebm.loss.eps_data", f64::from(self.ebm.loss.eps_data)),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::config(key, value, "must be a number ≥ 0"));
            }
        }
        m.check()?;
        if self.ebm.loss.objective == Objective::NoiseContrastive && (m.use_pcd || m.use_svgd) {
            let problem = "the negatives of the noise-contrastive loss are the proposals: \
                           set use_pcd and use_svgd to false";
            return Err(Error::config("ebm.loss.objective", "noise_contrastive", problem));
        }
        self.ebm.optimizer.check()
    }
}
