//! Which component of the mixture each training row belongs to.

use std::sync::Arc;

use crate::error::Result;
use crate::features::{FeatureSet, Present};

/// Labels of training rows: those of the set, or of clusters.
pub(super) enum Labels {
    /// The set's own, of the classes that have rows.
    Classes(Arc<Present>),
    /// The cluster of each row.
    Clusters(Vec<u32>, usize),
}

impl Labels {
    pub(super) fn classes(&self) -> usize {
        match self {
            Labels::Classes(present) => present.count,
            Labels::Clusters(_, k) => *k,
        }
    }

    pub(super) fn get(
        &self,
        train: &FeatureSet,
        range: std::ops::Range<usize>,
    ) -> Result<Vec<u32>> {
        match self {
            Labels::Classes(present) => present.labels(train, range),
            Labels::Clusters(all, _) => Ok(all[range].to_vec()),
        }
    }
}
