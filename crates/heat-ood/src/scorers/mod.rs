//! Out-of-distribution scorers.
//!
//! **A score is an energy: higher = more out-of-distribution.** One file per
//! method: formula, `Config`, `fit`, `impl Scorer`, tests. A `Config` is
//! fitted into another type, so "not fitted" cannot be written.

pub mod cosine;
pub mod dice;
pub mod energy_logits;
pub mod gmm;
mod input;
pub mod klm;
mod kmeans;
pub mod knn;
mod logits;
pub mod max_logit;
pub mod mean;
pub mod msp;
pub mod norm;
pub mod odin;
mod persist;
mod spec;
pub mod ssd;
pub mod vim;

pub use cosine::{Cosine, CosineConfig};
pub use dice::{Dice, DiceConfig};
pub use energy_logits::{EnergyLogits, EnergyLogitsConfig};
pub use gmm::{Gmm, GmmConfig, Shrinkage};
pub use klm::{Klm, KlmConfig};
pub use knn::{Knn, KnnConfig};
pub use logits::LogitsConfig;
pub use max_logit::MaxLogit;
pub use mean::{Mean, MeanConfig};
pub use msp::Msp;
pub use norm::{Norm, NormConfig};
pub use odin::{Odin, OdinConfig};
pub(crate) use persist::{FORMAT_VERSION, Outline};
pub use persist::{Section, Stored};
pub(crate) use spec::{DEEPEST, keys_of, parse_table, parse_value, typed};
pub use spec::{NAMES, PRIORS, ScorerSpec, load, load_prior};
pub use ssd::{Ssd, SsdConfig};
pub use vim::{Vim, VimConfig};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Needs, Pooling, Steps};
use crate::math::matmul::Aligned;
use crate::math::{parallel, rng::Stream};
use crate::observe::{Event, Observer, Silent};

/// A fitted scorer.
pub trait Scorer: Send + Sync {
    /// Name of the method.
    fn name(&self) -> &'static str;

    /// The fields to read of `set`.
    ///
    /// # Errors
    /// If the set lacks one or has it in another dimension.
    fn needs(&self, set: &FeatureSet) -> Result<Needs>;

    /// One score for each row of `batch`, on the current thread.
    fn score_batch(&self, batch: &Batch, out: &mut [f32]);

    /// Everything needed to score, for the detector file.
    fn section(&self) -> Section;

    /// Add `scale`·∂score/∂field of each row to the fields of `out`: the
    /// direction in which a picture is perturbed before it is scored (ODIN).
    /// The fields read are those that `batch` has.
    ///
    /// # Errors
    /// If the scorer has no such gradient, as by default, or the batch lacks
    /// a field.
    fn gradient_batch(&self, _batch: &Batch, _scale: f64, _out: &mut Batch) -> Result<()> {
        let problem = "has no gradient; pictures are perturbed by msp, max_logit, el, odin, gmm, \
                       ssd, maha, heat and compositions of these";
        Err(Error::config("perturb", self.name(), problem))
    }

    /// Scores apart that make up the whole, by name (HEAT: `energy_nn` and
    /// `energy_prior`); empty for most.
    fn components(&self) -> &'static [&'static str] {
        &[]
    }

    /// The components of each row of a batch, `[rows, components]`.
    fn component_batch(&self, _batch: &Batch, _out: &mut [f32]) {}

    /// One score per row of the set.
    ///
    /// # Errors
    /// If the set lacks a field or holds NaN or infinity.
    fn score(&self, set: &FeatureSet) -> Result<Vec<f32>> {
        self.score_observed(set, &mut Silent)
    }

    /// The same, reporting progress.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    fn score_observed(&self, set: &FeatureSet, observer: &mut dyn Observer) -> Result<Vec<f32>> {
        each_block(set, self.needs(set)?, self.name(), 1, observer, |b, out| {
            self.score_batch(b, out)
        })
    }

    /// The components of each row of the set, `[N, components]`.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    fn score_components(&self, set: &FeatureSet) -> Result<Vec<f32>> {
        let (needs, width) = (self.needs(set)?, self.components().len());
        each_block(set, needs, self.name(), width, &mut Silent, |b, out| {
            self.component_batch(b, out)
        })
    }
}

/// Rows scored by one task.
const SCORE_ROWS: usize = 256;

/// Call `f` for every block of rows, in parallel; `width` values a row.
fn each_block(
    set: &FeatureSet,
    needs: Needs,
    scorer: &'static str,
    width: usize,
    observer: &mut dyn Observer,
    f: impl Fn(&Batch, &mut [f32]) + Sync,
) -> Result<Vec<f32>> {
    let mut scores = vec![0.0; set.len() * width];
    if width == 0 {
        return Ok(scores);
    }
    // Progress and the first error come in row order, a few blocks at a time.
    let together = SCORE_ROWS * 4 * parallel::threads().max(4);
    let task = format!("score {}", set.name());
    observer.on(Event::Begin { task: &task, total: set.len() as u64 });
    for (i, piece) in scores.chunks_mut(together * width).enumerate() {
        let results: Vec<Result<()>> = parallel::run(|| {
            piece
                .par_chunks_mut(SCORE_ROWS * width)
                .enumerate()
                .map_init(Batch::default, |batch, (j, out)| {
                    let start = i * together + j * SCORE_ROWS;
                    set.batch(needs, start..start + out.len() / width, batch)?;
                    f(batch, out);
                    Ok(())
                })
                .collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        if let Some(at) = piece.iter().position(|s| !s.is_finite()) {
            let (place, row) = (set.name().to_owned(), i * together + at / width);
            return Err(Error::Score { place, row, scorer, value: piece[at] });
        }
        let done = ((i + 1) * together).min(set.len()) as u64;
        observer.on(Event::Advance { done, loss: None });
    }
    observer.on(Event::End);
    Ok(scores)
}

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

/// A scorer on which a residual energy can be trained: it has a gradient.
///
/// `z` are features after the prior's own steps, `[n, dim]`.
pub trait Prior: Scorer {
    /// The pooled features it reads.
    fn pooling(&self) -> Pooling {
        Pooling::Avg
    }

    /// The steps taken before its energy.
    fn steps(&self) -> &Steps {
        const { &Steps { react: None, normalize: false, pca: None } }
    }

    /// Dimension after the steps.
    fn dim(&self) -> usize;

    /// E_prior of each row.
    fn energy(&self, z: &[f32], out: &mut [f32]);

    /// Add `scale`·∇E_prior of each row to `grad` (`[n, dim]`).
    fn add_gradient(&self, z: &[f32], scale: f32, grad: &mut [f32], scratch: &mut Scratch);

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
