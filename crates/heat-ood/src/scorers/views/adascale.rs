//! Adaptive scaling (`adascale_a`, `adascale_l`): `scale`, or the scaling of logits, by a percentile of
//! each row's own. What the network makes of an ordinary image hardly changes if the image is moved a
//! little where it matters least; how much it changes says how much of the row counts.
//!
//! Of a row z and that of the moved image z′ (view `nudgedN`: the fraction `o` of the values of the
//! image with the smallest gradient of the largest logit is moved by ½·sign of it):
//!
//! - Q = Σ max(z′, 0) over the k₁ largest of z + λ·Σ |z − z′| over its k₂ largest;
//! - p = `max_percentile` − F(Q)·(`max_percentile` − `min_percentile`), F the fraction of the training
//!   rows with no larger Q;
//! - r = S/S_k, S the sum of max(z, 0), S_k that of the k = D − round(D·p/100) largest;
//! - −logsumexp of W·z·eʳ + b (`adascale_a`: activations), or of (Wz + b)·r² (`adascale_l`: logits).
//!
//! k₁ and k₂ are percentages of the D columns, rounded down, at least one. A row without a positive
//! value has r = 1. Fitted is F, on training rows that have the view; cost per row O(D·C), and for an
//! image the network's gradient and a further pass.
//!
//! *Differences from the authors' code*: F is of all training rows, of more than `num_samples` as many
//! evenly spaced quantiles; there of so many validation rows drawn at random.
//!
//! Reference: Regmi, *AdaSCALE: Adaptive Scaling for OOD Detection*, 2025, and its code in OpenOOD.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, Part, View};
use crate::io::Tensor;
use crate::math::parallel::{self, Pieces, SlicesMut};
use crate::math::reduce;
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::head::shaping::Top;
use crate::scorers::head::with_head::WithHead;
use crate::scorers::input::{Input, contradiction, feature_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `adascale_a` and `adascale_l`.
    AdaScaleConfig, normalize = false;
    /// Percentile of the activations that do not count, of the rows that change most.
    min_percentile: f64 = 75.0,
    /// The same of the rows that change least.
    max_percentile: f64 = 85.0,
    /// Percentage of the columns that count in the moved row.
    k1: f64 = 5.0,
    /// Percentage of the columns whose change counts.
    k2: f64 = 1.0,
    /// λ.
    lmbda: f64 = 10.0,
    /// Fraction of the values of an image that are moved, in hundredths: the view `nudgedN`.
    o: f64 = 0.05,
    /// Quantiles of Q that are kept, at most.
    num_samples: usize = 5000,
}

offer! { AdaScaleAConfig => AdaScale, AdaScaleLConfig => AdaScale }

/// What of a row is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scaled {
    Activations,
    Logits,
}

impl Scaled {
    fn name(self) -> &'static str {
        match self {
            Scaled::Activations => "adascale_a",
            Scaled::Logits => "adascale_l",
        }
    }
}

/// The two methods, which differ in what is scaled alone.
macro_rules! scaled {
    ($($config:ident, $scaled:ident, $name:literal;)*) => {$(
        #[doc = concat!("Settings of `", $name, "`.")]
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $config(pub AdaScaleConfig);

        impl Method for $config {
            const NAME: &'static str = $name;
            type Scorer = AdaScale;

            fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
                Ok(vec![Changes::request(&self.0, context)?])
            }

            fn fit_in(&self, context: &mut FitContext<'_>) -> Result<AdaScale> {
                AdaScale::fit(Scaled::$scaled, &self.0, context)
            }

            fn load(stored: &Stored<'_>) -> Result<AdaScale> {
                AdaScale::load(Scaled::$scaled, stored)
            }
        }
    )*};
}

scaled! {
    AdaScaleAConfig, Activations, "adascale_a";
    AdaScaleLConfig, Logits, "adascale_l";
}

impl AdaScaleConfig {
    /// The view that is compared with the image.
    fn view(&self) -> Result<Part> {
        let percent = self.o * 100.0;
        let view = View::known(&format!("nudged{}", percent.round()));
        match view.filter(|_| (percent - percent.round()).abs() < 1e-6) {
            Some(view) => view.part(),
            None => {
                let problem = "a fraction of the image in hundredths, from 0.01 to 1";
                Err(Error::config("o", self.o, problem))
            }
        }
    }

