//! Norm of what lies outside the principal subspace (`residual`): ‖Rᵀ(z−o)‖₂.
//!
//! The residual half of [`vim`](super::vim), with its origin o = −W⁺b, its
//! directions R and its settings. One pass over the training set, O(N·D²);
//! cost per row O(D·min(p, D − p)).
//!
//! Reference: Wang et al., *ViM: Out-of-Distribution with Virtual-Logit Matching*, CVPR 2022.

use serde::Deserialize;
use serde_json::json;

use super::principal::{self, Center, Subspace};
use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::scorers::context::{FitContext, StatisticRequest};
use crate::scorers::input::{Input, contradiction, feature_settings, require_head};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `residual`.
    ResidualConfig, normalize = false;
    /// Directions of largest variance that do not count as residual; by
    /// default those of `vim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    principal_dim: Option<usize> = None,
    /// What variance is taken about, as `vim`'s.
    center: Center = Center::Origin,
}

offer! { ResidualConfig => Residual }

/// A fitted `residual` scorer.
pub struct Residual {
    config: ResidualConfig,
    input: Input,
    space: Subspace,
}

impl Method for ResidualConfig {
    const NAME: &'static str = "residual";
    type Scorer = Residual;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        require_head("residual", context.head)?;
        Ok(vec![principal::request("residual", &context.source(self)?)?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Residual> {
        let source = context.source(self)?;
        let (count, center) = (self.principal_dim, self.center);
        let (space, _) = Subspace::of_head("residual", count, center, &source, context)?;
        Ok(Residual { config: self.clone(), input: source.input, space })
    }

    fn load(stored: &Stored<'_>) -> Result<Residual> {
        #[derive(Deserialize)]
        struct Config {
            principal_dim: usize,
        }
        let (mut config, input) = Input::load::<ResidualConfig>(stored)?;
        config.center = Center::stored(stored, config.center)?;
        let c: Config = stored.config()?;
        if c.principal_dim >= input.dim {
            return Err(contradiction(stored));
        }
        let space = Subspace::load(stored, input.dim, c.principal_dim)?;
        Ok(Residual { config, input, space })
    }
}

impl Scorer for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let centred = self.space.centred(&self.input.stepped(batch));
        out.iter_mut().zip(self.space.outside(&centred)).for_each(|(o, norm)| *o = norm as f32);
    }

    fn section(&self) -> Section {
        let config = json!({
            "settings": self.config,
            "input_dim": self.input.input_dim,
            "principal_dim": self.space.count(),
        });
        Section::new("residual", config)
            .with("", self.space.tensors())
            .with("", self.input.tensors())
    }
}
