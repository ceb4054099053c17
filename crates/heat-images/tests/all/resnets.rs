//! ResNets from their weights: what is read from files and refused, and
//! features, gradients and perturbed images against PyTorch 2.15, torchvision
//! 0.29 and timm (`golden/make_resnets.py`), on weights that both sides
//! generate.
//!
//! Tests that run a network need ONNX Runtime; without it they say that they
//! are skipped. `scripts/check` installs it.

use crate::common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::bytes::contains;
use common::{close, runtime};
use heat_images::backbone::{Backbone, BackboneOptions, LayersAsked, Perturbation};
use heat_ood::Silent;

use heat_ood::features::{Batch, FeatureSet, Field, Pooling};

use heat_ood::TrainingData;
use heat_ood::io::TensorFile;
use heat_ood::scorers::{Scorer, ScorerSpec};

fn golden(name: &str) -> PathBuf {
    common::path("resnets").join(name)
}

fn expected(name: &str) -> Vec<f32> {
    let file = TensorFile::open(&golden("expected.safetensors")).unwrap();
    file.f32(name, file.shape(name).unwrap()).unwrap()
}

/// As `uniform` of `make_resnets.py`.
fn uniform(name: &str, n: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let value = |i: u64| {
        let mut x = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..n as u64).map(value).collect()
}

