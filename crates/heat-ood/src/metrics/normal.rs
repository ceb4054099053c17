//! The standard normal distribution.

use statrs::function::erf::{erfc, erfc_inv};

/// P(|Z| ≥ |z|): the two-sided p-value of a normal statistic; NaN for NaN.
pub(super) fn two_sided(z: f64) -> f64 {
    erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// The z with P(|Z| ≤ z) = `level`, for 0 < `level` < 1.
pub(super) fn critical(level: f64) -> f64 {
    std::f64::consts::SQRT_2 * erfc_inv(1.0 - level)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: 2 * norm.sf(z) and norm.ppf((1 + level) / 2).
    #[test]
    fn equals_scipy() {
        for (z, want) in EXPECTED_P {
            assert!((two_sided(z) / want - 1.0).abs() < 1e-11, "{z}: {} {want}", two_sided(z));
        }
        for (level, want) in EXPECTED_Z {
            assert!((critical(level) - want).abs() < 1e-11, "{level}");
        }
        assert!(two_sided(f64::NAN).is_nan());
        assert_eq!(two_sided(f64::INFINITY), 0.0);
    }

    const EXPECTED_P: [(f64, f64); 6] = [
        (0.0, 1.0),
        (0.1, 0.920344325445942),
        (1.0, 0.31731050786291415),
        (1.96, 0.04999579029644087),
        (3.6, 0.00031821718031506727),
        (10.0, 1.523970604832094e-23),
    ];
    const EXPECTED_Z: [(f64, f64); 3] =
        [(0.5, 0.6744897501960817), (0.95, 1.959963984540054), (0.999, 3.2905267314919255)];
}
