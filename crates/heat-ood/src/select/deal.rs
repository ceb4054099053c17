//! Which training rows are fitted on, and which are held out.

use crate::math::rng::{Purpose, Stream};

/// Rows of a training set by what they are for, ascending.
pub(super) struct Dealt {
    /// To fit on.
    pub fit: Vec<u32>,
    /// A fifth of each class, to validate with.
    pub validation: Vec<u32>,
    /// Those of the classes left out.
    pub unknown: Vec<u32>,
}

/// What is dealt: the label of each row, at most `most` rows in all, but ten of each class.
pub(super) struct Deal<'a> {
    pub labels: &'a [u32],
    pub most: usize,
    pub seed: u64,
}

impl Deal<'_> {
    /// Four fifths of the kept classes to fit on, the others to validate with; and the rows of the
    /// classes left out.
    pub fn fold(&self, left_out: &[u32], fold: usize) -> Dealt {
        let mut taken = vec![0usize; self.classes()];
        let (mut fit, mut validation, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for row in self.some(fold) {
            let k = self.labels[row as usize];
            taken[k as usize] += 1;
            if left_out.contains(&k) {
                unknown.push(row);
            } else if taken[k as usize].is_multiple_of(5) {
                validation.push(row);
            } else {
                fit.push(row);
            }
        }
        for rows in [&mut fit, &mut validation, &mut unknown] {
            rows.sort_unstable();
        }
        Dealt { fit, validation, unknown }
    }

    /// Rows in random order, the same fraction of every class.
    pub fn some(&self, fold: usize) -> Vec<u32> {
        let n = self.labels.len();
        let mut order =
            Stream::new(self.seed, Purpose::HoldOut, 2, fold as u64).permutation(n as u32);
        let share = (self.most as f64 / n as f64).min(1.0);
        let mut size = vec![0usize; self.classes()];
        self.labels.iter().for_each(|l| size[*l as usize] += 1);
        let most = |k: usize| ((share * size[k] as f64).ceil() as usize).max(10);
        let mut taken = vec![0usize; size.len()];
        order.retain(|row| {
            let k = self.labels[*row as usize] as usize;
            taken[k] += 1;
            taken[k] <= most(k)
        });
        order
    }

    fn classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |l| *l as usize + 1)
    }
}
