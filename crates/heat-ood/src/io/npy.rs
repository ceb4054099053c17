//! numpy's `.npy` and `.npz`.

use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zip::read::{ArchiveOffset, Config};

use super::budget::Budget;
use super::kind::{NPY, NPZ, kind_of};
use super::memory::{memory_limit, readable};
use super::npy_header::Header;
use super::npy_text::text_width;
use super::zip_directory::{ZipCheck, has_crc, zip_entries};
use super::{Array, Bytes, Dtype, map};
use crate::error::{Error, Result};

/// The array of an `.npy` file, mapped.
pub(crate) fn open_npy(path: &Path) -> Result<Array> {
    let bytes = map(path)?;
    let end = bytes.len();
    array(path, bytes, 0, end, &mut Budget::of_content(end))
}

/// An open `.npz` file.
pub(crate) struct Npz {
    path: PathBuf,
    bytes: Arc<Bytes>,
    budget: Budget,
}

/// What a file says of one of its arrays.
pub(crate) struct NpzEntry {
    pub(crate) name: String,
    /// Such as `<f4`; empty where it could not be read.
    pub(crate) kind: String,
    pub(crate) shape: Vec<usize>,
}

impl NpzEntry {
    /// Whether it is a matrix of floats.
    pub(crate) fn is_matrix(&self) -> bool {
        let float = element(&self.kind).is_some_and(|(dtype, _)| dtype.is_float());
        let wide = self.shape.iter().skip(1).filter(|n| **n != 1).count();
        float && self.shape.len() >= 2 && wide <= 1
    }
}

impl Npz {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = map(path)?;
        let budget = Budget::of_content(bytes.len());
        Ok(Npz { path: path.to_owned(), bytes, budget })
    }

    /// What is in it.
    pub(crate) fn entries(&self) -> Result<Vec<NpzEntry>> {
        let mut archive = self.archive()?;
        let mut out = Vec::new();
        for i in 0..archive.len() {
            let entry = archive.by_index(i).map_err(|e| self.broken(e))?;
            let Some(name) = self.name(&entry)? else { continue };
            let mut start = Vec::new();
            let most = super::npy_header::MAX_SIZE as u64;
            let read = entry.take(most).read_to_end(&mut start);
            let header = read.ok().and_then(|_| Header::read(&start).ok());
            let (kind, shape) = header.map_or_else(Default::default, |h| (h.kind, h.shape));
            out.push(NpzEntry { name, kind, shape });
        }
        Ok(out)
    }

    /// Those of its arrays that are `wanted`: mapped where stored, in memory where compressed.
    pub(crate) fn arrays(&mut self, wanted: &[&str]) -> Result<Vec<(String, Array)>> {
        let bytes = Arc::clone(&self.bytes);
        let mut archive = self.archive()?;
        self.check_headers(&mut archive)?;
        let mut out: Vec<(String, Array)> = Vec::new();
        for i in 0..archive.len() {
            let mut entry = archive.by_index(i).map_err(|e| self.broken(e))?;
            let name = self.name(&entry)?.filter(|n| wanted.contains(&n.as_str()));
            let Some(name) = name else { continue };
            let place = self.path.join(&name);
            let array = if entry.compression() == zip::CompressionMethod::Stored {
                let start = entry.data_start().unwrap_or(u64::MAX) as usize;
                let end = start.saturating_add(entry.size() as usize);
                if end > bytes.len() {
                    let problem = "truncated: copy or create it again";
                    return Err(Error::format(&self.path, problem));
                }
                if !has_crc(&bytes[start..end], entry.crc32()) {
                    let problem = "is damaged: its bytes are not those of the archive's checksum. \
                                   Copy or create it again";
                    return Err(Error::format(&place, problem));
                }
                array(&place, Arc::clone(&bytes), start, end, &mut self.budget)?
            } else {
                let data = decompressed(&place, &mut entry, &mut self.budget)?;
                let end = data.len();
                array(&place, Arc::new(data.into()), 0, end, &mut self.budget)?
            };
            out.push((name, array));
        }
        Ok(out)
    }

    /// That every entry is what the directory says: an array whose name was damaged would
    /// be missing without a word.
    fn check_headers<R: Read + Seek>(&self, archive: &mut zip::ZipArchive<R>) -> Result<()> {
        let bytes = &self.bytes[..];
        let whole = zip_entries(bytes) == Some(archive.len() as u64);
        let sound = whole
            && (0..archive.len()).all(|i| {
                archive.by_index_raw(i).is_ok_and(|entry| {
                    let (header, name) = (entry.header_start(), entry.name_raw());
                    ZipCheck { bytes, header, name }.header(entry.compression())
                })
            });
        if sound {
            return Ok(());
        }
        let problem = "is damaged: the archive's directory and its entries do not agree. Copy or \
                       create it again";
        Err(Error::format(&self.path, problem))
    }

    fn name<R: Read>(&self, entry: &zip::read::ZipFile<'_, R>) -> Result<Option<String>> {
        let name = entry.name().map_err(|e| self.broken(e))?;
        Ok(name.strip_suffix(".npy").map(str::to_owned))
    }

    fn archive(&self) -> Result<zip::ZipArchive<Cursor<Shared>>> {
        let bytes = Cursor::new(Shared(Arc::clone(&self.bytes)));
        // The directory is where the file says; a search for it can go astray.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        zip::ZipArchive::with_config(config, bytes).map_err(|e| self.broken(e))
    }

    fn broken(&self, error: zip::result::ZipError) -> Error {
        let problem = format!("not a whole .npz (zip) file: {error}");
        Error::format(&self.path, told(&self.bytes, NPZ, &problem))
    }
}

