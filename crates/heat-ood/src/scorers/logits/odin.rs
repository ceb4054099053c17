//! ODIN in its feature form (`odin`): −max softmax(logits / T).
//!
//! The published method also perturbs the image against its own prediction
//! (ε); that needs the network, so from features only ε = 0 is possible.
//!
//! Reference: Liang et al., *Enhancing the Reliability of Out-of-distribution Image Detection in Neural Networks*, ICLR 2018.

use serde::{Deserialize, Serialize};

use super::source::{LogitSource, softmax_gradient};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Needs};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::fit::{Method, offer};
use crate::scorers::{LogitsConfig, Scorer, Section, Stored};

/// Settings of `odin`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OdinConfig {
    /// T.
    pub temperature: f64,
    /// ε, the size of the image's perturbation: 0 from features.
    pub epsilon: f64,
    /// As in [`LogitsConfig`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub react: Option<f64>,
    /// As in [`LogitsConfig`].
    pub normalize: bool,
    /// As in [`LogitsConfig`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<usize>,
    /// As in [`LogitsConfig`].
    pub whiten: bool,
}

impl Default for OdinConfig {
    fn default() -> Self {
        OdinConfig {
            temperature: 1000.0,
            epsilon: 0.0,
            react: None,
            normalize: false,
            pca: None,
            whiten: false,
        }
    }
}

offer! { OdinConfig => Odin }

/// A fitted `odin` scorer.
pub struct Odin {
    source: LogitSource,
    temperature: f64,
}

impl Method for OdinConfig {
    const NAME: &'static str = "odin";
    type Scorer = Odin;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Odin> {
        let (train, head) = (context.train, context.head);
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            let problem = "must be a positive number";
            return Err(Error::config("temperature", self.temperature, problem));
        }
        if self.epsilon != 0.0 {
            let problem = "perturbing pictures needs the network: `heat run`, or features made with `heat extract --perturb`";
            return Err(Error::config("epsilon", self.epsilon, problem));
        }
        let logits = LogitsConfig {
            react: self.react,
            normalize: self.normalize,
            pca: self.pca,
            whiten: self.whiten,
        };
        let source = LogitSource::fit("odin", logits, train, head)?;
        Ok(Odin { source, temperature: self.temperature })
    }

    fn load(stored: &Stored<'_>) -> Result<Odin> {
        #[derive(Deserialize)]
        struct Config {
            temperature: f64,
        }
        let Config { temperature } = stored.config()?;
        Ok(Odin { source: LogitSource::load(stored)?, temperature })
    }
}

impl Scorer for Odin {
    fn name(&self) -> &'static str {
        "odin"
    }

    fn needs(&self, set: &FeatureSet) -> Result<Needs> {
        self.source.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let t = self.temperature;
        self.source.rows(batch, out, |logits| {
            let scaled = logits.iter().map(|&l| f64::from(l) / t);
            let largest = f64::from(reduce::max(logits)) / t;
            -(largest - reduce::logsumexp(scaled)).exp() as f32
        });
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.source.gradient(batch, scale, out, |l| softmax_gradient(l, self.temperature))
    }

    fn section(&self) -> Section {
        let mut section = self.source.section("odin");
        section.config["temperature"] = self.temperature.into();
        section
    }
}
