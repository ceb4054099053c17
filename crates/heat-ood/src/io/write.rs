//! Writing a file without ever leaving half of it behind.

use std::io::{Error as IoError, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::digest::Sealing;
use super::temporary;
use crate::error::{Error, Result};

/// Names of standard output. What is behind it is written to, never replaced.
const STANDARD_OUTPUT: [&str; 3] = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

/// Whether that name stands for standard output.
pub fn is_standard_output(path: &Path) -> bool {
    STANDARD_OUTPUT.iter().any(|name| path == Path::new(name))
}

/// Where a file of that name is written: what a link leads to.
///
/// # Errors
/// If there is something that is no regular file; it would be replaced.
pub fn destination(path: &Path) -> Result<PathBuf> {
    let failed = || Error::io("write", path);
    if is_standard_output(path) {
        return Ok(path.to_owned());
    }
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
    Err(failed()(IoError::new(ErrorKind::InvalidInput, problem)))
}

/// Write a whole file or nothing: temporary file in the same directory, flushed
/// to the disk, then renamed. A link stays one, and what it leads to is replaced.
/// The new file has the old one's permissions, less what the umask takes; standard
/// output, by any of its names, is written to as it comes.
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
    if is_standard_output(&real) {
        let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        return write(&mut out).and_then(|()| out.flush()).map_err(Error::io("write", path));
    }
    replace(path, &real, |file| {
        let mut buffered = std::io::BufWriter::with_capacity(1 << 20, file);
        write(&mut buffered)?;
        buffered.flush()
    })
}

/// Refuse a link under a name of ours, in a directory where others may have put it: what it leads
/// to would be replaced.
///
/// # Errors
/// If there is one.
pub fn refuse_link(path: &Path) -> Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        let problem = "is a link, which is not followed; remove it";
        return Err(Error::io("write", path)(IoError::new(ErrorKind::InvalidInput, problem)));
    }
    Ok(())
}

/// As [`write_atomically`], of a file whose name the user did not choose: a link is refused.
///
/// # Errors
/// As [`write_atomically`], or if a link has that name.
pub fn write_own(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    refuse_link(path)?;
    write_atomically(path, write)
}

/// As [`write_atomically`], with the digest of all that was written in its place in the header, where the first
/// thing written is a header that leaves one (see [`super::digest`]).
///
/// # Errors
/// As [`write_atomically`].
pub(crate) fn write_sealed(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let real = destination(path)?;
    if is_standard_output(&real) {
        // There is no way back to the header.
        let mut whole = Sealing::new(std::io::Cursor::new(Vec::new()));
        let sealed = write(&mut whole).and_then(|()| whole.finish());
        let bytes = sealed.map_err(Error::io("write", path))?.into_inner();
        return write_atomically(path, |out| out.write_all(&bytes));
    }
    replace(path, &real, |file| {
        let mut whole = Sealing::new(std::io::BufWriter::with_capacity(1 << 20, file));
        write(&mut whole)?;
        whole.finish().map(drop)
    })
}

/// Write a temporary file beside `real` and give it that name; messages say `path`.
fn replace(
    path: &Path,
    real: &Path,
    write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
) -> Result<()> {
    let failed = || Error::io("write", path);
    let directory = parent(real);
    let mut file = temporary::create(directory, permissions(real)).map_err(failed())?;
    write(file.as_file_mut()).map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    file.persist(real).map_err(|e| failed()(e.error))?;
    // The rename itself lives in the directory.
    if let Ok(directory) = std::fs::File::open(directory) {
        let _ = directory.sync_all();
    }
    Ok(())
}

/// Those of the file that is replaced; of a new one, everything that the umask allows.
fn permissions(replaced: &Path) -> u32 {
    #[cfg(unix)]
    if let Ok(found) = std::fs::metadata(replaced) {
        use std::os::unix::fs::PermissionsExt;
        // Not the bits that would run it as another user.
        return found.permissions().mode() & 0o777;
    }
    let _ = replaced;
    0o666
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

    #[cfg(unix)]
    #[test]
    fn permissions_are_kept_and_links_stay_links() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mode = |name: &str| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        let whole = |w: &mut dyn Write| w.write_all(b"new");
        write_atomically(&path("new"), whole).unwrap();
        let usual = mode("new");
        for (name, given) in [("private", 0o600), ("shared", 0o640), ("fixed", 0o444)] {
            std::fs::write(path(name), "old").unwrap();
            std::fs::set_permissions(path(name), PermissionsExt::from_mode(given)).unwrap();
            write_atomically(&path(name), whole).unwrap();
            assert_eq!(mode(name) & !given, 0, "{name}: {:o}", mode(name));
            assert_eq!(mode(name), given & (usual | 0o700), "{name}: {:o}", mode(name));
            assert_eq!(std::fs::read(path(name)).unwrap(), b"new");
        }
        std::os::unix::fs::symlink(path("private"), path("link")).unwrap();
        write_atomically(&path("link"), |w| w.write_all(b"through")).unwrap();
        assert!(std::fs::symlink_metadata(path("link")).unwrap().is_symlink());
        assert_eq!(
            (mode("private"), std::fs::read(path("private")).unwrap()),
            (0o600, b"through".to_vec())
        );
    }
}
