//! Places365, and the sets of images published as out-of-distribution for
//! ImageNet.

use crate::common;

use std::fs;
use std::path::{Path, PathBuf};

use common::bytes::contains;
use common::images::{copies, golden, options, refusal, rows, want};
use heat_images::{Format, ImageOptions, open};

const IMAGES: [&str; 3] =
    ["Places365_val_00000001.jpg", "Places365_val_00000002.jpg", "Places365_val_00000003.jpg"];
const LABELS: &str = "Places365_val_00000001.jpg 165\nPlaces365_val_00000003.jpg 2\n\
                      Places365_val_00000002.jpg 0\n";
const CATEGORIES: &str = "/a/airfield 0\n/a/airport_terminal 2\n/a/airplane_cabin 1\n";

fn tar(path: PathBuf, files: &[(&str, Vec<u8>)]) {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    fs::write(path, tar.into_inner().unwrap()).unwrap();
}

/// `val_256` with three images.
fn images(root: &Path) -> PathBuf {
    let directory = root.join("val_256");
    copies(&directory, &IMAGES);
    directory
}

fn labelled() -> Vec<(String, Option<u32>)> {
    want(&[(IMAGES[0], Some(165)), (IMAGES[2], Some(2)), (IMAGES[1], Some(0))])
}

#[test]
fn places_without_lists() {
    let root = tempfile::tempdir().unwrap();
    let set = open(images(root.path()), &ImageOptions::default()).unwrap();
    assert_eq!(rows(&*set), want(&IMAGES.map(|n| (n, None))));
    assert!(set.classes().is_empty());
}

#[test]
fn places_with_lists_within_beside_and_packed() {
    let root = tempfile::tempdir().unwrap();
    let directory = images(root.path());
    let list = root.path().join("places365_val.txt");
    let categories = root.path().join("categories_places365.txt");
    fs::write(&list, LABELS).unwrap();
    fs::write(&categories, CATEGORIES).unwrap();
    // Beside the directory, and within the directory above.
    for path in [&directory, root.path()] {
        let set = open(path, &options(None, "val")).unwrap();
        assert_eq!(rows(&*set), labelled());
        assert_eq!(set.classes(), ["/a/airfield", "/a/airplane_cabin", "/a/airport_terminal"]);
    }
    // An archive, with the lists in another.
    fs::remove_file(list).unwrap();
    fs::remove_file(categories).unwrap();
    let image = fs::read(golden("rgb.png")).unwrap();
    let packed = root.path().join("val_256.tar");
    let names = IMAGES.map(|n| format!("val_256/{n}"));
    let files: Vec<_> = names.iter().map(|n| (n.as_str(), image.clone())).collect();
    tar(packed.clone(), &files);
    let lists = [("places365_val.txt", LABELS), ("categories_places365.txt", CATEGORIES)];
    let lists = lists.map(|(name, text)| (name, text.as_bytes().to_vec()));
    tar(root.path().join("filelist_places365-standard.tar"), &lists);
    for path in [&packed, &directory] {
        let set = open(path, &ImageOptions::default()).unwrap();
        assert_eq!((rows(&*set), set.classes().len()), (labelled(), 3));
        set.image(2).unwrap();
    }
}

#[test]
fn lists_that_are_not_those_of_places() {
    let root = tempfile::tempdir().unwrap();
    let directory = images(root.path());
    let list = directory.join("places365_val.txt");
    let refused = |text: &str, parts: &[&str]| {
        fs::write(&list, text).unwrap();
        contains(&refusal(&directory, &ImageOptions::default()), parts);
    };
    refused("Places365_val_00000001.jpg 365\n", &["places365_val.txt", "label 365", "0..365"]);
    refused("Places365_val_00000001.jpg\n", &["line 1", "`name class`"]);
    refused("Places365_val_00000009.jpg 1\n", &["00000009.jpg", "unpack the images again"]);
    fs::write(&list, LABELS).unwrap();
    fs::write(directory.join("categories_places365.txt"), "/a/b 1\n").unwrap();
    let said = refusal(&directory, &ImageOptions::default());
    contains(&said, &["categories_places365.txt", "not 0, 1, 2"]);
    contains(&refusal(&directory, &options(None, "train")), &["`split` = train", "val"]);
    fs::create_dir(root.path().join("empty")).unwrap();
    let said = refusal(root.path().join("empty"), &options(Some(Format::Places), ""));
    contains(&said, &["Places365_val_00000001.jpg"]);
}

/// iNaturalist, SUN and Places of Huang and Li (2021): `images/*.jpg`.
#[test]
fn out_of_distribution_sets_of_imagenet() {
    let root = tempfile::tempdir().unwrap();
    for (set, names) in [
        ("iNaturalist", ["0a1b.jpg", "9f.jpg"]),
        ("SUN", ["sun_aaa.jpg", "sun_aab.jpg"]),
        ("Places", ["a_abbey_00000001.jpg", "z_zen_garden_00000002.jpg"]),
    ] {
        let directory = root.path().join(set);
        copies(&directory.join("images"), &names);
        for path in [&directory, &directory.join("images")] {
            let set = open(path, &ImageOptions::default()).unwrap();
            assert_eq!(rows(&*set), want(&names.map(|n| (n, None))));
            assert!(set.classes().is_empty());
        }
    }
}
