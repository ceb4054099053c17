//! Densities of perturbed class projections (`weiper`, WeiPer+KLD):
//! KLD(z) + λ₁·KLD(W̃z + b) − λ₂·MSP(W̃z + b).
//!
//! W̃ are `repeats` copies of the head's weight, to each row w of which noise of
//! length δ‖w‖ in a random direction is added; it is drawn with `seed`. KLD
//! compares the histogram q of a row's values (`bins` between the extremes of
//! all training values; what lies outside is left out) with p, the mean
//! histogram of the training rows: q is smoothed by a moving average (and p is
//! not, as in the published code), ε added to both (0.01; 0.025 for the
//! projections), both divided by their sums, and Σ (p−q)(log p − log q) is the
//! symmetric divergence. MSP is the mean over the copies of the largest
//! probability. The default settings were chosen for ResNets; the divergences
//! of other networks' features may need others.
//!
//! Two passes over the training set (extremes, then histograms), each
//! O(N·r·C·D); cost per row O(r·C·D), r = `repeats`. Memory 4·r·C·D bytes.
//!
//! Reference: Granz et al., *WeiPer: OOD Detection using Weight Perturbations
//! of Class Projections*, NeurIPS 2024; settings by its code's table.

mod density;
mod projection;

use std::sync::Arc;

use serde_json::json;

use density::{Density, EMPTY, Histogram, Range, widen};
use projection::Projection;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::io::Tensor;
use crate::math::parallel::{Pieces, Slices};
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::{
    Input, by_classes, contradiction, feature_settings, load_head, require_head,
};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `weiper`. Where three defaults are given, they go with
    /// fewer than 100 classes, fewer than 1000, and more.
    WeiperConfig, normalize = false;
    /// Perturbed copies r of the head.
    repeats: usize = 100,
    /// Length δ of the noise relative to the weight's; by default 1.8, 2.4 or 2.4.
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f64> = None,
    /// Bins of a histogram.
    bins: usize = 100,
    /// λ₁, the weight of the projections' divergence; by default 2.5, 0.1 or 2.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    lambda1: Option<f64> = None,
    /// λ₂, the weight of their MSP; by default 0.1, 1 or 0.25.
    #[serde(skip_serializing_if = "Option::is_none")]
    lambda2: Option<f64> = None,
    /// Bins averaged in the histogram of features; by default 4, 4 or 40.
    #[serde(skip_serializing_if = "Option::is_none")]
    smoothing: Option<usize> = None,
    /// Bins averaged in the histogram of projections; by default 15, 40 or 15.
    #[serde(skip_serializing_if = "Option::is_none")]
    smoothing_perturbed: Option<usize> = None,
    /// Seed of the noise.
    seed: u64 = 0,
}

/// ε of the features' histogram and of the projections'.
const FLOORS: [f64; 2] = [0.01, 0.025];

/// Most numbers in W̃: 1 GiB.
const MOST: usize = 1 << 28;

/// Rows projected at a time.
const ROWS: usize = 256;

/// Extremes of the features and of the projections.
struct Extremes {
    source: Source,
    config: WeiperConfig,
    head: Head,
    /// Made when the first rows come: asking twice for the same extremes is cheap.
    projection: Option<Arc<Projection>>,
    ranges: [Range; 2],
}

impl Statistic for Extremes {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let (rows, dim) = (block.rows(&self.source)?, self.source.dim);
        let make = || Arc::new(Projection::new(&self.head, &self.config));
        let (rows, projection) = (&*rows, &**self.projection.get_or_insert_with(make));
        let extremes = |rows: &[f32]| {
            let [mut of_features, mut of_projections] = [EMPTY; 2];
            widen(&mut of_features, rows);
            projection.each(rows, |projected, _| widen(&mut of_projections, projected));
            [of_features, of_projections]
        };
        for found in rows.par_chunks(ROWS * dim).map(extremes).collect() {
            self.ranges.iter_mut().zip(&found).for_each(|(range, found)| widen(range, found));
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        self.ranges.iter_mut().map(Slot::Range).collect()
    }
}

/// Counts of the training rows' values between the extremes, of features and of projections.
struct Densities {
    source: Source,
    projection: Arc<Projection>,
    histograms: [Histogram; 2],
}

