//! The prior that a residual corrects: fitted as the settings say, or one's own.

use std::sync::Arc;

use super::base_dist::PriorKind;
use super::config::HeatConfig;
use crate::error::{Error, Result};
use crate::features::{Head, Pooling};
use crate::observe::Observer;
use crate::provenance::Provenance;
use crate::scorers::{
    Center, EnergyLogitsConfig, FitContext, Fitted, GmmConfig, KnnConfig, Method, NoPriorConfig,
    Prior, Shrinkage, TrainingData, VimConfig,
};

/// As many clusters as classes; of rows without labels, one.
fn clusters(data: &TrainingData) -> Result<usize> {
    if data.classes.is_none() && !data.features.labelled() {
        return Ok(1);
    }
    data.count_classes()
}

impl HeatConfig {
    /// Fit the prior that these settings name; of a residual that has none and draws nothing from it,
    /// the feature steps alone.
    ///
    /// # Errors
    /// If the data cannot be fitted, `el` is asked for without a head, or with
    /// another pooling than avg.
    pub fn fit_prior(
        &self,
        data: &TrainingData,
        observer: &mut dyn Observer,
    ) -> Result<Arc<dyn Prior>> {
        let base = &self.ebm.model.base_dist;
        let (pooling, normalize) = (self.pooling, self.normalize);
        let react = base.use_react.then_some(base.react_p);
        let pca = self.use_pca.then_some(self.pca_n_principal_components);
        let whiten = self.use_pca && self.pca_whiten;
        if !self.ebm.model.needs_prior() {
            let steps = NoPriorConfig { pooling, react, normalize, pca, whiten };
            return Ok(Arc::new(steps.fit(&data.features)?));
        }
        self.check_prior()?;
        let of_head = data.head.as_ref().map(Head::classes);
        let data =
            TrainingData { classes: of_head.or(base.num_classes).or(data.classes), ..data.clone() };
        let context = &mut FitContext::new(&data, observer);
        Ok(match self.ebm.prior {
            PriorKind::Gmm => {
                let config = GmmConfig {
                    diagonal: base.diag_coefficient_only,
                    kmeans: base.use_kmeans.then(|| clusters(&data)).transpose()?,
                    kmeans_seed: self.seed,
                    shrinkage: base.shrinkage,
                    pooling,
                    react,
                    normalize,
                    pca,
                    whiten,
                };
                Arc::new(config.fit_in(context)?)
            }
            PriorKind::El => {
                if data.head.is_none() {
                    let remedy = "give the classifier's last layer (weight [C, D], bias [C])";
                    return Err(Error::needs("the `el` prior", "a head", remedy));
                }
                Arc::new(EnergyLogitsConfig::default().fit_in(context)?)
            }
            PriorKind::Vim => {
                let principal_dim = base.principal_dim;
                let center = Center::default();
                let config =
                    VimConfig { principal_dim, center, pooling, react, normalize, pca, whiten };
                Arc::new(config.fit_in(context)?)
            }
            PriorKind::Knn => {
                let config = KnnConfig { k: base.k, pooling, react, normalize, pca, whiten };
                Arc::new(config.fit_in(context)?)
            }
        })
    }

    /// Settings of another prior than the one chosen would have no effect.
    fn check_prior(&self) -> Result<()> {
        let base = &self.ebm.model.base_dist;
        let kind = self.ebm.prior;
        let only = |key: &str, set: bool, of: PriorKind| {
            if !set || kind == of {
                return Ok(());
            }
            let problem =
                format!("is a setting of the `{}` prior, not of `{}`", of.name(), kind.name());
            Err(Error::config(format!("ebm.model.base_dist.{key}"), "…", problem))
        };
        only("diag_coefficient_only", base.diag_coefficient_only, PriorKind::Gmm)?;
        only("use_kmeans", base.use_kmeans, PriorKind::Gmm)?;
        let conditional = base.use_simplified_mahalanobis_score;
        only("use_simplified_mahalanobis_score", conditional, PriorKind::Gmm)?;
        only("shrinkage", base.shrinkage != Shrinkage::None, PriorKind::Gmm)?;
        only("k", base.k.is_some(), PriorKind::Knn)?;
        only("principal_dim", base.principal_dim.is_some(), PriorKind::Vim)?;
        if kind != PriorKind::El {
            return Ok(());
        }
        for (key, set) in [
            ("normalize", self.normalize),
            ("use_pca", self.use_pca),
            ("ebm.model.base_dist.use_react", base.use_react),
            ("pooling", self.pooling != Pooling::Avg),
        ] {
            if set {
                let value = if key == "pooling" { self.pooling.name() } else { "true" };
                let problem = "the head of the `el` prior reads plain `avg` features";
                return Err(Error::config(key, value, problem));
            }
        }
        Ok(())
    }
}

/// A prior, owned or shared, with what it has seen where that is known.
pub trait IntoPrior {
    /// As a shared prior.
    fn into_prior(self) -> (Arc<dyn Prior>, Provenance);
}

impl<P: Prior> IntoPrior for P {
    fn into_prior(self) -> (Arc<dyn Prior>, Provenance) {
        (Arc::new(self), Provenance::default())
    }
}

impl IntoPrior for Arc<dyn Prior> {
    fn into_prior(self) -> (Arc<dyn Prior>, Provenance) {
        (self, Provenance::default())
    }
}

impl<P: Prior> IntoPrior for Fitted<P> {
    fn into_prior(self) -> (Arc<dyn Prior>, Provenance) {
        let (prior, provenance) = self.into_parts();
        (prior, provenance)
    }
}
