//! CIFAR-10 and CIFAR-100: the binary archives (`data_batch_1.bin`: label,
//! then 3,072 values) and the Python ones (pickled dictionaries of `data`
//! `[N, 3072]` and `labels`).
//!
//! Reference: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009.

use std::path::PathBuf;

use super::archive::{Slice, Store};
use super::pickle::{Data, Pickle};
use super::records::{Layout, Piece, Records, check_labels};
use heat_ood::{Error, Result};

const SIDE: usize = 32;
const VALUES: usize = 3 * SIDE * SIDE;

/// Open the `train` or (default) `test` split.
pub(super) fn open(store: Store, fine: bool, split: Option<&str>) -> Result<Records> {
    let train = match split {
        None | Some("test") => false,
        Some("train") => true,
        Some(other) => {
            return Err(Error::config("split", other, "CIFAR has the splits train and test"));
        }
    };
    let classes = if fine { 100 } else { 10 };
    let mut names: Vec<String> = match (fine, train) {
        (false, true) => (1..=5).map(|i| format!("data_batch_{i}")).collect(),
        (false, false) => vec!["test_batch".into()],
        (true, true) => vec!["train".into()],
        (true, false) => vec!["test".into()],
    };
    let binary = |name: &String| store.find(&format!("{name}.bin")).map(str::to_owned);
    let is_binary = names.iter().any(|n| binary(n).is_some());
    let found = |name: &String| match is_binary {
        true => binary(name),
        false => store.find(name).map(str::to_owned),
    };
    let first = names[0].clone();
    names = names.iter().filter_map(found).collect();
    if names.is_empty() {
        return Err(store.missing(&first));
    }
    let mut pieces = Vec::new();
    for name in &names {
        let (place, bytes, file) = (store.place(name), store.read(name)?, store.file(name));
        let piece = if is_binary {
            from_binary(place, file, bytes, fine)
        } else {
            from_pickle(place, file, &bytes, fine)
        }?;
        check_labels(&piece.place, piece.labels.as_deref().unwrap_or(&[]), classes)?;
        pieces.push(piece);
    }
    let listed = if fine { "fine_label_names.txt" } else { "batches.meta.txt" };
    let classes = match store.find(listed) {
        Some(name) => {
            let text = store.text(name)?;
            text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()
        }
        None => Vec::new(),
    };
    let name = store.path().display().to_string();
    let (width, height, notes) = (SIDE, SIDE, Vec::new());
    Ok(Records { name, width, height, layout: Layout::Planes, pieces, classes, notes })
}

fn from_binary(place: String, file: PathBuf, bytes: Slice, fine: bool) -> Result<Piece> {
    // CIFAR-100 has a coarse label before the fine one.
    let skip = if fine { 2 } else { 1 };
    let stride = skip + VALUES;
    if bytes.is_empty() || !bytes.len().is_multiple_of(stride) {
        let problem = format!(
            "{} bytes are not a whole number of records of {stride}: \
             truncated, or the other CIFAR?",
            bytes.len()
        );
        return Err(Error::format(place, problem));
    }
    let labels = bytes.chunks_exact(stride).map(|r| u32::from(r[skip - 1])).collect();
    Ok(Piece { place, file, bytes, stride, skip, labels: Some(labels) })
}

fn from_pickle(place: String, file: PathBuf, bytes: &Slice, fine: bool) -> Result<Piece> {
    let broken = |problem: String| Error::format(&place, problem);
    let pickle = Pickle::read(bytes).map_err(broken)?;
    let get = |key: &str| {
        pickle.get(key).ok_or_else(|| {
            let names = pickle.names().join(", ");
            broken(format!(
                "no dictionary with `{key}` in it ({names}); is it another file's name?"
            ))
        })
    };
    let key = if fine { "fine_labels" } else { "labels" };
    let labels = pickle
        .labels(get(key)?)
        .ok_or_else(|| broken(format!("`{key}` is not a list of labels")))?;
    let n = labels.len();
    let found = pickle.array(get("data")?, n * VALUES);
    // Not pixel after pixel, as others keep images.
    let shapes = [&[n, VALUES][..], &[n, 3, SIDE, SIDE]];
    let data = found.filter(|(_, shape)| shapes.contains(&&shape[..])).ok_or_else(|| {
        broken(format!("`data` is not an array of {n} × {VALUES} bytes, row-major"))
    })?;
    let bytes = match data.0 {
        Data::Within(range) => bytes.part(range),
        Data::Decoded(values) => Slice::owned(values),
    };
    Ok(Piece { place, file, bytes, stride: VALUES, skip: 0, labels: Some(labels) })
}
