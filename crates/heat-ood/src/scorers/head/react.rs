//! Rectified activations (`react`): −logsumexp(W min(z, t) + b), t the
//! `react`-quantile of all training coordinates. It is `el` with the step
//! `react`, under the name and with the default of the paper.
//!
//! The quantile takes one pass over f16 and bf16 features, else two; cost per
//! row O(D·C).
//!
//! Reference: Sun et al., *ReAct: Out-of-distribution Detection With Rectified Activations*, NeurIPS 2021.

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::scorers::context::FitContext;
use crate::scorers::logit_source::{LogitSource, logits_settings};
use crate::scorers::logits::energy_logits::{energies, energy_gradient};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

logits_settings! {
    /// Settings of `react`.
    ReactConfig, react = Some(0.9);
}

offer! { ReactConfig => React }

/// A fitted `react` scorer.
pub struct React(LogitSource);

impl Method for ReactConfig {
    const NAME: &'static str = "react";
    type Scorer = React;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<React> {
        if self.react.is_none() {
            let problem = "without a quantile it is `el`; give one, e.g. 0.9";
            return Err(Error::config("react", "none", problem));
        }
        Ok(React(context.logit_source("react", self.into())?))
    }

    fn load(stored: &Stored<'_>) -> Result<React> {
        Ok(React(LogitSource::load(stored)?))
    }
}

impl Scorer for React {
    fn name(&self) -> &'static str {
        "react"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
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
