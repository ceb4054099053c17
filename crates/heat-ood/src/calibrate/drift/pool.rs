//! Scores that grow in number, ranked as they come.

use crate::calibrate::CalibrationScores;

/// Sorted scores with a small sorted tail, merged now and then: a rank costs
/// two binary searches, an insertion O(√N) on average; 4 bytes a score.
pub(super) struct Pool {
    sorted: Vec<f32>,
    tail: Vec<f32>,
}

fn count(sorted: &[f32], score: f32) -> (usize, usize) {
    let upto = sorted.partition_point(|&c| c <= score);
    (sorted.len() - upto, upto - sorted.partition_point(|&c| c < score))
}

impl Pool {
    pub fn new(reference: &CalibrationScores) -> Self {
        Pool { sorted: reference.scores().to_vec(), tail: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.sorted.len() + self.tail.len()
    }

    /// The rank of a new score among the others as a number on (0, 1], exactly
    /// uniform when all are exchangeable and `u` is uniform on [0, 1); then it
    /// becomes one of them.
    pub fn rank_and_insert(&mut self, score: f32, u: f64) -> f64 {
        let score = score + 0.0;
        let (above, equal) = count(&self.sorted, score);
        let (more, also) = count(&self.tail, score);
        let p = ((above + more) as f64 + (1.0 - u) * (1 + equal + also) as f64)
            / (self.len() + 1) as f64;
        let at = self.tail.partition_point(|&c| c < score);
        self.tail.insert(at, score);
        if self.tail.len().pow(2) > 4 * self.sorted.len().max(1024) {
            // A stable sort of two runs is a merge.
            self.sorted.append(&mut self.tail);
            self.sorted.sort_by(f32::total_cmp);
        }
        p
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The oracle: all scores in a plain list.
    #[test]
    fn ranks_equal_counting() {
        let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 % 997.0;
        let mut all: Vec<f32> = (0..300).map(value).collect();
        let mut pool = Pool::new(&CalibrationScores::new(all.clone()).unwrap());
        for i in 300..6000 {
            let (s, u) = (value(i), f64::from(i % 10) / 10.0);
            let above = all.iter().filter(|c| **c > s).count() as f64;
            let equal = all.iter().filter(|c| **c == s).count() as f64;
            let want = (above + (1.0 - u) * (1.0 + equal)) / (all.len() + 1) as f64;
            assert!((pool.rank_and_insert(s, u) - want).abs() < 1e-15);
            all.push(s);
        }
        assert_eq!(pool.len(), 6000);
    }
}