impl Statistic for Densities {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let (rows, dim) = (block.rows(&self.source)?, self.source.dim);
        let (rows, histograms, projection) = (&*rows, &self.histograms, &*self.projection);
        let count = |rows: &[f32]| {
            let mut part = histograms.each_ref().map(Histogram::emptied);
            part[0].count(rows);
            projection.each(rows, |projected, _| part[1].count(projected));
            part
        };
        for part in rows.par_chunks(ROWS * dim).map(count).collect() {
            self.histograms.iter_mut().zip(&part).for_each(|(sum, part)| sum.merge(part));
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        self.histograms.iter_mut().map(|h| Slot::Counts(&mut h.counts)).collect()
    }
}

offer! { WeiperConfig => Weiper }

/// A fitted `weiper` scorer.
pub struct Weiper {
    config: WeiperConfig,
    input: Input,
    head: Head,
    projection: Arc<Projection>,
    /// Of features, and of projections.
    ranges: [Range; 2],
    /// Mean fraction of each bin.
    shares: [Vec<f64>; 2],
    densities: [Density; 2],
}

impl WeiperConfig {
    /// The settings with their defaults filled in.
    fn resolved(&self, classes: usize) -> Self {
        let mut config = self.clone();
        config.distance.get_or_insert(by_classes(classes, [1.8, 2.4, 2.4]));
        config.lambda1.get_or_insert(by_classes(classes, [2.5, 0.1, 2.5]));
        config.lambda2.get_or_insert(by_classes(classes, [0.1, 1.0, 0.25]));
        config.smoothing.get_or_insert(by_classes(classes, [4, 4, 40]));
        config.smoothing_perturbed.get_or_insert(by_classes(classes, [15, 40, 15]));
        config
    }

    /// What the values of resolved settings must hold.
    fn check(&self, classes: usize, dim: usize) -> Result<()> {
        let one = classes.saturating_mul(dim);
        if self.repeats == 0 || self.repeats.saturating_mul(one) > MOST {
            let most = MOST / one;
            let problem =
                format!("between 1 and {most} copies of {classes} classes in {dim} dimensions");
            return Err(Error::config("repeats", self.repeats, problem));
        }
        if !(2..=1 << 16).contains(&self.bins) {
            return Err(Error::config("bins", self.bins, "between 2 and 65536 bins"));
        }
        let numbers =
            [("distance", self.distance), ("lambda1", self.lambda1), ("lambda2", self.lambda2)];
        for (key, value) in numbers {
            let value = value.unwrap_or_default();
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::config(key, value, "must be a number ≥ 0"));
            }
        }
        let widths =
            [("smoothing", self.smoothing), ("smoothing_perturbed", self.smoothing_perturbed)];
        for (key, value) in widths {
            let value = value.unwrap_or_default();
            if !(1..=self.bins).contains(&value) {
                let problem = format!("between 1 and all {} bins are averaged", self.bins);
                return Err(Error::config(key, value, problem));
            }
        }
        Ok(())
    }

    /// Resolved settings, the features and the head for them.
    fn prepare(&self, context: &mut FitContext<'_>) -> Result<(Self, Source, Head)> {
        let head = require_head("weiper", context.head)?;
        let source = context.source(self)?;
        let head = source.head(head)?;
        let config = self.resolved(head.classes());
        config.check(head.classes(), source.dim)?;
        Ok((config, source, head))
    }

    fn request(&self, source: &Source, head: &Head) -> StatisticRequest {
        let statistic = Extremes {
            source: source.clone(),
            config: self.clone(),
            head: head.clone(),
            projection: None,
            ranges: [EMPTY; 2],
        };
        let key =
            format!("weiper {} {:?} {} {}", self.repeats, self.distance, self.seed, source.key);
        StatisticRequest { key, statistic: Box::new(statistic) }
    }
}

impl Method for WeiperConfig {
    const NAME: &'static str = "weiper";
    type Scorer = Weiper;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        let (config, source, head) = self.prepare(context)?;
        Ok(vec![config.request(&source, &head)])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Weiper> {
        let (config, source, head) = self.prepare(context)?;
        let found = context.find::<Extremes>(config.request(&source, &head))?;
        let projection = found.projection.clone();
        let projection = projection.unwrap_or_else(|| Arc::new(Projection::new(&head, &config)));
        if found.ranges.as_flattened().iter().any(|v| !v.is_finite()) {
            let distance = config.distance.unwrap_or_default();
            let problem = "logits of perturbed heads are too large for single precision; \
                           choose a smaller one";
            return Err(Error::config("distance", distance, problem));
        }
        let histograms = found.ranges.map(|range| Histogram::new(range, config.bins));
        let key = format!("{} {}", config.request(&source, &head).key, config.bins);
        let statistic =
            Densities { source: source.clone(), projection: Arc::clone(&projection), histograms };
        let request =
            StatisticRequest { key: format!("densities {key}"), statistic: Box::new(statistic) };
        let sums = context.find::<Densities>(request)?;
        let shares = [0, 1].map(|i| sums.histograms[i].shares());
        Ok(Weiper::new(config, source.input, head, projection, found.ranges, shares))
    }

