//! Fitting the mixture: one pass for means and covariance, more where K-means
//! or the shrinkage asks for them.

use super::shrinkage::Fitted;
use super::{Gmm, GmmConfig};
use crate::error::{Error, Result};
use crate::features::FeatureSet;
use crate::math::linalg::cholesky;
use crate::math::moments::Moments;
use crate::math::parallel;
use crate::observe::{Event, Observer};
use crate::scorers::Stored;
use crate::scorers::context::{By, ClassMoments, FitContext, StatisticRequest};
use crate::scorers::fit::Method;
use crate::scorers::gaussian::kmeans::KMeans;

/// Ridge that the published implementation always adds.
const RIDGE: f64 = 1e-12;

/// Most numbers in the class means: 2 GiB in f64.
const MAX_MEANS: usize = 1 << 28;

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

impl Method for GmmConfig {
    const NAME: &'static str = "gmm";
    type Scorer = Gmm;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        self.shrinkage.check()?;
        if self.kmeans.is_some() {
            return Ok(Vec::new());
        }
        let source = context.source(self)?;
        let classes = context.classes()?;
        check_size(classes, source.dim)?;
        Ok(vec![ClassMoments::request(&source, By::Label(classes))])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Gmm> {
        self.shrinkage.check()?;
        let train = context.train;
        let source = context.source(self)?;
        let input = source.input.clone();
        let labels = match self.kmeans {
            None => Labels::Classes(context.classes()?),
            Some(k) => {
                let observer = &mut *context.observer;
                let clusters = KMeans::fit(train, input.field(), k, self.kmeans_seed, observer)?;
                Labels::Clusters(clusters.assign(train, observer)?, k)
            }
        };
        let classes = labels.classes();
        check_size(classes, input.dim)?;
        let moments = match &labels {
            Labels::Classes(k) => {
                let request = ClassMoments::request(&source, By::Label(*k));
                context.find::<ClassMoments>(request)?.moments.clone()
            }
            Labels::Clusters(..) => {
                let mut moments = Moments::new(input.dim, classes);
                context.pass(&source, "fit gmm", |range, rows| {
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
            config: self,
            train,
            input: &input,
            labels: &labels,
            means: &means,
            covariance: &covariance,
        };
        let shrunk = fitted.shrinkage(context.observer)?;
        shrink(&mut covariance, input.dim, shrunk);
        let (scale_tril, ridge) =
            factor(&mut covariance, input.dim, train.len(), context.observer)?;
        drop(covariance);
        let probs = counts.iter().map(|&n| n as f64 / train.len() as f64).collect();
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

pub(super) fn keep_diagonal(covariance: &mut [f64], dim: usize) {
    for (i, row) in covariance.chunks_exact_mut(dim).enumerate() {
        for (j, v) in row.iter_mut().enumerate() {
            *v = if i == j { *v } else { 0.0 };
        }
    }
}

/// Mean of the diagonal.
pub(super) fn mean_variance(covariance: &[f64], dim: usize) -> f64 {
    (0..dim).map(|i| covariance[i * dim + i]).sum::<f64>() / dim as f64
}

/// Σ ← keep·Σ + add·mean(diag Σ)·I.
fn shrink(covariance: &mut [f64], dim: usize, [keep, add]: [f64; 2]) {
    let add = add * mean_variance(covariance, dim);
    covariance.iter_mut().for_each(|v| *v *= keep);
    for i in 0..dim {
        covariance[i * dim + i] += add;
    }
}

/// L of Σ + ridge·I, the ridge raised tenfold until the factor is sound.
fn factor(
    covariance: &mut [f64],
    dim: usize,
    rows: usize,
    observer: &mut dyn Observer,
) -> Result<(Vec<f64>, f64)> {
    let diagonal = |c: &[f64]| (0..dim).map(|i| c[i * dim + i]).fold(0.0, f64::max);
    let largest = diagonal(covariance);
    if largest == 0.0 {
        let problem = "the rows of each class are all equal; are the features constant?";
        return Err(Error::Fit { what: "gmm".into(), problem: problem.into() });
    }
    let (mut ridge, mut added) = (RIDGE, 0.0);
    loop {
        for i in 0..dim {
            covariance[i * dim + i] += ridge - added;
        }
        added = ridge;
        let factor = cholesky(covariance, dim);
        let pivot =
            |l: &Vec<f64>| (0..dim).map(|i| l[i * dim + i].powi(2)).fold(f64::MAX, f64::min);
        // Pivots below the rounding of the sums are noise, not variances.
        let noise = dim as f64 * f64::EPSILON * largest;
        if let Some(l) = factor.filter(|l| pivot(l) > noise) {
            if ridge > RIDGE || pivot(&l) < 10.0 * RIDGE {
                observer.on(Event::Warning(&format!(
                    "the covariance is singular ({rows} rows, {dim} dimensions): \
                     a ridge of {ridge:.0e} was added to its diagonal (largest variance {largest:.1e})"
                )));
            }
            return Ok((l, ridge));
        }
        ridge *= 10.0;
        if ridge > largest.max(1.0) {
            return Err(Error::Fit {
                what: "gmm".into(),
                problem: "the covariance is not positive definite even with a ridge; \
                          are the features constant or of absurd scale?"
                    .into(),
            });
        }
    }
}
