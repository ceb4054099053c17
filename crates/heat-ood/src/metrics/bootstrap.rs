//! Intervals and tests of any metric by resampling rows (Efron and Tibshirani,
//! *An Introduction to the Bootstrap*, 1993).
//!
//! ID rows and the rows of each OOD set are drawn apart, with replacement, as
//! many as there are. All scorers and sets of a resample share its rows: so
//! differences between scorers are paired, and averages over sets vary as they
//! do with the ID rows that the sets have in common. Scores are sorted once; a
//! resample costs one pass over the rows of each scorer and set.

use super::ranking::{MOST_ROWS, Ranking};
use super::{Intervals, Metrics, average, check, check_level};
use crate::error::{Error, Result};
use crate::math::parallel::{Indices, Pieces};
use crate::math::rng::{Purpose, Stream};
use crate::math::{blocks, quantile};
use crate::observe::{Event, Observer};

/// How to resample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootstrapConfig {
    /// Number of resamples.
    pub resamples: usize,
    /// Which ones.
    pub seed: u64,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        BootstrapConfig { resamples: 1000, seed: 0 }
    }
}

/// More would need tens of gigabytes with a few scorers and sets.
const MOST_RESAMPLES: usize = 1_000_000;

/// Resamples between two reports.
const BLOCK: usize = 64;

/// One OOD set's scores.
#[derive(Debug, Clone)]
pub struct OodScores<'a> {
    /// Its name, for errors.
    pub name: &'a str,
    /// By each scorer.
    pub scores: Vec<&'a [f32]>,
}

/// The metrics of all resamples.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// Of each scorer and set, `[scorers][sets][resamples]`.
    metrics: Vec<Vec<Vec<Metrics>>>,
}

impl BootstrapConfig {
    /// Whether there can be so many resamples.
    ///
    /// # Errors
    /// If there are none, or far too many.
    pub fn check(&self) -> Result<()> {
        if (1..=MOST_RESAMPLES).contains(&self.resamples) {
            return Ok(());
        }
        let problem = format!("between 1 and {MOST_RESAMPLES} resamples are possible");
        Err(Error::config("resamples", self.resamples, problem))
    }

