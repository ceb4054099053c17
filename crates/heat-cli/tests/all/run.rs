//! `heat run`: the whole chain on small generated pictures and a ResNet of four
//! channels (`heat-images/tests/golden/make_resnets.py`).

use crate::common;

use std::fs;
use std::path::Path;

use common::{contains, fails, ok, runtime, text};
use heat_ood::features::FeatureSet;

const WEIGHTS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-images/tests/golden/resnets/model_state.pt");

/// An uncompressed image of 8×8 whose colours depend on class and number.
fn bmp(seed: u32, tint: [u8; 3]) -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    let words: [u32; 13] = [54 + 192, 0, 54, 40, 8, 8, 1 | 24 << 16, 0, 192, 0, 0, 0, 0];
    bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    for i in 0..192 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push((tint[i % 3] / 2).wrapping_add((state >> 25) as u8));
    }
    bytes
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Images and recipes of a benchmark of one's own.
fn benchmark(directory: &Path) {
    for class in 0..10u8 {
        for i in 0..14 {
            let part = if i < 10 { "train" } else { "test" };
            let name = format!("data/tiny/{part}/class{class}/{i:02}.bmp");
            let tint = [0, 25 * class, 250 - 25 * class];
            write(&directory.join(name), bmp(i + 100 * u32::from(class), tint));
        }
    }
    for i in 0..30 {
        write(&directory.join(format!("data/blue/{i:02}.bmp")), bmp(i + 5000, [250, 0, 0]));
    }
    let recipe = |name: &str, text: &str| write(&directory.join("own").join(name), text);
    recipe(
        "dataset/tiny.toml",
        "ID_NAME = \"tiny\"\nnum_classes = 10\ntransform = \"tiny\"\nood = [\"blue\"]\n",
    );
    recipe(
        "pictures/tiny.toml",
        "[train]\npaths = [\"tiny/train\"]\n[test]\npaths = [\"tiny/test\"]\n",
    );
    recipe("pictures/blue.toml", "[test]\npaths = [\"red\", \"blue\"]\n");
    recipe("transform/tiny.toml", "mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n");
}

const SMALL: [&str; 10] = [
    "run",
    "dataset=tiny",
    "--recipes",
    "own",
    "--data",
    "data",
    "ebm.model.hidden_dim=16",
    "ebm.model.steps=1",
    "batch_size=40",
    "n_epochs=1",
];

