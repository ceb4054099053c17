//! Labels in a file of their own.

use std::path::Path;
use std::sync::Arc;

use super::memmap::label_values;
use super::{FileFormat, table};
use crate::error::{Error, Result};
use crate::io::{Array, Npz, TensorFile, open_npy};

/// The labels of an `.npy`, `.npz`, `.safetensors`, `.mmap` or `.csv` file.
pub(super) fn open_labels(path: &Path) -> Result<Array> {
    let absent = || Error::missing(path.display().to_string(), "array `label`", "name it so");
    match FileFormat::of(path) {
        Some(FileFormat::Npz) => {
            let mut npz = Npz::open(path)?;
            let only = npz.entries()?.pop().map(|e| e.name);
            let found = match npz.arrays(&["label"])?.pop() {
                // One array has no need of a name.
                None if npz.entries()?.len() == 1 => {
                    npz.arrays(&[&only.unwrap_or_default()])?.pop()
                }
                found => found,
            };
            Ok(found.ok_or_else(absent)?.1)
        }
        Some(FileFormat::Safetensors) => {
            let file = TensorFile::open(path)?;
            let mut label = file.array("label").ok_or_else(absent)??;
            label.names = file.class_names()?.map(Arc::new);
            Ok(label)
        }
        Some(FileFormat::Memmap) => label_values(path),
        Some(FileFormat::Csv) => table::open_labels(path),
        Some(FileFormat::Npy) | None => open_npy(path),
    }
}
