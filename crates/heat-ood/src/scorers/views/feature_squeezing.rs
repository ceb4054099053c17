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
    views: Vec<(View, Part)>,
    dist_norm: f64,
}

/// The views of those settings, at least one.
fn views(bits: u32, median: u32) -> Result<Vec<(View, Part)>> {
    let known = |key: &str, n: u32| {
        let view = View::known(&format!("{key}{n}")).ok_or_else(|| {
            let range = if key == "bits" { "1 to 8" } else { "2 to 15" };
            Error::config(key, n, format!("expected {range}, or 0 for none"))
        });
        view.and_then(|view| Ok((view, view.part()?)))
    };
    let asked = [("bits", bits), ("median", median)].into_iter().filter(|(_, n)| *n > 0);
    let views = asked.map(|(key, n)| known(key, n)).collect::<Result<Vec<_>>>()?;
    if views.is_empty() {
        return Err(Error::config("bits", 0, "with median=0 too there is nothing to compare with"));
    }
    Ok(views)
}

impl Method for FeatureSqueezingConfig {
    const NAME: &'static str = "feature_squeezing";
    type Scorer = FeatureSqueezing;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<FeatureSqueezing> {
        let views = views(self.bits, self.median)?;
        if !(1.0..f64::INFINITY).contains(&self.dist_norm) {
            let problem = "the order of a norm is 1 or more";
            return Err(Error::config("dist_norm", self.dist_norm, problem));
        }
        let source = context.logit_source("feature_squeezing", self.into())?;
        let scorer = FeatureSqueezing { source, views, dist_norm: self.dist_norm };
        for field in scorer.needs_of_training(context.train)?.stored().fields() {
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
        let views = views(bits, median).map_err(|_| contradiction(stored))?;
        if !(1.0..f64::INFINITY).contains(&dist_norm) {
            return Err(contradiction(stored));
        }
        Ok(FeatureSqueezing { source: LogitSource::load(stored)?, views, dist_norm })
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
        self.views.iter().try_fold(own, |needs, (view, part)| {
            let squeezed = set.part(*part).map_err(|_| {
                let names: Vec<String> = self.views.iter().map(|(v, _)| v.to_string()).collect();
                let remedy = format!("`heat extract --views {}` makes it", names.join(","));
                Error::missing(set.name(), format!("view `{view}`"), remedy)
            })?;
            Ok(needs.and(self.source.needs(&squeezed)?.within(*part)))
        })
    }

    fn needs_of_training(&self, set: &FeatureSet) -> Result<FieldSet> {
        let views = self.views.iter().filter_map(|(_, part)| Some((part, set.part(*part).ok()?)));
        views.fold(self.source.needs(set), |needs, (part, squeezed)| {
            Ok(needs?.and(self.source.needs(&squeezed)?.within(*part)))
        })
    }

    fn parts(&self) -> Vec<Part> {
        self.views.iter().map(|(_, part)| *part).collect()
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let classes = self.source.classes();
        let p = softmax(&self.source.logits(batch), classes);
        out.fill(0.0);
        for (_, part) in &self.views {
            let q = softmax(&self.source.logits(&batch.part(*part)), classes);
            let rows = p.chunks_exact(classes).zip(q.chunks_exact(classes));
            for (o, (p, q)) in out.iter_mut().zip(rows) {
                *o = o.max(distance(p, q, self.dist_norm) as f32);
            }
        }
    }

    fn section(&self) -> Section {
        let mut section = self.source.section("feature_squeezing");
        let asked = |view: fn(&View) -> Option<u32>| {
            self.views.iter().find_map(|(v, _)| view(v)).unwrap_or(0)
        };
        section.config["bits"] =
            asked(|v| if let View::Bits(n) = v { Some(*n) } else { None }).into();
        section.config["median"] =
            asked(|v| if let View::Median(n) = v { Some(*n) } else { None }).into();
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
