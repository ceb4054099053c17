//! Classifiers in ONNX: what is found in their graphs, and their features
//! against numpy and ONNX Runtime 1.32 in Python (`golden/make_onnx.py`).
//!
//! Tests that run a network need ONNX Runtime; without it they say that they
//! are skipped. `scripts/check` installs it.

use crate::common;

use std::fs;
use std::path::PathBuf;

use common::bytes::contains;
use common::{close, runtime};
use heat_images::backbone::{Backbone, BackboneOptions, ExtractConfig, LayersAsked, Tap, extract};
use heat_images::{ImageOptions, TransformConfig, open};
use heat_ood::features::{FeatureSet, Field, FloatType, Head, Pooling, View};
use heat_ood::io::TensorFile;
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::{Event, Observer, Silent};

fn golden(name: &str) -> PathBuf {
    common::path("onnx").join(name)
}

fn backbone(name: &str, tap: Option<&str>) -> heat_ood::Result<Backbone> {
    let options = BackboneOptions { tap: tap.map(str::to_owned), ..BackboneOptions::default() };
    Backbone::open(golden(&format!("{name}.onnx")), &options)
}

fn refusal(name: &str, tap: Option<&str>) -> String {
    backbone(name, tap).err().expect(name).to_string()
}

fn expected(name: &str) -> Vec<f32> {
    let file = TensorFile::open(&golden("expected.safetensors")).unwrap();
    file.f32(name, file.shape(name).unwrap()).unwrap()
}

#[test]
fn features_and_head_are_found_in_the_graph() {
    for (name, tap) in [
        ("plain", Tap::Map("map".into())),
        ("matmul", Tap::Map("map".into())),
        ("vector", Tap::Vector("flat".into())),
    ] {
        let found = backbone(name, None).unwrap();
        let head = found.head().unwrap();
        assert_eq!(found.found().tap, tap, "{name}");
        assert_eq!((head.weight(), head.bias()), (&expected("weight")[..], &expected("bias")[..]));
        assert_eq!(found.found().image_size(), Some([8, 8]));
        assert_eq!(found.found().batch(), None);
    }
    assert_eq!(backbone("matmul", None).unwrap().found().linear, Some(("".into(), "raw".into())));
    assert_eq!(backbone("fixed", None).unwrap().found().batch(), Some(2));
    assert_eq!(backbone("anysize", None).unwrap().found().image_size(), None);
    let tapped = backbone("headless", Some("c")).unwrap();
    assert_eq!(tapped.found().tap, Tap::Map("c".into()));
    assert!(tapped.head().is_none());
    assert_eq!(backbone("headless", Some("flat")).unwrap().found().tap, Tap::Vector("flat".into()));
}

#[test]
fn models_that_cannot_be_used() {
    // Without a linear layer there are features alone.
    let headless = backbone("headless", None).unwrap();
    contains(headless.found().headless.as_ref().unwrap(), &["no linear layer", "Flatten"]);
    assert_eq!(headless.found().tap, Tap::Map("map".into()));
    contains(&refusal("plain", Some("mup")), &["`mup`", "map"]);
    contains(&refusal("half", None), &["`image`", "float32"]);
    contains(&refusal("external", None), &["external.bin", "put it beside"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.onnx");
    let whole = fs::read(golden("plain.onnx")).unwrap();
    for n in [1, 9, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..n]).unwrap();
        let error = Backbone::open(&path, &BackboneOptions::default()).err().unwrap().to_string();
        contains(&error, &["x.onnx", "ONNX model"]);
    }
    let library = Some(directory.path().join("no.so"));
    let absent = BackboneOptions { library, ..BackboneOptions::default() };
    let model = Backbone::open(golden("plain.onnx"), &absent).unwrap();
    contains(&model.load().err().unwrap().to_string(), &["no.so", "pip install onnxruntime"]);
}

