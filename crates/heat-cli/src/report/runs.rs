//! What `heat report` is given: run directories, sweeps, results.

use std::path::{Path, PathBuf};

use heat_ood::EpochLog;
use heat_ood::io::kind_of;
use heat_ood::{Detector, Error, Result};
use serde_json::Value;

use super::data::{ResultsTable, Run};

/// What lies in the places given.
#[derive(Default)]
pub struct Found {
    pub runs: Vec<Run>,
    /// Results written earlier.
    pub tables: Vec<ResultsTable>,
    /// Of each finished run.
    pub detectors: Vec<PathBuf>,
    /// Every file read, which must not be overwritten.
    pub files: Vec<PathBuf>,
}

/// Read them all.
pub fn find(places: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    for place in places {
        if place.join("recipe.toml").is_file() {
            found.run(&name_of(place), place)?;
        } else if place.join("sweep.toml").is_file() {
            found.sweep(place)?;
        } else if place.is_file() {
            found.results(place)?;
        } else {
            let problem = match place.exists() {
                true => {
                    "holds no run: expected recipe.toml of `heat train`, or sweep.toml of `heat sweep`"
                }
                false => {
                    "does not exist; give a directory of `heat train` or `heat sweep`, or a JSON file of `heat eval`"
                }
            };
            return Err(Error::format(place, problem));
        }
    }
    let names: Vec<&String> = found.runs.iter().map(|r| &r.name).collect();
    if let Some(name) = names.iter().enumerate().find(|(i, n)| names[..*i].contains(n)) {
        let problem = "two runs have that name; rename a directory";
        return Err(Error::config("runs", name.1, problem));
    }
    Ok(found)
}

fn name_of(directory: &Path) -> String {
    let real = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    real.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Found {
    fn text(&mut self, file: PathBuf) -> Result<String> {
        let text = heat_ood::io::read_text(&file)?;
        self.files.push(file);
        Ok(text)
    }

    fn run(&mut self, name: &str, directory: &Path) -> Result<()> {
        let recipe = self.text(directory.join("recipe.toml"))?;
        let metrics = directory.join("metrics.jsonl");
        let mut epochs: Vec<EpochLog> = Vec::new();
        if metrics.is_file() {
            for (n, line) in self.text(metrics.clone())?.lines().enumerate() {
                let epoch = serde_json::from_str(line).map_err(|e| {
                    Error::format(&metrics, format!("line {} is not an epoch: {e}", n + 1))
                })?;
                epochs.push(epoch);
            }
        }
        let detector = directory.join("detector.safetensors");
        let mut provenance = None;
        if detector.is_file() {
            provenance = Some(Detector::open(&detector)?.provenance().clone());
            self.files.push(detector.clone());
            self.detectors.push(detector);
        }
        self.runs.push(Run { name: name.to_owned(), recipe, epochs, provenance });
        Ok(())
    }

    /// Its runs by name, and one table of what they were found to do.
    fn sweep(&mut self, directory: &Path) -> Result<()> {
        let mut runs: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(Error::io("list", directory))? {
            let path = entry.map_err(Error::io("list", directory))?.path();
            if path.join("recipe.toml").is_file() {
                runs.push(path);
            }
        }
        if runs.is_empty() {
            return Err(Error::format(directory, "is a sweep without a run; let it train first"));
        }
        runs.sort();
        let mut whole: Option<ResultsTable> = None;
        for run in &runs {
            let name = name_of(run);
            self.run(&name, run)?;
            let file = run.join("eval.json");
            if file.is_file() {
                let table = self.table("", &name, file)?;
                match &mut whole {
                    Some(whole) => whole.rows.extend(table.rows),
                    None => whole = Some(table),
                }
            }
        }
        if let Some(mut table) = whole {
            table.title = format!("Sweep {}", name_of(directory));
            self.tables.push(table);
        }
        Ok(())
    }

    fn results(&mut self, file: &Path) -> Result<()> {
        let title = name_of(file);
        let table = self.table(&title, &name_of(file), file.to_owned())?;
        self.tables.push(table);
        Ok(())
    }

    fn table(&mut self, title: &str, run: &str, file: PathBuf) -> Result<ResultsTable> {
        let otherwise = || {
            let remedy = "write them with `heat eval --format json`";
            let bytes = heat_ood::io::map(&file).ok();
            let problem = match bytes.and_then(|bytes| kind_of(&bytes)) {
                Some(kind) => format!("is {kind}, not the results of an evaluation; {remedy}"),
                None => format!("is not the results of an evaluation; {remedy}"),
            };
            Error::format(&file, problem)
        };
        let text = self.text(file.clone()).map_err(|e| match e {
            // Not even text.
            Error::Format { .. } => otherwise(),
            other => other,
        })?;
        let json: Option<Value> = serde_json::from_str(&text).ok();
        let table = json.and_then(|json| ResultsTable::read(title, run, &json));
        table.ok_or_else(otherwise)
    }
}
