//! Fraction of a row in the principal space (`neco`): −(‖P x‖/‖x‖) · max logits.
//!
//! x is z, every column of it centred and divided by its standard deviation on
//! the training set (`standardize=false`: centred only); the rows of P are the
//! `dim` directions of largest variance of x. `max_logit=false` leaves out the
//! factor, as the authors do for ResNets. The paper tunes `dim`; C is the size
//! of the space that collapsed classes span (C − 1), and one. One pass,
//! O(N·D²); cost per row O(D·(`dim` + C)).
//!
//! Reference: Ben Ammar et al., *NECO: NEural Collapse Based Out-of-distribution Detection*, ICLR 2024.

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::Tensor;
use crate::math::linalg::eigh;
use crate::math::matmul::{Keep, Packed, View, gemm, with_scratch};
use crate::math::reduce;
use crate::scorers::context::{By, ClassMoments, FitContext, StatisticRequest};
use crate::scorers::head::with_head::WithHead;
use crate::scorers::input::{contradiction, feature_settings, require_head};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `neco`.
    NecoConfig, normalize = false;
    /// Directions of the principal space; by default C, or half the columns
    /// where that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    dim: Option<usize> = None,
    /// Divide every column by its standard deviation.
    standardize: bool = true,
    /// Multiply by the largest logit.
    max_logit: bool = true,
}

offer! { NecoConfig => Neco }

/// A fitted `neco` scorer.
pub struct Neco {
    config: NecoConfig,
    input: WithHead,
    mean: Vec<f64>,
    /// One over the standard deviations.
    scale: Vec<f64>,
    /// P, `[dim, D]`.
    principal: Vec<f32>,
    /// Pᵀ, as right operand.
    packed: Packed,
}

impl Method for NecoConfig {
    const NAME: &'static str = "neco";
    type Scorer = Neco;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        require_head("neco", context.head)?;
        Ok(vec![ClassMoments::request("neco", &context.source(self)?, By::All)?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Neco> {
        let input = WithHead::fit("neco", self, context)?;
        let dim = input.dim();
        let most = self.dim.unwrap_or(input.head.classes().min(dim / 2).max(1));
        if most == 0 || most > dim {
            return Err(Error::config("dim", most, format!("must lie in 1..={dim}")));
        }
        let source = context.source(self)?;
        let found =
            context.find::<ClassMoments>(ClassMoments::request("neco", &source, By::All)?)?;
        let (mean, mut covariance) = found.moments.clone().finish();
        let spread = |j: usize| covariance[j * dim + j].max(0.0).sqrt();
        // A column that never changes has no spread to be divided by.
        let one_over = |s: f64| if self.standardize && s > 0.0 { 1.0 / s } else { 1.0 };
        let scale: Vec<f64> = (0..dim).map(|j| one_over(spread(j))).collect();
        for (row, a) in covariance.chunks_exact_mut(dim).zip(&scale) {
            row.iter_mut().zip(&scale).for_each(|(v, b)| *v *= a * b);
        }
        let (_, vectors) = eigh(&covariance, dim).ok_or_else(|| Error::Fit {
            what: "neco".into(),
            problem: "the decomposition of the covariance did not converge".into(),
        })?;
        let principal = vectors[..most * dim].iter().map(|&v| v as f32).collect();
        Ok(Neco::new(self.clone(), input, mean, scale, principal))
    }

    fn load(stored: &Stored<'_>) -> Result<Neco> {
        let (config, input) = WithHead::load(stored)?;
        let dim = input.dim();
        let shape = stored.file.shape(&stored.name("principal"))?.to_vec();
        if shape.len() != 2 || shape[0] == 0 || shape[1] != dim {
            return Err(contradiction(stored));
        }
        let get = |name: &str| stored.file.f64(&stored.name(name), &[dim]);
        let (mean, scale) = (get("mean")?, get("scale")?);
        let principal = stored.file.f32(&stored.name("principal"), &shape)?;
        Ok(Neco::new(config, input, mean, scale, principal))
    }
}

impl Neco {
    fn new(
        config: NecoConfig,
        input: WithHead,
        mean: Vec<f64>,
        scale: Vec<f64>,
        principal: Vec<f32>,
    ) -> Self {
        let dim = input.dim();
        let packed = Packed::new(View::rows(&principal, dim).t(), dim, principal.len() / dim);
        Neco { config, input, mean, scale, principal, packed }
    }

    /// x of each row.
    fn standardized(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = rows.to_vec();
        for row in out.chunks_exact_mut(self.input.dim()) {
            for ((v, m), s) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *v = ((f64::from(*v) - m) * s) as f32;
            }
        }
        out
    }
}

impl Scorer for Neco {
    fn name(&self) -> &'static str {
        "neco"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let (dim, n, p) = (self.input.dim(), out.len(), self.packed.n());
        let rows = self.input.input.stepped(batch);
        let x = self.standardized(&rows);
        let mut inside = vec![0.0; n * p];
        let view = View::rows(&x, dim);
        with_scratch(|scratch| gemm(view, n, &self.packed, &mut inside, p, scratch, &mut Keep));
        let parts = x.chunks_exact(dim).zip(inside.chunks_exact(p));
        for (o, (x, inside)) in out.iter_mut().zip(parts) {
            let length = reduce::norm2(x).sqrt().max(f64::MIN_POSITIVE);
            *o = -(reduce::norm2(inside).sqrt() / length) as f32;
        }
        if self.config.max_logit {
            let logits = self.input.logits(&rows);
            for (o, l) in out.iter_mut().zip(logits.chunks_exact(self.input.head.classes())) {
                *o *= reduce::max(l);
            }
        }
    }

    fn section(&self) -> Section {
        let dim = self.input.dim();
        let tensors = vec![
            ("mean".into(), Tensor::f64([dim], self.mean.clone())),
            ("scale".into(), Tensor::f64([dim], self.scale.clone())),
            ("principal".into(), Tensor::f32([self.packed.n(), dim], self.principal.clone())),
        ];
        self.input.section("neco", &self.config).with("", tensors)
    }
}