#[test]
fn pooled_outputs_are_numpys() {
    if !runtime("pooled_outputs_are_numpys") {
        return;
    }
    let shape = [5, 3, 8, 8];
    for name in ["plain", "matmul", "anysize"] {
        let mut network = backbone(name, None).unwrap().load().unwrap();
        let pooled = network.run(expected("pictures"), shape).unwrap();
        close("avg", &pooled.avg, &expected("avg"), 1e-6);
        close("std", &pooled.std, &expected("std"), 1e-6);
        close("max", &pooled.max, &expected("max"), 1e-6);
        close("logits", &pooled.logits, &expected("logits"), 1e-6);
    }
    // A batch of two fixed in the graph: the last row goes with one of zeros.
    let mut network = backbone("fixed", None).unwrap().load().unwrap();
    let (images, size) = (expected("pictures"), 3 * 8 * 8);
    let last = network.run(images[4 * size..].to_vec(), [1, 3, 8, 8]).unwrap();
    close("fixed avg", &last.avg, &expected("avg")[4 * 6..], 1e-6);
    close("fixed logits", &last.logits, &expected("logits")[4 * 4..], 1e-6);
    let pooled = backbone("vector", None).unwrap().load().unwrap();
    let pooled = { pooled }.run(expected("pictures"), shape).unwrap();
    close("vector", &pooled.avg, &expected("vector"), 1e-6);
    assert!(pooled.std.is_empty() && pooled.max.is_empty());
    let pooled = backbone("headless", Some("map")).unwrap().load().unwrap();
    let pooled = { pooled }.run(expected("pictures"), shape).unwrap();
    close("tapped avg", &pooled.avg, &expected("avg"), 1e-6);
    close("tapped std", &pooled.std, &expected("std"), 1e-6);
    let mut network = backbone("plain", None).unwrap().load().unwrap();
    let error = network.run(vec![0.0; 3 * 81], [1, 3, 9, 9]).err().unwrap().to_string();
    contains(&error, &["plain.onnx", "[?, 3, 8, 8]", "[1, 3, 9, 9]"]);
    let error = backbone("future", None).unwrap().load().err().unwrap().to_string();
    contains(&error, &["future.onnx", "ONNX Runtime", "opset"]);
}

fn of_maps(name: &str) -> Vec<f32> {
    let file = TensorFile::open(&golden("of_maps.safetensors")).unwrap();
    file.f32(name, file.shape(name).unwrap()).unwrap()
}

/// What is made of maps alone.
const MAPS: [Field; 2] = [Field::Gram, Field::Rankfeat];

