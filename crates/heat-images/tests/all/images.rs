//! Images and data sets against Pillow 13.0, torchvision 0.29 and numpy
//! (`golden/make_images.py`), and what must be refused.

use crate::common;

use std::fs;
use std::io::Write;

use common::bytes::contains;
use common::images::{copies, expected, golden, options, rows, want};
use heat_images::{
    Filter, Format, Image, ImageDataset, ImageOptions, Resize, Transform, TransformConfig, decode,
    open,
};

fn image(name: &str) -> Image {
    decode(name, &fs::read(golden(name)).unwrap()).unwrap()
}

/// Largest difference, and mean.
fn difference(got: &[u8], want: &[u8]) -> (u8, f64) {
    assert_eq!(got.len(), want.len());
    let differences = got.iter().zip(want).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = differences.clone().map(f64::from).sum();
    (differences.max().unwrap_or(0), sum / want.len() as f64)
}

#[test]
fn images_decode_as_pillow_decodes_them() {
    let exact = [
        "rgb.png",
        "rgba.png",
        "la.png",
        "palette.png",
        "transparent.png",
        "bits.png",
        "grey16.png",
        "la16.png",
        "rgb16.png",
        "rgba16.png",
        "rgb.bmp",
        "rgb.gif",
        "rgb.webp",
        "rgb.jpg",
        "full.jpg",
        "progressive.jpg",
        "rotated.jpg",
        "grey.jpg",
        "cmyk.jpg",
    ];
    for name in exact {
        let (shape, want) = expected(&format!("rgb.{name}"));
        let got = image(name);
        assert_eq!([got.height, got.width, 3], shape[..], "{name}");
        assert_eq!(difference(&got.rgb, &want), (0, 0.0), "{name}");
    }
}

fn transform(resize: Option<Resize>, filter: Filter, crop: Option<usize>) -> Transform {
    let config = TransformConfig { resize, filter, crop, ..TransformConfig::imagenet() };
    Transform::new(&config).unwrap()
}

#[test]
fn transforms_are_torchvisions() {
    let large = image("large.png");
    let (linear, cubic) = (Filter::Bilinear, Filter::Bicubic);
    let cases = [
        ("exact32", Some(Resize::Exact([32, 32])), linear, None),
        ("exact40x50_bicubic", Some(Resize::Exact([40, 50])), cubic, None),
        ("short48_crop40", Some(Resize::Short(48)), linear, Some(40)),
        ("short64_crop63_bicubic", Some(Resize::Short(64)), cubic, Some(63)),
        ("short100", Some(Resize::Short(100)), linear, None),
        ("crop80", None, linear, Some(80)),
        ("crop50", None, linear, Some(50)),
    ];
    for (name, resize, filter, crop) in cases {
        let (shape, want) = expected(&format!("transform.{name}"));
        let got = transform(resize, filter, crop).pixels(&large).unwrap();
        assert_eq!([got.height, got.width, 3], shape[..], "{name}");
        let (most, mean) = difference(&got.rgb, &want);
        println!("{name}: at most {most}, mean {mean:.4}");
        assert!(most <= 1 && mean < 0.01, "{name}: {most}, {mean}");
    }
    let (shape, want) = expected("tensor");
    let mut all = transform(Some(Resize::Short(48)), linear, Some(40));
    let (height, width, got) = all.apply(&large).unwrap();
    assert_eq!([3, height, width], shape[..]);
    let want = want.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    // One step of a byte is 0.0171 to 0.0175.
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() < 1e-6 || (g - w).abs() < 0.0176, "{g} {w}");
    }
}

fn assert_images(set: &dyn ImageDataset, name: &str, labels: &[u32]) {
    let (shape, want) = expected(name);
    assert_eq!(set.len(), shape[0]);
    let size = want.len() / set.len();
    for i in (0..set.len()).rev() {
        assert_eq!(set.label(i), labels.get(i).copied(), "{name} {i}");
        let got = set.image(i).unwrap();
        assert_eq!([got.height, got.width], shape[1..3], "{name}");
        let want = &want[i * size..][..size];
        let step = if shape.len() == 3 { 3 } else { 1 };
        let got: Vec<u8> = got.rgb.into_iter().step_by(step).collect();
        assert_eq!(got, want, "{name} {i}");
    }
}

