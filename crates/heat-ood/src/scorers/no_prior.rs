//! What stands in a prior's place where a residual has none: the feature steps, and an energy of 0.

use serde_json::json;

use super::input::{Input, feature_settings};
use super::{Form, Prior, Scorer, Scratch, Section, Stored};
use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet, Pooling, Preprocessing};

feature_settings! {
    /// The feature steps of a residual that has no prior.
    NoPriorConfig, normalize = true;
}

/// No prior: fitted feature steps.
pub struct NoPrior {
    config: NoPriorConfig,
    input: Input,
}

impl NoPriorConfig {
    /// Fit the steps.
    ///
    /// # Errors
    /// If the set lacks the features, or a step cannot be fitted on them.
    pub(crate) fn fit(self, train: &FeatureSet) -> Result<NoPrior> {
        let input = Input::fit(&self, train)?;
        Ok(NoPrior { config: self, input })
    }
}

impl NoPrior {
    /// The kind of its section.
    pub(crate) const NAME: &'static str = "none";

    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
        let (config, input) = Input::load(stored)?;
        Ok(NoPrior { config, input })
    }
}

impl Scorer for NoPrior {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, _batch: &Batch, out: &mut [f32]) {
        out.fill(0.0);
    }

    fn section(&self) -> Section {
        let config = json!({ "settings": self.config, "input_dim": self.input.input_dim });
        Section::new(Self::NAME, config).with("", self.input.tensors())
    }
}

impl Prior for NoPrior {
    fn pooling(&self) -> Pooling {
        self.config.pooling
    }

    fn steps(&self) -> &Preprocessing {
        &self.input.steps
    }

    fn dim(&self) -> usize {
        self.input.dim
    }

    fn energy(&self, _z: &[f32], out: &mut [f32]) {
        out.fill(0.0);
    }

    fn form(&self) -> Option<Form> {
        Some(Form::Flat)
    }

    fn add_gradient(&self, _z: &[f32], _scale: f32, _grad: &mut [f32], _scratch: &mut Scratch) {}
}
