//! A network before a detector: images in, the verdicts of `heat score --backbone` out.
//!
//! Needs ONNX Runtime; without it the tests say that they are skipped. `scripts/check` installs it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use heat_images::backbone::{Backbone, BackboneOptions, ExtractConfig, extract, find_library};
use heat_images::{ImageOptions, TransformConfig};
use heat_ood::calibrate::CalibrationConfig;
use heat_ood::features::FeatureSet;
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Detector, Silent, TrainingData};
use heat_serve::{NamedFile, Server, Settings};
use serde_json::{Value, json};

use crate::common::{Running, request, rows};

const NETWORKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-images/tests/golden/onnx");

/// Bytes of an image of 8 × 8.
const PIXELS: usize = 192;

fn runtime(test: &str) -> bool {
    let found = find_library(None);
    if let Err(error) = &found {
        // Past the harness, which keeps what passing tests print to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {error}");
    }
    found.is_ok()
}

fn rgb(i: usize) -> Vec<u8> {
    let hash = |k: usize| (i * PIXELS + k).wrapping_mul(0x9e37_79b1) >> 11;
    (0..PIXELS).map(|k| (60 + 80 * (i % 2) + hash(k) % 90) as u8).collect()
}

/// The image as a file: rows from below, blue first.
fn bmp(rgb: &[u8], width: i32, height: i32) -> Vec<u8> {
    let mut file = b"BM".to_vec();
    file.extend((54 + rgb.len() as u32).to_le_bytes());
    file.extend([0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0]);
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend([1, 0, 24, 0, 0, 0, 0, 0]);
    file.extend([0; 20]);
    for row in rgb.chunks(24).rev() {
        file.extend(row.chunks(3).flat_map(|p| [p[2], p[1], p[0]]));
    }
    file
}

fn network(name: &str) -> PathBuf {
    Path::new(NETWORKS).join(name).with_extension("onnx")
}

/// The features of those images, by the extraction of files.
fn features(directory: &Path, images: std::ops::Range<usize>, name: &str) -> FeatureSet {
    let source = directory.join(format!("{name}.images"));
    for i in images {
        let class = source.join(["dark", "light"][i % 2]);
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join(format!("{i:04}.bmp")), bmp(&rgb(i), 8, 8)).unwrap();
    }
    let set = heat_images::open(&source, &ImageOptions::default()).unwrap();
    let backbone = Backbone::open(network("plain"), &BackboneOptions::default()).unwrap();
    let transform = TransformConfig { resize: None, crop: None, ..TransformConfig::imagenet() };
    let config = ExtractConfig { transform, ..ExtractConfig::default() };
    extract(&*set, &backbone, &directory.join(name), &config, &mut Silent).unwrap();
    FeatureSet::open(directory.join(name)).unwrap()
}

fn detector(directory: &Path, spec: &str, path: &Path) -> Detector {
    let [train, held_out] = ["train", "cal"].map(|name| FeatureSet::open(directory.join(name)));
    let fitted = ScorerSpec::parse(spec).unwrap();
    let train = train.unwrap();
    let fitted = fitted.fit(&TrainingData::new(&train), &mut Silent).unwrap();
    let mut detector = Detector::new(fitted);
    let config = CalibrationConfig::default();
    detector.calibrate(&config, &held_out.unwrap(), None, false, &mut Silent).unwrap();
    detector.save(path).unwrap();
    detector
}

/// Raw bytes as the only input.
fn send(running: &Running, input: Value, bytes: &[u8]) -> crate::common::Answer {
    let mut input = input;
    input["parameters"] = json!({"binary_data_size": bytes.len()});
    let head = json!({"inputs": [input]}).to_string().into_bytes();
    let length = head.len().to_string();
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    running.post("/v2/models/seen/infer", &headers, &[head, bytes.to_vec()].concat())
}

/// The scores as what they were before they were written in decimal.
fn scores(answer: &crate::common::Answer) -> Vec<f32> {
    answer.output("score").iter().map(|score| *score as f32).collect()
}

fn files<'a>(all: impl IntoIterator<Item = &'a Vec<u8>>) -> (Value, Vec<u8>) {
    let all: Vec<_> = all.into_iter().collect();
    let bytes = |file: &&Vec<u8>| [&(file.len() as u32).to_le_bytes()[..], &file[..]].concat();
    let input = json!({"name": "image_bytes", "shape": [all.len()], "datatype": "BYTES"});
    (input, all.iter().flat_map(bytes).collect())
}

