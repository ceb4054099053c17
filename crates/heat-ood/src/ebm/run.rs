//! The directory of a training run.
//!
//! `recipe.toml` (resolved), `checkpoints/epoch_N.safetensors`,
//! `metrics.jsonl` (one epoch a line), TensorBoard event files. Metrics and
//! events are written from the checkpoint's own history, so that they agree
//! with it whenever the process ends.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::checkpoint;
use super::log::EventFile;
use super::train::{Outcome, Trainer};
use crate::error::{Error, Result};
use crate::io::{hold, refuse_link, remove_abandoned, write_own};
use crate::observe::{EpochLog, Event, Observer};
use crate::scorers::check_prior;

/// A run directory open for writing.
pub struct RunDirectory {
    path: PathBuf,
    events: EventFile,
    train_digest: String,
    /// Held while the directory is open.
    _lock: File,
}

impl RunDirectory {
    /// Begin a run in a new or empty directory.
    ///
    /// # Errors
    /// If the directory already holds a run, or cannot be written.
    pub fn create(path: &Path, recipe: &str, train_digest: &str) -> Result<Self> {
        if path.join("recipe.toml").exists() || Self::latest(path)?.is_some() {
            return Err(Error::format(
                path,
                "already holds a run; resume it, or choose another directory",
            ));
        }
        Self::open(path, recipe, train_digest, None)
    }

    /// Go on with a run; `trainer` has just been read from its last checkpoint
    /// (`None` when there was none).
    ///
    /// # Errors
    /// If another process is training there, or the directory cannot be written.
    pub fn open(
        path: &Path,
        recipe: &str,
        train_digest: &str,
        trainer: Option<&Trainer>,
    ) -> Result<Self> {
        let checkpoints = path.join("checkpoints");
        std::fs::create_dir_all(&checkpoints).map_err(Error::io("create", &checkpoints))?;
        let lock = hold(&path.join(".lock"), path, "is training in this directory")?;
        remove_abandoned(path);
        remove_abandoned(&checkpoints);
        write_own(&path.join("recipe.toml"), |w| w.write_all(recipe.as_bytes()))?;
        let history = trainer.map_or(&[][..], |t| &t.state().history);
        let directory = RunDirectory {
            path: path.to_owned(),
            events: EventFile::create(path, history)?,
            train_digest: train_digest.to_owned(),
            _lock: lock,
        };
        directory.write_metrics(history)?;
        // Killed between an epoch's checkpoint and the removal of what it supersedes.
        let saved = |t: &Trainer| {
            t.state().batch == 0 && directory.checkpoint(&epoch_name(t.state().epoch)).exists()
        };
        if trainer.is_some_and(saved) {
            directory.remove_interrupted()?;
        }
        Ok(directory)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoint that is furthest on, if there is one.
    ///
    /// # Errors
    /// If the directory or a checkpoint cannot be read.
    pub fn latest(path: &Path) -> Result<Option<PathBuf>> {
        let directory = path.join("checkpoints");
        let mut best: Option<(u64, PathBuf)> = None;
        if !directory.is_dir() {
            return Ok(None);
        }
        for entry in std::fs::read_dir(&directory).map_err(Error::io("list", &directory))? {
            let file = entry.map_err(Error::io("list", &directory))?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') || file.extension().is_none_or(|e| e != "safetensors") {
                continue;
            }
            let step = checkpoint::step(&file).map_err(|e| {
                let advice = "delete it to continue from an earlier checkpoint";
                match e {
                    Error::Format { path, problem } => {
                        Error::format(path, format!("{problem}; {advice}"))
                    }
                    other => Error::format(&file, format!("{other}; {advice}")),
                }
            })?;
            if best.as_ref().is_none_or(|(s, _)| step > *s) {
                best = Some((step, file));
            }
        }
        Ok(best.map(|(_, file)| file))
    }

    /// Train to the last epoch, with a checkpoint after each that is due; or
    /// until the observer asks for a stop, then with one too.
    ///
    /// # Errors
    /// As [`Trainer::epoch`], if the directory cannot be written, or the prior
    /// is one of your own without a [registered](crate::scorers::register_prior)
    /// loader: no checkpoint could be read back.
    pub fn train(&mut self, trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<Outcome> {
        check_prior(&trainer.prior.section().kind)?;
        while !trainer.is_finished() {
            let Some(log) = trainer.epoch(observer)? else {
                self.save_interrupted(trainer)?;
                return Ok(Outcome::Stopped);
            };
            self.save_epoch(trainer)?;
            observer.on(Event::Epoch(&log));
        }
        Ok(Outcome::Finished)
    }

    fn save_epoch(&mut self, trainer: &Trainer) -> Result<()> {
        let epoch = trainer.state.epoch;
        let config = &trainer.config;
        if epoch.is_multiple_of(config.save_freq) || epoch == config.total_epochs() {
            let path = self.checkpoint(&epoch_name(epoch));
            refuse_link(&path)?;
            checkpoint::save(&path, trainer, &self.train_digest)?;
            self.remove_interrupted()?;
        }
        self.write_metrics(&trainer.state.history)?;
        trainer.state.history.last().map_or(Ok(()), |log| self.events.append(log))
    }

    fn save_interrupted(&mut self, trainer: &Trainer) -> Result<()> {
        let path = self.checkpoint(&format!("step_{}", trainer.state.step));
        refuse_link(&path)?;
        checkpoint::save(&path, trainer, &self.train_digest)
    }

    fn checkpoint(&self, name: &str) -> PathBuf {
        self.path.join("checkpoints").join(format!("{name}.safetensors"))
    }

    /// Checkpoints of interruptions are superseded by the next epoch's.
    fn remove_interrupted(&self) -> Result<()> {
        remove(&self.path.join("checkpoints"), |name| name.starts_with("step_"))
    }

    fn write_metrics(&self, history: &[EpochLog]) -> Result<()> {
        write_own(&self.path.join("metrics.jsonl"), |w| {
            for log in history {
                serde_json::to_writer(&mut *w, log)?;
                w.write_all(b"\n")?;
            }
            Ok(())
        })
    }
}

fn epoch_name(epoch: usize) -> String {
    format!("epoch_{epoch}")
}

/// Remove the files of a directory whose names satisfy `which`.
fn remove(directory: &Path, which: impl Fn(&str) -> bool) -> Result<()> {
    for entry in std::fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let path = entry.map_err(Error::io("list", directory))?.path();
        if which(&path.file_name().unwrap_or_default().to_string_lossy()) {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}
