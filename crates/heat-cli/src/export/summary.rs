//! What a sweep found: mean and deviation over seeds of every setting.

use heat_ood::EpochLog;
use heat_ood::metrics::{Metrics, Spread};
use heat_ood::recipe::GridRun;
use serde_json::{Map, Value, json};

/// Keys with their values.
type Setting = Vec<(String, String)>;

/// What is known of a run of a sweep.
#[derive(Clone, Default)]
pub struct Outcome {
    /// Seconds of training, where this or an earlier sweep measured them.
    pub seconds: Option<f64>,
    /// Whether it was finished before.
    pub already: bool,
    /// The last epoch, once finished.
    pub last: Option<EpochLog>,
    /// The average, then each OOD set.
    pub metrics: Vec<(String, Metrics)>,
    /// What went wrong, where something did.
    pub error: Option<String>,
}

/// All runs of one setting of the varied keys, but for the seed.
pub(super) struct Row {
    pub setting: Setting,
    pub finished: usize,
    pub failed: usize,
    /// seconds, loss, cd_loss, energy_real, energy_generated: those known.
    pub training: Vec<(&'static str, Spread)>,
    /// The average, then each OOD set: its metrics.
    pub metrics: Vec<(String, Vec<(String, Spread)>)>,
}

/// What a sweep found: one row per setting, over all its seeds.
pub struct Summary {
    /// Varied keys but for the seed.
    pub(super) keys: Vec<String>,
    pub(super) rows: Vec<Row>,
    runs: Value,
}

impl Summary {
    /// `runs` and `outcomes` side by side, in the grid's order.
    pub fn new(runs: &[GridRun], outcomes: &[Outcome]) -> Self {
        let mut groups: Vec<(Setting, Vec<&Outcome>)> = Vec::new();
        for (run, outcome) in runs.iter().zip(outcomes) {
            let setting: Setting =
                run.varied.iter().filter(|(k, _)| k != "seed").cloned().collect();
            match groups.iter_mut().find(|(s, _)| *s == setting) {
                Some((_, list)) => list.push(outcome),
                None => groups.push((setting, vec![outcome])),
            }
        }
        let keys = groups.first().map_or(Vec::new(), |(s, _)| s.clone());
        Summary {
            keys: keys.into_iter().map(|(k, _)| k).collect(),
            rows: groups.into_iter().map(|(setting, list)| row(setting, &list)).collect(),
            runs: runs.iter().zip(outcomes).map(|(r, o)| (r.name.clone(), record(r, o))).collect(),
        }
    }

    /// Highest average AUROC first; settings without one last.
    pub fn sort_by_auroc(&mut self) {
        let auroc = |r: &Row| r.metric("average", "auroc").map_or(f64::NEG_INFINITY, |s| s.mean);
        self.rows.sort_by(|a, b| auroc(b).total_cmp(&auroc(a)));
    }

    /// Everything.
    pub fn json(&self) -> Value {
        json!({
            "settings": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "runs": self.runs,
        })
    }
}

impl Row {
    pub fn training(&self, name: &str) -> Option<Spread> {
        self.training.iter().find(|(n, _)| *n == name).map(|(_, s)| *s)
    }

    pub fn metric(&self, set: &str, name: &str) -> Option<Spread> {
        let (_, metrics) = self.metrics.iter().find(|(n, _)| n == set)?;
        metrics.iter().find(|(n, _)| n == name).map(|(_, s)| *s)
    }

    fn json(&self) -> Value {
        let spread = |s: &Spread| json!({"mean": s.mean, "std": s.std});
        let training = self.training.iter().map(|(n, s)| ((*n).to_owned(), spread(s)));
        let sets = self.metrics.iter().map(|(set, metrics)| {
            let metrics = metrics.iter().map(|(n, s)| (n.clone(), spread(s)));
            (set.clone(), Value::Object(metrics.collect()))
        });
        json!({
            "setting": object(&self.setting),
            "finished": self.finished,
            "failed": self.failed,
            "training": Value::Object(training.collect()),
            "metrics": Value::Object(sets.collect()),
        })
    }
}

fn row(setting: Setting, outcomes: &[&Outcome]) -> Row {
    let done: Vec<&&Outcome> = outcomes.iter().filter(|o| o.last.is_some()).collect();
    let of = |value: fn(&EpochLog) -> f64| -> Vec<f64> {
        done.iter().filter_map(|o| o.last.as_ref().map(value)).collect()
    };
    let seconds: Vec<f64> = done.iter().filter_map(|o| o.seconds).collect();
    let training = [
        ("loss", of(|l| l.loss)),
        ("cd_loss", of(|l| l.cd_loss)),
        ("energy_real", of(|l| l.energy_real)),
        ("energy_generated", of(|l| l.energy_generated)),
        ("seconds", seconds),
    ];
    let sets = done.iter().map(|o| &o.metrics).find(|m| !m.is_empty());
    let metrics = sets.into_iter().flatten().map(|(set, _)| (set.clone(), of_set(set, &done)));
    Row {
        finished: done.len(),
        failed: outcomes.iter().filter(|o| o.error.is_some()).count(),
        training: training.into_iter().filter_map(|(n, v)| Some((n, Spread::of(&v)?))).collect(),
        metrics: metrics.collect(),
        setting,
    }
}

/// Every metric of one OOD set.
fn of_set(set: &str, done: &[&&Outcome]) -> Vec<(String, Spread)> {
    let metrics = done.iter().filter_map(|o| o.metrics.iter().find(|(n, _)| n == set));
    let maps: Vec<Value> = metrics.map(|(_, m)| json!(m)).collect();
    let names = maps.first().and_then(Value::as_object).map_or(Vec::new(), |m| m.keys().collect());
    let spread = |name: &String| {
        let values: Vec<f64> = maps.iter().filter_map(|m| m[name].as_f64()).collect();
        Some((name.clone(), Spread::of(&values)?))
    };
    names.into_iter().filter_map(spread).collect()
}

fn record(run: &GridRun, outcome: &Outcome) -> Value {
    let metrics = outcome.metrics.iter().map(|(n, m)| (n.clone(), json!(m)));
    json!({
        "setting": object(&run.varied),
        "state": match outcome {
            Outcome { error: Some(_), .. } => "failed",
            Outcome { last: Some(_), .. } => "finished",
            _ => "unfinished",
        },
        "error": outcome.error,
        "seconds": outcome.seconds,
        "last_epoch": outcome.last,
        "metrics": Value::Object(metrics.collect()),
    })
}

fn object(pairs: &[(String, String)]) -> Value {
    Value::Object(pairs.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_unbiased() {
        // statistics.stdev([2, 4, 4, 4, 5, 5, 7, 9]) of Python 3.13.
        let s = Spread::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!(s.mean, 5.0);
        assert!((s.std.unwrap() - 2.138_089_935_299_395).abs() < 1e-15);
        assert_eq!(Spread::of(&[3.0]), Some(Spread { mean: 3.0, std: None }));
        assert_eq!(Spread::of(&[]), None);
    }
}
