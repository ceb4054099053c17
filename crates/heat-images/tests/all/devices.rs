//! Networks on other devices than the processor.
//!
//! What the library at hand has no provider for is refused. With one that has OpenVINO's (`pip install
//! onnxruntime-openvino`, `ORT_DYLIB_PATH`), which runs on any processor, features are compared.

use crate::common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::bytes::contains;
use common::{close, runtime};
use heat_images::backbone::{
    Backbone, BackboneOptions, Device, ExtractConfig, Perturbation, Precision, extract,
};
use heat_images::{ImageDataset, ImageOptions, Resize, TransformConfig, open};
use heat_ood::features::{FeatureSet, Field, FloatType, Pooling};
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Result, Silent, TrainingData};

fn network(name: &str) -> Backbone {
    let file = common::path("onnx").join(format!("{name}.onnx"));
    Backbone::open(file, &BackboneOptions::default()).unwrap()
}

fn on(network: Backbone, device: &str) -> Result<Backbone> {
    network.on(device.parse().unwrap(), Precision::F32)
}

/// Eleven images of noise.
fn images(directory: &Path) -> Box<dyn ImageDataset> {
    let place = directory.join("images");
    fs::create_dir_all(&place).unwrap();
    let bmp = fs::read(common::images::golden("rgb.bmp")).unwrap();
    for i in 0..11u8 {
        let mut image = bmp.clone();
        image[54..].iter_mut().for_each(|v| *v = v.wrapping_mul(1 + 2 * i));
        fs::write(place.join(format!("{i:02}.bmp")), image).unwrap();
    }
    open(&place, &ImageOptions::default()).unwrap()
}

fn config() -> ExtractConfig {
    let resize = Some(Resize::Exact([8, 8]));
    ExtractConfig {
        transform: TransformConfig { resize, crop: None, ..TransformConfig::imagenet() },
        batch_size: 4,
        dtype: FloatType::F32,
        ..ExtractConfig::default()
    }
}

fn manifest(directory: &Path) -> String {
    fs::read_to_string(directory.join("extract.json")).unwrap()
}