/// As `generated` of `make_resnets.py`.
fn generated(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut u = uniform(name, shape.iter().product());
    let change: Box<dyn Fn(f32) -> f32> = if name.ends_with("running_var") {
        Box::new(|u| 1.0 + 0.5 * u)
    } else if name.ends_with("running_mean") || name.ends_with("bias") {
        Box::new(|u| 0.1 * u)
    } else if shape.len() == 1 {
        Box::new(|u| 0.5 + 0.2 * u)
    } else {
        let bound = (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt() as f32;
        Box::new(move |u| bound * u)
    };
    u.iter_mut().for_each(|u| *u = change(*u));
    u
}

type Tensors = Vec<(String, Vec<usize>)>;

fn norm(all: &mut Tensors, name: &str, channels: usize) {
    for part in ["weight", "bias", "running_mean", "running_var"] {
        all.push((format!("{name}.{part}"), vec![channels]));
    }
}

/// Names and shapes of torchvision's ResNets, from their paper's tables.
fn imagenet(blocks: [usize; 4], bottleneck: bool, kernel: usize, classes: usize) -> Tensors {
    let mut all = vec![("conv1.weight".into(), vec![64, 3, kernel, kernel])];
    norm(&mut all, "bn1", 64);
    let (mut from, grow) = (64, if bottleneck { 4 } else { 1 });
    for (stage, n) in blocks.into_iter().enumerate() {
        let width = 64 << stage;
        for i in 0..n {
            let name = format!("layer{}.{i}", stage + 1);
            let convs = match bottleneck {
                true => vec![(width, from, 1), (width, width, 3), (4 * width, width, 1)],
                false => vec![(width, from, 3), (width, width, 3)],
            };
            for (j, (to, from, k)) in convs.into_iter().enumerate() {
                all.push((format!("{name}.conv{}.weight", j + 1), vec![to, from, k, k]));
                norm(&mut all, &format!("{name}.bn{}", j + 1), to);
            }
            if i == 0 && (stage > 0 || bottleneck) {
                all.push((format!("{name}.downsample.0.weight"), vec![grow * width, from, 1, 1]));
                norm(&mut all, &format!("{name}.downsample.1"), grow * width);
            }
            from = grow * width;
        }
    }
    all.push(("fc.weight".into(), vec![classes, from]));
    all.push(("fc.bias".into(), vec![classes]));
    all
}

/// The CIFAR family with option A.
fn cifar(n: usize, width: usize) -> Tensors {
    let mut all = vec![("conv1.weight".into(), vec![width, 3, 3, 3])];
    norm(&mut all, "bn1", width);
    let mut from = width;
    for stage in 0..3 {
        for i in 0..n {
            let to = width << stage;
            for (j, from) in [from, to].into_iter().enumerate() {
                let name = format!("layer{}.{i}", stage + 1);
                all.push((format!("{name}.conv{}.weight", j + 1), vec![to, from, 3, 3]));
                norm(&mut all, &format!("{name}.bn{}", j + 1), to);
            }
            from = to;
        }
    }
    all.push(("linear.weight".into(), vec![10, from]));
    all.push(("linear.bias".into(), vec![10]));
    all
}

fn save(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, shape)| {
            let values = generated(name, shape);
            (name.clone(), shape.clone(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name, view.unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn open(path: &Path) -> heat_ood::Result<Backbone> {
    Backbone::open(path, &BackboneOptions::default())
}

fn refusal(path: &Path, options: &BackboneOptions) -> String {
    Backbone::open(path, options).err().expect("refused").to_string()
}

/// A `odin` detector for features of the network's size.
fn odin(backbone: &Backbone) -> Arc<dyn Scorer> {
    let rows = ndarray::Array2::<f32>::ones((2, backbone.head().unwrap().dim()));
    let train = FeatureSet::from_arrays(rows.view(), None).unwrap();
    let data = TrainingData::new(&train).with_head(backbone.head());
    let fitted = ScorerSpec::parse("odin").unwrap().fit(&data, &mut Silent).unwrap();
    fitted.scorer().clone()
}

/// Features, gradient and ODIN's perturbation of one network.
fn compare(name: &str, backbone: &Backbone, n: usize, side: usize) {
    let shape = [n, 3, side, side];
    let mut network = backbone.load().unwrap();
    let mut images = uniform(&format!("{name}.pictures"), shape.iter().product());
    let pooled = network.run(images.clone(), shape).unwrap();
    let mut seeds = Vec::new();
    for (part, field, values) in [
        ("avg", Field::Features(Pooling::Avg), &pooled.avg),
        ("std", Field::Features(Pooling::Std), &pooled.std),
        ("max", Field::Features(Pooling::Max), &pooled.max),
        ("logits", Field::Logits, &pooled.logits),
    ] {
        let name = |what: &str| format!("{name}{what}.{part}");
        close(&name(""), values, &expected(&name("")), 1e-4);
        seeds.push((field, uniform(&name(".seed"), values.len())));
    }
    let gradient = network.gradient(&images, shape, &Batch::of(n, seeds).unwrap()).unwrap();
    close("gradient", &gradient, &expected(&format!("{name}.gradient")), 1e-4);
    if name == "resnet20" {
        // Kernels and biases of 19 convolutions and the head's: no shortcut, which has no weights.
        let with = backbone.with_fields_of_maps(&[Field::Graduncertainty]).unwrap();
        let norms = with.load().unwrap().run(images.clone(), shape).unwrap().graduncertainty;
        assert_eq!(norms.len(), n * 40);
    }
    let nudged = network.nudged(&images, &pooled.logits, shape, 5).unwrap();
    let moved = nudged.iter().zip(&images).filter(|(a, b)| a != b).count();
    assert_eq!(moved, n * (images.len() / n * 5 / 100));
    let nudged = network.run(nudged, shape).unwrap();
    close("nudged", &nudged.logits, &expected(&format!("{name}.nudged")), 1e-3);
    let perturbation = Perturbation::new(odin(backbone), 1.0).unwrap().of_largest(Some(1)).unwrap();
    let mut one = images.clone();
    perturbation.apply(&mut network, &mut one, shape).unwrap();
    assert_eq!(one.iter().zip(&images).filter(|(a, b)| a != b).count(), n);
    let one = network.run(one, shape).unwrap();
    close("I-ODIN", &one.logits, &expected(&format!("{name}.iodin")), 1e-3);
    let perturbation = Perturbation::new(odin(backbone), 0.01).unwrap();
    perturbation.apply(&mut network, &mut images, shape).unwrap();
    let moved = network.run(images, shape).unwrap();
    close("odin", &moved.logits, &expected(&format!("{name}.odin")), 1e-3);
}

#[test]
fn features_gradients_and_perturbations_are_pytorchs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights.safetensors");
    let here = runtime("features_gradients_and_perturbations_are_pytorchs");
    for (name, tensors, n, side) in [
        ("resnet18", imagenet([2, 2, 2, 2], false, 7, 7), 1, 48),
        ("resnet34", imagenet([3, 4, 6, 3], false, 3, 10), 1, 32),
        ("resnet50", imagenet([3, 4, 6, 3], true, 7, 1000), 1, 64),
        ("resnet20", cifar(3, 16), 1, 32),
    ] {
        save(&path, &tensors);
        let backbone = open(&path).unwrap();
        contains(backbone.architecture().unwrap(), &[name]);
        assert!(backbone.found().linear.is_some());
        if here {
            println!("{name}");
            compare(name, &backbone, n, side);
        }
    }
}

/// Every operator that a gradient goes back through, with strides, groups,
/// dilations and windows that overlap (`golden/make_gradients.py`).
#[test]
fn gradients_go_back_through_graphs_of_others() {
    let golden = |name: &str| common::path("gradients").join(name);
    let file = TensorFile::open(&golden("expected.safetensors")).unwrap();
    let expected = |name: &str| file.f32(name, file.shape(name).unwrap()).unwrap();
    let backbone = open(&golden("mixed.onnx")).unwrap();
    if !runtime("gradients_go_back_through_graphs_of_others") {
        return;
    }
    let shape = [3, 3, 23, 23];
    let seeds = || {
        let features = (Field::Features(Pooling::Avg), expected("seed.features"));
        Batch::of(3, [features, (Field::Logits, expected("seed.logits"))]).unwrap()
    };
    let mut network = backbone.load().unwrap();
    let pooled = network.run(expected("pictures"), shape).unwrap();
    close("avg", &pooled.avg, &expected("avg"), 1e-5);
    close("logits", &pooled.logits, &expected("logits"), 1e-5);
    let gradient = network.gradient(&expected("pictures"), shape, &seeds()).unwrap();
    close("gradient", &gradient, &expected("gradient"), 1e-4);
    // Layers on the way, one that several operators read among them; the scorer's closed form.
    let named = ["b", "e", "h", "m"].map(|name| (name.to_owned(), name.to_owned()));
    let asked = LayersAsked { named: named.into(), found: None };
    let layers = open(&golden("mixed.onnx")).unwrap().with_layers(&asked, [23, 23]).unwrap();
    let with = layers.with_fields_of_maps(&[Field::Nac, Field::Graduncertainty]).unwrap();
    let mut network = with.load().unwrap();
    for images in [3, 1] {
        let pictures = expected("pictures")[..images * 3 * 23 * 23].to_vec();
        let pooled = network.run(pictures, [images, 3, 23, 23]).unwrap();
        for layer in &pooled.layers {
            let want = expected(&format!("{}.nac", layer.part.name()));
            close(layer.part.name(), &layer.nac, &want[..layer.nac.len()], 1e-4);
        }
        assert_eq!(pooled.layers.len(), 4);
        let want = expected("norms");
        let norms = &pooled.graduncertainty;
        close("norms of weights", norms, &want[..want.len() / 3 * images], 1e-5);
    }
    for (name, parts) in [
        ("sigmoid", ["sigmoid.onnx", "`gate` (Sigmoid)", "only through Conv"]),
        ("old", ["old.onnx", "`pool` (MaxPool)", "opset 16"]),
    ] {
        let mut network = open(&golden(&format!("{name}.onnx"))).unwrap().load().unwrap();
        let refused = network.gradient(&expected("pictures"), shape, &seeds());
        contains(&refused.err().unwrap().to_string(), &parts);
    }
}

/// The same network in every form of file, and written as ONNX.
#[test]
fn checkpoints_of_every_form_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let here = runtime("checkpoints_of_every_form_are_read");
    let plain = directory.path().join("small.safetensors");
    save(&plain, &cifar(1, 4));
    for path in [golden("model_state.pt"), golden("module.th"), plain] {
        let backbone = open(&path).unwrap();
        contains(backbone.architecture().unwrap(), &["[1, 1, 1]", "CIFAR"]);
        let written = directory.path().join("small.onnx");
        backbone.save(&written).unwrap();
        let again = open(&written).unwrap();
        assert_eq!(again.architecture(), None);
        assert_eq!(again.found().tap, backbone.found().tap);
        assert_eq!(again.head().unwrap().weight(), backbone.head().unwrap().weight());
        if here {
            compare("small", &backbone, 2, 8);
            compare("small", &again, 2, 8);
        }
    }
    // Halves: equal to the rounding of the weights.
    let half = open(&golden("bare_half.pth")).unwrap();
    close("half", half.head().unwrap().weight(), &generated("linear.weight", &[10, 16]), 5e-4);
}

#[test]
fn several_networks_need_a_prefix() {
    let refused = refusal(&golden("two.pt"), &BackboneOptions::default());
    contains(&refused, &["two.pt", "several networks", "`a.`, `b.`"]);
    let with = |prefix: &str| BackboneOptions {
        prefix: Some(prefix.to_owned()),
        ..BackboneOptions::default()
    };
    // Each is a network of its own, however its prefix is written; one that is alone is its file.
    let hash = |file: &str, options: &BackboneOptions| {
        Backbone::open(golden(file), options).unwrap().sha256().to_owned()
    };
    let [a, b] = ["a.", "b."].map(|prefix| hash("two.pt", &with(prefix)));
    assert_ne!(a, b);
    assert_eq!(b, hash("two.pt", &with("b")));
    let whole = |file: &str| heat_ood::io::sha256(&golden(file)).unwrap();
    assert!(![&a, &b].contains(&&whole("two.pt")));
    assert_eq!(hash("module.th", &BackboneOptions::default()), whole("module.th"));
    contains(&refusal(&golden("two.pt"), &with("c.")), &["`c.conv1.weight`", "prefix"]);
}

#[test]
fn wrong_weights_are_refused_with_every_mismatch() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    let arch =
        |name: &str| BackboneOptions { arch: Some(name.to_owned()), ..BackboneOptions::default() };
    let mut tensors = cifar(3, 16);
    save(&path, &tensors);
    assert!(Backbone::open(&path, &arch("resnet20")).is_ok());
    contains(&refusal(&path, &arch("resnet21")), &["`resnet21`", "did you mean `resnet"]);
    let deeper = refusal(&path, &arch("resnet32"));
    contains(
        &deeper,
        &["w.safetensors", "resnet32", "`layer1.3.conv1.weight` [16, 16, 3, 3] is missing"],
    );
    let wider = refusal(&path, &arch("resnet18"));
    contains(&wider, &["`conv1.weight` has shape [16, 3, 3, 3], expected [64, 3, 3, 3]"]);
    contains(&wider, &["`layer1.2.conv1.weight` is unexpected", "`layer4.0.bn1.bias`"]);
    // One tensor gone, one of another shape, one too many: all are named.
    tensors.retain(|(name, _)| name != "layer2.1.bn2.running_var");
    tensors.iter_mut().find(|(n, _)| n == "linear.bias").unwrap().1 = vec![11];
    tensors.push(("extra.weight".into(), vec![2]));
    save(&path, &tensors);
    let refused = refusal(&path, &BackboneOptions::default());
    contains(
        &refused,
        &[
            "`layer2.1.bn2.running_var` [32] is missing",
            "`linear.bias` has shape [11], expected [10]",
            "`extra.weight` is unexpected",
        ],
    );
    // No ResNet at all.
    save(&path, &[("fc.weight".into(), vec![2, 3])]);
    let refused = refusal(&path, &BackboneOptions::default());
    contains(&refused, &["`conv1.weight`", "ONNX", "It holds: `fc.weight`"]);
    let whole = fs::read(golden("module.th")).unwrap();
    for n in [2, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..n]).unwrap();
        contains(&refusal(&path, &BackboneOptions::default()), &["w.safetensors"]);
    }
    let model = common::path("onnx").join("plain.onnx");
    contains(&refusal(&model, &arch("resnet20")), &["resnet20", "leave the option out"]);
}
