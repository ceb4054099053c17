//! Networks in the spellings met in the field (`golden/cases`, and what
//! `golden/make_networks.py` makes): features, logits and head against ONNX
//! Runtime 1.32 and PyTorch 2.15.
//!
//! Tests that run a network need ONNX Runtime; without it they say that they
//! are skipped. `scripts/check` installs it.

use crate::common;

use std::fs;
use std::path::{Path, PathBuf};

use common::bytes::contains;
use common::runtime;
use heat_images::backbone::{Backbone, BackboneOptions, Checked, Pooled, Tap};
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
    (pooled, network.check_on(&pictures(), [32, 32]).unwrap())
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
        assert_eq!(
            (pooled.std.len(), pooled.max.len()),
            match spread {
                true => (pooled.avg.len(), pooled.avg.len()),
                false => (0, 0),
            }
        );
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

fn network(name: &str) -> PathBuf {
    common::path("networks").join(name)
}

#[test]
fn further_spellings_are_the_same_layer() {
    if !runtime("further_spellings_are_the_same_layer") {
        return;
    }
    let file = TensorFile::open(&network("expected.safetensors")).unwrap();
    let want = |name: &str| file.f32(name, file.shape(name).unwrap()).unwrap();
    for (name, tolerance) in [
        ("batch_normalisation", 1e-5),
        ("mean_of_two", 1e-5),
        ("mean_node", 1e-5),
        ("mean_of_stack", 1e-5),
        ("convolution_before_pooling", 1e-5),
        ("low_rank", 1e-5),
        ("without_background", 1e-5),
        ("einsum", 1e-5),
        ("log_softmax_in_parts", 1e-5),
        ("logistic_in_parts", 1e-5),
        ("one_against_rest", 1e-5),
        ("beta_and_columns", 1e-5),
        ("unpooled_norm_of_weights", 1e-5),
        ("mean_in_parts", 1e-5),
        ("rows_then_columns", 1e-5),
        ("named_logits", 1e-5),
        ("two_files", 1e-5),
        // Rounded to eight bits by ONNX Runtime.
        ("qdq", 0.02),
        ("qoperator", 0.02),
        ("qoperator_channels", 0.02),
        ("dynamic", 0.02),
    ] {
        println!("{name}");
        let want = |part: &str| want(&format!("{name}.{part}"));
        let backbone = Backbone::open(network(&format!("{name}.onnx")), &options()).unwrap();
        let head = backbone.head().expect(name);
        close(name, head.weight(), &want("weight"), tolerance);
        close(name, head.bias(), &want("bias"), tolerance);
        let (pooled, checked) = run(&backbone);
        assert_eq!(checked, Checked::default(), "{name}");
        close(name, &pooled.avg, &want("avg"), tolerance);
        close(name, &pooled.logits, &want("logits"), tolerance);
        if tolerance < 1e-4 {
            close(name, &pooled.std, &want("std"), tolerance);
            close(name, &pooled.max, &want("max"), tolerance);
        }
    }
}

/// The graphs that the package `onnx` ships, whose weights are nodes.
#[test]
fn networks_without_stored_weights() {
    for (name, dim, spread) in [
        ("light_bvlc_alexnet", Some(4096), false),
        ("light_zfnet512", Some(1024), false),
        ("light_resnet50", Some(2048), true),
        ("light_squeezenet", None, true),
    ] {
        let file = common::path("light").join(format!("{name}.onnx"));
        let backbone = Backbone::open(file, &options()).unwrap();
        assert_eq!(
            backbone.head().map(|h| (h.dim(), h.classes())),
            dim.map(|d| (d, 1000)),
            "{name}"
        );
        assert_eq!(matches!(backbone.found().tap, Tap::Map(_)), spread, "{name}");
        assert_eq!(backbone.found().headless.is_some(), dim.is_none(), "{name}");
        if runtime(name) && name.contains("squeeze") {
            let mut network = backbone.load().unwrap();
            let pooled = network.run(vec![0.5; 3 * 224 * 224], [1, 3, 224, 224]).unwrap();
            assert_eq!((pooled.avg.len(), pooled.logits.len()), (512, 1000));
        }
    }
}

