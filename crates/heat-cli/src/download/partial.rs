//! A download that is not finished: `.heat-NAME.part`, and where its bytes
//! came from in `.heat-NAME.part.toml`, so that a later process can go on.
//!
//! The writer holds a lock on the partial file, which ends with its process.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use heat_ood::io::{hidden_name, open_own, read_text, write_own};
use heat_ood::{Error, Result};
use serde::{Deserialize, Serialize};

use super::checksum::Digests;

/// What a server said of the file that the bytes are part of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    pub url: String,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// Bytes of the whole file.
    pub total: Option<u64>,
}

impl Origin {
    /// What `If-Range` may be given: weak tags do not promise equal bytes.
    pub fn validator(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|tag| !tag.starts_with("W/"));
        strong.or(self.last_modified.as_deref())
    }

    /// Whether `later` is surely another version than this.
    pub fn differs(&self, later: &Origin) -> bool {
        fn other<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            a.is_some() && b.is_some() && a != b
        }
        let same_place = self.url == later.url;
        other(&self.total, &later.total) || (same_place && other(&self.etag, &later.etag))
    }
}

/// The partial file, locked.
pub struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
    pub origin: Origin,
    /// Whether its bytes came from more than one answer of a server.
    pub pieced: bool,
}

/// Path of the partial file of `target`.
pub fn path_of(target: &Path) -> PathBuf {
    target.with_file_name(hidden_name(target, ".part"))
}

fn origin_path(part: &Path) -> PathBuf {
    part.with_extension("part.toml")
}

impl Partial {
    /// Open or create it. None when another process has just put the whole
    /// file in its place.
    pub fn open(target: &Path) -> Result<Option<Self>> {
        let path = path_of(target);
        loop {
            let file = open_own(&path)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    let problem =
                        "another process is downloading this file; wait for it, or end it";
                    return Err(Error::format(path, problem));
                }
                // A file system without locks must do without.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            // Another process may have finished and renamed, or removed, it before the lock.
            if target.exists() {
                return Ok(None);
            }
            if path.exists() {
                let len = file.metadata().map_err(Error::io("read", &path))?.len();
                let origin = read_origin(&path);
                return Ok(Some(Partial { path, file, len, origin, pieced: len > 0 }));
            }
        }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Drop what is there; what follows comes from `origin`.
    pub fn restart(&mut self, origin: Origin) -> Result<()> {
        self.file.set_len(0).map_err(Error::io("write", &self.path))?;
        self.len = 0;
        self.pieced = false;
        self.continue_from(origin)
    }

    /// What follows comes from `origin`. Known before any byte is written, so
    /// that bytes never lie beside the wrong origin.
    pub fn continue_from(&mut self, origin: Origin) -> Result<()> {
        if self.origin != origin {
            let path = origin_path(&self.path);
            let text = toml::to_string(&origin)
                .map_err(|e| Error::format(&path, format!("cannot be written: {e}")))?;
            write_own(&path, |w| w.write_all(text.as_bytes()))?;
            self.origin = origin;
        }
        Ok(())
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut write = || {
            self.file.seek(SeekFrom::Start(self.len))?;
            self.file.write_all(bytes)
        };
        let written = write();
        if written.is_err()
            && let Ok(found) = self.file.metadata()
        {
            // What went in before the disk was full is kept, if that was a part of these bytes.
            self.len = found.len().clamp(self.len, self.len + bytes.len() as u64);
        }
        written.map_err(|source| {
            let remedy = match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    "; make room, then run the same command again to resume"
                }
                _ => "",
            };
            let source = std::io::Error::new(source.kind(), format!("{source}{remedy}"));
            Error::Io { action: "write", path: self.path.clone(), source }
        })?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub fn digests(&mut self, progress: &mut dyn FnMut(u64)) -> Result<Digests> {
        Digests::of(&mut self.file, &self.path, progress)
    }

    /// Give the file its final name.
    pub fn finish(self, target: &Path) -> Result<()> {
        self.file.sync_all().map_err(Error::io("write", &self.path))?;
        std::fs::rename(&self.path, target).map_err(Error::io("write", target))?;
        // The rename itself lives in the directory.
        if let Some(Ok(directory)) = target.parent().map(File::open) {
            let _ = directory.sync_all();
        }
        let _ = std::fs::remove_file(origin_path(&self.path));
        Ok(())
    }

    /// Leave it for another time, or remove it if there is nothing in it.
    pub fn leave(self) -> u64 {
        if self.len == 0 {
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_file(origin_path(&self.path));
        }
        self.len
    }
}

/// An origin that cannot be read is none: the download starts over.
fn read_origin(part: &Path) -> Origin {
    let text = read_text(&origin_path(part)).unwrap_or_default();
    toml::from_str(&text).unwrap_or_default()
}
