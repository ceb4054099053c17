//! Shannon entropy of the softmax (`entropy`): −Σ_c p_c log p_c, in f64.
//!
//! Nothing is fitted; cost per row O(D·C).
//!
//! Reference: Chan et al., *Entropy Maximization and Meta Classification for Out-of-Distribution Detection in Semantic Segmentation*, ICCV 2021.

use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::logit_source::{LogitSource, logits_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

logits_settings! {
    /// Settings of `entropy`.
    EntropyConfig;
}

offer! { EntropyConfig => Entropy }

/// A fitted `entropy` scorer.
pub struct Entropy(LogitSource);

impl Method for EntropyConfig {
    const NAME: &'static str = "entropy";
    type Scorer = Entropy;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Entropy> {
        let source = context.logit_source("entropy", self.into())?;
        Ok(Entropy(source))
    }

    fn load(stored: &Stored<'_>) -> Result<Entropy> {
        Ok(Entropy(LogitSource::load(stored)?))
    }
}

/// log s − t/s with e_c = exp(z_c − z_y), s = Σ e_c and t = Σ e_c (z_c − z_y),
/// exact where one probability is all but 1.
fn entropy(logits: &[f32]) -> f32 {
    let top = reduce::argmax(logits) as usize;
    let largest = f64::from(logits[top]);
    let (mut others, mut weighted) = (0.0, 0.0);
    for (c, &l) in logits.iter().enumerate() {
        if c != top {
            let off = f64::from(l) - largest;
            let e = off.exp();
            others += e;
            weighted += e * off;
        }
    }
    (others.ln_1p() - weighted / (1.0 + others)) as f32
}

impl Scorer for Entropy {
    fn name(&self) -> &'static str {
        "entropy"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.0.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.0.rows(batch, out, |logits| entropy(logits));
    }

    fn section(&self) -> Section {
        self.0.section("entropy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: scipy.stats.entropy(scipy.special.softmax([...])); the
    /// last by mpmath 1.3 at 50 digits.
    #[test]
    fn of_few_logits() {
        for (logits, want) in [
            (&[0.0f32, 0.0, 0.0, 0.0][..], 1.386_294_361_119_890_6),
            (&[3.0, 1.0, -2.0], 0.399_343_294_807_108_7),
            (&[60.0, 0.0], 5.341_471_565_244_877e-25),
        ] {
            assert!((f64::from(entropy(logits)) / want - 1.0).abs() < 1e-6, "{logits:?}");
        }
    }
}
