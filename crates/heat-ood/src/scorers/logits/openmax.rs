//! OpenMax (`openmax`): v₀ − logsumexp_k v′_k, the logit of the authors' probability of an unknown
//! class, which itself would tie at 1 in single precision.
//!
//! v′_k = v_k·(1 − ω_k·w_k) and v₀ = Σ v_k·ω_k·w_k for the logits v: ω = 1, (α−1)/α, … 1/α for the α
//! largest logits, 0 for the others; w_k = 1 − exp(−(x/λ_k)^{c_k}) at x = d_k + 10000 − d_min, d_k the
//! distance of v to the mean logits of class k. c_k and λ_k are of largest likelihood for the
//! `tailsize` largest distances of the class's training rows, d_min the smallest of these. Distances are
//! w·‖v − μ_k‖ + (1 − w)·(1 − cos(v, μ_k)), w = `euclid_weight`. A class without rows has w_k = 1.
//!
//! Means and tails are of rows that are predicted correctly (`correct`). Two passes, O(N·C) beside the
//! logits; cost per row O(α·C). Everything in f64.
//!
//! *Differences*: the authors' distance, ‖·‖/200 + 1 − cos, is `euclid_weight = 1/201` up to a factor;
//! OpenOOD has α = 3, pytorch-ood a tail of 25 and all rows (`correct=false`), and finds c and λ by a
//! simplex search, here by bisection to the last digits.
//!
//! Reference: Bendale & Boult, *Towards Open Set Deep Networks*, CVPR 2016.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::Tensor;
use crate::math::moments::ClassMeans;
use crate::math::{blocks, reduce};
use crate::observe::Event;
use crate::scorers::context::{Block, FitContext, Statistic, StatisticRequest};
use crate::scorers::input::contradiction;
use crate::scorers::logit_source::{LogitSource, logits_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{LogitsConfig, Scorer, Section, Stored};

logits_settings! {
    /// Settings of `openmax`.
    OpenmaxConfig;
    /// Distances of each class that its distribution is fitted to.
    tailsize: usize = 20,
    /// Largest logits that are revised; at most C.
    alpha: usize = 10,
    /// Weight of the Euclidean distance; the rest is that of the cosine's.
    euclid_weight: f64 = 1.0,
    /// Whether rows that are predicted wrongly are left out.
    correct: bool = true,
}

offer! { OpenmaxConfig => Openmax }

/// What the authors' library adds to distances.
const TRANSLATION: f64 = 10_000.0;

/// The shape where all distances are the same, and the likelihood grows without end: a step.
const STEP: f64 = 1e13;

/// Rows that are looked at together.
const ROWS: usize = 4096;

/// A Weibull distribution of the largest distances of a class.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tail {
    /// The smallest and the largest.
    ends: [f64; 2],
    /// c.
    shape: f64,
    /// log λ − log x_max.
    log_scale: f64,
}

impl Tail {
    /// log x − log x_max, of a distance.
    fn log(ends: [f64; 2], distance: f64) -> f64 {
        let largest = TRANSLATION + ends[1] - ends[0];
        ((distance - ends[1]) / largest).ln_1p()
    }

    /// Of largest likelihood: c where Σ xᶜ log x / Σ xᶜ − 1/c is the mean of log x, λᶜ the mean of xᶜ.
    fn fit(distances: &[f64]) -> Self {
        let smallest = distances.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = distances.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let ends = [smallest, largest];
        let logs: Vec<f64> = distances.iter().map(|d| Self::log(ends, *d)).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let excess = |c: f64| {
            let (mut sum, mut weighted) = (0.0, 0.0);
            for log in &logs {
                let power = (c * log).exp();
                sum += power;
                weighted += power * log;
            }
            weighted / sum - 1.0 / c - mean
        };
        let (mut low, mut high) = (1e-3, STEP);
        // It grows with c, to −mean, which is 0 for equal distances.
        if excess(high) <= 0.0 {
            low = high;
        }
        while high / low > 1.0 + 1e-15 {
            let middle = (low * high).sqrt();
            if middle <= low || middle >= high {
                break;
            }
            match excess(middle) < 0.0 {
                true => low = middle,
                false => high = middle,
            }
        }
        let power = |log: &f64| (low * log).exp();
        let mean = logs.iter().map(power).sum::<f64>() / logs.len() as f64;
        Tail { ends, shape: low, log_scale: mean.ln() / low }
    }

