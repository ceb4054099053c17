//! Whether stored logits are what they are taken for, found on a sample of rows.

use super::{FeatureSet, Field, Head, Pooling};
use crate::error::Result;
use crate::math::matmul::Aligned;

/// Most rows that are looked at.
const ROWS: usize = 256;

/// Rounding of features and logits that half precision, or a network run in
/// reduced precision, leaves.
const ROUNDING: f64 = 1.0 / 1024.0;

/// How many of its standard deviations a difference may be large.
const DEVIATIONS: f64 = 8.0;

impl FeatureSet {
    /// What is odd about the stored logits, in words: that they are
    /// probabilities or their logarithms, or not those of `head`. Up to 256 rows
    /// are compared.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub fn check_logits(&self, head: Option<&Head>) -> Result<Vec<String>> {
        let Some(classes) = self.dim(Field::Logits) else {
            return Ok(Vec::new());
        };
        let step = self.len().div_ceil(ROWS);
        let rows: Vec<u32> = (0..self.len()).step_by(step).map(|i| i as u32).collect();
        let mut logits = vec![0.0; rows.len() * classes];
        self.gather(Field::Logits, &rows, &mut logits)?;
        let mut said = Vec::new();
        if classes > 1 {
            said.extend(self.probabilities(&logits, classes));
        }
        let avg = Field::Features(Pooling::Avg);
        if let Some(head) = head.filter(|h| {
            h.classes() == classes && self.dim(avg) == Some(h.dim()) && self.chosen_none()
        }) {
            let mut features = vec![0.0; rows.len() * head.dim()];
            self.gather(avg, &rows, &mut features)?;
            said.extend(self.of_another_head(head, &features, &logits));
        }
        Ok(said)
    }

    fn chosen_none(&self) -> bool {
        self.view.chosen().is_none()
    }

    fn probabilities(&self, logits: &[f32], classes: usize) -> Option<String> {
        // Half precision rounds each by up to 1/4096 of itself.
        let near = |sum: f64| (sum - 1.0).abs() < 0.01;
        let rows = || logits.chunks_exact(classes);
        let sum = |row: &[f32]| row.iter().map(|v| f64::from(*v)).sum::<f64>();
        let within = |row: &[f32]| row.iter().all(|v| (0.0..=1.001).contains(v));
        let exponents = |row: &[f32]| row.iter().map(|v| f64::from(*v).exp()).sum::<f64>();
        let (what, instead) = if rows().all(|row| within(row) && near(sum(row))) {
            ("probabilities: every row looked at lies in 0..1 and sums to 1", "name them `probs`")
        } else if rows().all(|row| near(exponents(row))) {
            (
                "logarithms of probabilities: logsumexp of every row looked at is 0",
                "store logits before the softmax",
            )
        } else {
            return None;
        };
        Some(format!(
            "`logits` of {} are {what}; `el` says nothing about them, and other scores are not what \
             they should be: {instead}",
            self.name()
        ))
    }

    /// The largest difference, if rounding does not explain it.
    fn of_another_head(&self, head: &Head, features: &[f32], logits: &[f32]) -> Option<String> {
        let (dim, classes) = (head.dim(), head.classes());
        let mut computed = vec![0.0; logits.len()];
        head.logits(features, &mut computed, &mut Aligned::default());
        let (mut largest, mut odd, mut shifted) = ((0.0, 0), 0usize, true);
        let rows = features.chunks_exact(dim).zip(logits.chunks_exact(classes));
        for (i, ((z, stored), computed)) in rows.zip(computed.chunks_exact(classes)).enumerate() {
            let difference = |c: usize| f64::from(stored[c]) - f64::from(computed[c]);
            let mut row_is_odd = false;
            for c in 0..classes {
                let w = &head.weight()[c * dim..][..dim];
                let square: f64 =
                    z.iter().zip(w).map(|(z, w)| (f64::from(*z) * f64::from(*w)).powi(2)).sum();
                let size =
                    square + f64::from(stored[c]).powi(2) + f64::from(head.bias()[c]).powi(2);
                let allowed = DEVIATIONS * ROUNDING * size.sqrt();
                let d = difference(c).abs();
                row_is_odd |= d > allowed;
                shifted &= (difference(c) - difference(0)).abs() <= 2.0 * allowed;
                if d > largest.0 {
                    largest = (d, i);
                }
            }
            odd += usize::from(row_is_odd);
        }
        if odd == 0 {
            return None;
        }
        let rows = logits.len() / classes;
        let row = largest.1 * self.len().div_ceil(ROWS);
        let why = match shifted && classes > 1 {
            true => "they differ by one number in each row, as logarithms of probabilities do",
            false => "they are of another network or layer, or the head is",
        };
        Some(format!(
            "`logits` of {} are not those that the head gives its `avg`: they differ by up to {:.3} \
             (row {row}; {odd} of {rows} rows looked at); {why}",
            self.name(),
            largest.0
        ))
    }
}
