//! Bytes of a file, mapped or in memory, and their hashes.
//!
//! A file is mapped, so that no more of it is in memory than is used. Where another program cuts
//! it short meanwhile, the system ends this one; who cannot rule that out (a network's
//! file system, files that others write) has files read into memory instead
//! ([`set_mapping`]).

use std::cell::Cell;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use super::mapped::{Registered, register};
use super::memory::{memory_limit, readable};
use super::regular::open_regular;
use crate::error::{Error, Result};

/// The bytes of one file, mapped or in memory.
pub struct Bytes(Source);

enum Source {
    // The name goes before the mapping does.
    Mapped(#[expect(dead_code, reason = "held for its drop")] Registered, Mmap),
    Owned(Vec<u8>),
    /// Read from a file; counted in [`READ`].
    Read(Vec<u8>),
    Shared(Arc<dyn AsRef<[f32]> + Send + Sync>),
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Source::Read(bytes) = self {
            READ.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
    }
}

/// Whether files are read into memory, in the whole process.
static READING: AtomicBool = AtomicBool::new(false);

/// Bytes of files that are held in memory.
static READ: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread reads files into memory, whatever the process does.
    static READING_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Map files from now on (as is the default), or else read them into memory, within
/// [`memory_limit`]: for files that may be cut short while they are read.
pub fn set_mapping(on: bool) {
    READING.store(!on, Ordering::Relaxed);
}

/// Whether files are mapped, not read, on this thread.
pub fn mapping() -> bool {
    !READING.load(Ordering::Relaxed) && !READING_HERE.get()
}

/// Call `open`, on this thread, with files read into memory if `yes`.
pub(crate) fn reading<T>(yes: bool, open: impl FnOnce() -> T) -> T {
    let before = READING_HERE.get();
    READING_HERE.set(before || yes);
    let result = open();
    READING_HERE.set(before);
    result
}

/// What tells a file's content from another's without reading it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stamp {
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
    /// Device and number of the file, where the system has them.
    file: Option<(u64, u64)>,
}

/// What files are now that are about to be read; nothing where they are read into memory, since
/// what becomes of them then does not matter.
///
/// # Errors
/// If one is not there.
pub(crate) fn stamps(files: &[PathBuf]) -> Result<Arc<[Stamp]>> {
    let files = if mapping() { files } else { &[] };
    files.iter().map(|file| Stamp::of(file)).collect()
}

impl Stamp {
    /// Of the file that now has this name.
    pub fn of(path: &Path) -> Result<Self> {
        let found = std::fs::metadata(path).map_err(Error::io("open", path))?;
        Ok(Self::from(path, &found))
    }

    fn from(path: &Path, found: &Metadata) -> Self {
        #[cfg(unix)]
        let file = {
            use std::os::unix::fs::MetadataExt;
            Some((found.dev(), found.ino()))
        };
        #[cfg(not(unix))]
        let file = None;
        let modified = found.modified().ok();
        Stamp { path: path.to_owned(), length: found.len(), modified, file }
    }

    /// Refuse a file that was written into. Another file in its place, or none, is no change
    /// of what is mapped.
    ///
    /// # Errors
    /// If it was.
    pub fn check(&self) -> Result<()> {
        let Ok(now) = Self::of(&self.path) else { return Ok(()) };
        if now == *self || (now.file != self.file && self.file.is_some()) {
            return Ok(());
        }
        let problem = format!(
            "was changed while it was read ({} bytes, then {}): what was made of it may mix both \
             states. To put other data in its place, write another file and rename it",
            self.length, now.length
        );
        Err(Error::format(&self.path, problem))
    }
}

impl From<Arc<dyn AsRef<[f32]> + Send + Sync>> for Bytes {
    fn from(owner: Arc<dyn AsRef<[f32]> + Send + Sync>) -> Self {
        Bytes(Source::Shared(owner))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes(Source::Owned(bytes))
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Mapped(_, m) => m,
            Source::Owned(v) | Source::Read(v) => v,
            // Little-endian in memory, like files (checked in `lib.rs`).
            Source::Shared(owner) => bytemuck::cast_slice((**owner).as_ref()),
        }
    }
}

