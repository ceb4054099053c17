//! Labels in a file of their own.

use std::path::Path;

use super::FileFormat;
use super::memmap::label_values;
use crate::error::{Error, Result};
use crate::io::{Array, TensorFile, open_npy, open_npz};

/// The labels of an `.npy`, `.npz`, `.safetensors` or `.mmap` file.
pub(super) fn open_labels(path: &Path) -> Result<Array> {
    let absent = || Error::missing(path.display().to_string(), "array `label`", "name it so");
    match FileFormat::of(path) {
        Some(FileFormat::Npz) => Ok(open_npz(path, &["label"])?.pop().ok_or_else(absent)?.1),
        Some(FileFormat::Safetensors) => {
            TensorFile::open(path)?.array("label").ok_or_else(absent)?
        }
        Some(FileFormat::Memmap) => label_values(path),
        Some(FileFormat::Npy) | None => open_npy(path),
    }
}
