//! Images and data sets in the forms that are met in the field, against what Pillow 13 and NumPy
//! make of them (`golden/make_forms.py`, `golden/cases`).

use crate::common;

use std::fs;
use std::path::PathBuf;

use common::bytes::contains;
use common::images::{options, refusal, rows};
use heat_images::{Format, ImageDataset, ImageOptions, decode, open};

fn case(name: &str) -> PathBuf {
    common::path("cases/images").join(name)
}

#[test]
fn every_form_decodes_as_pillow_decodes_it() {
    let forms = common::path("forms");
    let bytes = fs::read(forms.join("expected.safetensors")).unwrap();
    let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut wrong = Vec::new();
    for (key, want) in expected.tensors() {
        let name = key.strip_suffix(".rgb").unwrap();
        match decode(name, &fs::read(forms.join(name)).unwrap()) {
            Ok(got) => {
                assert_eq!([got.height, got.width, 3], want.shape()[..], "{name}");
                let off = got.rgb.iter().zip(want.data()).map(|(a, b)| a.abs_diff(*b)).max();
                if off != Some(0) {
                    wrong.push(format!("{name}: {off:?}"));
                }
            }
            Err(e) => wrong.push(e.to_string()),
        }
    }
    assert!(expected.len() > 130);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Rows of a case: how many of each class.
fn counts(set: &dyn ImageDataset) -> Vec<(Option<u32>, usize)> {
    let mut all = std::collections::BTreeMap::new();
    (0..set.len()).for_each(|i| *all.entry(set.label(i)).or_insert(0) += 1);
    for i in 0..set.len() {
        set.image(i).unwrap();
    }
    all.into_iter().collect()
}

fn classes(numbers: &[usize]) -> Vec<(Option<u32>, usize)> {
    numbers.iter().zip(0..).map(|(n, class)| (Some(class), *n)).collect()
}

#[test]
fn links_in_a_tar() {
    let set = open(case("13_links.tar"), &ImageOptions::default()).unwrap();
    assert_eq!(counts(&*set), classes(&[2, 2, 3, 3]));
    assert_eq!(set.classes(), ["ant", "bee", "cat", "dog"]);
    // ant 2, bee 2, then the links: cat's third image is its first, dog's third its first.
    assert_eq!(set.image(6).unwrap(), set.image(4).unwrap());
    assert_eq!(rows(&*set)[6].0, "soft.png");
    assert_eq!(set.image(9).unwrap(), set.image(7).unwrap());
    assert!(set.left_out().is_empty());
}

/// A tar of images and links.
fn tar(name: &str, entries: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    let image = fs::read(common::images::golden("rgb.png")).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, target) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        if target.is_empty() {
            header.set_size(image.len() as u64);
            tar.append_data(&mut header, name, &image[..]).unwrap();
        } else {
            header.set_size(0);
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, name, target).unwrap();
        }
    }
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    (directory, path)
}

#[test]
fn links_out_of_a_tar_and_to_nothing() {
    let long = format!("b/{}.png", "x".repeat(150));
    let (_kept, path) = tar(
        "x.tar",
        &[
            ("a/1.png", "../b/1.png"),
            ("b/1.png", ""),
            (&long, ""),
            ("b/2.png", "3.png"),
            ("c", "b"),
        ],
    );
    let set = open(&path, &ImageOptions::default()).unwrap();
    assert_eq!(counts(&*set), classes(&[1, 2, 2]));
    let lost = ["b/2.png", "c/2.png"].map(|n| format!("{n} (a link to nothing in the archive)"));
    assert_eq!(set.left_out(), lost);
    for target in ["/etc/passwd", "../../b.png"] {
        let (_kept, path) = tar("y.tar", &[("a/1.png", ""), ("a/2.png", target)]);
        let said = refusal(&path, &ImageOptions::default());
        contains(&said, &["y.tar", "`a/2.png`", target, "out of the archive"]);
    }
}

#[test]
fn links_in_a_zip() {
    use std::io::Write;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.zip");
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let options_of_zip = zip::write::SimpleFileOptions::default();
    zip.add_symlink("a/2.png", "../b/1.png", options_of_zip).unwrap();
    for name in ["a/1.png", "b/1.png", "__MACOSX/a/._1.png", "Thumbs.db", "b/.DS_Store"] {
        zip.start_file(name, options_of_zip).unwrap();
        zip.write_all(&fs::read(common::images::golden("rgb.png")).unwrap()).unwrap();
    }
    zip.finish().unwrap();
    let set = open(&path, &ImageOptions::default()).unwrap();
    assert_eq!(counts(&*set), classes(&[2, 1]));
    assert!(set.left_out().is_empty() && set.notes().is_empty());
}

