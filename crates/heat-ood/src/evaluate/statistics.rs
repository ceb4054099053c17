//! Near and far averages, confidence intervals and paired tests of [`Results`].

use serde::Serialize;

use super::{Average, Groups, Results, ScorerResults, Scores, as_map, seeds};
use crate::error::{Error, Result};
use crate::metrics::{
    Bootstrap, BootstrapConfig, Delong, Intervals, Metrics, OodScores, Tests, check_level, holm,
    paired,
};
use crate::observe::Observer;

/// What to find out beyond the metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Averages over near and far sets.
    pub groups: Option<Groups>,
    /// Confidence intervals of every metric.
    pub intervals: bool,
    /// Paired tests of every scorer against one.
    pub compare: Option<Reference>,
    /// Level of confidence of all intervals.
    pub level: f64,
    /// How rows are resampled.
    pub bootstrap: BootstrapConfig,
}

/// The scorer that others are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// The one with the highest average AUROC.
    Best,
    /// The one of that name.
    Named(String),
}

/// What the intervals of some results are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IntervalsOf {
    /// Level of confidence.
    pub level: f64,
    /// Number of resamples.
    pub resamples: usize,
    /// Their seed.
    pub seed: u64,
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

impl Default for Statistics {
    /// Nothing, at a level of 0.95.
    fn default() -> Self {
        Statistics {
            groups: None,
            intervals: false,
            compare: None,
            level: 0.95,
            bootstrap: BootstrapConfig::default(),
        }
    }
}

/// The sets behind one column of results: the average, near, far, then each.
type Columns = Vec<Vec<usize>>;

impl Statistics {
    /// Whether this can be found out of such sets.
    ///
    /// # Errors
    /// If the level is none, there are no resamples, or a group names a set
    /// that is not there.
    pub fn check_sets(&self, sets: &[&str]) -> Result<()> {
        check_level(self.level)?;
        self.bootstrap.check()?;
        self.groups.as_ref().map_or(Ok(()), |groups| groups.check(sets))
    }

    /// Whether this can be found out of such scorers.
    ///
    /// # Errors
    /// If the reference is none of them, or alone, or a scorer has the name of
    /// a summary over seeds.
    pub fn check_scorers(&self, scorers: &[&str]) -> Result<()> {
        seeds::groups(scorers)?;
        let Some(reference) = &self.compare else {
            return Ok(());
        };
        match reference {
            Reference::Named(name) if !scorers.contains(&&**name) => {
                Err(Error::unknown("scorer", name, scorers.iter().copied()))
            }
            _ if scorers.len() < 2 => {
                let problem = "there is one scorer only, and comparing takes two";
                Err(Error::config("compare", "", problem))
            }
            _ => Ok(()),
        }
    }

    /// Add it to the results of [`measure`](super::measure) on these scores.
    ///
    /// # Errors
    /// As [`Statistics::check_sets`] and [`Statistics::check_scorers`]; if a
    /// set is empty.
    pub fn add_to(
        &self,
        results: &mut Results,
        scores: &Scores,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let sets: Vec<&str> = scores.ood.iter().map(|(name, _)| &**name).collect();
        let scorers: Vec<&str> = results.scorers.iter().map(|(name, _)| &**name).collect();
        self.check_sets(&sets)?;
        self.check_scorers(&scorers)?;
        let columns = self.columns(&sets);
        if let Some(groups) = &self.groups {
            results.groups = Some(groups.clone());
            for (_, scorer) in &mut results.scorers {
                scorer.near = Some(average(scorer, &columns[1]));
                scorer.far = Some(average(scorer, &columns[2]));
            }
            results.seeds = seeds::summaries(&results.scorers)?;
        }
        if !self.intervals && self.compare.is_none() {
            return Ok(());
        }
        let id: Vec<&[f32]> = scores.id.iter().map(|t| &t.scores[..]).collect();
        let ood: Vec<OodScores<'_>> = scores
            .ood
            .iter()
            .map(|(name, all)| OodScores {
                name,
                scores: all.iter().map(|t| &t.scores[..]).collect(),
            })
            .collect();
        let bootstrap = self.bootstrap.run(&id, &ood, observer)?;
        if self.intervals {
            results.ci = Some(self.of());
            for (i, (_, scorer)) in results.scorers.iter_mut().enumerate() {
                for (sets, ci) in columns.iter().zip(places(scorer)) {
                    *ci = Some(Intervals::percentile(&bootstrap.averages(i, sets), self.level)?);
                }
            }
        }
        if let Some(reference) = &self.compare {
            let reference = reference.find(results);
            results.comparison = Some(self.compare(results, reference, &id, &ood, &bootstrap)?);
        }
        Ok(())
    }

    fn of(&self) -> IntervalsOf {
        let BootstrapConfig { resamples, seed } = self.bootstrap;
        IntervalsOf { level: self.level, resamples, seed }
    }

