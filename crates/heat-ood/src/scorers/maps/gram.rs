//! Deviations of Gram matrices (`gram`): Σ_l δ_l/E_l over the layers whose `gram` a set has, the last one's
//! and further ones'.
//!
//! δ = Σ_{p,i} [max(0, m − g)/|m + 10⁻⁶| + max(0, g − M)/|M + 10⁻⁶|] ÷ max softmax(logits), g the p-th root of
//! the sum of row i of Fᵖ(Fᵖ)ᵀ, F `[channels, cells]` the layer's map; m and M the least and the greatest g of
//! the training rows that are predicted as the row's class; E_l the mean δ_l of those of each class (every
//! tenth, `validation`) that took no part in m and M. A class that is never predicted has m and M of all rows.
//! One pass, and the rows held out once more; O(powers · channels) of memory for a class, of time for a row.
//!
//! *Differences from the authors*: their E_l is of a tenth of the ID *test* rows. pytorch-ood and OpenOOD have
//! the classes of labels, not of predictions; pytorch-ood leaves out the division by the confidence
//! (`confidence=false`) and has as many powers as layers; OpenOOD's E_l is without it. oodeel and scio have
//! quantiles for m and M.
//!
//! Reference: Sastry & Oore, *Detecting Out-of-Distribution Examples with Gram Matrices*, ICML 2020.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, GRAM_POWERS, Part, signed_square};
use crate::io::Tensor;
use crate::math::{blocks, reduce};
use crate::observe::Event;
use crate::scorers::context::FitContext;
use crate::scorers::input::contradiction;
use crate::scorers::logit_source::LogitSource;
use crate::scorers::method::{Method, offer};
use crate::scorers::{LogitsConfig, Scorer, Section, Stored};

/// Settings of `gram`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GramConfig {
    /// Powers of the map, from 1; at most 10.
    pub powers: usize,
    /// Fraction of each class's rows that the mean deviations are of.
    pub validation: f64,
    /// Divide by the largest probability.
    pub confidence: bool,
}

impl Default for GramConfig {
    fn default() -> Self {
        GramConfig { powers: GRAM_POWERS, validation: 0.1, confidence: true }
    }
}

offer! { GramConfig => Gram }

/// A fitted `gram` scorer.
pub struct Gram {
    config: GramConfig,
    source: Arc<LogitSource>,
    layers: Vec<Layer>,
}

/// What a layer's values are compared with.
struct Layer {
    field: Field,
    /// Columns of the field.
    dim: usize,
    /// m, `[C, powers · channels]`, as it is kept.
    least: Vec<f32>,
    /// M.
    greatest: Vec<f32>,
    /// E.
    mean: f64,
}

/// The most values that m, or M, of a layer has.
const MOST: usize = 1 << 28;

impl GramConfig {
    /// The columns of a field of `dim` that are read.
    fn columns(&self, dim: usize) -> usize {
        dim / GRAM_POWERS * self.powers
    }

    fn check_ranges(&self) -> Result<()> {
        if !(1..=GRAM_POWERS).contains(&self.powers) {
            let problem = format!("a number from 1 to {GRAM_POWERS}, which are kept of each map");
            return Err(Error::config("powers", self.powers, problem));
        }
        if !(0.0..1.0).contains(&self.validation) {
            let problem = "a fraction of the rows, below 1";
            return Err(Error::config("validation", self.validation, problem));
        }
        Ok(())
    }

    /// Whether row `i` of those of its class is held out: `validation` of them, evenly.
    fn holds_out(&self, i: u64) -> bool {
        let before = (i as f64 * self.validation).floor();
        ((i + 1) as f64 * self.validation).floor() > before
    }
}

/// A row that is held out.
struct HeldOut {
    row: u32,
    class: u32,
    confidence: f64,
}

/// The predicted class, and its probability.
fn predicted(logits: &[f32]) -> (usize, f64) {
    let class = reduce::argmax(logits) as usize;
    let total = reduce::logsumexp(logits.iter().map(|v| f64::from(*v)));
    (class, (f64::from(logits[class]) - total).exp())
}

/// δ, before it is divided.
fn deviation(row: &[f32], least: &[f32], greatest: &[f32]) -> f64 {
    let beyond = |value: f32, bound: f32| {
        let bound = signed_square(bound);
        (signed_square(value) - bound).abs() / (bound + 1e-6).abs()
    };
    let one = |((v, low), high): ((&f32, &f32), &f32)| match () {
        _ if v < low => beyond(*v, *low),
        _ if v > high => beyond(*v, *high),
        _ => 0.0,
    };
    row.iter().zip(least).zip(greatest).map(one).sum()
}

impl Layer {
    fn new(field: Field, dim: usize, columns: usize, classes: usize) -> Self {
        Layer {
            field,
            dim,
            least: vec![f32::INFINITY; classes * columns],
            greatest: vec![f32::NEG_INFINITY; classes * columns],
            mean: 1.0,
        }
    }