    /// 1 − exp(−(x/λ)ᶜ).
    fn probability(&self, distance: f64) -> f64 {
        // x may lie below 0, where the distribution has nothing.
        let log = Self::log(self.ends, distance);
        if log.is_nan() {
            return 0.0;
        }
        -(-(self.shape * (log - self.log_scale)).exp()).exp_m1()
    }
}

/// A fitted `openmax` scorer.
pub struct Openmax {
    config: OpenmaxConfig,
    source: Arc<LogitSource>,
    /// μ, `[C, C]`.
    means: Vec<f64>,
    /// Of each class, if it has rows.
    tails: Vec<Option<Tail>>,
}

/// Mean logits of each class, and of the rows left out.
struct Means {
    source: Arc<LogitSource>,
    correct: bool,
    means: ClassMeans,
}

/// The class that each row counts for; C where it is left out.
fn classes_of(labels: &mut [u32], logits: &[f32], classes: usize, correct: bool) {
    for (label, row) in labels.iter_mut().zip(logits.chunks_exact(classes)) {
        if correct && reduce::argmax(row) != *label {
            *label = classes as u32;
        }
    }
}

impl Means {
    fn request(source: &Arc<LogitSource>, correct: bool) -> StatisticRequest {
        let classes = source.classes();
        let means = ClassMeans::new(classes, classes + 1);
        let key = format!("mean logits {correct} {}", source.key());
        let statistic = Box::new(Means { source: Arc::clone(source), correct, means });
        StatisticRequest { key, statistic }
    }
}

impl Statistic for Means {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let classes = self.source.classes();
        let logits = block.logits(&self.source)?;
        let mut labels = block.train.labels(block.range.clone(), classes)?;
        classes_of(&mut labels, &logits, classes, self.correct);
        self.means.update(&logits, &labels);
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Means(&mut self.means, None)]
    }
}

/// w·‖v − μ‖ + (1 − w)·(1 − cos(v, μ)).
fn distance(row: &[f32], mean: &[f64], weight: f64) -> f64 {
    let (mut square, mut product, mut own, mut other) = (0.0, 0.0, 0.0, 0.0);
    for (v, m) in row.iter().zip(mean) {
        let v = f64::from(*v);
        square += (v - m) * (v - m);
        product += v * m;
        own += v * v;
        other += m * m;
    }
    let norms = (own * other).sqrt();
    let cosine = if norms > 0.0 { product / norms } else { 0.0 };
    weight * square.sqrt() + (1.0 - weight) * (1.0 - cosine)
}

impl OpenmaxConfig {
    fn source(&self, context: &mut FitContext<'_>) -> Result<Arc<LogitSource>> {
        if self.tailsize == 0 {
            return Err(Error::config("tailsize", 0, "must be at least 1"));
        }
        if self.alpha == 0 {
            return Err(Error::config("alpha", 0, "must be at least 1"));
        }
        if !(0.0..=1.0).contains(&self.euclid_weight) {
            let problem = "a weight lies between 0 and 1";
            return Err(Error::config("euclid_weight", self.euclid_weight, problem));
        }
        let source = context.logits("openmax", &LogitsConfig::from(self))?;
        let classes = source.classes();
        if classes.saturating_mul(classes) > 1 << 28 {
            let problem = format!("{classes} classes are too many for mean logits each");
            return Err(Error::Fit { what: "openmax".into(), problem });
        }
        Ok(source)
    }

