//! Energy of the logits without the map's first singular component (`rankfeat`):
//! −T·logsumexp((W·z′ + b)/T), z′ the mean over the cells of F − σ₁u₁v₁ᵀ, F `[channels, cells]` the last map.
//!
//! Nothing is fitted; cost per row O(C·D), and that of the decomposition in the extraction.
//!
//! *Difference from the authors*: theirs is the mean of these logits and of those of the map before the last
//! stage, whose component is taken away and which is sent through the rest of the network again; here
//! the last stage alone, as in pytorch-ood, and the component exactly, as by their `svd`.
//!
//! Reference: Song et al., *RankFeat: Rank-1 Feature Removal for Out-of-distribution Detection*,
//! NeurIPS 2022.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, Head};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::input::{contradiction, head_logits, load_head, require_head};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

/// Settings of `rankfeat`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RankfeatConfig {
    /// T.
    pub temperature: f64,
}

impl Default for RankfeatConfig {
    fn default() -> Self {
        RankfeatConfig { temperature: 1.0 }
    }
}

offer! { RankfeatConfig => Rankfeat }

/// A fitted `rankfeat` scorer.
pub struct Rankfeat {
    config: RankfeatConfig,
    head: Head,
}

impl RankfeatConfig {
    fn check_ranges(&self) -> Result<()> {
        if self.temperature.is_finite() && self.temperature > 0.0 {
            return Ok(());
        }
        Err(Error::config("temperature", self.temperature, "must be a positive number"))
    }
}

impl Method for RankfeatConfig {
    const NAME: &'static str = "rankfeat";
    type Scorer = Rankfeat;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Rankfeat> {
        self.check_ranges()?;
        context.reads(Field::Rankfeat);
        let columns = context.train.require(Field::Rankfeat)?;
        let head = require_head("rankfeat", context.head)?;
        if head.dim() != columns {
            return Err(Error::Shape {
                place: "head".into(),
                tensor: "weight".into(),
                expected: format!("[C, {columns}], the channels of the map"),
                got: format!("[C, {}]", head.dim()),
            });
        }
        Ok(Rankfeat { config: self.clone(), head: head.clone() })
    }

    fn load(stored: &Stored<'_>) -> Result<Rankfeat> {
        let config: RankfeatConfig = stored.config()?;
        config.check_ranges().map_err(|_| contradiction(stored))?;
        Ok(Rankfeat { config, head: load_head(stored.file, &stored.name("head."))? })
    }
}

impl Scorer for Rankfeat {
    fn name(&self) -> &'static str {
        "rankfeat"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        FieldSet::checked(set, Field::Rankfeat, self.head.dim())
    }

    fn of_maps(&self) -> Vec<Field> {
        vec![Field::Rankfeat]
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let t = self.config.temperature;
        let logits = head_logits(&self.head, batch.get(Field::Rankfeat));
        for (o, row) in out.iter_mut().zip(logits.chunks_exact(self.head.classes())) {
            *o = (-t * reduce::logsumexp(row.iter().map(|v| f64::from(*v) / t))) as f32;
        }
    }

    fn section(&self) -> Section {
        Section::new("rankfeat", json!(self.config)).with("head.", self.head.tensors())
    }
}
