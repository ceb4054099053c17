//! Reading what others write: published memmaps, other orders and types of .npy, labels apart.

use crate::common;

use std::fs;

use common::bytes::{contains, f64s, i64s, npy};
use common::sets::*;
use heat_ood::features::{ConvertConfig, FeatureSet, OpenOptions};

fn refusal(files: &[(&str, Vec<u8>)], options: &OpenOptions) -> String {
    let directory = memmaps(files);
    FeatureSet::open_with(directory.path(), options).err().expect("refused").to_string()
}

fn fallback(dim: usize) -> OpenOptions {
    OpenOptions { fallback_dim: Some(dim), ..OpenOptions::default() }
}

#[test]
fn memmaps_with_and_without_labels() {
    let values: Vec<f64> = (0..6).map(|i| f64::from(i) / 4.0).collect();
    let negative: Vec<f64> = values.iter().map(|v| -v).collect();
    let want: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    let feat = ("feat", f64s(&values));
    // The labels give N = 3, so D = 2; f64 and i64 labels alike.
    for labels in [f64s(&[0.0, 2.0, 1.0]), i64s(&[0, 2, 1])] {
        let directory = memmaps(&[feat.clone(), ("std", f64s(&negative)), ("label", labels)]);
        let set = FeatureSet::open(directory.path()).unwrap();
        assert_eq!((set.len(), set.dim(AVG), set.dim(STD)), (3, Some(2), Some(2)));
        assert_eq!((all(&set, AVG), all(&set, STD)[5]), (want.clone(), -1.25));
        assert_eq!(set.labels(0..3, 3).unwrap(), [0, 2, 1]);
        let names: Vec<String> = set.digests().unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["feat.mmap", "std.mmap", "label.mmap"]);
        // A head's D that is another does not count here: the labels decide.
        assert_eq!(
            FeatureSet::open_with(directory.path(), &fallback(3)).unwrap().dim(AVG),
            Some(2)
        );
    }
    // All labels 0 are the same bits either way.
    let directory = memmaps(&[feat.clone(), ("label", f64s(&[0.0; 2]))]);
    assert_eq!(FeatureSet::open(directory.path()).unwrap().labels(0..2, 1).unwrap(), [0, 0]);
    // Without labels, D is told.
    let directory = memmaps(&[feat]);
    for options in [dim(3), fallback(3)] {
        let set = FeatureSet::open_with(directory.path(), &options).unwrap();
        assert_eq!((set.len(), all(&set, AVG), set.labelled()), (2, want.clone(), false));
    }
}

#[test]
fn memmaps_without_a_dimension() {
    let feat = || ("feat", f64s(&[0.0; 1024]));
    let error = refusal(&[feat()], &OpenOptions::default());
    contains(
        &error,
        &["feat.mmap", "no header", "dimension D", "1024 f64 values", "64, 128, 256, 512, 1024"],
    );
}

#[test]
fn memmaps_of_another_dimension() {
    let feat = || ("feat", f64s(&[0.0; 640]));
    let error = refusal(&[feat()], &dim(100));
    contains(&error, &["`dim` = 100", "feat.mmap", "5120 bytes", "640 f64 values", "64, 128, 640"]);
    contains(&refusal(&[feat()], &dim(0)), &["`dim` = 0"]);
    let error = refusal(&[feat(), ("label", f64s(&[0.0; 10]))], &dim(32));
    contains(&error, &["`dim` = 32", "10 labels", "D = 64"]);
}

#[test]
fn memmaps_that_disagree() {
    let feat = || ("feat", f64s(&[0.0; 12]));
    let error = refusal(&[feat(), ("label", f64s(&[0.0; 5]))], &fallback(4));
    contains(&error, &["feat.mmap", "12 f64 values", "label.mmap", "5 labels", "need 3"]);
    let error = refusal(&[feat(), ("std", f64s(&[0.0; 6]))], &dim(4));
    contains(&error, &["std.mmap", "48 bytes", "96"]);
}

#[test]
fn memmaps_that_are_cut() {
    let cut = vec![0; 95];
    contains(&refusal(&[("feat", cut.clone())], &dim(4)), &["feat.mmap", "95 bytes"]);
    let feat = ("feat", f64s(&[0.0; 12]));
    contains(&refusal(&[feat.clone(), ("label", cut)], &dim(4)), &["label.mmap", "95 bytes"]);
    contains(&refusal(&[feat, ("label", vec![])], &dim(4)), &["label.mmap", "empty"]);
}

