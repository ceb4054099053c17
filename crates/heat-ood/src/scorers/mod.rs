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
mod methods;
pub mod msp;
pub mod norm;
pub mod odin;
mod persist;
mod predictor;
mod spec;
pub mod ssd;
mod training;
pub mod vim;

pub mod entropy;
pub mod fdbd;
pub mod gen_entropy;
pub mod gradnorm;
pub mod nci;
pub mod neco;
pub mod pnml;
pub mod react;
pub mod shaping;
pub mod she;
pub mod temperature;
pub mod vra;
mod with_head;
// The bank of training rows, and what shares it, the moments or the subspace.
mod bank;
pub mod cadref;
pub mod cfood;
pub mod kpca;
mod neighbours;
pub mod nnguide;
pub mod relation;
pub mod residual;
pub mod rmds;
mod subspace;
pub mod weiper;

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
pub use predictor::Predictor;
pub use spec::{Fitted, NAMES, PRIORS, ScorerSpec, fit_all, load, load_prior};
pub use ssd::{Ssd, SsdConfig};
pub use vim::{Vim, VimConfig};

pub use crate::math::matmul::Aligned;

pub use entropy::Entropy;
pub use fdbd::{Fdbd, FdbdConfig};
pub use gen_entropy::{Gen, GenConfig};
pub use gradnorm::{GradNorm, GradNormConfig};
pub use nci::{Nci, NciConfig};
pub use neco::{Neco, NecoConfig};
pub use pnml::{Pnml, PnmlConfig};
pub use react::{React, ReactConfig};
pub use shaping::{Shaped, Shaping, ShapingConfig};
pub use she::{She, SheConfig};
pub use temperature::{Temperature, TemperatureConfig};
pub use vra::{Vra, VraConfig};

pub use cadref::{Cadref, CadrefConfig};
pub use cfood::{Cfood, CfoodConfig};
pub use kpca::{Kpca, KpcaConfig};
pub use nnguide::{Nnguide, NnguideConfig};
pub use relation::{Relation, RelationConfig};
pub use residual::{Residual, ResidualConfig};
pub use rmds::{Rmds, RmdsConfig};
use std::any::Any;
pub use weiper::{Weiper, WeiperConfig};

use std::ops::Range;
use std::time::Instant;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Needs, Pooling, Steps};
use crate::math::{blocks, parallel, rng::Stream};
use crate::observe::{Event, Observer, Silent};

/// A fitted scorer.
///
/// `&dyn Scorer` can be cast to [`Any`] and so to its own type, as by who
/// looks for the members of a [`Combined`](crate::compose::Combined).
pub trait Scorer: Any + Send + Sync {
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
        let problem = "has no gradient; pictures are perturbed by msp, max_logit, el, odin, react, \
                       temperature, gmm, ssd, maha, heat and compositions of these";
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
    let mut filled = 0;
    map_blocks(
        set,
        needs,
        observer,
        |batch| {
            let mut out = vec![0.0; batch.rows() * width];
            f(batch, &mut out);
            out
        },
        |rows, piece: Vec<f32>| {
            check_finite(set, scorer, rows.start, &piece, width)?;
            scores[filled..filled + piece.len()].copy_from_slice(&piece);
            filled += piece.len();
            Ok(())
        },
    )?;
    Ok(scores)
}

/// Map every block of rows with `f`, in parallel, and give the values to
/// `take` in row order.
fn map_blocks<T: Send>(
    set: &FeatureSet,
    needs: Needs,
    observer: &mut dyn Observer,
    f: impl Fn(&Batch) -> T + Sync,
    mut take: impl FnMut(Range<usize>, T) -> Result<()>,
) -> Result<()> {
    // Progress and the first error come in row order, a few blocks at a time.
    let together = SCORE_ROWS * 16 * parallel::threads().max(4);
    let task = format!("score {}", set.name());
    observer.on(Event::Begin { task: &task, total: set.len() as u64 });
    for piece in blocks(set.len(), together) {
        let ranges: Vec<Range<usize>> = blocks(piece.len(), SCORE_ROWS)
            .map(|r| piece.start + r.start..piece.start + r.end)
            .collect();
        let results: Vec<Result<T>> = parallel::run(|| {
            ranges
                .par_iter()
                .map_init(Batch::default, |batch, range| {
                    set.batch(needs, range.clone(), batch)?;
                    Ok(f(batch))
                })
                .collect()
        });
        for (range, result) in ranges.into_iter().zip(results) {
            take(range, result?)?;
        }
        observer.on(Event::Advance { done: piece.end as u64, loss: None });
    }
    observer.on(Event::End);
    Ok(())
}

fn check_finite(
    set: &FeatureSet,
    scorer: &'static str,
    start: usize,
    values: &[f32],
    width: usize,
) -> Result<()> {
    match values.iter().position(|s| !s.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let (place, row) = (set.name().to_owned(), start + at / width);
            Err(Error::Score { place, row, scorer, value: values[at] })
        }
    }
}

/// The fields that any of these reads of `set`.
pub(crate) fn joint_needs<'a>(
    scorers: impl IntoIterator<Item = &'a dyn Scorer>,
    set: &FeatureSet,
) -> Result<Needs> {
    let mut scorers = scorers.into_iter();
    scorers.try_fold(Needs::default(), |needs, s| Ok(needs.and(s.needs(set)?)))
}

/// What one scorer found on a set, beside others.
#[derive(Debug, Clone, Default)]
pub struct Together {
    /// One score per row.
    pub scores: Vec<f32>,
    /// [`Scorer::component_batch`] of each row, `[N, components]`; empty
    /// where not asked for.
    pub components: Vec<f32>,
    /// The scorer's share of the wall-clock time: its processor time divided
    /// by the number of threads.
    pub seconds: f64,
}

/// Score a set with many scorers, reading it once.
///
/// Every block of rows is read with the fields that any of them needs, and
/// all score it before the next is read.
///
/// # Errors
/// As [`Scorer::score`], of the first row at fault.
pub fn score_together(
    set: &FeatureSet,
    scorers: &[&dyn Scorer],
    components: bool,
    observer: &mut dyn Observer,
) -> Result<Vec<Together>> {
    let needs = joint_needs(scorers.iter().copied(), set)?;
    let mut out: Vec<Together> = scorers.iter().map(|_| Together::default()).collect();
    let threads = parallel::threads() as f64;
    let block = |batch: &Batch| -> Vec<Together> {
        let one = |scorer: &&dyn Scorer| {
            let start = Instant::now();
            let mut scores = vec![0.0; batch.rows()];
            scorer.score_batch(batch, &mut scores);
            let seconds = start.elapsed().as_secs_f64() / threads;
            let width = if components { scorer.components().len() } else { 0 };
            let mut parts = vec![0.0; batch.rows() * width];
            if width > 0 {
                scorer.component_batch(batch, &mut parts);
            }
            Together { scores, components: parts, seconds }
        };
        scorers.iter().map(one).collect()
    };
    map_blocks(set, needs, observer, block, |rows, found| {
        for ((out, scorer), found) in out.iter_mut().zip(scorers).zip(found) {
            check_finite(set, scorer.name(), rows.start, &found.scores, 1)?;
            out.scores.extend(found.scores);
            out.components.extend(found.components);
            out.seconds += found.seconds;
        }
        Ok(())
    })?;
    Ok(out)
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
