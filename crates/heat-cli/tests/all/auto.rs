//! `heat auto`: from images or features to a calibrated detector, and what may be missing.

use crate::common;

use std::fs;
use std::path::Path;

use common::{contains, fails, ok, runtime, text};
use serde_json::Value;

const MODEL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-images/tests/golden/onnx/plain.onnx");

/// An `.npy` of bytes.
fn npy(shape: &str, descr: &str, values: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    header += &" ".repeat(117 - header.len());
    header += "\n";
    [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), values].concat()
}

/// Images of 8×8 of four classes, each of a colour with a pattern, and their labels beside them.
fn images(directory: &Path, n: usize, salt: u32) {
    fs::create_dir_all(directory).unwrap();
    let (mut rgb, mut labels) = (Vec::new(), Vec::new());
    let mut state = salt.wrapping_mul(747_796_405).wrapping_add(1);
    for i in 0..n {
        let class = i % 4;
        labels.extend((class as i64).to_le_bytes());
        for pixel in 0..64 {
            for channel in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let base = if channel == class { 180 } else { 60 };
                let stripe = if (pixel / 8 + class * (pixel % 8)) % 3 == 0 { 40 } else { 0 };
                rgb.push((base + stripe + (state >> 27) as usize) as u8);
            }
        }
    }
    let shape = format!("({n}, 8, 8, 3)");
    fs::write(directory.join("images.npy"), npy(&shape, "|u1", &rgb)).unwrap();
    fs::write(directory.join("labels.npy"), npy(&format!("({n},)"), "<i8", &labels)).unwrap();
}

const NETWORK: [&str; 6] =
    ["--backbone", MODEL, "--mean=0.5,0.5,0.5", "--std=0.25,0.25,0.25", "--dtype", "f32"];

#[test]
fn from_images_to_verdicts_and_again() {
    if !runtime("from_images_to_verdicts_and_again") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    images(&path.join("train"), 240, 1);
    images(&path.join("val"), 260, 2);
    let auto = ["auto", "train/images.npy", "--val", "val/images.npy", "-o", "d.safetensors"];
    let auto = [&auto[..], &NETWORK, &["--surrogate-rows", "40", "--taps", "auto:2"]].concat();
    let out = ok(path, &auto);
    let said = text(&out.stdout);
    contains(
        &said,
        &["compared", "14 kinds", "members", "residual", "mirror", "calibrated on 130"],
    );
    let bytes = fs::read(path.join("d.safetensors")).unwrap();
    let found: Value =
        serde_json::from_slice(&fs::read(path.join("d.safetensors.auto/auto.json")).unwrap())
            .unwrap();
    assert_eq!(found["calibrated_on"], 130);
    assert!(found["selection"]["ranking"].as_array().unwrap().len() >= 40);
    assert!(found["made"]["command"].as_str().unwrap().contains("auto"));
    // What it reads comes from the detector.
    let score = ["score", "d.safetensors", "val/images.npy", "--backbone", MODEL];
    let scored = text(&ok(path, &score).stdout);
    contains(&scored, &["p_value", "verdict"]);
    assert_eq!(scored.lines().count(), 261);
    ok(path, &["info", "d.safetensors", "--verify"]);
    // Again, after something was lost: the same detector, to the byte.
    fs::remove_dir_all(path.join("d.safetensors.auto/surrogates/mixup")).unwrap();
    fs::remove_dir_all(path.join("d.safetensors.auto/calibration")).unwrap();
    fs::remove_file(path.join("d.safetensors")).unwrap();
    let again = ok(path, &auto);
    contains(&text(&again.stderr), &["train already exists"]);
    assert!(fs::read(path.join("d.safetensors")).unwrap() == bytes);
    // From the features that lie there: the same, without a step on images.
    let work = |name: &str| format!("d.safetensors.auto/{name}");
    let [train, val, sets] = ["train", "calibration", "surrogates"].map(work);
    let features =
        ["auto", "--train", &train, "--val", &val, "--surrogates", &sets, "-o", "f.safetensors"];
    ok(path, &features);
    assert!(fs::read(path.join("f.safetensors")).unwrap() == bytes);
}

#[test]
fn without_images_outside_training() {
    if !runtime("without_images_outside_training") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    images(&path.join("train"), 300, 1);
    let auto = ["auto", "train/images.npy", "-o", "d.safetensors", "--work", "w", "--no-mirror"];
    let options = ["--surrogate-rows", "20", "--no-residual", "--taps", "none", "--json"];
    let out = ok(path, &[&auto[..], &NETWORK, &options].concat());
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(found["calibrated_on"], 30);
    contains(&found["notes"].to_string(), &["--val", "a fifth of the images was held out"]);
    assert!(found.get("views").is_none() && found.get("residual").is_none());
    // What scorers of maps read is made where it is asked for, and such scorers are compared.
    let auto = ["auto", "train/images.npy", "-o", "m.safetensors", "--for", "gram,rankfeat"];
    let with_maps = ok(path, &[&auto[..], &["--no-mirror"], &NETWORK, &options].concat());
    let with_maps: Value = serde_json::from_slice(&with_maps.stdout).unwrap();
    let ranked = |found: &Value, name: &str| {
        let ranking = found["selection"]["ranking"].as_array().unwrap();
        ranking.iter().any(|scorer| scorer["name"] == name && scorer["auroc"].is_number())
    };
    for name in ["gram", "rankfeat"] {
        assert!(!ranked(&found, name) && ranked(&with_maps, name), "{name}");
    }
    // One image only: nothing to hold out.
    images(&path.join("one"), 1, 3);
    let one = ["auto", "one/images.npy", "-o", "e.safetensors"];
    let (_, said) = fails(path, &[&one[..], &NETWORK].concat());
    contains(&said, &["too few images", "--val"]);
    assert!(!path.join("e.safetensors").exists());
}

/// Beside features they would do nothing.
#[test]
fn options_of_images_are_refused_beside_features() {
    let directory = tempfile::tempdir().unwrap();
    for option in [
        ["--for", "gram"],
        ["--device", "cuda"],
        ["--precision", "tf32"],
        ["--preset", "cifar10"],
        ["--mean", "0.5,0.5,0.5"],
        ["--batch-size", "8"],
        ["--dtype", "f32"],
        ["--tap", "mid=relu"],
        ["--taps", "none"],
        ["--arch", "resnet20"],
        ["--surrogate-rows", "20"],
        ["--work", "w"],
        ["--backbone", MODEL],
    ] {
        let auto = [&["auto", "--train", "t", "-o", "d"][..], &option].concat();
        let (code, said) = fails(directory.path(), &auto);
        assert_eq!(code, 2);
        contains(&said, &["--train", "cannot be used with", option[0]]);
    }
}

#[test]
fn from_features_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/data/cifar10-densenet");
    let [train, head, val] = ["train", "head", "test"].map(|n| format!("{data}/{n}.safetensors"));
    let auto = ["auto", "--train", &train, "--head", &head, "--val", &val, "-o", "d.safetensors"];
    let out = ok(path, &[&auto[..], &["--rows", "1000"]].concat());
    contains(&text(&out.stdout), &["committee", "of features alone", "calibrated on"]);
    let (_, said) = fails(path, &["auto", "-o", "x.safetensors"]);
    contains(&said, &["--train"]);
    let (_, said) = fails(path, &["auto", "images", "-o", "x.safetensors"]);
    contains(&said, &["--backbone"]);
    let known = ["auto", "--train", &train, "--val", &train, "-o", "x.safetensors"];
    contains(&fails(path, &known).1, &["took no part"]);
}
