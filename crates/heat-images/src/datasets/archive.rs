//! Files of a directory or an archive, by their path in it.
//!
//! `.tar` and `.zip` are read in place. A compressed tar allows no random
//! access: it is unpacked once into a temporary file that vanishes with the
//! process, and read there.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use zip::ZipArchive;

use heat_ood::io::{Bytes, map, map_file, zip_entries};
use heat_ood::{Error, Result};

/// Largest file that is read whole rather than mapped.
const SMALL: u64 = 16 << 20;

/// What compressed data may grow to in memory: images, labels and arrays of
/// images hardly shrink, so what grows twentyfold was made to fill memory.
const MAX_GROWTH: u64 = 20;
const ALWAYS_ALLOWED: u64 = 16 << 20;

/// The same in a temporary file. Handwritten digits grow tenfold.
const MAX_GROWTH_ON_DISK: u64 = 50;
const ALWAYS_ALLOWED_ON_DISK: u64 = 1 << 30;

/// Depth of directories within directories.
const MAX_DEPTH: usize = 32;

/// Part of some shared bytes.
#[derive(Clone)]
pub(super) struct Slice {
    bytes: Arc<Bytes>,
    range: Range<usize>,
}

impl Slice {
    pub fn owned(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Slice { bytes: Arc::new(Bytes::from(bytes)), range }
    }

    /// A part of it, or as much of that as there is; nothing is copied.
    pub fn part(&self, range: Range<usize>) -> Self {
        let end = range.end.min(self.len());
        let start = self.range.start + range.start.min(end);
        Slice { bytes: Arc::clone(&self.bytes), range: start..self.range.start + end }
    }

    /// `length` bytes from `start`, if there are as many.
    pub fn checked_part(&self, start: usize, length: usize) -> Option<Self> {
        let end = start.checked_add(length).filter(|end| *end <= self.len())?;
        Some(self.part(start..end))
    }
}

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

/// Bytes that can be shared with the reader of an archive.
#[derive(Clone)]
struct Shared(Arc<Bytes>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

enum Source {
    Directory,
    Tar(Arc<Bytes>),
    /// With its length.
    Zip(ZipArchive<Cursor<Shared>>, u64),
}

/// The most bytes of memory that `packed` bytes may become.
pub(super) fn most_expanded(packed: u64) -> u64 {
    ALWAYS_ALLOWED.max(packed.saturating_mul(MAX_GROWTH))
}

/// Files by name, sorted.
pub(super) struct Store {
    path: PathBuf,
    source: Source,
    /// Each with its place in the archive: bytes in a tar, number in a zip.
    files: Vec<(String, Range<usize>)>,
}

impl Store {
    /// List a directory or an archive.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (source, mut files) = if path.is_dir() {
            let mut files = Vec::new();
            walk(path, "", 0, &mut files)?;
            (Source::Directory, files)
        } else if name.ends_with(".zip") {
            zip(path)?
        } else if name.ends_with(".tar") {
            tar(path, map(path)?)?
        } else if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            tar(path, unpacked(path)?)?
        } else {
            let problem = "expected a directory of images, .tar, .tar.gz, .tgz, .zip, .mat, an IDX \
                           file or a .txt list";
            // A missing path is said to be missing.
            std::fs::metadata(path).map_err(Error::io("open", path))?;
            return Err(Error::format(path, problem));
        };
        if let Some((name, _)) = files.iter().find(|(n, _)| n.split('/').any(|p| p == "..")) {
            let problem = format!(
                "`{name}` leads out of it: refused; unpack it with care, and \
                                   give the directory"
            );
            return Err(Error::format(path, problem));
        }
        // What systems leave beside the files they pack.
        files.retain(|(name, _)| !name.split('/').any(|part| part.starts_with('.')));
        if u32::try_from(files.len()).is_err() {
            return Err(Error::format(path, "more than 4294967295 files: give a part of it"));
        }
        // Of files of one name in an archive, the last replaces the others.
        files.reverse();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        files.dedup_by(|a, b| a.0 == b.0);
        Ok(Store { path: path.to_owned(), source, files })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all files, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.as_str())
    }

    /// The file of that name, or that ends in it: the one least deep.
    pub fn find(&self, wanted: &str) -> Option<&str> {
        let ending = format!("/{wanted}");
        let matching = self.names().filter(|n| *n == wanted || n.ends_with(&ending));
        matching.min_by_key(|n| n.matches('/').count())
    }

    /// Names with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..).zip(self.names())
    }

    /// The file of that number.
    pub fn name(&self, number: u32) -> &str {
        &self.files[number as usize].0
    }

    /// The number of the file of exactly that name.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.files.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok().map(|i| i as u32)
    }

    /// How messages name a file.
    pub fn place(&self, name: &str) -> String {
        match self.source {
            Source::Directory => self.path.join(name).display().to_string(),
            _ => format!("{}: {name}", self.path.display()),
        }
    }

    /// The bytes of a file.
    pub fn read(&self, name: &str) -> Result<Slice> {
        let found = self.index(name).ok_or_else(|| self.missing(name))?;
        let (_, range) = &self.files[found as usize];
        match &self.source {
            Source::Directory => read_file(&self.path.join(name)),
            Source::Tar(bytes) => Ok(Slice { bytes: Arc::clone(bytes), range: range.clone() }),
            Source::Zip(archive, length) => unzipped(archive, *length, range.start)
                .map(Slice::owned)
                .map_err(|problem| Error::format(self.place(name), problem)),
        }
    }

    /// A text file.
    pub fn text(&self, name: &str) -> Result<String> {
        let bytes = self.read(name)?;
        let text = std::str::from_utf8(&bytes);
        text.map(str::to_owned).map_err(|_| Error::format(self.place(name), "not a text in UTF-8"))
    }

    /// The error for a file that should be there.
    pub fn missing(&self, name: &str) -> Error {
        let have: Vec<_> = self.names().take(5).collect();
        let remedy = format!("it holds: {}, …; was another archive meant?", have.join(", "));
        Error::missing(self.path.display().to_string(), format!("`{name}`"), remedy)
    }
}

