//! What fuzzing found in the readers of images and classifiers: one test for
//! each, with what the reader now says.

use std::fs;
use std::sync::OnceLock;

use heat_images::backbone::{Backbone, BackboneOptions};
use heat_images::{ImageDataset, ImageOptions, open};
use heat_ood::Result;

use super::bombs::{Bomb, bombs};
use super::memory::bounded;

/// Made once.
static BOMBS: OnceLock<Vec<Bomb>> = OnceLock::new();

/// What is said of the bomb of that name in a file of that name; what it takes
/// is bounded.
fn said(bomb: [&str; 2], file: &str) -> String {
    let _alone = super::harness::alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(file);
    let all = BOMBS.get_or_init(bombs);
    let (_, _, bytes) = all.iter().find(|(reader, name, _)| [*reader, *name] == bomb).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    let image = |set: Box<dyn ImageDataset>| set.image(0).map(drop);
    let mut text = String::new();
    bounded(4 * bytes.len(), || {
        let read: Result<()> = if file.ends_with(".onnx") {
            Backbone::open(&path, &BackboneOptions::default()).map(drop)
        } else if file.ends_with("test_batch") {
            open(directory.path(), &ImageOptions::default()).and_then(image)
        } else {
            open(&path, &ImageOptions::default()).and_then(image)
        };
        text = read.err().map_or("read".to_owned(), |e| e.to_string());
    });
    text
}

#[track_caller]
fn refused(bomb: [&str; 2], file: &str, part: &str) {
    let text = said(bomb, file);
    assert!(text.contains(part), "`{part}` not in: {text}");
}

/// Took 4 GiB for half a kilobyte: sizes were believed.
#[test]
fn sizes_in_a_zip_are_not_believed() {
    refused(["image_archive", "sizes"], "x.zip", "decompression bomb");
    refused(["image_archive", "directory"], "x.zip", "directory is damaged");
    refused(["image_archive", "zeros in a zip"], "x.zip", "decompression bomb");
}

/// The crate for these files allocated what an element said, and ended the
/// process where there was not as much.
#[test]
fn sizes_in_a_matlab_file_are_not_believed() {
    refused(["svhn", "size"], "x.mat", "truncated");
    refused(["svhn", "inflated"], "x.mat", "far more memory");
    refused(["svhn", "elements"], "x.mat", "no array `X`");
}

/// The crate for pickles took 4 KB for each mark, copied what was remembered,
/// and went down into nested values by recursion.
#[test]
fn instructions_of_a_pickle_are_counted() {
    for name in ["marks", "copies"] {
        refused(["cifar", name], "test_batch", "far more than images and labels");
    }
    refused(["cifar", "lists"], "test_batch", "far more than images and labels");
    refused(["cifar", "size"], "test_batch", "truncated");
    for name in ["doubled", "deep", "itself"] {
        refused(["cifar", name], "test_batch", "test_batch");
    }
    refused(["cifar", "doubled labels"], "test_batch", "not a list of labels");
}

/// Ran for ever: a node that reads what it makes; a layer of no rows, whose
/// columns were counted one by one. Now they have no head, and are read as such.
#[test]
fn graphs_that_lead_nowhere() {
    refused(["onnx", "a node before itself"], "x.onnx", "read");
    refused(["onnx", "no rows"], "x.onnx", "read");
}

/// Took sixty times the file's size, and more for a moment.
#[test]
fn graphs_in_proportion_to_the_file() {
    for name in ["nodes", "names", "operators", "dimensions"] {
        refused(["onnx", name], "x.onnx", "far more than the file's size explains");
    }
}

/// Would have taken twelve times the file's size.
#[test]
fn entries_of_a_database_do_not_overlap() {
    refused(["lsun", "one node"], "data.mdb", "page 3 is damaged");
}
