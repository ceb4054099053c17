//! Maximum softmax probability: −max softmax(logits).
//!
//! Reference: Hendrycks and Gimpel, *A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks*, ICLR 2017.

use super::logits::{LogitSource, softmax_gradient};
use super::{LogitsConfig, Scorer, Section, Stored};
use crate::error::Result;
use crate::features::{Batch, FeatureSet, Head, Needs};
use crate::math::reduce;

/// A fitted `msp` scorer.
pub struct Msp(LogitSource);

impl Msp {
    /// Remember where the logits come from.
    ///
    /// # Errors
    /// If there are neither logits nor a head, or the head does not fit.
    pub fn fit(config: LogitsConfig, train: &FeatureSet, head: Option<&Head>) -> Result<Self> {
        Ok(Msp(LogitSource::fit("msp", config, train, head)?))
    }

    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
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
