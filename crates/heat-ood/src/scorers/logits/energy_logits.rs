//! Energy of the logits (`el`): E(z) = −logsumexp(logits).
//!
//! As a prior: z are unnormalised `avg` features (`[n, D]`), logits = zWᵀ + b,
//! ∇E = −softmax(logits)·W, cost O(n·D·C). It has no sampler: chains start
//! from `random_normal`, as published.
//!
//! Reference: Liu et al., *Energy-based Out-of-distribution Detection*, NeurIPS 2020.

use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet, Head, Pooling, Preprocessing};
use crate::math::matmul::{Keep, Packed, View, gemm};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::logit_source::{LogitSource, logits_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Form, Prior, Scorer, Scratch, Section, Stored};

logits_settings! {
    /// Settings of `el`.
    EnergyLogitsConfig;
}

offer! { EnergyLogitsConfig => EnergyLogits }

/// A fitted `el` scorer.
pub struct EnergyLogits {
    source: LogitSource,
    prior: Option<Gradient>,
    steps: Preprocessing,
}

struct Gradient {
    head: Head,
    /// W, `[C, D]`, as right operand.
    back: Packed,
}

impl Gradient {
    fn new(head: &Head) -> Self {
        let back = Packed::new(View::rows(head.weight(), head.dim()), head.classes(), head.dim());
        Gradient { head: head.clone(), back }
    }
}

impl EnergyLogits {
    fn new(source: LogitSource) -> Self {
        let prior = source.head().map(Gradient::new);
        EnergyLogits { source, prior, steps: Preprocessing::default() }
    }

    /// Whether the head is known, so that it can serve as a prior.
    pub fn has_head(&self) -> bool {
        self.prior.is_some()
    }
}

impl Method for EnergyLogitsConfig {
    const NAME: &'static str = "el";
    type Scorer = EnergyLogits;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<EnergyLogits> {
        let source = context.logit_source("el", self.into())?;
        Ok(EnergyLogits::new(source))
    }

    fn load(stored: &Stored<'_>) -> Result<EnergyLogits> {
        Ok(EnergyLogits::new(LogitSource::load(stored)?))
    }
}

/// The energy of each row of logits.
pub(in crate::scorers) fn energies(logits: &[f32], classes: usize, out: &mut [f32]) {
    let rows = reduce::logsumexp_rows(logits, classes);
    out.iter_mut().zip(rows).for_each(|(o, lse)| *o = -lse as f32);
}

/// Turn logits into the energy's gradient with respect to them.
pub(in crate::scorers) fn energy_gradient(logits: &mut [f64]) {
    let total = reduce::logsumexp(logits.iter().copied());
    logits.iter_mut().for_each(|l| *l = -(*l - total).exp());
}

impl Scorer for EnergyLogits {
    fn name(&self) -> &'static str {
        "el"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.source.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        energies(&self.source.logits(batch), self.source.classes(), out);
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.source.gradient(batch, scale, out, energy_gradient)
    }

    fn section(&self) -> Section {
        self.source.section("el")
    }
}

impl Prior for EnergyLogits {
    fn pooling(&self) -> Pooling {
        Pooling::Avg
    }

    fn steps(&self) -> &Preprocessing {
        &self.steps
    }

    fn dim(&self) -> usize {
        self.prior.as_ref().map_or(0, |p| p.head.dim())
    }

    fn energy(&self, z: &[f32], out: &mut [f32]) {
        let Some(Gradient { head, .. }) = &self.prior else {
            return;
        };
        let mut scratch = Scratch::default();
        let mut logits = vec![0.0; out.len() * head.classes()];
        head.logits(z, &mut logits, &mut scratch.gemm);
        energies(&logits, head.classes(), out);
    }

    fn form(&self) -> Option<Form> {
        let Gradient { head, .. } = self.prior.as_ref()?;
        Some(Form::Logits { weight: head.weight().to_vec(), bias: head.bias().to_vec() })
    }

    fn add_gradient(&self, z: &[f32], scale: f32, grad: &mut [f32], scratch: &mut Scratch) {
        let Some(Gradient { head, back }) = &self.prior else {
            return;
        };
        let (classes, dim) = (head.classes(), head.dim());
        let n = z.len() / dim;
        scratch.a.reserve(n * classes);
        scratch.b.reserve(n * dim);
        let p = &mut scratch.a[..n * classes];
        head.logits(z, p, &mut scratch.gemm);
        p.chunks_exact_mut(classes).for_each(reduce::softmax);
        let product = &mut scratch.b[..n * dim];
        gemm(View::rows(p, classes), n, back, product, dim, &mut scratch.gemm, &mut Keep);
        for (g, v) in grad.iter_mut().zip(product.iter()) {
            *g -= scale * *v;
        }
    }
}
