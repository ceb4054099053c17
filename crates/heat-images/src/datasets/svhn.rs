//! SVHN, cropped digits: `test_32x32.mat`, MATLAB v5 with `X` `[32, 32, 3, N]`
//! and `y` `[N, 1]`, where 10 stands for the digit 0.
//!
//! Reference: Netzer et al., *Reading Digits in Natural Images with Unsupervised Feature Learning*, 2011.

use std::path::{Path, PathBuf};

use super::archive::read_file;
use super::matlab::{self, Array, F64, U8};
use super::records::{Layout, Piece, Records, check_labels};
use heat_ood::{Error, Result};

/// Open a `.mat` file, or `test_32x32.mat` (or `train`, `extra`) in a directory.
pub(super) fn open(path: &Path, split: Option<&str>) -> Result<Records> {
    let path: PathBuf = match path.is_dir() {
        true => path.join(format!("{}_32x32.mat", split.unwrap_or("test"))),
        false => path.to_owned(),
    };
    let broken = |problem: &str| Error::format(&path, problem);
    let bytes = read_file(&path)?;
    let mut arrays = matlab::arrays(&bytes).map_err(broken)?;
    let mut take = |name| arrays.iter().position(|a| a.name == name).map(|i| arrays.remove(i));
    let images = take("X").ok_or_else(|| broken("no array `X` in it"))?;
    let &[height, width, 3, n] = &images.shape[..] else {
        return Err(Error::Shape {
            place: path.display().to_string(),
            tensor: "X".into(),
            expected: "[height, width, 3, N]".into(),
            got: format!("{:?}", images.shape),
        });
    };
    if images.kind != U8 {
        return Err(broken("`X` does not hold bytes"));
    }
    let stride = Records::size(width, height, Layout::Columns).filter(|size| *size > 0);
    let whole = stride.and_then(|stride| stride.checked_mul(n));
    let Some(stride) = stride.filter(|_| Some(images.values.len()) == whole) else {
        return Err(broken("`X` holds other values than its shape says"));
    };
    let labels = take("y").and_then(|y| digits(&y)).filter(|labels| labels.len() == n);
    let labels = labels.ok_or_else(|| {
        broken("no array `y` of one digit from 1 to 10 for each image; is it truncated?")
    })?;
    let place = path.display().to_string();
    check_labels(&place, &labels, 10)?;
    let bytes = images.values;
    let pieces = vec![Piece { place: place.clone(), bytes, stride, skip: 0, labels: Some(labels) }];
    let classes = (0..10).map(|d| d.to_string()).collect();
    Ok(Records { name: place, width, height, layout: Layout::Columns, pieces, classes })
}

fn digits(array: &Array) -> Option<Vec<u32>> {
    let digit = |v: f64| match v {
        10.0 => Some(0),
        v if v.fract() == 0.0 && (0.0..10.0).contains(&v) => Some(v as u32),
        _ => None,
    };
    let values = &array.values;
    match array.kind {
        U8 => values.iter().map(|&v| digit(f64::from(v))).collect(),
        F64 => values.as_chunks().0.iter().map(|v| digit(f64::from_le_bytes(*v))).collect(),
        _ => None,
    }
}
