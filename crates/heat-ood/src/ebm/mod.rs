//! HEAT: a residual energy on a prior, E(z) = E_nn(z)/T + E_prior(z)/T_prior.
//!
//! Read in this order: [`mlp`] (the network), [`sampler`] (chains),
//! [`loss`], [`optim`], [`engine`] (what runs where), [`train`] (propose,
//! sample, apply), [`checkpoint`], [`Heat`] (the scorer).

mod base_dist;
pub mod checkpoint;
mod config;
pub mod engine;
mod heat;
mod log;
pub mod loss;
pub mod mlp;
mod negatives;
pub mod optim;
mod prior;
mod proposal;
mod replay;
mod run;
pub mod sampler;
mod svgd;
pub mod torch;
pub mod train;

pub use base_dist::{BaseDistConfig, PriorKind};
pub use config::{EbmConfig, HeatConfig, ModelConfig};
pub use heat::Heat;
pub use loss::{LossConfig, Objective};
pub use negatives::Negatives;
pub use optim::OptimizerConfig;
pub use prior::IntoPrior;
pub use proposal::Proposal;
pub use run::RunDirectory;
pub use train::{GradientHook, Outcome, Trainer};
