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

/// What of a row's spread single precision may lose before it is said.
const LOST: f64 = 1e-4;

/// Whether logits lie so far from zero that single precision loses their differences.
fn offset(what: &str, whose: &str, logits: &[f32], classes: usize) -> Option<String> {
    let rows = logits.chunks_exact(classes).filter(|_| classes > 1);
    let mut worst = (0.0, 0.0, 0.0);
    for row in rows {
        let row = || row.iter().map(|v| f64::from(*v));
        let (least, most) = row().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
        let (spread, size) = (most - least, least.abs().max(most.abs()));
        let step = size * f64::from(f32::EPSILON) / 2.0;
        if spread.is_finite() && step > LOST * spread && step > worst.0 {
            worst = (step, size, spread);
        }
    }
    let (step, size, spread) = worst;
    (step > 0.0).then(|| {
        format!(
            "{what} reach {size:.3e} and differ within a row by {spread:.3}: single precision holds \
             them, and scores such as `el`, to {step:.1e}; take one number off {whose}, which changes \
             no probability"
        )
    })
}

impl FeatureSet {
    /// What is odd about the stored logits, in words: that they are
    /// probabilities or their logarithms, not those of `head`, or so far from zero
    /// that single precision loses their differences. Up to 256 rows are looked at.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub fn check_logits(&self, head: Option<&Head>) -> Result<Vec<String>> {
        let step = self.len().div_ceil(ROWS);
        let rows: Vec<u32> = (0..self.len()).step_by(step).map(|i| i as u32).collect();
        let avg = Field::Features(Pooling::Avg);
        let Some(classes) = self.dim(Field::Logits) else {
            let Some(head) = head.filter(|h| self.dim(avg) == Some(h.dim())) else {
                return Ok(Vec::new());
            };
            let mut features = vec![0.0; rows.len() * head.dim()];
            self.gather(avg, &rows, &mut features)?;
            let mut logits = vec![0.0; rows.len() * head.classes()];
            head.logits(&features, &mut logits, &mut Aligned::default());
            let what = format!("the logits that the head gives {}", self.name());
            let offset = offset(&what, "all biases of the head", &logits, head.classes());
            return Ok(offset.into_iter().collect());
        };
        let mut logits = vec![0.0; rows.len() * classes];
        self.gather(Field::Logits, &rows, &mut logits)?;
        let mut said = Vec::new();
        said.extend(offset(&format!("`logits` of {}", self.name()), "each row", &logits, classes));
        if classes > 1 {
            said.extend(self.probabilities(&logits, classes));
        }
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
            for (c, (value, bias)) in stored.iter().zip(head.bias()).enumerate() {
                let w = &head.weight()[c * dim..][..dim];
                let square: f64 =
                    z.iter().zip(w).map(|(z, w)| (f64::from(*z) * f64::from(*w)).powi(2)).sum();
                let size = square + f64::from(*value).powi(2) + f64::from(*bias).powi(2);
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

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn biases_far_from_zero_are_said() {
        let rows = Array2::from_shape_fn((20, 2), |(i, j)| (i * 2 + j) as f32 / 8.0);
        let set = FeatureSet::from_arrays(rows.view(), None).unwrap();
        let head = |bias: f32| {
            Head::new(
                array![[1.0, 0.5], [-1.0, 0.25]].into_raw_vec_and_offset().0,
                vec![bias, bias],
            )
            .unwrap()
        };
        assert!(set.check_logits(Some(&head(3.0))).unwrap().is_empty());
        let said = set.check_logits(Some(&head(1e6))).unwrap();
        assert!(said.len() == 1 && said[0].contains("reach 1.000e6"), "{said:?}");
        assert!(said[0].contains("to 6.0e-2"), "{said:?}");
    }
}