    /// Take in a row of a class.
    fn widen(&mut self, class: usize, row: &[f32]) {
        let at = class * row.len()..(class + 1) * row.len();
        self.least[at.clone()].iter_mut().zip(row).for_each(|(m, v)| *m = m.min(*v));
        self.greatest[at].iter_mut().zip(row).for_each(|(m, v)| *m = m.max(*v));
    }

    /// Let classes without rows have the bounds of all.
    fn fill(&mut self, columns: usize, counts: &[u64]) {
        let fill = |bounds: &mut [f32], of: fn(f32, f32) -> f32| {
            let mut all = bounds[..columns].to_vec();
            for class in bounds.chunks_exact(columns) {
                all.iter_mut().zip(class).for_each(|(a, v)| *a = of(*a, *v));
            }
            let absent = bounds.chunks_exact_mut(columns).zip(counts).filter(|(_, n)| **n == 0);
            absent.for_each(|(bounds, _)| bounds.copy_from_slice(&all));
        };
        fill(&mut self.least, f32::min);
        fill(&mut self.greatest, f32::max);
    }

    fn deviation(&self, class: usize, row: &[f32]) -> f64 {
        let at = class * row.len()..(class + 1) * row.len();
        deviation(row, &self.least[at.clone()], &self.greatest[at])
    }
}

/// The layers of a set that have their Gram matrices: not those of other views.
fn layers_of(set: &FeatureSet) -> Vec<(Field, usize)> {
    let further = set.layers().into_iter().map(|layer| Field::Gram.within(layer));
    let fields = std::iter::once(Field::Gram).chain(further);
    fields.filter_map(|field| Some((field, set.dim(field)?))).collect()
}

impl Method for GramConfig {
    const NAME: &'static str = "gram";
    type Scorer = Gram;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Gram> {
        self.check_ranges()?;
        let train = context.train;
        let fields = layers_of(train);
        if fields.is_empty() {
            train.require(Field::Gram)?;
        }
        let source = context.logits("gram", &LogitsConfig::default())?;
        context.require_rows("gram")?;
        let classes = source.classes();
        let mut layers = Vec::new();
        for (field, dim) in fields {
            check_columns(train.name(), field, dim)?;
            let columns = self.columns(dim);
            if classes.saturating_mul(columns) > MOST {
                let problem = format!(
                    "{classes} classes times {columns} columns of `{}` are too many bounds: set `powers` \
                     lower, or extract fewer layers",
                    field.name()
                );
                return Err(Error::Fit { what: "gram".into(), problem });
            }
            layers.push(Layer::new(field, dim, columns, classes));
        }
        let needs = source.needs(train)?;
        let mut counts = vec![0u64; classes];
        let mut held = Vec::new();
        let widest = layers.iter().map(|l| l.dim).max().unwrap_or(1);
        let rows = ((1 << 22) / widest).clamp(1, 4096);
        context.observer.on(Event::Begin { task: "gram", total: train.len() as u64 });
        for range in blocks(train.len(), rows) {
            let logits = source.logits_of(train, &needs, range.clone())?;
            let predicted: Vec<_> = logits.chunks_exact(classes).map(predicted).collect();
            let keeps: Vec<bool> = predicted
                .iter()
                .zip(range.clone())
                .map(|(&(class, confidence), row)| {
                    let holds_out = self.holds_out(counts[class]);
                    counts[class] += 1;
                    if holds_out {
                        held.push(HeldOut { row: row as u32, class: class as u32, confidence });
                    }
                    !holds_out
                })
                .collect();
            for layer in &mut layers {
                let rows = train.rows(layer.field, range.clone())?;
                let columns = self.columns(layer.dim);
                let rows = rows.chunks_exact(layer.dim).zip(&predicted).zip(&keeps);
                for ((row, (class, _)), _) in rows.filter(|(_, keeps)| **keeps) {
                    layer.widen(*class, &row[..columns]);
                }
            }
            context.observer.on(Event::Advance { done: range.end as u64, loss: None });
        }
        context.observer.on(Event::End);
        for layer in &mut layers {
            layer.fill(self.columns(layer.dim), &counts);
            layer.mean = self.mean_of(layer, &held, train)?;
        }
        Ok(Gram { config: self.clone(), source, layers })
    }

