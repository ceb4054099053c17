//! Writing a file without ever leaving half of it behind.
//!
//! All writers go through one place, a temporary file and a rename, and differ in who chose the name
//! and in what is written:
//!
//! | | name | a link under it | bytes |
//! |---|---|---|---|
//! | [`write_atomically`] | the user's | stays one, what it leads to is replaced; names of standard output are written to | as given |
//! | [`write_own`] | ours, in a directory where others may write | is refused: another's link would choose what is replaced | as given |
//! | `write_sealed` | the user's | as `write_atomically` | with the digest of all in the header |

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
    let Some(found) = found(path)? else {
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

/// What has that name, if anything.
///
/// # Errors
/// If nothing can have it: it is too long, or below a file. That is better known before the work
/// than after it.
pub fn found(path: &Path) -> Result<Option<std::fs::Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("write", path)(error)),
    }
}

/// Refuse a directory that files cannot be made in: better known before the work than after it.
///
/// # Errors
/// If the system says so (permissions, a file system that is read-only).
pub fn check_writable(directory: &Path) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::Access;
        let needed = Access::WRITE_OK | Access::EXEC_OK;
        let refused = |error: rustix::io::Errno| Error::io("write into", directory)(error.into());
        rustix::fs::access(directory, needed).map_err(refused)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        Ok(())
    }
}

/// Bytes that may still be written below `directory`, where the system says.
pub fn free_space(directory: &Path) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let found = rustix::fs::statvfs(directory).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        None
    }
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

/// As [`write_atomically`], of a file whose name is fixed by this program, beside what the user
/// named: a link is refused, where that follows it.
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
        let bytes = sealed(write).map_err(Error::io("write", path))?;
        return write_atomically(path, |out| out.write_all(&bytes));
    }
    replace(path, &real, |file| {
        let mut whole = Sealing::new(std::io::BufWriter::with_capacity(1 << 20, file));
        write(&mut whole)?;
        whole.finish().map(drop)
    })
}

/// The bytes of such a file.
pub(crate) fn sealed(
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<Vec<u8>> {
    let mut whole = Sealing::new(std::io::Cursor::new(Vec::new()));
    write(&mut whole)?;
    Ok(whole.finish()?.into_inner())
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

/// Give the directory `new` the name `out`; one that has it is removed.
///
/// # Errors
/// If it cannot be renamed; one that had the name then still has it, but for a system
/// without a way to exchange two directories that is stopped in between.
pub fn replace_directory(new: &Path, out: &Path) -> Result<()> {
    let failed = || Error::io("rename to", out);
    // An empty directory is replaced by this where the system knows how.
    if std::fs::rename(new, out).is_ok() {
        return Ok(());
    }
    if !out.exists() {
        return std::fs::rename(new, out).map_err(failed());
    }
    if exchange(new, out) {
        return std::fs::remove_dir_all(new).map_err(Error::io("remove", new));
    }
    // Without an exchange there is a moment in which neither has the name.
    let name = new.file_name().unwrap_or_default().to_string_lossy();
    let old = parent(out).join(format!("{}.old.tmp", name.trim_end_matches(".tmp")));
    let _ = std::fs::remove_dir_all(&old);
    std::fs::rename(out, &old).map_err(failed())?;
    if let Err(error) = std::fs::rename(new, out) {
        let _ = std::fs::rename(&old, out);
        return Err(failed()(error));
    }
    std::fs::remove_dir_all(&old).map_err(Error::io("remove", &old))
}

/// Exchange two directories at one stroke, where the system can.
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> bool {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> bool {
    false
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
pub fn parent(path: &Path) -> &Path {
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

    #[cfg(target_os = "linux")]
    #[test]
    fn there_is_room_here_and_none_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        assert!(free_space(directory.path()).is_some_and(|n| n > 0));
        assert_eq!(free_space(Path::new("/proc")), Some(0));
        assert_eq!(free_space(&directory.path().join("absent")), None);
    }

    #[test]
    fn names_are_as_long_as_the_system_takes() {
        let directory = tempfile::tempdir().unwrap();
        let path = |n: usize| directory.path().join("x".repeat(n));
        write_atomically(&path(255), |w| w.write_all(b"whole")).unwrap();
        assert_eq!(std::fs::read(path(255)).unwrap(), b"whole");
        let long = destination(&path(256)).unwrap_err().to_string();
        assert!(long.contains("xxx") && long.contains("long"), "{long}");
        assert!(destination(&path(255).join("below a file")).is_err());
        assert!(destination(&path(3)).is_ok());
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
