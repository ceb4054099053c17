//! Sound files, small and always the same, from which fuzzing starts.

use std::io::{Cursor, Write};
use std::path::Path;

use heat_ood::calibrate::{Calibration, CalibrationConfig, Fusion, FusionRule};
use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::ebm::{RunDirectory, Trainer};
use heat_ood::features::{FeatureSet, Field, Head, Pooling};
use heat_ood::recipe::Recipe;
use heat_ood::scorers::{NAMES, Scorer, ScorerSpec};
use heat_ood::{Detector, Event, Fit, Fitted, Observer, Silent, TrainingData};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::bytes::{npy, unsealed};
use super::readers::{D, head, train, training};

/// Files for the reader of that name.
pub fn seeds(reader: &str, directory: &Path) -> Vec<Vec<u8>> {
    match reader {
        "features_safetensors" => features(),
        "features_npy" => arrays(),
        "features_npz" => archives(),
        "features_memmap" => memmaps(),
        // A digest would refuse every change.
        "detector" => detectors(directory).into_iter().map(unsealed).collect(),
        "checkpoint" => checkpoints(directory).into_iter().map(unsealed).collect(),
        "recipe" => recipes(),
        "torch" => torch_files(),
        other => panic!("no reader of the name {other}"),
    }
}

fn values(n: usize) -> impl Iterator<Item = f32> {
    (0..n).map(|i| (i * i % 17) as f32 / 4.0)
}

fn f32s(n: usize) -> Vec<u8> {
    values(n).flat_map(f32::to_le_bytes).collect()
}

fn f64s(n: usize) -> Vec<u8> {
    values(n).flat_map(|v| f64::from(v).to_le_bytes()).collect()
}

fn f16s(n: usize) -> Vec<u8> {
    values(n).flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect()
}

fn labels(n: i64) -> Vec<u8> {
    (0..n).flat_map(|i| (i % 3).to_le_bytes()).collect()
}

/// Name, type, shape and bytes of a tensor.
pub type Entry<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

/// A safetensors file of some tensors.
pub fn safetensors(entries: &[Entry]) -> Vec<u8> {
    let views = entries.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("sizes agree"))
    });
    safetensors::serialize(views, None).expect("sound tensors")
}

fn features() -> Vec<Vec<u8>> {
    vec![
        safetensors(&[
            ("avg", Dtype::F32, vec![5, 3], f32s(15)),
            ("label", Dtype::I64, vec![5], labels(5)),
        ]),
        safetensors(&[
            ("avg", Dtype::F16, vec![4, 6], f16s(24)),
            ("std", Dtype::F64, vec![4, 6], f64s(24)),
            ("max", Dtype::BF16, vec![4, 6], f16s(24)),
            ("logits", Dtype::F32, vec![4, 3], f32s(12)),
            ("label", Dtype::U8, vec![4, 1], vec![0, 2, 1, 0]),
        ]),
        safetensors(&[
            ("weight", Dtype::F32, vec![3, 6], f32s(18)),
            ("bias", Dtype::F64, vec![3], f64s(3)),
        ]),
        safetensors(&[("label", Dtype::I64, vec![24], labels(24))]),
    ]
}

fn arrays() -> Vec<Vec<u8>> {
    let mut long = npy("<f4", false, "(4, 6)", &f32s(24));
    // Version 2 has four bytes for the header's length.
    long[6] = 2;
    long.splice(10..10, [0, 0]);
    vec![
        npy("<f4", false, "(5, 6)", &f32s(30)),
        npy("<f8", true, "(4, 6)", &f64s(24)),
        npy(">f4", true, "(6, 4)", &f32s(24)),
        npy("<f2", false, "(4, 6)", &f16s(24)),
        npy("<i8", false, "(24,)", &labels(24)),
        npy(">i2", false, "(24, 1)", &[0, 1].repeat(24)),
        npy("|u1", false, "(24,)", &[0, 1, 2].repeat(8)),
        long,
    ]
}

/// An `.npz` of some `.npy` images.
pub fn npz(entries: &[(&str, &[u8])], compressed: bool) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let method = if compressed { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    let options = SimpleFileOptions::default()
        .compression_method(method)
        .last_modified_time(zip::DateTime::default());
    for (name, bytes) in entries {
        zip.start_file(format!("{name}.npy"), options).expect("in memory");
        zip.write_all(bytes).expect("in memory");
    }
    zip.finish().expect("in memory").into_inner()
}