    /// Resample the rows of an ID set (`id`: by each scorer) and of OOD sets.
    ///
    /// # Errors
    /// If there are no resamples, a set is empty, scores are NaN, or scorers
    /// have different numbers of rows.
    pub fn run(
        &self,
        id: &[&[f32]],
        ood: &[OodScores<'_>],
        observer: &mut dyn Observer,
    ) -> Result<Bootstrap> {
        self.check()?;
        let sizes = sizes(id, ood)?;
        let rankings = rank(id, ood, &sizes);
        let mut metrics = vec![vec![Vec::with_capacity(self.resamples); ood.len()]; id.len()];
        observer.on(Event::Begin { task: "resampling", total: self.resamples as u64 });
        for range in blocks(self.resamples, BLOCK) {
            let one = |resample: usize| -> Vec<Metrics> {
                let counts = self.draw(resample, &sizes);
                rankings.iter().map(|r| r.measure(&counts)).collect()
            };
            let done = range.end as u64;
            let found: Vec<Vec<Metrics>> = range.into_par_iter().map(one).collect();
            for values in found {
                let places = metrics.iter_mut().flatten();
                places.zip(values).for_each(|(place, value)| place.push(value));
            }
            observer.on(Event::Advance { done, loss: None });
        }
        observer.on(Event::End);
        Ok(Bootstrap { metrics })
    }

    /// How often each row is drawn: the ID rows, then each set's.
    fn draw(&self, resample: usize, sizes: &[usize]) -> Vec<u32> {
        let mut counts = vec![0; sizes.iter().sum()];
        let mut start = 0;
        for (set, &size) in sizes.iter().enumerate() {
            let mut stream = Stream::new(self.seed, Purpose::Resample, resample as u64, set as u64);
            let counts = &mut counts[start..start + size];
            (0..size).for_each(|_| counts[stream.below(size as u32) as usize] += 1);
            start += size;
        }
        counts
    }
}

/// Rows of the ID set, then of each OOD set.
fn sizes(id: &[&[f32]], ood: &[OodScores<'_>]) -> Result<Vec<usize>> {
    let named = std::iter::once(("ID scores", id));
    let named = named.chain(ood.iter().map(|set| (set.name, &set.scores[..])));
    let mut sizes = Vec::new();
    for (name, scores) in named {
        let size = scores.first().map_or(0, |s| s.len());
        if scores.len() != id.len() || scores.iter().any(|s| s.len() != size) {
            return Err(Error::Shape {
                place: name.to_owned(),
                tensor: "score".into(),
                expected: format!("{size} rows by each of {} scorers", id.len()),
                got: format!("{:?}", scores.iter().map(|s| s.len()).collect::<Vec<_>>()),
            });
        }
        scores.iter().try_for_each(|s| check(s, name))?;
        sizes.push(size);
    }
    let total: usize = sizes.iter().sum();
    if total >= MOST_ROWS {
        let problem = format!("{total} rows, and fewer than {MOST_ROWS} can be resampled");
        return Err(Error::config("resamples", "", problem));
    }
    Ok(sizes)
}

/// The ranking of every scorer and set.
fn rank(id: &[&[f32]], ood: &[OodScores<'_>], sizes: &[usize]) -> Vec<Ranking> {
    let starts: Vec<usize> = (1..sizes.len()).map(|s| sizes[..s].iter().sum()).collect();
    let places = (0..id.len() * ood.len()).into_par_iter();
    let one = |place: usize| {
        let (scorer, set) = (place / ood.len(), place % ood.len());
        Ranking::new(id[scorer], ood[set].scores[scorer], starts[set])
    };
    places.map(one).collect()
}

impl Bootstrap {
    /// A scorer's metrics in every resample, averaged over some sets.
    pub fn averages(&self, scorer: usize, sets: &[usize]) -> Vec<Metrics> {
        let theirs: Vec<&Vec<Metrics>> = sets.iter().map(|&s| &self.metrics[scorer][s]).collect();
        let resamples = theirs.first().map_or(0, |t| t.len());
        let mean = |i: usize| average(&theirs.iter().map(|t| t[i]).collect::<Vec<_>>());
        (0..resamples).map(mean).collect()
    }
}

impl Intervals {
    /// Percentile intervals of the metrics of resamples.
    ///
    /// # Errors
    /// If there are none, or `level` is not between 0 and 1.
    pub fn percentile(resamples: &[Metrics], level: f64) -> Result<Self> {
        check_level(level)?;
        if resamples.is_empty() {
            return Err(Error::needs("an interval", "resamples", "draw at least one"));
        }
        let mut low = [0.0; Metrics::COUNT];
        let mut high = low;
        for i in 0..Metrics::COUNT {
            let mut values: Vec<f64> = resamples.iter().map(|m| m.to_array()[i]).collect();
            values.sort_unstable_by(f64::total_cmp);
            low[i] = quantile::sorted(&values, (1.0 - level) / 2.0);
            high[i] = quantile::sorted(&values, (1.0 + level) / 2.0);
        }
        Ok(Intervals { low: Metrics::from_array(low), high: Metrics::from_array(high) })
    }
}

/// A scorer minus a reference in the same resamples: the percentile interval
/// of the difference and its two-sided p-value, twice the smaller fraction of
/// resamples on one side of zero, (1 + #)/(1 + resamples), at most 1.
///
/// # Errors
/// As [`Intervals::percentile`].
pub fn paired(
    scorer: &[Metrics],
    reference: &[Metrics],
    level: f64,
) -> Result<(Intervals, Metrics)> {
    let gaps: Vec<Metrics> = scorer.iter().zip(reference).map(|(a, b)| a.minus(b)).collect();
    let share = |beyond: &dyn Fn(f64) -> bool, i: usize| {
        let count = gaps.iter().filter(|g| beyond(g.to_array()[i])).count();
        (1 + count) as f64 / (1 + gaps.len()) as f64
    };
    let p = |i: usize| (2.0 * share(&|g| g <= 0.0, i).min(share(&|g| g >= 0.0, i))).min(1.0);
    Ok((Intervals::percentile(&gaps, level)?, Metrics::from_array(std::array::from_fn(p))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::parallel::with_threads;
    use crate::observe::Silent;

    const CONFIG: BootstrapConfig = BootstrapConfig { resamples: 200, seed: 1 };

    fn run(id: &[f32], ood: &[f32]) -> Result<Bootstrap> {
        CONFIG.run(&[id], &[OodScores { name: "svhn", scores: vec![ood] }], &mut Silent)
    }

    fn interval(id: &[f32], ood: &[f32]) -> Intervals {
        Intervals::percentile(&run(id, ood).unwrap().averages(0, &[0]), 0.95).unwrap()
    }

    #[test]
    fn constant_separated_and_single_rows() {
        let constant = interval(&[1.0; 9], &[1.0; 5]);
        assert_eq!((constant.low.auroc, constant.high.auroc), (0.5, 0.5));
        assert_eq!((constant.low.fpr95_ood_positive, constant.low.fpr95_id_positive), (1.0, 1.0));
        let apart = interval(&[0.0, -0.0, 0.5], &[1.0, 2.0]);
        assert_eq!(apart.low.to_array(), [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        assert_eq!(apart.low, apart.high);
        // One row on either side is always drawn.
        let single = interval(&[0.0], &[-1.0]);
        assert_eq!((single.low.auroc, single.high.auroc), (0.0, 0.0));
        // Of two rows, none, one or both are below.
        let two = interval(&[0.0], &[-1.0, 1.0]);
        assert_eq!((two.low.auroc, two.high.auroc), (0.0, 1.0));
    }

    #[test]
    fn threads_do_not_matter_but_seeds_do() {
        let scores = |k: u32, n: u32| -> Vec<f32> {
            (0..n).map(|i| (i.wrapping_mul(k) % 97) as f32).collect()
        };
        let (id, ood) = (scores(37, 300), scores(53, 150));
        let with = |threads| with_threads(threads, || run(&id, &ood)).unwrap().unwrap();
        assert_eq!(with(1), with(3));
        let other = BootstrapConfig { seed: 2, ..CONFIG };
        let set = [OodScores { name: "svhn", scores: vec![&ood] }];
        assert_ne!(other.run(&[&id], &set, &mut Silent).unwrap(), with(1));
    }

    /// By hand: of 4 differences one is below zero and none is zero, so
    /// p = 2·(1 + 1)/(1 + 4); never more than 1.
    #[test]
    fn p_values_count_resamples_beyond_zero() {
        let with = |auroc: f64| Metrics { auroc, ..Metrics::default() };
        let zero = [with(0.0); 4];
        let (_, p) = paired(&[-0.1, 0.1, 0.2, 0.3].map(with), &zero, 0.95).unwrap();
        assert_eq!((p.auroc, p.aupr_in), (0.8, 1.0));
        let (ci, p) = paired(&[0.1, 0.1, 0.2, 0.3].map(with), &zero, 0.5).unwrap();
        assert_eq!(p.auroc, 0.4);
        // numpy 2.4.6: np.quantile([.1, .1, .2, .3], [.25, .75]) = [0.1, 0.225].
        assert!((ci.low.auroc - 0.1).abs() < 1e-15 && (ci.high.auroc - 0.225).abs() < 1e-15);
    }

    #[test]
    fn refusals_name_the_set() {
        let text = |r: Result<Bootstrap>| r.unwrap_err().to_string();
        assert!(text(run(&[1.0], &[])).contains("svhn has no"), "{}", text(run(&[1.0], &[])));
        assert!(text(run(&[], &[1.0])).contains("ID scores"));
        assert!(text(run(&[1.0], &[0.0, f32::NAN])).contains("svhn: tensor `score`, row 1"));
        let none = BootstrapConfig { resamples: 0, ..CONFIG };
        assert!(text(none.run(&[&[1.0]], &[], &mut Silent)).contains("`resamples` = 0"));
        let set = [OodScores { name: "svhn", scores: vec![&[1.0][..], &[1.0, 2.0]] }];
        let id: [&[f32]; 2] = [&[1.0], &[1.0]];
        assert!(text(CONFIG.run(&id, &set, &mut Silent)).contains("svhn: tensor `score`"));
        assert!(Intervals::percentile(&[], 0.9).is_err());
        assert!(Intervals::percentile(&[Metrics::default()], f64::NAN).is_err());
    }
}
