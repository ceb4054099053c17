//! Detectors × datasets → [`Results`].

mod accuracy;
mod columns;
mod comparison;
mod groups;
mod intervals;
mod seeds;
mod seen;
mod statistics;
#[cfg(test)]
mod tests;

pub use accuracy::{Agreement, Remarks, accuracy, remarks};
pub use comparison::{Baseline, Compared, Comparison};
pub use groups::Groups;
pub use intervals::IntervalsOf;
pub use seeds::{MetricsSpread, SeedResults};
pub use seen::seen;
pub use statistics::Statistics;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::features::FeatureSet;
use crate::metrics::{self, Intervals, Metrics};
use crate::observe::Observer;
use crate::scorers::{Fitted, ScoredSet, Scorer, score_each, score_together};

/// A scorer to be evaluated.
#[derive(Clone)]
pub struct Candidate {
    /// Its name in the results.
    pub name: String,
    /// The fitted scorer.
    pub scorer: Fitted<dyn Scorer>,
    /// Seconds that fitting took, where known.
    pub fit_seconds: Option<f64>,
}

/// Everything an evaluation found, in the order asked.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    /// The in-distribution test set.
    pub id: String,
    /// Which OOD sets are near and far, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Groups>,
    /// What the intervals are, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci: Option<IntervalsOf>,
    /// One entry per scorer.
    #[serde(serialize_with = "as_map")]
    pub scorers: Vec<(String, ScorerResults)>,
    /// Scorers that were asked for and left out, each with the reason.
    #[serde(serialize_with = "as_map", skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(String, String)>,
    /// Mean and deviation of the scorers named `NAME@SEED`, by NAME.
    #[serde(serialize_with = "as_map", skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<(String, SeedResults)>,
    /// Every scorer against one of them, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Why some of the numbers say less than they seem to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One scorer on all OOD sets.
#[derive(Debug, Clone, Serialize)]
pub struct ScorerResults {
    /// One entry per OOD set.
    #[serde(serialize_with = "as_map")]
    pub ood: Vec<(String, SetResults)>,
    /// Plain average over the OOD sets.
    pub average: Average,
    /// Over the near sets, where there are groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<Average>,
    /// Over the far sets, where there are groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far: Option<Average>,
    /// What it cost.
    pub seconds: Seconds,
}

/// One scorer on one OOD set.
#[derive(Debug, Clone, Serialize)]
pub struct SetResults {
    /// The metrics, as fractions.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Rows of the OOD set.
    pub n: usize,
    /// Distinct scores among ID and OOD rows.
    pub distinct: usize,
    /// Confidence intervals, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci: Option<Intervals>,
}

/// One scorer's average over some OOD sets.
#[derive(Debug, Clone, Serialize)]
pub struct Average {
    /// The plain averages of the metrics.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Confidence intervals, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci: Option<Intervals>,
}

impl Average {
    fn of(sets: &[Metrics]) -> Self {
        Average { metrics: metrics::average(sets), ci: None }
    }
}

/// Wall-clock seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Seconds {
    /// Fitting or training; null for detectors read from files.
    pub fit: Option<f64>,
    /// Scoring the ID and all OOD sets.
    pub score: f64,
}