#[test]
fn memmap_labels_that_are_no_whole_numbers() {
    let feat = ("feat", f64s(&[0.0; 4]));
    for bad in [0.5, f64::NAN, f64::INFINITY, 1e300] {
        let error = refusal(&[feat.clone(), ("label", f64s(&[1.0, bad]))], &dim(2));
        contains(&error, &["label.mmap", "row 1", "whole numbers"]);
    }
    // Negative ones are read, and refused where classes are needed.
    for labels in [f64s(&[-1.0, 0.0]), i64s(&[-1, 0])] {
        let directory = memmaps(&[feat.clone(), ("label", labels)]);
        let set = FeatureSet::open(directory.path()).unwrap();
        let error = set.labels(0..2, 2).unwrap_err().to_string();
        contains(&error, &["label.mmap", "row 0", "label -1"]);
    }
}

#[test]
fn memmap_values_are_checked_when_read() {
    let directory = memmaps(&[("feat", f64s(&[0.0, 1.0, 2.0, f64::NAN]))]);
    let set = FeatureSet::open_with(directory.path(), &dim(2)).unwrap();
    let error = set.read(AVG, 0..2, &mut [0.0; 4]).unwrap_err().to_string();
    contains(&error, &["feat.mmap", "row 1, column 1", "NaN"]);
}

#[test]
fn dim_is_checked_for_other_forms() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.npy");
    fs::write(&path, npy("<f4", false, "(2, 3)", &[0; 24])).unwrap();
    assert!(FeatureSet::open_with(&path, &dim(3)).is_ok());
    assert!(FeatureSet::open_with(&path, &fallback(4)).is_ok());
    let error = FeatureSet::open_with(&path, &dim(4)).err().unwrap().to_string();
    contains(&error, &["x.npy", "[N, 4]", "[2, 3]", "`dim` = 4"]);
}

/// Bytes written out by hand: numpy's `asfortranarray` and `astype('>f4')`.
#[test]
fn columns_first_and_big_endian_npy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("X.NPY");
    let read = |bytes: Vec<u8>| {
        fs::write(&path, bytes).unwrap();
        all(&FeatureSet::open(&path).unwrap(), AVG)
    };
    let want = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let by_column = [1.0f32, 4.0, 2.0, 5.0, 3.0, 6.0];
    let little: Vec<u8> = by_column.iter().flat_map(|v| v.to_le_bytes()).collect();
    let big: Vec<u8> = by_column.iter().flat_map(|v| v.to_be_bytes()).collect();
    let rows: Vec<u8> = want.iter().flat_map(|v: &f32| v.to_be_bytes()).collect();
    assert_eq!(read(npy("<f4", true, "(2, 3)", &little)), want);
    assert_eq!(read(npy(">f4", true, "(2, 3)", &big)), want);
    assert_eq!(read(npy(">f4", false, "(2, 3)", &rows)), want);
    // Larger than a tile.
    let values = |i: usize, j: usize| (i * 131 + j) as f64;
    let bytes: Vec<u8> =
        (0..131).flat_map(|j| (0..70).flat_map(move |i| values(i, j).to_le_bytes())).collect();
    let got = read(npy("<f8", true, "(70, 131)", &bytes));
    assert!(got.iter().enumerate().all(|(i, v)| *v == i as f32));
}

#[test]
fn labels_of_one_column_and_from_every_format() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("x.npy"), npy("<f4", false, "(3, 1)", &[0; 12])).unwrap();
    fs::write(path("Y.NPY"), npy(">i2", false, "(3, 1)", &[0, 2, 0, 0, 1, 0])).unwrap();
    fs::write(path("y.mmap"), f64s(&[2.0, 0.0, 256.0])).unwrap();
    let open = |labels: &str| {
        let set = FeatureSet::open(path("x.npy"))?.with_labels(path(labels))?;
        set.indexing(257).labels(0..3, 257)
    };
    assert_eq!(open("Y.NPY").unwrap(), [2, 0, 256]);
    assert_eq!(open("y.mmap").unwrap(), [2, 0, 256]);
    let set = FeatureSet::open(path("x.npy")).unwrap().with_labels(path("Y.NPY")).unwrap();
    run(&set, &path("all.SAFETENSORS"), &ConvertConfig::default()).unwrap();
    assert_eq!(open("all.SAFETENSORS").unwrap(), [2, 0, 256]);
    fs::write(path("two.npy"), npy("<i8", false, "(3, 2)", &[0; 48])).unwrap();
    contains(&open("two.npy").unwrap_err().to_string(), &["two.npy", "one label a row", "[3, 2]"]);
    run(
        &FeatureSet::open(path("x.npy")).unwrap(),
        &path("no.safetensors"),
        &ConvertConfig::default(),
    )
    .unwrap();
    contains(&open("no.safetensors").unwrap_err().to_string(), &["no.safetensors", "`label`"]);
}