    fn load(stored: &Stored<'_>) -> Result<Weiper> {
        let (config, input): (WeiperConfig, Input) = Input::load(stored)?;
        let head = load_head(stored.file, &stored.name("head."))?;
        // What a fit would refuse, or leave to a default, was not stored by one.
        let fits = head.dim() == input.dim && config.resolved(0) == config;
        if !fits || config.check(head.classes(), input.dim).is_err() {
            return Err(contradiction(stored));
        }
        let bins = config.bins;
        let r = stored.file.f32(&stored.name("ranges"), &[2, 2])?;
        let shares = stored.file.f64(&stored.name("shares"), &[2, bins])?;
        if shares.iter().any(|s| !(0.0..=1.0).contains(s)) {
            return Err(contradiction(stored));
        }
        let shares = [shares[..bins].to_vec(), shares[bins..].to_vec()];
        let shape = [config.repeats * head.classes(), input.dim];
        let weight = stored.file.f32(&stored.name("perturbed"), &shape)?;
        let projection = Arc::new(Projection::of(&head, &weight));
        Ok(Weiper::new(config, input, head, projection, [[r[0], r[1]], [r[2], r[3]]], shares))
    }
}

impl Weiper {
    fn new(
        config: WeiperConfig,
        input: Input,
        head: Head,
        projection: Arc<Projection>,
        ranges: [Range; 2],
        shares: [Vec<f64>; 2],
    ) -> Self {
        let widths = [config.smoothing, config.smoothing_perturbed].map(|s| s.unwrap_or(1));
        let density = |i: usize| Density::new(&shares[i], FLOORS[i], widths[i]);
        let densities = [density(0), density(1)];
        Weiper { config, input, head, projection, ranges, shares, densities }
    }

    fn score_rows(&self, rows: &[f32], out: &mut [f32]) {
        let [lambda1, lambda2] =
            [self.config.lambda1, self.config.lambda2].map(Option::unwrap_or_default);
        let [of_features, of_projections] =
            self.ranges.map(|range| Histogram::new(range, self.config.bins));
        let mut found = vec![(of_projections, 0.0); out.len()];
        self.projection.each(rows, |projected, width| {
            for ((histogram, sum), row) in found.iter_mut().zip(projected.chunks_exact(width)) {
                histogram.count(row);
                self.projection.add_confidence(row, sum);
            }
        });
        let [features, projections] = &self.densities;
        let (columns, copies) = (self.projection.columns(), self.projection.copies() as f64);
        let mut scratch = Vec::new();
        let rows = rows.chunks_exact(self.input.dim).zip(&found);
        for (o, (row, (projected, sum))) in out.iter_mut().zip(rows) {
            let mut own = of_features.clone();
            own.count(row);
            let own = features.divergence(&own.counts, row.len(), &mut scratch);
            let other = projections.divergence(&projected.counts, columns, &mut scratch);
            *o = (own + lambda1 * other - lambda2 * (sum / copies)) as f32;
        }
    }
}

impl Scorer for Weiper {
    fn name(&self) -> &'static str {
        "weiper"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let rows = self.input.stepped(batch);
        for (rows, out) in rows.chunks(ROWS * self.input.dim).zip(out.chunks_mut(ROWS)) {
            self.score_rows(rows, out);
        }
    }

    fn section(&self) -> Section {
        let config = json!({ "settings": self.config, "input_dim": self.input.input_dim });
        let shape = [self.projection.columns(), self.input.dim];
        let tensors = vec![
            ("perturbed".into(), Tensor::f32(shape, self.projection.weight())),
            ("ranges".into(), Tensor::f32([2, 2], self.ranges.as_flattened().to_vec())),
            ("shares".into(), Tensor::f64([2, self.config.bins], self.shares.concat())),
        ];
        Section::new("weiper", config)
            .with("", tensors)
            .with("head.", self.head.tensors())
            .with("", self.input.tensors())
    }
}
