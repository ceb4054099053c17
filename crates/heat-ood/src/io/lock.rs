//! Lock files that name the process which holds them.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::regular::{open_own, open_regular};
use crate::error::{Error, Result};

/// Hold the lock file `path` until the handle is dropped, or the process ends. Where the file
/// system has no locks, it is had by all.
///
/// # Errors
/// If another process holds it: `place` is what that one is `doing` something with ("is
/// training in this directory").
pub fn hold(path: &Path, place: &Path, doing: &str) -> Result<File> {
    let mut lock = open_own(path)?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        return Err(held(path, place, doing));
    }
    // Its own name is for messages alone: without it they say "another process".
    let name = format!("{}\n", std::process::id());
    let _ =
        lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(name.as_bytes()));
    Ok(lock)
}

/// The error for a lock that another process holds.
pub fn held(path: &Path, place: &Path, doing: &str) -> Error {
    let who = match holder(path) {
        Some(process) => format!("process {process}"),
        None => "another process".to_owned(),
    };
    Error::format(place, format!("{who} {doing}; wait until it has ended, or choose another place"))
}

/// The process that says of itself that it holds a lock.
fn holder(path: &Path) -> Option<u32> {
    let mut text = String::new();
    open_regular(path).ok()?.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_names_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".lock");
        std::fs::write(&path, "what an earlier one left, longer than a number").unwrap();
        let first = hold(&path, directory.path(), "is at work here").unwrap();
        let second = hold(&path, directory.path(), "is at work here").unwrap_err().to_string();
        let own = format!("process {} is at work here; wait", std::process::id());
        assert!(second.contains(&own), "{second}");
        drop(first);
        let again = hold(&path, directory.path(), "").unwrap();
        // One that cannot be asked has no name.
        std::fs::write(&path, "").unwrap();
        let third = hold(&path, directory.path(), "works").unwrap_err().to_string();
        assert!(third.contains("another process works"), "{third}");
        drop(again);
    }
}