#[test]
fn cifar_in_all_its_forms() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (_, pixels) = expected("cifar");
    // Back to planes, with labels before them.
    let planes = |i: usize| {
        let rows = &pixels[i * 3072..][..3072];
        (0..3).flat_map(|c| rows.iter().copied().skip(c).step_by(3)).collect::<Vec<u8>>()
    };
    let binary = |labels: &[&[u8]]| {
        (0..2).flat_map(|i| [labels[i].to_vec(), planes(i)].concat()).collect::<Vec<u8>>()
    };
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("cifar-10-batches-bin/test_batch.bin", &binary(&[&[3], &[7]]));
    add("cifar-10-batches-bin/batches.meta.txt", b"airplane\nautomobile\n\n");
    let tar = tar.into_inner().unwrap();
    fs::write(path("a.tar"), &tar).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar).unwrap();
    fs::write(path("a.tar.gz"), gz.finish().unwrap()).unwrap();
    for name in ["a.tar", "a.tar.gz"] {
        let set = open(path(name), &options(None, "")).unwrap();
        assert_eq!(set.classes(), ["airplane", "automobile"]);
        assert_images(&*set, "cifar", &[3, 7]);
        contains(&set.place(1), &["a.tar", "test_batch.bin, picture 1"]);
        let error = open(path(name), &options(None, "train")).err().unwrap().to_string();
        contains(&error, &["data_batch_1", "test_batch.bin"]);
    }
    fs::create_dir(path("fine")).unwrap();
    fs::write(path("fine/test.bin"), binary(&[&[1, 99], &[2, 0]])).unwrap();
    let hundred = options(Some(Format::Cifar100), "test");
    assert_images(&*open(path("fine"), &hundred).unwrap(), "cifar", &[99, 0]);
    let ten = options(Some(Format::Cifar10), "test");
    let error = open(path("fine"), &ten).err().unwrap().to_string();
    contains(&error, &["test_batch", "test.bin"]);
    for (i, name) in ["python2.pkl", "python3.pkl"].iter().enumerate() {
        let batch = path(&i.to_string());
        fs::create_dir(&batch).unwrap();
        fs::copy(golden(name), batch.join("data_batch_1")).unwrap();
        fs::copy(golden(name), batch.join("test_batch")).unwrap();
        let set = open(&batch, &options(None, "train")).unwrap();
        assert_images(&*set, "cifar", &[3, 7]);
    }
    for name in [
        "bytes_keys",
        "text_keys",
        "protocol3",
        "protocol4",
        "protocol5",
        "labels_array",
        "labels_column",
        "labels_tuple",
        "planes",
    ] {
        fs::copy(golden(&format!("again_{name}.pkl")), path("0/test_batch")).unwrap();
        let set = open(path("0"), &options(None, "")).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_images(&*set, "cifar", &[3, 7]);
    }
    for name in ["pixels", "columns"] {
        fs::copy(golden(&format!("again_{name}.pkl")), path("0/test_batch")).unwrap();
        let error = open(path("0"), &options(None, "")).err().expect(name).to_string();
        contains(&error, &["test_batch", "`data` is not an array of 2 × 3072 bytes"]);
    }
    fs::copy(golden("python3.pkl"), path("fine/test")).unwrap();
    fs::remove_file(path("fine/test.bin")).unwrap();
    assert_images(&*open(path("fine"), &hundred).unwrap(), "cifar", &[99, 0]);
    // Damage.
    let whole = fs::read(golden("python2.pkl")).unwrap();
    for n in (0..whole.len()).step_by(97) {
        fs::write(path("0/test_batch"), &whole[..n]).unwrap();
        let error = open(path("0"), &options(None, "")).err().unwrap().to_string();
        contains(&error, &["test_batch"]);
    }
    fs::write(path("fine/test.bin"), binary(&[&[1, 100], &[2, 0]])).unwrap();
    let error = open(path("fine"), &hundred).err().unwrap().to_string();
    contains(&error, &["label 100", "0..100", "row 0"]);
    fs::write(path("fine/test.bin"), [0; 3073]).unwrap();
    let error = open(path("fine"), &hundred).err().unwrap().to_string();
    contains(&error, &["3073 bytes", "3074", "other CIFAR"]);
}

