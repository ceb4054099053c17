//! Norm of the gradient towards all classes at once (`graduncertainty`): −Σ_θ ‖∂L/∂θ‖², L = −Σ_c log p_c, the binary
//! cross-entropy of p = softmax(logits) and a label of all ones.
//!
//! Of the last layer (`parameters=head`, the default) in closed form −(‖z‖² + 1)·Σ_c (C·p_c − 1)²: the gradient with
//! respect to W is the outer product of C·p − 1 and z, that to b is C·p − 1. Nothing is fitted but the feature steps;
//! cost per row O(D·C). Of all weights of the network (`parameters=all`) `heat extract --for graduncertainty` takes the
//! norms on the way back through it, about three times the cost of the features.
//!
//! *Difference from the paper*: there the norms of all layers are the inputs of a classifier that is trained
//! with OOD images; these are pytorch-ood's score with its `param_filter` of the head and with all parameters, but that
//! PyTorch's cross-entropy takes the gradient of a probability below 10⁻¹² for that of 10⁻¹². Weights are those of the
//! graph: exporters put those of a batch normalisation into the convolution before it.
//!
//! Reference: Lee & AlRegib, *Gradients as a Measure of Uncertainty in Neural Networks*, ICIP 2020.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::with_head::WithHead;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, signed_square};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::input::{contradiction, feature_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `graduncertainty`.
    GradUncertaintyConfig, normalize = false;
    /// Which weights: `head` or `all`.
    parameters: Parameters = Parameters::Head,
}

offer! { GradUncertaintyConfig => GradUncertainty }

/// Of which weights the gradients are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameters {
    /// Those of the last layer.
    Head,
    /// All of the network.
    All,
}

/// A fitted `graduncertainty` scorer.
pub struct GradUncertainty {
    config: GradUncertaintyConfig,
    norms: Norms,
}

/// Where norms of gradients come from.
enum Norms {
    /// Features and head.
    Head(WithHead),
    /// [`Field::Graduncertainty`], of so many columns.
    Stored(usize),
}

impl Method for GradUncertaintyConfig {
    const NAME: &'static str = "graduncertainty";
    type Scorer = GradUncertainty;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<GradUncertainty> {
        let norms = match self.parameters {
            Parameters::Head => Norms::Head(WithHead::fit("graduncertainty", self, context)?),
            Parameters::All => {
                if *self
                    != (GradUncertaintyConfig { parameters: self.parameters, ..Self::default() })
                {
                    let problem = "leave it out: of all weights no features are read";
                    return Err(Error::config("pooling, react, normalize, pca", "given", problem));
                }
                context.reads(Field::Graduncertainty);
                Norms::Stored(context.train.require(Field::Graduncertainty)?)
            }
        };
        Ok(GradUncertainty { config: self.clone(), norms })
    }

    fn load(stored: &Stored<'_>) -> Result<GradUncertainty> {
        #[derive(Deserialize)]
        struct Config {
            settings: GradUncertaintyConfig,
            /// Columns of the field, where it is read.
            norms: Option<usize>,
        }
        let Config { settings: config, norms } = stored.config()?;
        let norms = match (config.parameters, norms) {
            (Parameters::All, Some(columns)) => Norms::Stored(columns),
            (Parameters::Head, None) => {
                Norms::Head(WithHead::load::<GradUncertaintyConfig>(stored)?.1)
            }
            _ => return Err(contradiction(stored)),
        };
        Ok(GradUncertainty { config, norms })
    }
}

/// Σ_c (C·p_c − 1)².
fn from_uniform(logits: &[f32]) -> f64 {
    let classes = logits.len() as f64;
    let total = reduce::logsumexp(logits.iter().map(|l| f64::from(*l)));
    let square = |l: &f32| (classes * (f64::from(*l) - total).exp() - 1.0).powi(2);
    logits.iter().map(square).sum()
}

impl Scorer for GradUncertainty {
    fn name(&self) -> &'static str {
        "graduncertainty"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        match &self.norms {
            Norms::Head(input) => input.input.needs(set),
            Norms::Stored(columns) => FieldSet::checked(set, Field::Graduncertainty, *columns),
        }
    }

    fn of_maps(&self) -> Vec<Field> {
        match &self.norms {
            Norms::Head(_) => vec![],
            Norms::Stored(_) => vec![Field::Graduncertainty],
        }
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        match &self.norms {
            Norms::Head(input) => {
                let rows = input.input.stepped(batch);
                let logits = input.logits(&rows);
                let logits = logits.chunks_exact(input.head.classes());
                let rows = rows.chunks_exact(input.dim()).zip(logits);
                for (o, (row, logits)) in out.iter_mut().zip(rows) {
                    *o = reduce::finite(-(reduce::norm2(row) + 1.0) * from_uniform(logits));
                }
            }
            Norms::Stored(columns) => {
                let rows = batch.get(Field::Graduncertainty).chunks_exact(*columns);
                for (o, row) in out.iter_mut().zip(rows) {
                    let squares = row.iter().map(|kept| signed_square(*kept).powi(2));
                    *o = reduce::finite(-squares.sum::<f64>());
                }
            }
        }
    }

    fn section(&self) -> Section {
        match &self.norms {
            Norms::Head(input) => input.section("graduncertainty", &self.config),
            Norms::Stored(columns) => {
                let config = json!({ "settings": self.config, "norms": columns });
                Section::new("graduncertainty", config)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// p = (3/4, 1/4): (3/2 − 1)² + (1/2 − 1)²; nothing for equal logits.
    #[test]
    fn by_hand() {
        assert!((from_uniform(&[3f32.ln(), 0.0]) - 0.5).abs() < 1e-6);
        assert!(from_uniform(&[2.0; 4]) < 1e-20);
    }
}
