//! SVHN, cropped digits: `test_32x32.mat`, MATLAB v5 with `X` `[32, 32, 3, N]`
//! and `y` `[N, 1]`, where 10 stands for the digit 0.
//!
//! Reference: Netzer et al., *Reading Digits in Natural Images with Unsupervised Feature Learning*, 2011.

use std::path::{Path, PathBuf};

use matfile::{MatFile, NumericData};

use super::archive::{Slice, read_file};
use super::records::{Layout, Piece, Records, check_labels};
use crate::error::{Error, Result};

/// Open a `.mat` file, or `test_32x32.mat` (or `train`, `extra`) in a folder.
pub(super) fn open(path: &Path, split: Option<&str>) -> Result<Records> {
    let path: PathBuf = match path.is_dir() {
        true => path.join(format!("{}_32x32.mat", split.unwrap_or("test"))),
        false => path.to_owned(),
    };
    let broken = |problem: &str| Error::format(&path, problem);
    let bytes = read_file(&path)?;
    // The crate trusts sizes that damaged files state.
    let parsed = std::panic::catch_unwind(|| MatFile::parse(&bytes[..]));
    let Ok(Ok(file)) = parsed else {
        return Err(broken("not a whole MATLAB v5 file; it may be truncated: download it again"));
    };
    let pictures = file.find_by_name("X").ok_or_else(|| broken("no array `X` in it"))?;
    let &[height, width, 3, n] = &pictures.size()[..] else {
        return Err(Error::Shape {
            place: path.display().to_string(),
            tensor: "X".into(),
            expected: "[height, width, 3, N]".into(),
            got: format!("{:?}", pictures.size()),
        });
    };
    let stride = Records::size(width, height, Layout::Columns);
    let NumericData::UInt8 { real, .. } = pictures.data() else {
        return Err(broken("`X` does not hold bytes"));
    };
    if stride == 0 || Some(real.len()) != stride.checked_mul(n) {
        return Err(broken("`X` holds fewer values than its shape says"));
    }
    let digits = file.find_by_name("y").and_then(|y| digits(y.data()));
    let labels = digits.filter(|labels| labels.len() == n).ok_or_else(|| {
        broken("no array `y` of one digit from 1 to 10 for each picture; is it truncated?")
    })?;
    let place = path.display().to_string();
    check_labels(&place, &labels, 10)?;
    let bytes = Slice::owned(real.clone());
    let pieces = vec![Piece { place: place.clone(), bytes, stride, skip: 0, labels: Some(labels) }];
    let classes = (0..10).map(|d| d.to_string()).collect();
    Ok(Records { name: place, width, height, layout: Layout::Columns, pieces, classes })
}

fn digits(data: &NumericData) -> Option<Vec<u32>> {
    let digit = |v: f64| match v {
        10.0 => Some(0),
        v if v.fract() == 0.0 && (0.0..10.0).contains(&v) => Some(v as u32),
        _ => None,
    };
    match data {
        NumericData::UInt8 { real, .. } => real.iter().map(|&v| digit(f64::from(v))).collect(),
        NumericData::Double { real, .. } => real.iter().map(|&v| digit(v)).collect(),
        _ => None,
    }
}
