//! What every scorer can do.

use std::any::Any;

use super::persist::Section;
use super::scoring::score_alone;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Needs};
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
