//! Bytes of a file, mapped or in memory, and typed views of them.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::math::blocks;

/// The bytes of one file.
pub enum Bytes {
    /// Mapped, read-only.
    Mapped(Mmap),
    /// In memory.
    Owned(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(m) => m,
            Bytes::Owned(v) => v,
        }
    }
}

/// Map a whole file.
///
/// # Errors
/// If it cannot be read, is not a regular file, or is empty.
pub fn map(path: &Path) -> Result<Arc<Bytes>> {
    // Before opening it, because opening a pipe waits for a writer.
    let meta = std::fs::metadata(path).map_err(Error::io("open", path))?;
    if !meta.is_file() {
        return Err(Error::format(path, "not a regular file"));
    }
    if meta.len() == 0 {
        return Err(Error::format(path, "the file is empty"));
    }
    map_file(path, &File::open(path).map_err(Error::io("open", path))?)
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
    Ok(Arc::new(Bytes::Mapped(map)))
}

/// SHA-256 of a file's bytes, in hexadecimal.
///
/// # Errors
/// If it cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
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

/// Element types of matrices and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F16,
    Bf16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

impl Dtype {
    pub(super) fn size(self) -> usize {
        match self {
            Dtype::I8 | Dtype::U8 => 1,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
        }
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64)
    }
}

/// A row-major array within some bytes (little-endian).
#[derive(Clone)]
pub(super) struct Array {
    pub(super) bytes: Arc<Bytes>,
    pub(super) offset: usize,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

impl Array {
    pub(super) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    pub(super) fn cols(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }

    /// A matrix of one column as a vector.
    pub(super) fn into_column(mut self) -> Self {
        if self.shape.len() == 2 && self.shape[1] == 1 {
            self.shape.truncate(1);
        }
        self
    }

    /// A copy in memory, row-major and little-endian, of an array stored
    /// column by column (2-D), big-endian, or both.
    pub(super) fn into_native(self, by_column: bool, swapped: bool) -> Self {
        let size = self.dtype.size();
        let raw = self.raw(0, self.shape.iter().product());
        let mut out =
            if by_column { transposed(raw, self.rows(), self.cols(), size) } else { raw.to_vec() };
        if swapped {
            out.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Array { bytes: Arc::new(Bytes::Owned(out)), offset: 0, ..self }
    }

    fn raw(&self, start: usize, len: usize) -> &[u8] {
        let size = self.dtype.size();
        &self.bytes[self.offset + start * size..][..len * size]
    }

    /// `len` elements from `start` on as they lie there, if that is as f32.
    pub(super) fn as_f32(&self, start: usize, len: usize) -> Option<&[f32]> {
        if self.dtype != Dtype::F32 || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(self.raw(start, len)).ok()
    }

    /// Elements `start..start + out.len()` as f32.
    pub(super) fn read_f32(&self, start: usize, out: &mut [f32]) {
        let raw = self.raw(start, out.len());
        match self.dtype {
            Dtype::F16 => convert_halves(raw, out, half::f16::from_le_bytes, |h, o| {
                h.convert_to_f32_slice(o);
            }),
            Dtype::Bf16 => convert_halves(raw, out, half::bf16::from_le_bytes, |h, o| {
                h.convert_to_f32_slice(o);
            }),
            Dtype::F32 => {
                for (o, b) in out.iter_mut().zip(raw.as_chunks().0) {
                    *o = f32::from_le_bytes(*b);
                }
            }
            Dtype::F64 => {
                for (o, b) in out.iter_mut().zip(raw.as_chunks().0) {
                    *o = f64::from_le_bytes(*b) as f32;
                }
            }
            _ => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = self.integer(start + i) as f32;
                }
            }
        }
    }

    /// Elements `start..start + out.len()` as f64.
    pub(super) fn read_f64(&self, start: usize, out: &mut [f64]) {
        if self.dtype == Dtype::F64 {
            let raw = self.raw(start, out.len());
            for (o, b) in out.iter_mut().zip(raw.as_chunks().0) {
                *o = f64::from_le_bytes(*b);
            }
            return;
        }
        let mut single = vec![0.0; out.len()];
        self.read_f32(start, &mut single);
        for (o, s) in out.iter_mut().zip(single) {
            *o = f64::from(s);
        }
    }

    /// Element `i` of an integer array; values beyond i64 saturate.
    pub(super) fn integer(&self, i: usize) -> i64 {
        let raw = self.raw(i, 1);
        macro_rules! get {
            ($t:ty) => {
                i64::try_from(<$t>::from_le_bytes(raw.try_into().unwrap_or_default()))
                    .unwrap_or(i64::MAX)
            };
        }
        #[allow(clippy::unnecessary_fallible_conversions)]
        match self.dtype {
            Dtype::I8 => get!(i8),
            Dtype::I16 => get!(i16),
            Dtype::I32 => get!(i32),
            Dtype::I64 => get!(i64),
            Dtype::U8 => get!(u8),
            Dtype::U16 => get!(u16),
            Dtype::U32 => get!(u32),
            Dtype::U64 => get!(u64),
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64 => i64::MIN,
        }
    }
}

/// Columns (`[cols, rows]` elements of `size` bytes) as rows, by square tiles
/// that stay in the cache.
fn transposed(columns: &[u8], rows: usize, cols: usize, size: usize) -> Vec<u8> {
    let mut out = vec![0; columns.len()];
    for r in blocks(rows, 64) {
        for c in blocks(cols, 64) {
            for i in r.clone() {
                for j in c.clone() {
                    let from = (j * rows + i) * size;
                    let to = (i * cols + j) * size;
                    out[to..to + size].copy_from_slice(&columns[from..from + size]);
                }
            }
        }
    }
    out
}

/// Half-precision values through the processor's conversion instructions.
/// Mapped data need not be aligned, so they go by way of a small buffer.
fn convert_halves<H: Copy + Default>(
    raw: &[u8],
    out: &mut [f32],
    from: fn([u8; 2]) -> H,
    convert: impl Fn(&[H], &mut [f32]),
) {
    let mut halves = [H::default(); 256];
    for (raw, out) in raw.chunks(512).zip(out.chunks_mut(256)) {
        for (h, b) in halves.iter_mut().zip(raw.as_chunks().0) {
            *h = from(*b);
        }
        convert(&halves[..out.len()], out);
    }
}
