//! Evaluating the runs of a sweep, each once: `eval.json` in its directory.

use std::path::Path;

use anyhow::Result;
use heat_ood::evaluate::{Candidate, evaluate};
use heat_ood::features::{FeatureSet, Subset};
use heat_ood::io::write_own;
use heat_ood::math::parallel;
use heat_ood::metrics::Metrics;
use heat_ood::{Detector, Error, Silent};
use serde_json::{Map, Value, json};

use crate::commands::outputs::add_to_record;
use crate::commands::{Data, TestSets};
use crate::progress::Progress;

/// ID and OOD sets with their hashes, by which results are known to be theirs.
pub struct Sets {
    sets: TestSets,
    digests: Value,
}

impl Sets {
    pub fn open(id: &Path, ood: &[String], data: &Data, progress: &Progress) -> Result<Self> {
        let sets = TestSets::open(id, ood, &data.options, Some(data), progress)?;
        let of = |set: &FeatureSet| -> Result<Value> {
            Ok(set.digests()?.into_iter().map(|(_, sha)| sha).collect())
        };
        let theirs = sets.ood.iter().map(|(name, set)| Ok((name.clone(), of(set)?)));
        let theirs = theirs.collect::<Result<Map<_, _>>>()?;
        let digests = json!({"id": of(&sets.id)?, "ood": theirs});
        Ok(Sets { sets, digests })
    }

    /// The sets themselves.
    pub fn opened(&self) -> &TestSets {
        &self.sets
    }

    /// Metrics of a run directory's detector, trained on that part of the
    /// training set: the average, then each OOD set. How they were `made` goes into the run's
    /// record: `eval.json` is the same bytes whatever command found it.
    pub fn metrics(
        &self,
        directory: &Path,
        part: &Subset,
        threads: usize,
        made: &Value,
    ) -> Result<Vec<(String, Metrics)>> {
        let file = directory.join("eval.json");
        if let Some(found) = self.read(&file) {
            return Ok(found);
        }
        let detector = Detector::open(directory.join("detector.safetensors"))?;
        let scorer = detector.fitted();
        let candidate = [Candidate { name: "heat".into(), scorer, fit_seconds: None }];
        let TestSets { id, ood } = self.sets.part(part)?;
        let run = || evaluate(&id, &ood, &candidate, &mut Silent);
        let mut results = parallel::with_threads(threads, run)??;
        let (_, results) = results.scorers.remove(0);
        let json = json!({
            "id": self.sets.id.name(),
            "ood": results.ood.iter().map(|(n, s)| (n.clone(), json!(s))).collect::<Map<_, _>>(),
            "average": results.average,
            "sha256": self.digests,
        });
        write_own(&file, |w| w.write_all(format!("{json:#}\n").as_bytes()))?;
        add_to_record(directory, "evaluated", made)?;
        self.read(&file).ok_or_else(|| Error::format(file, "cannot be read back").into())
    }

    /// What an earlier evaluation on the same sets found.
    fn read(&self, file: &Path) -> Option<Vec<(String, Metrics)>> {
        let json: Value = serde_json::from_str(&heat_ood::io::read_text(file).ok()?).ok()?;
        if json["sha256"] != self.digests {
            return None;
        }
        let metrics = |v: &Value| serde_json::from_value::<Metrics>(v.clone()).ok();
        let mut out = vec![("average".to_owned(), metrics(&json["average"])?)];
        for (name, _) in &self.sets.ood {
            out.push((name.clone(), metrics(&json["ood"][name])?));
        }
        Some(out)
    }
}