fn archives() -> Vec<Vec<u8>> {
    let avg = npy("<f4", false, "(4, 6)", &f32s(24));
    let std = npy("<f8", true, "(4, 6)", &f64s(24));
    let label = npy("<i8", false, "(4,)", &labels(4));
    let (weight, bias) =
        (npy("<f4", false, "(3, 6)", &f32s(18)), npy("<f4", false, "(3,)", &f32s(3)));
    let mut all: Vec<Vec<u8>> = [false, true]
        .iter()
        .flat_map(|compressed| {
            [
                npz(&[("avg", &avg), ("std", &std), ("label", &label)], *compressed),
                npz(&[("weight", &weight), ("bias", &bias)], *compressed),
            ]
        })
        .collect();
    all.push(avg);
    all
}

fn memmaps() -> Vec<Vec<u8>> {
    let whole = |flags: u8, dim: u8, label: &[u8], std: &[u8]| {
        let head = [flags, dim, (label.len() / 8) as u8, (std.len() / 8) as u8];
        [&head, label, std, &f64s(24)].concat()
    };
    let as_float = f64s(4).into_iter().map(|_| 0).collect::<Vec<u8>>();
    vec![
        whole(3, 0, &labels(4), &f64s(24)),
        whole(1, 0, &as_float, &[]),
        whole(4, 6, &[], &[]),
        whole(8 | 2, 12, &[], &f64s(24)),
    ]
}

fn saved(directory: &Path, scorer: Fitted<dyn Scorer>) -> Vec<u8> {
    let path = directory.join("seed.safetensors");
    Detector::new(scorer).save(&path).expect("the directory can be written");
    std::fs::read(path).expect("just written")
}

/// Every scorer, plain and after steps; residual energies; a composition.
fn detectors(directory: &Path) -> Vec<Vec<u8>> {
    let (train, head) = (train(), head());
    let mut specs: Vec<String> = NAMES.iter().map(|n| (*n).to_owned()).collect();
    specs.extend(["msp", "norm", "vim", "dice"].map(|n| format!("{n}(react=0.9,pca=4)")));
    specs.extend(
        [
            "gmm(kmeans=2,whiten=true,pca=3)",
            "ssd(diagonal=true)",
            "mean(reduce=logsumexp)",
            "kpca(kernel=corp,features=6)",
        ]
        .map(str::to_owned),
    );
    let fit = |text: &String| {
        let text = match text.as_str() {
            // One of six activations.
            "lts" => "lts(percentile=80)",
            "knn" => "knn(k=3)",
            "lid" => "lid(k=3)",
            "dknn" => "dknn(k=3)",
            "vim" => "vim(principal_dim=2)",
            "nnguide" => "nnguide(k=3)",
            "cfood" => "cfood(alpha=1)",
            "weiper" => "weiper(repeats=2,bins=12,smoothing_perturbed=3)",
            "vim(react=0.9,pca=4)" => "vim(react=0.9,pca=4,principal_dim=2)",
            other => other,
        };
        let spec = ScorerSpec::parse(text).expect("a known scorer");
        // Every class must have a row that is predicted correctly.
        let head = if text == "she" { nearest(&train) } else { head.clone() };
        spec.fit(&TrainingData::new(&train).with_head(&head), &mut Silent)
            .unwrap_or_else(|e| panic!("{text}: {e}"))
    };
    let mut all: Vec<_> = specs.iter().map(fit).collect();
    for kind in 0..6 {
        let config = training(kind);
        let prior = config
            .fit_prior(&TrainingData::new(&train).with_head(&head), &mut Silent)
            .expect("fits");
        let heat = config.train(prior, &TrainingData::new(&train), &mut Silent);
        all.push(heat.expect("trains").into());
    }
    let members = [0, 5, specs.len()].map(|i| Part::new("a", all[i].clone()));
    let config = CombinedConfig { members: members.into(), beta: 0.5 };
    let combined = config.fit(&TrainingData::new(&train), &mut Silent).expect("sound");
    all.push(combined.into());
    let fused = [2, 8].map(|i| ("a".to_owned(), all[i].clone(), calibrated(&all[i], false)));
    let fusion = Fusion::fit(FusionRule::Cauchy, fused.into()).expect("two members");
    let mut files: Vec<Vec<u8>> =
        [false, true].map(|per_class| with_calibration(directory, &all[2], per_class)).into();
    all.push(fusion.into());
    files.extend(all.into_iter().map(|scorer| saved(directory, scorer)));
    files
}