    fn check_ranges(&self) -> Result<()> {
        let ends =
            [("min_percentile", self.min_percentile), ("max_percentile", self.max_percentile)];
        for (key, value) in ends {
            if !(value > 0.0 && value < 100.0) {
                return Err(Error::config(key, value, "a percentile lies between 0 and 100"));
            }
        }
        if self.min_percentile > self.max_percentile {
            let problem = format!("larger than max_percentile, {}", self.max_percentile);
            return Err(Error::config("min_percentile", self.min_percentile, problem));
        }
        for (key, value) in [("k1", self.k1), ("k2", self.k2)] {
            if !(value > 0.0 && value <= 100.0) {
                return Err(Error::config(key, value, "a percentage of the columns, above 0"));
            }
        }
        if !(self.lmbda.is_finite() && self.lmbda >= 0.0) {
            return Err(Error::config("lmbda", self.lmbda, "a weight is 0 or more"));
        }
        if self.num_samples == 0 {
            return Err(Error::config("num_samples", 0, "at least one row"));
        }
        self.view().map(drop)
    }

    /// Columns that these percentages are.
    fn largest(&self, dim: usize) -> [usize; 2] {
        [self.k1, self.k2].map(|k| ((dim as f64 * k / 100.0) as usize).clamp(1, dim))
    }

    /// Q of a row.
    fn change(&self, row: &[f32], moved: &[f32], keys: &mut Vec<u32>) -> f32 {
        let [counted, compared] = self.largest(row.len());
        let top = Top::of(row, counted, keys);
        let kept: f64 = top.places(row).map(|i| f64::from(moved[i].max(0.0))).sum();
        let top = Top::of(row, compared, keys);
        let apart: f64 = top.places(row).map(|i| f64::from((row[i] - moved[i]).abs())).sum();
        reduce::finite(kept + self.lmbda * apart)
    }
}

/// The field of the view's features.
fn of_view(input: &Input, view: Part) -> Field {
    input.field().within(view)
}

/// Of `set`, which must have the view in as many columns as the image's features.
fn needs(input: &Input, view: Part, set: &FeatureSet) -> Result<FieldSet> {
    let own = input.needs(set)?;
    let field = of_view(input, view);
    if set.dim(field).is_none() {
        let remedy = format!("`heat extract --views {}` makes it", view.name());
        return Err(Error::missing(set.name(), format!("view `{}`", view.name()), remedy));
    }
    Ok(own.and(FieldSet::checked(set, field, input.input_dim)?))
}

/// Stepped rows of the view.
fn moved_rows(input: &Input, view: Part, batch: &Batch) -> Vec<f32> {
    input.steps.apply(batch.get(of_view(input, view)), input.input_dim)
}

/// Q of every training row.
struct Changes {
    source: Source,
    config: AdaScaleConfig,
    view: Part,
    found: Arc<Vec<f32>>,
}

impl Changes {
    fn request(config: &AdaScaleConfig, context: &mut FitContext<'_>) -> Result<StatisticRequest> {
        config.check_ranges()?;
        let (source, view) = (context.source(config)?, config.view()?);
        for field in needs(&source, view, context.train)?.fields() {
            context.reads(field);
        }
        let AdaScaleConfig { k1, k2, lmbda, .. } = config;
        let key = format!("changes {} {k1} {k2} {lmbda} {}", view.name(), source.key);
        let (config, found) = (config.clone(), Arc::default());
        Ok(StatisticRequest { key, statistic: Box::new(Changes { source, config, view, found }) })
    }
}

impl Statistic for Changes {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        const ROWS: usize = 256;
        let (input, view, config) = (&*self.source, self.view, &self.config);
        let (train, first) = (block.train, block.range.start);
        let needs = needs(input, view, train)?;
        let mut found = vec![0.0; block.range.len()];
        parallel::run_all(found.par_chunks_mut(ROWS).enumerate().map(|(i, found)| {
            let start = first + i * ROWS;
            let mut batch = Batch::default();
            train.batch(&needs, start..start + found.len(), &mut batch)?;
            let (rows, moved) = (input.stepped(&batch), moved_rows(input, view, &batch));
            let rows = rows.chunks_exact(input.dim).zip(moved.chunks_exact(input.dim));
            let mut keys = Vec::with_capacity(input.dim);
            for (found, (row, moved)) in found.iter_mut().zip(rows) {
                *found = config.change(row, moved, &mut keys);
            }
            Ok(())
        }))?;
        Arc::make_mut(&mut self.found).extend(found);
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Rows(1, &mut self.found)]
    }
}

/// At most so many of some numbers, ascending and evenly spaced.
fn quantiles(values: &[f32], most: usize) -> Vec<f32> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    if sorted.len() <= most {
        return sorted;
    }
    let step = sorted.len() as f64 / most as f64;
    (0..most).map(|i| sorted[((i as f64 + 0.5) * step) as usize]).collect()
}

/// A fitted `adascale_a` or `adascale_l` scorer.
pub struct AdaScale {
    scaled: Scaled,
    config: AdaScaleConfig,
    view: Part,
    input: WithHead,
    /// Q of training rows, ascending.
    changes: Vec<f32>,
}