#[test]
fn svhn_and_idx() {
    let set = open(golden("digits.mat"), &options(None, "")).unwrap();
    assert_images(&*set, "svhn", &[1, 0, 9, 2]);
    let set = open(golden("t10k-images-idx3-ubyte.gz"), &options(None, "")).unwrap();
    assert_images(&*set, "idx", &[7, 0, 4]);
    let set = open(common::path("images"), &options(Some(Format::Idx), "")).unwrap();
    assert_images(&*set, "idx", &[7, 0, 4]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test_32x32.mat");
    let whole = fs::read(golden("digits.mat")).unwrap();
    for n in [1, 100, 130, whole.len() / 2, whole.len() - 9] {
        fs::write(&path, &whole[..n]).unwrap();
        let error = open(&path, &options(None, "")).err().unwrap().to_string();
        contains(&error, &["test_32x32.mat"]);
    }
    let path = directory.path().join("x-ubyte");
    fs::write(&path, [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 9]).unwrap();
    let error = open(&path, &options(None, "")).err().unwrap().to_string();
    contains(&error, &["2 images of 1×1", "there are 1"]);
    fs::write(&path, b"\x89PNG").unwrap();
    contains(&open(&path, &options(None, "")).err().unwrap().to_string(), &["not an IDX file"]);
}

#[test]
fn directories_lists_and_archives_of_images() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("images");
    copies(&root, &["val/b/2.png", "val/b/10.PNG", "val/a/x/3.png", "val/.hidden/4.png"]);
    fs::write(root.join("val/readme.md"), "no image").unwrap();
    let set = open(&root, &ImageOptions::default()).unwrap();
    assert_eq!(rows(&*set), want(&[("3.png", Some(0)), ("10.PNG", Some(1)), ("2.png", Some(1))]));
    assert_eq!(set.classes(), ["a", "b"]);
    assert_eq!(set.image(2).unwrap(), image("rgb.png"));
    // The same within a zip, read in place.
    let file = fs::File::create(directory.path().join("p.zip")).unwrap();
    let mut zip = zip::ZipWriter::new(file);
    for name in ["val/b/2.png", "val/b/10.PNG", "val/a/x/3.png", "__MACOSX/._2.png"] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&fs::read(golden("rgb.png")).unwrap()).unwrap();
    }
    zip.finish().unwrap();
    let zipped = open(directory.path().join("p.zip"), &ImageOptions::default()).unwrap();
    assert_eq!(rows(&*zipped), rows(&*set));
    assert_eq!(zipped.image(0).unwrap(), image("rgb.png"));
    contains(&zipped.place(0), &["p.zip: val/a/x/3.png"]);
    // Images beside directories have no classes.
    copies(&root, &["val/0.png"]);
    let set = open(&root, &ImageOptions::default()).unwrap();
    assert!((0..4).all(|i| set.label(i).is_none()));
    let list = root.join("some.txt");
    fs::write(&list, "# two\nval/b/2.png 5\n\nval/a/x/3.png   0\n").unwrap();
    let set = open(&list, &ImageOptions::default()).unwrap();
    assert_eq!(rows(&*set), want(&[("2.png", Some(5)), ("3.png", Some(0))]));
    fs::write(&list, "val/b/2.png\n").unwrap();
    assert_eq!(rows(&*open(&list, &ImageOptions::default()).unwrap()), want(&[("2.png", None)]));
    let refused = |text: &str, parts: &[&str]| {
        fs::write(&list, text).unwrap();
        let error = open(&list, &ImageOptions::default()).err().unwrap().to_string();
        contains(&error, parts);
    };
    refused("val/b/2.png one\nval/0.png 1\n", &["`one` beside classes that are numbers"]);
    refused("val/b/2.png 1\nval/0.png\n", &["on every line, or on none"]);
    refused("val/b/9.png 1\n", &["`val/b/9.png` is not in"]);
    refused("\n", &["no image"]);
}

