//! Writing a file without ever leaving half of it behind.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::temporary;
use crate::error::{Error, Result};

/// Where a file of that name is written: what a link leads to.
///
/// # Errors
/// If there is something that is no regular file; it would be replaced.
pub fn destination(path: &Path) -> Result<PathBuf> {
    let failed = || Error::io("write", path);
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(path.to_owned());
    };
    let (real, found) = if found.is_symlink() {
        let real = path.canonicalize().map_err(failed())?;
        let found = std::fs::metadata(&real).map_err(failed())?;
        (real, found)
    } else {
        (path.to_owned(), found)
    };
    let problem = match (found.is_file(), found.is_dir()) {
        (true, _) => return Ok(real),
        (_, true) => "is a directory; name a file in it",
        _ => "is a device or a pipe, not a regular file; name a file",
    };
    Err(failed()(std::io::Error::new(std::io::ErrorKind::InvalidInput, problem)))
}

/// Write a whole file or nothing: temporary file in the same directory, flushed
/// to the disk, then renamed. A link stays one, and what it leads to is replaced.
///
/// # Errors
/// If the name is that of a device or a directory, the directory cannot be written or
/// the disk is full; the old file, if any, is then untouched and the temporary
/// one removed. A temporary file that a killed process left is removed by the
/// next write in its directory.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let real = destination(path)?;
    let directory = parent(&real);
    let failed = || Error::io("write", path);
    let mut file = temporary::create(directory).map_err(failed())?;
    {
        let mut buffered = std::io::BufWriter::with_capacity(1 << 20, file.as_file_mut());
        write(&mut buffered).map_err(failed())?;
        buffered.flush().map_err(failed())?;
    }
    file.as_file().sync_all().map_err(failed())?;
    file.persist(&real).map_err(|e| failed()(e.error))?;
    // The rename itself lives in the directory.
    if let Ok(directory) = std::fs::File::open(directory) {
        let _ = directory.sync_all();
    }
    Ok(())
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::write(&path, "old").unwrap();
        let full = |w: &mut dyn Write| {
            w.write_all(&[1; 100])?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        };
        let error = write_atomically(&path, full).unwrap_err().to_string();
        assert!(error.contains("write") && error.contains("x"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