#[test]
fn images_are_scored_as_the_command_scores_them() {
    if !runtime("images_are_scored_as_the_command_scores_them") {
        return;
    }
    let made = tempfile::tempdir().unwrap();
    features(made.path(), 0..80, "train");
    features(made.path(), 80..180, "cal");
    let test = features(made.path(), 180..220, "test");
    let path = made.path().join("seen.safetensors");
    let detector = detector(made.path(), "knn(k=3)", &path);
    // The extraction reads class by class.
    let order: Vec<usize> = (180..220).step_by(2).chain((181..220).step_by(2)).collect();
    let want = detector.score(&test).unwrap();
    let running = Running::start(|settings, _| {
        settings.detectors.push(NamedFile { name: "seen".into(), path: path.clone() });
        settings.backbones.push(NamedFile { name: "seen".into(), path: network("plain") });
    });
    let inputs = running.get("/v2/models/seen").json()["inputs"].clone();
    assert_eq!(inputs[0]["name"], "image_bytes");

    let whole: Vec<Vec<u8>> = order.iter().map(|i| bmp(&rgb(*i), 8, 8)).collect();
    let (input, bytes) = files(&whole);
    let answer = send(&running, input, &bytes);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(scores(&answer), want);
    let pixels: Vec<u8> = order.iter().flat_map(|i| rgb(*i)).collect();
    let input = json!({"name": "image", "shape": [40, 8, 8, 3], "datatype": "UINT8"});
    let answer = send(&running, input, &pixels);
    assert_eq!(scores(&answer), want);
    assert_eq!(answer.output("p_value").len(), 40);

    // One at fault is named, and those beside it in other requests get their answers.
    let mut huge = bmp(&rgb(0), 100_000, 100_000);
    huge.truncate(200);
    for (bad, word) in [(b"no image".to_vec(), "image 1"), (huge, "100000")] {
        let (input, bytes) = files([&whole[0], &bad]);
        std::thread::scope(|scope| {
            let (other, more) = files([&whole[3]]);
            let beside = scope.spawn({
                let (running, more) = (&running, more.clone());
                move || send(running, other, &more)
            });
            let answer = send(&running, input, &bytes);
            assert_eq!(answer.status, 400, "{}", answer.text());
            let error = answer.error();
            assert!(error.contains(word) && !error.contains('/'), "{error}");
            assert_eq!(scores(&beside.join().unwrap()), want[3..4]);
        });
    }
    // Features of the same network are taken as well.
    let avg = json!({"inputs": [{"name": "avg", "shape": [1, 6], "datatype": "FP32",
                                 "data": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}]});
    assert_eq!(running.infer("seen", &avg).status, 200);
    // And not by a model that has no network.
    let (mut input, bytes) = files([&whole[0]]);
    input["parameters"] = json!({"binary_data_size": bytes.len()});
    let answer = running.infer(
        "gmm",
        &json!({"inputs": [{"name": "image", "shape": [1, 1, 1, 3],
        "datatype": "UINT8", "data": [1, 2, 3]}]}),
    );
    assert!(answer.status == 400 && answer.error().contains("no network"), "{}", answer.text());
    assert_eq!(running.infer("gmm", &request(&rows(2, 5, 0.0))).status, 200);

    // A detector of the same network takes its place; one of other features does not.
    self::detector(made.path(), "norm", &path);
    let load = || running.admin("POST", "/v2/repository/models/seen/load");
    assert_eq!(load().status, 200);
    fs::copy(running.directory.path().join("gmm.safetensors"), &path).unwrap();
    let refused = load();
    assert!(refused.status == 400 && refused.error().contains("served on"), "{}", refused.text());
    let (input, bytes) = files(&whole);
    assert_eq!(send(&running, input, &bytes).status, 200);
}

#[test]
fn another_network_is_refused_at_the_start() {
    let made = tempfile::tempdir().unwrap();
    if !runtime("another_network_is_refused_at_the_start") {
        return;
    }
    features(made.path(), 0..40, "train");
    features(made.path(), 40..80, "cal");
    let path = made.path().join("seen.safetensors");
    detector(made.path(), "knn(k=3)", &path);
    let with = |network: PathBuf| {
        let named = |path: PathBuf| vec![NamedFile { name: "seen".into(), path }];
        let (detectors, backbones) = (named(path.clone()), named(network));
        let settings = Settings { detectors, backbones, ..Settings::default() };
        Server::open(settings).err().map(|e| e.to_string())
    };
    assert_eq!(with(network("plain")), None);
    let error = with(network("fixed")).unwrap();
    assert!(error.contains("fixed.onnx") && error.contains("fitted on"), "{error}");
    assert!(with(path.clone()).is_some());
}
