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

use super::bank::{Bank, Order, QUERIES, gather};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::io::{Floats, Tensor};
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
        let n = context.rows();
        let head = require_head("relation", context.head)?;
        if !(0.0..1.0).contains(&self.threshold) {
            let problem = "relations lie between 0 and 1";
            return Err(Error::config("threshold", self.threshold, problem));
        }
        if !(self.power > 0.0 && self.power.is_finite()) {
            return Err(Error::config("power", self.power, "must be a positive number"));
        }
        let source = context.source(self)?;
        let stored = context.stepped_rows(&source)?;
        let input = source.input;
        let head = input.head(head)?;
        context.observer.on(Event::Begin { task: "bank training rows", total: n as u64 });
        let features = gather(n, input.dim, |range| {
            let mut rows = stored.read(range)?;
            rows.chunks_exact_mut(input.dim).for_each(reduce::normalize);
            Ok(rows)
        })?;
        let p = gather(n, head.classes(), |range| Ok(probabilities(&head, &stored.read(range)?)))?;
        context.observer.on(Event::End);
        Ok(Relation::new(self.clone(), input, head, [features, p]))
    }

    fn load(stored: &Stored<'_>) -> Result<Relation> {
        let (config, input): (RelationConfig, _) = Input::load(stored)?;
        let head = load_head(stored.file, &stored.name("head."))?;
        let name = stored.name("features");
        let shape = stored.file.shape(&name)?.to_vec();
        if shape.len() != 2 || shape[1] != input.dim || head.dim() != input.dim {
            return Err(contradiction(stored));
        }
        let features = stored.file.floats(&name, &shape)?;
        let shape = [shape[0], head.classes()];
        let p = stored.file.floats(&stored.name("probabilities"), &shape)?;
        Ok(Relation::new(config, input, head, [features, p]))
    }
}

/// Probabilities below this count as zero in products, which would be subnormal:
/// those take a hundred times as long, and change nothing of relations above the
/// threshold.
const NEGLIGIBLE: f32 = 1e-18;

/// Partial sums of a row's relations: one would lose more to rounding.
const SUMS: usize = 16;

/// Add to each query's sums its relations to the rows of a piece; the orders
/// `[rows, queries]` are negated products, so that the signs cancel.
#[inline(always)]
fn add(sums: &mut [f32], orders: [&[f32]; 2], queries: usize, threshold: f32, power: f32) {
    let [features, probabilities] = orders.map(|o| o.chunks_exact(queries));
    let whole = features.len() / SUMS * SUMS;
    for (i, (features, probabilities)) in features.zip(probabilities).enumerate() {
        let at = if i < whole { i % SUMS } else { 0 };
        let sums = &mut sums[at * queries..][..queries];
        for ((s, f), p) in sums.iter_mut().zip(features).zip(probabilities) {
            let r = f.min(0.0) * p;
            let r = if r > threshold { r } else { 0.0 };
            *s += if power == 1.0 { r } else { r.powf(power) };
        }
    }
}

impl Relation {
    fn new(
        config: RelationConfig,
        input: Input,
        head: Head,
        [features, probabilities]: [Floats; 2],
    ) -> Self {
        let features = Bank::new(features, input.dim, Order::Product);
        let probabilities = Bank::new(probabilities, head.classes(), Order::Product);
        let probabilities = probabilities.at_least(NEGLIGIBLE);
        Relation { config, input, head, features, probabilities }
    }

    /// Scores of stepped rows, which are normalised in place.
    fn score_rows(&self, rows: &mut [f32], out: &mut [f32]) {
        let p = self.probabilities.pack(&probabilities(&self.head, rows));
        rows.chunks_exact_mut(self.input.dim).for_each(reduce::normalize);
        let (z, queries) = (self.features.pack(rows), out.len());
        let mut totals = vec![0.0f64; queries];
        let mut sums = vec![0.0f32; SUMS * queries];
        let (mut a, mut b, mut scratch) =
            (Aligned::default(), Aligned::default(), Aligned::default());
        let arch = crate::math::arch();
        let (threshold, power) = (self.config.threshold as f32, self.config.power as f32);
        for piece in self.features.pieces() {
            self.features.orders(piece.clone(), &z, &mut a, &mut scratch);
            self.probabilities.orders(piece.clone(), &p, &mut b, &mut scratch);
            let orders = [&a, &b].map(|o| &o[..piece.len() * queries]);
            sums.fill(0.0);
            arch.dispatch(
                #[inline(always)]
                || add(&mut sums, orders, queries, threshold, power),
            );
            for (i, total) in totals.iter_mut().enumerate() {
                *total += sums[i..].iter().step_by(queries).map(|s| f64::from(*s)).sum::<f64>();
            }
        }
        out.iter_mut().zip(totals).for_each(|(o, total)| *o = -total as f32);
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
        let features = Tensor::f32([n, self.input.dim], self.features.rows().clone());
        let probabilities =
            Tensor::f32([n, self.head.classes()], self.probabilities.rows().clone());
        Section::new("relation", config)
            .with("", vec![("features".into(), features), ("probabilities".into(), probabilities)])
            .with("head.", self.head.tensors())
            .with("", self.input.tensors())
    }
}
