//! Which component of the mixture each training row belongs to.

use crate::error::Result;
use crate::features::FeatureSet;

/// Labels of training rows: those of the set, or of clusters.
pub(super) enum Labels {
    /// The set's own, so many classes.
    Classes(usize),
    /// The cluster of each row.
    Clusters(Vec<u32>, usize),
}

impl Labels {
    pub(super) fn classes(&self) -> usize {
        match self {
            Labels::Classes(k) | Labels::Clusters(_, k) => *k,
        }
    }

    pub(super) fn get(
        &self,
        train: &FeatureSet,
        range: std::ops::Range<usize>,
    ) -> Result<Vec<u32>> {
        match self {
            Labels::Classes(k) => train.labels(range, *k),
            Labels::Clusters(all, _) => Ok(all[range].to_vec()),
        }
    }
}
