//! Data sets of images that cannot be read: one test for each way, with what
//! is said. More, beside sound ones, in `images.rs`, `places.rs` and `lsun.rs`.

use crate::common;

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use common::bytes::contains;
use common::images::{copies, golden, options, refusal};
use heat_images::{Format, ImageOptions, decode, open};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A temporary directory and a path in it.
fn place(name: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    (directory, path)
}

fn refused(path: impl AsRef<Path>, parts: &[&str]) {
    contains(&refusal(path, &ImageOptions::default()), parts);
}

/// A zip of compressed files.
fn zipped(path: &Path, files: &[(&str, &[u8])]) {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let method = zip::CompressionMethod::Deflated;
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    fs::write(path, zip.finish().unwrap().into_inner()).unwrap();
}

fn gzipped(path: &Path, bytes: &[u8]) {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    fs::write(path, gz.finish().unwrap()).unwrap();
}

#[test]
fn truncated_jpeg() {
    let (_directory, path) = place("cut");
    copies(&path, &["a.png"]);
    let whole = fs::read(golden("rgb.jpg")).unwrap();
    fs::write(path.join("b.jpg"), &whole[..whole.len() / 2]).unwrap();
    let set = open(&path, &ImageOptions::default()).unwrap();
    set.image(0).unwrap();
    contains(&set.image(1).unwrap_err().to_string(), &["b.jpg", "truncated"]);
}

#[test]
fn image_of_no_bytes() {
    let (_directory, path) = place("empty");
    copies(&path, &["a.png"]);
    fs::write(path.join("b.jpg"), "").unwrap();
    let set = open(&path, &ImageOptions::default()).unwrap();
    contains(&set.image(1).unwrap_err().to_string(), &["b.jpg", "not an image"]);
}

#[test]
fn image_with_a_bomb_for_a_colour_profile() {
    // 64 MiB of zeros, compressed, before the pixels.
    let mut gz = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&vec![0; 64 << 20]).unwrap();
    let profile = [b"x\0\0".to_vec(), gz.finish().unwrap()].concat();
    let chunk = |kind: &[u8], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(data);
        let length = (data.len() as u32).to_be_bytes();
        [&length[..], kind, data, &crc.sum().to_be_bytes()].concat()
    };
    let mut image = fs::read(golden("rgb.png")).unwrap();
    let want = decode("rgb.png", &image).unwrap();
    image.splice(33..33, chunk(b"iCCP", &profile));
    // It is left out.
    assert_eq!(decode("profile.png", &image).unwrap(), want);
}

#[test]
fn directory_without_images() {
    let (_directory, path) = place("none");
    fs::create_dir_all(path.join("a/b")).unwrap();
    fs::write(path.join("a/b/readme.txt"), "hello").unwrap();
    refused(&path, &["none", "no image", ".jpg"]);
}

#[test]
fn cifar_100_given_as_cifar_10() {
    let (_directory, path) = place("cifar-100-binary");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("test.bin"), vec![0; 3074 * 2]).unwrap();
    let said = refusal(&path, &options(Some(Format::Cifar10), ""));
    contains(&said, &["no `test_batch`", "test.bin", "another archive"]);
    // Under the other's name, its records have another length.
    fs::rename(path.join("test.bin"), path.join("test_batch.bin")).unwrap();
    refused(&path, &["test_batch.bin", "records of 3073", "the other CIFAR"]);
    fs::remove_file(path.join("test_batch.bin")).unwrap();
    let other = b"\x80\x02}q\x00U\x0bfine_labels]K\x01as.";
    fs::write(path.join("test_batch"), other).unwrap();
    refused(&path, &["test_batch", "no dictionary with `labels`"]);
}

#[test]
fn labels_of_no_class() {
    let (_directory, path) = place("cifar");
    fs::create_dir(&path).unwrap();
    let mut records = vec![0; 3073 * 2];
    records[3073] = 10;
    fs::write(path.join("test_batch.bin"), records).unwrap();
    refused(&path, &["test_batch.bin", "row 1", "label 10", "0..10"]);
}

