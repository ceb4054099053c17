//! The covariance between its sums and its factor: diagonal, shrinkage, ridge.

use crate::error::{Error, Result};
use crate::math::linalg::cholesky;
use crate::observe::{Event, Observer};

/// Ridge that the published implementation adds.
const RIDGE: f64 = 1e-12;

/// Whether rows have a scale of their own, or were normalised.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Of length one: the ridge is 1e-12, as published.
    One,
    /// In the units of the features: the ridge is 1e-12 of the mean variance, so that scores do
    /// not depend on units (METHOD §3).
    Data,
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
pub(super) fn shrink(covariance: &mut [f64], dim: usize, [keep, add]: [f64; 2]) {
    let add = add * mean_variance(covariance, dim);
    covariance.iter_mut().for_each(|v| *v *= keep);
    for i in 0..dim {
        covariance[i * dim + i] += add;
    }
}

/// L of Σ + ridge·I, the ridge raised tenfold until the factor is sound.
pub(super) fn factor(
    covariance: &mut [f64],
    dim: usize,
    scale: Scale,
    rows: usize,
    observer: &mut dyn Observer,
) -> Result<(Vec<f64>, f64)> {
    let diagonal = |c: &[f64]| (0..dim).map(|i| c[i * dim + i]).fold(0.0, f64::max);
    let largest = diagonal(covariance);
    if largest == 0.0 {
        let problem = "the rows of each class are all equal; are the features constant?";
        return Err(Error::Fit { what: "gmm".into(), problem: problem.into() });
    }
    let (least, most) = match scale {
        Scale::One => (RIDGE, largest.max(1.0)),
        Scale::Data => (RIDGE * mean_variance(covariance, dim), largest),
    };
    let (mut ridge, mut added) = (least, 0.0);
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
            if ridge > least || pivot(&l) < 10.0 * least {
                observer.on(Event::Warning(&format!(
                    "the covariance is singular ({rows} rows, {dim} dimensions): \
                     a ridge of {ridge:.0e} was added to its diagonal (largest variance {largest:.1e})"
                )));
            }
            return Ok((l, ridge));
        }
        ridge *= 10.0;
        if ridge > most {
            return Err(Error::Fit {
                what: "gmm".into(),
                problem: "the covariance is not positive definite even with a ridge; \
                          are the features constant or of absurd scale?"
                    .into(),
            });
        }
    }
}