    fn load(stored: &Stored<'_>) -> Result<Gram> {
        #[derive(Deserialize)]
        struct Config {
            gram: GramConfig,
            layers: Vec<(String, usize, f64)>,
        }
        let Config { gram: config, layers } = stored.config()?;
        config.check_ranges().map_err(|_| contradiction(stored))?;
        let source = Arc::new(LogitSource::load(stored)?);
        let classes = source.classes();
        let layer = |(i, (name, dim, mean)): (usize, (String, usize, f64))| {
            let field = Field::named(&name).filter(|f| f.base() == Field::Gram);
            let field = field.ok_or_else(|| contradiction(stored))?;
            check_columns("", field, dim).map_err(|_| contradiction(stored))?;
            if !(mean.is_finite() && mean > 0.0) {
                return Err(contradiction(stored));
            }
            let shape = [classes, config.columns(dim)];
            let bounds = |what| stored.file.f32(&stored.name(&format!("{what}.{i}")), &shape);
            Ok(Layer { field, dim, least: bounds("least")?, greatest: bounds("greatest")?, mean })
        };
        let layers = layers.into_iter().enumerate().map(layer).collect::<Result<Vec<_>>>()?;
        if layers.is_empty() {
            return Err(contradiction(stored));
        }
        Ok(Gram { config, source, layers })
    }
}

impl GramConfig {
    /// E: of the rows that are held out; 1 if there are none, or none deviates.
    fn mean_of(&self, layer: &Layer, held: &[HeldOut], train: &FeatureSet) -> Result<f64> {
        let columns = self.columns(layer.dim);
        let mut sum = 0.0;
        for held in held.chunks(1024) {
            let rows: Vec<u32> = held.iter().map(|h| h.row).collect();
            let mut values = vec![0.0; rows.len() * layer.dim];
            train.gather(layer.field, &rows, &mut values)?;
            for (held, row) in held.iter().zip(values.chunks_exact(layer.dim)) {
                let deviation = layer.deviation(held.class as usize, &row[..columns]);
                sum += if self.confidence { deviation / held.confidence } else { deviation };
            }
        }
        Ok(if sum > 0.0 { sum / held.len() as f64 + 1e-7 } else { 1.0 })
    }
}

/// Refuse a field that does not hold ten powers of some channels.
fn check_columns(set: &str, field: Field, dim: usize) -> Result<()> {
    if dim > 0 && dim.is_multiple_of(GRAM_POWERS) {
        return Ok(());
    }
    Err(Error::Shape {
        place: set.into(),
        tensor: field.name().into(),
        expected: format!("[N, {GRAM_POWERS} · channels], a power after another"),
        got: format!("[N, {dim}]"),
    })
}

impl Scorer for Gram {
    fn name(&self) -> &'static str {
        "gram"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.layers.iter().try_fold(self.source.needs(set)?, |needs, layer| {
            Ok(needs.and(FieldSet::checked(set, layer.field, layer.dim)?))
        })
    }

    fn parts(&self) -> Vec<Part> {
        self.layers.iter().filter_map(|layer| layer.field.part()).collect()
    }

    fn of_maps(&self) -> Vec<Field> {
        vec![Field::Gram]
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let logits = self.source.logits(batch);
        let rows = out.iter_mut().zip(logits.chunks_exact(self.source.classes()));
        for (i, (o, logits)) in rows.enumerate() {
            let (class, confidence) = predicted(logits);
            let of = |layer: &Layer| {
                let row = &batch.get(layer.field)[i * layer.dim..];
                layer.deviation(class, &row[..self.config.columns(layer.dim)]) / layer.mean
            };
            let total: f64 = self.layers.iter().map(of).sum();
            *o = reduce::finite(if self.config.confidence { total / confidence } else { total });
        }
    }

    fn section(&self) -> Section {
        let mut tensors = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let shape = [self.source.classes(), self.config.columns(layer.dim)];
            for (what, bounds) in [("least", &layer.least), ("greatest", &layer.greatest)] {
                tensors.push((format!("{what}.{i}"), Tensor::f32(shape, bounds.clone())));
            }
        }
        let mut section = self.source.section("gram").with("", tensors);
        section.config["gram"] = json!(self.config);
        let layers = self.layers.iter().map(|l| (l.field.name(), l.dim, l.mean));
        section.config["layers"] = json!(layers.collect::<Vec<_>>());
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// m = 4 − 1, M = 9: (4 − 1)/4.000001 below, (16 − 9)/9.000001 above, nothing between.
    #[test]
    fn deviations_by_hand() {
        let (least, greatest) = ([2.0f32, -1.0], [3.0f32, 1.0]);
        let of = |row: [f32; 2]| deviation(&row, &least, &greatest);
        assert_eq!(of([2.5, 0.0]), 0.0);
        assert!((of([1.0, 0.0]) - 3.0 / 4.000_001).abs() < 1e-12);
        assert!((of([4.0, -2.0]) - (7.0 / 9.000_001 + 3.0 / 0.999_999)).abs() < 1e-12);
    }

    /// int(n·v) of n rows, whatever n.
    #[test]
    fn a_tenth_of_each_class_is_held_out() {
        let config = GramConfig::default();
        let held: Vec<u64> = (0..100).filter(|i| config.holds_out(*i)).collect();
        assert_eq!(held, [9, 19, 29, 39, 49, 59, 69, 79, 89, 99]);
        let none = GramConfig { validation: 0.0, ..config };
        assert!((0..100).all(|i| !none.holds_out(i)));
    }
}
