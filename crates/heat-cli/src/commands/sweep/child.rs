//! One run of a sweep: `heat train` as a process of its own, so that no crash
//! ends the others, and each directory is what that command writes.
//!
//! The child's standard input is its tie to the sweep: a byte asks for a stop
//! with a checkpoint, its end (the sweep was killed) ends the child at once.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use heat_ood::recipe::GridRun;

use crate::invocation;

/// How to start a run.
pub struct Launcher {
    /// The words that start this command.
    program: Vec<OsString>,
    /// Arguments that all runs share.
    shared: Vec<OsString>,
    parents: Mutex<Parents>,
}

/// The parents' ends of running children's standard input.
#[derive(Default)]
struct Parents {
    stop: bool,
    inputs: Vec<(usize, ChildStdin)>,
}

impl Launcher {
    pub fn new(shared: Vec<OsString>) -> Result<Self> {
        let program = invocation::program().context("find this program's file")?;
        Ok(Launcher { program, shared, parents: Mutex::default() })
    }

    /// Train one run to its end; each line it says goes to `say`. The error is
    /// the run's own.
    pub fn train(
        &self,
        index: usize,
        run: &GridRun,
        directory: &Path,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), String> {
        let started = self.start(index, run, directory);
        let mut child = started.map_err(|e| format!("start {}: {e}", self.program[0].display()))?;
        let error = child.stderr.take().map(|stderr| listen(BufReader::new(stderr), say));
        let status = child.wait();
        self.parents().inputs.retain(|(i, _)| *i != index);
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                Err(error.filter(|e| !e.is_empty()).unwrap_or_else(|| format!("ended by {status}")))
            }
            Err(e) => Err(e.to_string()),
        }
    }

    fn start(&self, index: usize, run: &GridRun, directory: &Path) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program[0]);
        command
            .args(&self.program[1..])
            .arg("train")
            .args(&self.shared)
            .arg("--out")
            .arg(directory);
        if directory.join("recipe.toml").is_file() {
            command.arg("--resume");
        }
        command.args(["--supervised", "--"]).args(&run.arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Held over the start, so that a stop reaches every child.
        let mut parents = self.parents();
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            if parents.stop {
                let _ = input.write_all(b".");
            }
            parents.inputs.push((index, input));
        }
        Ok(child)
    }

    /// Ask all children to stop after their step, with a checkpoint.
    pub fn stop(&self) {
        let mut parents = self.parents();
        if !std::mem::replace(&mut parents.stop, true) {
            for (_, input) in &mut parents.inputs {
                // A child that has gone needs no word.
                let _ = input.write_all(b".");
            }
        }
    }

    fn parents(&self) -> MutexGuard<'_, Parents> {
        self.parents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hand on what a child says; its error, if there is one, is returned.
fn listen(mut stderr: impl BufRead, say: &mut dyn FnMut(&str)) -> String {
    let mut error = String::new();
    let mut line = Vec::new();
    while stderr.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        match text.strip_prefix("error: ") {
            Some(text) => error = text.to_owned(),
            None if !error.is_empty() => error = format!("{error}\n{text}"),
            None => say(text),
        }
        line.clear();
    }
    error
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_are_handed_on_and_errors_kept() {
        let mut lines = Vec::new();
        let text = b"epoch 1\nwarning: \xff\nerror: a\nb\n";
        let error = super::listen(&text[..], &mut |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["epoch 1", "warning: \u{fffd}"]);
        assert_eq!(error, "a\nb");
    }
}
