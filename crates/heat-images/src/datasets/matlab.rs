//! Arrays of a MATLAB v5 file, as far as SVHN needs them: real numbers,
//! little-endian, plain or compressed. Every size is checked before anything
//! of that size is allocated.
//!
//! The format: 128 bytes of header, then elements. An element is a type and a
//! size (u32 each) and that many bytes, padded to a multiple of eight; up to
//! four bytes lie in the place of the size, which then is half of the type. A
//! compressed element holds another; an array holds its flags, shape, name and
//! values as elements.
//!
//! Reference: *MAT-File Format*, The MathWorks.

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::archive::{Slice, most_expanded};

const HEADER: usize = 128;

/// Types of elements.
const I8: u32 = 1;
pub(super) const U8: u32 = 2;
const I16: u32 = 3;
const U16: u32 = 4;
const I32: u32 = 5;
const U32: u32 = 6;
const F32: u32 = 7;
const F64: u32 = 9;
const I64: u32 = 12;
const U64: u32 = 13;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// More dimensions than anybody has.
const MAX_DIMENSIONS: usize = 32;

/// An array.
pub(super) struct Array {
    pub name: String,
    /// Column-major.
    pub shape: Vec<usize>,
    /// How the values are stored.
    pub kind: u32,
    pub values: Slice,
}

impl Array {
    /// Its values, if they are whole numbers.
    pub fn integers(&self) -> Option<Vec<i64>> {
        fn all<const N: usize>(
            bytes: &[u8],
            of: impl Fn([u8; N]) -> Option<i64>,
        ) -> Option<Vec<i64>> {
            let (values, rest) = bytes.as_chunks::<N>();
            if rest.is_empty() { values.iter().map(|v| of(*v)).collect() } else { None }
        }
        let whole = |v: f64| (v.fract() == 0.0 && v.abs() < 1e15).then_some(v as i64);
        let values = &self.values[..];
        match self.kind {
            I8 => all(values, |v| Some(i8::from_le_bytes(v).into())),
            U8 => all(values, |v| Some(u8::from_le_bytes(v).into())),
            I16 => all(values, |v| Some(i16::from_le_bytes(v).into())),
            U16 => all(values, |v| Some(u16::from_le_bytes(v).into())),
            I32 => all(values, |v| Some(i32::from_le_bytes(v).into())),
            U32 => all(values, |v| Some(u32::from_le_bytes(v).into())),
            I64 => all(values, |v| Some(i64::from_le_bytes(v))),
            U64 => all(values, |v| i64::try_from(u64::from_le_bytes(v)).ok()),
            F32 => all(values, |v| whole(f32::from_le_bytes(v).into())),
            F64 => all(values, |v| whole(f64::from_le_bytes(v))),
            _ => None,
        }
    }
}

/// A problem without its place.
type Checked<T> = std::result::Result<T, &'static str>;

const CUT: &str = "not a whole MATLAB v5 file; it may be truncated: download it again";
const BOMB: &str = "its compressed arrays would take far more memory than images do: refused";

/// All arrays of a file; other elements are passed over.
pub(super) fn arrays(file: &Slice) -> Checked<Vec<Array>> {
    match file.get(124..HEADER) {
        Some([0, 1, b'I', b'M']) => {}
        Some([1, 0, b'M', b'I']) => return Err("from a big-endian machine; save it again"),
        _ => return Err("not a MATLAB v5 file (of `save -v7` or earlier)"),
    }
    let (mut rest, mut found) = (file.part(HEADER..file.len()), Vec::new());
    while !rest.is_empty() {
        let (kind, size) = tag(&rest).ok_or(CUT)?;
        let body = rest.checked_part(8, size).ok_or(CUT)?;
        match kind {
            MATRIX => found.extend(array(&body)?),
            COMPRESSED => {
                let inner = inflated(&body)?;
                if let Some((MATRIX, size)) = tag(&inner) {
                    found.extend(array(&inner.checked_part(8, size).ok_or(CUT)?)?);
                }
            }
            _ => {}
        }
        // Compressed elements are not padded.
        let whole = if kind == COMPRESSED { size } else { size.next_multiple_of(8) };
        rest = rest.part((8 + whole).min(rest.len())..rest.len());
    }
    Ok(found)
}

/// Type and size.
fn tag(bytes: &[u8]) -> Option<(u32, usize)> {
    let (kind, rest) = bytes.split_first_chunk()?;
    let size = u32::from_le_bytes(*rest.first_chunk()?);
    Some((u32::from_le_bytes(*kind), usize::try_from(size).ok()?))
}

/// The one element within a compressed one.
fn inflated(packed: &[u8]) -> Checked<Slice> {
    let mut stream = ZlibDecoder::new(packed);
    let mut head = [0; 8];
    stream.read_exact(&mut head).map_err(|_| CUT)?;
    let size = tag(&head).ok_or(CUT)?.1;
    if size as u64 > most_expanded(packed.len() as u64) {
        return Err(BOMB);
    }
    let mut all = vec![0; 8 + size];
    all[..8].copy_from_slice(&head);
    stream.read_exact(&mut all[8..]).map_err(|_| CUT)?;
    Ok(Slice::owned(all))
}

/// The elements of an array.
struct Elements(Slice);

impl Elements {
    fn next(&mut self) -> Checked<(u32, Slice)> {
        let (mut kind, mut size) = tag(&self.0).ok_or(CUT)?;
        let (mut start, mut end) = (8, size.saturating_add(8).next_multiple_of(8));
        if kind >> 16 != 0 {
            (size, kind) = ((kind >> 16) as usize, kind & 0xffff);
            (start, end) = (4, 8);
        }
        let body = self.0.checked_part(start, size).filter(|_| start + size <= end).ok_or(CUT)?;
        let length = self.0.len();
        self.0 = self.0.part(end.min(length)..length);
        Ok((kind, body))
    }
}

/// A numeric array; `None` for texts, cells, structures and complex numbers.
fn array(body: &Slice) -> Checked<Option<Array>> {
    let mut elements = Elements(body.clone());
    let (kind, flags) = elements.next()?;
    let &[class, more, ..] = &flags[..] else { return Err(CUT) };
    // From double precision to whole numbers of 64 bits.
    if kind != U32 || !(6..=15).contains(&class) || more & 8 != 0 {
        return Ok(None);
    }
    let (kind, dims) = elements.next()?;
    let dims = dims.as_chunks::<4>().0;
    if kind != I32 || dims.len() > MAX_DIMENSIONS {
        return Err(CUT);
    }
    let size = |d: &[u8; 4]| usize::try_from(i32::from_le_bytes(*d)).map_err(|_| CUT);
    let shape = dims.iter().map(size).collect::<Checked<_>>()?;
    let (kind, name) = elements.next()?;
    if kind != I8 {
        return Err(CUT);
    }
    let name = String::from_utf8_lossy(&name).into_owned();
    let (kind, values) = elements.next()?;
    Ok(Some(Array { name, shape, kind, values }))
}