impl AdaScale {
    fn fit(scaled: Scaled, config: &AdaScaleConfig, context: &mut FitContext<'_>) -> Result<Self> {
        config.check_ranges()?;
        let input = WithHead::fit(scaled.name(), config, context)?;
        let request = Changes::request(config, context)?;
        let found = context.find::<Changes>(request)?;
        let changes = quantiles(&found.found, config.num_samples);
        Ok(AdaScale { scaled, config: config.clone(), view: config.view()?, input, changes })
    }

    fn load(scaled: Scaled, stored: &Stored<'_>) -> Result<Self> {
        let (config, input): (AdaScaleConfig, _) = WithHead::load(stored)?;
        config.check_ranges().map_err(|_| contradiction(stored))?;
        let name = stored.name("changes");
        let shape = stored.file.shape(&name)?.to_vec();
        let changes = stored.file.f32(&name, &shape)?;
        if changes.is_empty() || !changes.is_sorted() {
            return Err(contradiction(stored));
        }
        Ok(AdaScale { scaled, view: config.view()?, config, input, changes })
    }

    /// r of a row.
    fn factor(&self, row: &[f32], moved: &[f32], keys: &mut Vec<u32>) -> f64 {
        let change = self.config.change(row, moved, keys);
        let below = self.changes.partition_point(|c| *c <= change);
        let changed = 1.0 - below as f64 / self.changes.len() as f64;
        let (low, high) = (self.config.min_percentile, self.config.max_percentile);
        let percentile = low + changed * (high - low);
        let dim = row.len();
        let kept = dim - (dim as f64 * percentile / 100.0).round_ties_even() as usize;
        let positive = |v: f64| v.max(0.0);
        let sum = Top::of(row, kept.max(1), keys).sum(row, positive);
        if sum > 0.0 { reduce::sum_of(row, positive) / sum } else { 1.0 }
    }
}

impl Scorer for AdaScale {
    fn name(&self) -> &'static str {
        self.scaled.name()
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        needs(&self.input.input, self.view, set)
    }

    fn parts(&self) -> Vec<Part> {
        vec![self.view]
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let (input, head) = (&self.input.input, &self.input.head);
        let (rows, moved) = (input.stepped(batch), moved_rows(input, self.view, batch));
        let logits = self.input.logits(&rows);
        let mut keys = Vec::with_capacity(input.dim);
        let rows = rows.chunks_exact(input.dim).zip(moved.chunks_exact(input.dim));
        for ((o, (row, moved)), logits) in
            out.iter_mut().zip(rows).zip(logits.chunks_exact(head.classes()))
        {
            let r = self.factor(row, moved, &mut keys);
            // Beyond the exponent's range all but the largest logit is lost, and no score.
            let power = r.exp().min(1e150);
            let pairs = logits.iter().zip(head.bias());
            let scaled = pairs.map(|(&l, &b)| {
                let (l, b) = (f64::from(l), f64::from(b));
                match self.scaled {
                    Scaled::Activations => power * (l - b) + b,
                    Scaled::Logits => r * r * l,
                }
            });
            *o = reduce::finite(-reduce::logsumexp(scaled));
        }
    }

    fn section(&self) -> Section {
        let changes = Tensor::f32([self.changes.len()], self.changes.clone());
        let section = self.input.section(self.name(), &self.config);
        section.with("", vec![("changes".to_owned(), changes)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of ten columns k₁ = 20 % counts two (4 and 3), k₂ = 10 % compares one (4).
    #[test]
    fn change_by_hand() {
        let config = AdaScaleConfig { k1: 20.0, k2: 10.0, ..AdaScaleConfig::default() };
        let row = [0.0, 4.0, 1.0, 0.5, 3.0, 0.0, 0.0, 2.0, 0.0, 0.0];
        let mut moved = row;
        moved[1] = 4.5;
        moved[4] = -1.0;
        moved[7] = 9.0;
        assert_eq!(config.change(&row, &moved, &mut Vec::new()), 4.5 + 0.0 + 10.0 * 0.5);
        assert_eq!(AdaScaleConfig::default().largest(342), [17, 3]);
        assert_eq!(AdaScaleConfig::default().largest(10), [1, 1]);
    }

    #[test]
    fn quantiles_are_evenly_spaced() {
        let values = [3.0, 1.0, 2.0, 0.0];
        assert_eq!(quantiles(&values, 4), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(quantiles(&values, 9), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(quantiles(&values, 2), [1.0, 3.0]);
    }

    #[test]
    fn views_are_hundredths() {
        let of = |o| AdaScaleConfig { o, ..AdaScaleConfig::default() }.view();
        assert_eq!(of(0.05).unwrap().name(), "nudged5");
        assert_eq!(of(0.07).unwrap().name(), "nudged7");
        assert_eq!(of(1.0).unwrap().name(), "nudged100");
        for o in [0.0, 0.005, 0.055, 1.01, -0.05, f64::NAN] {
            assert!(of(o).is_err(), "{o}");
        }
    }
}
