//! The published code's memmaps: `feat.mmap`, `std.mmap`, `label.mmap`.
//!
//! Raw little-endian f64, row-major, without a header: `feat.mmap` (`avg`) and
//! `std.mmap` hold `[N, D]`, `label.mmap` holds `[N]`, class indices stored as
//! f64 (or as i64: both have eight bytes, and their values tell them apart).
//! `std.mmap` and `label.mmap` may be absent. N and D are nowhere written: the
//! number of labels gives N; without labels D must be known.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::OpenOptions;
use super::shard::{Shard, owned};
use crate::error::{Error, Result};
use crate::io::{Array, Bytes, Dtype, map};

/// The file that makes a directory a set of memmaps.
pub(super) const FEATURES: &str = "feat.mmap";
/// Standard deviations.
pub(super) const DEVIATIONS: &str = "std.mmap";
/// Labels.
pub(super) const LABELS: &str = "label.mmap";

/// Dimensions of common networks, to suggest.
const COMMON: [usize; 14] =
    [64, 128, 256, 342, 384, 512, 640, 768, 1024, 1280, 1536, 1664, 2048, 4096];

/// Integers up to here are exact in f64; as bits, they are not normal f64.
const LARGEST: f64 = (1u64 << 52) as f64;

/// The files of a directory and their arrays.
pub(super) fn open(directory: &Path, options: &OpenOptions) -> Result<(Vec<PathBuf>, Shard)> {
    let path = directory.join(FEATURES);
    let bytes = map(&path)?;
    let values = whole_values(&path, &bytes)?;
    let label_path = directory.join(LABELS);
    let labels = if label_path.exists() { Some(label_values(&label_path)?) } else { None };
    let dim = match &labels {
        Some(labels) => dim_from_labels(&path, values, labels.rows(), options)?,
        None => dim_as_told(&path, values, options)?,
    };
    let matrix = |bytes| Array {
        bytes,
        offset: 0,
        dtype: Dtype::F64,
        shape: vec![values / dim, dim],
        names: None,
    };
    let size = bytes.len();
    let mut files = vec![path];
    let mut arrays = vec![("avg".to_owned(), matrix(bytes))];
    let path = directory.join(DEVIATIONS);
    if path.exists() {
        let bytes = map(&path)?;
        if bytes.len() != size {
            let problem = format!(
                "has {} bytes and {FEATURES} beside it {size}, but both hold N × D f64 values: \
                 copy or create them again",
                bytes.len()
            );
            return Err(Error::format(path, problem));
        }
        arrays.push(("std".to_owned(), matrix(bytes)));
        files.push(path);
    }
    if let Some(labels) = labels {
        arrays.push(("label".to_owned(), labels));
        files.push(label_path);
    }
    let mut shard = Shard::new(directory, arrays)?;
    shard.place = files[0].display().to_string();
    if shard.label.is_some() {
        shard.label_place = directory.join(LABELS).display().to_string();
    }
    Ok((files, shard))
}

/// Number of f64 values of a file.
fn whole_values(path: &Path, bytes: &Arc<Bytes>) -> Result<usize> {
    if bytes.len().is_multiple_of(8) {
        return Ok(bytes.len() / 8);
    }
    let problem = format!(
        "has {} bytes, which are no whole number of f64 values (8 bytes each): copy or create it again",
        bytes.len()
    );
    Err(Error::format(path, problem))
}

fn dim_from_labels(
    path: &Path,
    values: usize,
    rows: usize,
    options: &OpenOptions,
) -> Result<usize> {
    if !values.is_multiple_of(rows) {
        let fits = options.dim.or(options.fallback_dim).map_or(String::new(), |d| {
            format!("; D = {d} would need {} labels", values as f64 / d.max(1) as f64)
        });
        let problem = format!(
            "holds {values} f64 values, which {LABELS} with {rows} labels does not divide{fits}: \
             one of the two files is not whole, or they do not belong together"
        );
        return Err(Error::format(path, problem));
    }
    let dim = values / rows;
    match options.dim {
        Some(told) if told != dim => {
            let problem = format!(
                "{} holds {values} f64 values and {LABELS} {rows} labels, so D = {dim}",
                path.display()
            );
            Err(Error::config("dim", told, problem))
        }
        _ => Ok(dim),
    }
}

fn dim_as_told(path: &Path, values: usize, options: &OpenOptions) -> Result<usize> {
    let fitting: Vec<String> =
        COMMON.into_iter().filter(|d| values.is_multiple_of(*d)).map(|d| d.to_string()).collect();
    let fit = match fitting.is_empty() {
        true => String::new(),
        false => format!("; among the usual ones, these do: {}", fitting.join(", ")),
    };
    let Some(dim) = options.dim.or(options.fallback_dim) else {
        let remedy = format!(
            "give the feature dimension D (or the classifier's head): \
             a divisor of its {values} f64 values{fit}"
        );
        let what = format!("header, and there is no {LABELS} beside it");
        return Err(Error::missing(path.display().to_string(), what, remedy));
    };
    if dim == 0 || !values.is_multiple_of(dim) {
        let problem = format!(
            "{} has {} bytes, {values} f64 values; D must divide that{fit}",
            path.display(),
            values * 8
        );
        return Err(Error::config("dim", dim, problem));
    }
    Ok(dim)
}

/// The labels of a `label.mmap`, as i64, in memory (8·N bytes).
///
/// Small integers stored as i64 are subnormal (or, negative, NaN) when read
/// as f64, so one reading at most gives whole numbers.
pub(super) fn label_values(path: &Path) -> Result<Array> {
    let bytes = map(path)?;
    let rows = whole_values(path, &bytes)?;
    let words = || bytes.as_chunks::<8>().0.iter();
    let whole = |v: f64| v.abs() <= LARGEST && v.fract() == 0.0;
    let wrong = words().position(|w| !whole(f64::from_le_bytes(*w)));
    let Some(row) = wrong else {
        let labels = words().flat_map(|w| (f64::from_le_bytes(*w) as i64).to_le_bytes());
        return Ok(owned(labels.collect(), Dtype::I64, &[rows]));
    };
    if words().all(|w| i64::from_le_bytes(*w).unsigned_abs() < 1 << 52) {
        return Ok(Array { bytes, offset: 0, dtype: Dtype::I64, shape: vec![rows], names: None });
    }
    let value = words().nth(row).map_or(f64::NAN, |w| f64::from_le_bytes(*w));
    let problem = format!(
        "row {row} has label {value}; expected N whole numbers stored as f64 (or as i64): \
         write them as `y.astype('float64')`"
    );
    Err(Error::format(path, problem))
}
