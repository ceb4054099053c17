//! Mean and deviation of the rows that the network sees, for standardised inputs.

use super::super::negatives::Negatives;
use crate::error::Result;
use crate::features::{FeatureSet, Field};
use crate::math::blocks;
use crate::math::parallel::{Pieces, SlicesMut, run};
use crate::scorers::Prior;

/// Rows read at a time.
const ROWS: usize = 4096;

/// Columns summed by one task.
const COLUMNS: usize = 64;

/// Sums of one set's stepped rows about its first row, by column.
struct Sums {
    centre: Vec<f64>,
    /// Σ (z − c) and Σ (z − c)², `[D]` of both.
    sums: Vec<[f64; 2]>,
    rows: usize,
}

impl Sums {
    fn of(set: &FeatureSet, prior: &dyn Prior) -> Result<Self> {
        let (field, dim) = (Field::Features(prior.pooling()), prior.dim());
        let input_dim = set.require(field)?;
        let mut sums = Sums { centre: Vec::new(), sums: vec![[0.0; 2]; dim], rows: set.len() };
        let mut raw = Vec::new();
        for range in blocks(set.len(), ROWS) {
            raw.resize(range.len() * input_dim, 0.0);
            set.read_parallel(field, range, &mut raw)?;
            sums.add(&prior.steps().apply(&raw, input_dim));
        }
        Ok(sums)
    }

    fn add(&mut self, rows: &[f32]) {
        let dim = self.sums.len();
        if self.centre.is_empty() {
            self.centre = rows[..dim].iter().map(|&v| f64::from(v)).collect();
        }
        let (centre, sums) = (&self.centre, &mut self.sums);
        run(|| {
            sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(i, sums)| {
                let (from, to) = (i * COLUMNS, i * COLUMNS + sums.len());
                for row in rows.chunks_exact(dim) {
                    let values = row[from..to].iter().zip(&centre[from..to]);
                    for ([first, second], (&v, c)) in sums.iter_mut().zip(values) {
                        let v = f64::from(v) - c;
                        *first += v;
                        *second += v * v;
                    }
                }
            });
        });
    }

    /// Mean and variance of a column.
    fn column(&self, j: usize) -> (f64, f64) {
        let [first, second] = self.sums[j].map(|sum| sum / self.rows as f64);
        (self.centre[j] + first, second - first * first)
    }
}

/// Mean and deviation of each coordinate, over the training rows and as many negatives, of which
/// each kind counts alike.
pub(super) fn standardisation(
    train: &FeatureSet,
    negatives: Option<&Negatives>,
    prior: &dyn Prior,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut sets = vec![Sums::of(train, prior)?];
    for (_, set) in negatives.map_or(&[][..], Negatives::kinds) {
        sets.push(Sums::of(set, prior)?);
    }
    let kinds = sets.len() - 1;
    let weight = |i: usize| match (i, kinds) {
        (_, 0) => 1.0,
        (0, _) => 0.5,
        _ => 0.5 / kinds as f64,
    };
    let column = |j: usize| {
        let of_sets: Vec<(f64, f64)> = sets.iter().map(|set| set.column(j)).collect();
        let weighted = of_sets.iter().enumerate();
        let mean: f64 = weighted.clone().map(|(i, (mean, _))| weight(i) * mean).sum();
        let around = |m: f64, variance: f64| variance + (m - mean).powi(2);
        let variance: f64 = weighted.map(|(i, &(m, v))| weight(i) * around(m, v)).sum();
        (mean, variance.max(0.0).sqrt())
    };
    Ok((0..prior.dim()).map(column).unzip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Pooling;
    use crate::scorers::NoPriorConfig;

    /// By hand: training rows 1, 3 (mean 2, variance 1); kinds {5} and {7, 9} (means 5 and 8, variances 0
    /// and 1). Mean (2 + (5 + 8)/2)/2 = 4.25; variance ½·(1 + 2.25²) + ¼·0.75² + ¼·(1 + 3.75²).
    #[test]
    fn half_training_rows_half_negatives_kinds_alike() {
        let set = |rows: &[f32]| {
            let rows = ndarray::ArrayView2::from_shape((rows.len(), 1), rows).unwrap();
            FeatureSet::from_arrays(rows, None).unwrap()
        };
        let train = set(&[1.0, 3.0]);
        let steps = NoPriorConfig {
            pooling: Pooling::Avg,
            react: None,
            normalize: false,
            pca: None,
            whiten: false,
        };
        let prior = steps.fit(&train).unwrap();
        let alone = standardisation(&train, None, &prior).unwrap();
        assert_eq!(alone, (vec![2.0], vec![1.0]));
        let kinds = vec![("a".into(), set(&[5.0])), ("b".into(), set(&[7.0, 9.0]))];
        let negatives = Negatives::new(kinds).unwrap();
        let (mean, deviation) = standardisation(&train, Some(&negatives), &prior).unwrap();
        let variance = 0.5 * (1.0 + 2.25 * 2.25) + 0.25 * 0.75 * 0.75 + 0.25 * (1.0 + 3.75 * 3.75);
        assert!((mean[0] - 4.25).abs() < 1e-12);
        assert!((deviation[0] - f64::sqrt(variance)).abs() < 1e-12);
    }
}
