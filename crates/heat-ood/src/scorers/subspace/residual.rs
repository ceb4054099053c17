//! Norm of what lies outside the principal subspace (`residual`): ‖Rᵀ(z−o)‖₂.
//!
//! The residual half of [`vim`](super::vim), with its origin o = −W⁺b, its
//! directions R and its settings. Without a head and with `center=mean`, o is
//! the mean of the training rows: the reconstruction error of principal
//! components. One pass over the training set, O(N·D²); cost per row
//! O(D·min(p, D − p)).
//!
//! Reference: Wang et al., *ViM: Out-of-Distribution with Virtual-Logit Matching*, CVPR 2022.

use serde::Deserialize;
use serde_json::json;

use super::principal::{self, Center, Subspace};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::scorers::context::{FitContext, StatisticRequest};
use crate::scorers::input::{Input, contradiction, feature_settings};
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

impl ResidualConfig {
    /// That there is a head, or none is needed.
    fn require(&self, head: Option<&Head>) -> Result<()> {
        if head.is_some() || self.center == Center::Mean {
            return Ok(());
        }
        let remedy = "give the classifier's last layer (weight [C, D], bias [C]), or set \
                      `center=mean`, which takes the mean of the training rows for the origin";
        Err(Error::needs("the scorer `residual`", "a head", remedy))
    }
}

impl Method for ResidualConfig {
    const NAME: &'static str = "residual";
    type Scorer = Residual;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        self.require(context.head)?;
        Ok(vec![principal::request("residual", &context.source(self)?)?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Residual> {
        let source = context.source(self)?;
        let (count, center) = (self.principal_dim, self.center);
        self.require(context.head)?;
        let space = match context.head {
            Some(_) => Subspace::of_head("residual", count, center, &source, context)?.0,
            None => Subspace::of_mean("residual", count, &source, context)?,
        };
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

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::observe::Silent;
    use crate::scorers::{Fit, TrainingData};

    /// numpy 2.4: the norm of what one principal component, from `numpy.linalg.svd` of the rows less
    /// their mean, leaves of (x − mean).
    #[test]
    fn without_a_head_about_the_mean() {
        let rows = array![[0.0f32, 0.0, 1.0], [4.0, 1.0, 0.0], [8.0, 3.0, 1.0], [12.0, 4.0, 3.0]];
        let train = FeatureSet::from_arrays(rows.view(), None).unwrap();
        let data = TrainingData::new(&train);
        let config =
            |center| ResidualConfig { center, principal_dim: Some(1), ..Default::default() };
        let scores = config(Center::Mean).fit(&data, &mut Silent).unwrap().score(&train).unwrap();
        let want = [0.8177199536111396, 0.90598120157856, 0.6786704914072326, 0.6746596725526199];
        for (got, want) in scores.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{scores:?}");
        }
        let error = config(Center::Origin).fit(&data, &mut Silent).err().unwrap().to_string();
        assert!(error.contains("`center=mean`"), "{error}");
    }
}
