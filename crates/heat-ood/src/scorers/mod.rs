//! Out-of-distribution scorers.
//!
//! **A score is an energy: higher = more out-of-distribution.** One file per
//! method: formula, `Config`, `fit`, `impl Scorer`, tests; in directories by
//! what a method reads. A `Config` is fitted into another type ([`Fit`]), so
//! "not fitted" cannot be written.

mod catalogue;
mod context;
mod elsewhere;
mod fit;
mod gaussian;
mod head;
mod input;
mod logit_source;
mod logits;
mod maps;
mod method;
mod methods;
mod neighbours;
mod no_prior;
mod persist;
mod pieces;
mod prior;
mod registry;
mod scorer;
mod scoring;
mod spec;
mod subspace;
mod views;

pub use catalogue::{Group, Labels, Listed, Needs, catalogue, committee};
pub(crate) use context::Gathered;
pub use elsewhere::{AtLayer, OverViews};
pub(crate) use elsewhere::{LAYER, VIEWS};
pub use fit::{Fit, Fitted, TrainingData};
pub use gaussian::*;
pub use head::*;
pub use logit_source::LogitsConfig;
pub use logits::*;
pub use maps::*;
pub use methods::NAMES;
pub use neighbours::*;
pub(crate) use persist::{FORMAT_VERSION, Outline, SEALED};
pub use persist::{Section, Stored};
pub(crate) use pieces::Piece;
pub use prior::{Form, Mixture, Prior, Scratch};
pub use registry::{PRIORS, load, load_prior, register, register_prior};
pub(crate) use registry::{check_prior, check_scorer};
pub(crate) use scorer::joint_needs;
pub use scorer::{Scorer, score_each, score_together};
pub use scoring::ScoredSet;
pub(crate) use spec::{ByLayer, fit_statistics, gather_round};
pub use spec::{ScorerSpec, fit_all, fit_each};
pub use subspace::*;
pub use views::*;

pub use crate::math::matmul::Aligned;

pub(crate) use context::FitContext;
pub(crate) use method::Method;
pub(crate) use no_prior::NoPriorConfig;
