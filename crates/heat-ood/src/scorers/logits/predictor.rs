//! The class that the classifier predicts: argmax of the logits.

use std::sync::Arc;

use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::math::reduce;
use crate::scorers::logit_source::{LogitSource, LogitsConfig};
use crate::scorers::scoring::map_blocks;
use crate::scorers::{Section, Stored};

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
        let (needs, mut out) = (self.needs(set)?, Vec::with_capacity(set.len()));
        map_blocks(
            set,
            needs,
            &mut crate::observe::Silent,
            |batch| self.predict_batch(batch),
            |_, classes| {
                out.extend(classes);
                Ok(())
            },
        )?;
        Ok(out)
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
