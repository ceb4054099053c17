//! All metrics of resampled rows in one pass: the rows are ranked once, a
//! resample is how often each of them was drawn.

use super::Metrics;
use crate::math::quantile;

/// Marks the last row of those with one score.
const LAST: u32 = 1 << 31;

/// More rows than these cannot be told from the mark.
pub(super) const MOST_ROWS: usize = LAST as usize;

/// ID rows and one set's OOD rows, highest score first.
pub(super) struct Ranking {
    /// Places of the rows among the counts, with [`LAST`].
    rows: Vec<u32>,
    scores: Vec<f32>,
    id: usize,
    ood: usize,
}

/// What the pass over the rows looks for.
struct Aims {
    id: i64,
    ood: i64,
    /// OOD rows that are 95 % of them.
    detected: i64,
    /// ID rows at or above the ID scores of ascending ranks ⌊0.95(n−1)⌋ + 1
    /// and ⌊0.95(n−1)⌋.
    upper: i64,
    lower: i64,
}

/// What the pass has seen so far.
#[derive(Default)]
struct Pass {
    id: i64,
    ood: i64,
    /// Pairs with the OOD row above, in half units.
    halves: i64,
    /// n·m·(TPR − FPR) at the best threshold.
    best: i64,
    /// ID rows flagged when enough OOD rows were detected.
    flagged: Option<i64>,
    sum_in: f64,
    sum_out: f64,
    /// Index of the last row of the upper ID score, OOD rows above it, and those at or above.
    upper: Option<(usize, [i64; 2])>,
    lower: Option<usize>,
}

impl Aims {
    fn new(id: usize, ood: usize) -> Self {
        let low = (0.95 * (id - 1) as f64).floor() as i64;
        let (id, last) = (id as i64, id as i64 - 1);
        Aims {
            id,
            ood: ood as i64,
            detected: least(ood),
            upper: id - (low + 1).min(last),
            lower: id - low,
        }
    }
}

impl Pass {
    /// Take in the rows of one score, the last of which is the `k`-th.
    #[inline]
    fn step(&mut self, aims: &Aims, k: usize, id: i64, ood: i64) {
        // From below, as average precision of −score wants it.
        let (ids, all) = (aims.id - self.id, aims.id + aims.ood - self.id - self.ood);
        self.sum_in += id as f64 * (ids as f64 / all.max(1) as f64);
        self.halves += id * (2 * self.ood + ood);
        self.id += id;
        self.ood += ood;
        self.sum_out += ood as f64 * (self.ood as f64 / (self.id + self.ood).max(1) as f64);
        self.best = self.best.max(self.ood * aims.id - self.id * aims.ood);
        if self.flagged.is_none() && self.ood >= aims.detected {
            self.flagged = Some(self.id);
        }
        if self.upper.is_none() && self.id >= aims.upper {
            self.upper = Some((k, [self.ood - ood, self.ood]));
        }
        if self.lower.is_none() && self.id >= aims.lower {
            self.lower = Some(k);
        }
    }
}

impl Ranking {
    /// Of scores without NaN. The counts of ID rows stand at 0 and on, those
    /// of OOD rows at `start` and on.
    pub fn new(id: &[f32], ood: &[f32], start: usize) -> Self {
        let ids = id.iter().enumerate().map(|(i, s)| (s + 0.0, i as u32));
        let oods = ood.iter().enumerate().map(|(i, s)| (s + 0.0, (start + i) as u32));
        let mut all: Vec<(f32, u32)> = ids.chain(oods).collect();
        all.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let last = |k: usize| all.get(k + 1).is_none_or(|next| next.0 != all[k].0);
        Ranking {
            rows: all
                .iter()
                .enumerate()
                .map(|(k, a)| a.1 | if last(k) { LAST } else { 0 })
                .collect(),
            scores: all.iter().map(|a| a.0).collect(),
            id: id.len(),
            ood: ood.len(),
        }
    }

