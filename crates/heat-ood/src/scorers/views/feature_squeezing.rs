//! Feature squeezing (`feature_squeezing`): max over squeezed views of ‖p − q‖, p the softmax of the
//! logits of the image and q that of the view. What a network makes of an ordinary image hardly
//! changes if its colours are rounded or its pixels smoothed.
//!
//! The views are parts of a set: `bits5` (each value rounded to 2⁵ − 1 steps) and `median2` (the
//! median of 2 × 2 pixels), as the authors use them for ImageNet without their non-local means.
//! Nothing is fitted, so the training set needs no views; cost per row O(D·C) a view, and a pass of
//! the network for each.
//!
//! Reference: Xu, Evans, Qi, *Feature Squeezing: Detecting Adversarial Examples in Deep Neural
//! Networks*, NDSS 2018.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Part, View};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::input::contradiction;
use crate::scorers::logit_source::{LogitSource, logits_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

logits_settings! {
    /// Settings of `feature_squeezing`.
    FeatureSqueezingConfig;
    /// Bits of each value in the view `bitsN`; 0: without that view.
    bits: u32 = 5,
    /// Pixels a side of which the view `medianN` has the median; 0: without that view.
    median: u32 = 2,
    /// Order of the norm of the difference, 1 or more.
    dist_norm: f64 = 1.0,
}

offer! { FeatureSqueezingConfig => FeatureSqueezing }

/// A fitted `feature_squeezing` scorer.
pub struct FeatureSqueezing {
    source: LogitSource,
    bits: u32,
    median: u32,
    dist_norm: f64,
    views: Vec<Part>,
}

impl FeatureSqueezing {
    fn new(source: LogitSource, bits: u32, median: u32, dist_norm: f64) -> Result<Self> {
        if !(1.0..f64::INFINITY).contains(&dist_norm) {
            let problem = "the order of a norm is 1 or more";
            return Err(Error::config("dist_norm", dist_norm, problem));
        }
        let mut views = Vec::new();
        for (key, n, range) in [("bits", bits, "1 to 8"), ("median", median, "2 to 15")] {
            if n > 0 {
                let problem = || Error::config(key, n, format!("expected {range}, or 0 for none"));
                views.push(View::known(&format!("{key}{n}")).ok_or_else(problem)?.part()?);
            }
        }
        if views.is_empty() {
            let problem = "with median=0 too there is nothing to compare with";
            return Err(Error::config("bits", 0, problem));
        }
        Ok(FeatureSqueezing { source, bits, median, dist_norm, views })
    }
}

impl Method for FeatureSqueezingConfig {
    const NAME: &'static str = "feature_squeezing";
    type Scorer = FeatureSqueezing;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<FeatureSqueezing> {
        let source = context.logit_source("feature_squeezing", self.into())?;
        let scorer = FeatureSqueezing::new(source, self.bits, self.median, self.dist_norm)?;
        for field in scorer.needs_of_training(context.train)?.fields() {
            context.reads(field);
        }
        Ok(scorer)
    }

    fn load(stored: &Stored<'_>) -> Result<FeatureSqueezing> {
        #[derive(Deserialize)]
        struct Config {
            bits: u32,
            median: u32,
            dist_norm: f64,
        }
        let Config { bits, median, dist_norm } = stored.config()?;
        let source = LogitSource::load(stored)?;
        FeatureSqueezing::new(source, bits, median, dist_norm).map_err(|_| contradiction(stored))
    }
}

/// Softmax of every row of logits, in f64.
fn softmax(logits: &[f32], classes: usize) -> Vec<f64> {
    let rows = logits.chunks_exact(classes);
    rows.flat_map(|row| {
        let total = reduce::logsumexp(row.iter().map(|v| f64::from(*v)));
        row.iter().map(move |v| (f64::from(*v) - total).exp())
    })
    .collect()
}

fn distance(p: &[f64], q: &[f64], norm: f64) -> f64 {
    let apart = p.iter().zip(q).map(|(p, q)| (p - q).abs());
    if norm == 1.0 {
        apart.sum()
    } else {
        apart.map(|v| v.powf(norm)).sum::<f64>().powf(1.0 / norm)
    }
}

impl Scorer for FeatureSqueezing {
    fn name(&self) -> &'static str {
        "feature_squeezing"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        let own = self.source.needs(set)?;
        self.views.iter().try_fold(own, |needs, view| {
            let squeezed = set.part(*view).map_err(|_| {
                let names: Vec<&str> = self.views.iter().map(|view| view.name()).collect();
                let remedy = format!("`heat extract --views {}` makes it", names.join(","));
                Error::missing(set.name(), format!("view `{}`", view.name()), remedy)
            })?;
            Ok(needs.and(self.source.needs(&squeezed)?.within(*view)))
        })
    }

    fn needs_of_training(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.needs(set).or_else(|_| self.source.needs(set))
    }

    fn parts(&self) -> Vec<Part> {
        self.views.clone()
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let classes = self.source.classes();
        let p = softmax(&self.source.logits(batch), classes);
        out.fill(0.0);
        for view in &self.views {
            let q = softmax(&self.source.logits(&batch.part(*view)), classes);
            let rows = p.chunks_exact(classes).zip(q.chunks_exact(classes));
            for (o, (p, q)) in out.iter_mut().zip(rows) {
                *o = o.max(distance(p, q, self.dist_norm) as f32);
            }
        }
    }

    fn section(&self) -> Section {
        let mut section = self.source.section("feature_squeezing");
        section.config["bits"] = self.bits.into();
        section.config["median"] = self.median.into();
        section.config["dist_norm"] = self.dist_norm.into();
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// p = (3/4, 1/4), q = (1/4, 3/4): 1/2 apart in each.
    #[test]
    fn by_hand() {
        let p = softmax(&[3f32.ln(), 0.0], 2);
        let q = softmax(&[0.0, 3f32.ln()], 2);
        for (norm, want) in [(1.0, 1.0), (2.0, 0.5f64.sqrt()), (3.0, 0.25f64.cbrt())] {
            assert!((distance(&p, &q, norm) - want).abs() < 1e-7, "{norm}");
        }
    }
}
