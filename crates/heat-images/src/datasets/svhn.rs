//! SVHN, cropped digits: `test_32x32.mat`, MATLAB v5 with `X` `[32, 32, 3, N]`
//! and `y` `[N, 1]`, where 10 stands for the digit 0.
//!
//! Reference: Netzer et al., *Reading Digits in Natural Images with Unsupervised Feature Learning*, 2011.

use std::path::{Path, PathBuf};

use super::archive::read_file;
use super::matlab::{self, Array, U8};
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
    let names: Vec<&str> = arrays.iter().map(|a| a.name.as_str()).collect();
    let absent = format!("no array `X` in it, as SVHN has; it holds: {}", names.join(", "));
    let mut take = |name| arrays.iter().position(|a| a.name == name).map(|i| arrays.remove(i));
    let images = take("X").ok_or_else(|| broken(&absent))?;
    let &[height, width, 3, n] = &images.shape[..] else {
        return Err(Error::Shape {
            place: path.display().to_string(),
            tensor: "X".into(),
            expected: "[height, width, 3, N]".into(),
            got: format!("{:?}", images.shape),
        });
    };
    if images.kind != U8 {
        return Err(broken("`X` does not hold bytes; save it as uint8, 0 to 255"));
    }
    let stride = Records::size(width, height, Layout::Columns).filter(|size| *size > 0);
    let whole = stride.and_then(|stride| stride.checked_mul(n));
    let Some(stride) = stride.filter(|_| Some(images.values.len()) == whole) else {
        return Err(broken("`X` holds other values than its shape says"));
    };
    let labels = take("y").ok_or_else(|| broken("no array `y` in it; is it truncated?"))?;
    let labels = digits(&labels).filter(|labels| labels.len() == n).ok_or_else(|| {
        broken("`y` is not one digit for each image, 0 to 9, or 10 for the digit 0")
    })?;
    let place = path.display().to_string();
    check_labels(&place, &labels, 10)?;
    let bytes = images.values;
    let pieces = vec![Piece {
        place: place.clone(),
        file: path,
        bytes,
        stride,
        skip: 0,
        labels: Some(labels),
    }];
    let classes = (0..10).map(|d| d.to_string()).collect();
    Ok(Records {
        name: place,
        width,
        height,
        layout: Layout::Columns,
        pieces,
        classes,
        notes: Vec::new(),
    })
}

fn digits(array: &Array) -> Option<Vec<u32>> {
    let digit = |v: &i64| match v {
        10 => Some(0),
        0..10 => Some(*v as u32),
        _ => None,
    };
    array.integers()?.iter().map(digit).collect()
}