#[test]
fn list_with_a_missing_file() {
    let (directory, path) = place("list.txt");
    copies(directory.path(), &["a.png"]);
    fs::write(&path, "a.png 0\nb.png 1\n").unwrap();
    refused(&path, &["list.txt", "line 2", "`b.png` is not in"]);
    fs::write(&path, "a.png 0\n../a.png 1\n").unwrap();
    refused(&path, &["line 2", "`../a.png` is not in"]);
}

#[cfg(unix)]
#[test]
fn directories_that_contain_themselves() {
    let (_directory, path) = place("loop");
    copies(&path, &["a.png"]);
    std::os::unix::fs::symlink(".", path.join("again")).unwrap();
    refused(&path, &["again", "more than 32 deep", "a link"]);
}

#[cfg(unix)]
#[test]
fn links_to_nothing() {
    let (_directory, path) = place("links");
    copies(&path, &["a.png"]);
    std::os::unix::fs::symlink("absent.png", path.join("b.png")).unwrap();
    let set = open(&path, &ImageOptions::default()).unwrap();
    contains(&set.image(1).unwrap_err().to_string(), &["b.png", "leads to", "does not exist"]);
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let (_directory, path) = place("names");
    copies(&path, &["a.png"]);
    let name = std::ffi::OsStr::from_bytes(b"\xff.png");
    fs::copy(golden("rgb.png"), path.join(name)).unwrap();
    refused(&path, &["names", "not UTF-8; rename it"]);
}

#[test]
fn archives_that_lead_out_of_themselves() {
    let (directory, path) = place("out.zip");
    let image = fs::read(golden("rgb.png")).unwrap();
    zipped(&path, &[("a/x.png", &image), ("../x.png", &image)]);
    refused(&path, &["out.zip", "`../x.png` leads out of it"]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let path = directory.path().join("out.tar");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(image.len() as u64);
    header.as_mut_bytes()[..10].copy_from_slice(b"a/../x.png");
    header.set_cksum();
    tar.append(&header, &image[..]).unwrap();
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    refused(&path, &["out.tar", "`a/../x.png` leads out of it"]);
}

#[test]
fn zip_of_a_bomb() {
    let (_directory, path) = place("bomb.zip");
    let image = fs::read(golden("rgb.png")).unwrap();
    zipped(&path, &[("a.png", &image), ("b.png", &vec![0; 64 << 20])]);
    let set = open(&path, &ImageOptions::default()).unwrap();
    set.image(0).unwrap();
    let said = set.image(1).unwrap_err().to_string();
    contains(&said, &["bomb.zip: b.png", "become 67108864", "give the directory"]);
}

#[test]
fn gzip_of_a_bomb() {
    let (_directory, path) = place("x-images-idx3-ubyte.gz");
    // Four members of 300 MB each: a thousandth of that in the file.
    gzipped(&path, &vec![0; 300 << 20]);
    let member = fs::read(&path).unwrap();
    fs::write(&path, member.repeat(4)).unwrap();
    refused(&path, &["ubyte.gz", "become more than 1073741824", "bomb"]);
}

#[test]
fn zip_with_a_damaged_directory() {
    let (_directory, path) = place("x.zip");
    let image = fs::read(golden("rgb.png")).unwrap();
    zipped(&path, &[("a.png", &image)]);
    let whole = fs::read(&path).unwrap();
    let end = whole.len() - 22;
    for (at, value) in [(10, 9), (16, 1)] {
        let mut other = whole.clone();
        other[end + at] = value;
        fs::write(&path, other).unwrap();
        refused(&path, &["x.zip", "directory is damaged"]);
    }
    // A comment is none.
    let mut other = whole.clone();
    other[end + 20] = 5;
    other.extend(b"hello");
    fs::write(&path, other).unwrap();
    assert_eq!(open(&path, &ImageOptions::default()).unwrap().len(), 1);
}

#[test]
fn images_larger_than_is_wanted() {
    let (_directory, path) = place("some");
    copies(&path, &["a.png", "b.png"]);
    let small = ImageOptions { max_pixels: Some(1000), ..ImageOptions::default() };
    let said = open(&path, &small).unwrap().image(0).unwrap_err().to_string();
    contains(&said, &["a.png", "37×29", "more than 1000"]);
    let small = ImageOptions { max_pixels: Some(1000), ..ImageOptions::default() };
    contains(&refusal(golden("digits.mat"), &small), &["32×32", "more than 1000"]);
}
