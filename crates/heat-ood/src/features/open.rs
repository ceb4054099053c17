//! How feature sets and labels are opened.

use std::path::Path;

use super::memmap::label_values;
use super::{FeatureSet, Field, FileFormat};
use crate::error::{Error, Result};
use crate::io::{Array, TensorFile, open_npy, open_npz};

/// What is known of a feature set besides its files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Feature dimension D: needed for raw memmaps without labels, checked
    /// for all others.
    pub dim: Option<usize>,
    /// D of raw memmaps where neither `dim` nor their labels tell it, for
    /// example that of the classifier's head.
    pub fallback_dim: Option<usize>,
}

impl OpenOptions {
    /// Check a set against `dim`.
    pub(super) fn check(&self, set: FeatureSet) -> Result<FeatureSet> {
        let Some(dim) = self.dim else {
            return Ok(set);
        };
        for field in &Field::ALL[..3] {
            if let Some(got) = set.dim(*field)
                && got != dim
            {
                return Err(Error::Shape {
                    place: set.name().to_owned(),
                    tensor: field.name().to_owned(),
                    expected: format!("[N, {dim}], because `dim` = {dim} was given"),
                    got: format!("[{}, {got}]", set.len()),
                });
            }
        }
        Ok(set)
    }
}

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
