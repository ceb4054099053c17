//! Coverage of neurons' activations (`nac`): −mean_i min(n_i(s_i)/O, 1), s_i = sigmoid(α·z_i·∂/∂z_i KL(u ‖ p)) how
//! active neuron i is, u uniform, p = softmax(Wz + b); n_i(s) the training rows of which s_i falls into the same of
//! M − 1 intervals as s.
//!
//! In closed form ∂/∂z KL = Wᵀ(p − u). Intervals are the authors': narrow near 0 and 1. n counts for 1,000
//! training rows: O goes with these. Sums over the training set, O(N·C·D); cost per row O(C·D).
//!
//! *Differences from the authors*: they count 1,000 rows drawn from all classes alike, here all rows count, each
//! 1000/N. Here the last layer (their `avgpool`, OpenOOD's and their default); their best results are of four
//! layers, which take gradients through the network.
//!
//! Reference: Liu et al., *Neuron Activation Coverage: Rethinking Out-of-Distribution Detection and
//! Generalization*, ICLR 2024.

use serde::Deserialize;
use serde_json::json;

use super::with_head::WithHead;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::io::Tensor;
use crate::math::linalg::product_nn;
use crate::math::parallel::{Pieces, Slices};
use crate::math::reduce;
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::{by_classes, contradiction, feature_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `nac`.
    NacConfig, normalize = false;
    /// M: ends of intervals, an even number. By default 50.
    m: usize = 50,
    /// O: rows of 1,000 from which on an interval is covered. By default 50/50/10 (CIFAR-10, CIFAR-100,
    /// ImageNet).
    o: Option<f64> = None,
    /// α. By default 100/50/3000.
    sig_alpha: Option<f64> = None,
}

offer! { NacConfig => Nac }

/// Rows that O is for.
const ROWS: f64 = 1000.0;

/// Activities of the neurons of rows.
#[derive(Clone)]
struct Activity {
    head: Head,
    /// W in double precision.
    weight: Vec<f64>,
    alpha: f64,
    /// Ends of the intervals, ascending.
    ends: Vec<f64>,
}

impl Activity {
    fn new(config: &NacConfig, head: Head) -> Result<Self> {
        if config.m < 6 || !config.m.is_multiple_of(2) || config.m > 1 << 16 {
            return Err(Error::config("m", config.m, "an even number from 6 to 65536"));
        }
        for (key, value) in [("o", config.o), ("sig_alpha", config.sig_alpha)] {
            if let Some(value) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return Err(Error::config(key, value, "must be a positive number"));
            }
        }
        if head.dim().saturating_mul(config.m) > 1 << 26 {
            let problem = format!("{} intervals of {} neurons are too many", config.m, head.dim());
            return Err(Error::Fit { what: "nac".into(), problem });
        }
        let alpha = config.sig_alpha.unwrap_or(by_classes(head.classes(), [100.0, 50.0, 3000.0]));
        let weight = head.weight().iter().map(|w| f64::from(*w)).collect();
        Ok(Activity { weight, alpha, ends: ends(config.m), head })
    }

    /// The interval of each neuron's activity, for rows and their logits.
    fn intervals(&self, rows: &[f32], logits: &[f32], mut found: impl FnMut(usize, usize, usize)) {
        let classes = self.head.classes();
        let uniform = 1.0 / classes as f64;
        let mut beyond: Vec<f64> = logits.iter().map(|l| f64::from(*l)).collect();
        for row in beyond.chunks_exact_mut(classes) {
            let total = reduce::logsumexp(row.iter().copied());
            row.iter_mut().for_each(|l| *l = (*l - total).exp() - uniform);
        }
        let mut gradient = vec![0.0; rows.len()];
        product_nn(&beyond, &self.weight, &mut gradient, classes);
        let dim = self.head.dim();
        let rows = rows.chunks_exact(dim).zip(gradient.chunks_exact(dim));
        for (row, (z, gradient)) in rows.enumerate() {
            for (neuron, (z, g)) in z.iter().zip(gradient).enumerate() {
                let state = 1.0 / (1.0 + (-self.alpha * f64::from(*z) * g).exp());
                let above = self.ends.partition_point(|end| *end <= state);
                found(row, neuron, above.saturating_sub(1));
            }
        }
    }
}

/// log₁₀₀₀ of m/2 numbers evenly from 1 to √1000, up to ½; their complements, down from it; 1.01 for 1, and
/// 1.2.
fn ends(m: usize) -> Vec<f64> {
    let half = m / 2;
    let step = (1000f64.sqrt() - 1.0) / (half - 1) as f64;
    let low: Vec<f64> = (0..half).map(|k| (1.0 + k as f64 * step).ln() / 1000f64.ln()).collect();
    let mut ends = low[..half - 1].to_vec();
    ends.extend(low.iter().rev().map(|v| 1.0 - v));
    if let Some(last) = ends.last_mut() {
        *last += 1e-2;
    }
    ends.push(1.2);
    ends
}

