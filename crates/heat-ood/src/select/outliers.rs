//! Outliers made of in-distribution rows, in feature space.
//!
//! - `mixed`: halfway between two rows of different classes, λ uniform on
//!   [0.3, 0.7] (Zhang et al., *mixup*, ICLR 2018): what lies between classes.
//! - `shuffled`: each coordinate from a row of its own: marginals as they are,
//!   dependence destroyed.
//! - `noisy`: rows with normal noise of the size of each coordinate's
//!   deviation, cut at zero where features never are below it: far away in all
//!   directions.
//!
//! All pooled features of an outlier are made from the same rows with the same
//! draws; logits are left out and follow from the head.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field, Matrix, Pooling};
use crate::math::rng::{Purpose, Stream};

/// Kinds of outliers.
pub(super) const KINDS: [&str; 3] = ["mixed", "shuffled", "noisy"];

const POOLINGS: [Pooling; 3] = [Pooling::Avg, Pooling::Std, Pooling::Max];

/// One set of outliers of each kind, as many rows as `id` has.
pub(super) fn make(id: &FeatureSet, seed: u64) -> Result<Vec<(&'static str, FeatureSet)>> {
    let n = id.len();
    let labels = if id.labelled() { Some(id.labels(0..n, id.classes()?)?) } else { None };
    let partners = partners(n, labels.as_deref(), seed);
    let fields: Vec<(Field, Vec<f32>, usize)> = POOLINGS
        .map(Field::Features)
        .into_iter()
        .filter_map(|field| Some((field, id.dim(field)?)))
        .map(|(field, dim)| {
            let mut rows = vec![0.0; n * dim];
            id.read(field, 0..n, &mut rows)?;
            Ok((field, rows, dim))
        })
        .collect::<Result<_>>()?;
    let all = KINDS.into_iter().map(|kind| {
        let made =
            fields.iter().try_fold(FeatureSet::in_memory(kind), |set, (field, rows, dim)| {
                let out = match kind {
                    "mixed" => mixed(rows, *dim, &partners, seed),
                    "shuffled" => shuffled(rows, *dim, seed),
                    _ => noisy(rows, *dim, seed),
                };
                Ok::<_, Error>(set.field(*field, Matrix::shared(n, Arc::new(out))?))
            })?;
        Ok((kind, made.build()?))
    });
    all.collect()
}

/// Another row for each, of another class where there is one.
fn partners(n: usize, labels: Option<&[u32]>, seed: u64) -> Vec<usize> {
    let mut stream = Stream::new(seed, Purpose::Outliers, 0, 0);
    (0..n)
        .map(|i| {
            let draws = (0..64).map(|_| stream.below(n as u32) as usize).collect::<Vec<_>>();
            let other = |j: &usize| labels.map_or(*j != i, |l| l[*j] != l[i]);
            draws.iter().copied().find(|j| other(j)).unwrap_or(draws[0])
        })
        .collect()
}

fn mixed(rows: &[f32], dim: usize, partners: &[usize], seed: u64) -> Vec<f32> {
    let mut shares = vec![0.0; partners.len()];
    Stream::new(seed, Purpose::Outliers, 1, 0).fill_uniform(&mut shares, 0.3, 0.7);
    let mut out = rows.to_vec();
    for ((row, &j), share) in out.chunks_exact_mut(dim).zip(partners).zip(shares) {
        for (v, w) in row.iter_mut().zip(&rows[j * dim..]) {
            *v = share * *v + (1.0 - share) * w;
        }
    }
    out
}

fn shuffled(rows: &[f32], dim: usize, seed: u64) -> Vec<f32> {
    let n = rows.len() / dim;
    let mut out = vec![0.0; rows.len()];
    for (i, row) in out.chunks_exact_mut(dim).enumerate() {
        let mut stream = Stream::new(seed, Purpose::Outliers, 2, i as u64);
        for (j, v) in row.iter_mut().enumerate() {
            *v = rows[stream.below(n as u32) as usize * dim + j];
        }
    }
    out
}

fn noisy(rows: &[f32], dim: usize, seed: u64) -> Vec<f32> {
    let n = (rows.len() / dim) as f64;
    let mut mean = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n);
    }
    let mut deviation = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        for ((d, m), &v) in deviation.iter_mut().zip(&mean).zip(row) {
            *d += (f64::from(v) - m).powi(2) / n;
        }
    }
    let positive = rows.iter().all(|v| *v >= 0.0);
    let mut out = rows.to_vec();
    let mut noise = vec![0.0; dim];
    for (i, row) in out.chunks_exact_mut(dim).enumerate() {
        Stream::new(seed, Purpose::Outliers, 3, i as u64).fill_normal(&mut noise);
        for ((v, e), d) in row.iter_mut().zip(&noise).zip(&deviation) {
            *v += e * d.sqrt() as f32;
            if positive {
                *v = v.max(0.0);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    const AVG: Field = Field::Features(Pooling::Avg);

    /// Two classes at (0, 10) and (10, 0): what is mixed lies on the line
    /// between them within its middle, what is shuffled is at a corner, and
    /// noise keeps no row where it was.
    #[test]
    fn each_kind_by_hand() {
        let rows = Array2::from_shape_fn((200, 2), |(i, j)| if i % 2 == j { 10.0 } else { 0.0 });
        let labels: Vec<u32> = (0..200).map(|i| i % 2).collect();
        let id = FeatureSet::from_arrays(rows.view(), Some(&labels)).unwrap();
        let made = make(&id, 3).unwrap();
        let values = |k: usize| {
            let mut out = vec![0.0; 400];
            made[k].1.read(AVG, 0..200, &mut out).unwrap();
            out
        };
        for row in values(0).chunks(2) {
            assert!((row[0] + row[1] - 10.0).abs() < 1e-4 && (2.9..7.1).contains(&row[0]));
        }
        let shuffled = values(1);
        assert!(shuffled.iter().all(|v| *v == 0.0 || *v == 10.0));
        let both = shuffled.chunks(2).filter(|r| r[0] == r[1]).count();
        assert!((70..130).contains(&both), "{both}");
        let noisy = values(2);
        assert!(
            noisy.iter().all(|v| *v >= 0.0) && noisy.iter().filter(|v| **v > 10.0).count() > 50
        );
        assert_eq!(values(2), {
            let mut again = vec![0.0; 400];
            make(&id, 3).unwrap()[2].1.read(AVG, 0..200, &mut again).unwrap();
            again
        });
    }
}