#[test]
fn names_of_windows_in_a_zip() {
    let set = open(case("14_backslash.zip"), &ImageOptions::default()).unwrap();
    assert_eq!(counts(&*set), classes(&[2, 2, 2, 2]));
    assert_eq!(set.classes(), ["ant", "bee", "cat", "dog"]);
}

#[test]
fn images_of_every_format_have_their_classes() {
    let set = open(case("15_passed_over.zip"), &ImageOptions::default()).unwrap();
    assert_eq!(set.classes(), ["00", "01", "02", "03"]);
    assert_eq!(counts(&*set), classes(&[2, 2, 3, 2]));
    assert!(set.left_out().is_empty());
}

#[test]
fn what_is_left_out_is_said_and_shifts_no_class() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("all");
    common::images::copies(&root, &["01/a.png", "01/b.JFIF", "01/no_ending", "03/c.png"]);
    for name in ["00/x.heic", "01/notes.txt", "labels.csv", "02/._x", "01/Thumbs.db"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        let heic = b"\0\0\0\x18ftypheic\0\0\0\0";
        fs::write(root.join(name), if name.ends_with("heic") { &heic[..] } else { b"a,0\n" })
            .unwrap();
    }
    let set = open(&root, &ImageOptions::default()).unwrap();
    assert_eq!(counts(&*set), [(Some(1), 3), (Some(3), 1)]);
    assert_eq!(set.classes(), ["00", "01", "02", "03"]);
    let want = [
        "00/x.heic (HEIC: convert it to PNG)",
        "01/notes.txt (a CSV text)",
        "labels.csv (a CSV text)",
    ];
    assert_eq!(set.left_out(), want);
    let keeps =
        |name: &str, i: i32| format!("no image in `{name}`, which keeps its class number, {i}");
    assert_eq!(set.notes(), [keeps("00", 0), keeps("02", 2)]);
    // All readable images in one directory, beside one of images that are not read.
    fs::remove_dir_all(root.join("03")).unwrap();
    fs::remove_dir_all(root.join("02")).unwrap();
    let set = open(&root, &ImageOptions::default()).unwrap();
    assert_eq!(counts(&*set), [(Some(1), 3)]);
    // An image beside the directories.
    common::images::copies(&root, &["montage.png", "03/c.png"]);
    let set = open(&root, &ImageOptions::default()).unwrap();
    assert_eq!(counts(&*set), [(None, 5)]);
    contains(&set.notes()[0], &["1 of its 5 images", "montage.png", "none has a class"]);
    // One image.
    let set = open(root.join("montage.png"), &ImageOptions::default()).unwrap();
    assert_eq!(counts(&*set), [(None, 1)]);
}

#[test]
fn parts_of_a_folder() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "test/b/2.png"];
    common::images::copies(directory.path(), &names);
    let set = open(directory.path(), &options(None, "test")).unwrap();
    assert_eq!(counts(&*set), classes(&[1, 2]));
    let set = open(directory.path().join("test"), &options(None, "test")).unwrap();
    assert_eq!(counts(&*set), classes(&[1, 2]));
    contains(&refusal(directory.path(), &options(None, "val")), &["`split` = val", "no image"]);
    let set = open(directory.path(), &ImageOptions::default()).unwrap();
    contains(&set.notes()[0], &["test, train", "was one of them meant"]);
}

/// The images of the lists, beside them or elsewhere.
fn unzipped(to: &std::path::Path) {
    let mut zip = zip::ZipArchive::new(fs::File::open(case("16_images.zip")).unwrap()).unwrap();
    zip.extract(to).unwrap();
}