/// How many rows have each neuron's activity in each interval.
struct Covered {
    source: Source,
    activity: Activity,
    /// `[D, intervals]`.
    counts: Vec<u64>,
}

impl Covered {
    fn request(config: &NacConfig, context: &mut FitContext<'_>) -> Result<StatisticRequest> {
        let head = WithHead::fit("nac", config, context)?.head;
        let source = context.source(config)?;
        let activity = Activity::new(config, head)?;
        let counts = vec![0; source.dim * (activity.ends.len() - 1)];
        let key = format!("nac {} {} {}", config.m, activity.alpha, source.key);
        Ok(StatisticRequest { key, statistic: Box::new(Covered { source, activity, counts }) })
    }
}

impl Statistic for Covered {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        const PIECE: usize = 256;
        let rows = block.rows(&self.source)?;
        let logits = block.head_logits(&self.source, &self.activity.head)?;
        let (activity, classes) = (&self.activity, self.activity.head.classes());
        let pieces = rows.par_chunks(PIECE * self.source.dim);
        let found: Vec<Vec<u16>> = pieces
            .zip(logits.par_chunks(PIECE * classes))
            .map(|(rows, logits)| {
                let mut all = Vec::with_capacity(rows.len());
                activity.intervals(rows, logits, |_, _, interval| all.push(interval as u16));
                all
            })
            .collect();
        let intervals = activity.ends.len() - 1;
        for piece in found {
            for row in piece.chunks_exact(self.source.dim) {
                let counts = self.counts.chunks_exact_mut(intervals).zip(row);
                counts.for_each(|(counts, interval)| counts[usize::from(*interval)] += 1);
            }
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Counts(&mut self.counts)]
    }
}

/// A fitted `nac` scorer.
pub struct Nac {
    config: NacConfig,
    input: WithHead,
    activity: Activity,
    /// How far each interval is covered, 0 to 1, `[D, intervals]`.
    coverage: Vec<f32>,
}

impl Method for NacConfig {
    const NAME: &'static str = "nac";
    type Scorer = Nac;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        Ok(vec![Covered::request(self, context)?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Nac> {
        let input = WithHead::fit("nac", self, context)?;
        let request = Covered::request(self, context)?;
        let found = context.find::<Covered>(request)?;
        let o = self.o.unwrap_or(by_classes(input.head.classes(), [50.0, 50.0, 10.0]));
        let full = o * context.rows() as f64 / ROWS;
        let coverage = found.counts.iter().map(|n| (*n as f64 / full).min(1.0) as f32).collect();
        Ok(Nac { config: self.clone(), activity: found.activity.clone(), input, coverage })
    }

    fn load(stored: &Stored<'_>) -> Result<Nac> {
        #[derive(Deserialize)]
        struct Config {
            sig_alpha: f64,
        }
        let (config, input): (NacConfig, _) = WithHead::load(stored)?;
        let Config { sig_alpha } = stored.config()?;
        let settings = NacConfig { sig_alpha: Some(sig_alpha), ..config.clone() };
        let activity = Activity::new(&settings, input.head.clone());
        let activity = activity.map_err(|_| contradiction(stored))?;
        let shape = [input.dim(), activity.ends.len() - 1];
        let coverage = stored.file.f32(&stored.name("coverage"), &shape)?;
        if coverage.iter().any(|v| !(0.0..=1.0).contains(v)) {
            return Err(contradiction(stored));
        }
        Ok(Nac { config, input, activity, coverage })
    }
}

impl Scorer for Nac {
    fn name(&self) -> &'static str {
        "nac"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let rows = self.input.input.stepped(batch);
        let logits = self.input.logits(&rows);
        let intervals = self.activity.ends.len() - 1;
        let mut sums = vec![0.0; out.len()];
        self.activity.intervals(&rows, &logits, |row, neuron, interval| {
            sums[row] += f64::from(self.coverage[neuron * intervals + interval]);
        });
        for (o, sum) in out.iter_mut().zip(sums) {
            *o = (-sum / self.input.dim() as f64) as f32;
        }
    }

    fn section(&self) -> Section {
        let shape = [self.input.dim(), self.activity.ends.len() - 1];
        let coverage = Tensor::f32(shape, self.coverage.clone());
        let mut section = self.input.section("nac", &self.config);
        section = section.with("", vec![("coverage".to_owned(), coverage)]);
        section.config["sig_alpha"] = json!(self.activity.alpha);
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// log₁₀₀₀ of 1, (1 + √1000)/2 and √1000, and 1 less these: by hand.
    #[test]
    fn ends_by_hand() {
        let middle = (0.5 * (1.0 + 1000f64.sqrt())).ln() / 1000f64.ln();
        let want = [0.0, middle, 0.5, 1.0 - middle, 1.01, 1.2];
        let got = ends(6);
        assert_eq!(got.len(), 6);
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        assert_eq!(ends(50).len(), 50);
        assert!(ends(50).is_sorted());
    }
}
