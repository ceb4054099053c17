//! numpy's `.npy` and `.npz`.

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use super::budget::Budget;
use super::kind::{NPY, NPZ, kind_of};
use super::npy_header::Header;
use super::{Array, Bytes, Dtype, map};
use crate::error::{Error, Result};

/// The array of an `.npy` file, mapped.
pub(crate) fn open_npy(path: &Path) -> Result<Array> {
    let bytes = map(path)?;
    let end = bytes.len();
    array(path, bytes, 0, end, &mut Budget::new(end))
}

/// Those arrays of an `.npz` file that are `wanted`: mapped where stored, in memory where compressed.
pub(crate) fn open_npz(path: &Path, wanted: &[&str]) -> Result<Vec<(String, Array)>> {
    let bytes = map(path)?;
    let broken = |e: zip::result::ZipError| {
        let problem = format!("not a whole .npz (zip) file: {e}");
        Error::format(path, told(&bytes, NPZ, &problem))
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes[..])).map_err(broken)?;
    let mut out = Vec::new();
    let mut budget = Budget::new(bytes.len());
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(broken)?;
        let Some(name) = entry.name().map_err(broken)?.strip_suffix(".npy").map(str::to_owned)
        else {
            continue;
        };
        let place = path.join(&name);
        if !wanted.contains(&name.as_str()) {
            continue;
        }
        if entry.compression() == zip::CompressionMethod::Stored {
            let start = entry.data_start().unwrap_or(u64::MAX) as usize;
            let end = start.saturating_add(entry.size() as usize);
            if end > bytes.len() {
                return Err(Error::format(path, "truncated: copy or create it again"));
            }
            drop(entry);
            out.push((name, array(&place, Arc::clone(&bytes), start, end, &mut budget)?));
        } else {
            let data = decompressed(&place, &mut entry, &mut budget)?;
            let end = data.len();
            out.push((name, array(&place, Arc::new(data.into()), 0, end, &mut budget)?));
        }
    }
    Ok(out)
}

/// An entry's bytes: as many as the directory says, if the budget has them.
fn decompressed<R: Read>(
    path: &Path,
    entry: &mut zip::read::ZipFile<'_, R>,
    budget: &mut Budget,
) -> Result<Vec<u8>> {
    let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
    if !budget.spend(size) {
        return Err(too_much(path));
    }
    // One more than expected, to notice it.
    let mut data = Vec::with_capacity(size.saturating_add(1));
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

fn too_much(path: &Path) -> Error {
    let problem = "in memory it would take more than four times the file's size: save it with \
                   `np.savez`, uncompressed, or as `.npy`, row-major";
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
    let Some((dtype, swapped)) = element(&kind) else {
        return Err(bad(format!("type {kind:.20}; expected a float or integer array")));
    };
    let by_column = by_column && shape.len() > 1;
    if by_column && shape.len() > 2 {
        return Err(bad(format!("shape {shape:?}; expected a matrix or a vector")));
    }
    let need = shape
        .iter()
        .try_fold(dtype.size(), |n, &d| n.checked_mul(d))
        .and_then(|n| n.checked_add(offset));
    if need.is_none_or(|n| n > end) {
        return Err(bad(format!(
            "truncated: shape {shape:?} needs more bytes than the file has; copy or create it again"
        )));
    }
    let array = Array { bytes, offset, dtype, shape };
    if !by_column && !swapped {
        return Ok(array);
    }
    if !budget.spend(end - offset) {
        return Err(too_much(path));
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
