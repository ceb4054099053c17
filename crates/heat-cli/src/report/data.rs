//! What a report shows, as plain data.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use heat_ood::Provenance;
use heat_ood::calibrate::{Calibration, Ties};
use heat_ood::compose::Combined;
use heat_ood::ebm::EpochLog;
use heat_ood::evaluate::{Candidate, Results, Scores};
use heat_ood::features::{FeatureSet, Head};
use heat_ood::metrics::Metrics;
use serde_json::Value;

use super::plot::SERIES;

/// A report.
pub struct ReportData {
    pub made: Made,
    /// Results, with what they are of.
    pub tables: Vec<ResultsTable>,
    /// The scores behind the first table.
    pub evaluation: Option<Evaluation>,
    pub runs: Vec<Run>,
}

/// How the report was made.
pub struct Made {
    pub command: String,
    /// Seconds since 1970.
    pub time: u64,
    pub threads: usize,
}

/// Scorers on OOD sets.
pub struct ResultsTable {
    /// What these results are of.
    pub title: String,
    /// Name of the ID set.
    pub id: String,
    pub rows: Vec<Row>,
    /// Paired tests against one scorer, where they were asked for.
    pub comparison: Option<Comparison>,
}

/// Every scorer against one, by average AUROC.
pub struct Comparison {
    pub reference: String,
    pub rows: Vec<Compared>,
}

/// A scorer's average AUROC less the reference's, its interval and p-value,
/// the last after Holm's correction.
pub struct Compared {
    pub name: String,
    pub difference: f64,
    pub interval: (f64, f64),
    pub p: f64,
}

/// A scorer's results.
pub struct Row {
    pub name: String,
    pub average: SetRow,
    /// Averages over near and far sets, where there are such.
    pub groups: Vec<(String, SetRow)>,
    pub sets: Vec<(String, SetRow)>,
    /// Of fitting, where known, and of scoring all sets.
    pub seconds: Option<(Option<f64>, f64)>,
}

/// A scorer's results on one OOD set, or their average.
pub struct SetRow {
    pub metrics: Metrics,
    /// Number of OOD rows; 0 where not known.
    pub n: usize,
    /// Confidence intervals by the metric's name, where known.
    pub intervals: BTreeMap<String, (f64, f64)>,
}

/// The evaluation that a report is of. Scorers are in the order of its table.
pub struct Evaluation {
    pub id: Set,
    pub ood: Vec<Set>,
    pub train: Option<Set>,
    pub head: Option<Set>,
    pub scorers: Vec<About>,
    /// Of the scorers, then of further members of compositions.
    pub scores: Scores,
    pub compositions: Vec<Composition>,
    /// Names of each scorer's components.
    pub components: Vec<&'static [&'static str]>,
}

/// A feature set.
pub struct Set {
    pub name: String,
    pub rows: usize,
    /// Name and SHA-256 of its files.
    pub files: Vec<(String, String)>,
}

/// Where a scorer comes from.
pub struct About {
    pub name: String,
    /// Fitted here, or read.
    pub origin: String,
    pub provenance: Provenance,
    /// What its own calibration says of these sets, where it has one.
    pub promise: Option<Promise>,
}

/// A detector's promise, and what became of it.
pub struct Promise {
    pub words: String,
    /// Files of the calibration rows.
    pub files: Vec<(String, String)>,
    /// Thresholds: one, or one a class.
    pub thresholds: Vec<f32>,
    /// Shares of the ID rows, and of each OOD set's, that it flags.
    pub flagged: Vec<f64>,
}

/// A composition whose members' scores are known.
pub struct Composition {
    pub name: String,
    pub beta: f64,
    pub members: Vec<MemberScores>,
}

/// A member of a composition.
pub struct MemberScores {
    pub name: String,
    /// Which entry of the scores is its own.
    pub entry: usize,
    /// Of its scores over the training set.
    pub mean: f64,
    pub std: f64,
}

/// A training run.
pub struct Run {
    pub name: String,
    pub recipe: String,
    pub epochs: Vec<EpochLog>,
    /// Of its detector; none when unfinished.
    pub provenance: Option<Provenance>,
}

