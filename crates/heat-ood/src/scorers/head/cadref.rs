//! Class-aware decoupled relative feature (`cadref`).
//!
//! y is the predicted class, m_y the mean of the training rows predicted as y,
//! e± = Σ_j max(0, ±(z−m_y)_j·sign W_yj) / ‖z‖₁. The score is e⁺/E(z) + e⁻/Ē, E
//! a confidence of the logits, Ē its mean over the training set; without
//! `decoupled` (CARef) it is ‖z−m_y‖₁/‖z‖₁ and needs no E.
//!
//! E (`confidence`): `energy` logsumexp(logits); `msp` max p; `max_logit`;
//! `gen` 1/Σ pᵞ(1−p)ᵞ over the max(10, C/10) largest p, γ = 0.1. Where E(z) is
//! not positive, 10⁻⁶ stands for it: the formula would turn round. A class that
//! is never predicted has the mean of all rows. One pass over the training
//! set, O(N·C·D); cost per row O(C·D).
//!
//! Reference: Ling et al., *CADRef: Robust Out-of-Distribution Detection via
//! Class-Aware Decoupled Relative Feature Leveraging*, CVPR 2025.

use std::slice::from_mut;

use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::Table;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::io::Tensor;
use crate::math::moments::ClassMeans;
use crate::math::parallel::{Pieces, Slices};
use crate::math::reduce;
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::{
    Input, contradiction, feature_settings, head_logits, load_head, require_head,
};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Scorer, Section, Stored};

/// A confidence of the logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// logsumexp.
    Energy,
    /// Largest probability.
    Msp,
    /// Largest logit.
    MaxLogit,
    /// One over the generalised entropy.
    Gen,
}

feature_settings! {
    /// Settings of `cadref`.
    CadrefConfig, normalize = false;
    /// Split the distance by the sign of the weights; `false` is CARef.
    decoupled: bool = true,
    /// What e⁺ is divided by.
    confidence: Confidence = Confidence::Energy,
}

/// What stands for a confidence that is not positive.
const LEAST: f64 = 1e-6;

offer! { CadrefConfig => Cadref }

/// A fitted `cadref` scorer.
pub struct Cadref {
    config: CadrefConfig,
    input: Input,
    head: Head,
    /// m, `[C, D]`.
    means: Vec<f64>,
    /// Ē.
    mean_confidence: f64,
}

impl Confidence {
    /// Of one row of logits; `scratch` is free to use.
    fn of(self, logits: &[f32], scratch: &mut Vec<f64>) -> f64 {
        let lse = || reduce::logsumexp(logits.iter().map(|&v| f64::from(v)));
        let largest = || f64::from(reduce::max(logits));
        match self {
            Confidence::Energy => lse(),
            Confidence::MaxLogit => largest(),
            Confidence::Msp => (largest() - lse()).exp(),
            Confidence::Gen => {
                let total = lse();
                scratch.clear();
                scratch.extend(logits.iter().map(|&v| (f64::from(v) - total).exp()));
                let count = (logits.len() / 10).max(10).min(logits.len());
                scratch.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
                // In descending order, so that no tie changes the sum's rounding.
                scratch[..count].sort_unstable_by(|a, b| b.total_cmp(a));
                let entropy = scratch[..count].iter().map(|p| (p * (1.0 - p)).max(0.0).powf(0.1));
                1.0 / entropy.sum::<f64>().max(LEAST)
            }
        }
    }
}

/// Means of the rows by predicted class, and the sum of the confidences.
struct Predicted {
    source: Source,
    head: Head,
    confidence: Confidence,
    means: ClassMeans,
    sum: f64,
}

impl Statistic for Predicted {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let (rows, logits) =
            (block.rows(&self.source)?, block.head_logits(&self.source, &self.head)?);
        let (rows, logits, classes) = (&*rows, &*logits, self.head.classes());
        let (means, confidence) = (&mut self.means, self.confidence);
        let predicted: Vec<u32> = logits.par_chunks(classes).map(reduce::argmax).collect();
        means.update(rows, &predicted);
        let sum = |logits: &[f32]| {
            let mut scratch = Vec::new();
            let rows = logits.chunks_exact(classes);
            rows.map(|l| confidence.of(l, &mut scratch)).sum()
        };
        let sums: Vec<f64> = logits.par_chunks(256 * classes).map(sum).collect();
        self.sum += sums.iter().sum::<f64>();
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Means(&mut self.means, None), Slot::Sums(from_mut(&mut self.sum))]
    }
}

impl Method for CadrefConfig {
    const NAME: &'static str = "cadref";
    type Scorer = Cadref;

