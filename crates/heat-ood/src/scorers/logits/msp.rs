//! Maximum softmax probability: −max softmax(logits).
//!
//! Reference: Hendrycks and Gimpel, *A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks*, ICLR 2017.

use super::source::{LogitSource, logits_settings, softmax_gradient};
use crate::error::Result;
use crate::features::{Batch, FeatureSet, Needs};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::fit::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

logits_settings! {
    /// Settings of `msp`.
    MspConfig;
}

offer! { MspConfig => Msp }

/// A fitted `msp` scorer.
pub struct Msp(LogitSource);

impl Method for MspConfig {
    const NAME: &'static str = "msp";
    type Scorer = Msp;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Msp> {
        let source = LogitSource::fit("msp", self.logits(), context.train, context.head)?;
        Ok(Msp(source))
    }

    fn load(stored: &Stored<'_>) -> Result<Msp> {
        Ok(Msp(LogitSource::load(stored)?))
    }
}

impl Scorer for Msp {
    fn name(&self) -> &'static str {
        "msp"
    }

    fn needs(&self, set: &FeatureSet) -> Result<Needs> {
        self.0.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.0.rows(batch, out, |logits| {
            reduce::softmax(logits);
            -reduce::max(logits)
        });
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.0.gradient(batch, scale, out, |l| softmax_gradient(l, 1.0))
    }

    fn section(&self) -> Section {
        self.0.section(self.name())
    }
}
