//! What every scorer can do.

use std::any::Any;
use std::time::Instant;

use super::persist::Section;
use super::scoring::{ScoredSet, score_blocks};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::parallel;
use crate::observe::{Observer, Silent};

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
    fn needs(&self, set: &FeatureSet) -> Result<FieldSet>;

    /// One score for each row of `batch`, on the current thread.
    fn score_batch(&self, batch: &Batch, out: &mut [f32]);

    /// Everything needed to score, for the detector file.
    fn section(&self) -> Section;

    /// Add `scale`·∂score/∂field of each row to the fields of `out`: the
    /// direction in which an image is perturbed before it is scored (ODIN).
    /// The fields read are those that `batch` has.
    ///
    /// # Errors
    /// If the scorer has no such gradient, as by default, or the batch lacks
    /// a field.
    fn gradient_batch(&self, _batch: &Batch, _scale: f64, _out: &mut Batch) -> Result<()> {
        let problem = "has no gradient; images are perturbed by msp, max_logit, el, odin, react, \
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
        Ok(score_alone(self, set, false, observer)?.scores)
    }

    /// The components of each row of the set, `[N, components]`.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    fn score_components(&self, set: &FeatureSet) -> Result<Vec<f32>> {
        Ok(score_alone(self, set, true, &mut Silent)?.components)
    }
}

/// The fields that any of these reads of `set`.
pub(crate) fn joint_needs<'a>(
    scorers: impl IntoIterator<Item = &'a dyn Scorer>,
    set: &FeatureSet,
) -> Result<FieldSet> {
    let mut scorers = scorers.into_iter();
    scorers.try_fold(FieldSet::default(), |needs, s| Ok(needs.and(s.needs(set)?)))
}

/// The scores of a batch, and its components where asked for.
fn score_batch<S: Scorer + ?Sized>(scorer: &S, batch: &Batch, components: bool) -> ScoredSet {
    let start = Instant::now();
    let mut scores = vec![0.0; batch.rows()];
    scorer.score_batch(batch, &mut scores);
    let seconds = start.elapsed().as_secs_f64() / parallel::threads() as f64;
    let width = if components { scorer.components().len() } else { 0 };
    let mut parts = vec![0.0; batch.rows() * width];
    if width > 0 {
        scorer.component_batch(batch, &mut parts);
    }
    ScoredSet { scores, components: parts, seconds }
}

/// Score a set with one scorer.
fn score_alone<S: Scorer + ?Sized>(
    scorer: &S,
    set: &FeatureSet,
    components: bool,
    observer: &mut dyn Observer,
) -> Result<ScoredSet> {
    let block = |batch: &Batch| vec![score_batch(scorer, batch, components)];
    let found = score_blocks(set, scorer.needs(set)?, &[scorer.name()], observer, block)?;
    Ok(found.into_iter().next().unwrap_or_default())
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
) -> Result<Vec<ScoredSet>> {
    let needs = joint_needs(scorers.iter().copied(), set)?;
    let names: Vec<_> = scorers.iter().map(|s| s.name()).collect();
    let block =
        |batch: &Batch| scorers.iter().map(|s| score_batch(*s, batch, components)).collect();
    score_blocks(set, needs, &names, observer, block)
}
