//! Settings of the prior that a residual corrects.

use serde::{Deserialize, Serialize};

use crate::scorers::Shrinkage;

/// Which prior the residual corrects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriorKind {
    /// Class-conditional Gaussian mixture.
    #[default]
    Gmm,
    /// Energy of the logits.
    El,
    /// Virtual-logit matching.
    Vim,
    /// Distance to the k-th nearest training row.
    Knn,
}

impl PriorKind {
    /// The scorer's name.
    pub fn name(self) -> &'static str {
        match self {
            PriorKind::Gmm => "gmm",
            PriorKind::El => "el",
            PriorKind::Vim => "vim",
            PriorKind::Knn => "knn",
        }
    }

    /// Whether its energy depends on the classifier's head.
    pub fn reads_head(self) -> bool {
        matches!(self, PriorKind::El | PriorKind::Vim)
    }
}

/// The `ebm.model.base_dist` group: the prior's own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaseDistConfig {
    /// Keep only the diagonal of the covariance (`gmm`).
    pub diag_coefficient_only: bool,
    /// Clip features first.
    pub use_react: bool,
    /// The quantile to clip at.
    pub react_p: f64,
    /// Use K-means clusters in place of the classes (`gmm`).
    pub use_kmeans: bool,
    /// Number of classes, or of clusters; counted unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<usize>,
    /// Energy given the class that each chain started from (`gmm`; the
    /// published name of what is class-conditional sampling).
    pub use_simplified_mahalanobis_score: bool,
    /// Shrinkage of the covariance (`gmm`; not in the published code).
    pub shrinkage: Shrinkage,
    /// Which neighbour (`knn`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
    /// Directions that do not count as residual (`vim`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_dim: Option<usize>,
}

impl Default for BaseDistConfig {
    fn default() -> Self {
        BaseDistConfig {
            diag_coefficient_only: false,
            use_react: false,
            react_p: 0.95,
            use_kmeans: false,
            num_classes: None,
            use_simplified_mahalanobis_score: false,
            shrinkage: Shrinkage::None,
            k: None,
            principal_dim: None,
        }
    }
}
