//! Paired tests of every scorer against one.

use serde::Serialize;

use super::columns::{Columns, values};
use super::intervals::IntervalsOf;
use super::{Results, as_map};
use crate::error::Result;
use crate::metrics::{Bootstrap, Delong, Intervals, Metrics, OodScores, Tests, holm, paired};

/// The scorer that others are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Baseline {
    /// The one with the highest average AUROC.
    Best,
    /// The one of that name.
    Named(String),
}

/// Every scorer against one, on the same rows.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The one.
    pub reference: String,
    /// Level of the intervals, and how rows were resampled.
    #[serde(flatten)]
    pub of: IntervalsOf,
    /// The others, in the order of the results.
    #[serde(serialize_with = "as_map")]
    pub scorers: Vec<(String, Compared)>,
}

/// One scorer against the reference.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// On each OOD set.
    #[serde(serialize_with = "as_map")]
    pub ood: Vec<(String, Tests)>,
    /// On the average over the OOD sets.
    pub average: Tests,
    /// On the average over the near sets, where there are groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<Tests>,
    /// On the average over the far sets, where there are groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far: Option<Tests>,
}

/// What is compared, and with what.
pub(super) struct Material<'a> {
    pub results: &'a Results,
    /// By each scorer.
    pub id: &'a [&'a [f32]],
    pub ood: &'a [OodScores<'a>],
    pub columns: &'a Columns,
    pub bootstrap: &'a Bootstrap,
}

impl Material<'_> {
    pub fn compare(&self, baseline: &Baseline, of: IntervalsOf) -> Result<Comparison> {
        let reference = self.find(baseline);
        let theirs = self.delong(reference)?;
        let others: Vec<usize> = (0..self.id.len()).filter(|&i| i != reference).collect();
        let tests = others.iter().map(|&i| self.tests(i, reference, &theirs, of.level));
        let mut tests = tests.collect::<Result<Vec<Vec<Tests>>>>()?;
        (0..self.columns.len()).for_each(|column| correct(&mut tests, column));
        let name = |i: usize| self.results.scorers[i].0.clone();
        let scorers = others.iter().zip(&tests).map(|(&i, tests)| (name(i), self.sorted(tests)));
        Ok(Comparison { reference: name(reference), of, scorers: scorers.collect() })
    }

    /// The named scorer, or the first with the highest average AUROC.
    fn find(&self, baseline: &Baseline) -> usize {
        let scorers = &self.results.scorers;
        let auroc = |i: &usize| scorers[*i].1.average.metrics.auroc;
        let best = (0..scorers.len()).rev().max_by(|a, b| auroc(a).total_cmp(&auroc(b)));
        let named = match baseline {
            Baseline::Best => None,
            Baseline::Named(name) => scorers.iter().position(|(n, _)| n == name),
        };
        named.or(best).unwrap_or(0)
    }

    /// A scorer's AUROC in every column.
    fn delong(&self, scorer: usize) -> Result<Vec<Delong>> {
        let sets = self.ood.iter().map(|set| Delong::new(self.id[scorer], set.scores[scorer]));
        let sets = sets.collect::<Result<Vec<_>>>()?;
        let of = |column: &Vec<usize>| {
            Delong::average(&column.iter().map(|&s| sets[s].clone()).collect::<Vec<_>>())
        };
        self.columns.iter().map(of).collect()
    }

    /// A scorer against the reference in every column, not yet corrected.
    fn tests(
        &self,
        scorer: usize,
        reference: usize,
        theirs: &[Delong],
        level: f64,
    ) -> Result<Vec<Tests>> {
        let ours = self.delong(scorer)?;
        let both = [scorer, reference];
        let one = |(column, sets): (usize, &Vec<usize>)| {
            let [a, b] = both.map(|i| self.bootstrap.averages(i, sets));
            let (ci, p) = paired(&a, &b, level)?;
            let [a, b] = both.map(|i| values(&self.results.scorers[i].1)[column]);
            let auroc = ours[column].minus(&theirs[column])?;
            let [low, high] = auroc.interval(level)?;
            let ci = Intervals {
                low: Metrics { auroc: low, ..ci.low },
                high: Metrics { auroc: high, ..ci.high },
            };
            let p = Metrics { auroc: auroc.p, ..p };
            // One row is drawn every time: resamples show no variation.
            let (ci, p) = match auroc.standard_error.is_nan() {
                true => (Intervals { low: NONE, high: NONE }, NONE),
                false => (ci, p),
            };
            Ok(Tests { difference: a.minus(&b), ci, p, p_holm: p })
        };
        self.columns.iter().enumerate().map(one).collect()
    }

    /// The tests of every column where they belong.
    fn sorted(&self, tests: &[Tests]) -> Compared {
        let groups = self.columns.len() - 1 - self.ood.len();
        let names = self.ood.iter().map(|set| set.name.to_owned());
        let group = |i: usize| (groups > 0).then(|| tests[i]);
        Compared {
            ood: names.zip(tests[1 + groups..].iter().copied()).collect(),
            average: tests[0],
            near: group(1),
            far: group(2),
        }
    }
}

/// What a side of one row has to tell.
const NONE: Metrics = Metrics::from_array([f64::NAN; Metrics::COUNT]);

/// Correct each metric's p-values in one column over the scorers.
fn correct(tests: &mut [Vec<Tests>], column: usize) {
    let mut corrected = vec![[0.0; Metrics::COUNT]; tests.len()];
    for metric in 0..Metrics::COUNT {
        let p: Vec<f64> = tests.iter().map(|t| t[column].p.to_array()[metric]).collect();
        corrected.iter_mut().zip(holm(&p)).for_each(|(row, p)| row[metric] = p);
    }
    for (tests, p) in tests.iter_mut().zip(corrected) {
        tests[column].p_holm = Metrics::from_array(p);
    }
}
