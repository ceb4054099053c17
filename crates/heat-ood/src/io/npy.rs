//! numpy's `.npy` and `.npz`.

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use super::budget::Budget;
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
    let broken =
        |e: zip::result::ZipError| Error::format(path, format!("not a whole .npz (zip) file: {e}"));
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
    let structured = || bad("a structured array; save one plain matrix per array".into());
    match header_of(&bytes[start..end]) {
        Some(header) if header.contains("'descr': [") => return Err(structured()),
        Some(header) if shape_is_possible(&header) => {}
        _ => return Err(bad("not an .npy array, or its header is damaged".into())),
    }
    let mut reader = Cursor::new(&bytes[start..end]);
    let header =
        NpyHeader::from_reader(&mut reader).map_err(|e| bad(format!("not an .npy array: {e}")))?;
    let offset = start + reader.position() as usize;
    let DType::Plain(ty) = header.dtype() else {
        return Err(structured());
    };
    let dtype = match (ty.type_char(), ty.size_field()) {
        (TypeChar::Float, 2) => Dtype::F16,
        (TypeChar::Float, 4) => Dtype::F32,
        (TypeChar::Float, 8) => Dtype::F64,
        (TypeChar::Int, 1) => Dtype::I8,
        (TypeChar::Int, 2) => Dtype::I16,
        (TypeChar::Int, 4) => Dtype::I32,
        (TypeChar::Int, 8) => Dtype::I64,
        (TypeChar::Uint, 1) => Dtype::U8,
        (TypeChar::Uint, 2) => Dtype::U16,
        (TypeChar::Uint, 4) => Dtype::U32,
        (TypeChar::Uint, 8) => Dtype::U64,
        _ => return Err(bad(format!("type {ty}; expected a float or integer array"))),
    };
    let shape: Vec<usize> = header.shape().iter().map(|&n| n as usize).collect();
    let by_column = header.order() == Order::Fortran && shape.len() > 1;
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
    let swapped = ty.endianness() == Endianness::Big && ty.size_field() > 1;
    if !by_column && !swapped {
        return Ok(array);
    }
    if !budget.spend(end - offset) {
        return Err(too_much(path));
    }
    Ok(array.into_native(by_column, swapped))
}

/// Longest header taken seriously: numpy's own is 128 bytes.
const MAX_HEADER: usize = 1 << 16;

/// The header, if it is one that the `npyz` crate can parse in little time and
/// memory: it believes any length, and recurses into any nesting.
fn header_of(image: &[u8]) -> Option<String> {
    let length = match image {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => {
            10 + usize::from(u16::from_le_bytes([*a, *b]))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            (u32::from_le_bytes([*a, *b, *c, *d]) as usize).saturating_add(12)
        }
        _ => return None,
    };
    if length > image.len().min(MAX_HEADER) {
        return None;
    }
    let header = String::from_utf8_lossy(&image[10..length]);
    let mut depth = 0;
    for c in header.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth > 4 {
            return None;
        }
    }
    Some(header.into_owned())
}

/// Whether the numbers between the only brackets of a header are a shape with
/// a product: the `npyz` crate multiplies any. A second shape, one spelled with
/// escapes, or hexadecimal numbers would reach the multiplication unseen.
fn shape_is_possible(header: &str) -> bool {
    let parts = header.split_once('(').and_then(|(before, rest)| {
        let (inside, after) = rest.split_once(')')?;
        Some((before, inside, after))
    });
    let Some((before, inside, after)) = parts else {
        return false;
    };
    let plain = |text: &str| !text.contains(['(', ')', '[', ']', '\\']);
    let number = |c: char| c.is_ascii_digit() || matches!(c, ',' | ' ' | 'L');
    if !plain(before) || !plain(after) || !inside.chars().all(number) {
        return false;
    }
    let digits = |s: &str| s.chars().filter(char::is_ascii_digit).collect::<String>();
    let mut numbers = inside.split(',').map(digits).filter(|s| !s.is_empty());
    let product = numbers
        .try_fold(1i64, |product, number| product.checked_mul(number.parse::<i64>().ok()?.max(1)));
    product.is_some()
}
