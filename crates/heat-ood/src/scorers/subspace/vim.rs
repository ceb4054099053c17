//! Virtual-logit matching (`vim`): α‖Rᵀ(z−o)‖₂ − logsumexp(Wz + b).
//!
//! o = −W⁺b is where all logits vanish; R spans all but the `principal_dim`
//! directions of largest second moment about o; α brings the residual's norm to the scale
//! of the largest logit: mean max(Wz + b) over mean ‖Rᵀ(z−o)‖, on the training
//! set. That is Wang et al.'s, `center=origin`. HEAT's published code (`center=mean`) takes the
//! directions of largest variance about the mean, and scores with the logits of
//! z − o, though its α comes from those of z. Two passes over the training set (covariance, then
//! α), O(N·D²); cost per row O(D·(min(p, D − p) + C)).
//!
//! The residual's norm is computed from R in single precision, or from the p
//! principal directions P as ‖Rᵀx‖² = ‖x‖² − ‖Pᵀx‖² in f64 where these are
//! fewer than a third.
//!
//! As a prior: ∇E = α·R Rᵀ(z−o)/‖Rᵀ(z−o)‖ − Wᵀ softmax(Wz + b) (of W(z−o) + b for the mean's).
//! It has no sampler.
//!
//! Reference: Wang et al., *ViM: Out-of-Distribution with Virtual-Logit Matching*, CVPR 2022.

use std::slice::from_mut;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

pub use super::principal::Center;
use super::principal::{self, Subspace};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head, Pooling, Preprocessing};
use crate::math::matmul::{Keep, Packed, View, gemm};
use crate::math::reduce;
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::{Input, contradiction, feature_settings, load_head, require_head};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Prior, Scorer, Scratch, Section, Stored};

feature_settings! {
    /// Settings of `vim`.
    VimConfig, normalize = false;
    /// Directions of largest variance that do not count as residual; by
    /// default 256, 400 or 256 as there are fewer than 100, fewer than 1000 or
    /// more classes (METHOD §3), or half the dimension where that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    principal_dim: Option<usize> = None,
    /// What variance is taken about, and where logits are taken: `origin` (Wang et al.) or
    /// `mean` (HEAT's published code).
    center: Center = Center::Origin,
}

offer! { VimConfig => Vim }

/// A fitted `vim` scorer.
pub struct Vim {
    config: VimConfig,
    input: Input,
    head: Head,
    /// W, `[C, D]`, as right operand.
    back: Packed,
    /// o and P.
    space: Subspace,
    alpha: f64,
}

/// Sums over the training rows of their largest logits and of the norms of their residuals, whose
/// ratio is α.
struct Sizes {
    vim: Arc<Vim>,
    source: Source,
    largest: f64,
    norm: f64,
}

impl Statistic for Sizes {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        use crate::math::parallel::{Pieces, Slices};
        let vim = &*self.vim;
        let sums = |rows: &[f32]| -> (f64, f64) {
            let mut scratch = Scratch::default();
            let logits = vim.logits(rows, &mut scratch);
            let logits = logits.chunks_exact(vim.head.classes());
            let largest = logits.map(|l| f64::from(reduce::max(l))).sum();
            let centred = vim.space.centred(rows);
            (largest, vim.space.outside(&centred).iter().sum())
        };
        let rows = block.rows(&self.source)?;
        for (l, n) in rows.par_chunks(256 * self.source.dim).map(sums).collect() {
            (self.largest, self.norm) = (self.largest + l, self.norm + n);
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Sums(from_mut(&mut self.largest)), Slot::Sums(from_mut(&mut self.norm))]
    }
}