/// The class of the nearest of three rows, the first of each class.
fn nearest(train: &FeatureSet) -> Head {
    let labels = train.labels(0..train.len(), 3).expect("labelled");
    let (mut weight, mut bias) = (Vec::new(), Vec::new());
    for class in 0..3 {
        let first = labels.iter().position(|l| *l == class).expect("of every class");
        let mut row = vec![0.0; D];
        train.read(Field::Features(Pooling::Avg), first..first + 1, &mut row).expect("finite");
        bias.push(-row.iter().map(|v| v * v).sum::<f32>() / 2.0);
        weight.extend(row);
    }
    Head::new(weight, bias).expect("sound")
}

fn calibrated(scorer: &Fitted<dyn Scorer>, per_class: bool) -> std::sync::Arc<Calibration> {
    // So large a rate that one row of each class is enough.
    let config = CalibrationConfig { alpha: 0.9, per_class, ..CalibrationConfig::default() };
    let fitted = config.fit(&**scorer, &train(), Some(&nearest(&train())), &mut Silent);
    std::sync::Arc::new(fitted.expect("enough rows"))
}

fn with_calibration(directory: &Path, scorer: &Fitted<dyn Scorer>, per_class: bool) -> Vec<u8> {
    let mut detector = Detector::new(scorer.clone());
    // So large a rate that one row of each class is enough.
    let config = CalibrationConfig { alpha: 0.9, per_class, ..CalibrationConfig::default() };
    let (train, head) = (train(), nearest(&train()));
    detector.calibrate(&config, &train, Some(&head), true, &mut Silent).expect("enough rows");
    let path = directory.join("seed.safetensors");
    detector.save(&path).expect("the directory can be written");
    std::fs::read(path).expect("just written")
}

struct StopAfter(std::cell::Cell<usize>);

impl Observer for StopAfter {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Advance { loss: Some(_), .. } = event {
            self.0.set(self.0.get() - 1);
        }
    }

    fn should_stop(&self) -> bool {
        self.0.get() == 0
    }
}

/// Runs of several settings, stopped in the second epoch.
fn checkpoints(directory: &Path) -> Vec<Vec<u8>> {
    let (train, head) = (train(), head());
    let run = |kind: usize| {
        let path = directory.join(format!("run-{kind}"));
        let config = training(kind);
        let prior = config
            .fit_prior(&TrainingData::new(&train).with_head(&head), &mut Silent)
            .expect("fits");
        let mut run = RunDirectory::create(&path, "", "d").expect("an empty directory");
        let mut trainer = Trainer::new(config, prior, &train).expect("sound settings");
        let mut stop = StopAfter(std::cell::Cell::new(4));
        run.train(&mut trainer, &mut stop).expect("trains");
        let last = RunDirectory::latest(&path).expect("readable").expect("there is one");
        std::fs::read(last).expect("just written")
    };
    (0..4).map(run).collect()
}

fn recipes() -> Vec<Vec<u8>> {
    let resolved = |groups: &[&str], arguments: &str| {
        let recipe = Recipe::resolve(groups, None).expect("built in");
        format!("{}\n---\n{arguments}", recipe.to_toml()).into_bytes()
    };
    vec![
        resolved(&["ebm=heat_gmm_c10", "dataset=cifar10"], "seed=0,1\nebm.model.steps=10,20"),
        resolved(&["ebm=heat_el_imagenet", "backbone=resnet50"], "knn(k=5,normalize=true)\nvim"),
        b"n_epochs = 3\n[run]\nbatch_size = 256\n[ebm.model]\nhidden_dim = 8\n\
          [ebm.optimizer.sch]\nmilestones = [5, 10]\n[dataset.subset]\nproportion = 0.1\n---\n\
          ebm=quickstart_gmm\nebm.optimizer.sch.milestones=[5,10],[10]\nprint_freq=True\n\
          ebm.model.base_dist.shrinkage=oas\ngmm(shrinkage=0.5,kmeans=2)\ntransform=x"
            .to_vec(),
        b"\n---\nssd(pca=2,whiten=true)\nknn(k=2,react=0.9)\nmean(reduce=logsumexp)\nnorm".to_vec(),
    ]
}

/// Made with PyTorch by `golden/make_torch.py`.
fn torch_files() -> Vec<Vec<u8>> {
    let directory = Path::new(super::GOLDEN).join("torch");
    let names = "bare bf16 evil expanded f16 f64 integers legacy one parameters protocol4 strided \
                 tapered two untied";
    let read =
        |name: &str| std::fs::read(directory.join(format!("{name}.pt"))).expect("in the source");
    names.split_whitespace().map(read).collect()
}
