//! Logits for the scorers that read them: stored, or computed from `avg` and
//! the head after the feature steps.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Section, Stored};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, Head, Needs, Pooling, Steps, StepsConfig};
use crate::math::matmul::Aligned;

/// Settings shared by the scorers of logits.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogitsConfig {
    /// Clip `avg` at this quantile of the training coordinates before the head (ReAct).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub react: Option<f64>,
}

/// Where the logits come from.
pub(super) struct LogitSource {
    config: LogitsConfig,
    steps: Steps,
    head: Option<Head>,
    classes: usize,
}

const AVG: Field = Field::Features(Pooling::Avg);

impl LogitSource {
    pub(super) fn fit(config: LogitsConfig, set: &FeatureSet, head: Option<&Head>) -> Result<Self> {
        if let Some(head) = head {
            set.check_head(head)?;
        }
        let react = config.react.is_some();
        let classes = match (head, set.dim(Field::Logits)) {
            (Some(head), _) => head.classes(),
            (None, Some(classes)) if !react => classes,
            _ => {
                let remedy = "give the classifier's last layer with `--head FILE` \
                              (weight [C, D], bias [C])";
                let what = if react { "head" } else { "`logits` and no head" };
                return Err(Error::missing(set.name(), what, remedy));
            }
        };
        let steps = StepsConfig { react: config.react, ..StepsConfig::default() };
        let steps = if react { steps.fit(set, Pooling::Avg)? } else { Steps::default() };
        Ok(LogitSource { config, steps, head: head.cloned(), classes })
    }

    pub(super) fn needs(&self, set: &FeatureSet) -> Result<Needs> {
        let stored = self.config.react.is_none() && set.dim(Field::Logits).is_some();
        match &self.head {
            Some(head) if !stored => {
                set.require(AVG)?;
                set.check_head(head)?;
                Ok(Needs::of(AVG))
            }
            _ => {
                let got = set.require(Field::Logits)?;
                if got != self.classes {
                    return Err(Error::Shape {
                        place: set.name().into(),
                        tensor: "logits".into(),
                        expected: format!("[N, {}]", self.classes),
                        got: format!("[{}, {got}]", set.len()),
                    });
                }
                Ok(Needs::of(Field::Logits))
            }
        }
    }

    /// Call `f` with the logits of each row.
    pub(super) fn rows(&self, batch: &Batch, out: &mut [f32], f: impl Fn(&mut [f32]) -> f32) {
        let stored = batch.get(Field::Logits);
        let mut logits = match &self.head {
            Some(head) if stored.is_empty() => {
                let mut z = batch.get(AVG).to_vec();
                self.steps.clip_and_normalize(&mut z, head.dim());
                let mut logits = vec![0.0; batch.rows() * self.classes];
                head.logits(&z, &mut logits, &mut Aligned::default());
                logits
            }
            _ => stored.to_vec(),
        };
        for (o, row) in out.iter_mut().zip(logits.chunks_exact_mut(self.classes)) {
            *o = f(row);
        }
    }

    pub(super) fn section(&self, kind: &str) -> Section {
        let config = json!({
            "settings": self.config,
            "classes": self.classes,
            "head": self.head.is_some(),
        });
        let section = Section::new(kind, config);
        match &self.head {
            Some(head) => {
                section.with("head.", head.tensors()).with("", self.steps.tensors(head.dim()))
            }
            None => section,
        }
    }

    pub(super) fn load(stored: &Stored<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            settings: LogitsConfig,
            classes: usize,
            head: bool,
        }
        let config: Config = stored.config()?;
        let steps = StepsConfig { react: config.settings.react, ..StepsConfig::default() };
        let head = config.head.then(|| load_head(stored)).transpose()?;
        let contradicts = head.as_ref().is_some_and(|h| h.classes() != config.classes);
        if contradicts || config.classes == 0 {
            let problem = "its head and its number of classes contradict each other";
            return Err(Error::format(stored.file.path(), problem));
        }
        Ok(LogitSource {
            steps: Steps::load(stored.file, &stored.prefix, &steps)?,
            config: config.settings,
            head,
            classes: config.classes,
        })
    }
}

pub(super) fn load_head(stored: &Stored<'_>) -> Result<Head> {
    let weight = stored.name("head.weight");
    let shape = stored.file.shape(&weight)?.to_vec();
    let bias = stored.file.f32(&stored.name("head.bias"), &shape[..1.min(shape.len())])?;
    Head::new(stored.file.f32(&weight, &shape)?, bias)
}
