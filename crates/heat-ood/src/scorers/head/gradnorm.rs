//! Norm of the last layer's gradient (`gradnorm`): −‖∂/∂W KL(u ‖ softmax(logits / T))‖₁,
//! u uniform.
//!
//! In closed form ‖z‖₁ · Σ_c |p_c − 1/C| / T, p = softmax(logits / T): the
//! gradient is the outer product of (p − u)/T and z. The authors' code sums
//! the loss over classes where the paper averages, which is C times as much.
//! Nothing is fitted but the feature steps; cost per row O(D·C).
//!
//! Reference: Huang et al., *On the Importance of Gradients for Detecting Distributional Shifts in the Wild*, NeurIPS 2021.

use super::with_head::WithHead;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::input::feature_settings;
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `gradnorm`.
    GradNormConfig, normalize = false;
    /// T.
    temperature: f64 = 1.0,
}

offer! { GradNormConfig => GradNorm }

/// A fitted `gradnorm` scorer.
pub struct GradNorm {
    config: GradNormConfig,
    input: WithHead,
}

impl Method for GradNormConfig {
    const NAME: &'static str = "gradnorm";
    type Scorer = GradNorm;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<GradNorm> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            let problem = "must be a positive number";
            return Err(Error::config("temperature", self.temperature, problem));
        }
        let input = WithHead::fit("gradnorm", self, context)?;
        Ok(GradNorm { config: self.clone(), input })
    }

    fn load(stored: &Stored<'_>) -> Result<GradNorm> {
        let (config, input) = WithHead::load(stored)?;
        Ok(GradNorm { config, input })
    }
}

/// Σ_c |p_c − 1/C|.
fn from_uniform(logits: &mut [f64]) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits.iter_mut().for_each(|l| *l = (*l - largest).exp());
    let total: f64 = logits.iter().sum();
    let uniform = 1.0 / logits.len() as f64;
    logits.iter().map(|e| (e / total - uniform).abs()).sum()
}

impl Scorer for GradNorm {
    fn name(&self) -> &'static str {
        "gradnorm"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let t = self.config.temperature;
        let rows = self.input.input.stepped(batch);
        let logits = self.input.logits(&rows);
        let classes = self.input.head.classes();
        let mut scaled = vec![0.0; classes];
        let pairs = rows.chunks_exact(self.input.dim()).zip(logits.chunks_exact(classes));
        for (o, (row, logits)) in out.iter_mut().zip(pairs) {
            scaled.iter_mut().zip(logits).for_each(|(s, &l)| *s = f64::from(l) / t);
            *o = (-reduce::norm1(row) * from_uniform(&mut scaled) / t) as f32;
        }
    }

    fn section(&self) -> Section {
        self.input.section("gradnorm", &self.config)
    }
}
