//! Fitting the mixture: one pass for means and covariance, more where K-means
//! or the shrinkage asks for them.

use std::sync::Arc;

use super::covariance::{Scale, factor, keep_diagonal, shrink};
use super::labels::Labels;
use super::shrinkage::Fitted;
use super::{Gmm, GmmConfig};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Present};
use crate::io::check_moments;
use crate::math::moments::Moments;
use crate::scorers::Stored;
use crate::scorers::context::{By, ClassMoments, FitContext, StatisticRequest};
use crate::scorers::gaussian::kmeans::KMeans;
use crate::scorers::method::Method;

/// Most numbers in the class means: 2 GiB in f64.
const MAX_MEANS: usize = 1 << 28;

/// The classes of the training rows, or what to do without labels.
fn classes_of(context: &mut FitContext<'_>) -> Result<Arc<Present>> {
    if context.train.labelled() {
        return context.present();
    }
    let remedy = "add class indices to the file, or give them apart; without labels, `kmeans=1` fits one \
                  Gaussian to all rows, and `kmeans=<k>` takes k clusters for classes (in a HEAT \
                  `ebm.model.base_dist.use_kmeans=true`)";
    Err(Error::missing(context.train.name(), "`label`", remedy))
}

impl Method for GmmConfig {
    const NAME: &'static str = "gmm";
    type Scorer = Gmm;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        self.shrinkage.check()?;
        if self.kmeans.is_some() {
            return Ok(Vec::new());
        }
        let source = context.source(self)?;
        let present = classes_of(context)?;
        check_size(present.count, source.dim)?;
        Ok(vec![ClassMoments::request("gmm", &source, By::Label(present))?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Gmm> {
        self.shrinkage.check()?;
        let train = context.train;
        let source = context.source(self)?;
        let input = source.input.clone();
        let labels = match self.kmeans {
            None => Labels::Classes(classes_of(context)?),
            Some(k) => {
                context.require_rows("gmm with kmeans")?;
                let observer = &mut *context.observer;
                let clusters = KMeans::fit(train, input.field(), k, self.kmeans_seed, observer)?;
                Labels::Clusters(clusters.assign(train, observer)?, k)
            }
        };
        let classes = labels.classes();
        check_size(classes, input.dim)?;
        let moments = match &labels {
            Labels::Classes(present) => {
                let by = By::Label(Arc::clone(present));
                let request = ClassMoments::request("gmm", &source, by)?;
                context.find::<ClassMoments>(request)?.moments.clone()
            }
            Labels::Clusters(..) => {
                let mut moments = Moments::new(input.dim, classes);
                context.pass(&source, "fit gmm", |range, rows| {
                    let labels = labels.get(train, range)?;
                    moments.update(rows, &labels);
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
        let rows = context.rows();
        let fitted = Fitted {
            rows,
            shrinkage: self.shrinkage,
            diagonal: self.diagonal,
            train,
            input: &input,
            labels: &labels,
            means: &means,
            covariance: &covariance,
        };
        let shrunk = fitted.weights(&source, context)?;
        shrink(&mut covariance, input.dim, shrunk);
        let scale = if self.normalize { Scale::One } else { Scale::Data };
        let (scale_tril, ridge) =
            factor(&mut covariance, input.dim, scale, rows, context.observer)?;
        drop(covariance);
        let probs = counts.iter().map(|&n| n as f64 / rows as f64).collect();
        Ok(Gmm::new(self.clone(), input, means, scale_tril, probs, ridge, shrunk))
    }

    fn load(stored: &Stored<'_>) -> Result<Gmm> {
        Gmm::load(stored)
    }
}

fn check_size(classes: usize, dim: usize) -> Result<()> {
    if classes.saturating_mul(dim) > MAX_MEANS {
        let problem = format!("{classes} classes in {dim} dimensions are too many means");
        return Err(Error::Fit { what: "gmm".into(), problem });
    }
    check_moments("gmm", dim, classes)
}

fn check_counts(counts: &[u64], labels: &Labels, train: &FeatureSet) -> Result<()> {
    let Some(k) = counts.iter().position(|&n| n < 2) else {
        return Ok(());
    };
    let (what, number, remedy) = match labels {
        Labels::Classes(present) => {
            ("class", present.class(k), "add rows, or remove those of the class")
        }
        Labels::Clusters(..) => ("cluster", k, "ask for fewer with `kmeans`"),
    };
    let problem = format!(
        "{what} {number} has {} row(s) in {}; every {what} needs at least 2: {remedy}",
        counts[k],
        train.name()
    );
    Err(Error::Fit { what: "gmm".into(), problem })
}
