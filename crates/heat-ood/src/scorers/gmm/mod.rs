//! Class-conditional Gaussian mixture (`gmm`):
//! E(z) = −log Σ_k π_k N(z; μ_k, Σ).
//!
//! Class means μ_k `[K, D]`, one covariance Σ `[D, D]` shared by all classes,
//! π_k the class frequencies (METHOD §3). One pass over the training set,
//! O(N·D²), in f64.
//!
//! Everything goes through whitened coordinates w = L⁻¹(z − m), Σ = LLᵀ, m the
//! mean of the training set: distances are ‖w − L⁻¹(μ_k − m)‖². Scores are
//! computed in f64, because Σ has condition numbers of 10⁸ and more. The
//! gradient that the sampler needs, ∇E = L⁻ᵀ(w − Σ_k r_k w_k) with
//! responsibilities r_k, is computed in f32: two products of O(D²) and two of
//! O(K·D) per row, never a `[B, K, D]` array.
//!
//! *Differences from the published code*: f64 instead of f32; a covariance that
//! is not positive definite gets a ridge that is reported, instead of failing.
//!
//! Reference: Lee et al., *A Simple Unified Framework for Detecting
//! Out-of-Distribution Samples and Adversarial Attacks*, NeurIPS 2018; HEAT §3.

mod prior;

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::json;

use prior::Fast;

use super::{Prior, Scorer, Section, Stored};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, Needs, Pooling, Steps, StepsConfig, Tensor};
use crate::math::linalg::{cholesky, invert_lower, product_nt};
use crate::math::moments::Moments;
use crate::math::{blocks, parallel};
use crate::observe::{Event, Observer};

/// Ridge that the published implementation always adds.
const RIDGE: f64 = 1e-12;

/// Most numbers in the class means: 2 GiB in f64.
const MAX_MEANS: usize = 1 << 28;

/// Settings of `gmm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GmmConfig {
    /// Which pooled features.
    pub pooling: Pooling,
    /// Divide each row by its L2 norm first.
    pub normalize: bool,
    /// Clip at this quantile first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub react: Option<f64>,
    /// Project on this many principal components first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<usize>,
    /// Whiten the components.
    pub whiten: bool,
    /// Keep only the diagonal of the covariance.
    pub diagonal: bool,
}

impl Default for GmmConfig {
    fn default() -> Self {
        GmmConfig {
            pooling: Pooling::Avg,
            normalize: true,
            react: None,
            pca: None,
            whiten: false,
            diagonal: false,
        }
    }
}

/// A fitted Gaussian mixture.
pub struct Gmm {
    config: GmmConfig,
    input_dim: usize,
    steps: Steps,
    dim: usize,
    ridge: f64,
    means: Vec<f64>,
    scale_tril: Vec<f64>,
    probs: Vec<f64>,
    // Derived.
    centre: Vec<f64>,
    inverse: Vec<f64>,
    white_means: Vec<f64>,
    log_det: f64,
    fast: OnceLock<Fast>,
}

impl GmmConfig {
    /// The feature steps among the settings.
    pub fn steps(&self) -> StepsConfig {
        StepsConfig {
            react: self.react,
            normalize: self.normalize,
            pca: self.pca,
            whiten: self.whiten,
        }
    }

    /// Fit on a labelled training set with `classes` classes (`None`: one
    /// more than the largest label).
    ///
    /// # Errors
    /// If labels are absent or out of range, a class has fewer than two rows,
    /// a value is not finite, or the covariance stays singular.
    pub fn fit(
        &self,
        train: &FeatureSet,
        classes: Option<usize>,
        observer: &mut dyn Observer,
    ) -> Result<Gmm> {
        let field = Field::Features(self.pooling);
        let input_dim = train.require(field)?;
        let classes = classes.map_or_else(|| train.classes(), Ok)?;
        let steps = self.steps().fit(train, self.pooling)?;
        let dim = steps.out_dim(input_dim);
        if classes.saturating_mul(dim) > MAX_MEANS {
            let problem = format!("{classes} classes in {dim} dimensions are too many means");
            return Err(Error::Fit { what: "gmm".into(), problem });
        }
        let mut moments = Moments::new(dim, classes);
        let mut rows = Vec::new();
        observer.on(Event::Begin {
            task: &format!("fit gmm on {}", self.pooling.name()),
            total: train.len() as u64,
        });
        for range in blocks(train.len(), Moments::block_rows(input_dim)) {
            let labels = train.labels(range.clone(), classes)?;
            rows.resize(range.len() * input_dim, 0.0);
            train.read_parallel(field, range.clone(), &mut rows)?;
            let stepped;
            let rows = if steps.pca.is_some() {
                stepped = steps.apply(&rows, input_dim);
                &stepped
            } else {
                steps.clip_and_normalize(&mut rows, input_dim);
                &rows
            };
            parallel::run(|| moments.update(rows, &labels));
            observer.on(Event::Advance { done: range.end as u64, loss: None });
        }
        observer.on(Event::End);
        self.finish(moments, steps, input_dim, train, observer)
    }

