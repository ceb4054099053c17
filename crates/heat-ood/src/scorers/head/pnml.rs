//! Regret of the predictive normalised maximum likelihood (`pnml`):
//! log Σ_c p_c / (p_c + (1 − p_c) p_c^g) / log C.
//!
//! z is normalised, p = softmax(Wz + b) of that z, g = x/(1 + x) with
//! x = zᵀ(ZᵀZ)⁺z, Z the normalised training rows. As in the authors' code, p
//! is that of the normalised features. One pass, O(N·D²); cost per row
//! O(D² + D·C).
//!
//! x = ‖Fz‖², rows of F the eigenvectors of ZᵀZ over the roots of their
//! eigenvalues; those below D·2⁻⁵²·λ_max count as zero. Products are in f32
//! but for eigenvalues below 10⁻⁶·λ_max, where rounding would show.
//!
//! Reference: Bibas et al., *Single Layer Predictive Normalized Maximum Likelihood for Out-of-Distribution Detection*, NeurIPS 2021.

use serde::Deserialize;

use super::with_head::WithHead;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::Tensor;
use crate::math::linalg::{eigh, product_nt};
use crate::math::matmul::{Keep, Packed, View, gemm, with_scratch};
use crate::math::reduce;
use crate::scorers::context::{By, ClassMoments, FitContext, StatisticRequest};
use crate::scorers::input::{contradiction, feature_settings, require_head};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `pnml`.
    PnmlConfig, normalize = true;
}

offer! { PnmlConfig => Pnml }

/// A fitted `pnml` scorer.
pub struct Pnml {
    config: PnmlConfig,
    input: WithHead,
    /// F, `[r, D]`.
    factor: Vec<f64>,
    /// Its first rows, transposed, as right operand.
    single: Packed,
}

impl Method for PnmlConfig {
    const NAME: &'static str = "pnml";
    type Scorer = Pnml;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        require_head("pnml", context.head)?;
        Ok(vec![ClassMoments::request("pnml", &context.source(self)?, By::All)?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Pnml> {
        let input = WithHead::fit("pnml", self, context)?;
        let dim = input.dim();
        let source = context.source(self)?;
        let found =
            context.find::<ClassMoments>(ClassMoments::request("pnml", &source, By::All)?)?;
        let n = found.moments.counts()[0] as f64;
        let (mean, mut gram) = found.moments.clone().finish();
        for (row, a) in gram.chunks_exact_mut(dim).zip(&mean) {
            row.iter_mut().zip(&mean).for_each(|(v, b)| *v = n * (*v + a * b));
        }
        let unfit = |problem: &str| Error::Fit { what: "pnml".into(), problem: problem.into() };
        let (values, mut factor) =
            eigh(&gram, dim).ok_or_else(|| unfit("the eigenvalue iteration did not converge"))?;
        let largest = values[0];
        if largest <= 0.0 {
            return Err(unfit("all training features are zero"));
        }
        let above = |least: f64| values.iter().filter(|v| **v > least * largest).count();
        factor.truncate(above(dim as f64 * f64::EPSILON) * dim);
        for (row, value) in factor.chunks_exact_mut(dim).zip(&values) {
            row.iter_mut().for_each(|v| *v /= value.sqrt());
        }
        Ok(Pnml::new(self.clone(), input, factor, above(1e-6)))
    }

    fn load(stored: &Stored<'_>) -> Result<Pnml> {
        #[derive(Deserialize)]
        struct Config {
            single: usize,
        }
        let Config { single } = stored.config()?;
        let (config, input) = WithHead::load(stored)?;
        let name = stored.name("factor");
        let shape = stored.file.shape(&name)?.to_vec();
        let fits = shape.len() == 2 && shape[1] == input.dim() && (1..=shape[0]).contains(&single);
        if !fits {
            return Err(contradiction(stored));
        }
        let factor = stored.file.f64(&name, &shape)?;
        Ok(Pnml::new(config, input, factor, single))
    }
}

impl Pnml {
    fn new(config: PnmlConfig, input: WithHead, factor: Vec<f64>, single: usize) -> Self {
        let dim = input.dim();
        let first: Vec<f32> = factor[..single * dim].iter().map(|&v| v as f32).collect();
        let single = Packed::new(View::rows(&first, dim).t(), dim, single);
        Pnml { config, input, factor, single }
    }

    /// x of each row.
    fn projections(&self, rows: &[f32]) -> Vec<f64> {
        let dim = self.input.dim();
        let (n, p) = (rows.len() / dim, self.single.n());
        let mut first = vec![0.0; n * p];
        let view = View::rows(rows, dim);
        with_scratch(|scratch| gemm(view, n, &self.single, &mut first, p, scratch, &mut Keep));
        let mut out: Vec<f64> = first.chunks_exact(p).map(reduce::norm2).collect();
        let rest = &self.factor[p * dim..];
        if !rest.is_empty() {
            let double: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
            let width = rest.len() / dim;
            let mut last = vec![0.0; n * width];
            product_nt(&double, rest, &mut last, dim);
            for (o, row) in out.iter_mut().zip(last.chunks_exact(width)) {
                *o += row.iter().map(|v| v * v).sum::<f64>();
            }
        }
        out
    }
}

/// log Σ_c p_c / (p_c + (1 − p_c) p_c^g), exact where one p is all but 1.
fn regret(logits: &[f32], g: f64) -> f64 {
    let top = reduce::argmax(logits) as usize;
    let largest = f64::from(logits[top]);
    let others = || logits.iter().enumerate().filter(|(c, _)| *c != top);
    let rest: f64 = others().map(|(_, &l)| (f64::from(l) - largest).exp()).sum();
    let log_sum = rest.ln_1p();
    // p/(p + (1−p)pᵍ) = 1/(1 + a), a = (1−p)·p^(g−1).
    let a = (rest / (1.0 + rest)) * ((1.0 - g) * log_sum).exp();
    let mut excess = -a / (1.0 + a);
    for (_, &l) in others() {
        let log_p = f64::from(l) - largest - log_sum;
        excess += 1.0 / (1.0 + (1.0 - log_p.exp()) * ((g - 1.0) * log_p).exp());
    }
    excess.ln_1p()
}

impl Scorer for Pnml {
    fn name(&self) -> &'static str {
        "pnml"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let rows = self.input.input.stepped(batch);
        let logits = self.input.logits(&rows);
        let classes = self.input.head.classes();
        let unit = if classes > 1 { (classes as f64).ln() } else { 1.0 };
        let parts = self.projections(&rows).into_iter().zip(logits.chunks_exact(classes));
        for (o, (x, logits)) in out.iter_mut().zip(parts) {
            *o = (regret(logits, x / (1.0 + x)) / unit) as f32;
        }
    }

    fn section(&self) -> Section {
        let dim = self.input.dim();
        let factor = Tensor::f64([self.factor.len() / dim, dim], self.factor.clone());
        let mut section = self.input.section("pnml", &self.config);
        section.config["single"] = self.single.n().into();
        section.with("", vec![("factor".into(), factor)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// mpmath 1.3 at 60 digits.
    #[test]
    fn regret_keeps_its_digits() {
        for (logits, g, want) in [
            (&[1.0f32, 0.5, -2.0][..], 0.25, 0.121_292_707_539_030_97),
            (&[-40.0, 0.0], 0.5, 2.061_153_611_817_672e-9),
            (&[0.0, -90.0, -100.0], 0.25, 4.845_767_876_021_1e-30),
        ] {
            let got = regret(logits, g);
            assert!((got / want - 1.0).abs() < 1e-12, "{logits:?}: {got}");
        }
    }
}
