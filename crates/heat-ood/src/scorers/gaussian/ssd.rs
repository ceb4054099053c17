//! Mahalanobis distance to the nearest class mean (`ssd`, `mds_pp`, `maha`):
//! min_k (z−μ_k)ᵀ Σ⁻¹ (z−μ_k), with the fit of [`gmm`](super::gmm).
//!
//! `ssd` normalises the features, `maha` does not; `mds_pp` is `ssd` under the
//! name of Mahalanobis++. Cost per row O(D² + K·D).
//!
//! Reference: Sehwag et al., *SSD: A Unified Framework for Self-Supervised
//! Outlier Detection*, ICLR 2021; Lee et al., NeurIPS 2018; Mueller and Hein,
//! *Mahalanobis++: Improving OOD Detection via Feature Normalization*, ICML 2025.

use super::gmm::{Gmm, GmmConfig, gaussian_method, gaussian_settings};
use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::scorers::context::{FitContext, StatisticRequest};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

gaussian_settings! {
    /// Settings of `ssd`: those of `gmm`.
    SsdConfig, normalize = true;
}

gaussian_settings! {
    /// Settings of `maha`: those of `gmm`, on features as they are.
    MahaConfig, normalize = false;
}

gaussian_settings! {
    /// Settings of `mds_pp`: those of `gmm`.
    MdsPpConfig, normalize = true;
}

offer! {
    SsdConfig => Ssd,
    MahaConfig => Ssd,
    MdsPpConfig => Ssd,
}

/// A fitted `ssd`, `mds_pp` or `maha` scorer.
pub struct Ssd {
    gmm: Gmm,
    name: &'static str,
}

impl Ssd {
    /// The scorer of a fitted Gaussian.
    fn of(gmm: Gmm) -> Self {
        let name = if gmm.config().normalize { "ssd" } else { "maha" };
        Ssd { gmm, name }
    }

    /// The same as `mds_pp`.
    fn plus_plus(gmm: Gmm) -> Self {
        Ssd { gmm, name: "mds_pp" }
    }

    /// The Gaussian behind it.
    pub fn gmm(&self) -> &Gmm {
        &self.gmm
    }

    fn load(stored: &Stored<'_>) -> Result<Self> {
        let gmm = Gmm::load(stored)?;
        Ok(if stored.kind() == "mds_pp" { Self::plus_plus(gmm) } else { Self::of(gmm) })
    }
}

gaussian_method!(SsdConfig => Ssd, "ssd", |gmm| Ok(Ssd::of(gmm)));
gaussian_method!(
    MahaConfig => Ssd, "maha", |gmm| Ok(Ssd::of(gmm)),
    refuse true: "`maha` is `ssd` without normalising; use `ssd`"
);
gaussian_method!(
    MdsPpConfig => Ssd, "mds_pp", |gmm| Ok(Ssd::plus_plus(gmm)),
    refuse false: "`mds_pp` normalises; use `maha`"
);

impl Scorer for Ssd {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
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
