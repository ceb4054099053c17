//! Rank correlation.

/// Spearman's correlation; 0 where one side is constant.
pub(super) fn spearman(a: &[f64], b: &[f64]) -> f64 {
    correlation(&ranks(a), &ranks(b))
}

/// Ranks from 0, ties sharing their mean.
fn ranks(x: &[f64]) -> Vec<f64> {
    let rank = |v: &f64| {
        let below = x.iter().filter(|w| *w < v).count() as f64;
        let equal = x.iter().filter(|w| *w == v).count() as f64;
        below + (equal - 1.0) / 2.0
    };
    x.iter().map(rank).collect()
}

/// Pearson's correlation; 0 where one side is constant.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(x - ma, y - mb)).sum::<f64>();
    let scale = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    if scale > 0.0 { sum(&|x, y| x * y) / scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: `spearmanr([.9, .8, .7, .7], [.6, .9, .5, .4])` is
    /// 0.7378647873726218.
    #[test]
    fn rank_correlation_equals_scipy() {
        let got = spearman(&[0.9, 0.8, 0.7, 0.7], &[0.6, 0.9, 0.5, 0.4]);
        assert!((got - 0.737_864_787_372_621_8).abs() < 1e-12, "{got}");
        assert_eq!(spearman(&[1.0, 1.0], &[0.0, 1.0]), 0.0);
    }
}
