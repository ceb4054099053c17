//! Length of the features (`norm`): ‖z‖₂. Nothing is fitted but the feature
//! steps; cost per row O(D).

use serde_json::json;

use super::input::{Input, feature_settings};
use super::{Scorer, Section, Stored};
use crate::error::Result;
use crate::features::{Batch, FeatureSet, Needs};
use crate::math::reduce;

feature_settings! {
    /// Settings of `norm`.
    NormConfig, normalize = false;
}

/// A fitted `norm` scorer.
pub struct Norm {
    config: NormConfig,
    input: Input,
}

impl NormConfig {
    /// Fit the steps.
    ///
    /// # Errors
    /// If a step cannot be fitted.
    pub fn fit(&self, train: &FeatureSet) -> Result<Norm> {
        let input = Input::fit(self, train)?;
        Ok(Norm { config: self.clone(), input })
    }
}

impl Norm {
    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
        let (config, input) = Input::load(stored)?;
        Ok(Norm { config, input })
    }
}

impl Scorer for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn needs(&self, set: &FeatureSet) -> Result<Needs> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let rows = self.input.stepped(batch);
        for (o, row) in out.iter_mut().zip(rows.chunks_exact(self.input.dim)) {
            *o = reduce::norm2(row).sqrt() as f32;
        }
    }

    fn section(&self) -> Section {
        let config = json!({ "settings": self.config, "input_dim": self.input.input_dim });
        Section::new("norm", config).with("", self.input.tensors())
    }
}
