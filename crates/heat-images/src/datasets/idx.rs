//! IDX files, the format of the MNIST family: `t10k-images-idx3-ubyte`, plain
//! or `.gz`, with `t10k-labels-idx1-ubyte` beside it where it is there; also
//! in the directories where torchvision puts them (`MNIST/raw`).

use std::path::{Path, PathBuf};

use super::archive::{Store, base, read_plain};
use super::records::{Layout, Piece, Records};
use heat_ood::{Error, Result};

/// Open an image file, or that of a split in a directory.
pub(super) fn open(path: &Path, split: Option<&str>) -> Result<Records> {
    let path: PathBuf = if path.is_dir() { in_directory(path, split)? } else { path.to_owned() };
    let bytes = read_plain(&path)?;
    let shape = header(&path, &bytes, 3)?;
    let (n, height, width) = (shape[0], shape[1], shape[2]);
    let stride = Records::size(width, height, Layout::Grey).unwrap_or(0);
    let values = bytes.part(16..bytes.len());
    if stride == 0 || Some(values.len()) != stride.checked_mul(n) {
        let problem = format!(
            "{n} images of {width}×{height} are {} bytes, and there are {}: truncated?",
            stride.saturating_mul(n),
            values.len()
        );
        return Err(Error::format(path, problem));
    }
    let place = path.display().to_string();
    let labels = labels_beside(&path, n)?;
    let pieces =
        vec![Piece { place: place.clone(), file: path, bytes: values, stride, skip: 0, labels }];
    Ok(Records {
        name: place,
        width,
        height,
        layout: Layout::Grey,
        pieces,
        classes: Vec::new(),
        notes: Vec::new(),
    })
}

/// Whether a file is one of these, by its name.
pub(super) fn is_idx(name: &str) -> bool {
    let name = base(name).to_lowercase();
    ["-ubyte", "-idx1", "-idx3", ".idx1", ".idx3"].iter().any(|part| name.contains(part))
}

/// The one file of a split's images below a directory.
fn in_directory(directory: &Path, split: Option<&str>) -> Result<PathBuf> {
    let stems: [&str; 2] = match split {
        None | Some("test") => ["t10k", "test"],
        Some("train") => ["train", "train"],
        Some(other) => {
            return Err(Error::config("split", other, "IDX files have the splits train and test"));
        }
    };
    let store = Store::open(directory)?;
    let is_wanted = |name: &&str| {
        let name = base(name).to_lowercase();
        is_idx(&name) && name.contains("images") && stems.iter().any(|stem| name.contains(stem))
    };
    let parent = |name: &str| name.rsplit_once('/').map_or(String::new(), |p| p.0.to_owned());
    let mut found: Vec<&str> = store.names().filter(is_wanted).collect();
    // The unpacked file beside the packed one.
    found.sort_by_key(|name| name.ends_with(".gz"));
    let Some(first) = found.first() else {
        return Err(store.missing(&format!("{}-images-idx3-ubyte", stems[0])));
    };
    let unpacked = first.trim_end_matches(".gz");
    if let Some(other) = found.iter().find(|n| n.trim_end_matches(".gz") != unpacked) {
        let problem = match parent(other) == parent(first) {
            true => format!("holds `{first}` and `{other}`: give one of these files"),
            false => format!("holds `{first}` and `{other}`: give one of their directories"),
        };
        return Err(Error::format(directory, problem));
    }
    Ok(directory.join(first))
}

/// Sizes of an IDX file of bytes: two zeros, type 8, number of dimensions,
/// then each dimension, big-endian.
fn header(path: &Path, bytes: &[u8], dimensions: usize) -> Result<Vec<usize>> {
    let wanted = [0, 0, 8, dimensions as u8];
    if !bytes.starts_with(&wanted) || bytes.len() < 4 + 4 * dimensions {
        let problem = format!("not an IDX file of bytes with {dimensions} dimension(s)");
        return Err(Error::format(path, problem));
    }
    let sizes = bytes[4..4 + 4 * dimensions].as_chunks::<4>().0;
    Ok(sizes.iter().map(|s| u32::from_be_bytes(*s) as usize).collect())
}

fn labels_beside(path: &Path, n: usize) -> Result<Option<Vec<u32>>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.replace("images", "labels").replace("idx3", "idx1");
    let path = path.with_file_name(name);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = read_plain(&path)?;
    let found = header(&path, &bytes, 1)?[0];
    if found != n || bytes.len() != 8 + n {
        let problem = format!("{found} labels for {n} images");
        return Err(Error::format(path, problem));
    }
    Ok(Some(bytes[8..].iter().map(|&v| u32::from(v)).collect()))
}
