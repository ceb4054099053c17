//! Files of a directory or an archive, by their path in it.
//!
//! Links within an archive stand for what they lead to; one that leads out of it is refused.
//! `.tar` and `.zip` are read in place. A compressed tar allows no random
//! access: it is unpacked once into a temporary file that vanishes with the
//! process, and read there.

use std::io::{Cursor, Read, Seek};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use zip::ZipArchive;

use super::links::{Entry, Tree, normal};
use super::sniff::{self, HEAD};
use heat_ood::io::{Bytes, ZipCheck, map, map_file, open_regular, read_bounded, zip_entries};
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
    /// A directory; of a list, files with absolute paths may be among them.
    Directory,
    Tar(Arc<Bytes>),
    /// With its length.
    Zip(ZipArchive<Cursor<Shared>>, u64),
}

/// The most bytes of memory that `packed` bytes may become.
pub(super) fn most_expanded(packed: u64) -> u64 {
    ALWAYS_ALLOWED.max(packed.saturating_mul(MAX_GROWTH))
}

/// What systems leave beside the files they pack, and what is hidden.
const QUIET: [&str; 5] = ["__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "lost+found"];

/// Whether a file is passed over without a word.
fn is_quiet(name: &str) -> bool {
    let quiet = |part: &str| QUIET.iter().any(|q| q.eq_ignore_ascii_case(part));
    name.split('/').any(|part| part.starts_with('.') || quiet(part))
}

/// Files by name, sorted.
pub(super) struct Store {
    path: PathBuf,
    source: Source,
    /// Each with its place in the archive: bytes in a tar, number in a zip.
    files: Vec<(String, Range<usize>)>,
    /// Directories without a file.
    empty: Vec<String>,
    /// Links and the like that lead to no file, each with the reason.
    lost: Vec<String>,
}

impl Store {
    /// List a directory or an archive; a file that is an image is a directory of one.
    pub fn open(path: &Path) -> Result<Self> {
        let (mut tree, source) = if path.is_dir() {
            let mut tree = Tree::default();
            walk(path, "", 0, &mut tree)?;
            (tree, Source::Directory)
        } else {
            let head = head_of(path)?;
            if head.starts_with(b"PK") {
                zip(path)?
            } else if head.starts_with(&[0x1f, 0x8b]) || is_named(path, &[".tar.gz", ".tgz"]) {
                tar(path, unpacked(path)?)?
            } else if head.get(257..262) == Some(b"ustar") || is_named(path, &[".tar"]) {
                tar(path, map(path)?)?
            } else if crate::decode::is_image(&head) {
                return Self::single(path);
            } else {
                let problem = format!(
                    "{}; expected a directory of images, .tar, .tar.gz, .tgz, .zip, .npy, .npz, \
                     .mat, an IDX file, a .txt or .csv list, or an image",
                    sniff::kind(&head)
                );
                return Err(Error::format(path, problem));
            }
        };
        tree.retain(|name| !is_quiet(name));
        let listed = tree.files();
        let listed = listed.map_err(|problem| Error::format(path, problem))?;
        if u32::try_from(listed.files.len()).is_err() {
            return Err(Error::format(path, "more than 4294967295 files: give a part of it"));
        }
        let (files, empty, lost) = (listed.files, listed.empty, listed.lost);
        Ok(Store { path: path.to_owned(), source, files, empty, lost })
    }

    fn single(path: &Path) -> Result<Self> {
        let name = path.file_name().and_then(|n| n.to_str());
        let name =
            name.ok_or_else(|| Error::format(path, "a name that is not UTF-8; rename it"))?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        Ok(Self::of(parent.unwrap_or(Path::new(".")), vec![name.to_owned()]))
    }

    /// Some files of a directory, below it or with absolute paths.
    pub fn of(directory: &Path, mut names: Vec<String>) -> Self {
        names.sort();
        names.dedup();
        let files = names.into_iter().map(|name| (name, 0..0)).collect();
        let (path, source) = (directory.to_owned(), Source::Directory);
        Store { path, source, files, empty: Vec::new(), lost: Vec::new() }
    }

    /// Directories without a file.
    pub fn empty(&self) -> &[String] {
        &self.empty
    }

    /// What leads to no file, each with the reason.
    pub fn lost(&self) -> &[String] {
        &self.lost
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

    /// The first bytes of the file of that number, as many as tell what it is.
    pub fn head(&self, number: u32) -> Result<Vec<u8>> {
        let (name, range) = &self.files[number as usize];
        match &self.source {
            Source::Directory => head_of(&self.path.join(name)),
            Source::Tar(bytes) => Ok(bytes[range.clone()].iter().take(HEAD).copied().collect()),
            Source::Zip(archive, _) => {
                let mut head = Vec::new();
                let mut archive = archive.clone();
                let file = archive.by_index(range.start).map_err(|e| e.to_string());
                let read = file.and_then(|f| {
                    f.take(HEAD as u64).read_to_end(&mut head).map_err(|e| e.to_string())
                });
                read.map_err(|problem| Error::format(self.place(name), problem))?;
                Ok(head)
            }
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
        let more = if self.files.len() > have.len() { ", …" } else { "" };
        let remedy = format!("it holds: {}{more}; was another archive meant?", have.join(", "));
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
        return read_bounded(path, SMALL).map(Slice::owned);
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

fn is_named(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    endings.iter().any(|ending| name.ends_with(ending))
}

/// The first bytes of a file.
pub(super) fn head_of(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let file = open_regular(path)?;
    file.take(HEAD as u64).read_to_end(&mut head).map_err(Error::io("read", path))?;
    Ok(head)
}

fn walk(root: &Path, below: &str, depth: usize, out: &mut Tree) -> Result<()> {
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
        if is_quiet(name) {
            continue;
        }
        let name = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(Error::io("list", &directory))?;
        // Only of links must the system be asked once more; one to nothing is met when it is read.
        let target = if kind.is_symlink() { path.metadata().ok() } else { None };
        let is_directory = target.as_ref().map_or(kind.is_dir(), std::fs::Metadata::is_dir);
        let is_file = target.map_or(kind.is_file() || kind.is_symlink(), |t| t.is_file());
        if is_directory {
            walk(root, &name, depth + 1, out)?;
            out.add(name, Entry::Directory);
        } else if is_file {
            out.add(name, Entry::File(0..0));
        } else {
            out.add(name, Entry::Lost("a pipe, a socket or a device"));
        }
    }
    Ok(())
}

/// What is in an archive, and how its bytes are reached.
type Listed = (Tree, Source);

/// The name of an entry; one that leads out of the archive is refused.
fn named(path: &Path, name: &str) -> Result<String> {
    normal(name).ok_or_else(|| {
        let problem = format!(
            "`{name}` leads out of it: refused; unpack it with care, and give the directory"
        );
        Error::format(path, problem)
    })
}

fn tar(path: &Path, bytes: Arc<Bytes>) -> Result<Listed> {
    use tar::EntryType::{Continuous, Directory, GNUSparse, Link, Regular, Symlink};
    let damaged = |e: std::io::Error| Error::format(path, format!("not a whole tar archive: {e}"));
    let mut tree = Tree::default();
    let mut archive = tar::Archive::new(Cursor::new(&bytes[..]));
    let mut any = false;
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let name = named(path, &String::from_utf8_lossy(&entry.path_bytes()))?;
        let target =
            || String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned();
        let entry = match entry.header().entry_type() {
            Regular | Continuous => {
                let start = usize::try_from(entry.raw_file_position()).unwrap_or(usize::MAX);
                let end = start.saturating_add(usize::try_from(entry.size()).unwrap_or(usize::MAX));
                if end > bytes.len() {
                    let problem = format!("ends within `{name}`: copy it again");
                    return Err(Error::format(path, problem));
                }
                // A directory, as the oldest archives have it.
                let is_directory = entry.path_bytes().ends_with(b"/");
                if is_directory { Entry::Directory } else { Entry::File(start..end) }
            }
            Directory => Entry::Directory,
            Symlink => Entry::Link { target: target(), within: parent(&name).to_owned() },
            Link => Entry::Link { target: target(), within: String::new() },
            GNUSparse => Entry::Lost("a sparse file: unpack the archive"),
            _ if entry.header().entry_type().is_pax_global_extensions() => continue,
            _ => Entry::Lost("neither a file nor a directory"),
        };
        any = true;
        tree.add(name, entry);
    }
    if !any {
        return Err(Error::format(path, "no file in this archive"));
    }
    Ok((tree, Source::Tar(bytes)))
}

/// The directory of a name within an archive.
fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
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
    let archive_bytes = Arc::clone(&bytes);
    let archive = ZipArchive::new(Cursor::new(Shared(bytes))).map_err(damaged)?;
    let mut tree = Tree::default();
    for i in 0..archive.len() {
        let Some(name) = archive.name_for_index(i) else { continue };
        // Some programs of Windows write its separators.
        let name = name.map_err(damaged)?.replace('\\', "/");
        let agrees = archive.by_index_data(i).is_ok_and(|entry| {
            let (bytes, header) = (&archive_bytes[..], entry.header_start());
            ZipCheck { bytes, header, name: entry.name_raw() }.header(entry.compression())
        });
        if !agrees {
            let problem =
                format!("the directory's entry `{name}` is not that of the file; copy it again");
            return Err(Error::format(path, problem));
        }
        let is_directory = name.ends_with('/');
        let name = named(path, &name)?;
        let is_link = archive.by_index_data(i).is_ok_and(|entry| entry.is_symlink());
        let entry = if is_directory {
            Entry::Directory
        } else if is_link {
            let target = unzipped(&archive, length, i)
                .map_err(|problem| Error::format(path, format!("`{name}`: {problem}")))?;
            let target = String::from_utf8_lossy(&target).into_owned();
            Entry::Link { target, within: parent(&name).to_owned() }
        } else {
            Entry::File(i..i + 1)
        };
        tree.add(name, entry);
    }
    Ok((tree, Source::Zip(archive, length)))
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
    // Beyond the last byte the checksum is compared.
    file.take(size + 1).read_to_end(&mut out).map_err(|e| e.to_string())?;
    if out.len() as u64 != size {
        return Err(format!("has not the {size} bytes that the archive says; copy it again"));
    }
    Ok(out)
}

/// Decompress a gzip file into a temporary file without a name.
fn unpacked(path: &Path) -> Result<Arc<Bytes>> {
    let packed = open_regular(path)?;
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
