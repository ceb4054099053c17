//! Which rank of the calibration scores is the threshold, and what it promises.
//!
//! Rows above the k-th largest of n calibration scores are flagged. For rows
//! drawn as those of calibration, the false-alarm rate given the calibration
//! set is at most a Beta(k, n − k + 1) variable (equal without ties), so
//! - *marginal*: its mean is k/(n + 1) ≤ α for k = ⌊α(n + 1)⌋;
//! - *training-conditional*, exact: P(rate > α) = P(Bin(n, α) < k) ≤ δ for the
//!   largest such k, as Clopper and Pearson (1934);
//! - *training-conditional*, by the inequality of Dvoretzky, Kiefer and
//!   Wolfowitz with Massart's constant (1990): the rate of every threshold is
//!   within √(ln(1/δ)/2n) of what calibration shows, all at once, so that α
//!   may be chosen after looking.
//!
//! Reference: Vovk, *Conditional Validity of Inductive Conformal Predictors*,
//! ACML 2012.

use serde::{Deserialize, Serialize};
use statrs::function::gamma::ln_gamma;

use crate::error::{Error, Result};

/// What is promised of the false-alarm rate: the fraction of in-distribution rows
/// that are flagged.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// At most α on average over calibration sets.
    #[default]
    Marginal,
    /// At most α with probability 1 − δ over calibration sets; exact.
    ClopperPearson,
    /// The same, for every threshold at once.
    Dkw,
}

/// P(Bin(n, p) < k), for 1 ≤ k ≤ n: the terms from k − 1 away from the mean,
/// until they no longer count.
fn binomial_below(k: usize, n: usize, p: f64) -> f64 {
    let (m, q) = (n as f64, 1.0 - p);
    let log_term = |i: f64| {
        ln_gamma(m + 1.0) - ln_gamma(i + 1.0) - ln_gamma(m - i + 1.0)
            + i * p.ln()
            + (m - i) * q.ln()
    };
    let sum = |first: f64, next: &dyn Fn(f64) -> Option<(f64, f64)>| {
        let (mut at, mut term, mut total) = (first, log_term(first).exp(), 0.0);
        while term > total * 1e-18 && term > 0.0 {
            total += term;
            let Some((i, ratio)) = next(at) else { break };
            (at, term) = (i, term * ratio);
        }
        total
    };
    if (k as f64) <= m * p + 1.0 {
        let down = |i: f64| (i > 0.0).then(|| (i - 1.0, i / (m - i + 1.0) * q / p));
        sum(k as f64 - 1.0, &down)
    } else {
        let up = |i: f64| (i < m).then(|| (i + 1.0, (m - i) / (i + 1.0) * p / q));
        1.0 - sum(k as f64, &up)
    }
}

/// How far the rates seen in calibration can be off, all at once.
fn dkw(n: usize, delta: f64) -> f64 {
    ((1.0 / delta).ln() / (2.0 * n as f64)).sqrt()
}

impl Guarantee {
    /// The largest k that keeps the promise with n calibration rows; 0 if none does.
    pub(super) fn rank(self, n: usize, alpha: f64, delta: f64) -> usize {
        // 0.29 · 100 is 28.999999999999996 in f64.
        let floor = |x: f64| (x + 1e-9).floor().max(0.0) as usize;
        let k = match self {
            Guarantee::Marginal => floor(alpha * (n + 1) as f64),
            Guarantee::ClopperPearson => {
                let (mut good, mut bad) = (0, n + 1);
                while bad - good > 1 {
                    let k = good + (bad - good) / 2;
                    if binomial_below(k, n, alpha) <= delta { good = k } else { bad = k }
                }
                good
            }
            Guarantee::Dkw => {
                let rest = alpha - dkw(n, delta);
                if rest < 0.0 { 0 } else { floor(rest * n as f64) + 1 }
            }
        };
        k.min(n)
    }

    /// The fewest calibration rows with which the promise can be kept.
    pub fn rows_needed(self, alpha: f64, delta: f64) -> usize {
        let (mut bad, mut good) = (0usize, 1usize);
        while self.rank(good, alpha, delta) == 0 {
            bad = good;
            good = good.saturating_mul(2);
            if good == usize::MAX {
                return good;
            }
        }
        while good - bad > 1 {
            let n = bad + (good - bad) / 2;
            if self.rank(n, alpha, delta) > 0 { good = n } else { bad = n }
        }
        good
    }

    /// The promise in words.
    pub fn words(self, alpha: f64, delta: f64) -> String {
        // 1 − 0.9 is 0.09999999999999998 in f64.
        let sure = (1e12 * (1.0 - delta)).round() / 1e12;
        match self {
            Guarantee::Marginal => {
                format!(
                    "at most {alpha} of in-distribution rows are flagged, on average over calibration sets"
                )
            }
            Guarantee::ClopperPearson => {
                format!(
                    "at most {alpha} of in-distribution rows are flagged, with probability {sure} over calibration sets, for this alpha (Clopper-Pearson)"
                )
            }
            Guarantee::Dkw => {
                format!(
                    "at most {alpha} of in-distribution rows are flagged, with probability {sure} for all thresholds at once (DKW)"
                )
            }
        }
    }
}

/// Refuse what is no probability strictly between 0 and 1.
pub(super) fn check_rate(key: &str, value: f64) -> Result<()> {
    if value > 0.0 && value < 1.0 {
        return Ok(());
    }
    Err(Error::config(key, value, "must lie strictly between 0 and 1, e.g. 0.05"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1/α − 1; ln δ/ln(1 − α), Wilks' 59; ln(1/δ)/(2α²), by hand.
    #[test]
    fn fewest_rows_by_hand() {
        assert_eq!(Guarantee::Marginal.rows_needed(0.05, 0.1), 19);
        assert_eq!(Guarantee::Marginal.rows_needed(0.01, 0.1), 99);
        assert_eq!(Guarantee::ClopperPearson.rows_needed(0.05, 0.05), 59);
        assert_eq!(Guarantee::ClopperPearson.rows_needed(0.01, 0.05), 299);
        assert_eq!(Guarantee::Dkw.rows_needed(0.05, 0.05), 600);
    }

    /// scipy 1.17.1: the largest k with `binom.cdf(k - 1, n, alpha) <= delta`.
    #[test]
    fn ranks_equal_scipy() {
        for (n, alpha, delta, want) in RANKS {
            assert_eq!(
                Guarantee::ClopperPearson.rank(n, alpha, delta),
                want,
                "{n} {alpha} {delta}"
            );
        }
        assert_eq!(Guarantee::Marginal.rank(999, 0.05, 0.1), 50);
        assert_eq!(Guarantee::Marginal.rank(99, 0.29, 0.1), 29);
        assert_eq!(Guarantee::Marginal.rank(18, 0.05, 0.1), 0);
    }

    const RANKS: [(usize, f64, f64, usize); 9] = [
        (59, 0.05, 0.05, 1),
        (1000, 0.05, 0.1, 41),
        (2000, 0.01, 0.05, 13),
        (5000, 0.1, 0.01, 451),
        (100000, 0.05, 0.001, 4788),
        (300, 0.5, 0.2, 143),
        (1_000_000, 0.05, 0.5, 50_000),
        (5_000_000, 0.95, 0.5, 4_750_000),
        (10_000_000, 0.001, 0.01, 9768),
    ];
}
