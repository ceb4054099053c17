//! The class that the classifier predicts: argmax of the logits.

use std::sync::Arc;

use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::math::reduce;
use crate::observe::{Observer, Silent};
use crate::scorers::context::FitContext;
use crate::scorers::logit_source::{LogitSource, LogitsConfig};
use crate::scorers::scorer::score_beside;
use crate::scorers::scoring::score_blocks;
use crate::scorers::{ScoredSet, Scorer, Section, Stored};

/// The classifier's decision, from stored logits or from `avg` and the head.
#[derive(Clone)]
pub struct Predictor(Arc<LogitSource>);

impl Predictor {
    /// Remember where the logits come from.
    ///
    /// # Errors
    /// If there are neither logits nor a head, or the head does not fit.
    pub fn new(set: &FeatureSet, head: Option<&Head>) -> Result<Self> {
        Ok(Predictor(Arc::new(LogitSource::fit(
            "predicted class",
            LogitsConfig::default(),
            set,
            head,
        )?)))
    }

    /// As scorers need it that are fitted beside others.
    pub(crate) fn fit(context: &mut FitContext<'_>) -> Result<Self> {
        Ok(Predictor(context.logits("predicted class", &LogitsConfig::default())?))
    }

    /// Number of classes C.
    pub fn classes(&self) -> usize {
        self.0.classes()
    }

    /// The fields to read of `set`.
    ///
    /// # Errors
    /// If the set lacks one or has it in another dimension.
    pub fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.0.needs(set)
    }

    /// The class of each row of a batch; of equal logits the first.
    pub fn predict_batch(&self, batch: &Batch) -> Vec<u32> {
        self.0.logits(batch).chunks_exact(self.classes()).map(reduce::argmax).collect()
    }

    /// The class of each row of a set.
    ///
    /// # Errors
    /// If the set lacks a field or holds NaN or infinity.
    pub fn predict(&self, set: &FeatureSet) -> Result<Vec<u32>> {
        let classify = &|batch: &Batch| self.predict_batch(batch);
        Ok(score_blocks(set, &self.needs(set)?, &[], Some(classify), &mut Silent)?.classes)
    }

    /// The scores of a set, with components where asked for, and the class of
    /// each row; the set is read once.
    pub(crate) fn score(
        &self,
        set: &FeatureSet,
        scorer: &dyn Scorer,
        components: bool,
        observer: &mut dyn Observer,
    ) -> Result<(ScoredSet, Vec<u32>)> {
        let needs = scorer.needs(set)?.and(self.needs(set)?);
        let classify = &|batch: &Batch| self.predict_batch(batch);
        let found = score_beside(set, &needs, &[scorer], components, Some(classify), observer)?;
        let (scored, classes) = found.all()?;
        Ok((scored.into_iter().next().unwrap_or_default(), classes))
    }

    /// Everything needed to predict, for the detector file.
    pub fn section(&self) -> Section {
        self.0.section("predictor")
    }

    /// Read it back.
    ///
    /// # Errors
    /// If its tensors are not what they should be.
    pub fn load(stored: &Stored<'_>) -> Result<Self> {
        Ok(Predictor(Arc::new(LogitSource::load(stored)?)))
    }
}
