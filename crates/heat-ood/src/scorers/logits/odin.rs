//! ODIN in its feature form (`odin`): −max softmax(logits / T).
//!
//! The published method also perturbs the image against its own prediction
//! (ε); that needs the network, so from features only ε = 0 is possible.
//!
//! Reference: Liang et al., *Enhancing the Reliability of Out-of-distribution Image Detection in Neural Networks*, ICLR 2018.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::logit_source::{LogitSource, logits_settings, softmax_gradient};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

logits_settings! {
    /// Settings of `odin`.
    OdinConfig;
    /// T.
    temperature: f64 = 1000.0,
    /// ε, the size of the image's perturbation: 0 from features.
    epsilon: f64 = 0.0,
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
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            let problem = "must be a positive number";
            return Err(Error::config("temperature", self.temperature, problem));
        }
        if self.epsilon != 0.0 {
            let problem =
                "needs the network: the images are perturbed before their features are extracted";
            return Err(Error::config("epsilon", self.epsilon, problem));
        }
        let source = context.logit_source("odin", self.into())?;
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

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
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