/// The last part of a path.
pub(super) fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// A file's bytes; large ones are mapped.
pub(super) fn read_file(path: &Path) -> Result<Slice> {
    let size = std::fs::metadata(path).map_err(Error::io("open", path))?.len();
    if size <= SMALL {
        return std::fs::read(path).map(Slice::owned).map_err(Error::io("read", path));
    }
    let bytes = map(path)?;
    Ok(Slice { range: 0..bytes.len(), bytes })
}

/// A gzip file's content, where the name says that it is one.
pub(super) fn read_plain(path: &Path) -> Result<Slice> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
        let bytes = unpacked(path)?;
        return Ok(Slice { range: 0..bytes.len(), bytes });
    }
    read_file(path)
}

fn walk(
    root: &Path,
    below: &str,
    depth: usize,
    out: &mut Vec<(String, Range<usize>)>,
) -> Result<()> {
    let directory = root.join(below);
    if depth > MAX_DEPTH {
        let problem = format!("directories more than {MAX_DEPTH} deep; does a link lead back up?");
        return Err(Error::format(directory, problem));
    }
    for entry in std::fs::read_dir(&directory).map_err(Error::io("list", &directory))? {
        let entry = entry.map_err(Error::io("list", &directory))?;
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            return Err(Error::format(path, "a name that is not UTF-8; rename it"));
        };
        let name = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        // Only of links must the system be asked once more.
        let kind = entry.file_type().map_err(Error::io("list", &directory))?;
        if kind.is_dir() || kind.is_symlink() && path.is_dir() {
            walk(root, &name, depth + 1, out)?;
        } else {
            out.push((name, 0..0));
        }
    }
    Ok(())
}

type Listed = (Source, Vec<(String, Range<usize>)>);

fn tar(path: &Path, bytes: Arc<Bytes>) -> Result<Listed> {
    let damaged = |e: std::io::Error| Error::format(path, format!("not a whole tar archive: {e}"));
    let mut files = Vec::new();
    let mut archive = tar::Archive::new(Cursor::new(&bytes[..]));
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.trim_start_matches("./").to_owned();
        let start = usize::try_from(entry.raw_file_position()).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(entry.size()).unwrap_or(usize::MAX));
        if end > bytes.len() {
            return Err(Error::format(path, format!("ends within `{name}`: copy it again")));
        }
        files.push((name, start..end));
    }
    if files.is_empty() {
        return Err(Error::format(path, "no file in this archive"));
    }
    Ok((Source::Tar(bytes), files))
}

fn zip(path: &Path) -> Result<Listed> {
    let damaged = |e: zip::result::ZipError| Error::format(path, format!("not a whole zip: {e}"));
    let bytes = map(path)?;
    if zip_entries(&bytes).is_none() {
        return Err(Error::format(
            path,
            "not a whole zip: its directory is damaged; copy it again",
        ));
    }
    let length = bytes.len() as u64;
    let archive = ZipArchive::new(Cursor::new(Shared(bytes))).map_err(damaged)?;
    let mut files = Vec::new();
    for i in 0..archive.len() {
        if let Some(name) = archive.name_for_index(i) {
            files.push((name.map_err(damaged)?.into_owned(), i..i + 1));
        }
    }
    files.retain(|(name, _)| !name.ends_with('/'));
    Ok((Source::Zip(archive, length), files))
}

/// File number `i`, in no more memory than it may take.
fn unzipped(
    archive: &ZipArchive<Cursor<Shared>>,
    length: u64,
    i: usize,
) -> std::result::Result<Vec<u8>, String> {
    // A clone shares the list of files and the bytes.
    let mut archive = archive.clone();
    let file = archive.by_index(i).map_err(|e| e.to_string())?;
    // What the directory says may be wrong.
    let (packed, size) = (file.compressed_size().min(length), file.size());
    if size > most_expanded(packed) {
        return Err(format!(
            "{packed} bytes that become {size}: refused as a decompression bomb; unpack the \
             archive, and give the directory"
        ));
    }
    let mut out = Vec::new();
    let room = usize::try_from(size).ok().and_then(|size| out.try_reserve_exact(size).ok());
    room.ok_or_else(|| format!("{size} bytes, more than there is memory for"))?;
    file.take(size).read_to_end(&mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

/// Decompress a gzip file into a temporary file without a name.
fn unpacked(path: &Path) -> Result<Arc<Bytes>> {
    let packed = File::open(path).map_err(Error::io("open", path))?;
    let size = packed.metadata().map_err(Error::io("open", path))?.len();
    let most = ALWAYS_ALLOWED_ON_DISK.max(size.saturating_mul(MAX_GROWTH_ON_DISK));
    let place = std::env::temp_dir();
    let mut file = tempfile::tempfile().map_err(Error::io("create a file in", &place))?;
    let mut from = MultiGzDecoder::new(packed).take(most + 1);
    let written = std::io::copy(&mut from, &mut file).map_err(|e| {
        Error::format(path, format!("cannot be decompressed into {}: {e}", place.display()))
    })?;
    if written > most {
        let problem = format!(
            "{size} bytes that become more than {most}: refused as a decompression bomb; \
             decompress it yourself if it is none"
        );
        return Err(Error::format(path, problem));
    }
    if written == 0 {
        return Err(Error::format(path, "nothing in it"));
    }
    file.rewind().map_err(Error::io("read", &place))?;
    map_file(path, &file)
}