    fn finish(
        &self,
        moments: Moments,
        steps: Steps,
        input_dim: usize,
        train: &FeatureSet,
        observer: &mut dyn Observer,
    ) -> Result<Gmm> {
        let small = moments.counts().iter().position(|&n| n < 2);
        if let Some(k) = small {
            return Err(Error::Fit {
                what: "gmm".into(),
                problem: format!(
                    "class {k} has {} row(s) in {}; every class needs at least 2: \
                     add rows or remove the class (labels are 0..C without gaps; C is that of the \
                     head or dataset, else the largest label plus one)",
                    moments.counts()[k],
                    train.name()
                ),
            });
        }
        let probs = moments.counts().iter().map(|&n| n as f64 / train.len() as f64).collect();
        let (means, mut covariance) = moments.finish();
        let dim = steps.out_dim(input_dim);
        if self.diagonal {
            for (i, row) in covariance.chunks_exact_mut(dim).enumerate() {
                for (j, v) in row.iter_mut().enumerate() {
                    *v = if i == j { *v } else { 0.0 };
                }
            }
        }
        let (scale_tril, ridge) = factor(&mut covariance, dim, train.len(), observer)?;
        drop(covariance);
        Ok(Gmm::new(self.clone(), input_dim, steps, means, scale_tril, probs, ridge))
    }
}

/// L of Σ + ridge·I, the ridge raised tenfold until the factor is sound.
fn factor(
    covariance: &mut [f64],
    dim: usize,
    rows: usize,
    observer: &mut dyn Observer,
) -> Result<(Vec<f64>, f64)> {
    let diagonal = |c: &[f64]| (0..dim).map(|i| c[i * dim + i]).fold(0.0, f64::max);
    let largest = diagonal(covariance);
    if largest == 0.0 {
        let problem = "the rows of each class are all equal; are the features constant?";
        return Err(Error::Fit { what: "gmm".into(), problem: problem.into() });
    }
    let (mut ridge, mut added) = (RIDGE, 0.0);
    loop {
        for i in 0..dim {
            covariance[i * dim + i] += ridge - added;
        }
        added = ridge;
        let factor = cholesky(covariance, dim);
        let pivot =
            |l: &Vec<f64>| (0..dim).map(|i| l[i * dim + i].powi(2)).fold(f64::MAX, f64::min);
        // Pivots below the rounding of the sums are noise, not variances.
        let noise = dim as f64 * f64::EPSILON * largest;
        if let Some(l) = factor.filter(|l| pivot(l) > noise) {
            if ridge > RIDGE || pivot(&l) < 10.0 * RIDGE {
                observer.on(Event::Warning(&format!(
                    "the covariance is singular ({rows} rows, {dim} dimensions): \
                     a ridge of {ridge:.0e} was added to its diagonal (largest variance {largest:.1e})"
                )));
            }
            return Ok((l, ridge));
        }
        ridge *= 10.0;
        if ridge > largest.max(1.0) {
            return Err(Error::Fit {
                what: "gmm".into(),
                problem: "the covariance is not positive definite even with a ridge; \
                          are the features constant or of absurd scale?"
                    .into(),
            });
        }
    }
}

impl Gmm {
    fn new(
        config: GmmConfig,
        input_dim: usize,
        steps: Steps,
        means: Vec<f64>,
        scale_tril: Vec<f64>,
        probs: Vec<f64>,
        ridge: f64,
    ) -> Self {
        let dim = steps.out_dim(input_dim);
        let mut centre = vec![0.0; dim];
        for (mean, p) in means.chunks_exact(dim).zip(&probs) {
            for (c, m) in centre.iter_mut().zip(mean) {
                *c += p * m;
            }
        }
        let inverse = invert_lower(&scale_tril, dim);
        let centred: Vec<f64> = means
            .chunks_exact(dim)
            .flat_map(|m| m.iter().zip(&centre).map(|(m, c)| m - c))
            .collect();
        let mut white_means = vec![0.0; means.len()];
        product_nt(&centred, &inverse, &mut white_means, dim);
        let log_det = (0..dim).map(|i| scale_tril[i * dim + i].ln()).sum();
        Gmm {
            config,
            input_dim,
            steps,
            dim,
            ridge,
            means,
            scale_tril,
            probs,
            centre,
            inverse,
            white_means,
            log_det,
            fast: OnceLock::new(),
        }
    }

    /// Number of components K.
    pub fn components(&self) -> usize {
        self.probs.len()
    }

    /// Class means μ, `[K, D]`.
    pub fn means(&self) -> &[f64] {
        &self.means
    }

    /// Cholesky factor L of the covariance, `[D, D]`.
    pub fn scale_tril(&self) -> &[f64] {
        &self.scale_tril
    }

