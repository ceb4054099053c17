//! Rectified activations (`react`): −logsumexp(W min(z, t) + b), t the
//! `react`-quantile of all training coordinates. It is `el` with the step
//! `react`, under the name and with the default of the paper.
//!
//! The quantile takes one pass over f16 and bf16 features, else two; cost per
//! row O(D·C).
//!
//! Reference: Sun et al., *ReAct: Out-of-distribution Detection With Rectified Activations*, NeurIPS 2021.

use serde::{Deserialize, Serialize};

use super::energy_logits::{energies, energy_gradient};
use super::source::LogitSource;
use crate::error::Result;
use crate::features::{Batch, FeatureSet, Needs};
use crate::scorers::context::FitContext;
use crate::scorers::fit::{Method, offer};
use crate::scorers::{LogitsConfig, Scorer, Section, Stored};

/// Settings of `react`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReactConfig {
    /// Clip `avg` at this quantile of the training coordinates.
    pub react: f64,
    /// As in [`LogitsConfig`].
    pub normalize: bool,
    /// As in [`LogitsConfig`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<usize>,
    /// As in [`LogitsConfig`].
    pub whiten: bool,
}

impl Default for ReactConfig {
    fn default() -> Self {
        ReactConfig { react: 0.9, normalize: false, pca: None, whiten: false }
    }
}

offer! { ReactConfig => React }

/// A fitted `react` scorer.
pub struct React(LogitSource);

impl Method for ReactConfig {
    const NAME: &'static str = "react";
    type Scorer = React;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<React> {
        let (train, head) = (context.train, context.head);
        let config = LogitsConfig {
            react: Some(self.react),
            normalize: self.normalize,
            pca: self.pca,
            whiten: self.whiten,
        };
        Ok(React(LogitSource::fit("react", config, train, head)?))
    }

    fn load(stored: &Stored<'_>) -> Result<React> {
        Ok(React(LogitSource::load(stored)?))
    }
}

impl Scorer for React {
    fn name(&self) -> &'static str {
        "react"
    }

    fn needs(&self, set: &FeatureSet) -> Result<Needs> {
        self.0.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        energies(&self.0.logits(batch), self.0.classes(), out);
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.0.gradient(batch, scale, out, energy_gradient)
    }

    fn section(&self) -> Section {
        self.0.section("react")
    }
}
