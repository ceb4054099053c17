//! Generalised entropy (`gen`): Σ p^γ (1 − p)^γ over the M largest
//! probabilities, in f64.
//!
//! Nothing is fitted; cost per row O(D·C). Implementations that average in
//! place of summing, or hold probabilities above 10⁻⁷, rank otherwise only
//! where probabilities are that small.
//!
//! Reference: Liu et al., *GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection*, CVPR 2023.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::input::contradiction;
use crate::scorers::logit_source::{LogitSource, logits_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

logits_settings! {
    /// Settings of `gen`.
    GenConfig;
    /// γ.
    gamma: f64 = 0.1,
    /// M; where there are fewer classes, all count.
    m: usize = 100,
}

offer! { GenConfig => Gen }

/// A fitted `gen` scorer.
pub struct Gen {
    source: LogitSource,
    gamma: f64,
    m: usize,
}

impl Method for GenConfig {
    const NAME: &'static str = "gen";
    type Scorer = Gen;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Gen> {
        if !(self.gamma.is_finite() && self.gamma > 0.0) {
            return Err(Error::config("gamma", self.gamma, "must be a positive number, e.g. 0.1"));
        }
        if self.m == 0 {
            return Err(Error::config("m", 0, "must be at least 1: so many probabilities count"));
        }
        let source = context.logit_source("gen", self.into())?;
        Ok(Gen { source, gamma: self.gamma, m: self.m })
    }

    fn load(stored: &Stored<'_>) -> Result<Gen> {
        #[derive(Deserialize)]
        struct Config {
            gamma: f64,
            m: usize,
        }
        let Config { gamma, m } = stored.config()?;
        if m == 0 {
            return Err(contradiction(stored));
        }
        Ok(Gen { source: LogitSource::load(stored)?, gamma, m })
    }
}

impl Gen {
    fn entropy(&self, logits: &mut [f32], scratch: &mut [Vec<f64>; 2]) -> f32 {
        let top = reduce::argmax(logits) as usize;
        logits.swap(0, top);
        let largest = f64::from(logits[0]);
        if self.m < logits.len() {
            logits[1..].select_nth_unstable_by(self.m - 1, |a, b| b.total_cmp(a));
        }
        let [ratios, powers] = scratch;
        ratios.clear();
        ratios.extend(logits[1..].iter().map(|&l| f64::from(l) - largest));
        powers.clone_from(ratios);
        reduce::exp_of_negatives(ratios);
        let others: f64 = ratios.iter().sum();
        // Of the largest, 1 − p is the sum of the others.
        let log_sum = others.ln_1p();
        powers.truncate(self.m - 1);
        powers.iter_mut().for_each(|v| *v = (*v - log_sum) * self.gamma);
        reduce::exp_of_negatives(powers);
        let rest = |ratio: &f64| power_of_rest(ratio / (1.0 + others), self.gamma);
        let first = ((others.ln() - 2.0 * log_sum) * self.gamma).exp();
        (first + powers.iter().zip(&*ratios).map(|(p, ratio)| p * rest(ratio)).sum::<f64>()) as f32
    }
}

/// (1 − p)^γ: below 10⁻⁵ from its series, whose next term is below 10⁻¹⁵.
fn power_of_rest(p: f64, gamma: f64) -> f64 {
    if p < 1e-5 && gamma < 10.0 {
        1.0 - gamma * p * (1.0 - 0.5 * (gamma - 1.0) * p)
    } else {
        ((-p).ln_1p() * gamma).exp()
    }
}

impl Scorer for Gen {
    fn name(&self) -> &'static str {
        "gen"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.source.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let mut logits = self.source.logits(batch);
        let mut scratch = Default::default();
        let rows = logits.chunks_exact_mut(self.source.classes());
        out.iter_mut().zip(rows).for_each(|(o, row)| *o = self.entropy(row, &mut scratch));
    }

    fn section(&self) -> Section {
        let mut section = self.source.section("gen");
        section.config["gamma"] = self.gamma.into();
        section.config["m"] = self.m.into();
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Head;
    use crate::observe::Silent;
    use crate::scorers::{Fit, TrainingData};

    /// mpmath 1.3 at 60 digits.
    #[test]
    fn of_few_logits() {
        let logits = FeatureSet::from_arrays(ndarray::aview2(&[[1.0f32]]), None).unwrap();
        let head = Head::new(vec![1.0, -1.0], vec![0.0, 0.0]).unwrap();
        for (row, gamma, m, want) in [
            (&[60.0f32, 0.0][..], 0.1, 100, 0.004_957_504_353_332_717),
            (&[0.5, 3.0, -2.0, 1.0], 0.3, 2, 1.064_204_640_474_4),
        ] {
            let config = GenConfig { gamma, m, ..GenConfig::default() };
            let gen_entropy =
                config.fit(&TrainingData::new(&logits).with_head(&head), &mut Silent).unwrap();
            let got = f64::from(gen_entropy.entropy(&mut row.to_vec(), &mut Default::default()));
            assert!((got / want - 1.0).abs() < 1e-6, "{row:?}: {got}");
        }
    }
}