#[test]
fn lists() {
    let directory = tempfile::tempdir().unwrap();
    unzipped(directory.path());
    let root = |root: PathBuf| ImageOptions { root: Some(root), ..ImageOptions::default() };
    let four = classes(&[2, 2, 2, 2]);
    for (name, want) in [
        ("backslash", &four),
        ("bom", &four),
        ("class_names", &four),
        ("comma", &four),
        ("ood_minus_one", &vec![(None, 8)]),
    ] {
        let list = case(&format!("16_list_{name}.txt"));
        for place in [directory.path().to_owned(), case("16_images.zip")] {
            let set = open(&list, &root(place)).unwrap();
            assert_eq!(counts(&*set), *want, "{name}");
        }
        let said = refusal(&list, &ImageOptions::default());
        contains(&said, &["line 1", "is not in", "give that as the root"]);
        fs::copy(&list, directory.path().join("list.txt")).unwrap();
        let set = open(directory.path().join("list.txt"), &ImageOptions::default()).unwrap();
        assert_eq!(counts(&*set), *want, "{name}");
        let named = name == "class_names";
        assert_eq!(set.classes().len(), if named { 4 } else { 0 });
    }
    // Other ways to write the same.
    let list = directory.path().join("other.csv");
    let absolute = directory.path().join("images/bee/1.png");
    fs::copy(directory.path().join("images/ant/0.png"), directory.path().join("a b.png")).unwrap();
    let text = format!(
        "path,label,more\r\n# a comment\r\n./images/ant/0.png,ant,1\r\n\"images/bee/0.png\",\"bee\"\r\n\
         {}\tbee\r\n\r\na b.png  great ape\r\n",
        absolute.display()
    );
    fs::write(&list, text).unwrap();
    let set = open(&list, &ImageOptions::default()).unwrap();
    assert_eq!(set.classes(), ["ant", "bee", "great ape"]);
    assert_eq!(counts(&*set), classes(&[1, 2, 1]));
    let refused = |text: &str, parts: &[&str]| {
        fs::write(&list, text).unwrap();
        contains(&refusal(&list, &ImageOptions::default()), parts);
    };
    refused("images/ant/0.png 0\nimages/ant/1.png ant\n", &["class `ant` beside"]);
    refused("images/ant/0.png -2\n", &["class -2", "-1 for none"]);
    refused("images/ant/0.png 99999999\n", &["class 99999999"]);
    refused("images/ant/0.png 0\nimages/ant/1.png\n", &["line 2", "on every line"]);
    fs::write(&list, "a b.png 1\nimages/ant/0.png -1\n").unwrap();
    let set = open(&list, &ImageOptions::default()).unwrap();
    assert_eq!((set.label(0), set.label(1)), (Some(1), None));
    contains(&set.notes()[0], &["1 of its 2 images have no class"]);
}

#[test]
fn tiny_imagenet_sorted_into_classes() {
    let path = case("17_tiny_arranged.zip");
    for split in ["", "val", "train"] {
        let set = open(&path, &options(None, split)).unwrap();
        assert_eq!(counts(&*set), classes(&[2, 2, 2]), "{split}");
        assert_eq!(set.classes(), ["n01443537", "n01629819", "n01641577"]);
    }
}

#[test]
fn digits_of_other_types_and_places() {
    let set = open(case("24_svhn_int64_32x32.mat"), &ImageOptions::default()).unwrap();
    let labels: Vec<_> = (0..set.len()).map(|i| set.label(i).unwrap()).collect();
    assert_eq!(labels, [1, 0, 3, 9]);
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("MNIST/raw");
    fs::create_dir_all(&raw).unwrap();
    for name in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        fs::copy(case("27_mnist_raw").join(name), raw.join(name)).unwrap();
    }
    for path in [case("27_mnist_raw"), directory.path().to_owned()] {
        let set = open(&path, &ImageOptions::default()).unwrap();
        assert_eq!(counts(&*set), classes(&[1, 1, 1, 1]));
        contains(&refusal(&path, &options(None, "train")), &["train-images", "t10k-images"]);
        contains(&refusal(&path, &options(Some(Format::Idx), "val")), &["train and test"]);
    }
    let other = directory.path().join("Fashion/raw");
    fs::create_dir_all(&other).unwrap();
    fs::copy(raw.join("t10k-images-idx3-ubyte"), other.join("t10k-images-idx3-ubyte")).unwrap();
    contains(
        &refusal(directory.path(), &ImageOptions::default()),
        &["give one of their directories"],
    );
}

/// An `.npy` of bytes.
fn npy(kind: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let head = [&b"\x93NUMPY\x01\0"[..], &(text.len() as u16).to_le_bytes(), text.as_bytes()];
    [&head.concat()[..], values].concat()
}

