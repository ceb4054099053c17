//! Temperature scaling (`temperature`): 1 − max softmax(logits / T), T that of
//! the smallest negative log-likelihood of the training labels.
//!
//! It is computed as the sum of the other probabilities: networks that fit
//! their training set have T below 1, and −max softmax would tie at −1 in f32.
//!
//! The likelihood is convex in β = 1/T; Newton's method with a bracket finds
//! its minimum, from Σ (E_p(z) − z_y) and Σ Var_p(z) in f64. Every step is a
//! pass over the logits, O(N·C); up to 64 MiB of them are kept, more are
//! computed anew, O(N·D·C). Where every row is predicted correctly no T is
//! best: T stays 1, with a warning.
//!
//! *Differences from the paper*: T is fitted on the training set, not on held
//! out rows; give `temperature` where it is known from these.
//!
//! Reference: Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.

use std::sync::Arc;

use rayon::prelude::*;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::{blocks, parallel, reduce};
use crate::observe::Event;
use crate::scorers::context::{Block, FitContext, Statistic, StatisticRequest};
use crate::scorers::logit_source::{LogitSource, logits_settings, softmax_gradient};
use crate::scorers::method::{Method, offer};
use crate::scorers::{LogitsConfig, Scorer, Section, Stored};

logits_settings! {
    /// Settings of `temperature`.
    TemperatureConfig;
    /// T; fitted by default.
    temperature: Option<f64> = None,
}

offer! { TemperatureConfig => Temperature }

/// A fitted `temperature` scorer.
pub struct Temperature {
    source: Arc<LogitSource>,
    temperature: f64,
}

impl TemperatureConfig {
    fn source(&self, context: &mut FitContext<'_>) -> Result<Arc<LogitSource>> {
        if let Some(t) = self.temperature.filter(|t| !(t.is_finite() && *t > 0.0)) {
            return Err(Error::config("temperature", t, "must be a positive number"));
        }
        context.logits("temperature", &LogitsConfig::from(self))
    }
}

impl Method for TemperatureConfig {
    const NAME: &'static str = "temperature";
    type Scorer = Temperature;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        let source = self.source(context)?;
        if self.temperature.is_some() {
            return Ok(Vec::new());
        }
        Ok(vec![Likelihood::request(&source, context.train)])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Temperature> {
        let source = self.source(context)?;
        let temperature = match self.temperature {
            Some(t) => t,
            None => {
                let request = Likelihood::request(&source, context.train);
                context.find::<Likelihood>(request)?.best(context)?
            }
        };
        Ok(Temperature { source, temperature })
    }

    fn load(stored: &Stored<'_>) -> Result<Temperature> {
        #[derive(Deserialize)]
        struct Config {
            temperature: f64,
        }
        let Config { temperature } = stored.config()?;
        Ok(Temperature { source: Arc::new(LogitSource::load(stored)?), temperature })
    }
}

/// Most logits that are kept for the passes after the first.
const KEPT: usize = 1 << 24;

/// The training set's negative log-likelihood: its derivatives at β = 0 and
/// β = 1, and what further ones need.
struct Likelihood {
    source: Arc<LogitSource>,
    keep: bool,
    /// Logits and labels by block.
    kept: Vec<(Vec<f32>, Vec<u32>)>,
    at: [Derivatives; 2],
}

/// Derivatives of the negative log-likelihood with respect to β, and how far
/// the labels' logits are below the largest ones.
#[derive(Clone, Copy, Default)]
struct Derivatives {
    first: f64,
    second: f64,
    below: f64,
}

impl Derivatives {
    /// At β, on all threads; summed in the order of the rows.
    fn add(&mut self, logits: &[f32], labels: &[u32], beta: f64) {
        const ROWS: usize = 64;
        let classes = logits.len() / labels.len();
        let pieces: Vec<Derivatives> = parallel::run(|| {
            let pieces = logits.par_chunks(ROWS * classes).zip(labels.par_chunks(ROWS));
            pieces.map(|(logits, labels)| derivatives(logits, labels, beta)).collect()
        });
        for piece in pieces {
            self.first += piece.first;
            self.second += piece.second;
            self.below += piece.below;
        }
    }
}

impl Statistic for Likelihood {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let logits = block.logits(&self.source)?;
        let labels = block.train.labels(block.range.clone(), self.source.classes())?;
        for (at, beta) in self.at.iter_mut().zip([0.0, 1.0]) {
            at.add(&logits, &labels, beta);
        }
        if self.keep {
            self.kept.push((logits.to_vec(), labels));
        }
        Ok(())
    }
}

impl Likelihood {
    fn request(source: &Arc<LogitSource>, train: &FeatureSet) -> StatisticRequest {
        let keep = train.len().saturating_mul(source.classes()) <= KEPT;
        let (kept, at) = Default::default();
        let key = format!("likelihood {}", source.key());
        let source = Arc::clone(source);
        StatisticRequest { key, statistic: Box::new(Likelihood { source, keep, kept, at }) }
    }

