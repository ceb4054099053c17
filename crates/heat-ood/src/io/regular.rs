//! Opening files that must be regular ones. Under a name that others can guess
//! or write there may be a link to another's file, or a pipe that would be waited on
//! for ever.

use std::fs::{File, FileType, OpenOptions};
use std::io::{Error as IoError, ErrorKind};
use std::path::Path;

use super::kind::kind_of;
use crate::error::{Error, Result};

/// Open a regular file for reading. Links are followed: the user named it.
///
/// # Errors
/// If it cannot be opened, or is a directory, pipe, device or socket; that is said
/// at once.
pub fn open_regular(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    open(path, &mut options, Follow::Links).map_err(Error::io("open", path))
}

/// Open or create a file of our own, for reading and writing, as it is: one that holds
/// a lock, or is filled in parts. Its name can be guessed, so a link under it is not
/// followed.
///
/// # Errors
/// If it cannot be opened, or something other than a regular file has its name.
pub fn open_own(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    open(path, &mut options, Follow::Nothing).map_err(Error::io("create", path))
}

/// The bytes of a small regular file, at most `most` of them.
///
/// # Errors
/// As [`open_regular`], or if it is longer.
pub fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = open_regular(path)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > most {
        return Err(Error::format(path, format!("longer than {most} bytes, the most expected")));
    }
    Ok(bytes)
}

/// The text of a small regular file: settings, recipes, logs, lists.
///
/// # Errors
/// As [`open_regular`], or if it is longer than 64 MiB, or no UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    const MOST: u64 = 64 << 20;
    String::from_utf8(read_bounded(path, MOST)?).map_err(|e| {
        let problem = match kind_of(e.as_bytes()) {
            Some(kind) => format!("is {kind}, and a text is expected here"),
            None => "is not UTF-8 text".to_owned(),
        };
        Error::format(path, problem)
    })
}

/// Whether links are followed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Follow {
    Links,
    Nothing,
}

pub(super) fn open(
    path: &Path,
    options: &mut OpenOptions,
    follow: Follow,
) -> std::io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe is opened without waiting for its other end, and then seen to be one.
        let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        if follow == Follow::Nothing {
            flags |= OFlags::NOFOLLOW;
        }
        options.custom_flags(flags.bits() as i32);
    }
    #[cfg(not(target_os = "linux"))]
    if let Ok(found) = std::fs::metadata(path) {
        refuse(found.file_type())?;
    }
    if follow == Follow::Nothing
        && std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
    {
        return Err(IoError::new(
            ErrorKind::InvalidInput,
            "is a link, which is not followed; remove it",
        ));
    }
    let file = options.open(path).map_err(|error| match std::fs::metadata(path) {
        // A socket or a directory, say, which has its own error.
        Ok(found) => refuse(found.file_type()).err().unwrap_or(error),
        Err(_) => error,
    })?;
    refuse(file.metadata()?.file_type())?;
    Ok(file)
}

/// Refuse what is not a regular file.
pub(super) fn refuse(kind: FileType) -> std::io::Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    let problem = match () {
        _ if kind.is_dir() => "is a directory; name a file in it",
        _ => "is a device, a pipe or a socket, not a regular file; name a file",
    };
    Err(IoError::new(ErrorKind::InvalidInput, problem))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "x").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("absent"), path("dangling")).unwrap();
        std::os::unix::fs::symlink(path("pipe"), path("to_pipe")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(open_regular(&path("file")).is_ok() && open_regular(&path("link")).is_ok());
        for name in ["pipe", "to_pipe", "socket", ".", "/dev/null"] {
            let error = open_regular(&path(name)).unwrap_err().to_string();
            assert!(error.contains("name a file"), "{error}");
        }
        for name in ["link", "dangling", "pipe", "to_pipe", "socket"] {
            let error = open_own(&path(name)).unwrap_err().to_string();
            assert!(error.contains("not followed") || error.contains("name a file"), "{error}");
        }
        assert!(!path("absent").exists());
        assert!(open_own(&path("file")).is_ok() && open_own(&path("new")).is_ok());
        assert_eq!(std::fs::read(path("file")).unwrap(), b"x");
        assert!(read_bounded(&path("file"), 0).is_err());
        assert_eq!(read_text(&path("file")).unwrap(), "x");
    }
}
