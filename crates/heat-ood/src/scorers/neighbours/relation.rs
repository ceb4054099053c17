//! Neural relation graph (`relation`): −Σ_x s(z, x)ᵗ over the training rows x
//! with s(z, x) = max(0, cos(z, x))·p(z)·p(x) above `threshold`, t = `power`.
//!
//! p are the probabilities of a row. The bank holds x/‖x‖ and p(x):
//! 4·N·(D + C) bytes; cost per row O(N·(D + C)).
//!
//! *Differences from the published code*: −Σ in place of 1/(Σ + 10⁻⁶), which
//! ranks alike.
//!
//! Reference: Kim et al., *Neural Relation Graph: A Unified Framework for
//! Identifying Label Noise and Outlier Data*, NeurIPS 2023.

use serde_json::json;

use super::bank::{Bank, Order, PIECE, QUERIES};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::io::Tensor;
use crate::math::matmul::Aligned;
use crate::math::reduce;
use crate::observe::Event;
use crate::scorers::context::FitContext;
use crate::scorers::input::{
    Input, contradiction, feature_settings, head_logits, load_head, require_head,
};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `relation`.
    RelationConfig, normalize = false;
    /// Relations up to this one are left out.
    threshold: f64 = 0.03,
    /// Power t of a relation.
    power: f64 = 1.0,
}

offer! { RelationConfig => Relation }

/// A fitted `relation` scorer.
pub struct Relation {
    config: RelationConfig,
    input: Input,
    head: Head,
    /// x/‖x‖.
    features: Bank,
    /// p(x).
    probabilities: Bank,
}

/// Softmax of the logits of each row, `[n, C]`.
fn probabilities(head: &Head, rows: &[f32]) -> Vec<f32> {
    let mut p = head_logits(head, rows);
    p.chunks_exact_mut(head.classes()).for_each(reduce::softmax);
    p
}

impl Method for RelationConfig {
    const NAME: &'static str = "relation";
    type Scorer = Relation;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Relation> {
        let (train, head) = (context.train, context.head);
        let observer = &mut *context.observer;
        let head = require_head("relation", head)?;
        if !(0.0..1.0).contains(&self.threshold) {
            let problem = "relations lie between 0 and 1";
            return Err(Error::config("threshold", self.threshold, problem));
        }
        if !(self.power > 0.0 && self.power.is_finite()) {
            return Err(Error::config("power", self.power, "must be a positive number"));
        }
        let input = Input::fit(self, train)?;
        let head = input.head(head)?;
        observer.on(Event::Begin { task: "bank training rows", total: train.len() as u64 });
        let features = Bank::build(train.len(), input.dim, |range| {
            let mut rows = input.read(train, range)?;
            rows.chunks_exact_mut(input.dim).for_each(reduce::normalize);
            Ok(rows)
        })?;
        let probabilities = Bank::build(train.len(), head.classes(), |range| {
            Ok(probabilities(&head, &input.read(train, range)?))
        })?;
        observer.on(Event::End);
        Ok(Relation { config: self.clone(), input, head, features, probabilities })
    }

    fn load(stored: &Stored<'_>) -> Result<Relation> {
        let (config, input): (RelationConfig, _) = Input::load(stored)?;
        let head = load_head(stored.file, &stored.name("head."))?;
        let name = stored.name("features");
        let shape = stored.file.shape(&name)?.to_vec();
        if shape.len() != 2 || shape[1] != input.dim || head.dim() != input.dim {
            return Err(contradiction(stored));
        }
        let features = Bank::of(&stored.file.f32(&name, &shape)?, input.dim);
        let shape = [shape[0], head.classes()];
        let p = stored.file.f32(&stored.name("probabilities"), &shape)?;
        let probabilities = Bank::of(&p, head.classes());
        Ok(Relation { config, input, head, features, probabilities })
    }
}

/// Σ over a piece of the relations that count; the orders are negated products,
/// so that the signs cancel.
#[inline(always)]
fn total(features: &[f32], probabilities: &[f32], threshold: f32, power: f32) -> f64 {
    let mut sums = [0.0f32; 16];
    let relation = |f: f32, p: f32| f.min(0.0) * p;
    let (wholes, rest) = features.as_chunks::<16>();
    let (other, other_rest) = probabilities.as_chunks::<16>();
    for (f, p) in wholes.iter().zip(other) {
        for ((s, f), p) in sums.iter_mut().zip(f).zip(p) {
            let r = relation(*f, *p);
            let r = if r > threshold { r } else { 0.0 };
            *s += if power == 1.0 { r } else { r.powf(power) };
        }
    }
    for (f, p) in rest.iter().zip(other_rest) {
        let r = relation(*f, *p);
        sums[0] += if r > threshold { r.powf(power) } else { 0.0 };
    }
    sums.iter().map(|&s| f64::from(s)).sum()
}

impl Relation {
    /// Scores of stepped rows, which are normalised in place.
    fn score_rows(&self, rows: &mut [f32], out: &mut [f32]) {
        let p = probabilities(&self.head, rows);
        rows.chunks_exact_mut(self.input.dim).for_each(reduce::normalize);
        let mut sums = vec![0.0f64; out.len()];
        let (mut a, mut b, mut scratch) =
            (Aligned::default(), Aligned::default(), Aligned::default());
        let arch = crate::math::arch();
        let (threshold, power) = (self.config.threshold as f32, self.config.power as f32);
        for i in 0..self.features.pieces() {
            let width = self.features.orders(i, rows, Order::Product, &mut a, &mut scratch);
            self.probabilities.orders(i, &p, Order::Product, &mut b, &mut scratch);
            let pairs = a.chunks_exact(PIECE).zip(b.chunks_exact(PIECE));
            for (sum, (f, p)) in sums.iter_mut().zip(pairs) {
                *sum += arch.dispatch(
                    #[inline(always)]
                    || total(&f[..width], &p[..width], threshold, power),
                );
            }
        }
        out.iter_mut().zip(sums).for_each(|(o, sum)| *o = -sum as f32);
    }
}

impl Scorer for Relation {
    fn name(&self) -> &'static str {
        "relation"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let mut rows = self.input.stepped(batch).into_owned();
        let blocks = rows.chunks_mut(QUERIES * self.input.dim);
        for (rows, out) in blocks.zip(out.chunks_mut(QUERIES)) {
            self.score_rows(rows, out);
        }
    }

    fn section(&self) -> Section {
        let config = json!({ "settings": self.config, "input_dim": self.input.input_dim });
        let n = self.features.len();
        let features = Tensor::f32([n, self.input.dim], self.features.to_rows());
        let probabilities = Tensor::f32([n, self.head.classes()], self.probabilities.to_rows());
        Section::new("relation", config)
            .with("", vec![("features".into(), features), ("probabilities".into(), probabilities)])
            .with("head.", self.head.tensors())
            .with("", self.input.tensors())
    }
}
