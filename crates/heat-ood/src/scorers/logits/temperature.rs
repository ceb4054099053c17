//! Temperature scaling (`temperature`): 1 − max softmax(logits / T), T that of
//! the smallest negative log-likelihood of the training labels.
//!
//! It is computed as the sum of the other probabilities: networks that fit
//! their training set have T below 1, and −max softmax would tie at −1 in f32.
//!
//! The likelihood is convex in β = 1/T. Its derivatives are sums over the rows
//! of E_p(z) − z_y and of the higher cumulants of z under p, all from the same
//! exponentials, in f64; the minimum is where the Taylor series of the first
//! vanishes, within a bracket. Up to 64 MiB of logits are kept for this. Of
//! more, so many rows, spread over the set, give a first β, and one pass over
//! all gives the derivatives there, O(N·D·C); the series takes the rest of the
//! way. Where its last terms are not below 10⁻¹⁰ of β, another pass follows.
//! Where every row is predicted correctly no T is best: T stays 1, with a warning.
//!
//! *Differences from the paper*: T is fitted on the training set, not on held
//! out rows; give `temperature` where it is known from these.
//!
//! Reference: Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.

use std::slice::from_mut;
use std::sync::Arc;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::parallel::{Pieces, Slices};
use crate::math::{blocks, reduce};
use crate::observe::Event;
use crate::scorers::context::{Block, FitContext, Statistic, StatisticRequest};
use crate::scorers::logit_source::{LogitSource, logits_settings, softmax_gradient};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
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
        Ok(vec![Likelihood::request(&source, context.in_parts())])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Temperature> {
        let source = self.source(context)?;
        if let Some(temperature) = self.temperature {
            return Ok(Temperature { source, temperature });
        }
        let likelihood =
            context.find::<Likelihood>(Likelihood::request(&source, context.in_parts()))?;
        let temperature = match likelihood.ends.problem() {
            None => likelihood.best(context.train)?,
            Some(why) => {
                context.observer.on(Event::Warning(&format!(
                    "no temperature is best on {}, where {why}: 1 is used; give `temperature`",
                    context.train.name()
                )));
                1.0
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

/// Most logits that are kept.
const KEPT: usize = 1 << 24;

/// The training set's negative log-likelihood, and where it is smallest.
struct Likelihood {
    source: Arc<LogitSource>,
    /// Most logits that are kept.
    most: usize,
    /// Whether there are rows in other parts.
    in_parts: bool,
    ends: Ends,
    /// Logits and labels by block, where all are kept.
    kept: Vec<(Vec<f32>, Vec<u32>)>,
    /// Those of rows that were in parts, merged; labels as numbers of single precision.
    merged: (Arc<Vec<f32>>, Arc<Vec<f32>>),
    /// Otherwise the β that a part of the rows gives, and the derivatives there.
    about: Option<(f64, Derivatives)>,
}

/// What tells whether there is a minimum.
#[derive(Clone, Copy, Default)]
struct Ends {
    /// The first derivative at β = 0.
    uniform: f64,
    /// How far the labels' logits are below the largest ones: that at β = ∞.
    below: f64,
}

/// What `f` gives for pieces of some rows, on all threads, in the order of the rows.
fn of_pieces<T: Send>(
    logits: &[f32],
    labels: &[u32],
    f: impl Fn(&[f32], &[u32]) -> T + Sync,
) -> Vec<T> {
    const ROWS: usize = 64;
    let classes = logits.len() / labels.len();
    let pieces = logits.par_chunks(ROWS * classes).zip(labels.par_chunks(ROWS));
    pieces.map(|(logits, labels)| f(logits, labels)).collect()
}

/// Logits and label of each row.
fn rows<'a>(logits: &'a [f32], labels: &'a [u32]) -> impl Iterator<Item = (&'a [f32], usize)> {
    let rows = logits.chunks_exact(logits.len() / labels.len());
    rows.zip(labels.iter().map(|label| *label as usize))
}

impl Ends {
    fn add(&mut self, logits: &[f32], labels: &[u32]) {
        for piece in of_pieces(logits, labels, Ends::of) {
            self.uniform += piece.uniform;
            self.below += piece.below;
        }
    }

    fn of(logits: &[f32], labels: &[u32]) -> Self {
        let mut ends = Ends::default();
        for (row, label) in rows(logits, labels) {
            let largest = f64::from(reduce::max(row));
            let below = largest - f64::from(row[label]);
            ends.uniform += reduce::sum_of(row, |l| l - largest) / row.len() as f64 + below;
            ends.below += below;
        }
        ends
    }

    /// Why there is no minimum, if there is none.
    fn problem(self) -> Option<&'static str> {
        if self.below <= 0.0 {
            return Some("every row is predicted correctly");
        }
        (self.uniform >= 0.0).then_some("predictions are no better than chance")
    }
}

/// How many derivatives are taken.
const ORDER: usize = 7;

/// The first derivatives of the negative log-likelihood with respect to β.
#[derive(Clone, Copy, Default)]
struct Derivatives([f64; ORDER]);

impl Derivatives {
    /// Add those of some rows at β.
    fn add(&mut self, logits: &[f32], labels: &[u32], beta: f64) {
        let of = |logits: &[f32], labels: &[u32]| Derivatives::of(logits, labels, beta);
        for piece in of_pieces(logits, labels, of) {
            self.0.iter_mut().zip(piece.0).for_each(|(sum, d)| *sum += d);
        }
    }

    fn of(logits: &[f32], labels: &[u32], beta: f64) -> Self {
        let mut total = [0.0; ORDER];
        for (row, label) in rows(logits, labels) {
            let cumulants = cumulants(reduce::exponential_sums(row, beta));
            total.iter_mut().zip(cumulants).for_each(|(t, c)| *t += c);
            total[0] += f64::from(reduce::max(row)) - f64::from(row[label]);
        }
        Derivatives(total)
    }

    /// How far from here the first derivative vanishes, by its Taylor series,
    /// and how large the last terms are there, as distances; by Newton's
    /// method, which is given up where the second is not positive.
    fn root(&self) -> Option<(f64, f64)> {
        let (mut at, mut last) = (0.0f64, 0.0);
        for _ in 0..50 {
            let (mut value, mut slope, mut power) = (0.0, 0.0, 1.0);
            for (j, d) in self.0.iter().enumerate() {
                let term = d * power;
                value += term;
                slope += self.0.get(j + 1).map_or(0.0, |d| d * power);
                power *= at / (j + 1) as f64;
                last = if j + 2 < ORDER { 0.0 } else { term.abs().max(last) };
            }
            if slope <= 0.0 || slope.is_nan() {
                return None;
            }
            let step = value / slope;
            at -= step;
            if step.abs() <= 1e-14 * at.abs() {
                return Some((at, last / slope));
            }
        }
        None
    }
}

/// κ₁, κ₂, … of x by Σ w·xᵏ: κₙ = mₙ − Σ_{k<n} C(n−1, k−1)·κₖ·mₙ₋ₖ.
fn cumulants(sums: [f64; ORDER + 1]) -> [f64; ORDER] {
    let mut found = [0.0; ORDER];
    for n in 1..=ORDER {
        let (mut cumulant, mut choose) = (sums[n] / sums[0], 1.0);
        for k in 1..n {
            cumulant -= choose * found[k - 1] * sums[n - k] / sums[0];
            choose *= (n - k) as f64 / k as f64;
        }
        found[n - 1] = cumulant;
    }
    found
}

/// β of the minimum, from `start` on; `at` gives the derivatives at some β.
fn minimum(start: f64, mut at: impl FnMut(f64) -> Result<Derivatives>) -> Result<f64> {
    const STEPS: usize = 60;
    let (mut beta, mut low, mut high) = (start, 0.0, f64::INFINITY);
    for _ in 0..STEPS {
        let found = at(beta)?;
        let [first, second, ..] = found.0;
        if first < 0.0 {
            low = beta;
        } else {
            high = beta;
        }
        let inside = |next: f64| next > low && next < high;
        if let Some((step, rest)) = found.root()
            && inside(beta + step)
        {
            beta += step;
            if rest <= 1e-10 * beta {
                break;
            }
            continue;
        }
        let mut next = beta - first / second;
        if !inside(next) {
            next = if high.is_finite() { 0.5 * (low + high) } else { 4.0 * beta };
        }
        let done = (next - beta).abs() <= 1e-10 * beta;
        beta = next;
        if done {
            break;
        }
    }
    Ok(beta)
}

impl Statistic for Likelihood {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let all = self.all_are_kept(block.train);
        if !all && self.in_parts {
            let problem = "the logits of a part of the rows are too many to be kept: make more parts, or \
                           give `temperature`, found on some of the rows";
            return Err(Error::Fit { what: "temperature".into(), problem: problem.into() });
        }
        if !all && self.about.is_none() {
            self.about = Some((self.beta_of_part(block.train)?, Derivatives::default()));
        }
        let logits = block.logits(&self.source)?;
        let labels = block.train.labels(block.range.clone(), self.source.classes())?;
        self.ends.add(&logits, &labels);
        match &mut self.about {
            Some((beta, at)) => at.add(&logits, &labels, *beta),
            None => self.kept.push((logits.to_vec(), labels)),
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        let (logits, labels) = &mut self.merged;
        for (some, of) in self.kept.drain(..) {
            Arc::make_mut(logits).extend(some);
            Arc::make_mut(labels).extend(of.into_iter().map(|label| label as f32));
        }
        vec![
            Slot::Sums(from_mut(&mut self.ends.uniform)),
            Slot::Sums(from_mut(&mut self.ends.below)),
            Slot::Rows(self.source.classes(), logits),
            Slot::Rows(1, labels),
        ]
    }
}

impl Likelihood {
    fn new(source: &Arc<LogitSource>, most: usize) -> Self {
        let (in_parts, ends, kept, merged, about) = Default::default();
        Likelihood { source: Arc::clone(source), most, in_parts, ends, kept, merged, about }
    }

    fn request(source: &Arc<LogitSource>, in_parts: bool) -> StatisticRequest {
        let key = format!("likelihood {}", source.key());
        let statistic = Likelihood { in_parts, ..Likelihood::new(source, KEPT) };
        StatisticRequest { key, statistic: Box::new(statistic) }
    }

    fn all_are_kept(&self, train: &FeatureSet) -> bool {
        train.len().saturating_mul(self.source.classes()) <= self.most
    }

    /// β by as many rows as may be kept, in short runs from all parts of the
    /// set, which may be sorted; 1 where they have no minimum.
    fn beta_of_part(&self, train: &FeatureSet) -> Result<f64> {
        const RUN: usize = 16;
        let classes = self.source.classes();
        let every = train.len().saturating_mul(classes).div_ceil(self.most);
        let rows = (0..train.len()).filter(|row| (row / RUN).is_multiple_of(every));
        let part = train.select(rows.map(|row| row as u32).collect(), None)?;
        let logits = self.source.logits_of(&part, &self.source.needs(&part)?, 0..part.len())?;
        let labels = part.labels(0..part.len(), classes)?;
        let mut ends = Ends::default();
        ends.add(&logits, &labels);
        if ends.problem().is_some() {
            return Ok(1.0);
        }
        minimum(1.0, |beta| {
            let mut found = Derivatives::default();
            found.add(&logits, &labels, beta);
            Ok(found)
        })
    }

    /// The derivatives at β, from all rows.
    fn at(&self, beta: f64, train: &FeatureSet) -> Result<Derivatives> {
        const ROWS: usize = 4096;
        let mut total = Derivatives::default();
        if self.about.is_none() {
            let (logits, labels) = &self.merged;
            if !labels.is_empty() {
                let labels: Vec<u32> = labels.iter().map(|label| *label as u32).collect();
                total.add(logits, &labels, beta);
            }
            self.kept.iter().for_each(|(logits, labels)| total.add(logits, labels, beta));
            return Ok(total);
        }
        let (classes, needs) = (self.source.classes(), self.source.needs(train)?);
        for range in blocks(train.len(), ROWS) {
            let labels = train.labels(range.clone(), classes)?;
            total.add(&self.source.logits_of(train, &needs, range)?, &labels, beta);
        }
        Ok(total)
    }

    /// T of the minimum.
    fn best(&self, train: &FeatureSet) -> Result<f64> {
        let (start, mut known) = match self.about {
            Some((beta, found)) => (beta, Some(found)),
            None => (1.0, None),
        };
        let at = |beta| known.take().map_or_else(|| self.at(beta, train), Ok);
        Ok(1.0 / minimum(start, at)?)
    }
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

    /// Whatever is kept, T is where the first derivative vanishes, by
    /// bisection of Σ (E_p(z) − z_y).
    #[test]
    fn kept_or_not_the_temperature_is_the_same() {
        let rows =
            ndarray::Array2::from_shape_fn((5000, 3), |(i, j)| ((i * 7 + j * 5) % 11) as f32);
        // Sorted, and of the first rows nearly all are right.
        let label = |i: usize| {
            let row = rows.row(i);
            if i % (12 - i / 500) > 1 { reduce::argmax(&row.to_vec()) } else { (i * 13 % 3) as u32 }
        };
        let labels: Vec<u32> = (0..5000).map(label).collect();
        let set = FeatureSet::from_arrays(rows.view(), Some(&labels)).unwrap();
        let weight = vec![1.0, 0.1, 0.0, 0.0, 1.0, 0.2, 0.1, 0.0, 1.0];
        let head = Head::new(weight, vec![0.0, 0.1, -0.1]).unwrap();
        let mut observer = Silent;
        let data = TrainingData::new(&set).with_head(&head);
        let mut context = FitContext::new(&data, &mut observer);
        let source = context.logits("temperature", &LogitsConfig::default()).unwrap();
        let needs = source.needs(&set).unwrap();
        let logits = source.logits_of(&set, &needs, 0..5000).unwrap();
        let slope = |t: f64| -> f64 {
            let of = |(row, &y): (&[f32], &u32)| {
                let e: Vec<f64> = row.iter().map(|&l| (f64::from(l) / t).exp()).collect();
                let mean = row.iter().zip(&e).map(|(&l, e)| f64::from(l) * e).sum::<f64>();
                mean / e.iter().sum::<f64>() - f64::from(row[y as usize])
            };
            logits.chunks_exact(3).zip(&labels).map(of).sum()
        };
        let (mut low, mut high) = (0.01, 1000.0);
        for _ in 0..100 {
            let middle = 0.5 * (low + high);
            // Colder is steeper: at small T the derivative with respect to β is positive.
            if slope(middle) > 0.0 { low = middle } else { high = middle }
        }
        for most in [KEPT, 9000, 600, 1] {
            let likelihood = Box::new(Likelihood::new(&source, most));
            let request = StatisticRequest { key: most.to_string(), statistic: likelihood };
            let found = context.find::<Likelihood>(request).unwrap();
            assert_eq!(
                (found.kept.is_empty(), found.about.is_some()),
                (most < 15000, most < 15000)
            );
            let t = found.best(&set).unwrap();
            assert!((t / low - 1.0).abs() < 1e-9, "{most}: {t} {low}");
        }
    }

    /// Of 0 and −1 with probabilities p and q = 1 − p: κ₁ = −q, κ₂ = pq,
    /// κ₃ = pq(q − p), κ₄ = pq(1 − 6pq), by hand.
    #[test]
    fn cumulants_by_hand() {
        let (p, q) = (0.75, 0.25);
        let sums = std::array::from_fn(|k| match k {
            0 => 4.0,
            k => 4.0 * q * if k % 2 == 0 { 1.0 } else { -1.0 },
        });
        let want = [-q, p * q, p * q * (q - p), p * q * (1.0 - 6.0 * p * q)];
        for (got, want) in cumulants(sums).iter().zip(want) {
            assert!((got - want).abs() < 1e-15, "{got} {want}");
        }
    }
}
