//! Fitting the mixture: one pass for means and covariance, more where K-means
//! or the shrinkage asks for them.

use super::covariance::{factor, keep_diagonal, shrink};
use super::labels::Labels;
use super::shrinkage::Fitted;
use super::{Gmm, GmmConfig};
use crate::error::{Error, Result};
use crate::features::FeatureSet;
use crate::math::moments::Moments;
use crate::math::parallel;
use crate::observe::Observer;
use crate::scorers::kmeans::KMeans;
use crate::scorers::training::{By, ClassMoments, Training, Want};

/// Most numbers in the class means: 2 GiB in f64.
const MAX_MEANS: usize = 1 << 28;

impl GmmConfig {
    /// Fit on a labelled training set with `classes` classes (`None`: one
    /// more than the largest label).
    ///
    /// # Errors
    /// If labels are absent or out of range, a class has fewer than two rows,
    /// a value is not finite, or the covariance stays singular.
    pub fn fit(
        &self,
        train: &FeatureSet,
        classes: Option<usize>,
        observer: &mut dyn Observer,
    ) -> Result<Gmm> {
        self.fit_in(&mut Training::new(train, None, observer).with_classes(classes))
    }

    /// The statistic that the fit asks for, unless it clusters.
    pub(in crate::scorers) fn wants(&self, training: &mut Training<'_>) -> Result<Vec<Want>> {
        self.shrinkage.check()?;
        if self.kmeans.is_some() {
            return Ok(Vec::new());
        }
        let source = training.source(self)?;
        let classes = training.classes()?;
        check_size(classes, source.dim)?;
        Ok(vec![ClassMoments::want(&source, By::Label(classes))])
    }

    /// Fit on a training set of which statistics may be known.
    pub(in crate::scorers) fn fit_in(&self, training: &mut Training<'_>) -> Result<Gmm> {
        self.shrinkage.check()?;
        let train = training.train;
        let source = training.source(self)?;
        let input = source.input.clone();
        let labels = match self.kmeans {
            None => Labels::Classes(training.classes()?),
            Some(k) => {
                let observer = &mut *training.observer;
                let clusters = KMeans::fit(train, input.field(), k, self.kmeans_seed, observer)?;
                Labels::Clusters(clusters.assign(train, observer)?, k)
            }
        };
        let classes = labels.classes();
        check_size(classes, input.dim)?;
        let moments = match &labels {
            Labels::Classes(k) => {
                let want = ClassMoments::want(&source, By::Label(*k));
                training.find::<ClassMoments>(want)?.moments.clone()
            }
            Labels::Clusters(..) => {
                let mut moments = Moments::new(input.dim, classes);
                training.pass(&source, "fit gmm", |range, rows| {
                    let labels = labels.get(train, range)?;
                    parallel::run(|| moments.update(rows, &labels));
                    Ok(())
                })?;
                moments
            }
        };
        check_counts(moments.counts(), &labels, train)?;
        let counts = moments.counts().to_vec();
        let (means, mut covariance) = moments.finish();
        if self.diagonal {
            keep_diagonal(&mut covariance, input.dim);
        }
        let fitted = Fitted {
            shrinkage: self.shrinkage,
            diagonal: self.diagonal,
            train,
            input: &input,
            labels: &labels,
            means: &means,
            covariance: &covariance,
        };
        let shrunk = fitted.weights(training.observer)?;
        shrink(&mut covariance, input.dim, shrunk);
        let (scale_tril, ridge) =
            factor(&mut covariance, input.dim, train.len(), training.observer)?;
        drop(covariance);
        let probs = counts.iter().map(|&n| n as f64 / train.len() as f64).collect();
        Ok(Gmm::new(self.clone(), input, means, scale_tril, probs, ridge, shrunk))
    }
}

fn check_size(classes: usize, dim: usize) -> Result<()> {
    if classes.saturating_mul(dim) > MAX_MEANS {
        let problem = format!("{classes} classes in {dim} dimensions are too many means");
        return Err(Error::Fit { what: "gmm".into(), problem });
    }
    Ok(())
}

fn check_counts(counts: &[u64], labels: &Labels, train: &FeatureSet) -> Result<()> {
    let Some(k) = counts.iter().position(|&n| n < 2) else {
        return Ok(());
    };
    let (what, remedy) = match labels {
        Labels::Classes(_) => (
            "class",
            "add rows or remove the class (labels are 0..C without gaps; C is that of the \
             head or dataset, else the largest label plus one)",
        ),
        Labels::Clusters(..) => ("cluster", "ask for fewer with `kmeans`"),
    };
    let problem = format!(
        "{what} {k} has {} row(s) in {}; every {what} needs at least 2: {remedy}",
        counts[k],
        train.name()
    );
    Err(Error::Fit { what: "gmm".into(), problem })
}