    /// The largest distances of each class, which takes a second pass.
    fn tails(
        &self,
        source: &LogitSource,
        means: &[f64],
        context: &mut FitContext<'_>,
    ) -> Result<Vec<Option<Tail>>> {
        let (train, classes) = (context.train, source.classes());
        let needs = source.needs(train)?;
        let mut largest: Vec<Vec<f64>> = vec![Vec::new(); classes];
        context.observer.on(Event::Begin { task: "largest distances", total: train.len() as u64 });
        for range in blocks(train.len(), ROWS) {
            let logits = source.logits_of(train, &needs, range.clone())?;
            let mut labels = train.labels(range.clone(), classes)?;
            classes_of(&mut labels, &logits, classes, self.correct);
            for (row, label) in logits.chunks_exact(classes).zip(labels) {
                let Some(largest) = largest.get_mut(label as usize) else { continue };
                let mean = &means[label as usize * classes..][..classes];
                largest.push(distance(row, mean, self.euclid_weight));
                // Now and then, so that what is kept does not grow with N.
                if largest.len() >= self.tailsize.saturating_mul(2).saturating_add(64) {
                    keep_largest(largest, self.tailsize);
                }
            }
            context.observer.on(Event::Advance { done: range.end as u64, loss: None });
        }
        context.observer.on(Event::End);
        let tail = |mut distances: Vec<f64>| {
            keep_largest(&mut distances, self.tailsize);
            (!distances.is_empty()).then(|| Tail::fit(&distances))
        };
        Ok(largest.into_iter().map(tail).collect())
    }
}

fn keep_largest(values: &mut Vec<f64>, n: usize) {
    values.sort_unstable_by(|a, b| b.total_cmp(a));
    values.truncate(n);
}

impl Method for OpenmaxConfig {
    const NAME: &'static str = "openmax";
    type Scorer = Openmax;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        let source = self.source(context)?;
        Ok(vec![Means::request(&source, self.correct)])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Openmax> {
        let source = self.source(context)?;
        context.require_rows("openmax")?;
        let classes = source.classes();
        let found = context.find::<Means>(Means::request(&source, self.correct))?;
        let counts = found.means.counts()[..classes].to_vec();
        let means = found.means.clone().finish()[..classes * classes].to_vec();
        let absent: Vec<usize> = (0..classes).filter(|k| counts[*k] == 0).collect();
        let which = if self.correct { "correctly predicted row" } else { "row" };
        if absent.len() == classes {
            let problem = format!("no class has a {which} in {}", context.train.name());
            return Err(Error::Fit { what: "openmax".into(), problem });
        }
        if !absent.is_empty() {
            let first: Vec<String> = absent.iter().take(5).map(usize::to_string).collect();
            context.observer.on(Event::Warning(&format!(
                "{} of {classes} classes have no {which} in {}, and so no distribution: whatever is \
                 predicted as these counts as unknown ({}{})",
                absent.len(),
                context.train.name(),
                first.join(", "),
                if absent.len() > first.len() { ", …" } else { "" }
            )));
        }
        let tails = self.tails(&source, &means, context)?;
        Ok(Openmax { config: self.clone(), source, means, tails })
    }

    fn load(stored: &Stored<'_>) -> Result<Openmax> {
        #[derive(Deserialize)]
        struct Config {
            openmax: OpenmaxConfig,
        }
        let Config { openmax: config } = stored.config()?;
        let source = Arc::new(LogitSource::load(stored)?);
        let classes = source.classes();
        let tails = stored.file.f64(&stored.name("tails"), &[classes, 4])?;
        let means = stored.file.f64(&stored.name("means"), &[classes, classes])?;
        let tail = |values: &[f64; 4]| {
            let [smallest, largest, shape, log_scale] = *values;
            let found = Tail { ends: [smallest, largest], shape, log_scale };
            match shape {
                // Distances are not negative, and nor is a shape: this is a class without rows.
                0.0 => Some(None),
                _ => (shape > 0.0 && largest >= smallest).then_some(Some(found)),
            }
        };
        let tails: Option<Vec<_>> = tails.as_chunks().0.iter().map(tail).collect();
        let tails = tails.ok_or_else(|| contradiction(stored))?;
        if config.alpha == 0 || !(0.0..=1.0).contains(&config.euclid_weight) {
            return Err(contradiction(stored));
        }
        Ok(Openmax { config, source, means, tails })
    }
}

