//! What the monitor knows, in a directory, a file a model, over restarts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use heat_ood::io::{
    Tensor, TensorFile, check_writable, hold, read_bounded, refuse_link, save_tensors,
};
use heat_ood::{Error, Result};
use serde_json::json;

use crate::log::Log;

/// Largest file that is read: ours have a twentieth of it.
const MOST: u64 = 2 << 20;

/// A model's part.
pub struct Kept {
    /// Tensors.
    pub tensors: Vec<(String, Tensor)>,
    /// Texts of the header.
    pub texts: Vec<(&'static str, String)>,
}

struct Job {
    all: Vec<(String, Kept)>,
    done: Vec<SyncSender<()>>,
}

/// Keeps it, on a thread of its own.
pub struct Keeper {
    directory: PathBuf,
    jobs: SyncSender<Job>,
    failed: Arc<AtomicU64>,
    /// Nobody else keeps anything there meanwhile.
    _lock: std::fs::File,
}

impl Keeper {
    /// In that directory, which is made where there is none.
    ///
    /// # Errors
    /// If it cannot be written, or another server keeps its state there.
    pub fn open(directory: &Path, log: Log) -> Result<Self> {
        match std::fs::create_dir(directory) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", directory)(e));
            }
            _ => check_writable(directory)?,
        }
        let lock = hold(&directory.join(".lock"), directory, "keeps the state of its monitor")?;
        // One is written, one waits.
        let (jobs, waiting) = sync_channel(1);
        let failed = Arc::new(AtomicU64::new(0));
        let (own, count) = (directory.to_owned(), Arc::clone(&failed));
        let work = move || write_all(&waiting, &own, &count, &log);
        // Without it nothing is kept, and that is counted.
        let _ = std::thread::Builder::new().name("keep".into()).spawn(work);
        Ok(Keeper { directory: directory.to_owned(), jobs, failed, _lock: lock })
    }

    fn path(directory: &Path, model: &str) -> PathBuf {
        directory.join(format!("{model}.monitor"))
    }

    /// What was kept of a model; `None` where there is nothing.
    pub fn kept(&self, model: &str) -> Option<Result<TensorFile>> {
        let path = Self::path(&self.directory, model);
        std::fs::symlink_metadata(&path).ok()?;
        let read = || {
            let file = TensorFile::from_memory(&path, read_bounded(&path, MOST)?)?;
            match file.is_sealed() {
                true => Ok(file),
                false => Err(Error::format(&path, "is damaged: it has no digest")),
            }
        };
        Some(read())
    }

    /// Keep all these. Where those before are still being written, these are counted as not kept.
    pub fn keep(&self, all: Vec<(String, Kept)>) {
        if self.jobs.try_send(Job { all, done: Vec::new() }).is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keep all these after those before, and answer then.
    pub fn keep_all(&self, all: Vec<(String, Kept)>, done: Vec<SyncSender<()>>) {
        if self.jobs.send(Job { all, done }).is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often something could not be kept.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

fn write_all(jobs: &Receiver<Job>, directory: &Path, failed: &AtomicU64, log: &Log) {
    // Said once until it works again.
    let mut failing = false;
    for Job { all, done } in jobs {
        let mut problem = None;
        for (model, kept) in all {
            let path = Keeper::path(directory, &model);
            let written =
                refuse_link(&path).and_then(|()| save_tensors(&path, &kept.tensors, &kept.texts));
            if let Err(error) = written {
                failed.fetch_add(1, Ordering::Relaxed);
                problem = Some(error);
            }
        }
        match &problem {
            Some(error) if !failing => {
                let fields = json!({"problem": error.to_string()});
                log.say(
                    "error",
                    "what the monitor knows could not be kept; it is tried again",
                    fields,
                );
            }
            None if failing => log.info("what the monitor knows is kept again"),
            _ => {}
        }
        failing = problem.is_some();
        for done in done {
            let _ = done.try_send(());
        }
    }
}
