//! Scores of in-distribution rows, against which a new row is ranked.
//!
//! The conformal p-value of a score s among n calibration scores c is
//! p = (1 + #{c ≥ s})/(n + 1). If the row is exchangeable with those of
//! calibration, P(p ≤ α) ≤ α, whatever the scorer and the distribution. With
//! ties broken at random, p = (#{c > s} + u·(1 + #{c = s}))/(n + 1) with u
//! uniform on [0, 1) is exactly uniform.
//!
//! Reference: Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random
//! World*, 2005; for outliers, Bates et al., *Testing for Outliers with
//! Conformal p-values*, Annals of Statistics 2023.

use crate::error::{Error, Result};

/// Calibration scores in ascending order.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationScores(Vec<f32>);

impl CalibrationScores {
    /// From scores in any order.
    ///
    /// # Errors
    /// If one is NaN.
    pub fn new(mut scores: Vec<f32>) -> Result<Self> {
        if let Some(row) = scores.iter().position(|s| s.is_nan()) {
            return Err(Error::NotFinite {
                place: "calibration scores".into(),
                tensor: "score",
                row,
                column: 0,
                value: scores[row],
            });
        }
        // −0 and 0 are the same score.
        scores.iter_mut().for_each(|s| *s += 0.0);
        scores.sort_unstable_by(f32::total_cmp);
        Ok(CalibrationScores(scores))
    }

    /// Number of calibration rows n.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scores, ascending.
    pub fn scores(&self) -> &[f32] {
        &self.0
    }

    /// How many scores are above `score`, and how many equal it.
    pub(super) fn above(&self, score: f32) -> (usize, usize) {
        let below = self.0.partition_point(|&c| c < score);
        let upto = self.0.partition_point(|&c| c <= score);
        (self.0.len() - upto, upto - below)
    }

    /// The p-value of a score: the larger it is, the more ordinary the row.
    pub fn p_value(&self, score: f32) -> f64 {
        let (above, equal) = self.above(score);
        (1 + above + equal) as f64 / (self.0.len() + 1) as f64
    }

    /// The p-value with ties broken by `u`, uniform on [0, 1).
    pub fn p_value_randomized(&self, score: f32, u: f64) -> f64 {
        let (above, equal) = self.above(score);
        (above as f64 + u * (1 + equal) as f64) / (self.0.len() + 1) as f64
    }

    /// The k-th largest score, k from 1; rows above it are flagged.
    pub(super) fn kth_largest(&self, k: usize) -> f32 {
        self.0[self.0.len() - k]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: of 1, 2, 2, 3 one is above 2 and two equal it.
    #[test]
    fn p_values_by_hand() {
        let r = CalibrationScores::new(vec![3.0, 2.0, 1.0, 2.0]).unwrap();
        assert_eq!(r.p_value(2.0), 4.0 / 5.0);
        assert_eq!(r.p_value(4.0), 1.0 / 5.0);
        assert_eq!(r.p_value(0.0), 1.0);
        assert_eq!(r.p_value_randomized(2.0, 0.5), 2.5 / 5.0);
        assert_eq!(r.p_value_randomized(4.0, 0.0), 0.0);
        assert_eq!(r.p_value(f32::INFINITY), 0.2);
        assert_eq!((r.kth_largest(1), r.kth_largest(4)), (3.0, 1.0));
        assert!(CalibrationScores::new(vec![f32::NAN]).is_err());
        let zero = CalibrationScores::new(vec![0.0]).unwrap();
        assert_eq!(zero.p_value(-0.0), 1.0);
    }
}
