//! The weights of a composition, by logistic regression of what plays OOD against ID rows.
//!
//! min over w ≥ 0 and b of Σ c·ln(1 + exp(−s·(w·u + b))) + λ/2·‖w‖², where u are a row's
//! standardised scores, cut off at ±10; s = −1 of ID rows and 1 of others; the c of the ID
//! rows add up to one half, as do those of all others together. By Nesterov's accelerated
//! gradient steps, projected on w ≥ 0, with restarts (Beck and Teboulle, 2009; O'Donoghue and
//! Candès, 2015).

/// λ. It spreads the weights over scorers that say nearly the same.
const RIDGE: f64 = 0.03;

/// Where scores are cut off: beyond, an outlier would count as much as many rows.
const CUT: f32 = 10.0;

const STEPS: usize = 400;

/// Rows of one kind: scores `[scorer][row]`, already cut off, whether they play OOD, and what
/// each counts.
pub(crate) struct Rows<'a> {
    pub scores: &'a [Vec<f32>],
    pub ood: bool,
    pub share: f64,
}

/// Scores cut off.
pub(crate) fn cut(scores: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let one = |rows: &Vec<f32>| rows.iter().map(|v| v.clamp(-CUT, CUT)).collect();
    scores.iter().map(one).collect()
}

/// The weights of these of the scorers; 0 of all others.
pub(crate) fn weights(sets: &[Rows<'_>], scorers: usize, among: &[usize]) -> Vec<f64> {
    let n = among.len();
    let step = 1.0 / (0.25 * largest_curvature(sets, among) + RIDGE);
    // The weights, then b.
    let (mut at, mut ahead) = (vec![0.0; n + 1], vec![0.0; n + 1]);
    let mut pace: f64 = 1.0;
    for _ in 0..STEPS {
        let slope = gradient(sets, among, &ahead);
        let move_to = |i: usize| {
            let to = ahead[i] - step * slope[i];
            if i < n { to.max(0.0) } else { to }
        };
        let next: Vec<f64> = (0..=n).map(move_to).collect();
        let uphill: f64 = (0..=n).map(|i| (ahead[i] - next[i]) * (next[i] - at[i])).sum();
        if uphill > 0.0 {
            pace = 1.0;
        }
        let faster = (1.0 + (1.0 + 4.0 * pace * pace).sqrt()) / 2.0;
        let momentum = (pace - 1.0) / faster;
        ahead = (0..=n).map(|i| next[i] + momentum * (next[i] - at[i])).collect();
        (at, pace) = (next, faster);
    }
    let mut out = vec![0.0; scorers];
    among.iter().zip(at).for_each(|(s, w)| out[*s] = w);
    out
}

fn gradient(sets: &[Rows<'_>], among: &[usize], at: &[f64]) -> Vec<f64> {
    let n = among.len();
    let mut slope: Vec<f64> = at.iter().map(|w| RIDGE * w).collect();
    slope[n] = 0.0;
    for set in sets {
        let mut sums = vec![at[n] as f32; set.scores.first().map_or(0, Vec::len)];
        for (s, w) in among.iter().zip(at) {
            let w = *w as f32;
            sums.iter_mut().zip(&set.scores[*s]).for_each(|(t, u)| *t += w * u);
        }
        // What each row pulls with: how probable it is taken for what it is not.
        let sign = if set.ood { -1.0 } else { 1.0 };
        for t in &mut sums {
            *t = sign / (1.0 + (-sign * *t).exp());
        }
        for (slope, s) in slope.iter_mut().zip(among) {
            *slope += set.share * product(&sums, &set.scores[*s]);
        }
        slope[n] += set.share * sums.iter().map(|t| f64::from(*t)).sum::<f64>();
    }
    slope
}

/// Bound on the largest eigenvalue of Σ c·(u, 1)(u, 1)ᵀ, by the power method.
fn largest_curvature(sets: &[Rows<'_>], among: &[usize]) -> f64 {
    let n = among.len();
    let mut sums = vec![vec![0.0; n + 1]; n + 1];
    for set in sets {
        let ones = vec![1.0f32; set.scores.first().map_or(0, Vec::len)];
        let columns: Vec<&[f32]> = among.iter().map(|s| &*set.scores[*s]).chain([&*ones]).collect();
        for (row, a) in sums.iter_mut().zip(&columns) {
            for (sum, b) in row.iter_mut().zip(&columns) {
                *sum += set.share * product(a, b);
            }
        }
    }
    let (mut vector, mut size) = (vec![1.0; n + 1], 1.0);
    for _ in 0..50 {
        let next: Vec<f64> =
            sums.iter().map(|row| row.iter().zip(&vector).map(|(a, v)| a * v).sum()).collect();
        size = next.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        if size == 0.0 {
            return 0.0;
        }
        vector = next.iter().map(|v| v / size).collect();
    }
    // It approaches from below.
    1.05 * size
}

/// Σ a·b, in parts of a fixed size.
fn product(a: &[f32], b: &[f32]) -> f64 {
    let parts = a.chunks(64).zip(b.chunks(64));
    parts.map(|(a, b)| f64::from(a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1, `minimize(f, …, method="L-BFGS-B", bounds=[(0, None)] * 3 + [(None, None)])`
    /// of the sum above.
    #[test]
    fn weights_equal_scipy() {
        let wave = |a: f32, b: f32, n: usize| -> Vec<f32> {
            (0..n).map(|i| (a * i as f32).sin() + b).collect()
        };
        let id = vec![wave(1.0, 0.0, 40), wave(2.0, 0.0, 40), wave(3.0, 0.0, 40)];
        let ood = vec![wave(1.5, 1.0, 30), wave(2.5, 0.5, 30), wave(3.5, -0.5, 30)];
        let sets = [
            Rows { scores: &id, ood: false, share: 0.5 / 40.0 },
            Rows { scores: &ood, ood: true, share: 0.5 / 30.0 },
        ];
        let got = weights(&sets, 4, &[0, 1, 2]);
        let want = [1.332_265_6, 0.687_919_7, 0.0, 0.0];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-3, "{got} {want}");
        }
        // Of equal scorers, equal weights.
        let twice = vec![id[0].clone(), id[0].clone()];
        let twice_ood = vec![ood[0].clone(), ood[0].clone()];
        let sets = [
            Rows { scores: &twice, ood: false, share: 0.5 / 40.0 },
            Rows { scores: &twice_ood, ood: true, share: 0.5 / 30.0 },
        ];
        let got = weights(&sets, 2, &[0, 1]);
        assert!(got[0] > 0.1 && (got[0] - got[1]).abs() < 1e-9, "{got:?}");
    }
}
