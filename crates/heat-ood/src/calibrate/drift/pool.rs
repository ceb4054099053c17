//! Scores that grow in number, ranked as they come.

use crate::calibrate::CalibrationScores;

/// Scores in sorted runs, each at most [`GROWTH`] times as long as the one before. A rank
/// costs two binary searches in each, of which there are as many as digits of N to that base;
/// an insertion that many times a few moves on average: neither grows noticeably with the
/// stream. 4 bytes a score.
pub(super) struct Pool {
    /// The shortest first.
    runs: Vec<Vec<f32>>,
    len: usize,
}

/// Most scores of the first run, into which single ones are inserted.
const FIRST: usize = 512;

/// How much longer the next run may be.
const GROWTH: usize = 16;

/// Most scores of a run.
fn capacity(run: usize) -> usize {
    FIRST.saturating_mul(GROWTH.saturating_pow(run as u32))
}

/// How many of a run are above the score, and how many equal to it.
fn count(sorted: &[f32], score: f32) -> (usize, usize) {
    let upto = sorted.partition_point(|&c| c <= score);
    (sorted.len() - upto, upto - sorted[..upto].partition_point(|&c| c < score))
}

impl Pool {
    pub fn new(reference: &CalibrationScores) -> Self {
        let scores = reference.scores().to_vec();
        let len = scores.len();
        let mut runs = Vec::new();
        while capacity(runs.len()) < len || runs.is_empty() {
            runs.push(Vec::new());
        }
        runs.push(scores);
        Pool { runs, len }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.len
    }

    /// The rank of a new score among the others as a number on (0, 1], exactly
    /// uniform when all are exchangeable and `u` is uniform on [0, 1); then it
    /// becomes one of them.
    pub fn rank_and_insert(&mut self, score: f32, u: f64) -> f64 {
        let score = score + 0.0;
        let (mut above, mut equal) = (0, 0);
        for run in &self.runs {
            let (more, also) = count(run, score);
            (above, equal) = (above + more, equal + also);
        }
        let p = (above as f64 + (1.0 - u) * (1 + equal) as f64) / (self.len + 1) as f64;
        self.insert(score);
        p
    }

    fn insert(&mut self, score: f32) {
        self.len += 1;
        let first = &mut self.runs[0];
        let at = first.partition_point(|&c| c < score);
        first.insert(at, score);
        for i in 0.. {
            if self.runs[i].len() <= capacity(i) {
                return;
            }
            let mut full = std::mem::take(&mut self.runs[i]);
            if i + 1 == self.runs.len() {
                self.runs.push(Vec::new());
            }
            // A stable sort of two runs is a merge.
            self.runs[i + 1].append(&mut full);
            self.runs[i + 1].sort_by(f32::total_cmp);
        }
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
        for i in 300..20_000 {
            let (s, u) = (value(i), f64::from(i % 10) / 10.0);
            let above = all.iter().filter(|c| **c > s).count() as f64;
            let equal = all.iter().filter(|c| **c == s).count() as f64;
            let want = (above + (1.0 - u) * (1.0 + equal)) / (all.len() + 1) as f64;
            assert!((pool.rank_and_insert(s, u) - want).abs() < 1e-15);
            all.push(s);
        }
        assert_eq!(pool.len(), 20_000);
        assert!(pool.runs.len() > 2 && pool.runs.iter().all(|run| run.is_sorted()));
    }
}
