//! Bytes of a file, mapped or in memory, and their hashes.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use super::regular::open_regular;
use crate::error::{Error, Result};

/// The bytes of one file, mapped or in memory.
pub struct Bytes(Source);

enum Source {
    Mapped(Mmap),
    Owned(Vec<u8>),
    Shared(Arc<dyn AsRef<[f32]> + Send + Sync>),
    SharedBytes(Arc<dyn AsRef<[u8]> + Send + Sync>),
}

impl From<Arc<dyn AsRef<[u8]> + Send + Sync>> for Bytes {
    fn from(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        Bytes(Source::SharedBytes(owner))
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
            Source::Mapped(m) => m,
            Source::Owned(v) => v,
            // Little-endian in memory, like files (checked in `lib.rs`).
            Source::Shared(owner) => bytemuck::cast_slice((**owner).as_ref()),
            Source::SharedBytes(owner) => (**owner).as_ref(),
        }
    }
}

/// Map a whole file.
///
/// # Errors
/// If it cannot be opened or mapped, is no regular file, or is empty.
pub fn map(path: &Path) -> Result<Arc<Bytes>> {
    let file = open_regular(path)?;
    if file.metadata().map_err(Error::io("open", path))?.len() == 0 {
        return Err(Error::format(path, "the file is empty"));
    }
    map_file(path, &file)
}

/// Map an open file; `path` is used in messages.
///
/// # Errors
/// If the system refuses.
pub fn map_file(path: &Path, file: &File) -> Result<Arc<Bytes>> {
    // SAFETY: the mapping is read-only and bounds are checked against its
    // length. As with every memory-mapped reader, another program that
    // truncates the file meanwhile makes the operating system end this one.
    let map = unsafe { Mmap::map(file) }.map_err(Error::io("map", path))?;
    Ok(Arc::new(Bytes(Source::Mapped(map))))
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