#[test]
fn from_images_to_results() {
    if !runtime("from_images_to_results") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    benchmark(path);
    let backbone = format!("backbone={WEIGHTS}");
    let more = ["ebm=quickstart_gmm,quickstart_el", "--format", "json", "--scorers"];
    let scorers = "el,odin,quickstart_gmm(epsilon=0.01)";
    let args = [&SMALL[..], &[&backbone], &more, &[scorers]].concat();
    let out = ok(path, &args);
    contains(&text(&out.stderr), &["weights   of a resnet", "100 rows", "30 rows", "trained in"]);
    let results: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let names: Vec<&String> = results["scorers"].as_object().unwrap().keys().collect();
    let trained = ["quickstart_gmm", "quickstart_el", "HEAT(beta=0)"];
    let asked = ["el", "odin", "quickstart_gmm(epsilon=0.01)"];
    assert_eq!(names, [&asked[..], &trained].concat());
    let auroc = |name: &str| results["scorers"][name]["ood"]["blue"]["auroc"].as_f64().unwrap();
    // Blue images, classes from red to green: the Gaussian sees them.
    assert!(auroc("quickstart_gmm") > 0.9, "{}", auroc("quickstart_gmm"));
    // ODIN's perturbation was made, and changes the scores.
    assert_ne!(auroc("quickstart_gmm"), auroc("quickstart_gmm(epsilon=0.01)"));
    let features = path.join("runs/features/tiny-model_state");
    assert_eq!(FeatureSet::open(features.join("train")).unwrap().len(), 100);
    assert_eq!(fs::read_dir(features.join("perturbed")).unwrap().count(), 2);
    let whole = path.join("runs/quickstart_gmm+quickstart_el");
    assert!(whole.join("results.json").is_file());
    let scored = ok(
        path,
        &[
            "score",
            whole.join("detector.safetensors").to_str().unwrap(),
            features.join("blue").to_str().unwrap(),
        ],
    );
    assert_eq!(text(&scored.stdout).lines().count(), 31);
    // Again: nothing is extracted or trained, the results are the same.
    let again = ok(path, &[&args[..], &["--resume"]].concat());
    let said = text(&again.stderr);
    assert!(!said.contains(" images in ") && !said.contains("trained in"), "{said}");
    let mut second: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    let mut first = results.clone();
    for all in [&mut first, &mut second] {
        // Of two command lines.
        let made = all.as_object_mut().unwrap().remove("made").unwrap();
        assert!(made["command"].as_str().unwrap().starts_with("heat run"), "{made}");
        let scorers = all["scorers"].as_object_mut().unwrap();
        scorers.values_mut().for_each(|s| drop(s.as_object_mut().unwrap().remove("seconds")));
    }
    assert_eq!(first, second);
    // Scorers that fail are left out: in being fitted, and where there is no gradient.
    let failing = ["--resume", "--scorers", "el,knn(k=100000),knn(epsilon=0.01)"];
    let failing = [&SMALL[..], &[&backbone], &more[..3], &failing].concat();
    let out = ok(path, &failing);
    let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let names: Vec<&String> = found["scorers"].as_object().unwrap().keys().collect();
    assert_eq!(names, [&["el"][..], &trained].concat());
    assert_eq!(found["scorers"]["el"]["ood"], results["scorers"]["el"]["ood"]);
    let file = fs::read_to_string(whole.join("results.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&file).unwrap();
    for (name, words) in [("knn(k=100000)", "100"), ("knn(epsilon=0.01)", "gradient")] {
        contains(&text(&out.stderr), &[&format!("warning: {name} is left out: ")]);
        for found in [&found, &file] {
            contains(found["skipped"][name].as_str().unwrap(), &[words]);
        }
    }
    let (code, error) = fails(path, &[&failing[..], &["--strict"]].concat());
    assert_eq!(code, 2);
    contains(&error, &["100000"]);
    // Nor is a run taken for one on other features.
    fs::remove_file(path.join("data/tiny/train/class0/00.bmp")).unwrap();
    let (_, error) = fails(path, &[&args[..], &["--resume", "--features", "other"]].concat());
    contains(&error, &["quickstart_gmm", "other data than other/tiny-model_state/train"]);
    // Other settings do not silently use the features that are there.
    let (code, error) = fails(path, &[&args[..], &["transform.mean=[0,0,0]"]].concat());
    assert_eq!(code, 2);
    contains(&error, &["features/tiny-model_state/train", "these settings", "remove it"]);
}

#[test]
fn what_is_missing_is_said_before_anything_is_computed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    benchmark(path);
    let backbone = format!("backbone={WEIGHTS}");
    let with = |more: &[&str]| fails(path, &[&SMALL[..], more].concat());
    let (_, error) = with(&[]);
    contains(&error, &["`backbone`", "backbone=FILE"]);
    for list in ["dataset.ood=[blue,svhn,lsun]", "dataset.ood=['blue','svhn','lsun']"] {
        let (_, error) = with(&[&backbone, list]);
        contains(&error, &["`svhn`", "heat data get svhn", "`lsun`", "dataset.ood"]);
    }
    let (code, error) = with(&[&backbone, "seed=0,1"]);
    assert_eq!(code, 2);
    contains(&error, &["`seed`", "heat sweep"]);
    let (code, error) = with(&[&backbone, "--scorers", "knnn"]);
    assert_eq!(code, 2);
    contains(&error, &["`knnn`", "knn"]);
    let (code, error) = with(&[&backbone, "--scorers", "odin(epsilon=-1)"]);
    assert_eq!(code, 2);
    contains(&error, &["`epsilon` = -1"]);
    let named = format!("backbone.path={WEIGHTS}");
    let (code, error) = with(&["backbone=resnet34_c10", &named]);
    assert_eq!(code, 1);
    contains(&error, &["model_state.pt", "resnet34", "`layer4.2.bn2.bias` [512] is missing"]);
    let (_, error) = with(&["backbone=resnet34_c10"]);
    contains(&error, &["data/weights/resnet34_c10.pt", "backbone.path=FILE"]);
    assert!(!path.join("runs").exists());
}

/// `heat run` looks where `heat data get` puts things.
#[test]
fn downloads_are_found_by_the_recipes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(path).unwrap().parse::<toml::Table>().unwrap();
    let sources = read(&root.join("src/download/sources.toml"));
    let mut checked = 0;
    for file in fs::read_dir(root.join("../heat-ood/recipes/pictures")).unwrap() {
        let recipe = read(&file.unwrap().path());
        let download = recipe["download"].as_str().unwrap();
        let source = sources[download].as_table().unwrap();
        if source.contains_key("by_hand") {
            continue;
        }
        let files = source["files"].as_array().unwrap().iter();
        let files: Vec<&str> = files.map(|f| f["name"].as_str().unwrap()).collect();
        let paths = recipe["test"]["paths"].as_array().unwrap().iter();
        let paths: Vec<&str> = paths.map(|p| p.as_str().unwrap()).collect();
        let within = |p: &str| files.iter().any(|f| f.starts_with(&format!("{p}/")));
        let first = paths.iter().position(|p| files.contains(p) || within(p));
        let first = first.unwrap_or_else(|| panic!("{download}: {files:?}, {paths:?}"));
        // A directory that holds but the archive must not be taken for the data set.
        let archive = paths.iter().position(|p| files.contains(p));
        assert!(archive.is_none_or(|archive| archive == first), "{download}: {paths:?}");
        checked += 1;
    }
    assert!(checked >= 10, "{checked}");
}