impl Openmax {
    /// Of the logits of a row, which are revised in place; `order` is room for their ranks.
    fn score_row(&self, row: &[f32], revised: &mut [f64], order: &mut [usize]) -> f64 {
        let classes = row.len();
        let alpha = self.config.alpha.min(classes);
        revised.iter_mut().zip(row).for_each(|(r, v)| *r = f64::from(*v));
        order.iter_mut().enumerate().for_each(|(i, class)| *class = i);
        let larger = |a: &usize, b: &usize| row[*b].total_cmp(&row[*a]).then(a.cmp(b));
        order.select_nth_unstable_by(alpha - 1, larger);
        order[..alpha].sort_unstable_by(larger);
        let mut unknown = 0.0;
        for (rank, class) in order[..alpha].iter().enumerate() {
            let omega = (alpha - rank) as f64 / alpha as f64;
            let mean = &self.means[class * classes..][..classes];
            let w = self.tails[*class].map_or(1.0, |tail| {
                tail.probability(distance(row, mean, self.config.euclid_weight))
            });
            let taken = revised[*class] * omega * w;
            revised[*class] -= taken;
            unknown += taken;
        }
        unknown - reduce::logsumexp(revised.iter().copied())
    }
}

impl Scorer for Openmax {
    fn name(&self) -> &'static str {
        "openmax"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.source.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let logits = self.source.logits(batch);
        let classes = self.source.classes();
        let (mut revised, mut order) = (vec![0.0; classes], vec![0; classes]);
        for (o, row) in out.iter_mut().zip(logits.chunks_exact(classes)) {
            *o = self.score_row(row, &mut revised, &mut order) as f32;
        }
    }

    fn section(&self) -> Section {
        let classes = self.source.classes();
        let tail = |tail: &Option<Tail>| match tail {
            Some(Tail { ends, shape, log_scale }) => [ends[0], ends[1], *shape, *log_scale],
            None => [0.0; 4],
        };
        let tails: Vec<f64> = self.tails.iter().flat_map(tail).collect();
        let tensors = vec![
            ("means".into(), Tensor::f64([classes, classes], self.means.clone())),
            ("tails".into(), Tensor::f64([classes, 4], tails)),
        ];
        let mut section = self.source.section("openmax").with("", tensors);
        section.config["openmax"] = json!(self.config);
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// c and λ at which the derivatives of the log-likelihood vanish: Σ log(x/λ)·(1 − (x/λ)ᶜ) = −n/c and
    /// Σ (x/λ)ᶜ = n.
    #[test]
    fn the_likelihood_is_largest() {
        let distances: Vec<f64> =
            (1..=20).map(|i| 3.0 + (f64::from(i) * 0.7).sin() + 0.1 * f64::from(i)).collect();
        let tail = Tail::fit(&distances);
        let logs: Vec<f64> =
            distances.iter().map(|d| Tail::log(tail.ends, *d) - tail.log_scale).collect();
        let powers: Vec<f64> = logs.iter().map(|log| (tail.shape * log).exp()).collect();
        let n = logs.len() as f64;
        assert!((powers.iter().sum::<f64>() - n).abs() < 1e-6);
        let slope: f64 = logs.iter().zip(&powers).map(|(log, p)| log * (1.0 - p)).sum();
        assert!((slope * tail.shape / n + 1.0).abs() < 1e-6, "{}", slope * tail.shape / n);
        assert!(tail.probability(100.0) > 0.999 && tail.probability(0.0) < 0.2);
    }

    #[test]
    fn equal_distances_are_a_step() {
        for n in [1, 5] {
            let tail = Tail::fit(&vec![2.0; n]);
            assert_eq!((tail.probability(1.9), tail.probability(2.1)), (0.0, 1.0));
        }
    }
}
