//! Nearness to the weights of the predicted class (`nci`):
//! −w_ŷ·(z − μ)/‖z − μ‖ − α‖z‖₁.
//!
//! ŷ the predicted class, w_ŷ its row of W, μ the mean of the training rows.
//! One pass, O(N·D); cost per row O(D·C).
//!
//! Reference: Liu and Qin, *Detecting Out-of-Distribution Through the Lens of Neural Collapse*, CVPR 2025.

use super::with_head::{MeanRow, WithHead};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::Tensor;
use crate::math::reduce;
use crate::scorers::context::{FitContext, StatisticRequest};
use crate::scorers::input::{feature_settings, require_head};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `nci`.
    NciConfig, normalize = false;
    /// α; the default is that of the authors' code.
    alpha: f64 = 1e-4,
}

offer! { NciConfig => Nci }

/// A fitted `nci` scorer.
pub struct Nci {
    config: NciConfig,
    input: WithHead,
    /// μ.
    mean: Vec<f64>,
}

impl Method for NciConfig {
    const NAME: &'static str = "nci";
    type Scorer = Nci;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        require_head("nci", context.head)?;
        Ok(vec![MeanRow::request(&context.source(self)?)])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Nci> {
        if !(self.alpha.is_finite() && self.alpha >= 0.0) {
            return Err(Error::config("alpha", self.alpha, "must be a number ≥ 0, e.g. 0.0001"));
        }
        let input = WithHead::fit("nci", self, context)?;
        let source = context.source(self)?;
        let mean = MeanRow::find(&source, context)?;
        Ok(Nci { config: self.clone(), input, mean })
    }

    fn load(stored: &Stored<'_>) -> Result<Nci> {
        let (config, input) = WithHead::load(stored)?;
        let mean = stored.file.f64(&stored.name("mean"), &[input.dim()])?;
        Ok(Nci { config, input, mean })
    }
}

impl Scorer for Nci {
    fn name(&self) -> &'static str {
        "nci"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let (dim, head) = (self.input.dim(), &self.input.head);
        let rows = self.input.input.stepped(batch);
        let logits = self.input.logits(&rows);
        let pairs = rows.chunks_exact(dim).zip(logits.chunks_exact(head.classes()));
        for (o, (row, logits)) in out.iter_mut().zip(pairs) {
            let weight = &head.weight()[reduce::argmax(logits) as usize * dim..][..dim];
            let (along, square) = reduce::projected_about(row, weight, &self.mean);
            let length = self.config.alpha * reduce::norm1(row);
            *o = (-along / square.sqrt().max(f64::MIN_POSITIVE) - length) as f32;
        }
    }

    fn section(&self) -> Section {
        let mean = Tensor::f64([self.input.dim()], self.mean.clone());
        self.input.section("nci", &self.config).with("", vec![("mean".into(), mean)])
    }
}
