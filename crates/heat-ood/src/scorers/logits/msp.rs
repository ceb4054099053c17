//! Maximum softmax probability (`msp`): 1 − max softmax(logits).
//!
//! It is computed as the sum of the other probabilities, s/(1 + s) with
//! s = Σ_{c≠ŷ} exp(l_c − l_ŷ): a confident network has probabilities that all
//! round to 1, and −max softmax would tie these rows.
//!
//! Files of format version 1 hold −max softmax, one less; their statistics and
//! calibrations are of that form, so it stays theirs.
//!
//! Reference: Hendrycks and Gimpel, *A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks*, ICLR 2017.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::logit_source::{LogitSource, logits_settings, softmax_gradient};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

logits_settings! {
    /// Settings of `msp`.
    MspConfig;
}

offer! { MspConfig => Msp }

/// Which of two expressions of the same confidence is the score. Files of
/// format version 1 do not say.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// −max softmax, in single precision.
    #[default]
    NegativeMax,
    /// 1 − max softmax.
    Complement,
}

/// A fitted `msp` scorer.
pub struct Msp {
    source: LogitSource,
    form: Form,
}

impl Method for MspConfig {
    const NAME: &'static str = "msp";
    type Scorer = Msp;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Msp> {
        let source = context.logit_source("msp", self.into())?;
        Ok(Msp { source, form: Form::Complement })
    }

    fn load(stored: &Stored<'_>) -> Result<Msp> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            form: Form,
        }
        let Config { form } = stored.config()?;
        Ok(Msp { source: LogitSource::load(stored)?, form })
    }
}

impl Scorer for Msp {
    fn name(&self) -> &'static str {
        "msp"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.source.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        match self.form {
            Form::Complement => {
                let logits = self.source.logits(batch);
                let scores = reduce::softmax_complement_rows(&logits, self.source.classes());
                out.iter_mut().zip(scores).for_each(|(o, s)| *o = s as f32);
            }
            Form::NegativeMax => self.source.rows(batch, out, |logits| {
                reduce::softmax(logits);
                -reduce::max(logits)
            }),
        }
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.source.gradient(batch, scale, out, |l| softmax_gradient(l, 1.0))
    }

    fn section(&self) -> Section {
        let mut section = self.source.section(self.name());
        section.config["form"] = json!(self.form);
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Head;
    use crate::observe::Silent;
    use crate::scorers::{Fit, TrainingData};

    /// By hand: two classes d apart have 1 − max p = 1/(1 + eᵈ). Values by
    /// mpmath 1.3 at 30 digits. In single precision max p is 1 from d = 17 on.
    #[test]
    fn confident_rows_keep_their_order() {
        let rows = [[0.0f32, 0.0], [3.0, 1.0], [-2.0, 20.0], [1.0, 31.0], [60.0, 0.0]];
        let logits = FeatureSet::from_arrays(ndarray::aview2(&rows), None).unwrap();
        let head = Head::new(vec![1.0, 0.0, 0.0, 1.0], vec![0.0, 0.0]).unwrap();
        let msp = MspConfig::default()
            .fit(&TrainingData::new(&logits).with_head(&head), &mut Silent)
            .unwrap();
        let want = [
            0.5,
            0.119_202_922_022_117_56,
            2.789_468_092_812_086e-10,
            9.357_622_968_839_299e-14,
            8.756_510_762_696_521e-27,
        ];
        for (got, want) in msp.score(&logits).unwrap().into_iter().zip(want) {
            assert!((f64::from(got) / want - 1.0).abs() < 1e-7, "{got:e} {want:e}");
        }
    }
}
