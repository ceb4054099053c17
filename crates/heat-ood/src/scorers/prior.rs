//! What a scorer can do besides on which a residual energy is trained.

use super::scorer::Scorer;
use crate::error::{Error, Result};
use crate::features::{Pooling, Preprocessing};
use crate::math::matmul::Aligned;
use crate::math::rng::Stream;

/// Memory that a prior may use while it computes; grown once, then kept.
#[derive(Default)]
pub struct Scratch {
    /// Free for the prior.
    pub a: Aligned,
    /// Free for the prior.
    pub b: Aligned,
    /// For matrix products.
    pub gemm: Aligned,
}

/// What a prior's gradient is made of, for a device that computes it itself. All in single precision,
/// row by row.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// The energy is the same everywhere.
    Flat,
    /// −log Σ_k exp(`offset`_k + w_k·w − ½‖w‖²) of whitened rows w = P(z − m).
    Mixture(Mixture),
    /// −log Σ_c exp(W z + b)_c.
    Logits {
        /// W, `[C, D]`.
        weight: Vec<f32>,
        /// b, `[C]`.
        bias: Vec<f32>,
    },
}

/// A mixture of Gaussians of one covariance Σ = LLᵀ: ∇E = Pᵀ(w − Σ_k r_k w_k), r = softmax(`offset` + w_k·w).
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// m, `[D]`.
    pub centre: Vec<f32>,
    /// P = L⁻¹, `[D, D]`.
    pub whiten: Vec<f32>,
    /// w_k = P(μ_k − m), `[K, D]`.
    pub white_means: Vec<f32>,
    /// log π_k − ½‖w_k‖², `[K]`.
    pub offset: Vec<f32>,
    /// μ_k, `[K, D]`.
    pub means: Vec<f32>,
    /// L, `[D, D]`.
    pub colour: Vec<f32>,
}

/// A scorer on which a residual energy can be trained: it has a gradient.
///
/// `z` are features after the prior's own steps, `[n, dim]`.
pub trait Prior: Scorer {
    /// The pooled features it reads.
    fn pooling(&self) -> Pooling {
        Pooling::Avg
    }

    /// The steps taken before its energy.
    fn steps(&self) -> &Preprocessing {
        const { &Preprocessing { react: None, normalize: false, pca: None, halves: false } }
    }

    /// Dimension after the steps.
    fn dim(&self) -> usize;

    /// E_prior of each row.
    fn energy(&self, z: &[f32], out: &mut [f32]);

    /// Add `scale`·∇E_prior of each row to `grad` (`[n, dim]`).
    fn add_gradient(&self, z: &[f32], scale: f32, grad: &mut [f32], scratch: &mut Scratch);

    /// What its gradient is made of; `None` where only this processor can compute it.
    fn form(&self) -> Option<Form> {
        None
    }

    /// Mixture weights of the prior's components, when it is a mixture whose
    /// components are the classes: it then has an energy given a class.
    fn mixture(&self) -> Option<&[f64]> {
        None
    }

    /// E_prior of each row given its class, for priors with a
    /// [`mixture`](Prior::mixture).
    fn energy_given(&self, z: &[f32], _labels: &[u32], out: &mut [f32]) {
        self.energy(z, out);
    }

    /// Add `scale`·∇E_prior of each row given its class.
    fn add_gradient_given(
        &self,
        z: &[f32],
        _labels: &[u32],
        scale: f32,
        grad: &mut [f32],
        scratch: &mut Scratch,
    ) {
        self.add_gradient(z, scale, grad, scratch);
    }

    /// Replace `gradient` by step·Σ·gradient + eps·L·noise, Σ = LLᵀ the
    /// prior's covariance; `false` (and nothing done) when it has none.
    fn whitened_step(
        &self,
        _gradient: &mut [f32],
        _step: f32,
        _noise: &[f32],
        _eps: f32,
        _scratch: &mut Scratch,
    ) -> bool {
        false
    }

    /// Draw rows from the prior: for the component of each row (or a random
    /// one where `components` is `None`) with its noise multiplied by the
    /// row's entry of `spread`.
    ///
    /// # Errors
    /// If the prior cannot be sampled, as by default.
    fn sample(
        &self,
        _stream: &mut Stream,
        _components: Option<&[u32]>,
        _spread: Option<&[f32]>,
        _out: &mut [f32],
        _scratch: &mut Scratch,
    ) -> Result<()> {
        let problem = format!(
            "the `{}` prior is not a distribution that can be sampled; \
             use `random_normal`, `random_uniform` or `data`",
            self.name()
        );
        Err(Error::config("ebm.model.proposal_type", "base_dist", problem))
    }
}
