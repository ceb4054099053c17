//! Readers of images, of data sets of images, and of classifiers.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use heat_images::backbone::{Backbone, BackboneOptions};
use heat_images::{Format, ImageOptions, decode_within, open};

/// A reader: a directory to work in, used again and again, and the input.
pub type Reader = fn(&Path, &[u8]);

/// Every reader, by the name of its fuzz target.
pub const READERS: &[(&str, Reader)] = &[
    ("image", image),
    ("image_archive", archive),
    ("cifar", cifar),
    ("image_arrays", arrays),
    ("svhn", svhn),
    ("idx", idx),
    ("image_lists", lists),
    ("lsun", lsun),
    ("onnx", onnx),
];

/// Images may legitimately grow: one of a gigabyte has a file of a megabyte.
/// So what decoding may take is a matter of its bound on pixels; with this one
/// it must be within what readers may take.
pub const MAX_PIXELS: u64 = 1 << 20;

/// Images of a set that are decoded.
const IMAGES: usize = 4;

fn image(_: &Path, bytes: &[u8]) {
    let Ok(image) = decode_within("x", bytes, MAX_PIXELS) else { return };
    assert_eq!(image.rgb.len(), image.width * image.height * 3);
}

fn file(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, bytes).expect("the directory can be written");
    path
}

/// Open a set and go through it.
fn look(path: &Path, format: Option<Format>, split: Option<&str>) {
    let split = split.map(str::to_owned);
    let max_pixels = Some(MAX_PIXELS);
    let options = ImageOptions { format, split, max_pixels, ..ImageOptions::default() };
    let Ok(set) = open(path, &options) else { return };
    assert!(!set.is_empty());
    let (classes, n) = (set.classes().len(), set.len());
    for i in (0..n).step_by(n.div_ceil(1000)).chain([n - 1]) {
        let _ = (set.place(i).len(), set.label(i).is_some_and(|l| l as usize >= classes));
    }
    for i in (0..n.min(IMAGES)).chain([n - 1]) {
        let _ = set.image(i);
    }
}

/// A tar, a compressed tar or a zip, told by their first bytes.
fn archive(directory: &Path, bytes: &[u8]) {
    let name = match bytes {
        [b'P', b'K', ..] => "x.zip",
        [0x1f, 0x8b, ..] => "x.tar.gz",
        _ => "x.tar",
    };
    let path = file(directory, name, bytes);
    use Format::{Cifar10, Folder, Places, Textures, Tinyimagenet};
    look(&path, None, None);
    for format in [Cifar10, Folder, Places, Textures, Tinyimagenet] {
        look(&path, Some(format), None);
    }
    look(&path, Some(Tinyimagenet), Some("train"));
}

/// A batch, as of CIFAR-10 and as of CIFAR-100.
fn cifar(directory: &Path, bytes: &[u8]) {
    let pickled = bytes.starts_with(b"\x80");
    for (format, names) in [
        (Format::Cifar10, ["test_batch", "test_batch.bin"]),
        (Format::Cifar100, ["test", "test.bin"]),
    ] {
        let set = directory.join(names[0]);
        fs::create_dir_all(&set).expect("the directory can be written");
        let [used, unused] = if pickled { names } else { [names[1], names[0]] };
        let _ = fs::remove_file(set.join(unused));
        file(&set, used, bytes);
        look(&set, Some(format), None);
    }
}

/// An `.npy`, or an `.npz`.
fn arrays(directory: &Path, bytes: &[u8]) {
    let name = if bytes.starts_with(b"PK") { "x.npz" } else { "x.npy" };
    let path = file(directory, name, bytes);
    look(&path, None, None);
    look(&path, None, Some("3"));
}

fn svhn(directory: &Path, bytes: &[u8]) {
    let path = file(directory, "test_32x32.mat", bytes);
    look(&path, None, None);
}

/// The input: 0 for no labels, 1 for labels, more for compressed files; the
/// bytes of labels; then these and the images.
fn idx(directory: &Path, bytes: &[u8]) {
    let Some(([flags, labels], rest)) = bytes.split_first_chunk() else { return };
    let (labels, images) = rest.split_at(rest.len().min(usize::from(*labels)));
    let packed = *flags > 1;
    let write = |stem: &str, bytes: &[u8]| {
        let names = [format!("t10k-{stem}"), format!("t10k-{stem}.gz")];
        let [used, unused] = if packed { [&names[1], &names[0]] } else { [&names[0], &names[1]] };
        let _ = fs::remove_file(directory.join(unused));
        let mut whole = bytes.to_vec();
        // Damage lies within or, where it was compressed already, on the stream.
        if packed && !bytes.starts_with(&[0x1f, 0x8b]) {
            let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
            gz.write_all(bytes).expect("in memory");
            whole = gz.finish().expect("in memory");
        }
        file(directory, used, &whole)
    };
    let path = write("images-idx3-ubyte", images);
    let beside = write("labels-idx1-ubyte", labels);
    if *flags == 0 {
        let _ = fs::remove_file(beside);
    }
    look(&path, None, None);
}

/// A text as every list that goes with images.
fn lists(directory: &Path, bytes: &[u8]) {
    let text = |directory: &Path, name: &str| file(directory, name, bytes);
    let [tiny, dtd, places, plain] =
        ["tiny", "dtd", "places", "plain"].map(|name| directory.join(name));
    for (root, image) in [
        (&tiny, "val/images/val_0.JPEG"),
        (&dtd, "images/a/0.jpg"),
        (&places, "Places365_val_00000001.jpg"),
        (&plain, "a 0.png"),
    ] {
        let path = root.join(image);
        fs::create_dir_all(path.parent().expect("not a root")).expect("can be written");
        fs::write(path, super::seeds::bmp(2, 1)).expect("can be written");
    }
    fs::create_dir_all(dtd.join("labels")).expect("the directory can be written");
    text(&tiny.join("val"), "val_annotations.txt");
    look(&tiny, Some(Format::Tinyimagenet), None);
    text(&tiny, "wnids.txt");
    look(&tiny, Some(Format::Tinyimagenet), None);
    fs::remove_file(tiny.join("wnids.txt")).expect("just written");
    text(&dtd.join("labels"), "test1.txt");
    look(&dtd, None, None);
    text(&places, "places365_val.txt");
    text(&places, "categories_places365.txt");
    look(&places, None, None);
    look(&text(&plain, "list.txt"), None, None);
}

fn lsun(directory: &Path, bytes: &[u8]) {
    let path = file(directory, "data.mdb", bytes);
    look(&path, None, None);
}

/// The graph of a classifier, with its features found or named.
fn onnx(directory: &Path, bytes: &[u8]) {
    let path = file(directory, "x.onnx", bytes);
    for tap in [None, Some("map"), Some("flat")] {
        let tap = tap.map(str::to_owned);
        let options = BackboneOptions { tap, ..BackboneOptions::default() };
        let Ok(backbone) = Backbone::open(&path, &options) else { continue };
        let found = backbone.found();
        let _ = (found.input_text(), found.batch(), found.image_size());
        if let Some(head) = backbone.head() {
            let rows = vec![0.5; head.dim()];
            head.logits(&rows, &mut vec![0.0; head.classes()], &mut Default::default());
        }
    }
}
