//! The rows of an `.npy` matrix, as they come.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Piece;
use crate::error::{Error, Result};
use crate::io::{Array, Dtype, NpyHeader, element};

/// Rows that are read one after the other.
pub(super) struct MatrixRows<'r> {
    path: PathBuf,
    reader: Box<dyn Read + 'r>,
    dtype: Dtype,
    swapped: bool,
    rows: usize,
    width: usize,
    done: usize,
}

impl<'r> MatrixRows<'r> {
    pub fn open(path: &Path, mut reader: Box<dyn Read + 'r>) -> Result<Self> {
        let bad = |problem: &str| Error::format(path, problem);
        let mut header = vec![0; 12];
        let mut read = |out: &mut [u8]| reader.read_exact(out).map_err(|e| broken(path, e));
        read(&mut header)?;
        let length = match header[6] {
            1 => 10 + usize::from(u16::from_le_bytes([header[8], header[9]])),
            _ => 12 + u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize,
        };
        if !(12..=1 << 16).contains(&length) {
            return Err(bad("not an .npy array, or its header is damaged"));
        }
        header.resize(length, 0);
        read(&mut header[12..])?;
        let NpyHeader { kind, by_column, shape, .. } = NpyHeader::read(&header).map_err(&bad)?;
        let Some((dtype, swapped)) = element(&kind).filter(|(dtype, _)| dtype.is_float()) else {
            return Err(bad(&format!(
                "type {kind:.20}; expected f2, f4 or f8: save it as `x.astype('float32')`"
            )));
        };
        let array = Array::owned(Vec::new(), dtype, &shape).squeezed();
        let &[rows, width] = &array.shape[..] else {
            return Err(bad(&format!("has shape {shape:?}, expected [N, D]")));
        };
        if by_column && rows > 1 && width > 1 {
            return Err(bad(
                "its columns lie one after the other, so that no row is whole before the last: \
                 save `numpy.ascontiguousarray(x)`",
            ));
        }
        if rows == 0 || width == 0 {
            return Err(bad(&format!("has shape {shape:?}: no values")));
        }
        Ok(MatrixRows { path: path.to_owned(), reader, dtype, swapped, rows, width, done: 0 })
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// The next rows, at most so many.
    pub fn read(&mut self, most: usize) -> Result<Piece> {
        let rows = most.min(self.rows - self.done);
        if rows == 0 {
            let mut more = [0];
            if self.reader.read(&mut more).map_err(Error::io("read", &self.path))? > 0 {
                let problem = format!("goes on after the {} rows of its shape", self.rows);
                return Err(Error::format(&self.path, problem));
            }
            return Ok(Piece::default());
        }
        let size = rows.checked_mul(self.width).and_then(|n| n.checked_mul(self.dtype.size()));
        let mut bytes = Vec::new();
        // What is promised need not come: memory is taken as it does.
        let size = size.unwrap_or(usize::MAX) as u64;
        let read = self.reader.by_ref().take(size).read_to_end(&mut bytes);
        read.map_err(Error::io("read", &self.path))?;
        if (bytes.len() as u64) < size {
            let whole = self.done + bytes.len() / (self.width * self.dtype.size());
            let problem = format!("ends after {whole} of {} rows: it was cut", self.rows);
            return Err(Error::format(&self.path, problem));
        }
        self.done += rows;
        let array = Array::owned(bytes, self.dtype, &[rows, self.width]);
        let array = if self.swapped { array.into_native(false, true) } else { array };
        Ok(Piece { arrays: vec![("avg".to_owned(), array)], names: None })
    }
}

fn broken(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            Error::format(path, "ends within the header of an .npy array: it was cut")
        }
        _ => Error::io("read", path)(error),
    }
}
