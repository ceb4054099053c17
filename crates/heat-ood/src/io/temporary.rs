//! Temporary files, and what killed writers left of them.
//!
//! A writer holds a lock on its file, which ends with its process. So a
//! temporary file that can be locked was abandoned, and the next writer in the
//! directory removes it. Where the file system has no locks, nothing is removed.
//! Names are random, and nothing that has one already is opened: no link of another's
//! is ever written through.

use std::fs::OpenOptions;
use std::io::Result;
use std::path::Path;

use tempfile::NamedTempFile;

use super::bytes::sha256_of;
use super::regular::{Follow, open};

const PREFIX: &str = ".heat-";
const SUFFIX: &str = ".tmp";

/// A new, locked temporary file in `directory`, with at most these permissions.
pub(super) fn create(directory: &Path, mode: u32) -> Result<NamedTempFile> {
    remove_abandoned(directory);
    loop {
        let mut builder = tempfile::Builder::new();
        let file = with_permissions(builder.prefix(PREFIX).suffix(SUFFIX), mode);
        let file = file.tempfile_in(directory)?;
        let _ = file.as_file().lock();
        // Another process may have taken it for abandoned before it was locked.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// The hidden name `.heat-NAME` with `suffix` of at most 22 bytes, beside the file or directory
/// `path`: of a long name a hash stands for the end, so that it stays within the 255 bytes that
/// a name may have.
pub fn hidden_name(path: &Path, suffix: &str) -> String {
    const LONGEST: usize = 255 - PREFIX.len() - 22;
    let name = path.file_name().unwrap_or_default();
    let text = name.to_string_lossy();
    if text.len() <= LONGEST {
        return format!("{PREFIX}{text}{suffix}");
    }
    let hash = sha256_of([name.as_encoded_bytes()]);
    let end = text.floor_char_boundary(LONGEST - 17);
    format!("{PREFIX}{}-{}{suffix}", &text[..end], &hash[..16])
}

/// Whether a path has the name of a temporary file or directory of this library.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// Remove the temporary files in `directory` whose writers were killed. Others' links,
/// pipes and directories stay, as do files that a writer holds.
pub fn remove_abandoned(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if is_temporary(&entry.path())
            && let Ok(file) = open(&entry.path(), OpenOptions::new().read(true), Follow::Nothing)
            && file.try_lock().is_ok()
        {
            // It may have been finished and renamed meanwhile.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether a file's name is one that [`create`] gives: six letters or digits, which no
/// other name here has between the prefix and the suffix.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let random = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
    random.is_some_and(|r| r.len() == 6 && r.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Files for everyone that `mode` and the process's umask allow, not only the owner.
fn with_permissions<'a, 'b, 'c>(
    builder: &'a mut tempfile::Builder<'b, 'c>,
    mode: u32,
) -> &'a mut tempfile::Builder<'b, 'c> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
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
        for name in [".heat-dEad01.tmp", ".heat-notes.tmp", ".heat-other", "heat-mine.tmp"] {
            std::fs::write(path(name), "half").unwrap();
        }
        let held = create(directory.path(), 0o666).unwrap();
        write_atomically(&path("a"), |w| w.write_all(b"whole")).unwrap();
        let name = held.path().file_name().unwrap().to_str().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let mut expected = [name, ".heat-notes.tmp", ".heat-other", "a", "heat-mine.tmp"];
        expected.sort();
        // Of five letters: not one of ours.
        assert_eq!(names, expected);
        assert_eq!(std::fs::read(path("a")).unwrap(), b"whole");
    }

    #[test]
    fn hidden_names_are_names() {
        let of = |name: &str| hidden_name(Path::new(name), ".part.toml");
        assert_eq!(of("a/b.zip"), ".heat-b.zip.part.toml");
        let (long, other) = ("é".repeat(127), format!("{}e", "é".repeat(126)));
        for name in [&long, &other, &"x".repeat(255)] {
            let hidden = of(name);
            assert!(hidden.len() <= 255 && hidden.ends_with(".part.toml"), "{hidden}");
        }
        assert_ne!(of(&long), of(&other));
        assert_eq!(of(&"x".repeat(227)).len(), 227 + 6 + 10);
    }

    /// Under the name of a temporary file may lie a link to something of value, or a pipe.
    #[cfg(target_os = "linux")]
    #[test]
    fn links_and_pipes_are_let_alone() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("precious"), "x").unwrap();
        std::os::unix::fs::symlink(path("precious"), path(".heat-aaaaaa.tmp")).unwrap();
        mknodat(CWD, path(".heat-bbbbbb.tmp"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        std::fs::create_dir(path(".heat-cccccc.tmp")).unwrap();
        write_atomically(&path("a"), |w| w.write_all(b"whole")).unwrap();
        assert_eq!(std::fs::read(path("precious")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 5);
    }
}
