//! Checksums: what was published, or what was found at the first download.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use heat_ood::io::{read_text, write_own};
use heat_ood::{Error, Result};
use md5::Md5;
use sha2::{Digest, Sha256};

use super::sources::RemoteFile;

const HEADER: &str = "\
# SHA-256 of files as they were first downloaded, because no whole checksum of them is published.
# Later downloads must agree. If a file has changed at its source and you trust the new one, remove its line.
";

/// Digests of a file on disk.
pub struct Digests {
    pub size: u64,
    md5: String,
    pub sha256: String,
}

impl Digests {
    /// Read the whole file, telling `progress` how many bytes are done.
    pub fn of(file: &mut File, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<Self> {
        let mut read = || -> std::io::Result<Digests> {
            let (mut md5, mut sha256) = (Md5::new(), Sha256::new());
            let (mut buffer, mut size) = (vec![0; 1 << 20], 0);
            file.seek(SeekFrom::Start(0))?;
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        md5.update(&buffer[..n]);
                        sha256.update(&buffer[..n]);
                        size += n as u64;
                        progress(size);
                    }
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(Digests { size, md5: hex(&md5.finalize()), sha256: hex(&sha256.finalize()) })
        };
        read().map_err(Error::io("read", path))
    }

    /// Compare with everything that is known of the file; what differs.
    pub fn check(
        &self,
        file: &RemoteFile,
        recorded: Option<&str>,
    ) -> std::result::Result<(), Wrong> {
        let by = match &file.checksum_by {
            Some(by) => format!(" (published by {by})"),
            None => String::new(),
        };
        let wrong = |what, got: String, expected: String| Err(Wrong { what, got, expected });
        if let Some(size) = file.size.filter(|s| *s != self.size) {
            return wrong("size in bytes", self.size.to_string(), size.to_string());
        }
        for (what, expected, got) in [
            ("MD5", &file.md5, &self.md5),
            ("SHA-256", &file.sha256, &self.sha256),
            ("SHA-256", &file.sha256_prefix, &self.sha256),
        ] {
            let Some(expected) = expected else { continue };
            if !got.starts_with(&expected.to_ascii_lowercase()) {
                return wrong(what, got.clone(), format!("{expected}{by}"));
            }
        }
        match recorded {
            Some(first) if first != self.sha256 => {
                let expected = format!("{first} (kept in checksums.toml from the first download)");
                wrong("SHA-256", self.sha256.clone(), expected)
            }
            _ => Ok(()),
        }
    }
}

/// What differs.
pub struct Wrong {
    what: &'static str,
    got: String,
    expected: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {}, expected {}", self.what, self.got, self.expected)
    }
}

/// What vouches for the file, in words.
pub fn vouched_by(file: &RemoteFile) -> &'static str {
    match (&file.sha256, &file.md5, &file.sha256_prefix) {
        (Some(_), ..) => "SHA-256 agrees",
        (_, Some(_), _) => "MD5 agrees",
        (.., Some(_)) => "beginning of SHA-256 agrees",
        _ => "SHA-256 agrees with the first download",
    }
}

/// Whether no whole checksum is published, so that the first download decides.
pub fn needs_record(file: &RemoteFile) -> bool {
    file.sha256.is_none() && file.md5.is_none()
}

/// Whether there is anything to compare the file with.
pub fn is_vouched(file: &RemoteFile, recorded: Option<&str>) -> bool {
    !needs_record(file) || file.sha256_prefix.is_some() || recorded.is_some()
}

/// Whether another file with the same checksum cannot be made: the few digits of a prefix can be
/// met by trying.
pub fn is_proven(file: &RemoteFile, recorded: Option<&str>) -> bool {
    file.sha256.is_some() || file.md5.is_some() || recorded.is_some()
}

/// `checksums.toml` of a data directory.
pub struct Records(PathBuf);

impl Records {
    pub fn new(data: &Path) -> Self {
        Records(data.join("checksums.toml"))
    }

    fn read(&self) -> Result<toml::Table> {
        if !self.0.exists() {
            return Ok(toml::Table::new());
        }
        let text = read_text(&self.0)?;
        text.parse().map_err(|e: toml::de::Error| Error::format(&self.0, e.to_string()))
    }

    pub fn get(&self, name: &str) -> Result<Option<String>> {
        match self.read()?.get(name) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text.to_ascii_lowercase())),
            Some(_) => Err(Error::format(&self.0, format!("{name}: expected a SHA-256 in quotes"))),
        }
    }

    /// Add a file's SHA-256. The lock keeps what another process adds meanwhile.
    pub fn add(&self, name: &str, sha256: &str) -> Result<()> {
        let lock = self.0.with_file_name(".heat-checksums.lock");
        let held = heat_ood::io::open_own(&lock)?;
        // Where the file system has no locks, two processes may lose a line.
        let _ = held.lock();
        let mut table = self.read()?;
        table.insert(name.to_owned(), sha256.into());
        write_own(&self.0, |w| write!(w, "{HEADER}\n{table}"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
