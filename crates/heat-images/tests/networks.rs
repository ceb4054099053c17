//! Networks in the spellings met in the field (`golden/cases`, and what
//! `golden/make_networks.py` makes): features, logits and head against ONNX
//! Runtime 1.32 and PyTorch 2.15.
//!
//! Tests that run a network need ONNX Runtime; without it they say that they
//! are skipped. `scripts/check` installs it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::bytes::contains;
use common::runtime;
use heat_images::backbone::{Backbone, BackboneOptions, Checked, Pooled};
use heat_images::{ImageOptions, Transform, TransformConfig, open};
use heat_ood::io::TensorFile;

fn case(name: &str) -> PathBuf {
    common::path("cases").join(name)
}

fn options() -> BackboneOptions {
    BackboneOptions::default()
}

fn expected(file: &str, name: &str) -> Vec<f32> {
    let file = TensorFile::open(&case(file)).unwrap();
    file.f32(name, file.shape(name).unwrap()).unwrap()
}

/// To a part of the largest value.
fn close(name: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{name}");
    let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let difference = (g - w).abs();
        assert!(difference <= tolerance * largest, "{name}[{i}]: got {g}, expected {w}");
    }
}

/// The three pictures, in [0, 1].
fn pictures() -> Vec<f32> {
    let set = open(case("pictures"), &ImageOptions::default()).unwrap();
    let plain = TransformConfig { mean: [0.0; 3], std: [1.0; 3], ..TransformConfig::default() };
    let mut transform = Transform::new(&plain).unwrap();
    (0..3).flat_map(|i| transform.apply(&set.image(i).unwrap()).unwrap().2).collect()
}

/// Features and logits of the pictures, and what was seen to make sense.
fn run(backbone: &Backbone) -> (Pooled, Checked) {
    let mut network = backbone.load().unwrap();
    let pooled = network.run(pictures(), [3, 3, 32, 32]).unwrap();
    (pooled, network.check([32, 32]).unwrap())
}

#[test]
fn cases_give_the_features_logits_and_heads_of_onnx_runtime() {
    if !runtime("cases_give_the_features_logits_and_heads_of_onnx_runtime") {
        return;
    }
    for (name, spread) in [
        ("03_outputs_aux_first", true),
        ("03_outputs_embedding_first", true),
        ("04_map_of_one_cell", false),
        ("05_mean_over_nhwc_opset18", true),
        ("05_mean_over_tokens_opset18", true),
        ("06_average_leaves_2x2", false),
        ("07_input_nhwc", true),
        ("08_external", true),
        ("09_gemm_alpha", true),
        ("09_weights_constant_nodes", true),
        ("09_weights_identity", true),
        ("09_weights_transpose_node", true),
        ("10_end_reshape", true),
        ("10_end_softmax_in_parts", true),
        ("10_end_temperature", true),
        ("11_head_convolution_after_pooling", true),
        ("12_half_inside", true),
        ("21_one_logit", true),
    ] {
        println!("{name}");
        let tolerance = if name == "12_half_inside" { 5e-3 } else { 1e-5 };
        let want = |part: &str| expected("expected.safetensors", &format!("{name}.{part}"));
        let backbone = Backbone::open(case(&format!("{name}.onnx")), &options()).unwrap();
        let head = backbone.head().expect(name);
        close(name, head.weight(), &want("head.weight"), tolerance);
        close(name, head.bias(), &want("head.bias"), tolerance);
        let (pooled, checked) = run(&backbone);
        close(name, &pooled.avg, &want("avg"), tolerance);
        close(name, &pooled.logits, &want("logits"), tolerance);
        assert_eq!((checked.alone.is_none(), checked.headless), (spread, None), "{name}");
        assert_eq!((pooled.std.len(), pooled.max.len()), match spread {
            true => (pooled.avg.len(), pooled.avg.len()),
            false => (0, 0),
        });
        // Written as ONNX it is the same, in one file.
        let directory = tempfile::tempdir().unwrap();
        let written = directory.path().join("again.onnx");
        backbone.save(&written).unwrap();
        let again = Backbone::open(&written, &options()).unwrap();
        assert_eq!(again.found().tap, backbone.found().tap, "{name}");
        let (second, checked) = run(&again);
        assert_eq!((&second.avg, &second.std), (&pooled.avg, &pooled.std), "{name}");
        assert_eq!(second.logits, pooled.logits, "{name}");
        assert_eq!(checked.headless, None, "{name}");
        close(name, again.head().unwrap().weight(), &want("head.weight"), tolerance);
    }
}
