//! What a report shows, as plain data.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use heat_ood::EpochLog;
use heat_ood::Provenance;
use heat_ood::evaluate::Results;
use heat_ood::math::parallel;
use heat_ood::metrics::Metrics;
use serde_json::Value;

use super::evaluation::Evaluation;
use super::ink::SERIES;
use super::places;

/// A report.
pub struct ReportData {
    pub(super) made: Made,
    /// Results, with what they are of.
    pub(crate) tables: Vec<ResultsTable>,
    /// The scores behind the first table.
    pub(super) evaluation: Option<Evaluation>,
    pub(super) runs: Vec<Run>,
}

/// How the report was made.
pub(super) struct Made {
    pub command: String,
    /// Seconds since 1970.
    pub time: u64,
    pub threads: usize,
}

/// Scorers on OOD sets.
pub(crate) struct ResultsTable {
    /// What these results are of.
    pub title: String,
    /// Name of the ID set.
    pub id: String,
    pub(super) rows: Vec<Row>,
    /// Paired tests against one scorer, where they were asked for.
    pub(super) comparison: Option<Comparison>,
    /// Why some of the numbers say less than they seem to.
    pub(super) warnings: Vec<String>,
    /// Scorers that were left out, with the reasons.
    pub(super) skipped: Vec<(String, String)>,
}

/// Every scorer against one, by average AUROC.
pub(super) struct Comparison {
    pub reference: String,
    pub rows: Vec<Compared>,
}

/// A scorer's average AUROC less the reference's, its interval and p-value,
/// the last after Holm's correction.
pub(super) struct Compared {
    pub name: String,
    pub difference: f64,
    pub interval: (f64, f64),
    pub p: f64,
}

/// A scorer's results.
pub(super) struct Row {
    pub name: String,
    pub average: SetRow,
    /// Averages over near and far sets, where there are such.
    pub groups: Vec<(String, SetRow)>,
    pub sets: Vec<(String, SetRow)>,
    /// Of fitting, where known, and of scoring all sets.
    pub seconds: Option<(Option<f64>, f64)>,
}

/// A scorer's results on one OOD set, or their average.
pub(super) struct SetRow {
    pub metrics: Metrics,
    /// Number of OOD rows; 0 where not known.
    pub n: usize,
    /// Confidence intervals by the metric's name, where known.
    pub intervals: BTreeMap<String, (f64, f64)>,
}

/// A training run.
pub struct Run {
    /// Its name in the report.
    pub name: String,
    /// Its resolved recipe, as TOML.
    pub recipe: String,
    /// What was logged of each epoch.
    pub epochs: Vec<EpochLog>,
    /// Of its detector; none when unfinished.
    pub provenance: Option<Provenance>,
}

impl ReportData {
    /// On training runs, made now by that command.
    pub fn new(command: impl Into<String>, runs: Vec<Run>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let made = Made {
            command: places::shortened(&command.into()),
            time: since.map_or(0, |d| d.as_secs()),
            threads: parallel::threads(),
        };
        ReportData { made, tables: Vec::new(), evaluation: None, runs }
    }

    /// Results, which stand above all others, and the evaluation that they are of.
    pub fn with_results(mut self, results: &Results, evaluation: Evaluation) -> Self {
        let json = serde_json::to_value(results).unwrap_or_default();
        self.tables.splice(..0, ResultsTable::read("", "", &json));
        self.evaluation = Some(evaluation);
        self
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
        let id = places::name(json.get("id")?.as_str()?.as_ref());
        let rows = match json.get("scorers").and_then(Value::as_object) {
            Some(scorers) => scorers.iter().map(|(name, v)| Row::read(name, v)).collect(),
            None => Row::read(run, json).map(|row| vec![row]),
        };
        let rows = rows.filter(|r| !r.is_empty())?;
        let comparison = json.get("comparison").and_then(Comparison::read);
        let warnings = json.get("warnings").and_then(Value::as_array).into_iter().flatten();
        let warnings = warnings.filter_map(|w| w.as_str().map(places::shortened)).collect();
        let skipped = json.get("skipped").and_then(Value::as_object).into_iter().flatten();
        let skipped = skipped
            .filter_map(|(name, why)| Some((name.clone(), places::shortened(why.as_str()?))));
        let (title, skipped) = (title.to_owned(), skipped.collect());
        Some(ResultsTable { title, id, rows, comparison, warnings, skipped })
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