impl ReportData {
    /// Of an evaluation made just now, with the runs it is about.
    pub fn of(results: &Results, evaluation: Option<Evaluation>, runs: Vec<Run>) -> Self {
        let json = serde_json::to_value(results).unwrap_or_default();
        let tables = ResultsTable::read("", "", &json).into_iter().collect();
        ReportData { made: Made::now(), tables, evaluation, runs }
    }
}

impl About {
    /// A scorer fitted by this command.
    pub fn fitted(name: &str) -> Self {
        let provenance = Provenance::default();
        About { name: name.to_owned(), origin: "fitted here".into(), provenance, promise: None }
    }

    /// One read from a file.
    pub fn read(name: &str, file: &Path, provenance: &Provenance) -> Self {
        let origin = file.display().to_string();
        About { name: name.to_owned(), origin, provenance: provenance.clone(), promise: None }
    }
}

impl Promise {
    /// Judge scores that are known: the ID set's, then those of the OOD sets.
    ///
    /// # Errors
    /// If classes cannot be predicted where they are needed.
    pub fn of(calibration: &Calibration, sets: &[(&FeatureSet, &[f32])]) -> heat_ood::Result<Self> {
        let share = |(set, scores): &(&FeatureSet, &[f32])| -> heat_ood::Result<f64> {
            let classes = calibration.predictor().map(|p| p.predict(set)).transpose()?;
            let verdicts = calibration.verdicts(scores, classes.as_deref(), Ties::Conservative)?;
            let flagged = verdicts.iter().filter(|v| v.ood).count();
            Ok(flagged as f64 / verdicts.len().max(1) as f64)
        };
        Ok(Promise {
            words: calibration.words(),
            files: calibration.files.clone(),
            thresholds: calibration.thresholds(),
            flagged: sets.iter().map(share).collect::<heat_ood::Result<_>>()?,
        })
    }
}

impl Set {
    /// Reads the files once more, for their hashes.
    pub fn of(name: &str, set: &FeatureSet) -> heat_ood::Result<Self> {
        Ok(Set { name: name.to_owned(), rows: set.len(), files: set.digests()? })
    }

    /// A head: its rows are the classes.
    pub fn head(head: &Head) -> Self {
        let files = vec![("weight and bias".to_owned(), head.digest())];
        Set { name: "head".into(), rows: head.classes(), files }
    }
}

impl Evaluation {
    pub fn id_scores(&self, entry: usize) -> &[f32] {
        &self.scores.id[entry].scores
    }

    pub fn ood_scores(&self, set: usize, entry: usize) -> &[f32] {
        &self.scores.ood[set].1[entry].scores
    }
}

impl ResultsTable {
    /// Scorers by their average AUROC, best first.
    pub fn ranking(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let auroc = |i: usize| self.rows[i].average.metrics.auroc;
        order.sort_by(|a, b| auroc(*b).total_cmp(&auroc(*a)));
        order
    }

    /// The best scorers, as many as have colours of their own.
    pub fn best(&self) -> Vec<usize> {
        self.ranking().into_iter().take(SERIES).collect()
    }

    /// Of what `heat eval --format json` writes, or of a run's `eval.json`,
    /// under that name; `None` if it is neither.
    pub fn read(title: &str, run: &str, json: &Value) -> Option<Self> {
        let id = json.get("id")?.as_str()?.to_owned();
        let rows = match json.get("scorers").and_then(Value::as_object) {
            Some(scorers) => scorers.iter().map(|(name, v)| Row::read(name, v)).collect(),
            None => Row::read(run, json).map(|row| vec![row]),
        };
        let rows = rows.filter(|r| !r.is_empty())?;
        let comparison = json.get("comparison").and_then(Comparison::read);
        Some(ResultsTable { title: title.to_owned(), id, rows, comparison })
    }
}

impl Comparison {
    fn read(json: &Value) -> Option<Self> {
        let of = |(name, v): (&String, &Value)| {
            let auroc = v.get("average")?.get("auroc")?;
            let ci = auroc.get("ci")?;
            Some(Compared {
                name: name.clone(),
                difference: auroc.get("difference")?.as_f64()?,
                interval: (ci.get(0)?.as_f64()?, ci.get(1)?.as_f64()?),
                p: auroc.get("p_holm")?.as_f64()?,
            })
        };
        Some(Comparison {
            reference: json.get("reference")?.as_str()?.to_owned(),
            rows: json.get("scorers")?.as_object()?.iter().filter_map(of).collect(),
        })
    }
}