/// Bytes that a reader and the arrays it makes have together.
struct Shared(Arc<Bytes>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// An entry's bytes: as many as the directory says, if the budget has them.
fn decompressed<R: Read>(
    path: &Path,
    entry: &mut zip::read::ZipFile<'_, R>,
    budget: &mut Budget,
) -> Result<Vec<u8>> {
    let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
    if !budget.spend(size) {
        return Err(too_much(path, size));
    }
    // One more than expected, to notice it.
    let mut data = Vec::new();
    data.try_reserve_exact(size.saturating_add(1)).map_err(|_| too_much(path, size))?;
    let mut whole = entry.take(size as u64 + 1);
    whole.read_to_end(&mut data).map_err(Error::io("decompress", path))?;
    if data.len() != size {
        return Err(Error::format(
            path,
            "has another length than the archive says: create it again",
        ));
    }
    Ok(data)
}

fn too_much(path: &Path, size: usize) -> Error {
    let problem = format!(
        "it would take {} in memory, beyond the memory limit of {}: raise the limit, or save it \
         with `np.savez`, uncompressed, or as `.npy`, row-major",
        readable(size),
        readable(memory_limit())
    );
    Error::format(path, problem)
}

/// The array whose `.npy` image is `bytes[start..end]`.
fn array(
    path: &Path,
    bytes: Arc<Bytes>,
    start: usize,
    end: usize,
    budget: &mut Budget,
) -> Result<Array> {
    let bad = |problem: String| Error::format(path, problem);
    let Header { kind, by_column, shape, size } =
        Header::read(&bytes[start..end]).map_err(|e| bad(told(&bytes[start..end], NPY, e)))?;
    let offset = start + size;
    let text = text_width(&kind);
    let Some((dtype, swapped)) = element(&kind).or(text.map(|_| (Dtype::U8, false))) else {
        return Err(bad(format!("type {kind:.20}; expected a float or integer array")));
    };
    let width = text.map_or(dtype.size(), |text| text.bytes());
    let need =
        shape.iter().try_fold(width, |n, &d| n.checked_mul(d)).and_then(|n| n.checked_add(offset));
    if need.is_none_or(|n| n > end) {
        return Err(bad(format!(
            "truncated: shape {shape:?} needs more bytes than the file has; copy or create it again"
        )));
    }
    if let Some(text) = text {
        let count: usize = shape.iter().product();
        let bytes = &bytes[offset..offset + count * width];
        return text.array(bytes, shape, budget).map_err(|e| bad(e.into()));
    }
    let array = Array { bytes, offset, dtype, shape, names: None }.squeezed();
    let by_column = by_column && array.shape.len() > 1;
    if by_column && array.shape.len() > 2 {
        return Err(bad(format!("shape {:?}; expected a matrix or a vector", array.shape)));
    }
    if !by_column && !swapped {
        return Ok(array);
    }
    if !budget.spend(end - offset) {
        return Err(too_much(path, end - offset));
    }
    Ok(array.into_native(by_column, swapped))
}

/// What the bytes are, where they are something else than what was `expected`; else
/// the problem that was met.
fn told(bytes: &[u8], expected: &str, problem: &str) -> String {
    match kind_of(bytes) {
        Some(kind) if kind != expected => format!("is {kind}, not {expected}"),
        _ => problem.to_owned(),
    }
}

/// The type of a name such as `<f4`, and whether its bytes are in the other order.
fn element(kind: &str) -> Option<(Dtype, bool)> {
    let (order, name) = kind.split_at_checked(1)?;
    let dtype = match name {
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        // True and False.
        "b1" => Dtype::U8,
        "i1" => Dtype::I8,
        "i2" => Dtype::I16,
        "i4" => Dtype::I32,
        "i8" => Dtype::I64,
        "u1" => Dtype::U8,
        "u2" => Dtype::U16,
        "u4" => Dtype::U32,
        "u8" => Dtype::U64,
        _ => return None,
    };
    match order {
        "<" => Some((dtype, false)),
        ">" => Some((dtype, dtype.size() > 1)),
        "|" => (dtype.size() == 1).then_some((dtype, false)),
        _ => None,
    }
}
