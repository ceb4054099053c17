//! Nearness to the weights of the predicted class (`nci`):
//! −w_ŷ·(z − μ)/‖z − μ‖ − α‖z‖₁.
//!
//! ŷ the predicted class, w_ŷ its row of W, μ the mean of the training rows.
//! One pass, O(N·D); cost per row O(D·C).
//!
//! Reference: Liu and Qin, *Detecting Out-of-Distribution Through the Lens of Neural Collapse*, CVPR 2025.

use super::input::{feature_settings, require_head};
use super::training::{Training, Want};
use super::with_head::{MeanRow, WithHead, fit_alone};
use super::{Scorer, Section, Stored};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Needs};
use crate::io::Tensor;
use crate::math::reduce;

feature_settings! {
    /// Settings of `nci`.
    NciConfig, normalize = false;
    /// α; the default is that of the authors' code.
    alpha: f64 = 1e-4,
}

/// A fitted `nci` scorer.
pub struct Nci {
    config: NciConfig,
    input: WithHead,
    /// μ.
    mean: Vec<f64>,
}

fit_alone!(NciConfig => Nci);

impl NciConfig {
    pub(super) fn wants(&self, training: &mut Training<'_>) -> Result<Vec<Want>> {
        require_head("nci", training.head)?;
        Ok(vec![MeanRow::want(&training.source(self)?)])
    }

    pub(super) fn fit_in(&self, training: &mut Training<'_>) -> Result<Nci> {
        if !(self.alpha.is_finite() && self.alpha >= 0.0) {
            return Err(Error::config("alpha", self.alpha, "must be a number ≥ 0, e.g. 0.0001"));
        }
        let input = WithHead::fit("nci", self, training)?;
        let source = training.source(self)?;
        let mean = MeanRow::find(&source, training)?;
        Ok(Nci { config: self.clone(), input, mean })
    }
}

impl Nci {
    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
        let (config, input) = WithHead::load(stored)?;
        let mean = stored.file.f64(&stored.name("mean"), &[input.dim()])?;
        Ok(Nci { config, input, mean })
    }
}

impl Scorer for Nci {
    fn name(&self) -> &'static str {
        "nci"
    }

    fn needs(&self, set: &FeatureSet) -> Result<Needs> {
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
            *o = (-along / square.sqrt().max(1e-12) - length) as f32;
        }
    }

    fn section(&self) -> Section {
        let mean = Tensor::f64([self.input.dim()], self.mean.clone());
        self.input.section("nci", &self.config).with("", vec![("mean".into(), mean)])
    }
}