#[test]
fn what_the_library_has_no_provider_for_is_refused() {
    if !runtime("what_the_library_has_no_provider_for_is_refused") {
        return;
    }
    let mut refused = 0;
    for (device, install) in [
        ("cuda:1", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        ("migraphx", "onnxruntime-migraphx"),
        ("coreml", "on an Apple"),
        ("directml", "pip install onnxruntime-directml"),
        ("openvino:GPU", "pip install onnxruntime-openvino"),
    ] {
        if let Err(error) = on(network("plain"), device) {
            let name = device.split(':').next().unwrap();
            let said = error.to_string();
            contains(&said, &["onnxruntime", "it was made for cpu", "not for", name, install]);
            refused += 1;
        }
    }
    // No library has all of them.
    assert!(refused > 0);
    let tf32 = network("plain").on(Device::Cpu, Precision::Tf32).err().unwrap().to_string();
    contains(&tf32, &["`precision` = tf32", "cpu has none", "take f32"]);
}

#[test]
fn the_processor_leaves_no_mark() {
    if !runtime("the_processor_leaves_no_mark") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let set = images(directory.path());
    let place = |name: &str| directory.path().join(name);
    extract(&*set, &network("plain"), &place("before"), &config(), &mut Silent).unwrap();
    let cpu = on(network("plain"), "cpu").unwrap();
    extract(&*set, &cpu, &place("after"), &config(), &mut Silent).unwrap();
    let text = manifest(&place("before"));
    assert!(!text.contains("run_on") && !text.contains("cpu"), "{text}");
    for file in ["extract.json", "shard-00000.safetensors", "head.safetensors"] {
        let read = |name: &str| fs::read(place(name).join(file)).unwrap();
        assert!(read("before") == read("after"), "{file}");
    }
}

/// A set that another device made is no set of this one, finished or not.
#[test]
fn other_devices_are_refused_on_resumption() {
    if !runtime("other_devices_are_refused_on_resumption") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let set = images(directory.path());
    let out = directory.path().join("out");
    let model = network("plain");
    extract(&*set, &model, &out, &config(), &mut Silent).unwrap();
    let whole = manifest(&out);
    let mut json: serde_json::Value = serde_json::from_str(&whole).unwrap();
    json["run_on"] = serde_json::json!({
        "provider": "CUDAExecutionProvider", "device": "cuda:1", "precision": "tf32"
    });
    fs::write(out.join("extract.json"), json.to_string()).unwrap();
    let again = || extract(&*set, &model, &out, &config(), &mut Silent).unwrap_err().to_string();
    contains(&again(), &["settings: on cuda:1 in tf32; choose another name"]);
    // The same of one that was not finished.
    let unfinished = directory.path().join(".heat-out.tmp");
    fs::rename(&out, &unfinished).unwrap();
    contains(&again(), &[".heat-out.tmp", "on cuda:1 in tf32", "or remove that directory"]);
    fs::write(unfinished.join("extract.json"), whole).unwrap();
    let done = extract(&*set, &model, &out, &config(), &mut Silent).unwrap();
    assert_eq!(done.resumed, 11);
}

/// Where the library at hand has OpenVINO's provider.
fn openvino(test: &str) -> bool {
    if !runtime(test) {
        return false;
    }
    let there = on(network("plain"), "openvino").map(drop);
    if let Err(error) = &there {
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {error}");
    }
    there.is_ok()
}

fn compare(ours: &FeatureSet, theirs: &FeatureSet) {
    assert_eq!(ours.len(), theirs.len());
    let poolings = [Pooling::Avg, Pooling::Std, Pooling::Max].map(Field::Features);
    for field in poolings.into_iter().chain([Field::Logits]) {
        let read = |set: &FeatureSet| {
            let dim = set.dim(field)?;
            let mut values = vec![0.0; set.len() * dim];
            set.read(field, 0..set.len(), &mut values).unwrap();
            Some((dim, values))
        };
        let (ours, theirs) = (read(ours), read(theirs));
        assert_eq!(ours.as_ref().map(|o| o.0), theirs.as_ref().map(|t| t.0), "{field:?}");
        if let Some(((_, ours), (_, theirs))) = ours.zip(theirs) {
            close(&format!("{field:?}"), &theirs, &ours, 1e-4);
        }
    }
}

#[test]
fn openvino_gives_the_same_features() {
    if !openvino("openvino_gives_the_same_features") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let set = images(directory.path());
    let place = |name: &str| -> PathBuf { directory.path().join(name) };
    let whole = |name: &str, backbone: &Backbone, config: &ExtractConfig| {
        let batch_size = backbone.found().batch().unwrap_or(config.batch_size);
        let config = ExtractConfig { batch_size, ..config.clone() };
        extract(&*set, backbone, &place(name), &config, &mut Silent).unwrap();
        FeatureSet::open(place(name)).unwrap()
    };
    for name in ["plain", "anysize", "fixed", "vector", "headless", "matmul"] {
        let ours = whole(&format!("{name}-cpu"), &network(name), &config());
        let device = on(network(name), "openvino").unwrap();
        let theirs = whole(name, &device, &config());
        compare(&ours, &theirs);
        let text = manifest(&place(name));
        contains(&text, &["OpenVINOExecutionProvider", "openvino:CPU", "\"f32\""]);
        let origin = theirs.origin().unwrap();
        assert_eq!(origin.device.as_deref(), Some("openvino:CPU, f32"));
        assert_eq!(ours.origin().unwrap().difference(origin), None);
    }
    // Images moved by a gradient, and views of them.
    let rows = ndarray::Array2::<f32>::ones((2, 6));
    let train = FeatureSet::from_arrays(rows.view(), None).unwrap();
    let (plain, data) = (network("plain"), TrainingData::new(&train));
    let data = data.with_head(plain.head());
    let odin = ScorerSpec::parse("odin").unwrap().fit(&data, &mut Silent).unwrap();
    let perturb = Some(Perturbation::new(odin.scorer().clone(), 0.01).unwrap());
    let views = ["mirror", "nudged5"].map(|v| v.parse().unwrap()).into();
    for (name, config) in [
        ("moved", ExtractConfig { perturb, ..config() }),
        ("views", ExtractConfig { views, ..config() }),
    ] {
        let ours = whole(&format!("{name}-cpu"), &network("plain"), &config);
        let device = on(network("plain"), "openvino").unwrap();
        compare(&ours, &whole(name, &device, &config));
    }
}
