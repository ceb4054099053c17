//! `heat extract`, `heat backbone inspect`, `heat doctor`.

mod common;

use std::fs;
use std::path::Path;

use common::{command, contains, fails, ok, runtime, text};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-images/tests/golden");

fn model(name: &str) -> String {
    format!("{GOLDEN}/onnx/{name}.onnx")
}

fn images(directory: &Path) {
    for (i, class) in ["cat", "dog", "cat", "dog", "cat", "dog"].iter().enumerate() {
        let class = directory.join("images").join(class);
        fs::create_dir_all(&class).unwrap();
        let mut image = fs::read(format!("{GOLDEN}/images/rgb.bmp")).unwrap();
        image[54..].iter_mut().for_each(|v| *v = v.wrapping_mul(1 + i as u8));
        fs::write(class.join(format!("{i}.bmp")), image).unwrap();
    }
}

#[test]
fn graphs_are_described() {
    let directory = tempfile::tempdir().unwrap();
    let said = text(&ok(directory.path(), &["backbone", "inspect", &model("plain")]).stdout);
    contains(&said, &["image [?, 3, 8, 8]", "map: a map", "fc: 6 → 4 classes", "opset 17"]);
    let said = text(&ok(directory.path(), &["backbone", "inspect", &model("vector")]).stdout);
    contains(&said, &["flat: a vector, avg alone"]);
    let (code, error) = fails(directory.path(), &["backbone", "inspect", &model("headless")]);
    assert_eq!(code, 1);
    contains(&error, &["no linear layer", "as the tap"]);
}

#[test]
fn what_is_missing_is_said() {
    let directory = tempfile::tempdir().unwrap();
    images(directory.path());
    let plain = model("plain");
    let args = ["extract", "images", "--backbone", &plain, "-o", "out"];
    let refused = |more: &[&str], parts: &[&str]| {
        let (_, error) = fails(directory.path(), &[&args[..], more].concat());
        contains(&error, parts);
    };
    refused(&[], &["the normalisation", "--preset cifar10|cifar100|imagenet"]);
    refused(
        &["--preset", "imagenett"],
        &["`transform=imagenett`", "did you mean `transform=imagenet`"],
    );
    refused(&["--preset", "cifar10", "--mean", "1,2"], &["three numbers"]);
    refused(&["--preset", "cifar10", "--resize", "8y8"], &["`resize` = 8y8", "32x32"]);
    refused(&["--preset", "cifar10", "--format", "cifar"], &["`cifar`", "cifar10"]);
    refused(&["--preset", "cifar10", "--batch-size", "0"], &["`batch_size` = 0"]);
    let mut none = command(directory.path(), &["doctor"]);
    let out = none.env("ORT_DYLIB_PATH", "absent.so").output().unwrap();
    assert!(!out.status.success());
    contains(&text(&out.stderr), &["absent.so", "ORT_DYLIB_PATH", "pip install onnxruntime"]);
    assert!(!directory.path().join("out").exists());
}

#[test]
fn from_images_to_scores() {
    if !runtime("from_images_to_scores") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    images(path);
    contains(&text(&ok(path, &["doctor"]).stdout), &["ONNX Runtime", "found by"]);
    let plain = model("plain");
    let extract = ["extract", "images", "--backbone", &plain, "--preset", "cifar10"];
    let out = ["--resize", "8x8", "-o", "train"];
    let said = text(&ok(path, &[&extract[..], &out].concat()).stderr);
    contains(&said, &["map: a map", "6 rows; 6 images"]);
    // One network alone, and four that share more threads than there are networks.
    for threads in ["1", "6"] {
        let more = ["--resize", "8x8", "--batch-size", "2", "--threads", threads, "-o", threads];
        ok(path, &[&extract[..], &more].concat());
    }
    let shard = |set: &str| fs::read(path.join(set).join("shard-00000.safetensors")).unwrap();
    assert!(shard("1") == shard("6"));
    contains(
        &text(&ok(path, &["info", "train"]).stdout),
        &["6 rows", "std    [6, 6]", "2 classes"],
    );
    ok(path, &["fit", "el", "--train", "train", "--head", "head.safetensors", "-o", "el"]);
    assert_eq!(text(&ok(path, &["score", "el", "train"]).stdout).lines().count(), 7);
    // Images of another size than the graph's.
    let (code, error) = fails(path, &[&extract[..], &["-o", "large"]].concat());
    assert_eq!(code, 1);
    contains(&error, &["[?, 3, 8, 8]", "[6, 3, 32, 32]", "resizing"]);
}
