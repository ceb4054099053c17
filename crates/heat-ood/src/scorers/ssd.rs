//! Mahalanobis distance to the nearest class mean (`ssd`, `maha`):
//! min_k (z−μ_k)ᵀ Σ⁻¹ (z−μ_k), with the fit of [`gmm`](super::gmm).
//!
//! `ssd` normalises the features, `maha` does not. Cost per row O(D² + K·D).
//!
//! Reference: Sehwag et al., *SSD: A Unified Framework for Self-Supervised
//! Outlier Detection*, ICLR 2021; Lee et al., NeurIPS 2018.

use super::gmm::{Gmm, GmmConfig};
use super::{Scorer, Section, Stored};
use crate::error::Result;
use crate::features::{Batch, FeatureSet, Needs};
use crate::observe::Observer;

/// Settings of `ssd` and `maha`: those of `gmm`.
pub type SsdConfig = GmmConfig;

/// A fitted `ssd` or `maha` scorer.
pub struct Ssd(Gmm);

impl Ssd {
    /// Fit the Gaussian; see [`GmmConfig::fit`].
    ///
    /// # Errors
    /// As [`GmmConfig::fit`].
    pub fn fit(
        config: &SsdConfig,
        train: &FeatureSet,
        classes: Option<usize>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        Ok(Ssd(config.fit(train, classes, observer)?))
    }

    /// The scorer of a fitted Gaussian.
    pub(super) fn of(gmm: Gmm) -> Self {
        Ssd(gmm)
    }

    /// The Gaussian behind it.
    pub fn gmm(&self) -> &Gmm {
        &self.0
    }

    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
        Ok(Ssd(Gmm::load(stored)?))
    }
}

impl Scorer for Ssd {
    fn name(&self) -> &'static str {
        if self.0.config().normalize { "ssd" } else { "maha" }
    }

    fn needs(&self, set: &FeatureSet) -> Result<Needs> {
        self.0.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let distances = self.0.distances(&self.0.input.stepped(batch));
        for (o, d) in out.iter_mut().zip(distances.chunks_exact(self.0.components())) {
            *o = d.iter().copied().fold(f64::INFINITY, f64::min) as f32;
        }
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.0.pull(batch, 2.0 * scale, out, |r| {
            let near = (0..r.len()).fold(0, |best, i| if r[i] < r[best] { i } else { best });
            r.fill(0.0);
            r[near] = 1.0;
        })
    }

    fn section(&self) -> Section {
        self.0.section_as(self.name())
    }
}
