//! Feature sets in files, read whole and converted.

use std::fs;
use std::path::Path;

use heat_ood::Silent;
use heat_ood::features::{
    ConvertConfig, Converted, FeatureSet, Field, OpenOptions, Pooling, convert,
};
use tempfile::TempDir;

pub const AVG: Field = Field::Features(Pooling::Avg);
pub const STD: Field = Field::Features(Pooling::Std);

pub fn all(set: &FeatureSet, field: Field) -> Vec<f32> {
    let mut out = vec![0.0; set.len() * set.dim(field).unwrap()];
    set.read(field, 0..set.len(), &mut out).unwrap();
    out
}

/// A directory with the memmaps that are given.
pub fn memmaps(files: &[(&str, Vec<u8>)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(directory.path().join(format!("{name}.mmap")), bytes).unwrap();
    }
    directory
}

pub fn dim(dim: usize) -> OpenOptions {
    OpenOptions { dim: Some(dim), ..OpenOptions::default() }
}

pub fn run(set: &FeatureSet, out: &Path, config: &ConvertConfig) -> heat_ood::Result<Converted> {
    convert(set, None, out, config, &mut Silent)
}