#[test]
fn arrays_of_images() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let pixels: Vec<u8> = (0..10 * 2 * 3 * 3).map(|v| (v % 251) as u8).collect();
    let labels: Vec<u8> = (0..10).collect();
    fs::write(path("fog.npy"), npy("|u1", "(10, 2, 3, 3)", &pixels)).unwrap();
    fs::write(path("labels.npy"), npy("|u1", "(10,)", &labels)).unwrap();
    let set = open(path("fog.npy"), &ImageOptions::default()).unwrap();
    assert_eq!(counts(&*set), classes(&[1; 10]));
    let image = set.image(4).unwrap();
    assert_eq!((image.height, image.width), (2, 3));
    assert_eq!(image.rgb, pixels[4 * 18..5 * 18]);
    let third = open(path("fog.npy"), &options(None, "3")).unwrap();
    assert_eq!((third.len(), third.label(1)), (2, Some(5)));
    assert_eq!(third.image(1).unwrap().rgb, pixels[5 * 18..6 * 18]);
    contains(&third.notes()[0], &["severity 3 of 5"]);
    // The only array of images of the directory; then one of two.
    assert_eq!(open(directory.path(), &ImageOptions::default()).unwrap().len(), 10);
    fs::write(path("snow.npy"), npy("|u1", "(10, 2, 3, 3)", &pixels)).unwrap();
    contains(&refusal(directory.path(), &ImageOptions::default()), &["fog", "snow", "the split"]);
    assert_eq!(open(directory.path(), &options(None, "snow/5")).unwrap().label(0), Some(8));
    // Other layouts.
    let first = |name: &str, kind: &str, shape: &str| {
        fs::write(path(name), npy(kind, shape, &pixels)).unwrap();
        let set = open(path(name), &ImageOptions::default());
        set.map(|set| set.image(0).unwrap().rgb).map_err(|e| e.to_string())
    };
    assert_eq!(
        first("grey.npy", "|u1", "(30, 2, 3)").unwrap(),
        [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]
    );
    assert_eq!(first("grey1.npy", "|u1", "(30, 2, 3, 1)").unwrap()[..6], [0, 0, 0, 1, 1, 1]);
    assert_eq!(
        first("planes.npy", "|u1", "(15, 3, 2, 2)").unwrap(),
        [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    );
    assert_eq!(first("rgba.npy", "|u1", "(9, 5, 1, 4)").unwrap()[..6], [0, 1, 2, 4, 5, 6]);
    contains(&first("float.npy", "<f4", "(5, 3, 3)").unwrap_err(), &["uint8", "<f4 [5, 3, 3]"]);
    contains(&first("flat.npy", "|u1", "(5, 36)").unwrap_err(), &["[N, H, W]", "flat |u1 [5, 36]"]);
    contains(&first("cut.npy", "|u1", "(50, 6, 3)").unwrap_err(), &["truncated"]);
}

#[test]
fn archives_of_arrays() {
    use std::io::Write;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("medmnist.npz");
    let write = |files: &[(&str, Vec<u8>)]| {
        let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
        for (name, bytes) in files {
            zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default())
                .unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    };
    let images = |n: usize| npy("|u1", &format!("({n}, 2, 2)"), &vec![7; 4 * n]);
    let words = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    write(&[
        ("train_images", images(3)),
        ("val_images", images(2)),
        ("test_images", images(4)),
        ("train_labels", npy("|u1", "(3, 1)", &[0, 1, 1])),
        ("val_labels", npy("<i8", "(2, 1)", &words(&[1, 0]))),
        ("test_labels", npy("|u1", "(4, 1)", &[2, 1, 0, 1])),
    ]);
    let labels = |split: &str| {
        let set = open(&path, &options(None, split)).unwrap();
        (0..set.len()).map(|i| set.label(i)).collect::<Option<Vec<u32>>>()
    };
    assert_eq!(labels("").unwrap(), [2, 1, 0, 1]);
    assert_eq!(labels("train").unwrap(), [0, 1, 1]);
    assert_eq!(labels("val").unwrap(), [1, 0]);
    contains(&refusal(&path, &options(None, "best")), &["`split` = best", "test_images"]);
    // Keras, names of classes, −1 for none, several labels for an image.
    let text: Vec<u8> = "catdogcat".chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
    write(&[("x_test", images(3)), ("y_test", npy("<U3", "(3,)", &text))]);
    assert_eq!(labels("").unwrap(), [0, 1, 0]);
    assert_eq!(open(&path, &ImageOptions::default()).unwrap().classes(), ["cat", "dog"]);
    write(&[("arr_0", images(2)), ("arr_1", npy("<i8", "(2,)", &words(&[-1, -1])))]);
    assert_eq!(labels(""), None);
    write(&[("images", images(2)), ("labels", npy("|u1", "(2, 3)", &[0; 6]))]);
    let set = open(&path, &ImageOptions::default()).unwrap();
    assert_eq!(set.label(0), None);
    contains(&set.notes()[0], &["no labels", "labels |u1 [2, 3]"]);
    write(&[("images", images(2)), ("labels", npy("<i8", "(2,)", &words(&[3, -1])))]);
    contains(&refusal(&path, &ImageOptions::default()), &["labels", "row 1", "label -1"]);
    write(&[("weights", npy("<f4", "(2, 2)", &[0; 16]))]);
    contains(
        &refusal(&path, &ImageOptions::default()),
        &["no array of images", "weights <f4 [2, 2]"],
    );
}

#[test]
fn unknown_content_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("set");
    fs::create_dir(&path).unwrap();
    contains(
        &refusal(&path, &ImageOptions::default()),
        &["no image in it", "JPEG, PNG", "it is empty"],
    );
    fs::write(path.join("a.h5"), b"\x89HDF\r\n\x1a\n").unwrap();
    fs::write(path.join("b.parquet"), b"PAR1").unwrap();
    let said = refusal(&path, &ImageOptions::default());
    contains(&said, &["its 2 files are a.h5 (HDF5", "b.parquet (Parquet", "numpy arrays"]);
    contains(
        &refusal(path.join("a.h5"), &ImageOptions::default()),
        &["HDF5", "expected a directory"],
    );
}
