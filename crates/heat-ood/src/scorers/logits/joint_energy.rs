//! Joint energy (`joint_energy`): −Σ_k log(1 + exp(v_k)) of the logits v, the sum of the energies of
//! the classes, each against none: for networks whose classes do not exclude each other.
//!
//! Reference: Wang et al., *Can Multi-Label Classification Networks Know What They Don't Know?*,
//! NeurIPS 2021.

use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::scorers::context::FitContext;
use crate::scorers::logit_source::{LogitSource, logits_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

logits_settings! {
    /// Settings of `joint_energy`.
    JointEnergyConfig;
}

offer! { JointEnergyConfig => JointEnergy }

/// A fitted `joint_energy` scorer.
pub struct JointEnergy {
    source: LogitSource,
}

impl Method for JointEnergyConfig {
    const NAME: &'static str = "joint_energy";
    type Scorer = JointEnergy;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<JointEnergy> {
        Ok(JointEnergy { source: context.logit_source("joint_energy", self.into())? })
    }

    fn load(stored: &Stored<'_>) -> Result<JointEnergy> {
        Ok(JointEnergy { source: LogitSource::load(stored)? })
    }
}

/// log(1 + eˣ), of any x.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl Scorer for JointEnergy {
    fn name(&self) -> &'static str {
        "joint_energy"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.source.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.source.rows(batch, out, |row| {
            -row.iter().map(|v| softplus(f64::from(*v))).sum::<f64>() as f32
        });
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.source.gradient(batch, scale, out, |row| {
            row.iter_mut().for_each(|v| *v = -1.0 / (1.0 + (-*v).exp()));
        })
    }

    fn section(&self) -> Section {
        self.source.section("joint_energy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_any_logit() {
        assert_eq!(softplus(0.0), 2f64.ln());
        assert!((softplus(1.0) - (1.0 + 1f64.exp()).ln()).abs() < 1e-15);
        assert_eq!((softplus(1e300), softplus(-1e300)), (1e300, 0.0));
    }
}