/// Map a whole file, or read it where that was asked for ([`set_mapping`]).
///
/// # Errors
/// If it cannot be opened or mapped, is no regular file, or is empty; or it is to be read, and
/// is larger than the memory limit leaves room for.
pub fn map(path: &Path) -> Result<Arc<Bytes>> {
    let file = open_regular(path)?;
    if file.metadata().map_err(Error::io("open", path))?.len() == 0 {
        return Err(Error::format(path, "the file is empty"));
    }
    map_file(path, &file)
}

/// The same of an open file; `path` is used in messages.
///
/// # Errors
/// As [`map`].
pub fn map_file(path: &Path, file: &File) -> Result<Arc<Bytes>> {
    if !mapping() {
        return read_file(path, file);
    }
    // SAFETY: the mapping is read-only and bounds are checked against its
    // length. As with every memory-mapped reader, another program that
    // truncates the file meanwhile makes the operating system end this one.
    let map = unsafe { Mmap::map(file) }.map_err(Error::io("map", path))?;
    let start = map.as_ptr().addr();
    let name = register(start..start + map.len(), path);
    Ok(Arc::new(Bytes(Source::Mapped(name, map))))
}

/// Files in memory by their stamps, so that one that is opened again is not read again.
static KNOWN: Mutex<Vec<(Stamp, Weak<Bytes>)>> = Mutex::new(Vec::new());

fn read_file(path: &Path, file: &File) -> Result<Arc<Bytes>> {
    let found = file.metadata().map_err(Error::io("open", path))?;
    let stamp = Stamp::from(path, &found);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|(_, bytes)| bytes.strong_count() > 0);
    let same = known.iter().find(|(other, _)| *other == stamp);
    if let Some(bytes) = same.and_then(|(_, bytes)| bytes.upgrade()) {
        return Ok(bytes);
    }
    let length = usize::try_from(found.len()).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    let room = memory_limit().saturating_sub(READ.load(Ordering::Relaxed));
    if length > room || bytes.try_reserve_exact(length).is_err() {
        let problem = format!(
            "to read it into memory takes {}, and the memory limit leaves {}: raise the limit, or \
             let it be mapped",
            readable(length),
            readable(room)
        );
        return Err(Error::format(path, problem));
    }
    file.take(length as u64).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() < length {
        let problem = "became shorter while it was read: read it again when it is whole";
        return Err(Error::format(path, problem));
    }
    READ.fetch_add(bytes.len(), Ordering::Relaxed);
    let bytes = Arc::new(Bytes(Source::Read(bytes)));
    known.push((stamp, Arc::downgrade(&bytes)));
    Ok(bytes)
}

/// SHA-256 of a file's bytes, in hexadecimal.
///
/// # Errors
/// If it cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = open_regular(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
    }
    Ok(hexadecimal(hash))
}

/// SHA-256 of some pieces, in hexadecimal.
pub fn sha256_of<P: AsRef<[u8]>>(pieces: impl IntoIterator<Item = P>) -> String {
    let mut hash = Sha256::new();
    pieces.into_iter().for_each(|p| hash.update(p));
    hexadecimal(hash)
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_mapped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::write(&path, [7; 5000]).unwrap();
        let mapped = map(&path).unwrap();
        let read = reading(true, || map(&path)).unwrap();
        assert!(matches!(mapped.0, Source::Mapped(..)) && matches!(read.0, Source::Read(_)));
        assert_eq!(mapped[..], read[..]);
        // Opened again, it is not read again; changed, it is.
        let again = reading(true, || map(&path)).unwrap();
        assert!(Arc::ptr_eq(&read, &again));
        std::fs::write(&path, [8; 10]).unwrap();
        assert_eq!(reading(true, || map(&path)).unwrap()[..], [8; 10]);
        assert_eq!(read[..], [7; 5000]);
        assert!(matches!(map(&path).unwrap().0, Source::Mapped(..)));
    }

    #[test]
    fn a_file_that_was_written_into_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("x"), directory.path().join("y"));
        std::fs::write(&path, "one").unwrap();
        std::fs::write(&other, "other").unwrap();
        let stamp = Stamp::of(&path).unwrap();
        stamp.check().unwrap();
        std::fs::write(&path, "three").unwrap();
        let error = stamp.check().unwrap_err().to_string();
        assert!(error.contains("was changed while it was read (3 bytes, then 5)"), "{error}");
        // Another file in its place is none in which it is read.
        let stamp = Stamp::of(&path).unwrap();
        std::fs::rename(&other, &path).unwrap();
        stamp.check().unwrap();
        std::fs::remove_file(&path).unwrap();
        stamp.check().unwrap();
    }
}