#[test]
fn outputs_are_chosen_and_listed() {
    let path = case("03_outputs_embedding_first.onnx");
    let chosen = |options: &BackboneOptions| {
        let backbone = Backbone::open(&path, options).unwrap();
        let chosen = backbone.found().chosen.clone().unwrap();
        (chosen.output, chosen.others.join(","), chosen.why, backbone.head().unwrap().classes())
    };
    let (output, others, why, classes) = chosen(&options());
    assert_eq!((&output[..], &others[..], classes), ("y", "emb", 5));
    contains(&why, &["by its name"]);
    let asked = BackboneOptions { output: Some("emb".into()), ..options() };
    assert_eq!(chosen(&asked).3, 7);
    let labels = BackboneOptions { classes: Some(7), ..options() };
    contains(&chosen(&labels).2, &["7 classes"]);
    let unknown = BackboneOptions { output: Some("z".into()), ..options() };
    contains(&refusal(&path, &unknown), &["`z`", "y"]);
}

fn refusal(path: &Path, options: &BackboneOptions) -> String {
    Backbone::open(path, options).err().expect("refused").to_string()
}

#[test]
fn files_of_weights_that_are_not_there_or_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("08_external.onnx");
    fs::copy(case("08_external.onnx"), &model).unwrap();
    contains(&refusal(&model, &options()), &["08_external.onnx.data", "put it beside"]);
    let whole = fs::read(case("08_external.onnx.data")).unwrap();
    fs::write(directory.path().join("08_external.onnx.data"), &whole[..1000]).unwrap();
    contains(&refusal(&model, &options()), &["tensor `w`", "truncated"]);
    for (name, location) in [("leaves", "../one.bin"), ("absolute", "/one.bin")] {
        let error = refusal(&network(&format!("{name}.onnx")), &options());
        contains(&error, &[location, "outside its directory"]);
    }
}

/// Where strides and poolings are, weights do not tell.
#[test]
fn stems_and_strides_are_as_said() {
    let stem = |arch: &str| BackboneOptions { arch: Some(arch.into()), ..options() };
    let silent = Backbone::open(case("02_cifar_stem_with_pooling.pth"), &options()).unwrap();
    contains(&silent.notes().join("\n"), &["3×3 stem", "stem=cifar+pool"]);
    let here = runtime("stems_and_strides_are_as_said");
    for name in [
        "02_cifar_stem_with_pooling",
        "31_stem_of_21_letters",
        "30_sequential_head",
        "30_other_buffers",
    ] {
        println!("{name}");
        let path = case(&format!("{name}.pth"));
        let backbone = Backbone::open(&path, &stem("stem=cifar+pool")).unwrap();
        assert_eq!(backbone.notes(), &[] as &[String], "{name}");
        if here {
            let (pooled, _) = run(&backbone);
            close(name, &pooled.logits, &expected("expected.safetensors", "02.logits"), 1e-5);
            let (other, _) = run(&silent);
            assert!((other.logits[0] - pooled.logits[0]).abs() > 1e-3);
        }
    }
    for (arch, parts) in [
        ("stem=big", ["`stem` = big", "cifar+pool"]),
        ("stride_in=conv3", ["`stride_in` = conv3", "conv1"]),
        ("stm=cifar", ["stm", "did you mean"]),
    ] {
        contains(&refusal(&case("31_stem_of_21_letters.pth"), &stem(arch)), &parts);
    }
}

/// PyTorch's archives, and what other programs make of them.
#[test]
fn archives_in_other_hands() {
    contains(&refusal(&case("23_torchscript.pt"), &options()), &["TorchScript", "torch.jit.load"]);
    // Every length of the name, stored and compressed.
    let directory = tempfile::tempdir().unwrap();
    let bytes = fs::read(case("02_cifar_stem_with_pooling.pth")).unwrap();
    let whole = Backbone::open(case("02_cifar_stem_with_pooling.pth"), &options()).unwrap();
    let weight = whole.head().unwrap().weight();
    for (length, method) in (1..40)
        .map(|n| (n, zip::CompressionMethod::Stored))
        .chain([(21, zip::CompressionMethod::Deflated)])
    {
        let mut from = zip::ZipArchive::new(std::io::Cursor::new(&bytes)).unwrap();
        let path = directory.path().join("again.pth");
        let mut to = zip::ZipWriter::new(fs::File::create(&path).unwrap());
        for i in 0..from.len() {
            let mut entry = from.by_index(i).unwrap();
            let name = entry.name().unwrap().split_once('/').unwrap().1.to_owned();
            let options = zip::write::SimpleFileOptions::default().compression_method(method);
            to.start_file(format!("{}/{name}", "x".repeat(length)), options).unwrap();
            std::io::copy(&mut entry, &mut to).unwrap();
        }
        to.finish().unwrap();
        let again = Backbone::open(&path, &options()).unwrap();
        assert_eq!(again.head().unwrap().weight(), weight, "{length}");
    }
}