    fn check(&self, given: &Table) -> Result<()> {
        if !self.decoupled && given.contains_key("confidence") {
            let problem = "is not read with `decoupled=false`; leave it out";
            return Err(Error::config("confidence", &given["confidence"], problem));
        }
        Ok(())
    }

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        let head = require_head("cadref", context.head)?;
        let source = context.source(self)?;
        let head = source.head(head)?;
        let statistic = Predicted {
            means: ClassMeans::new(source.dim, head.classes()),
            head,
            confidence: self.confidence,
            sum: 0.0,
            source: source.clone(),
        };
        let key = format!("cadref {:?} {}", self.confidence, source.key);
        Ok(vec![StatisticRequest { key, statistic: Box::new(statistic) }])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Cadref> {
        let request = self.requests(context)?.remove(0);
        let found = context.find::<Predicted>(request)?;
        let dim = found.source.dim;
        let counts = found.means.counts();
        let rows = counts.iter().sum::<u64>() as f64;
        let mut means = found.means.clone().finish();
        let mut all = vec![0.0; dim];
        for (mean, &n) in means.chunks_exact(dim).zip(counts) {
            all.iter_mut().zip(mean).for_each(|(a, m)| *a += m * n as f64 / rows);
        }
        let absent = means.chunks_exact_mut(dim).zip(counts).filter(|(_, n)| **n == 0);
        absent.for_each(|(mean, _)| mean.copy_from_slice(&all));
        let mean_confidence = found.sum / rows;
        if self.decoupled && mean_confidence <= 0.0 {
            let problem = format!(
                "the mean confidence of the training rows is {mean_confidence:.3}, and it divides \
                 a distance: use `confidence=msp` or `confidence=gen`, which are positive"
            );
            return Err(Error::Fit { what: "cadref".into(), problem });
        }
        let (input, head) = (found.source.input.clone(), found.head.clone());
        Ok(Cadref { config: self.clone(), input, head, means, mean_confidence })
    }

    fn load(stored: &Stored<'_>) -> Result<Cadref> {
        #[derive(Deserialize)]
        struct Config {
            mean_confidence: f64,
        }
        let (config, input): (CadrefConfig, _) = Input::load(stored)?;
        let Config { mean_confidence } = stored.config()?;
        let head = load_head(stored.file, &stored.name("head."))?;
        let sound = mean_confidence > 0.0 || !config.decoupled;
        if head.dim() != input.dim || !sound || !mean_confidence.is_finite() {
            return Err(contradiction(stored));
        }
        let means = stored.file.f64(&stored.name("means"), &[head.classes(), input.dim])?;
        Ok(Cadref { config, input, head, means, mean_confidence })
    }
}

impl Cadref {
    /// One row, with its logits.
    fn score_row(&self, row: &[f32], logits: &[f32], scratch: &mut Vec<f64>) -> f64 {
        let (dim, y) = (self.input.dim, reduce::argmax(logits) as usize);
        let weight = &self.head.weight()[y * dim..][..dim];
        let mean = &self.means[y * dim..][..dim];
        // Four partial sums of each part: one would serialise the additions.
        let (mut with, mut against, mut size) = ([0.0; 4], [0.0; 4], [0.0; 4]);
        for (i, ((&v, w), m)) in row.iter().zip(weight).zip(mean).enumerate() {
            let sign = f64::from(u8::from(*w > 0.0)) - f64::from(u8::from(*w < 0.0));
            let v = f64::from(v);
            let along = (v - m) * sign;
            with[i % 4] += along.max(0.0);
            // A weight of zero has no sign: neither part counts its column,
            // but the distance as a whole does.
            let apart = if self.config.decoupled { (-along).max(0.0) } else { (v - m).abs() };
            against[i % 4] += apart;
            size[i % 4] += v.abs();
        }
        let total = |x: [f64; 4]| (x[0] + x[1]) + (x[2] + x[3]);
        let size = total(size).max(f64::MIN_POSITIVE);
        if !self.config.decoupled {
            return total(against) / size;
        }
        let confidence = self.config.confidence.of(logits, scratch).max(LEAST);
        total(with) / size / confidence + total(against) / size / self.mean_confidence
    }
}

impl Scorer for Cadref {
    fn name(&self) -> &'static str {
        "cadref"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let rows = self.input.stepped(batch);
        let logits = head_logits(&self.head, &rows);
        let mut scratch = Vec::new();
        let logits = logits.chunks_exact(self.head.classes());
        for ((o, row), logits) in out.iter_mut().zip(rows.chunks_exact(self.input.dim)).zip(logits)
        {
            *o = reduce::finite(self.score_row(row, logits, &mut scratch));
        }
    }

    fn section(&self) -> Section {
        let config = json!({
            "settings": self.config,
            "input_dim": self.input.input_dim,
            "mean_confidence": self.mean_confidence,
        });
        let shape = [self.head.classes(), self.input.dim];
        let means = Tensor::f64(shape, self.means.clone());
        Section::new("cadref", config)
            .with("", vec![("means".into(), means)])
            .with("head.", self.head.tensors())
            .with("", self.input.tensors())
    }
}
