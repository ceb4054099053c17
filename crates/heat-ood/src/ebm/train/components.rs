//! The components of the prior that a batch's chains belong to.

use super::super::config::ModelConfig;
use super::super::proposal::{Components, Proposal};
use crate::error::{Error, Result};
use crate::features::FeatureSet;
use crate::scorers::Prior;

/// Where the components of a batch's proposals come from.
pub(super) fn components<'a>(
    model: &ModelConfig,
    prior: &'a dyn Prior,
    batch_labels: &'a [u32],
) -> Components<'a> {
    if model.sample_from_batch_statistics {
        return Components::Statistics(batch_labels);
    }
    match prior.mixture() {
        Some(_) if model.conditional() && model.proposal_type == Proposal::Data => {
            Components::Labels(batch_labels)
        }
        Some(weights) if model.conditional() => Components::Mixture(weights),
        _ => Components::Untold,
    }
}

/// The labels of all rows, where batches need them.
pub(super) fn batch_labels(
    model: &ModelConfig,
    prior: &dyn Prior,
    train: &FeatureSet,
) -> Result<Option<Vec<u32>>> {
    let conditional = model.conditional();
    if !conditional && !model.sample_from_batch_statistics {
        return Ok(None);
    }
    let refuse = |problem: &str| {
        let key = if conditional {
            "ebm.model.base_dist.use_simplified_mahalanobis_score"
        } else {
            "ebm.model.sample_from_batch_statistics"
        };
        Err(Error::config(key, true, problem))
    };
    let Some(mixture) = prior.mixture() else {
        return refuse("the prior has no components: it must be `gmm`");
    };
    if model.base_dist.use_kmeans {
        return refuse("the prior's components are clusters, and labels say nothing about them");
    }
    if conditional && model.precondition {
        return refuse("`precondition` steps with the energy of the whole mixture");
    }
    // The components are the classes that have rows.
    let present = train.present(train.classes()?)?;
    if present.count != mixture.len() {
        return refuse("the prior's components are not the classes of the training set");
    }
    Ok(Some(present.labels(train, 0..train.len())?))
}
