//! Maximum logit: −max logits.
//!
//! Reference: Hendrycks et al., *Scaling Out-of-Distribution Detection for Real-World Settings*, ICML 2022.

use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::logit_source::{LogitSource, logits_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

logits_settings! {
    /// Settings of `max_logit`.
    MaxLogitConfig;
}

offer! { MaxLogitConfig => MaxLogit }

/// A fitted `max_logit` scorer.
pub struct MaxLogit(LogitSource);

impl Method for MaxLogitConfig {
    const NAME: &'static str = "max_logit";
    type Scorer = MaxLogit;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<MaxLogit> {
        let source = context.logit_source("max_logit", self.into())?;
        Ok(MaxLogit(source))
    }

    fn load(stored: &Stored<'_>) -> Result<MaxLogit> {
        Ok(MaxLogit(LogitSource::load(stored)?))
    }
}

impl Scorer for MaxLogit {
    fn name(&self) -> &'static str {
        "max_logit"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
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
