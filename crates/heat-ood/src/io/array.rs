//! Typed row-major arrays within some bytes.

use std::sync::Arc;

use half::slice::HalfFloatSliceExt;

use super::Bytes;
use crate::math::blocks;

/// Element types of matrices and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
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
    pub(crate) fn size(self) -> usize {
        match self {
            Dtype::I8 | Dtype::U8 => 1,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64)
    }
}

/// What the integers of an array stand for, by their value.
pub(crate) type Names = Arc<Vec<String>>;

/// A row-major array within some bytes (little-endian).
#[derive(Clone)]
pub(crate) struct Array {
    pub(crate) bytes: Arc<Bytes>,
    pub(crate) offset: usize,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Of texts, these are the numbers: in the order of the texts.
    pub(crate) names: Option<Names>,
}

impl Array {
    /// An array of its own bytes.
    pub(crate) fn owned(bytes: Vec<u8>, dtype: Dtype, shape: &[usize]) -> Self {
        let shape = shape.to_vec();
        Array { bytes: Arc::new(bytes.into()), offset: 0, dtype, shape, names: None }
    }

    /// Without the dimensions of one element after the first: `[N, D, 1, 1]`
    /// and `[N, 1, D]` are `[N, D]`, `[N, 1]` and `[N, 1, 1]` are `[N, 1]`.
    pub(crate) fn squeezed(mut self) -> Self {
        if self.shape.len() > 2 {
            let mut more = self.shape.split_off(1);
            more.retain(|n| *n != 1);
            if more.is_empty() {
                more.push(1);
            }
            self.shape.extend(more);
        }
        self
    }

    pub(crate) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    pub(crate) fn cols(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }

    /// A matrix of one column, or of one row, as a vector.
    pub(crate) fn into_column(self) -> Self {
        let mut array = self.squeezed();
        match array.shape[..] {
            [n, 1] | [1, n] => array.shape = vec![n],
            _ => {}
        }
        array
    }

    /// A copy in memory, row-major and little-endian, of an array stored
    /// column by column (2-D), big-endian, or both.
    pub(crate) fn into_native(self, by_column: bool, swapped: bool) -> Self {
        let size = self.dtype.size();
        let raw = self.raw(0, self.shape.iter().product());
        let mut out =
            if by_column { transposed(raw, self.rows(), self.cols(), size) } else { raw.to_vec() };
        if swapped {
            out.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Array { bytes: Arc::new(out.into()), offset: 0, ..self }
    }

    fn raw(&self, start: usize, len: usize) -> &[u8] {
        let size = self.dtype.size();
        &self.bytes[self.offset + start * size..][..len * size]
    }

    /// `len` elements of a vector of bytes from `start` on.
    pub(crate) fn bytes(&self, start: usize, len: usize) -> &[u8] {
        self.raw(start, len)
    }

    /// `len` elements from `start` on as they lie there, if that is as f32.
    pub(crate) fn as_f32(&self, start: usize, len: usize) -> Option<&[f32]> {
        if self.dtype != Dtype::F32 || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(self.raw(start, len)).ok()
    }

    /// Elements `start..start + out.len()` as f32.
    pub(crate) fn read_f32(&self, start: usize, out: &mut [f32]) {
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
    pub(crate) fn read_f64(&self, start: usize, out: &mut [f64]) {
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
    pub(crate) fn integer(&self, i: usize) -> i64 {
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