    /// Mixture weights π, `[K]`.
    pub fn mixture_probs(&self) -> &[f64] {
        &self.probs
    }

    /// What was added to the diagonal of the covariance.
    pub fn ridge(&self) -> f64 {
        self.ridge
    }

    /// Settings.
    pub fn config(&self) -> &GmmConfig {
        &self.config
    }

    /// Squared Mahalanobis distances to every mean, `[n, K]`, of stepped rows.
    pub(super) fn distances(&self, z: &[f32]) -> Vec<f64> {
        let (dim, k) = (self.dim, self.probs.len());
        let n = z.len() / dim;
        let centred: Vec<f64> = z
            .chunks_exact(dim)
            .flat_map(|row| row.iter().zip(&self.centre).map(|(&v, c)| f64::from(v) - c))
            .collect();
        let mut white = vec![0.0; n * dim];
        product_nt(&centred, &self.inverse, &mut white, dim);
        let mut out = vec![0.0; n * k];
        product_nt(&white, &self.white_means, &mut out, dim);
        let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>();
        let means: Vec<f64> = self.white_means.chunks_exact(dim).map(square).collect();
        for (out, w) in out.chunks_exact_mut(k).zip(white.chunks_exact(dim)) {
            let own = square(w);
            for (o, m) in out.iter_mut().zip(&means) {
                *o = (own - 2.0 * *o + m).max(0.0);
            }
        }
        out
    }

    /// −log N(z; μ_y, Σ) of stepped rows with labels (no mixing weight).
    pub fn energy_given_label(&self, z: &[f32], labels: &[u32], out: &mut [f32]) {
        let distances = self.distances(z);
        let rows = distances.chunks_exact(self.probs.len()).zip(labels);
        for (o, (d, &y)) in out.iter_mut().zip(rows) {
            *o = (0.5 * d[y as usize] + self.log_normaliser()) as f32;
        }
    }

    fn log_normaliser(&self) -> f64 {
        0.5 * self.dim as f64 * std::f64::consts::TAU.ln() + self.log_det
    }

    /// Stepped features of a batch.
    pub(super) fn stepped(&self, batch: &Batch) -> Vec<f32> {
        self.steps.apply(batch.get(Field::Features(self.config.pooling)), self.input_dim)
    }

    fn fast(&self) -> &Fast {
        self.fast.get_or_init(|| Fast::new(self))
    }

    pub(super) fn section_as(&self, kind: &str) -> Section {
        let k = self.probs.len();
        let d = self.dim;
        let config = json!({
            "settings": self.config,
            "input_dim": self.input_dim,
            "dim": d,
            "classes": k,
            "ridge": self.ridge,
        });
        let tensors = vec![
            ("means".into(), Tensor::f64([k, d], self.means.clone())),
            ("scale_tril".into(), Tensor::f64([d, d], self.scale_tril.clone())),
            ("mixture_probs".into(), Tensor::f64([k], self.probs.clone())),
        ];
        Section::new(kind, config).with("", tensors).with("", self.steps.tensors(self.input_dim))
    }

    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            settings: GmmConfig,
            input_dim: usize,
            dim: usize,
            classes: usize,
            ridge: f64,
        }
        let c: Config = stored.config()?;
        let steps = Steps::load(stored.file, &stored.prefix, &c.settings.steps())?;
        let get = |name: &str, shape: &[usize]| stored.file.f64(&stored.name(name), shape);
        let means = get("means", &[c.classes, c.dim])?;
        let scale_tril = get("scale_tril", &[c.dim, c.dim])?;
        let probs = get("mixture_probs", &[c.classes])?;
        let positive = (0..c.dim).all(|i| scale_tril[i * c.dim + i] > 0.0);
        let sound = c.dim > 0 && c.classes > 0 && steps.out_dim(c.input_dim) == c.dim;
        if !sound || !positive || probs.iter().any(|p| *p <= 0.0) {
            let problem = "the dimensions or values of its `gmm` contradict each other";
            return Err(Error::format(stored.file.path(), problem));
        }
        Ok(Gmm::new(c.settings, c.input_dim, steps, means, scale_tril, probs, c.ridge))
    }

    pub(super) fn check(&self, set: &FeatureSet) -> Result<Needs> {
        let field = Field::Features(self.config.pooling);
        let got = set.require(field)?;
        if got != self.input_dim {
            return Err(Error::Shape {
                place: set.name().into(),
                tensor: field.name().into(),
                expected: format!("[N, {}], as in training", self.input_dim),
                got: format!("[{}, {got}]", set.len()),
            });
        }
        Ok(Needs::of(field))
    }
}

impl Scorer for Gmm {
    fn name(&self) -> &'static str {
        "gmm"
    }

    fn needs(&self, set: &FeatureSet) -> Result<Needs> {
        self.check(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.energy(&self.stepped(batch), out);
    }

    fn section(&self) -> Section {
        self.section_as("gmm")
    }
}
