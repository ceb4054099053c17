//! numpy's `.npy` and `.npz`.

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use super::storage::{Array, Bytes, Dtype, map};
use crate::error::{Error, Result};

/// The array of an `.npy` file, mapped.
pub(super) fn open_npy(path: &Path) -> Result<Array> {
    let bytes = map(path)?;
    let end = bytes.len();
    array(path, bytes, 0, end)
}

/// Those arrays of an `.npz` file that are `wanted`: mapped where stored, in memory where compressed.
pub(super) fn open_npz(path: &Path, wanted: &[&str]) -> Result<Vec<(String, Array)>> {
    let bytes = map(path)?;
    let broken =
        |e: zip::result::ZipError| Error::format(path, format!("not a whole .npz (zip) file: {e}"));
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes[..])).map_err(broken)?;
    let mut out = Vec::new();
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
            out.push((name, array(&place, Arc::clone(&bytes), start, end)?));
        } else {
            let mut data = Vec::new();
            entry.read_to_end(&mut data).map_err(Error::io("decompress", &place))?;
            let end = data.len();
            out.push((name, array(&place, Arc::new(Bytes::Owned(data)), 0, end)?));
        }
    }
    Ok(out)
}

/// The array whose `.npy` image is `bytes[start..end]`.
fn array(path: &Path, bytes: Arc<Bytes>, start: usize, end: usize) -> Result<Array> {
    let bad = |problem: String| Error::format(path, problem);
    if !header_is_sound(&bytes[start..end]) {
        return Err(bad("not an .npy array, or its header is damaged".into()));
    }
    let mut reader = Cursor::new(&bytes[start..end]);
    let header =
        NpyHeader::from_reader(&mut reader).map_err(|e| bad(format!("not an .npy array: {e}")))?;
    let offset = start + reader.position() as usize;
    let DType::Plain(ty) = header.dtype() else {
        return Err(bad("a structured array; save one plain matrix per array".into()));
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
    Ok(if by_column || swapped { array.into_native(by_column, swapped) } else { array })
}

/// Longest header taken seriously: numpy's own is 128 bytes.
const MAX_HEADER: usize = 1 << 16;

/// Whether the header is one that the `npyz` crate can parse in little time
/// and memory: it believes any length, recurses into any nesting, and
/// multiplies any shape.
fn header_is_sound(image: &[u8]) -> bool {
    let length = match image {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => {
            10 + usize::from(u16::from_le_bytes([*a, *b]))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            (u32::from_le_bytes([*a, *b, *c, *d]) as usize).saturating_add(12)
        }
        _ => return false,
    };
    if length > image.len().min(MAX_HEADER) {
        return false;
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
            return false;
        }
    }
    shape_is_possible(&header)
}

fn shape_is_possible(header: &str) -> bool {
    let after = header.split("shape").nth(1).and_then(|s| s.split(['(', '[']).nth(1));
    let inside = after.and_then(|s| s.split([')', ']']).next()).unwrap_or_default();
    let digits = |s: &str| s.chars().filter(char::is_ascii_digit).collect::<String>();
    let mut numbers = inside.split(',').map(digits).filter(|s| !s.is_empty());
    let product = numbers
        .try_fold(1i64, |product, number| product.checked_mul(number.parse::<i64>().ok()?.max(1)));
    product.is_some()
}
