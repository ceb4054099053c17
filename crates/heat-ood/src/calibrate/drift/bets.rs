//! What the tests bet, and how much the CUSUM of these bets must win.

use crate::math::reduce;

/// The exponents ε of the bets.
pub(super) const BETS: [f64; 8] = [0.3, 0.45, 0.6, 0.7, 0.8, 0.87, 0.93, 0.97];

/// log f_ε(p); two-sided, of the mean of f_ε(p) and f_ε(1 − p).
pub(super) fn gains(p: f64, two_sided: bool) -> [f64; BETS.len()] {
    let log = |p: f64| p.max(f64::MIN_POSITIVE).ln();
    let (low, high) = (log(p), if two_sided { log(1.0 - p) } else { 0.0 });
    BETS.map(|e| {
        if two_sided {
            let both = [(e - 1.0) * low, (e - 1.0) * high];
            return e.ln() + reduce::logsumexp(both.into_iter()) - 2f64.ln();
        }
        e.ln() + (e - 1.0) * low
    })
}

/// The wealth C that the CUSUM reaches within `horizon` rows without change
/// with a probability of at most `alpha`.
///
/// The bound H/α is Doob's inequality, for any bets. But the law of these bets
/// is known, the ranks being independent and uniform: the rows until C reaches
/// h are soon exponential with a rate of κ/h, whatever h above a few hundred,
/// with κ = 0.0382 ± 0.0004 one-sided and 0.0235 ± 0.0003 two-sided, and the
/// rate from the beginning is below it. (Importance sampling, 40,000 streams:
/// `crossing` in the tests.) κ is rounded up here.
/// Short horizons need more than κ·H/α, because C is no exponential yet:
/// min(H, 40)/α, which plain simulation finds to be enough.
pub(super) fn cusum_threshold(horizon: u64, alpha: f64, two_sided: bool) -> f64 {
    let rows = horizon as f64;
    let rate = if two_sided { 0.025 } else { 0.04 };
    (rate * rows).max(rows.min(40.0)) / alpha
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::rng::{Purpose, Stream};

    /// One row of both recursions: CUSUM and Shiryaev–Roberts.
    fn step(p: f64, two_sided: bool, s: &mut [f64; 8], r: &mut [f64; 8]) -> (f64, f64) {
        let f = gains(p, two_sided).map(f64::exp);
        for i in 0..8 {
            (s[i], r[i]) = (s[i].max(1.0) * f[i], (1.0 + r[i]) * f[i]);
        }
        (s.iter().sum::<f64>() / 8.0, r.iter().sum::<f64>() / 8.0)
    }

    /// P(C reaches h within `rows` rows of a stream that does not change) and its
    /// standard error, by importance sampling: the stream is drawn with a change
    /// at a uniform time to a bet drawn with it. The likelihood ratio after t
    /// rows is (R + rows − t)/rows, R the mean of Shiryaev–Roberts' statistics.
    fn crossing(h: f64, rows: usize, two_sided: bool, streams: u64) -> (f64, f64) {
        let weights: Vec<f64> = (0..streams)
            .map(|i| {
                let mut draw = Stream::new(11, Purpose::User, i, u64::from(two_sided));
                let change = (draw.uniform() * rows as f64) as usize;
                let bet = BETS[(draw.uniform() * 8.0) as usize];
                let (mut s, mut r) = ([1.0; 8], [0.0; 8]);
                for t in 0..rows {
                    let mut p = 1.0 - draw.uniform();
                    if t >= change {
                        p = p.powf(1.0 / bet);
                        if two_sided && draw.uniform() < 0.5 {
                            p = 1.0 - p;
                        }
                    }
                    let (c, r) = step(p, two_sided, &mut s, &mut r);
                    if c >= h {
                        return rows as f64 / (r + (rows - t - 1) as f64);
                    }
                }
                0.0
            })
            .collect();
        let n = streams as f64;
        let mean = weights.iter().sum::<f64>() / n;
        let square = weights.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / n;
        (mean, (square / n).sqrt())
    }

    /// The expected values come from another program (NumPy, 40,000 streams).
    #[test]
    fn crossings_are_as_simulated_elsewhere() {
        for (h, two_sided, want) in [
            (10_000.0, false, 0.02988),
            (100_000.0, false, 0.003019),
            (10_000.0, true, 0.01831),
            (100_000.0, true, 0.001835),
        ] {
            let (p, error) = crossing(h, 8000, two_sided, 1000);
            assert!((p - want).abs() < 4.0 * error + 0.02 * want, "{h}: {p} ± {error}, {want}");
            assert!(error < 0.1 * p, "{h}: {p} ± {error}");
        }
    }

    /// The promise, and that it is not much better than asked. Doob's threshold
    /// would be reached in 0.04 of the cases asked for.
    #[test]
    fn the_threshold_keeps_its_promise_and_is_not_far_below() {
        for two_sided in [false, true] {
            for (rows, alpha, least) in [(3000, 0.005, 0.7), (3000, 0.1, 0.7), (300, 0.1, 0.0)] {
                let h = cusum_threshold(rows, alpha, two_sided);
                let (p, error) = crossing(h, rows as usize, two_sided, 2000);
                assert!(p <= alpha + 3.0 * error, "{rows}, {alpha}: {p} ± {error}");
                assert!(p >= least * alpha, "{rows}, {alpha}: {p} ± {error}");
            }
        }
        assert_eq!(cusum_threshold(1, 0.1, false), 10.0);
    }

    /// Bets are fair: the mean of f over p is 1.
    #[test]
    fn bets_are_fair() {
        for two_sided in [false, true] {
            // p(t) = ∫ 140 t³(1 − t)³ dt takes the pole out; two-sided bets are
            // symmetric, and half of them is enough: up to t = 1/2.
            let n = 100_000;
            let mut sums = [0.0; 8];
            for i in 0..if two_sided { n / 2 } else { n } {
                let t = (f64::from(i) + 0.5) / f64::from(n);
                let p = t.powi(4) * (35.0 - t * (84.0 - t * (70.0 - t * 20.0)));
                let dp = 140.0 * (t * (1.0 - t)).powi(3);
                let add = gains(p, two_sided);
                sums.iter_mut().zip(add).for_each(|(s, g)| *s += g.exp() * dp);
            }
            for (sum, e) in sums.iter().zip(BETS) {
                let mean = sum / f64::from(n) * if two_sided { 2.0 } else { 1.0 };
                assert!((mean - 1.0).abs() < 1e-6, "{e}: {mean}");
            }
        }
    }
}
