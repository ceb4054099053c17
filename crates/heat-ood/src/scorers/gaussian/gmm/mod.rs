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

mod covariance;
mod fit;
mod labels;
mod prior;
mod shrinkage;

use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::json;

use prior::Fast;
pub use shrinkage::Shrinkage;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::Tensor;
use crate::math::linalg::{invert_lower, product_nn, product_nt};
use crate::math::reduce;
use crate::scorers::input::{Input, contradiction};
use crate::scorers::method::offer;
use crate::scorers::{Prior, Scorer, Section, Stored};

/// Declare the settings of a scorer of class Gaussians: those of `gmm`, with
/// a default of its own for `normalize`.
macro_rules! gaussian_settings {
    ($(#[$doc:meta])* $name:ident, normalize = $normalize:literal;) => {
        $crate::scorers::input::feature_settings! {
            $(#[$doc])*
            $name, normalize = $normalize;
            /// Keep only the diagonal of the covariance.
            diagonal: bool = false,
            /// Use so many K-means clusters of the plain features in place of the
            /// classes; labels are then not needed.
            #[serde(skip_serializing_if = "Option::is_none")]
            kmeans: Option<usize> = None,
            /// Seed of K-means.
            kmeans_seed: u64 = 0,
            /// What the covariance is drawn towards, and how far.
            shrinkage: $crate::scorers::Shrinkage = $crate::scorers::Shrinkage::None,
        }

        /// The same as settings of `gmm`.
        impl From<&$name> for $crate::scorers::GmmConfig {
            fn from(config: &$name) -> Self {
                $crate::scorers::GmmConfig {
                    diagonal: config.diagonal,
                    kmeans: config.kmeans,
                    kmeans_seed: config.kmeans_seed,
                    shrinkage: config.shrinkage,
                    pooling: config.pooling,
                    react: config.react,
                    normalize: config.normalize,
                    pca: config.pca,
                    whiten: config.whiten,
                }
            }
        }
    };
}
pub(super) use gaussian_settings;

gaussian_settings! {
    /// Settings of `gmm`.
    GmmConfig, normalize = true;
}

/// A method that is made of the fitted Gaussians; where `normalize` must not
/// be given a value, that and what to say.
macro_rules! gaussian_method {
    ($config:ident => $scorer:ident, $name:literal, $of:expr $(, refuse $refused:literal: $problem:literal)?) => {
        impl Method for $config {
            const NAME: &'static str = $name;
            type Scorer = $scorer;

            $(
                fn check(&self, _given: &toml::Table) -> Result<()> {
                    $crate::scorers::gaussian::gmm::refuse_normalize(
                        self.normalize, $refused, $problem,
                    )
                }
            )?

            fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
                GmmConfig::from(self).requests(context)
            }

            fn fit_in(&self, context: &mut FitContext<'_>) -> Result<$scorer> {
                $of(GmmConfig::from(self).fit_in(context)?)
            }

            fn load(stored: &Stored<'_>) -> Result<$scorer> {
                $scorer::load(stored)
            }
        }
    };
}
pub(super) use gaussian_method;

/// Refuse `normalize` of this value.
pub(super) fn refuse_normalize(normalize: bool, refused: bool, problem: &str) -> Result<()> {
    if normalize == refused {
        return Err(Error::config("normalize", normalize, problem));
    }
    Ok(())
}

offer! { GmmConfig => Gmm }

/// A fitted Gaussian mixture.
pub struct Gmm {
    config: GmmConfig,
    pub(super) input: Input,
    ridge: f64,
    /// `[keep, add]` of keep·Σ + add·mean(diag Σ)·I, as chosen.
    shrunk: [f64; 2],
    means: Vec<f64>,
    scale_tril: Vec<f64>,
    probs: Vec<f64>,
    // Derived.
    centre: Vec<f64>,
    inverse: Vec<f64>,
    white_means: Vec<f64>,
    /// ‖L⁻¹(μ_k − m)‖².
    white_squares: Vec<f64>,
    /// log π_k.
    log_probs: Vec<f64>,
    log_det: f64,
    fast: OnceLock<Fast>,
}

fn square(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum()
}

/// What [`Gmm::shrinkage_weights`] says without shrinkage.
fn unshrunk() -> [f64; 2] {
    [1.0, 0.0]
}

impl Gmm {
    fn new(
        config: GmmConfig,
        input: Input,
        means: Vec<f64>,
        scale_tril: Vec<f64>,
        probs: Vec<f64>,
        ridge: f64,
        shrunk: [f64; 2],
    ) -> Self {
        let dim = input.dim;
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
        let white_squares = white_means.chunks_exact(dim).map(square).collect();
        let log_probs = probs.iter().map(|p| p.ln()).collect();
        let log_det = (0..dim).map(|i| scale_tril[i * dim + i].ln()).sum();
        Gmm {
            config,
            input,
            ridge,
            shrunk,
            means,
            scale_tril,
            probs,
            centre,
            inverse,
            white_means,
            white_squares,
            log_probs,
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

    /// `[keep, add]`: the covariance used is keep·Σ + add·mean(diag Σ)·I.
    pub fn shrinkage_weights(&self) -> [f64; 2] {
        self.shrunk
    }

    /// Settings.
    pub fn config(&self) -> &GmmConfig {
        &self.config
    }

    /// L⁻¹, `[D, D]`.
    pub(super) fn inverse(&self) -> &[f64] {
        &self.inverse
    }

    /// L⁻¹(μ_k − m), `[K, D]`.
    pub(super) fn white_means(&self) -> &[f64] {
        &self.white_means
    }

    /// z − m of stepped rows, `[n, dim]`.
    pub(super) fn centred(&self, z: &[f32]) -> Vec<f64> {
        let mut out = vec![0.0; z.len()];
        let dim = self.input.dim;
        for (out, row) in out.chunks_exact_mut(dim).zip(z.chunks_exact(dim)) {
            for ((o, &v), c) in out.iter_mut().zip(row).zip(&self.centre) {
                *o = f64::from(v) - c;
            }
        }
        out
    }

    /// Whitened coordinates of stepped rows, `[n, dim]`.
    fn whitened(&self, z: &[f32]) -> Vec<f64> {
        let mut white = vec![0.0; z.len()];
        product_nt(&self.centred(z), &self.inverse, &mut white, self.input.dim);
        white
    }

    /// Squared Mahalanobis distances to every mean, `[n, K]`, of stepped rows.
    pub(super) fn distances(&self, z: &[f32]) -> Vec<f64> {
        self.distances_of(&self.whitened(z))
    }

    fn distances_of(&self, white: &[f64]) -> Vec<f64> {
        let (dim, k) = (self.input.dim, self.probs.len());
        let mut out = vec![0.0; white.len() / dim * k];
        product_nt(white, &self.white_means, &mut out, dim);
        for (out, w) in out.chunks_exact_mut(k).zip(white.chunks_exact(dim)) {
            let own = square(w);
            for (o, m) in out.iter_mut().zip(&self.white_squares) {
                *o = (own - 2.0 * *o + m).max(0.0);
            }
        }
        out
    }

    /// Add `scale`·Σ⁻¹(z − Σ_k r_k μ_k) of each row to `out`, through the
    /// steps, in f64; `weights` turns the distances of a row into the r_k.
    pub(super) fn accumulate_gradient(
        &self,
        batch: &Batch,
        scale: f64,
        out: &mut Batch,
        weights: impl Fn(&mut [f64]),
    ) -> Result<()> {
        let (dim, k) = (self.input.dim, self.probs.len());
        let rows = self.input.checked(batch)?;
        let mut white = self.whitened(&self.input.stepped(batch));
        let mut r = self.distances_of(&white);
        for (r, w) in r.chunks_exact_mut(k).zip(white.chunks_exact_mut(dim)) {
            weights(r);
            for (r, mean) in r.iter().zip(self.white_means.chunks_exact(dim)) {
                w.iter_mut().zip(mean).for_each(|(w, m)| *w -= r * m);
            }
        }
        let mut gradient = vec![0.0; white.len()];
        product_nn(&white, &self.inverse, &mut gradient, dim);
        let gradient = self.input.steps.gradient(rows, self.input.input_dim, &gradient);
        out.add(self.input.field(), scale, &gradient);
        Ok(())
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
        0.5 * self.input.dim as f64 * std::f64::consts::TAU.ln() + self.log_det
    }

    fn fast(&self) -> &Fast {
        self.fast.get_or_init(|| Fast::new(self))
    }

    pub(super) fn section_as(&self, kind: &str) -> Section {
        let k = self.probs.len();
        let d = self.input.dim;
        let config = json!({
            "settings": self.config,
            "input_dim": self.input.input_dim,
            "dim": d,
            "classes": k,
            "ridge": self.ridge,
            "shrunk": self.shrunk,
        });
        let tensors = vec![
            ("means".into(), Tensor::f64([k, d], self.means.clone())),
            ("scale_tril".into(), Tensor::f64([d, d], self.scale_tril.clone())),
            ("mixture_probs".into(), Tensor::f64([k], self.probs.clone())),
        ];
        Section::new(kind, config).with("", tensors).with("", self.input.tensors())
    }

    pub(super) fn load(stored: &Stored<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            dim: usize,
            classes: usize,
            ridge: f64,
            #[serde(default = "unshrunk")]
            shrunk: [f64; 2],
        }
        let (config, input) = Input::load(stored)?;
        let c: Config = stored.config()?;
        let get = |name: &str, shape: &[usize]| stored.file.f64(&stored.name(name), shape);
        let means = get("means", &[c.classes, c.dim])?;
        let scale_tril = get("scale_tril", &[c.dim, c.dim])?;
        let probs = get("mixture_probs", &[c.classes])?;
        let positive = (0..c.dim).all(|i| scale_tril[i * c.dim + i] > 0.0);
        let sound = c.dim > 0 && c.classes > 0 && input.dim == c.dim;
        if !sound || !positive || probs.iter().any(|p| *p <= 0.0) {
            return Err(contradiction(stored));
        }
        Ok(Gmm::new(config, input, means, scale_tril, probs, c.ridge, c.shrunk))
    }
}

impl Scorer for Gmm {
    fn name(&self) -> &'static str {
        "gmm"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.energy(&self.input.stepped(batch), out);
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        self.accumulate_gradient(batch, scale, out, |r| {
            r.iter_mut().zip(&self.log_probs).for_each(|(r, p)| *r = p - 0.5 * *r);
            let total = reduce::logsumexp(r.iter().copied());
            r.iter_mut().for_each(|r| *r = (*r - total).exp());
        })
    }

    fn section(&self) -> Section {
        self.section_as("gmm")
    }
}
