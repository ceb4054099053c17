//! Several tests at once.

/// Holm's step-down correction (1979): the k-th smallest of m p-values times
/// m − k + 1, never below the one before it, at most 1. NaN (no test was
/// possible) stays NaN and does not count.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).filter(|&i| !p[i].is_nan()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut out = vec![f64::NAN; p.len()];
    let mut floor: f64 = 0.0;
    for (k, &i) in order.iter().enumerate() {
        floor = floor.max((order.len() - k) as f64 * p[i]).min(1.0);
        out[i] = floor;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 3·0.01, 2·0.03 = 0.06, then 0.04 may not fall below 0.06.
    #[test]
    fn by_hand() {
        let got = holm(&[0.04, 0.01, f64::NAN, 0.03]);
        for (got, want) in [(got[0], 0.06), (got[1], 0.03), (got[3], 0.06)] {
            assert!((got - want).abs() < 1e-15, "{got} {want}");
        }
        assert!(got[2].is_nan());
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }
}
