//! Norm of the last layer's gradient towards all classes at once (`graduncertainty`): −‖∂L/∂(W, b)‖²,
//! L = −Σ_c log p_c, the binary cross-entropy of p = softmax(logits) and a label of all ones.
//!
//! In closed form −(‖z‖² + 1)·Σ_c (C·p_c − 1)²: the gradient with respect to W is the outer product of C·p − 1
//! and z, that to b is C·p − 1. Nothing is fitted but the feature steps; cost per row O(D·C).
//!
//! *Difference from the paper*: there the norms of all layers are the inputs of a classifier that is trained
//! with OOD images; this is pytorch-ood's score with its `param_filter` of the head, but that PyTorch's cross-entropy
//! takes the gradient of a probability below 10⁻¹² for that of 10⁻¹².
//!
//! Reference: Lee & AlRegib, *Gradients as a Measure of Uncertainty in Neural Networks*, ICIP 2020.

use super::with_head::WithHead;
use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::input::feature_settings;
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `graduncertainty`.
    GradUncertaintyConfig, normalize = false;
}

offer! { GradUncertaintyConfig => GradUncertainty }

/// A fitted `graduncertainty` scorer.
pub struct GradUncertainty {
    config: GradUncertaintyConfig,
    input: WithHead,
}

impl Method for GradUncertaintyConfig {
    const NAME: &'static str = "graduncertainty";
    type Scorer = GradUncertainty;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<GradUncertainty> {
        let input = WithHead::fit("graduncertainty", self, context)?;
        Ok(GradUncertainty { config: self.clone(), input })
    }

    fn load(stored: &Stored<'_>) -> Result<GradUncertainty> {
        let (config, input) = WithHead::load(stored)?;
        Ok(GradUncertainty { config, input })
    }
}

/// Σ_c (C·p_c − 1)².
fn from_uniform(logits: &[f32]) -> f64 {
    let classes = logits.len() as f64;
    let total = reduce::logsumexp(logits.iter().map(|l| f64::from(*l)));
    let square = |l: &f32| (classes * (f64::from(*l) - total).exp() - 1.0).powi(2);
    logits.iter().map(square).sum()
}

impl Scorer for GradUncertainty {
    fn name(&self) -> &'static str {
        "graduncertainty"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let rows = self.input.input.stepped(batch);
        let logits = self.input.logits(&rows);
        let logits = logits.chunks_exact(self.input.head.classes());
        for (o, (row, logits)) in
            out.iter_mut().zip(rows.chunks_exact(self.input.dim()).zip(logits))
        {
            *o = reduce::finite(-(reduce::norm2(row) + 1.0) * from_uniform(logits));
        }
    }

    fn section(&self) -> Section {
        self.input.section("graduncertainty", &self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// p = (3/4, 1/4): (3/2 − 1)² + (1/2 − 1)²; nothing for equal logits.
    #[test]
    fn by_hand() {
        assert!((from_uniform(&[3f32.ln(), 0.0]) - 0.5).abs() < 1e-6);
        assert!(from_uniform(&[2.0; 4]) < 1e-20);
    }
}