fn as_map<S: Serializer, T: Serialize>(
    entries: &[(String, T)],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(entries.len()))?;
    for (name, value) in entries {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

/// The scores behind some [`Results`].
#[derive(Debug, Clone)]
pub struct Scores {
    /// Of the ID set, one entry per candidate.
    pub id: Vec<ScoredSet>,
    /// Of each OOD set, one entry per candidate.
    pub ood: Vec<(String, Vec<ScoredSet>)>,
}

/// Score the ID set and every OOD set with every candidate. Each set is read
/// once; memory is 4 bytes a row and candidate.
///
/// # Errors
/// If a set cannot be scored; the error names it.
pub fn score_all(
    id: &FeatureSet,
    ood: &[(String, FeatureSet)],
    candidates: &[Candidate],
    components: bool,
    observer: &mut dyn Observer,
) -> Result<Scores> {
    let scorers: Vec<&dyn Scorer> = candidates.iter().map(|c| &*c.scorer).collect();
    let id = score_together(id, &scorers, components, observer)?;
    let theirs = ood.iter().map(|(name, set)| {
        Ok((name.clone(), score_together(set, &scorers, components, observer)?))
    });
    Ok(Scores { id, ood: theirs.collect::<Result<_>>()? })
}

/// Which candidates cannot score one of these sets, and why: the place of each, and its first
/// error. All sets are scored.
///
/// # Errors
/// If a set cannot be read.
pub fn unscorable(
    id: &FeatureSet,
    ood: &[(String, FeatureSet)],
    candidates: &[Candidate],
    observer: &mut dyn Observer,
) -> Result<Vec<(usize, Error)>> {
    let scorers: Vec<&dyn Scorer> = candidates.iter().map(|c| &*c.scorer).collect();
    let mut failed: Vec<(usize, Error)> = Vec::new();
    for set in std::iter::once(id).chain(ood.iter().map(|(_, set)| set)) {
        let scored = score_each(set, &scorers, false, observer)?.into_iter().enumerate();
        for (i, error) in scored.filter_map(|(i, scored)| Some((i, scored.err()?))) {
            if failed.iter().all(|(known, _)| *known != i) {
                failed.push((i, error));
            }
        }
    }
    failed.sort_by_key(|(i, _)| *i);
    Ok(failed)
}

/// Score the ID set and every OOD set with every candidate, and measure.
///
/// # Errors
/// If a set cannot be scored; the error names it.
pub fn evaluate(
    id: &FeatureSet,
    ood: &[(String, FeatureSet)],
    candidates: &[Candidate],
    observer: &mut dyn Observer,
) -> Result<Results> {
    let scores = score_all(id, ood, candidates, false, observer)?;
    measure(id.name(), candidates, &scores)?.with_seen(id, ood, candidates)
}

impl Results {
    /// With warnings of test rows that were [`seen`].
    ///
    /// # Errors
    /// If a set cannot be read.
    pub fn with_seen(
        mut self,
        id: &FeatureSet,
        ood: &[(String, FeatureSet)],
        candidates: &[Candidate],
    ) -> Result<Self> {
        self.warnings.splice(0..0, seen(id, ood, candidates)?);
        Ok(self)
    }
}

/// Fewer distinct scores than one for as many rows are said.
const FEW_ROWS: usize = 10;

fn few_values(scorer: &str, set: &str, distinct: usize) -> String {
    match distinct {
        1 => format!("{scorer} gives every row the same score on {set}: it decides nothing"),
        n => format!("{scorer}: {n} distinct values on {set}: ties decide much of its metrics"),
    }
}

/// The metrics of scores, and the summary of those over seeds.
///
/// # Errors
/// If a set is empty or has NaN among its scores; the error names it.
pub fn measure(id: &str, candidates: &[Candidate], scores: &Scores) -> Result<Results> {
    let (mut scorers, mut warnings) = (Vec::new(), Vec::new());
    for (i, candidate) in candidates.iter().enumerate() {
        let ours = &scores.id[i];
        let mut seconds = ours.seconds;
        let mut sets = Vec::new();
        for (name, theirs) in &scores.ood {
            let theirs = &theirs[i];
            let sides = [(id, &ours.scores[..]), (name, &theirs.scores)];
            let (metrics, distinct) = metrics::evaluate_named(sides[0], sides[1])?;
            seconds += theirs.seconds;
            let n = theirs.scores.len();
            if distinct * FEW_ROWS < ours.scores.len() + n {
                warnings.push(few_values(&candidate.name, name, distinct));
            }
            sets.push((name.clone(), SetResults { metrics, n, distinct, ci: None }));
        }
        let all: Vec<Metrics> = sets.iter().map(|(_, s)| s.metrics).collect();
        let results = ScorerResults {
            ood: sets,
            average: Average::of(&all),
            near: None,
            far: None,
            seconds: Seconds { fit: candidate.fit_seconds, score: seconds },
        };
        scorers.push((candidate.name.clone(), results));
    }
    let seeds = seeds::summaries(&scorers)?;
    Ok(Results {
        id: id.to_owned(),
        groups: None,
        ci: None,
        scorers,
        skipped: Vec::new(),
        seeds,
        comparison: None,
        warnings,
    })
}
