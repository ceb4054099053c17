//! The standard normal distribution, to rounding: `statrs` has erfc to ten digits only.

/// P(|Z| ≥ |z|): the two-sided p-value of a normal statistic; NaN for NaN.
pub(super) fn two_sided(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    if x < 2.5 { 1.0 - erf(x) } else { erfc(x) }
}

/// The z with P(|Z| ≤ z) = `level`, for 0 < `level` < 1.
pub(super) fn critical(level: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    // Bisection to the last bit: this is done once per interval.
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if two_sided(middle) > 1.0 - level { low = middle } else { high = middle }
    }
    high
}

/// erf x = 2/√π · exp(−x²) · Σ 2ᵏ x²ᵏ⁺¹ / (2k+1)!!, all terms positive.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum, mut k) = (x, x, 0.0);
    while term > sum * 1e-17 {
        k += 1.0;
        term *= 2.0 * x * x / (2.0 * k + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// erfc x = exp(−x²)/√π · 1/(x + ½/(x + 1/(x + 3/2/(x + …)))), for large x.
fn erfc(x: f64) -> f64 {
    let tail = (1..80).rev().fold(x, |below, k| x + f64::from(k) / 2.0 / below);
    0.5 * std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() / tail
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