#[test]
fn maps_are_reduced_as_by_numpy() {
    if !runtime("maps_are_reduced_as_by_numpy") {
        return;
    }
    let layer = LayersAsked { named: vec![("c".into(), "c".into())], found: None };
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let exported = path("exported.onnx");
    backbone("plain", None).unwrap().save(&exported).unwrap();
    let exported = Backbone::open(&exported, &BackboneOptions::default()).unwrap();
    for (name, model) in [
        ("plain", backbone("plain", None).unwrap()),
        ("matmul", backbone("matmul", None).unwrap()),
        ("anysize", backbone("anysize", None).unwrap()),
        ("exported", exported),
    ] {
        let model = model.with_layers(&layer, [8, 8]).unwrap();
        let mut network = model.with_fields_of_maps(&Field::OF_MAPS).unwrap().load().unwrap();
        let pooled = network.run(expected("pictures"), [5, 3, 8, 8]).unwrap();
        close(&format!("{name} gram"), &pooled.gram, &of_maps("gram"), 2e-6);
        close(&format!("{name} rankfeat"), &pooled.rankfeat, &of_maps("rankfeat"), 2e-6);
        close(&format!("{name} c.gram"), &pooled.layers[0].gram, &of_maps("c.gram"), 2e-6);
        close(&format!("{name} avg"), &pooled.avg, &expected("avg"), 1e-6);
    }
    // Of a vector: a map of one cell, whose rows' sums are a product.
    let vector = backbone("vector", None).unwrap();
    let refused = |network: &Backbone, fields: &[Field]| {
        network.with_fields_of_maps(fields).err().unwrap().to_string()
    };
    let said = refused(&vector, &MAPS);
    contains(&said, &["rankfeat", "a vector, with no map"]);
    contains(&refused(&vector, &[Field::Nac]), &["nac", "made of further layers", "--taps auto"]);
    let headless = backbone("headless", Some("c")).unwrap();
    contains(&refused(&headless, &[Field::Graduncertainty]), &["has no logits"]);
    let mut network = vector.with_fields_of_maps(&[Field::Gram]).unwrap().load().unwrap();
    let pooled = network.run(expected("pictures"), [5, 3, 8, 8]).unwrap();
    let row = &pooled.avg[..6];
    let want: Vec<f32> = row.iter().map(|v| (v * row.iter().sum::<f32>()).sqrt()).collect();
    close("one cell", &pooled.gram[..6], &want, 1e-6);
    // A tap that has values below 0 is another feature: its map is what is reduced.
    let mut network = backbone("headless", Some("c")).unwrap().with_fields_of_maps(&MAPS).unwrap();
    let pooled = { network.load().unwrap() }.run(expected("pictures"), [5, 3, 8, 8]).unwrap();
    close("c gram", &pooled.gram, &of_maps("c.gram"), 2e-6);
    close("c rankfeat", &pooled.rankfeat, &of_maps("c.rankfeat"), 2e-6);

    // In files, where the manifest says it.
    let rgb: Vec<u8> = (0..7 * 192u32).map(|i| (i * 7919 % 251) as u8).collect();
    fs::write(path("images.npy"), images(&rgb)).unwrap();
    let set = open(path("images.npy"), &ImageOptions::default()).unwrap();
    let config = ExtractConfig {
        transform: TransformConfig { resize: None, crop: None, ..TransformConfig::imagenet() },
        batch_size: 3,
        views: [View::Mirror].into(),
        ..ExtractConfig::default()
    };
    network = backbone("plain", None).unwrap().with_layers(&layer, [8, 8]).unwrap();
    let with = network.with_fields_of_maps(&Field::OF_MAPS).unwrap();
    extract(&*set, &with, &path("out"), &config, &mut Silent).unwrap();
    let features = FeatureSet::open(path("out")).unwrap();
    let dim = |name: &str| features.dim(Field::named(name).unwrap());
    for name in ["gram", "c.gram", "mirror.gram", "mirror.c.gram"] {
        assert_eq!(dim(name), Some(60), "{name}");
    }
    assert_eq!((dim("rankfeat"), dim("mirror.rankfeat")), (Some(6), Some(6)));
    assert_eq!((dim("c.nac"), dim("mirror.c.nac"), dim("nac")), (Some(6), Some(6), None));
    // The convolution's kernel, weights and bias of the head.
    assert_eq!(dim("graduncertainty"), Some(3));
    let manifest = fs::read_to_string(path("out/extract.json")).unwrap();
    assert!(manifest.contains(r#""for": ["#) && manifest.contains("rankfeat"), "{manifest}");
    let said = extract(&*set, &network, &path("out"), &config, &mut Silent).err().unwrap();
    contains(&said.to_string(), &["with for", "rankfeat"]);
}

/// A graph that was exported while it trained has the features of the one that was exported to be used: dropout
/// and the statistics of the batch would make them differ from run to run.
#[test]
fn graphs_in_training_mode_are_evaluated() {
    let [training, evaluation] = ["training", "evaluation"].map(|n| backbone(n, None).unwrap());
    contains(&training.notes().join("\n"), &["training mode (1 Dropout, 1 BatchNormalization)"]);
    assert!(evaluation.notes().is_empty());
    if !runtime("graphs_in_training_mode_are_evaluated") {
        return;
    }
    let run = |backbone: &Backbone, images: usize| {
        let pictures = expected("pictures")[..images * 192].to_vec();
        backbone.load().unwrap().run(pictures, [images, 3, 8, 8]).unwrap()
    };
    let want = run(&evaluation, 5);
    assert_eq!(want.logits.len(), 5 * 4);
    for _ in 0..2 {
        let got = run(&training, 5);
        assert_eq!(
            (got.avg, got.std, got.logits),
            (want.avg.clone(), want.std.clone(), want.logits.clone())
        );
    }
    // Nor do they hang on the images beside them.
    assert_eq!(run(&training, 1).logits, want.logits[..4]);
}

/// Of the mean of the map, which alone is dropped: by the masks that each pass draws, and the head.
#[test]
fn passes_with_dropout_by_hand() {
    if !runtime("passes_with_dropout_by_hand") {
        return;
    }
    let model = backbone("training", None).unwrap();
    let mut network = model.load().unwrap();
    let (pictures, head) = (expected("pictures"), model.head().unwrap());
    let plain = network.run(pictures.clone(), [5, 3, 8, 8]).unwrap();
    let (classes, dim) = (head.classes(), head.dim());
    let passes: Vec<Vec<f64>> = (0..4)
        .map(|pass| {
            let mut mask = vec![0.0; dim];
            Stream::new(0, Purpose::Dropout, pass, 0).fill_uniform(&mut mask, 0.0, 1.0);
            let kept = |i: usize| if mask[i] < 0.5 { 0.0 } else { 2.0 };
            let logit = |row: &[f32], c: usize| -> f64 {
                let products = (0..dim).map(|i| row[i] * kept(i) * head.weight()[c * dim + i]);
                products.map(f64::from).sum::<f64>() + f64::from(head.bias()[c])
            };
            let rows = plain.avg.chunks_exact(dim);
            rows.flat_map(|row| (0..classes).map(move |c| logit(row, c))).collect()
        })
        .collect();
    let softmax = |row: &[f64]| -> Vec<f64> {
        let total: f64 = row.iter().map(|l| l.exp()).sum();
        row.iter().map(|l| l.exp() / total).collect()
    };
    let of: Vec<Vec<f64>> =
        passes.iter().map(|p| p.chunks_exact(classes).flat_map(softmax).collect()).collect();
    let mean = |all: &[Vec<f64>], i: usize| all.iter().map(|p| p[i]).sum::<f64>() / 4.0;
    let spread = |i: usize| {
        let centre = mean(&of, i);
        (of.iter().map(|p| (p[i] - centre).powi(2)).sum::<f64>() / 3.0).sqrt()
    };
    let all = |f: &dyn Fn(usize) -> f64| -> Vec<f32> { (0..20).map(|i| f(i) as f32).collect() };
    let got = network.dropped(&pictures, [5, 3, 8, 8], 4).unwrap();
    close("logits", &got.logits, &all(&|i| mean(&passes, i)), 1e-5);
    close("probs", &got.probabilities, &all(&|i| mean(&of, i)), 1e-5);
    close("spread", &got.spread, &all(&spread), 1e-5);
    assert!(got.avg.is_empty() && got.std.is_empty());
    // The same for an image alone, and each time; in evaluation nothing is dropped.
    let alone = network.dropped(&pictures[192..384], [1, 3, 8, 8], 4).unwrap();
    close("alone", &alone.spread, &got.spread[4..8], 1e-5);
    assert_eq!(network.run(pictures, [5, 3, 8, 8]).unwrap().logits, plain.logits);
}

/// Dropout of the map and of its mean, beside a million passes by NumPy with masks of its own: four thousand are
/// within five of their standard errors.
#[test]
fn passes_with_dropout_are_distributed_as_by_numpy() {
    let plain = backbone("plain", None).unwrap();
    assert!(plain.check_views(&[View::Mirror]).is_ok());
    let refused = |name: &str| {
        let network = backbone(name, None).unwrap();
        network.check_views(&[View::Dropout(30)]).unwrap_err().to_string()
    };
    contains(&refused("plain"), &["plain.onnx", "no dropout is left", "`layer.train()`"]);
    contains(&refused("headless"), &["the network has none"]);
    contains(&refused("dropped_half_old"), &["half precision", "opset_version=17"]);
    if !runtime("passes_with_dropout_are_distributed_as_by_numpy") {
        return;
    }
    let golden = TensorFile::open(&golden("dropped.safetensors")).unwrap();
    let want = |name: &str| golden.f32(name, &[5, 4]).unwrap();
    let of = |name: &str, images: usize, passes: u32| {
        let mut network = backbone(name, None).unwrap().load().unwrap();
        let pictures = expected("pictures")[..images * 192].to_vec();
        network.dropped(&pictures, [images, 3, 8, 8], passes).unwrap()
    };
    const PASSES: u32 = 4000;
    let got = of("dropped", 5, PASSES);
    for (name, got) in
        [("logits", &got.logits), ("probs", &got.probabilities), ("spread", &got.spread)]
    {
        let error = want(&format!("{name}.error"));
        for (i, want) in want(name).into_iter().enumerate() {
            let away = f64::from(got[i] - want).abs() / f64::from(error[i]);
            assert!(away < 5.0 / f64::from(PASSES).sqrt(), "{name} {i}: {away}");
        }
    }
    // Whether what comes before is run once or in each pass, alone or for a fixed number of images.
    let got = of("dropped", 5, 7);
    for name in ["dropped_beside", "dropped_fixed"] {
        let other = of(name, 5, 7);
        close(name, &other.probabilities, &got.probabilities, 1e-5);
        close(name, &other.spread, &got.spread, 1e-5);
    }
    let half = of("dropped_half", 5, 7);
    close("dropped_half", &half.probabilities, &got.probabilities, 1e-2);
    close("dropped_half", &half.spread, &got.spread, 1e-2);
}

/// An `.npy` of images `[n, 8, 8, 3]`.
fn images(rgb: &[u8]) -> Vec<u8> {
    let shape = format!("({}, 8, 8, 3)", rgb.len() / 192);
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    header += &" ".repeat(118 - header.len() - 1);
    header += "\n";
    [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), rgb].concat()
}

/// The features of squeezed views are those of images that are squeezed before: of one bit, 0 or
/// 255, by the threshold; of medians, by sorting.
#[test]
fn squeezed_images() {
    if !runtime("squeezed_images") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let rgb: Vec<u8> = (0..7 * 192u32).map(|i| (i * 7919 % 251) as u8).collect();
    let bits: Vec<u8> = rgb.iter().map(|v| if *v > 127 { 255 } else { 0 }).collect();
    let inside = |i: usize, by: usize| (i + by).saturating_sub(1).min(7);
    let median: Vec<u8> = (0..rgb.len())
        .map(|at| {
            let (image, y, x, c) = (at / 192, at / 24 % 8, at / 3 % 8, at % 3);
            let cell = |dy, dx| rgb[image * 192 + inside(y, dy) * 24 + inside(x, dx) * 3 + c];
            let mut nine: Vec<u8> = (0..9).map(|i| cell(i / 3, i % 3)).collect();
            nine.sort_unstable();
            nine[4]
        })
        .collect();
    let model = backbone("plain", None).unwrap();
    let run = |rgb: &[u8], views: &[View], out: &str| {
        fs::write(path("images.npy"), images(rgb)).unwrap();
        let set = open(path("images.npy"), &ImageOptions::default()).unwrap();
        let config = ExtractConfig {
            transform: TransformConfig { resize: None, crop: None, ..TransformConfig::imagenet() },
            batch_size: 3,
            dtype: FloatType::F32,
            views: views.iter().copied().collect(),
            ..ExtractConfig::default()
        };
        extract(&*set, &model, &path(out), &config, &mut Silent).unwrap();
        FeatureSet::open(path(out)).unwrap()
    };
    let all = |set: &FeatureSet, name: &str| {
        let field = Field::named(name).unwrap();
        let mut out = vec![0.0; set.len() * set.require(field).unwrap()];
        set.read(field, 0..set.len(), &mut out).unwrap();
        out
    };
    let seen = run(&rgb, &[View::Median(3), View::Bits(1)], "seen");
    let (bits, median) = (run(&bits, &[], "bits"), run(&median, &[], "median"));
    for name in ["avg", "std", "logits"] {
        let plain = all(&seen, name);
        for (view, other) in [("bits1", &bits), ("median3", &median)] {
            let want = all(other, name);
            assert_ne!(want, plain, "{view} {name}");
            close(&format!("{view} {name}"), &all(&seen, &format!("{view}.{name}")), &want, 1e-5);
        }
    }
}

/// A layer beside the features is what it is as the features; the mirrored image's features are
/// those of an image that is mirrored before.
#[test]
fn further_layers_and_mirrored_images() {
    if !runtime("further_layers_and_mirrored_images") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let rgb: Vec<u8> = (0..7 * 192u32).map(|i| (i * 7919 % 251) as u8).collect();
    let turned: Vec<u8> = rgb
        .chunks(24)
        .flat_map(|row| row.chunks(3).rev().flatten().copied().collect::<Vec<_>>())
        .collect();
    fs::write(path("plain.npy"), images(&rgb)).unwrap();
    fs::write(path("turned.npy"), images(&turned)).unwrap();
    let config = ExtractConfig {
        transform: TransformConfig { resize: None, crop: None, ..TransformConfig::imagenet() },
        batch_size: 3,
        dtype: FloatType::F32,
        ..ExtractConfig::default()
    };
    let run = |images: &str, model: &Backbone, layers: &LayersAsked, mirror: bool, out: &str| {
        let set = open(path(images), &ImageOptions::default()).unwrap();
        let model = model.with_layers_of(layers, &*set, &config.transform)?;
        let views = mirror.then_some(View::Mirror).into_iter().collect();
        let config = ExtractConfig { views, ..config.clone() };
        extract(&*set, &model, &path(out), &config, &mut Silent)?;
        FeatureSet::open(path(out))
    };
    let model = backbone("headless", None).unwrap();
    let named = |name: &str, tensor: &str| LayersAsked {
        named: vec![(name.into(), tensor.into())],
        found: None,
    };
    let (with, none) = (named("c", "c"), LayersAsked::default());
    let set = run("plain.npy", &model, &with, true, "with").unwrap();
    let tapped = backbone("headless", Some("c")).unwrap();
    let alone = run("plain.npy", &tapped, &none, false, "alone").unwrap();
    let mirrored = run("turned.npy", &model, &with, true, "mirrored").unwrap();
    let all = |set: &FeatureSet, name: &str| {
        let field = Field::named(name).unwrap();
        let mut out = vec![0.0; set.len() * set.require(field).unwrap()];
        set.read(field, 0..set.len(), &mut out).unwrap();
        out
    };
    for name in ["avg", "std"] {
        assert_eq!(all(&set, &format!("c.{name}")), all(&alone, name));
        assert_eq!(all(&set, &format!("mirror.{name}")), all(&mirrored, name));
        assert_eq!(all(&set, &format!("mirror.c.{name}")), all(&mirrored, &format!("c.{name}")));
        assert_eq!(all(&set, name), all(&mirrored, &format!("mirror.{name}")));
    }
    assert_ne!(all(&set, "avg"), all(&set, "mirror.avg"));
    // The same again is there already; without the layer it is another set.
    assert_eq!(run("plain.npy", &model, &with, true, "with").unwrap().len(), 7);
    let said = run("plain.npy", &model, &none, true, "with").err().unwrap().to_string();
    contains(&said, &["layers", "\"c\""]);
    // What cannot be had.
    let refused = |layers: LayersAsked, name: &str| {
        let said = run("plain.npy", &backbone(name, None).unwrap(), &layers, false, "no");
        let said = said.err().unwrap();
        assert!(!path("no").exists());
        said.to_string()
    };
    contains(&refused(named("c", "nothing"), "headless"), &["`nothing`", "tensor"]);
    contains(&refused(named("mirror", "c"), "headless"), &["mirror", "layer"]);
    contains(&refused(named("avg", "c"), "headless"), &["avg", "not a field's"]);
    contains(&refused(named("a.b", "c"), "headless"), &["a.b", "no point"]);
    let twice = LayersAsked {
        named: [named("x", "c").named, named("x", "map").named].concat(),
        found: None,
    };
    contains(&refused(twice, "headless"), &["two layers", "x"]);
    let found = LayersAsked { named: Vec::new(), found: Some(2) };
    contains(&refused(found, "vector"), &["vector.onnx", "no map"]);
}

/// Stops after so many batches.
struct Stop(usize);

impl Observer for Stop {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Advance { .. } = event {
            self.0 = self.0.saturating_sub(1);
        }
    }

    fn should_stop(&self) -> bool {
        self.0 == 0
    }
}

