//! Length of the features (`norm`): ‖z‖₂. Nothing is fitted but the feature
//! steps; cost per row O(D).

use serde_json::json;

use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::input::{Input, feature_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `norm`.
    NormConfig, normalize = false;
}

offer! { NormConfig => Norm }

/// A fitted `norm` scorer.
pub struct Norm {
    config: NormConfig,
    input: Input,
}

impl Method for NormConfig {
    const NAME: &'static str = "norm";
    type Scorer = Norm;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Norm> {
        let input = context.source(self)?.input;
        Ok(Norm { config: self.clone(), input })
    }

    fn load(stored: &Stored<'_>) -> Result<Norm> {
        let (config, input) = Input::load(stored)?;
        Ok(Norm { config, input })
    }
}

impl Scorer for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
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