impl Method for VimConfig {
    const NAME: &'static str = "vim";
    type Scorer = Vim;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        require_head("vim", context.head)?;
        Ok(vec![principal::request("vim", &context.source(self)?)?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Vim> {
        let source = context.source(self)?;
        let (count, center) = (self.principal_dim, self.center);
        let (space, head) = Subspace::of_head("vim", count, center, &source, context)?;
        Vim::new(self.clone(), source.input.clone(), head, space, 1.0).fit_alpha(source, context)
    }

    fn load(stored: &Stored<'_>) -> Result<Vim> {
        #[derive(Deserialize)]
        struct Config {
            principal_dim: usize,
            alpha: f64,
        }
        let (mut config, input) = Input::load::<VimConfig>(stored)?;
        config.center = Center::stored(stored, config.center)?;
        let c: Config = stored.config()?;
        let head = load_head(stored.file, &stored.name("head."))?;
        if head.dim() != input.dim || !c.alpha.is_finite() || c.principal_dim >= input.dim {
            return Err(contradiction(stored));
        }
        let space = Subspace::load(stored, input.dim, c.principal_dim)?;
        Ok(Vim::new(config, input, head, space, c.alpha))
    }
}

impl Vim {
    fn new(config: VimConfig, input: Input, head: Head, space: Subspace, alpha: f64) -> Self {
        let back = Packed::new(View::rows(head.weight(), head.dim()), head.classes(), head.dim());
        Vim { config, input, head, back, space, alpha }
    }

    /// α: the factor on the residual's norm.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    fn fit_alpha(self, source: Source, context: &mut FitContext<'_>) -> Result<Self> {
        let vim = Arc::new(self);
        let key = format!("vim scale {} {}", json!(vim.config), source.key);
        let (largest, norm) = (0.0, 0.0);
        let statistic = Box::new(Sizes { vim: Arc::clone(&vim), source, largest, norm });
        let found = context.find::<Sizes>(StatisticRequest { key, statistic })?;
        let (largest, norm) = (found.largest, found.norm);
        let alpha = largest / norm;
        if norm <= 0.0 || !alpha.is_finite() {
            return Err(Error::Fit {
                what: "vim".into(),
                problem: "the training features have no residual outside the principal space: \
                          choose a smaller `principal_dim`"
                    .into(),
            });
        }
        let Vim { config, input, head, back, space, .. } = &*vim;
        Ok(Vim {
            config: config.clone(),
            input: input.clone(),
            head: head.clone(),
            back: back.clone(),
            space: space.clone(),
            alpha,
        })
    }

    fn logits(&self, rows: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let mut logits = vec![0.0; rows.len() / self.input.dim * self.head.classes()];
        self.head.logits(rows, &mut logits, &mut scratch.gemm);
        logits
    }

    /// Rows whose logits are taken, of the rows and the same less o.
    fn at<'a>(&self, rows: &'a [f32], centred: &'a [f32]) -> &'a [f32] {
        match self.config.center {
            Center::Origin => rows,
            Center::Mean => centred,
        }
    }

    fn energies(&self, rows: &[f32], out: &mut [f32], scratch: &mut Scratch) {
        let centred = self.space.centred(rows);
        let norms = self.space.outside(&centred);
        let logits = self.logits(self.at(rows, &centred), scratch);
        let energies = reduce::logsumexp_rows(&logits, self.head.classes());
        for ((o, norm), lse) in out.iter_mut().zip(norms).zip(energies) {
            *o = (self.alpha * norm - lse) as f32;
        }
    }
}

impl Scorer for Vim {
    fn name(&self) -> &'static str {
        "vim"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.energies(&self.input.stepped(batch), out, &mut Scratch::default());
    }

    fn section(&self) -> Section {
        let config = json!({
            "settings": self.config,
            "input_dim": self.input.input_dim,
            "principal_dim": self.space.count(),
            "alpha": self.alpha,
        });
        Section::new("vim", config)
            .with("", self.space.tensors())
            .with("head.", self.head.tensors())
            .with("", self.input.tensors())
    }
}

impl Prior for Vim {
    fn pooling(&self) -> Pooling {
        self.config.pooling
    }

    fn steps(&self) -> &Preprocessing {
        &self.input.steps
    }

    fn dim(&self) -> usize {
        self.input.dim
    }

    fn energy(&self, z: &[f32], out: &mut [f32]) {
        self.energies(z, out, &mut Scratch::default());
    }

    fn add_gradient(&self, z: &[f32], scale: f32, grad: &mut [f32], scratch: &mut Scratch) {
        let (dim, classes) = (self.input.dim, self.head.classes());
        let n = z.len() / dim;
        let centred = self.space.centred(z);
        let (norms, residuals) = (self.space.outside(&centred), self.space.residuals(&centred));
        let mut probs = self.logits(self.at(z, &centred), scratch);
        probs.chunks_exact_mut(classes).for_each(reduce::softmax);
        let mut from_logits = vec![0.0; n * dim];
        let probs = View::rows(&probs, classes);
        gemm(probs, n, &self.back, &mut from_logits, dim, &mut scratch.gemm, &mut Keep);
        let rows = residuals.chunks_exact(dim).zip(from_logits.chunks_exact(dim)).zip(norms);
        for (grad, ((residual, from_logits), norm)) in grad.chunks_exact_mut(dim).zip(rows) {
            let factor = if norm > 0.0 { self.alpha / norm } else { 0.0 };
            for ((g, r), l) in grad.iter_mut().zip(residual).zip(from_logits) {
                *g += scale * (factor * r - f64::from(*l)) as f32;
            }
        }
    }
}
