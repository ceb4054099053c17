//! Maximum logit: −max logits.
//!
//! Reference: Hendrycks et al., *Scaling Out-of-Distribution Detection for Real-World Settings*, ICML 2022.

use super::logits::LogitSource;
use super::{LogitsConfig, Scorer, Section, Stored};
use crate::error::Result;
use crate::features::{Batch, FeatureSet, Head, Needs};
use crate::math::reduce;

/// A fitted `max_logit` scorer.
pub struct MaxLogit(LogitSource);

impl MaxLogit {
    /// Remember where the logits come from.
    ///
    /// # Errors
    /// If there are neither logits nor a head, or the head does not fit.
    pub fn fit(config: LogitsConfig, train: &FeatureSet, head: Option<&Head>) -> Result<Self> {
        Ok(MaxLogit(LogitSource::fit("max_logit", config, train, head)?))
    }

    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
        Ok(MaxLogit(LogitSource::load(stored)?))
    }
}

impl Scorer for MaxLogit {
    fn name(&self) -> &'static str {
        "max_logit"
    }

    fn needs(&self, set: &FeatureSet) -> Result<Needs> {
        self.0.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.0.rows(batch, out, |logits| -reduce::max(logits));
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.0.gradient(batch, scale, out, |l| {
            let top = (0..l.len()).fold(0, |best, i| if l[i] > l[best] { i } else { best });
            l.fill(0.0);
            l[top] = -1.0;
        })
    }

    fn section(&self) -> Section {
        self.0.section(self.name())
    }
}
