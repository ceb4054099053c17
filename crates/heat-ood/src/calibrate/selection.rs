//! Choosing among many rows with a bound on the fraction of false discoveries.

use crate::error::Result;

use super::guarantee::check_rate;

/// The rows to call out-of-distribution, so that of those called so the
/// expected fraction that is not (false discovery rate) is at most `rate`:
/// the rows with the i smallest p-values for the largest i with
/// p₍ᵢ₎ ≤ rate·i/m.
///
/// Conformal p-values of one calibration set are dependent in a way under
/// which the bound holds (Bates et al. 2023, Theorem 2). With n calibration
/// rows no p-value is below 1/(n + 1): m rows of which r are odd need about
/// n ≥ m/(rate·r).
///
/// Reference: Benjamini and Hochberg, *Controlling the False Discovery Rate*,
/// JRSS B 1995.
///
/// # Errors
/// If the rate does not lie between 0 and 1.
pub fn benjamini_hochberg(p_values: &[f64], rate: f64) -> Result<Vec<bool>> {
    check_rate("fdr", rate)?;
    let mut sorted = p_values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let m = sorted.len() as f64;
    // A p-value that equals its bound but for rounding is selected.
    let below = |(i, p): &(usize, &f64)| **p <= rate * (i + 1) as f64 / m * (1.0 + 1e-12);
    let last = sorted.iter().enumerate().rev().find(below).map(|(_, p)| *p);
    Ok(p_values.iter().map(|p| last.is_some_and(|t| *p <= t)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fifteen p-values of Benjamini and Hochberg (1995, §4.1): at 0.05 the
    /// four smallest are selected.
    #[test]
    fn the_papers_example() {
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.0,
        ];
        let selected = benjamini_hochberg(&p, 0.05).unwrap();
        assert_eq!(selected.iter().filter(|s| **s).count(), 4);
        assert!(selected[..4].iter().all(|s| *s));
        assert!(benjamini_hochberg(&[0.9, 0.8], 0.1).unwrap().iter().all(|s| !s));
        assert!(benjamini_hochberg(&[], 0.1).unwrap().is_empty());
        for rate in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(benjamini_hochberg(&p, rate).is_err());
        }
    }
}
