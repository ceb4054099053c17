//! How often a conformal threshold raises a false alarm.
//!
//! Given α and n calibration rows, the number of m new rows with p ≤ α is
//! beta-binomial with parameters k = ⌊α(n + 1)⌋ and n + 1 − k (Vovk,
//! *Conditional validity of inductive conformal predictors*, 2012).

use heat_ood::calibrate::CalibrationScores;
use heat_ood::math::rng::{Purpose, Stream};

/// The rows in halves, chosen at random: to calibrate with, to check with.
pub fn halves(scores: &[f32], seed: u64) -> heat_ood::Result<(CalibrationScores, Vec<f32>)> {
    let order = Stream::new(seed, Purpose::User, 0, 0).permutation(scores.len() as u32);
    let of = |rows: &[u32]| -> Vec<f32> { rows.iter().map(|&r| scores[r as usize]).collect() };
    let (first, second) = order.split_at(scores.len() / 2);
    Ok((CalibrationScores::new(of(first))?, of(second)))
}

/// The fraction of `scores` with p ≤ α, for each α.
pub fn alarms(calibration: &CalibrationScores, scores: &[f32], alphas: &[f64]) -> Vec<f64> {
    let mut p: Vec<f64> = scores.iter().map(|&s| calibration.p_value(s)).collect();
    p.sort_unstable_by(f64::total_cmp);
    let n = p.len().max(1) as f64;
    alphas.iter().map(|&alpha| p.partition_point(|&v| v <= alpha) as f64 / n).collect()
}

/// Between which fractions of m new rows the alarms lie with a probability of
/// 95 %, after calibration with n rows.
pub fn band(n: usize, m: usize, alpha: f64) -> (f64, f64) {
    // α(n + 1) is a whole number more often than its floating-point value.
    let k = (alpha * (n + 1) as f64 + 1e-9).floor();
    if k < 1.0 || m == 0 {
        return (0.0, 0.0);
    }
    let (a, b, rows) = (k, (n + 1) as f64 - k, m as f64);
    if b <= 0.0 {
        return (1.0, 1.0);
    }
    // ln P(0 alarms), then the ratio of neighbours.
    let mut log: f64 = (0..m).map(|i| ((b + i as f64) / (a + b + i as f64)).ln()).sum();
    let (mut sum, mut low) = (0.0, None);
    for x in 0..=m {
        sum += log.exp();
        let at = x as f64;
        if low.is_none() && sum >= 0.025 {
            low = Some(at / rows);
        }
        if sum >= 0.975 {
            return (low.unwrap_or(0.0), at / rows);
        }
        log += ((rows - at) / (at + 1.0) * (a + at) / (b + rows - at - 1.0)).ln();
    }
    (low.unwrap_or(0.0), 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_by_hand() {
        let calibration = CalibrationScores::new(vec![1.0, 2.0, 2.0, 3.0]).unwrap();
        assert_eq!(alarms(&calibration, &[9.0, 0.0], &[0.1, 0.2, 1.0]), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn halves_are_of_the_rows() {
        let scores: Vec<f32> = (0..11).map(|v| v as f32).collect();
        let (first, second) = halves(&scores, 0).unwrap();
        assert_eq!((first.len(), second.len()), (5, 6));
        let mut all = [first.scores(), &second].concat();
        all.sort_unstable_by(f32::total_cmp);
        assert_eq!(all, scores);
    }

    /// scipy 1.17.1: `betabinom(m, k, n + 1 - k).ppf([.025, .975]) / m`.
    #[test]
    fn bands_of_scipy() {
        for (n, m, alpha, low, high) in BANDS {
            assert_eq!(band(n, m, alpha), (low, high), "{n} {m} {alpha}");
        }
        assert_eq!(band(5, 10, 0.1), (0.0, 0.0));
    }

    const BANDS: [(usize, usize, f64, f64, f64); 5] = [
        (500, 500, 0.05, 13.0 / 500.0, 40.0 / 500.0),
        (500, 500, 0.1, 33.0 / 500.0, 70.0 / 500.0),
        (99, 40, 0.2, 3.0 / 40.0, 14.0 / 40.0),
        (2500, 2500, 0.01, 13.0 / 2500.0, 40.0 / 2500.0),
        (5000, 5000, 0.2, 922.0 / 5000.0, 1079.0 / 5000.0),
    ];
}