impl Row {
    fn read(name: &str, json: &Value) -> Option<Self> {
        let sets = json.get("ood")?.as_object()?.iter();
        let seconds =
            json.get("seconds").and_then(|s| Some((s["fit"].as_f64(), s["score"].as_f64()?)));
        Some(Row {
            name: name.to_owned(),
            average: SetRow::read(json.get("average")?)?,
            groups: ["near", "far"]
                .iter()
                .filter_map(|g| Some(((*g).to_owned(), SetRow::read(json.get(g)?)?)))
                .collect(),
            sets: sets.map(|(n, v)| Some((n.clone(), SetRow::read(v)?))).collect::<Option<_>>()?,
            seconds,
        })
    }
}

impl SetRow {
    fn read(json: &Value) -> Option<Self> {
        let pair = |v: &Value| Some((v.get(0)?.as_f64()?, v.get(1)?.as_f64()?));
        let intervals = json.get("ci").and_then(Value::as_object);
        let intervals = intervals.into_iter().flatten();
        Some(SetRow {
            metrics: serde_json::from_value(json.clone()).ok()?,
            n: json.get("n").and_then(Value::as_u64).unwrap_or(0) as usize,
            intervals: intervals.filter_map(|(k, v)| Some((k.clone(), pair(v)?))).collect(),
        })
    }
}

/// Candidates, then the members of compositions that are not among them, so
/// that all are scored at once; and which member is which.
pub fn with_members(candidates: &[Candidate]) -> (Vec<Candidate>, Vec<Composition>) {
    let copy = |c: &Candidate| Candidate {
        name: c.name.clone(),
        scorer: Arc::clone(&c.scorer),
        fit_seconds: c.fit_seconds,
    };
    let mut all: Vec<Candidate> = candidates.iter().map(copy).collect();
    let mut compositions = Vec::new();
    for c in candidates {
        let Some(combined) = (&*c.scorer as &dyn Any).downcast_ref::<Combined>() else {
            continue;
        };
        let members = combined.members().iter().map(|m| {
            let known = all.iter().position(|c| Arc::ptr_eq(&c.scorer, &m.scorer));
            let entry = known.unwrap_or_else(|| {
                let (name, scorer) = (m.name.clone(), Arc::clone(&m.scorer));
                all.push(Candidate { name, scorer, fit_seconds: None });
                all.len() - 1
            });
            MemberScores { name: m.name.clone(), entry, mean: m.mean, std: m.std }
        });
        let members = members.collect();
        compositions.push(Composition { name: c.name.clone(), beta: combined.beta(), members });
    }
    (all, compositions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const METRICS: &str = r#"{"auroc": 0.9, "fpr95_id_positive": 0.2, "fpr95_ood_positive": 0.3,
        "aupr_in": 0.4, "aupr_out": 0.5, "detection_accuracy": 0.6, "n": 7,
        "ci": {"auroc": [0.85, 0.93]}}"#;

    #[test]
    fn results_and_a_runs_results_are_read_and_nothing_else() {
        let metrics: Value = serde_json::from_str(METRICS).unwrap();
        let one = json!({"ood": {"svhn": metrics}, "average": metrics});
        let all = json!({"id": "test", "scorers": {"a": one, "b": one}});
        let table = ResultsTable::read("t", "r", &all).unwrap();
        assert_eq!((table.id.as_str(), table.rows.len()), ("test", 2));
        let (name, set) = &table.rows[1].sets[0];
        assert_eq!((name.as_str(), set.n, set.metrics.aupr_in), ("svhn", 7, 0.4));
        assert_eq!(set.intervals["auroc"], (0.85, 0.93));
        let run = json!({"id": "test", "ood": {"svhn": metrics}, "average": metrics});
        assert_eq!(ResultsTable::read("t", "r", &run).unwrap().rows[0].name, "r");
        for wrong in [json!([1]), json!({"id": "x"}), json!({"id": "x", "scorers": {"a": 1}})] {
            assert!(ResultsTable::read("t", "r", &wrong).is_none(), "{wrong}");
        }
    }
}