    fn columns(&self, sets: &[&str]) -> Columns {
        let place = |name: &String| sets.iter().position(|s| s == name);
        let mut columns = vec![(0..sets.len()).collect()];
        if let Some(groups) = &self.groups {
            let group = |names: &[String]| names.iter().filter_map(place).collect();
            columns.extend([group(&groups.near), group(&groups.far)]);
        }
        columns.extend((0..sets.len()).map(|s| vec![s]));
        columns
    }

    fn compare(
        &self,
        results: &Results,
        reference: usize,
        id: &[&[f32]],
        ood: &[OodScores<'_>],
        bootstrap: &Bootstrap,
    ) -> Result<Comparison> {
        let names: Vec<&str> = ood.iter().map(|set| set.name).collect();
        let columns = self.columns(&names);
        let delong = |scorer: usize| -> Result<Vec<Delong>> {
            let sets = ood.iter().map(|set| Delong::new(id[scorer], set.scores[scorer]));
            let sets = sets.collect::<Result<Vec<_>>>()?;
            let of = |column: &Vec<usize>| {
                Delong::average(&column.iter().map(|&s| sets[s].clone()).collect::<Vec<_>>())
            };
            columns.iter().map(of).collect()
        };
        let theirs = delong(reference)?;
        let others: Vec<usize> = (0..id.len()).filter(|&i| i != reference).collect();
        // [scorers][columns]
        let mut tests: Vec<Vec<Tests>> = Vec::new();
        for &scorer in &others {
            let ours = delong(scorer)?;
            let one = |(c, sets): (usize, &Vec<usize>)| {
                let [a, b] = [scorer, reference].map(|i| bootstrap.averages(i, sets));
                let (ci, p) = paired(&a, &b, self.level)?;
                let [a, b] = [scorer, reference].map(|i| values(&results.scorers[i].1)[c]);
                let auroc = ours[c].minus(&theirs[c])?;
                let [low, high] = auroc.interval(self.level)?;
                let ci = Intervals {
                    low: Metrics { auroc: low, ..ci.low },
                    high: Metrics { auroc: high, ..ci.high },
                };
                let p = Metrics { auroc: auroc.p, ..p };
                Ok(Tests { difference: minus(a, b), ci, p, p_holm: p })
            };
            tests.push(columns.iter().enumerate().map(one).collect::<Result<_>>()?);
        }
        (0..columns.len()).for_each(|column| correct(&mut tests, column));
        let compared = others.iter().zip(tests).map(|(&scorer, tests)| {
            (results.scorers[scorer].0.clone(), self.compared(&names, tests))
        });
        Ok(Comparison {
            reference: results.scorers[reference].0.clone(),
            of: self.of(),
            scorers: compared.collect(),
        })
    }

    fn compared(&self, names: &[&str], tests: Vec<Tests>) -> Compared {
        let groups = if self.groups.is_some() { 2 } else { 0 };
        let sets = names.iter().map(|n| (*n).to_owned()).zip(tests[1 + groups..].iter().copied());
        let group = |i: usize| (groups > 0).then(|| tests[i]);
        Compared { average: tests[0], near: group(1), far: group(2), ood: sets.collect() }
    }
}

impl Reference {
    fn find(&self, results: &Results) -> usize {
        let auroc = |i: &usize| results.scorers[*i].1.average.metrics.auroc;
        // The first of equals.
        let best = (0..results.scorers.len()).rev().max_by(|a, b| auroc(a).total_cmp(&auroc(b)));
        let named = match self {
            Reference::Best => None,
            Reference::Named(name) => results.scorers.iter().position(|(n, _)| n == name),
        };
        named.or(best).unwrap_or(0)
    }
}

fn average(scorer: &ScorerResults, sets: &[usize]) -> Average {
    Average::of(&sets.iter().map(|&s| scorer.ood[s].1.metrics).collect::<Vec<_>>())
}

/// The metrics of every column.
fn values(scorer: &ScorerResults) -> Vec<Metrics> {
    let averages = std::iter::once(&scorer.average).chain(&scorer.near).chain(&scorer.far);
    let sets = scorer.ood.iter().map(|(_, set)| set.metrics);
    averages.map(|a| a.metrics).chain(sets).collect()
}

/// Where the intervals of every column belong.
fn places(scorer: &mut ScorerResults) -> impl Iterator<Item = &mut Option<Intervals>> {
    let averages =
        std::iter::once(&mut scorer.average).chain(&mut scorer.near).chain(&mut scorer.far);
    let sets = scorer.ood.iter_mut().map(|(_, set)| &mut set.ci);
    averages.map(|a| &mut a.ci).chain(sets)
}

fn minus(a: Metrics, b: Metrics) -> Metrics {
    let (a, b) = (a.to_array(), b.to_array());
    Metrics::from_array(std::array::from_fn(|i| a[i] - b[i]))
}

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
