//! LSUN: what torchvision and Pillow read from the same databases
//! (`golden/make_images.py`), and what must be refused.

use crate::common;

use std::fs;
use std::path::Path;

use common::bytes::contains;
use common::images::{expected, golden, options, refusal};
use heat_images::{Format, ImageDataset, ImageOptions, open};

/// A directory with the golden databases.
fn databases() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["bedroom_val_lmdb", "tower_val_lmdb"] {
        let to = directory.path().join(name);
        fs::create_dir(&to).unwrap();
        fs::copy(golden(name).join("data.mdb"), to.join("data.mdb")).unwrap();
    }
    directory
}

/// Order, labels and images are those of the reference.
fn assert_lsun(set: &dyn ImageDataset) {
    let (shape, want) = expected("lsun");
    let places = fs::read_to_string(golden("lsun.txt")).unwrap();
    let places: Vec<&str> = places.lines().collect();
    assert_eq!((set.len(), places.len()), (shape[0], shape[0]));
    let row = shape[2] * 3;
    for i in (0..set.len()).rev() {
        contains(&set.place(i), &[places[i]]);
        let class = if places[i].starts_with("bedroom") { 0 } else { 9 };
        assert_eq!(set.label(i), Some(class));
        assert_eq!(set.classes()[class as usize], places[i].split('_').next().unwrap());
        let got = set.image(i).unwrap();
        let got: Vec<u8> =
            (0..shape[1]).flat_map(|y| &got.rgb[y * got.width * 3..][..row]).copied().collect();
        assert_eq!(got, want[i * got.len()..][..got.len()], "{i}");
    }
}

#[test]
fn databases_are_read_as_torchvision_reads_them() {
    let directory = databases();
    let path = directory.path();
    let set = open(path, &ImageOptions::default()).unwrap();
    assert_lsun(&*set);
    // Twice at once, and again after both are closed.
    let other = open(path, &options(Some(Format::Lsun), "val")).unwrap();
    drop(set);
    assert_lsun(&*other);
    drop(other);
    let set = open(path, &ImageOptions::default()).unwrap();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| assert_lsun(&*set));
        }
    });
    // One database alone has no classes.
    for one in ["tower_val_lmdb", "tower_val_lmdb/data.mdb"] {
        let set = open(path.join(one), &ImageOptions::default()).unwrap();
        assert_eq!((set.len(), set.label(0), set.classes().len()), (2, None, 0));
    }
    // No lock was left, nothing was written.
    assert_eq!(fs::read_dir(path.join("tower_val_lmdb")).unwrap().count(), 1);
    let golden = fs::read(golden("tower_val_lmdb").join("data.mdb")).unwrap();
    assert!(fs::read(path.join("tower_val_lmdb/data.mdb")).unwrap() == golden);
}

#[cfg(unix)]
#[test]
fn directories_that_cannot_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let directory = databases();
    let one = directory.path().join("tower_val_lmdb");
    fs::set_permissions(one.join("data.mdb"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(&one, fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(open(&one, &ImageOptions::default()).unwrap().len(), 2);
    fs::set_permissions(&one, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn splits() {
    let directory = databases();
    let path = directory.path();
    let said = refusal(path, &options(None, "train"));
    contains(&said, &["bedroom_train_lmdb", "another split"]);
    contains(&refusal(path, &options(None, "test")), &["test_lmdb"]);
    contains(&refusal(path, &options(None, "best")), &["`split` = best", "train, val and test"]);
    fs::rename(path.join("tower_val_lmdb"), path.join("test_lmdb")).unwrap();
    let set = open(path, &options(None, "test")).unwrap();
    assert_eq!((set.len(), set.label(1), set.classes().len()), (2, None, 0));
}

fn refused(path: &Path, bytes: &[u8]) -> String {
    fs::write(path.join("data.mdb"), bytes).unwrap();
    let said = refusal(path, &ImageOptions::default());
    contains(&said, &["data.mdb"]);
    said
}

#[test]
fn truncated_files() {
    let directory = databases();
    let path = directory.path().join("bedroom_val_lmdb");
    let whole = fs::read(path.join("data.mdb")).unwrap();
    for n in [0, 1, 16, 100, 151, 4096, 4200] {
        contains(&refused(&path, &whole[..n]), &["data.mdb"]);
    }
    for n in [8192, 20000, whole.len() - 4096, whole.len() - 1] {
        contains(&refused(&path, &whole[..n]), &["truncated; copy it again", "page "]);
    }
}

#[test]
fn other_files_of_that_name() {
    let directory = databases();
    let path = directory.path().join("bedroom_val_lmdb");
    let whole = fs::read(path.join("data.mdb")).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut other = whole.clone();
        other[at..at + bytes.len()].copy_from_slice(bytes);
        other
    };
    contains(&refused(&path, &[7; 9000]), &["not an LMDB database"]);
    // Of 32 bits: the header is shorter by four.
    contains(&refused(&path, &whole[4..]), &["64-bit"]);
    contains(&refused(&path, &with(20, &[9])), &["version 9"]);
    contains(&refused(&path, &with(40, &[1])), &["pages of 4097 bytes"]);
    contains(&refused(&path, &with(4096 + 92, &[4])), &["not plain"]);
}

#[test]
fn databases_without_images() {
    let directory = databases();
    let path = directory.path().join("bedroom_val_lmdb");
    // Both states: no root, no depth, no entries.
    let mut empty = fs::read(path.join("data.mdb")).unwrap()[..8192].to_vec();
    for at in [0, 4096] {
        empty[at + 94..at + 96].fill(0);
        empty[at + 120..at + 128].fill(0);
        empty[at + 128..at + 136].fill(0xff);
    }
    fs::write(path.join("data.mdb"), &empty).unwrap();
    contains(&refusal(&path, &ImageOptions::default()), &["no image in it"]);
    // Values that are none.
    let mut other = fs::read(directory.path().join("tower_val_lmdb/data.mdb")).unwrap();
    let at = other.windows(4).position(|w| w == b"RIFF").unwrap();
    other[at..at + 4].fill(0);
    fs::write(path.join("data.mdb"), other).unwrap();
    let set = open(&path, &ImageOptions::default()).unwrap();
    let failed: Vec<String> =
        (0..2).filter_map(|i| set.image(i).err()).map(|e| e.to_string()).collect();
    assert_eq!(failed.len(), 1);
    contains(&failed[0], &["bedroom_val_lmdb: ", "not an image"]);
}
