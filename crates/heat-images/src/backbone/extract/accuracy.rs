//! How many labelled rows the network gets right: wrong weights, strides or
//! preprocessing give features that look like any others.

use std::path::Path;

use heat_ood::Result;
use heat_ood::features::{FeatureSet, Field};
use heat_ood::math::blocks;

/// Rows read at a time.
const ROWS: usize = 4096;

/// A classifier at chance gets as many right with less than this probability,
/// or is said to be at chance.
const LEVEL: f64 = 0.01;

/// Labelled rows that the logits get right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// Rows whose largest logit is that of their label.
    pub right: usize,
    /// Rows.
    pub rows: usize,
    /// Logits.
    pub classes: usize,
    /// Rows whose label no logit stands for.
    pub strangers: usize,
}

impl Accuracy {
    /// Whether guessing would do as well: P(X ≥ right), X ~ Binomial(rows, 1/C),
    /// is not below one in a hundred.
    pub fn is_at_chance(&self) -> bool {
        self.rows > 0 && upper_tail(self.right, self.rows, 1.0 / self.classes as f64) >= LEVEL
    }
}

/// P(X ≥ k) of X ~ Binomial(n, p), 0 < p < 1.
fn upper_tail(k: usize, n: usize, p: f64) -> f64 {
    let odds = (p / (1.0 - p)).ln();
    let mut log = n as f64 * (-p).ln_1p();
    let mut below = 0.0;
    for i in 0..k {
        below += log.exp();
        log += odds + ((n - i) as f64 / (i + 1) as f64).ln();
    }
    (1.0 - below).max(0.0)
}

/// The accuracy of a feature set; `None` without labels, or without several logits.
pub(super) fn of(path: &Path) -> Result<Option<Accuracy>> {
    let set = FeatureSet::open(path)?;
    let classes = match set.dim(Field::Logits) {
        Some(classes) if classes > 1 && set.labelled() => classes,
        _ => return Ok(None),
    };
    let mut accuracy = Accuracy { right: 0, rows: 0, classes, strangers: 0 };
    let mut logits = vec![0.0; ROWS.min(set.len()) * classes];
    for range in blocks(set.len(), ROWS) {
        let logits = &mut logits[..range.len() * classes];
        set.read(Field::Logits, range.clone(), logits)?;
        let labels = set.labels(range, usize::MAX)?;
        for (row, label) in logits.chunks_exact(classes).zip(labels) {
            let label = label as usize;
            accuracy.strangers += usize::from(label >= classes);
            let best = (0..classes).rev().max_by(|a, b| row[*a].total_cmp(&row[*b]));
            accuracy.right += usize::from(best == Some(label));
            accuracy.rows += 1;
        }
    }
    Ok(Some(accuracy))
}

#[cfg(test)]
mod tests {
    use super::{Accuracy, upper_tail};

    /// SciPy 1.17: `binom.sf(k - 1, n, p)`.
    #[test]
    fn tails_are_scipys() {
        for (k, n, p, want) in [
            (0, 10, 0.1, 1.0),
            (3, 10, 0.1, 0.070_190_827),
            (35, 180, 1.0 / 6.0, 0.182_829_4),
            (1100, 10_000, 0.1, 0.000_529_942),
        ] {
            let got = upper_tail(k, n, p);
            assert!((got - want).abs() < 2e-3 * want, "{k} of {n}: {got}, {want}");
        }
    }

    #[test]
    fn chance_depends_on_the_number_of_rows() {
        let of = |right, rows| Accuracy { right, rows, classes: 10, strangers: 0 };
        assert!(of(2, 10).is_at_chance() && of(1030, 10_000).is_at_chance());
        assert!(!of(9, 10).is_at_chance() && !of(1200, 10_000).is_at_chance());
    }
}