#[test]
fn tiny_imagenet_and_textures() {
    let directory = tempfile::tempdir().unwrap();
    let tiny = directory.path().join("tiny-imagenet-200");
    copies(&tiny, &["val/images/val_0.JPEG", "val/images/val_1.JPEG"]);
    copies(&tiny, &["train/n02/images/n02_0.JPEG", "train/n01/images/n01_0.JPEG"]);
    fs::write(tiny.join("wnids.txt"), "n03\nn02\nn01\n").unwrap();
    let annotations = tiny.join("val/val_annotations.txt");
    fs::write(&annotations, "val_1.JPEG\tn03\t0\t0\t9\t9\nval_0.JPEG\tn01\t0\n").unwrap();
    let set = open(&tiny, &ImageOptions::default()).unwrap();
    assert_eq!(rows(&*set), want(&[("val_1.JPEG", Some(2)), ("val_0.JPEG", Some(0))]));
    let set = open(&tiny, &options(None, "train")).unwrap();
    assert_eq!(rows(&*set), want(&[("n01_0.JPEG", Some(0)), ("n02_0.JPEG", Some(1))]));
    let error = open(&tiny, &options(None, "test")).err().unwrap().to_string();
    contains(&error, &["test/images", "val_annotations.txt"]);
    copies(&tiny, &["test/images/test_7.JPEG"]);
    let set = open(&tiny, &ImageOptions::default()).unwrap();
    assert_eq!(rows(&*set), want(&[("test_7.JPEG", None)]));
    fs::write(&annotations, "val_1.JPEG\tn09\n").unwrap();
    let error = open(&tiny, &options(None, "val")).err().unwrap().to_string();
    contains(&error, &["`n09`", "wnids.txt"]);
    let error = open(&tiny, &options(None, "best")).err().unwrap().to_string();
    contains(&error, &["`split` = best", "train, val and test"]);

    let dtd = directory.path().join("x/dtd");
    copies(&dtd, &["images/dotted/d_1.jpg", "images/banded/b_1.jpg", "images/banded/b_2.jpg"]);
    fs::create_dir(dtd.join("labels")).unwrap();
    fs::write(dtd.join("labels/test1.txt"), "dotted/d_1.jpg\nbanded/b_2.jpg\n").unwrap();
    let set = open(directory.path().join("x"), &ImageOptions::default()).unwrap();
    assert_eq!(rows(&*set), want(&[("d_1.jpg", Some(1)), ("b_2.jpg", Some(0))]));
    fs::write(dtd.join("labels/test2.txt"), "dotted/d_9.jpg\n").unwrap();
    let error = open(&dtd, &options(None, "test2")).err().unwrap().to_string();
    contains(&error, &["images/dotted/d_9.jpg"]);
}

#[test]
fn damaged_images_are_refused() {
    let refused = |name: &str, bytes: &[u8], parts: &[&str]| {
        let error = decode(name, bytes).expect_err(name).to_string();
        contains(&error, &[&[name], parts].concat());
    };
    for name in ["rgb.jpg", "progressive.jpg", "rgb.png", "rgb.bmp", "rgb.gif", "rgb.webp"] {
        let whole = fs::read(golden(name)).unwrap();
        for n in [3, 30, whole.len() / 3, whole.len() / 2] {
            refused(name, &whole[..n], &[]);
        }
    }
    refused("text.png", b"hello, hello, hello", &["JPEG, PNG"]);
    refused("empty.jpg", b"", &["not an image"]);
    // A bomb: 60000 × 60000 in a header.
    let mut bomb = fs::read(golden("rgb.png")).unwrap();
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = flate2_crc(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    refused("bomb.png", &bomb, &["60000×60000", "decompression bomb"]);
}

fn flate2_crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn paths_and_archives_that_are_not_data_sets() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let refused = |name: &str, parts: &[&str]| {
        let error = open(path(name), &ImageOptions::default()).err().expect(name).to_string();
        contains(&error, &[&[name], parts].concat());
    };
    fs::create_dir(path("empty")).unwrap();
    refused("empty", &["no image"]);
    refused("absent", &["does not exist"]);
    fs::write(path("a.tar"), [7; 2000]).unwrap();
    refused("a.tar", &["tar archive"]);
    fs::write(path("a.tgz"), b"not gzip").unwrap();
    refused("a.tgz", &["decompressed"]);
    fs::write(path("a.zip"), b"PK rubbish").unwrap();
    refused("a.zip", &["zip"]);
    fs::write(path("a.bin"), b"x").unwrap();
    refused("a.bin", &["expected a directory"]);
    fs::copy(golden("digits.mat"), path("empty/test_32x32.mat")).unwrap();
    refused("empty", &["give that file"]);
}

#[test]
fn transforms_that_cannot_be() {
    let refused = |config: TransformConfig, parts: &[&str]| {
        contains(&Transform::new(&config).err().unwrap().to_string(), parts);
    };
    let default = TransformConfig::imagenet;
    refused(TransformConfig { crop: Some(0), ..default() }, &["`crop` = 0"]);
    refused(TransformConfig { std: [1.0, 0.0, 1.0], ..default() }, &["`std` = 0"]);
    refused(TransformConfig { mean: [f32::NAN; 3], ..default() }, &["`mean` = NaN"]);
    refused(TransformConfig { resize: Some(Resize::Short(1 << 20)), ..default() }, &["`resize`"]);
    // A strip whose long side would be enormous.
    let strip = Image { width: 3000, height: 1, rgb: vec![0; 9000] };
    let error = Transform::new(&default()).unwrap().pixels(&strip).err().unwrap().to_string();
    contains(&error, &["768000×256", "crop it first"]);
}
