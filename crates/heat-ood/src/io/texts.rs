//! Texts of a file, one a row, read where they lie.

use std::borrow::Cow;

use super::npy_text::Text;
use super::{Array, Dtype};

/// Longest text in bytes: that of a path.
pub(crate) const LONGEST: usize = 4096;

/// Texts, one a row. A clone shares their bytes.
#[derive(Clone)]
pub(crate) struct Texts {
    bytes: Array,
    form: Form,
    rows: usize,
}

#[derive(Clone)]
enum Form {
    /// UTF-8, one after the other, with where each begins and where the last ends.
    Joined(Array),
    /// numpy's, of equal width.
    Fixed(Text),
}

impl Texts {
    /// UTF-8 texts one after the other; text `i` lies between offsets `i` and `i + 1`.
    ///
    /// # Errors
    /// If the offsets do not ascend within the bytes, or a text is too long, holds NUL or is no
    /// UTF-8: which row, and what is wrong.
    pub(crate) fn joined(bytes: Array, offsets: Array) -> Result<Self, String> {
        if bytes.dtype != Dtype::U8 || bytes.shape.len() != 1 {
            return Err("is no vector of bytes (U8)".into());
        }
        let ends = offsets.shape.len() == 1 && offsets.rows() > 0 && !offsets.dtype.is_float();
        if !ends {
            return Err("has no vector of offsets, one more than rows".into());
        }
        let (rows, length) = (offsets.rows() - 1, bytes.rows() as i64);
        let mut start = offsets.integer(0);
        for row in 0..rows {
            let end = offsets.integer(row + 1);
            if start < 0 || end < start || end > length {
                return Err(format!("row {row} lies from byte {start} to {end} of {length}"));
            }
            start = end;
        }
        let texts = Texts { bytes, form: Form::Joined(offsets), rows };
        texts.check()
    }

    /// Texts of equal width.
    ///
    /// # Errors
    /// As [`Texts::joined`].
    pub(super) fn fixed(bytes: Array, text: Text) -> Result<Self, String> {
        let rows = bytes.rows() / text.bytes();
        Texts { bytes, form: Form::Fixed(text), rows }.check()
    }

    /// Texts in memory.
    pub(crate) fn owned<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, String> {
        let mut joined = Joined::default();
        texts.into_iter().for_each(|text| joined.push(text.as_ref().as_bytes()));
        joined.finish()
    }

    fn check(self) -> Result<Self, String> {
        for row in 0..self.rows {
            match self.read(row) {
                Ok(text) if text.len() > LONGEST => {
                    let length = text.len();
                    return Err(format!("row {row} has {length} bytes, more than {LONGEST}"));
                }
                Ok(text) if text.contains('\0') => return Err(format!("row {row} holds NUL")),
                Ok(_) => {}
                Err(problem) => return Err(format!("row {row} {problem}")),
            }
        }
        Ok(self)
    }

    /// Number of texts.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// The text of a row.
    pub(crate) fn get(&self, row: usize) -> Cow<'_, str> {
        // It was read before.
        self.read(row).unwrap_or_default()
    }

    fn read(&self, row: usize) -> Result<Cow<'_, str>, &'static str> {
        match &self.form {
            Form::Joined(offsets) => {
                let (start, end) = (offsets.integer(row), offsets.integer(row + 1));
                let bytes = self.bytes.bytes(start as usize, (end - start) as usize);
                std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| "is no UTF-8 text")
            }
            Form::Fixed(text) => {
                let width = text.bytes();
                text.decode(self.bytes.bytes(row * width, width)).map(Cow::Owned)
            }
        }
    }
}

/// Texts that are being put together.
#[derive(Default)]
pub(crate) struct Joined {
    bytes: Vec<u8>,
    ends: Vec<i64>,
}

impl Joined {
    pub(crate) fn push(&mut self, text: &[u8]) {
        self.bytes.extend(text);
        self.ends.push(self.bytes.len() as i64);
    }

    /// The texts.
    ///
    /// # Errors
    /// As [`Texts::joined`].
    pub(crate) fn finish(self) -> Result<Texts, String> {
        let (count, length) = (self.ends.len() + 1, self.bytes.len());
        let offsets = std::iter::once(0).chain(self.ends).flat_map(i64::to_le_bytes).collect();
        let offsets = Array::owned(offsets, Dtype::I64, &[count]);
        Texts::joined(Array::owned(self.bytes, Dtype::U8, &[length]), offsets)
    }
}

#[cfg(test)]
mod tests {
    use super::super::npy_text::text_width;
    use super::*;

    fn joined(bytes: &[u8], offsets: &[i64]) -> Result<Texts, String> {
        let raw = offsets.iter().flat_map(|o| o.to_le_bytes()).collect();
        let offsets = Array::owned(raw, Dtype::I64, &[offsets.len()]);
        Texts::joined(Array::owned(bytes.to_vec(), Dtype::U8, &[bytes.len()]), offsets)
    }

    #[test]
    fn texts_come_back_from_either_form() {
        let texts = joined("a/ä.pngb".as_bytes(), &[0, 8, 8, 9]).unwrap();
        assert_eq!((0..3).map(|i| texts.get(i)).collect::<Vec<_>>(), ["a/ä.png", "", "b"]);
        let texts = Texts::owned(["x", "", "yz"]).unwrap();
        assert_eq!((texts.len(), texts.get(2)), (3, "yz".into()));
        let points = "ab\0äöü".chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
        let array = Array::owned(points, Dtype::U8, &[24]);
        let texts = Texts::fixed(array, text_width(">U3").unwrap()).unwrap();
        assert_eq!((texts.get(0), texts.get(1)), ("ab".into(), "äöü".into()));
    }

    #[test]
    fn bad_forms_are_refused_with_their_row() {
        let refused = |bytes: &[u8], offsets: &[i64], part: &str| {
            let problem = joined(bytes, offsets).err().unwrap();
            assert!(problem.contains(part), "{problem}");
        };
        refused(b"abc", &[], "no vector of offsets");
        refused(b"abc", &[0, 2, 1], "row 1 lies from byte 2 to 1 of 3");
        refused(b"abc", &[-1, 2], "row 0 lies");
        refused(b"abc", &[0, 1, 4], "row 1 lies");
        refused(b"abc", &[0, i64::MAX], "row 0 lies");
        refused("aä".as_bytes(), &[0, 2, 3], "row 0 is no UTF-8");
        refused(b"ab\0", &[0, 1, 3], "row 1 holds NUL");
        refused(&[b'x'; LONGEST + 1], &[0, 0, LONGEST as i64 + 1], "row 1 has 4097 bytes");
        let points = [0xd800u32, 0x41].iter().flat_map(|p| p.to_le_bytes()).collect();
        let array = Array::owned(points, Dtype::U8, &[8]);
        let problem = Texts::fixed(array, text_width("<U1").unwrap()).err().unwrap();
        assert!(problem.starts_with("row 0 holds a text that is no valid"), "{problem}");
    }
}