    /// The metrics of each row taken `counts` times, which must add up to the
    /// numbers of rows on either side.
    pub fn measure(&self, counts: &[u32]) -> Metrics {
        let aims = Aims::new(self.id, self.ood);
        let mut pass = Pass::default();
        let (mut id, mut ood) = (0i64, 0i64);
        for (k, &row) in self.rows.iter().enumerate() {
            let place = (row & !LAST) as usize;
            let count = i64::from(counts[place]);
            let theirs = if place >= self.id { count } else { 0 };
            ood += theirs;
            id += count - theirs;
            if row & LAST != 0 {
                pass.step(&aims, k, id, ood);
                (id, ood) = (0, 0);
            }
        }
        let (n, m) = (self.id as f64, self.ood as f64);
        Metrics {
            auroc: pass.halves as f64 / (2.0 * n * m),
            fpr95_id_positive: self.accepted(&pass, counts) as f64 / m,
            fpr95_ood_positive: pass.flagged.unwrap_or(pass.id) as f64 / n,
            aupr_in: pass.sum_in / n,
            aupr_out: pass.sum_out / m,
            detection_accuracy: 0.5 + pass.best as f64 / (2.0 * n * m),
        }
    }

    /// OOD rows at or below the 95th percentile of the ID scores.
    fn accepted(&self, pass: &Pass, counts: &[u32]) -> i64 {
        let (Some((upper, [above, reached])), Some(lower)) = (pass.upper, pass.lower) else {
            return 0;
        };
        let position = 0.95 * (self.id - 1) as f64;
        let pair = [self.scores[lower], self.scores[upper]].map(f64::from);
        let threshold = quantile::sorted(&pair, position - position.floor());
        if threshold >= f64::from(self.scores[upper]) {
            return self.ood as i64 - above;
        }
        let mut flagged = reached;
        for k in upper + 1..self.rows.len() {
            if f64::from(self.scores[k]) <= threshold {
                break;
            }
            let place = (self.rows[k] & !LAST) as usize;
            flagged += if place >= self.id { i64::from(counts[place]) } else { 0 };
        }
        self.ood as i64 - flagged
    }
}

/// The smallest number of OOD rows that is a rate of 95 %.
fn least(rows: usize) -> i64 {
    let guess = (0.95 * rows as f64).floor() as i64;
    (guess.max(1) - 1..).find(|&k| k as f64 / rows as f64 >= 0.95).unwrap_or(guess)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::rng::{Purpose, Stream};
    use crate::metrics::evaluate;

    /// Counting rows and repeating them is the same, with and without ties.
    #[test]
    fn counts_stand_for_repeated_rows() {
        let mut stream = Stream::new(3, Purpose::User, 0, 0);
        for case in 0..300 {
            let (n, m) = (1 + stream.below(60), 1 + stream.below(40));
            let levels = [1, 3, 20, 1_000_000][case % 4];
            let mut draw = |n: u32| -> Vec<f32> {
                (0..n).map(|_| stream.below(levels) as f32 / 7.0 - 1.0).collect()
            };
            let (id, ood) = (draw(n), draw(m));
            let start = n as usize + 5;
            let mut counts = vec![0; start + m as usize];
            (0..n).for_each(|_| counts[stream.below(n) as usize] += 1);
            (0..m).for_each(|_| counts[start + stream.below(m) as usize] += 1);
            let repeat = |scores: &[f32], counts: &[u32]| -> Vec<f32> {
                let times = |(s, c): (&f32, &u32)| std::iter::repeat_n(*s, *c as usize);
                scores.iter().zip(counts).flat_map(times).collect()
            };
            let want = evaluate(&repeat(&id, &counts), &repeat(&ood, &counts[start..])).unwrap();
            let got = Ranking::new(&id, &ood, start).measure(&counts);
            for ((got, want), name) in
                got.to_array().iter().zip(want.to_array()).zip(Metrics::NAMES)
            {
                assert!((got - want).abs() < 1e-13, "case {case} {name}: {got} {want}");
            }
        }
    }
}
