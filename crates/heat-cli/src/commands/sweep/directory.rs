//! The directory of a sweep: its lock, `sweep.toml`, what is in its run directories.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use heat_ood::EpochLog;
use heat_ood::io::{open_own, open_regular, read_text, remove_abandoned, write_own};
use heat_ood::recipe::GridRun;
use heat_ood::{Detector, Error};
use toml::{Table, Value};

const VERSION: i64 = 1;

/// How long an orphan of a killed sweep may take to leave its run directory.
const PATIENCE: Duration = Duration::from_secs(10);

/// A sweep directory, held for writing.
pub struct SweepDirectory {
    path: PathBuf,
    _lock: File,
}

/// What makes two sweeps the same: their runs, their data.
pub struct Identity<'a> {
    pub settings: &'a [String],
    pub runs: &'a [GridRun],
    /// Hashes of the training set's files.
    pub train: Vec<String>,
    /// Hash of the head.
    pub head: Option<String>,
}

impl SweepDirectory {
    /// Begin a sweep in a new or empty directory, or go on with the same one.
    pub fn open(path: &Path, identity: &Identity<'_>, resume: bool) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let directory = SweepDirectory { path: path.to_owned(), _lock: lock(path)? };
        remove_abandoned(path);
        let file = path.join("sweep.toml");
        if file.is_file() {
            if !resume {
                let problem =
                    "already holds a sweep; continue it with `--resume`, or choose another `--out`";
                return Err(Error::format(path, problem).into());
            }
            let text = read_text(&file)?;
            identity.compare(&file, &text)?;
        } else {
            refuse_foreign(path)?;
            write_own(&file, |w| w.write_all(identity.table().to_string().as_bytes()))?;
        }
        Ok(directory)
    }

    /// The directory of a run.
    pub fn run(&self, run: &GridRun) -> PathBuf {
        self.path.join(&run.name)
    }

    pub fn summary(&self) -> PathBuf {
        self.path.join("sweep.json")
    }
}

impl Identity<'_> {
    fn table(&self) -> Table {
        let strings =
            |list: &[String]| Value::Array(list.iter().cloned().map(Value::from).collect());
        let mut table = Table::new();
        table.insert("version".into(), VERSION.into());
        table.insert("settings".into(), strings(self.settings));
        table.insert("train".into(), strings(&self.train));
        if let Some(head) = &self.head {
            table.insert("head".into(), head.clone().into());
        }
        let recipes = self.runs.iter().map(|r| (r.name.clone(), r.recipe.to_toml().into()));
        table.insert("runs".into(), Value::Table(recipes.collect()));
        table
    }

    /// Refuse to go on with another sweep.
    fn compare(&self, file: &Path, text: &str) -> Result<()> {
        let saved: Table = text.parse().map_err(|e: toml::de::Error| {
            Error::format(file, format!("{e}; choose another `--out`"))
        })?;
        let here = self.table();
        if saved.get("version") != here.get("version") {
            let problem = "was written by another version of this program; choose another `--out`";
            return Err(Error::format(file, problem).into());
        }
        let runs = |t: &Table| match t.get("runs") {
            Some(Value::Table(t)) => t.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            _ => Vec::new(),
        };
        if runs(&saved) != runs(&here) {
            let given = match saved.get("settings") {
                Some(Value::Array(list)) => {
                    list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
                }
                _ => String::new(),
            };
            let problem = format!(
                "this directory was made with another grid, `{given}`; choose another `--out`"
            );
            return Err(Error::format(file, problem).into());
        }
        if saved.get("train") != here.get("train") || saved.get("head") != here.get("head") {
            let problem = "this directory was made from other data, or with another head; choose another `--out`";
            return Err(Error::format(file, problem).into());
        }
        Ok(())
    }
}

fn lock(path: &Path) -> Result<File> {
    let place = path.join(".lock");
    let lock = open_own(&place)?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        return Err(Error::format(path, "another process is sweeping in this directory").into());
    }
    Ok(lock)
}

/// Run directories are named by the grid: they must not meet what is not the sweep's.
fn refuse_foreign(path: &Path) -> Result<()> {
    for entry in std::fs::read_dir(path).map_err(Error::io("list", path))? {
        let name = entry.map_err(Error::io("list", path))?.file_name();
        if name != ".lock" {
            let problem = format!(
                "is not a sweep (no sweep.toml), and not empty (`{}`); choose another `--out`",
                name.to_string_lossy()
            );
            return Err(Error::format(path, problem).into());
        }
    }
    Ok(())
}

/// Whether a run is done: its detector is there, whole, and of this recipe.
pub fn finished(directory: &Path, run: &GridRun) -> bool {
    let recipe = run.recipe.to_toml();
    read_text(&directory.join("recipe.toml")).is_ok_and(|text| text == recipe)
        && Detector::open(directory.join("detector.safetensors"))
            .is_ok_and(|d| d.provenance().recipe == Some(recipe))
}

/// Make sure that a run directory can be trained in: nothing else is there, and
/// the last process that trained there has left.
pub fn prepare(directory: &Path, run: &GridRun) -> Result<()> {
    let file = directory.join("recipe.toml");
    if file.is_file() {
        let text = read_text(&file)?;
        if text != run.recipe.to_toml() {
            let problem = "is not this run's recipe; move that directory away";
            return Err(Error::format(file, problem).into());
        }
    }
    let Ok(lock) = open_regular(&directory.join(".lock")) else {
        return Ok(());
    };
    let start = Instant::now();
    while let Err(TryLockError::WouldBlock) = lock.try_lock()
        && start.elapsed() < PATIENCE
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The last epoch of a finished run.
pub fn last_epoch(directory: &Path) -> Result<EpochLog> {
    let file = directory.join("metrics.jsonl");
    let text = read_text(&file)?;
    let last = text.lines().last().unwrap_or_default();
    Ok(serde_json::from_str(last).map_err(|e| Error::format(&file, e.to_string()))?)
}
