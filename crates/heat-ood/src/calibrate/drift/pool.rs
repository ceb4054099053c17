//! Scores that grow in number, ranked as they come.

use crate::calibrate::CalibrationScores;
use crate::io::Tensor;

/// Scores in sorted runs, each at most [`GROWTH`] times as long as the one before. A rank
/// costs two binary searches in each, of which there are as many as digits of N to that base;
/// an insertion that many times a few moves on average: both grow with the logarithm of the
/// stream, and where its runs leave the cache. 4 bytes a score.
pub(super) struct Pool {
    /// The shortest first.
    runs: Vec<Vec<f32>>,
    len: usize,
    /// What has become of longer runs, where memory is bounded.
    sketch: Option<Sketch>,
}

/// A sample of many scores with the number that each stands for: the extremes each for itself, others
/// for a fraction of their distance from the nearer end. So a rank is off by about that fraction of
/// itself, from either end (twice as much was never met), and as often too high as too low.
struct Sketch {
    /// Ascending.
    scores: Vec<f32>,
    /// How many are at this one or above it; 0 after the last.
    upper: Vec<u64>,
}

/// The inverse of that fraction.
const FINENESS: u64 = 256;

impl Sketch {
    /// Of ascending scores and how many each stands for.
    fn new(scores: Vec<f32>, weights: impl DoubleEndedIterator<Item = u64>) -> Self {
        let mut upper: Vec<u64> = weights
            .rev()
            .scan(0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        upper.reverse();
        upper.push(0);
        Sketch { scores, upper }
    }

    /// Each score with how many it stands for.
    fn weighted(&self) -> impl Iterator<Item = (f32, u64)> {
        let weights = self.upper.windows(2).map(|pair| pair[0] - pair[1]);
        self.scores.iter().copied().zip(weights)
    }

    /// How many are above the score, and how many equal to it.
    fn count(&self, score: f32) -> (u64, u64) {
        let from = self.scores.partition_point(|&c| c < score);
        let upto = from + self.scores[from..].partition_point(|&c| c <= score);
        (self.upper[upto], self.upper[from] - self.upper[upto])
    }

    /// With more scores, ascending.
    fn with(&self, more: &[f32]) -> Self {
        let total = self.upper.first().copied().unwrap_or(0) + more.len() as u64;
        let (mut scores, mut weights) = (Vec::new(), Vec::new());
        let mut old = self.weighted().peekable();
        let mut new = more.iter().map(|&s| (s, 1)).peekable();
        let mut next = || match (old.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) if b.total_cmp(a).is_lt() => new.next(),
            (Some(_), _) => old.next(),
            (None, _) => new.next(),
        };
        // Those that will be one, how many they stand for, how many are below them.
        let mut group: Vec<(f32, u64)> = Vec::new();
        let (mut held, mut below) = (0u64, 0u64);
        loop {
            let found = next();
            let fits = found.is_some_and(|(_, weight)| {
                let end = below + held + weight;
                let room = below.min(total - end) / FINENESS;
                held + weight <= room.max(1)
            });
            if !fits && held > 0 {
                // Its middle stands for all of it.
                let mut half = held / 2;
                let middle = group.iter().find(|(_, weight)| {
                    let here = half < *weight;
                    half = half.saturating_sub(*weight);
                    here
                });
                scores.push(middle.map_or(0.0, |(score, _)| *score));
                weights.push(held);
                below += held;
                held = 0;
                group.clear();
            }
            let Some((score, weight)) = found else { break };
            group.push((score, weight));
            held += weight;
        }
        Sketch::new(scores, weights.into_iter())
    }
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
        Pool { runs, len, sketch: None }
    }

    /// The same in memory that grows with the logarithm of the number of scores alone (60 KiB at a
    /// million), with ranks that are right but for 1/128 of their
    /// distance from the nearer end.
    pub fn bounded(mut self) -> Self {
        let mut all: Vec<f32> = self.runs.concat();
        all.sort_unstable_by(f32::total_cmp);
        self.runs = vec![Vec::new()];
        self.sketch = Some(Sketch::new(Vec::new(), std::iter::empty()).with(&all));
        self
    }

    /// Number of scores.
    pub fn len(&self) -> usize {
        self.len
    }

    /// All of it as tensors: runs and sketch in their order, each score with how many it stands for,
    /// and how long each of them is.
    pub fn tensors(&self) -> [Tensor; 2] {
        let pack = |(score, weight): (f32, u64)| {
            // A weight is at most a 256th of the number of scores: 2⁴⁰ of them fit.
            (weight.min(u64::from(u32::MAX)) << 32 | u64::from(score.to_bits())) as i64
        };
        let mut packed: Vec<i64> = Vec::new();
        let mut lengths: Vec<i64> = Vec::new();
        for run in &self.runs {
            packed.extend(run.iter().map(|score| pack((*score, 1))));
            lengths.push(run.len() as i64);
        }
        if let Some(sketch) = &self.sketch {
            packed.extend(sketch.weighted().map(pack));
            lengths.push(sketch.scores.len() as i64);
        }
        [Tensor::i64([packed.len()], packed), Tensor::i64([lengths.len()], lengths)]
    }

    /// From such tensors; `None` where they are none of a pool.
    pub fn from_tensors(packed: &[i64], lengths: &[i64], bounded: bool) -> Option<Self> {
        let unpack = |v: &i64| (f32::from_bits(*v as u32), (*v as u64) >> 32);
        let mut parts = Vec::new();
        let mut rest = packed;
        for length in lengths {
            let (part, more) = rest.split_at_checked(usize::try_from(*length).ok()?)?;
            let (scores, weights): (Vec<f32>, Vec<u64>) = part.iter().map(unpack).unzip();
            if scores.iter().any(|s| s.is_nan()) || !scores.is_sorted() || weights.contains(&0) {
                return None;
            }
            parts.push((scores, weights));
            rest = more;
        }
        let sketch = if bounded { Some(parts.pop()?) } else { None };
        let single = parts.iter().all(|(_, weights)| weights.iter().all(|w| *w == 1));
        if !rest.is_empty() || parts.is_empty() || !single {
            return None;
        }
        let runs: Vec<Vec<f32>> = parts.into_iter().map(|(scores, _)| scores).collect();
        let sketch = sketch.map(|(scores, weights)| Sketch::new(scores, weights.into_iter()));
        let held = sketch.as_ref().map_or(0, |sketch| sketch.upper[0]);
        let len = usize::try_from(held).ok()? + runs.iter().map(Vec::len).sum::<usize>();
        Some(Pool { runs, len, sketch })
    }

    /// Whether its memory is bounded.
    pub fn is_bounded(&self) -> bool {
        self.sketch.is_some()
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
        if let Some(sketch) = &self.sketch {
            let (more, also) = sketch.count(score);
            (above, equal) = (above + more as usize, equal + also as usize);
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
            if let Some(sketch) = &mut self.sketch {
                *sketch = sketch.with(&full);
                return;
            }
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

    /// Against the exact pool, over 300,000 scores: no rank is off by more than the promised part of
    /// its distance from the nearer end, errors nearly cancel, and few scores are kept.
    #[test]
    fn bounded_ranks_are_nearly_those_of_counting() {
        let value = |i: u32| {
            let bits = i.wrapping_mul(2_654_435_761) ^ (i >> 7).wrapping_mul(0x9e37_79b9);
            (f64::from(bits) / f64::from(u32::MAX)).powi(3) as f32
        };
        let start = CalibrationScores::new((0..1000).map(value).collect()).unwrap();
        let (mut exact, mut bounded) = (Pool::new(&start), Pool::new(&start).bounded());
        let mut sum = 0.0;
        for i in 1000..300_000 {
            let s = value(i);
            let (p, q) = (exact.rank_and_insert(s, 0.5), bounded.rank_and_insert(s, 0.5));
            let n = f64::from(i);
            let room = p.min(1.0 - p) * 2.0 / FINENESS as f64 + 1.5 / n;
            assert!((p - q).abs() <= room, "{i}: {p} {q}");
            sum += (q - p) / p.max(1.0 / n);
        }
        // The most timid bet loses 1.3e-3 a row, and gains a twentieth of this.
        assert!((sum / 299_000.0).abs() < 2e-3, "{sum}");
        let sketch = bounded.sketch.unwrap();
        assert_eq!(sketch.upper[0] + bounded.runs[0].len() as u64, 300_000);
        assert!(sketch.scores.len() < 6000, "{}", sketch.scores.len());
    }

    /// Equal scores stay equal, whatever stands for them.
    #[test]
    fn bounded_ties_are_counted() {
        let start = CalibrationScores::new(vec![1.0; 2000]).unwrap();
        let mut pool = Pool::new(&start).bounded();
        for _ in 0..5000 {
            pool.rank_and_insert(1.0, 0.5);
        }
        assert!((pool.rank_and_insert(2.0, 0.0) - 1.0 / 7001.0).abs() < 1e-12);
        assert!((pool.rank_and_insert(1.0, 0.0) - 1.0).abs() < 1e-12);
    }
}