    /// At β.
    fn at(&self, beta: f64, train: &FeatureSet) -> Result<Derivatives> {
        const ROWS: usize = 4096;
        let mut total = Derivatives::default();
        if self.keep {
            self.kept.iter().for_each(|(logits, labels)| total.add(logits, labels, beta));
            return Ok(total);
        }
        let (classes, needs) = (self.source.classes(), self.source.needs(train)?);
        for range in blocks(train.len(), ROWS) {
            let labels = train.labels(range.clone(), classes)?;
            total.add(&self.source.logits_of(train, needs, range)?, &labels, beta);
        }
        Ok(total)
    }

    /// T of the minimum, or 1 where there is none.
    fn best(&self, context: &mut FitContext<'_>) -> Result<f64> {
        const STEPS: usize = 60;
        let [uniform, mut at] = self.at;
        if uniform.below <= 0.0 || uniform.first >= 0.0 {
            let why = if uniform.below <= 0.0 {
                "every row is predicted correctly"
            } else {
                "predictions are no better than chance"
            };
            context.observer.on(Event::Warning(&format!(
                "no temperature is best on {}, where {why}: 1 is used; give `temperature`",
                context.train.name()
            )));
            return Ok(1.0);
        }
        let (mut beta, mut low, mut high) = (1.0, 0.0, f64::INFINITY);
        for _ in 0..STEPS {
            if at.first < 0.0 {
                low = beta;
            } else {
                high = beta;
            }
            let mut next = beta - at.first / at.second;
            if !(next > low && next < high) {
                next = if high.is_finite() { 0.5 * (low + high) } else { 4.0 * beta };
            }
            let done = (next - beta).abs() <= 1e-10 * beta;
            beta = next;
            if done {
                break;
            }
            at = self.at(beta, context.train)?;
        }
        Ok(1.0 / beta)
    }
}

/// Of some rows, summed in order.
fn derivatives(logits: &[f32], labels: &[u32], beta: f64) -> Derivatives {
    let mut total = Derivatives::default();
    for (row, &label) in logits.chunks_exact(logits.len() / labels.len()).zip(labels) {
        let largest = f64::from(reduce::max(row));
        let (mut sum, mut mean, mut square) = (0.0, 0.0, 0.0);
        for &l in row {
            let off = f64::from(l) - largest;
            let e = (beta * off).exp();
            sum += e;
            mean += e * off;
            square += e * off * off;
        }
        let (mean, below) = (mean / sum, largest - f64::from(row[label as usize]));
        total.first += mean + below;
        total.second += square / sum - mean * mean;
        total.below += below;
    }
    total
}

impl Temperature {
    /// T.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }
}

/// 1 − max softmax(logits / t).
fn rest(logits: &[f32], t: f64) -> f32 {
    let top = reduce::argmax(logits) as usize;
    let largest = f64::from(logits[top]);
    let others = logits.iter().enumerate().filter(|(c, _)| *c != top);
    let sum: f64 = others.map(|(_, &l)| ((f64::from(l) - largest) / t).exp()).sum();
    (sum / (1.0 + sum)) as f32
}

impl Scorer for Temperature {
    fn name(&self) -> &'static str {
        "temperature"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.source.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.source.rows(batch, out, |logits| rest(logits, self.temperature));
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.source.gradient(batch, scale, out, |l| softmax_gradient(l, self.temperature))
    }

    fn section(&self) -> Section {
        let mut section = self.source.section("temperature");
        section.config["temperature"] = self.temperature.into();
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Head;
    use crate::observe::Silent;
    use crate::scorers::TrainingData;

    /// Logits that are too many to keep are computed anew.
    #[test]
    fn kept_or_not_the_likelihood_is_the_same() {
        let rows =
            ndarray::Array2::from_shape_fn((5000, 3), |(i, j)| ((i * 7 + j * 5) % 11) as f32);
        let labels: Vec<u32> = (0..5000).map(|i| i * 13 % 3).collect();
        let set = FeatureSet::from_arrays(rows.view(), Some(&labels)).unwrap();
        let weight = vec![0.1, -0.2, 0.3, 0.2, 0.1, -0.1, -0.3, 0.2, 0.1];
        let head = Head::new(weight, vec![0.0, 0.1, -0.1]).unwrap();
        let mut observer = Silent;
        let data = TrainingData::new(&set).with_head(&head);
        let mut context = FitContext::new(&data, &mut observer);
        let source = context.logits("temperature", &LogitsConfig::default()).unwrap();
        let kept = context.find::<Likelihood>(Likelihood::request(&source, &set)).unwrap();
        assert!(kept.keep && !kept.kept.is_empty());
        let (source, at) = (Arc::clone(&source), kept.at);
        let anew = Likelihood { source, keep: false, kept: Vec::new(), at };
        for beta in [0.0, 0.3, 1.0] {
            let [a, b] = [&*kept, &anew].map(|l| l.at(beta, &set).unwrap());
            assert!((a.first - b.first).abs() <= 1e-9 * a.first.abs(), "{beta}");
            assert!((a.second - b.second).abs() <= 1e-9 * a.second, "{beta}");
        }
        let first = kept.at(1.0, &set).unwrap().first;
        assert!((kept.at[1].first - first).abs() <= 1e-9 * first.abs());
    }
}