#[test]
fn extraction_keeps_order_resumes_and_lists_what_it_skips() {
    if !runtime("extraction_keeps_order_resumes_and_lists_what_it_skips") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for i in 0..23u8 {
        // Rising grey: the features tell the order.
        let class = path(&format!("images/{}", ["a", "b"][usize::from(i > 11)]));
        fs::create_dir_all(&class).unwrap();
        let mut bmp = fs::read(common::path("images/rgb.bmp")).unwrap();
        bmp[54..].fill(10 * i);
        fs::write(class.join(format!("{i:02}.bmp")), bmp).unwrap();
    }
    let set = open(path("images"), &ImageOptions::default()).unwrap();
    let transform = TransformConfig {
        resize: Some(heat_images::Resize::Exact([8, 8])),
        crop: None,
        ..TransformConfig::imagenet()
    };
    let config = ExtractConfig {
        transform,
        batch_size: 3,
        shard_rows: 6,
        dtype: FloatType::F32,
        ..ExtractConfig::default()
    };
    let model = backbone("plain", None).unwrap();
    let done = extract(&*set, &model, &path("out"), &config, &mut Silent).unwrap();
    assert_eq!((done.rows, done.resumed), (23, 0));
    let features = FeatureSet::open(path("out")).unwrap();
    let labels = features.labels(0..23, 2).unwrap();
    assert!(labels[..12].iter().all(|l| *l == 0) && labels[12..].iter().all(|l| *l == 1));
    let all = |set: &FeatureSet, field| {
        let mut out = vec![0.0; set.len() * set.dim(field).unwrap()];
        set.read(field, 0..set.len(), &mut out).unwrap();
        out
    };
    // One image alone, for each row.
    let mut network = model.load().unwrap();
    let avg = all(&features, Field::Features(Pooling::Avg));
    let mut one = heat_images::Transform::new(&config.transform).unwrap();
    for i in 0..set.len() {
        let (h, w, values) = one.apply(&set.image(i).unwrap()).unwrap();
        let pooled = network.run(values, [1, 3, h, w]).unwrap();
        close("row", &avg[i * 6..][..6], &pooled.avg, 1e-6);
    }
    let head = Head::open(path("out/head.safetensors")).unwrap();
    let mut logits = vec![0.0; 23 * 4];
    head.logits(&avg, &mut logits, &mut Default::default());
    close("logits", &all(&features, Field::Logits), &logits, 1e-5);
    // The same again is done already, another is refused; stopped and gone on
    // with gives the same bytes.
    let done = extract(&*set, &model, &path("out"), &config, &mut Silent).unwrap();
    assert_eq!((done.rows, done.resumed), (23, 23));
    let other = ExtractConfig { shard_rows: 7, ..config.clone() };
    let error = extract(&*set, &model, &path("out"), &other, &mut Silent).err().unwrap();
    contains(&error.to_string(), &["exists"]);
    let stopped = extract(&*set, &model, &path("again"), &config, &mut Stop(5)).err().unwrap();
    contains(&stopped.to_string(), &["interrupted", "go on"]);
    assert!(!path("again").exists());
    let unfinished = FeatureSet::open(path(".heat-again.tmp")).err().unwrap().to_string();
    contains(&unfinished, &["did not finish"]);
    let other = ExtractConfig { shard_rows: 7, ..config.clone() };
    let error = extract(&*set, &model, &path("again"), &other, &mut Silent).err().unwrap();
    contains(&error.to_string(), &["other settings"]);
    let done = extract(&*set, &model, &path("again"), &config, &mut Silent).unwrap();
    assert_eq!((done.rows, done.resumed), (23, 6));
    for i in 0..4 {
        let name = format!("shard-{i:05}.safetensors");
        let read = |directory: &str| fs::read(path(directory).join(&name)).unwrap();
        assert!(read("out") == read("again"), "{name}");
    }
    // Ended just before the directory has its name.
    fs::rename(path("again"), path(".heat-last.tmp")).unwrap();
    let done = extract(&*set, &model, &path("last"), &config, &mut Silent).unwrap();
    assert_eq!((done.rows, done.resumed), (23, 23));
    let read = |directory: &str| fs::read(path(directory).join("extract.json")).unwrap();
    assert!(read("out") == read("last"));
    // Two images that cannot be read, one shard without any that can.
    for i in [3, 12, 13, 14, 15, 16, 17] {
        fs::write(path(&format!("images/{}/{i:02}.bmp", if i > 11 { "b" } else { "a" })), "x")
            .unwrap();
    }
    let error = extract(&*set, &model, &path("fatal"), &config, &mut Silent).err().unwrap();
    contains(&error.to_string(), &["a/03.bmp", "not an image"]);
    let skip = ExtractConfig { skip_unreadable: true, ..config };
    let done = extract(&*set, &model, &path("skipped"), &skip, &mut Silent).unwrap();
    assert_eq!((done.rows, done.unreadable.len()), (16, 7));
    contains(&done.unreadable[0], &["a/03.bmp"]);
    let kept = FeatureSet::open(path("skipped")).unwrap();
    let rows: Vec<u32> = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22].to_vec();
    let mut want = vec![0.0; 16 * 6];
    features.gather(Field::Features(Pooling::Avg), &rows, &mut want).unwrap();
    close("kept", &all(&kept, Field::Features(Pooling::Avg)), &want, 1e-6);
}
