//! Flipped bits: a damaged file is refused, or gives what it gave before.

use crate::common;

use std::path::Path;

use heat_ood::calibrate::CalibrationConfig;
use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::ebm::{HeatConfig, RunDirectory, Trainer, checkpoint, torch};
use heat_ood::features::{ConvertConfig, FeatureSet, Field, FloatType, Form, Pooling, convert};
use heat_ood::io::TensorFile;
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::{Scorer, ScorerSpec};
use heat_ood::{Detector, Fit, Fitted, Silent, TrainingData};

/// Flips of each detector, six kinds of them; of checkpoints; of each `.npz`.
const FLIPS: usize = 300;
const FLIPS_OF_CHECKPOINTS: usize = 200;
const FLIPS_OF_ARCHIVES: usize = 150;

/// Calls `same` with the bytes of `file` after each of many flips, of which it says whether they
/// give what they gave. Half of them are in the first `head` bytes. `HEAT_FLIPS` times as many
/// where that is set. At least `refused` percent must be refused.
fn flip(
    file: &Path,
    (flips, head, least): (usize, usize, usize),
    same: &dyn Fn(Vec<u8>) -> Result<bool, String>,
) {
    let bytes = std::fs::read(file).unwrap();
    let times = std::env::var("HEAT_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut stream = Stream::new(5, Purpose::User, 0, 0);
    let (mut refused, flips) = (0, flips * times);
    for i in 0..flips {
        let end = if i % 2 == 0 { head } else { bytes.len() };
        let (at, bit) = (stream.below(end as u32) as usize, stream.below(8));
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        match same(damaged) {
            Ok(same) => assert!(same, "byte {at}, bit {bit} of {}", file.display()),
            Err(_) => refused += 1,
        }
    }
    eprintln!("{}: {refused} of {flips} flips refused, 0 different", file.display());
    assert!(refused >= flips * least / 100, "{}: {refused} of {flips}", file.display());
}

/// Where the header of a safetensors file ends.
fn header(file: &Path) -> usize {
    let bytes = std::fs::read(file).unwrap();
    8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

/// A small energy model, trained in a moment.
fn heat() -> HeatConfig {
    let mut config = HeatConfig { batch_size: 50, n_epochs: 2, ..HeatConfig::default() };
    let model = &mut config.ebm.model;
    (model.hidden_dim, model.n_hidden_layers, model.steps) = (16, 2, 2);
    config
}

/// A damaged checkpoint is not trained on from, or to the same end.
#[test]
fn flipped_bits_of_checkpoints_are_noticed() {
    let train = common::Golden::open().train();
    let (config, data) = (heat(), TrainingData::new(&train));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let prior = config.fit_prior(&data, &mut Silent).unwrap();
    let mut trainer = Trainer::new(config.clone(), prior, &train).unwrap();
    let mut run = RunDirectory::create(&path, "", "made up").unwrap();
    run.train(&mut trainer, &mut Silent).unwrap();
    let right = trainer.net().parameters().to_vec();
    let file = path.join("checkpoints/epoch_1.safetensors");
    let damaged = directory.path().join("damaged.safetensors");
    flip(&file, (FLIPS_OF_CHECKPOINTS, header(&file), 90), &|bytes| {
        std::fs::write(&damaged, bytes).unwrap();
        let resumed = checkpoint::resume(&damaged, &config, &train, "made up");
        let mut resumed = resumed.map_err(|e| e.to_string())?;
        resumed.run(&mut Silent).map_err(|e| e.to_string())?;
        Ok(resumed.net().parameters() == right)
    });
}

/// Arrays, stored and compressed, by numpy and by `convert`.
#[test]
fn flipped_bits_of_archives_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let train = common::Golden::open().train();
    let own = directory.path().join("own.npz");
    let config = ConvertConfig { dtype: Some(FloatType::F32), ..ConvertConfig::default() };
    convert(&train, None, &own, &config, &mut Silent).unwrap();
    let damaged = directory.path().join("damaged.npz");
    let read = |path: &Path| -> Result<_, String> {
        let set = FeatureSet::open(path).map_err(|e| e.to_string())?;
        let avg = Field::Features(Pooling::Avg);
        let mut rows = vec![0.0; set.len() * set.dim(avg).unwrap_or(0)];
        set.read(avg, 0..set.len(), &mut rows).map_err(|e| e.to_string())?;
        let labels = set.labelled().then(|| set.labels(0..set.len(), 1000));
        let labels = labels.transpose().map_err(|e| e.to_string())?;
        Ok((rows, labels, set.notices().len()))
    };
    for (file, least) in [
        (own, 60),
        (common::path("cases/28_arr_0.npz"), 30),
        (common::path("cases/20_sparse_compressed.npz"), 30),
        (common::path("cases/19_small_values.npz"), 30),
    ] {
        let right = read(&file).unwrap();
        let size = std::fs::metadata(&file).unwrap().len() as usize;
        flip(&file, (FLIPS_OF_ARCHIVES, size, least), &|bytes| {
            std::fs::write(&damaged, bytes).unwrap();
            Ok(read(&damaged)? == right)
        });
    }
}

/// Checkpoints of PyTorch, whose archives have checksums.
#[test]
fn flipped_bits_of_torch_files_are_noticed() {
    let file = common::path("torch/bare.pt");
    let directory = tempfile::tempdir().unwrap();
    let damaged = directory.path().join("damaged.pt");
    let read = |path: &Path| {
        let net = torch::read(path, &torch::ReadOptions::default());
        net.map(|net| net.parameters().to_vec()).map_err(|e| e.to_string())
    };
    let right = read(&file).unwrap();
    let size = std::fs::metadata(&file).unwrap().len() as usize;
    flip(&file, (FLIPS_OF_ARCHIVES, size, 30), &|bytes| {
        std::fs::write(&damaged, bytes).unwrap();
        Ok(read(&damaged)? == right)
    });
}

#[test]
fn flipped_bits_of_detectors_and_sets_are_noticed() {
    let golden = common::Golden::open();
    let (train, head, test) = (golden.train(), golden.head(), golden.set("test.avg"));
    let data = TrainingData::new(&train).with_head(&head);
    let fit = |text: &str| -> Fitted<dyn Scorer> {
        ScorerSpec::parse(text).unwrap().fit(&data, &mut Silent).unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    let open =
        |bytes| TensorFile::from_memory("damaged".as_ref(), bytes).map_err(|e| e.to_string());
    let members = ["el", "ssd"].map(|name| Part::new(name, fit(name)));
    let composed = CombinedConfig { members: members.into(), beta: 0.0 };
    let composed = composed.fit(&data, &mut Silent).unwrap().into();
    for (name, scorer) in [
        ("el", fit("el")),
        ("gmm", fit("gmm")),
        ("knn", fit("knn(k=5)")),
        ("vim", fit("vim(principal_dim=8)")),
        ("composed", composed),
        ("heat", heat().fit(&data, &mut Silent).unwrap().into()),
    ] {
        let path = directory.path().join(name);
        let mut detector = Detector::new(scorer);
        let config = CalibrationConfig { alpha: 0.1, ..CalibrationConfig::default() };
        detector.calibrate(&config, &test, None, false, &mut Silent).unwrap();
        detector.save(&path).unwrap();
        let predict = |d: &Detector| {
            let found = d.predict(&test, Default::default(), &mut Silent).unwrap();
            (found.scores, found.verdicts.unwrap())
        };
        let right = predict(&detector);
        flip(&path, (FLIPS, header(&path), 90), &|bytes| {
            let damaged = Detector::from_file(&open(bytes)?).map_err(|e| e.to_string())?;
            Ok(predict(&damaged) == right)
        });
    }
    // Features, as `convert` and extraction write them.
    let path = directory.path().join("set.safetensors");
    let (form, dtype) = (Some(Form::Safetensors), Some(FloatType::F32));
    let config = ConvertConfig { form, dtype, ..ConvertConfig::default() };
    convert(&train, None, &path, &config, &mut Silent).unwrap();
    let rows = |set: &FeatureSet| {
        let mut rows = vec![0.0; set.len() * common::D];
        set.read(Field::Features(Pooling::Avg), 0..set.len(), &mut rows).unwrap();
        (rows, set.labels(0..set.len(), common::C).unwrap())
    };
    let right = rows(&train);
    flip(&path, (FLIPS, header(&path), 90), &|bytes| {
        let set = FeatureSet::from_safetensors("damaged", bytes).map_err(|e| e.to_string())?;
        Ok(rows(&set) == right)
    });
}

/// What other programs write has no digest, and is read.
#[test]
fn files_of_other_programs_have_no_digest() {
    let reference = TensorFile::open(&common::path("reference.safetensors")).unwrap();
    assert!(!reference.is_sealed());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("head.safetensors");
    common::Golden::open().head().save(&path).unwrap();
    assert!(TensorFile::open(&path).unwrap().is_sealed());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = TensorFile::open(&path).err().unwrap().to_string();
    assert!(error.contains("head.safetensors: is damaged"), "{error}");
}

/// Other numbers under a right digest, as of a program that reads or writes a tensor otherwise: a
/// detector proves itself by its probes, composed, calibrated and of one's own too.
#[test]
fn a_detector_proves_itself() {
    use heat_ood::io::{Tensor, save_tensors};
    let golden = common::Golden::open();
    let (train, head, test) = (golden.train(), golden.head(), golden.set("test.avg"));
    let data = TrainingData::new(&train).with_head(&head);
    let fit = |text: &str| -> Fitted<dyn Scorer> {
        ScorerSpec::parse(text).unwrap().fit(&data, &mut Silent).unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("right"), directory.path().join("other"));
    let members = ["el", "gmm"].map(|name| Part::new(name, fit(name)));
    let composed = CombinedConfig { members: members.into(), beta: 0.0 };
    let composed: Fitted<dyn Scorer> = composed.fit(&data, &mut Silent).unwrap().into();
    let changed = ["weight", "means", "weight"];
    for (scorer, tensor) in [fit("el"), fit("gmm"), composed].into_iter().zip(changed) {
        let mut detector = Detector::new(scorer);
        let config = CalibrationConfig { alpha: 0.1, ..CalibrationConfig::default() };
        detector.calibrate(&config, &test, None, false, &mut Silent).unwrap();
        detector.save(&path).unwrap();
        let proof = Detector::open(&path).unwrap().verify().unwrap().unwrap();
        assert_eq!((proof.rows, proof.difference), (16, 0.0));
        // The same file, one of its numbers a little off.
        let file = TensorFile::open(&path).unwrap();
        let keys = ["format", "version", "scorer", "provenance", "calibration", "probes"];
        let texts: Vec<_> = keys.map(|k| (k, file.metadata(k).unwrap().to_owned())).into();
        let save = |off: f64| {
            let mut found = 0;
            let tensors = file.list().into_iter().map(|(name, kind, shape)| {
                let hit = name.rsplit('.').next() == Some(tensor);
                let value = match &*kind {
                    "F32" => {
                        let mut values = file.f32(&name, &shape).unwrap();
                        values[0] += if hit { off as f32 } else { 0.0 };
                        Tensor::f32(shape, values)
                    }
                    "F64" => {
                        let mut values = file.f64(&name, &shape).unwrap();
                        values[0] += if hit { off } else { 0.0 };
                        Tensor::f64(shape, values)
                    }
                    _ => {
                        let bytes = std::fs::read(&path).unwrap();
                        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
                        let words = read.tensor(&name).unwrap().data().to_vec();
                        let words = words.as_chunks::<8>().0.iter();
                        Tensor::i64(shape, words.map(|w| i64::from_le_bytes(*w)).collect())
                    }
                };
                found += usize::from(hit);
                (name, value)
            });
            let tensors: Vec<_> = tensors.collect();
            assert!(found == 1, "{tensor}: {:?}", file.list());
            save_tensors(&other, &tensors, &texts).unwrap();
            Detector::open(&other).unwrap()
        };
        assert_eq!(save(0.0).verify().unwrap().unwrap(), proof);
        let wrong = save(0.25);
        let error = wrong.verify().unwrap_err().to_string();
        assert!(error.contains("does not score as it did when it was made"), "{error}");
        // Written again, it does not become right.
        wrong.save(&path).unwrap();
        assert!(Detector::open(&path).unwrap().verify().is_err());
    }
    let unknown = Detector::new(Fitted::<dyn Scorer>::from_parts(
        fit("el").scorer().clone(),
        heat_ood::Provenance::new(),
    ));
    assert_eq!(unknown.verify().unwrap(), None);
}
