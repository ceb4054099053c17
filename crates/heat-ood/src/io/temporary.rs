//! Temporary files, and what killed writers left of them.
//!
//! A writer holds a lock on its file, which ends with its process. So a
//! temporary file that can be locked was abandoned, and the next writer in the
//! directory removes it. Where the file system has no locks, nothing is removed.

use std::fs::File;
use std::io::Result;
use std::path::Path;

use tempfile::NamedTempFile;

const PREFIX: &str = ".heat-";
const SUFFIX: &str = ".tmp";

/// A new, locked temporary file in `folder`.
pub(super) fn create(directory: &Path) -> Result<NamedTempFile> {
    remove_abandoned(directory);
    loop {
        let mut builder = tempfile::Builder::new();
        let file = new_file_permissions(builder.prefix(PREFIX).suffix(SUFFIX));
        let file = file.tempfile_in(directory)?;
        let _ = file.as_file().lock();
        // Another process may have taken it for abandoned before it was locked.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// Whether a path has the name of a temporary file or directory of this library.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

fn remove_abandoned(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if is_unfinished(&entry.path())
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            // It may have been finished and renamed meanwhile.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Files for everyone that the process's umask allows, not only the owner.
fn new_file_permissions<'a, 'b, 'c>(
    builder: &'a mut tempfile::Builder<'b, 'c>,
) -> &'a mut tempfile::Builder<'b, 'c> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::super::write_atomically;
    use super::*;

    #[test]
    fn abandoned_files_go_and_held_ones_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in [".heat-dead.tmp", ".heat-other", "heat-mine.tmp"] {
            std::fs::write(path(name), "half").unwrap();
        }
        let held = create(directory.path()).unwrap();
        write_atomically(&path("a"), |w| w.write_all(b"whole")).unwrap();
        let name = held.path().file_name().unwrap().to_str().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let mut expected = [name, ".heat-other", "a", "heat-mine.tmp"];
        expected.sort();
        assert_eq!(names, expected);
        assert_eq!(std::fs::read(path("a")).unwrap(), b"whole");
    }
}
