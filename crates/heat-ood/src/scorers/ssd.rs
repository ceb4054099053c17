//! Mahalanobis distance to the nearest class mean (`ssd`, `mds_pp`, `maha`):
//! min_k (z−μ_k)ᵀ Σ⁻¹ (z−μ_k), with the fit of [`gmm`](super::gmm).
//!
//! `ssd` normalises the features, `maha` does not; `mds_pp` is `ssd` under the
//! name of Mahalanobis++. Cost per row O(D² + K·D).
//!
//! Reference: Sehwag et al., *SSD: A Unified Framework for Self-Supervised
//! Outlier Detection*, ICLR 2021; Lee et al., NeurIPS 2018; Mueller and Hein,
//! *Mahalanobis++: Improving OOD Detection via Feature Normalization*, ICML 2025.

use super::gmm::{Gmm, GmmConfig};
use super::{Scorer, Section, Stored};
use crate::error::Result;
use crate::features::{Batch, FeatureSet, Needs};
use crate::observe::Observer;

/// Settings of `ssd`, `mds_pp` and `maha`: those of `gmm`.
pub type SsdConfig = GmmConfig;

/// A fitted `ssd`, `mds_pp` or `maha` scorer.
pub struct Ssd {
    gmm: Gmm,
    name: &'static str,
}

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
        Ok(Self::of(config.fit(train, classes, observer)?))
    }

    /// The scorer of a fitted Gaussian.
    pub(super) fn of(gmm: Gmm) -> Self {
        let name = if gmm.config().normalize { "ssd" } else { "maha" };
        Ssd { gmm, name }
    }

    /// The same as `mds_pp`.
    pub(super) fn plus_plus(gmm: Gmm) -> Self {
        Ssd { gmm, name: "mds_pp" }
    }

    /// The Gaussian behind it.
    pub fn gmm(&self) -> &Gmm {
        &self.gmm
    }

    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
        let gmm = Gmm::load(stored)?;
        Ok(if stored.kind() == "mds_pp" { Self::plus_plus(gmm) } else { Self::of(gmm) })
    }
}

impl Scorer for Ssd {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs(&self, set: &FeatureSet) -> Result<Needs> {
        self.gmm.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let distances = self.gmm.distances(&self.gmm.input.stepped(batch));
        for (o, d) in out.iter_mut().zip(distances.chunks_exact(self.gmm.components())) {
            *o = d.iter().copied().fold(f64::INFINITY, f64::min) as f32;
        }
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.gmm.accumulate_gradient(batch, 2.0 * scale, out, |r| {
            let near = (0..r.len()).fold(0, |best, i| if r[i] < r[best] { i } else { best });
            r.fill(0.0);
            r[near] = 1.0;
        })
    }

    fn section(&self) -> Section {
        self.gmm.section_as(self.name)
    }
}
