//! Readers on damaged files: no panic, no hang, and at most four times the
//! file's size allocated (or 32 MiB, if that is more), eight times by archives
//! and lists of pictures.
//!
//! A short, deterministic version of the fuzzing in `fuzz/` at the root of the
//! repository, with the same readers and seeds; `HEAT_FUZZ_ROUNDS` makes it
//! longer. Its own test binary, because the allocator counts for the whole
//! process.

mod bombs;
#[path = "../common/bytes.rs"]
mod bytes;
mod found;
mod found_pictures;
mod memory;
mod mutate;
mod picture_seeds;
mod pictures;
mod readers;
mod seeds;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use heat_ood::ebm::mlp::Mlp;
use heat_ood::ebm::{Heat, ModelConfig};
use heat_ood::features::FeatureSet;
use heat_ood::math::parallel;
use heat_ood::scorers::{GmmConfig, KnnConfig, Scorer, Shrinkage};
use heat_ood::{Fitted, Detector, Fit, Silent, TrainingData};
use memory::{Counting, bounded, growth};
use mutate::{Random, mutate};
use ndarray::ArrayView2;
use readers::READERS;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Files made with PyTorch.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// One test at a time, because the allocator counts for all.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Far more than any input takes, on a busy machine too.
const HANG: Duration = Duration::from_secs(10);

/// Give `input` to the reader of that name.
fn check(reader: &str, folder: &Path, input: &[u8]) {
    let (_, read) = READERS.iter().find(|(name, _)| *name == reader).unwrap();
    let start = Instant::now();
    bounded(growth(reader) * input.len(), || read(folder, input));
    assert!(start.elapsed() < HANG, "{reader}: took {:?}", start.elapsed());
}

/// Mutated seeds; a failure leaves its input in the temporary folder.
fn fuzz(reader: &str, rounds: u64) {
    let _alone = alone();
    // On one thread of the pool, so that no input waits for others to wake.
    parallel::with_threads(1, || run(reader, rounds)).unwrap();
}

fn run(reader: &str, rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let seeds = seeds::seeds(reader, folder.path());
    for seed in &seeds {
        check(reader, folder.path(), seed);
    }
    let more = std::env::var("HEAT_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok());
    for round in 0..more.unwrap_or(rounds) {
        let mut random = Random(round);
        let [seed, other] = [0, 1].map(|_| &seeds[random.below(seeds.len())]);
        let input = mutate(seed, other, &mut random);
        let failed = std::panic::catch_unwind(|| check(reader, folder.path(), &input)).is_err();
        if failed {
            let path = std::env::temp_dir().join(format!("heat-fuzz-{reader}-{round}"));
            std::fs::write(&path, &input).unwrap();
            panic!("{reader}, round {round}: {}", path.display());
        }
    }
}

#[test]
fn features_safetensors() {
    fuzz("features_safetensors", 3000);
}

#[test]
fn features_npy() {
    fuzz("features_npy", 3000);
}

#[test]
fn features_npz() {
    fuzz("features_npz", 3000);
}

#[test]
fn features_memmap() {
    fuzz("features_memmap", 3000);
}

#[test]
fn detector() {
    fuzz("detector", 3000);
}

#[test]
fn checkpoint() {
    fuzz("checkpoint", 2000);
}

#[test]
fn recipe() {
    fuzz("recipe", 2000);
}

#[test]
fn torch() {
    fuzz("torch", 3000);
}

#[test]
fn picture() {
    fuzz("picture", 20000);
}

#[test]
fn picture_archive() {
    fuzz("picture_archive", 2000);
}

#[test]
fn cifar() {
    fuzz("cifar", 2000);
}

#[test]
fn svhn() {
    fuzz("svhn", 2000);
}

#[test]
fn idx() {
    fuzz("idx", 2000);
}

#[test]
fn picture_lists() {
    fuzz("picture_lists", 1000);
}

#[cfg(feature = "lmdb")]
#[test]
fn lsun() {
    fuzz("lsun", 2000);
}

#[test]
fn onnx() {
    fuzz("onnx", 3000);
}

#[test]
fn small_files_that_mean_much() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut failed = Vec::new();
    for (reader, name, bytes) in bombs::bombs() {
        eprintln!("{reader} {name}");
        let checked = std::panic::catch_unwind(|| check(reader, folder.path(), &bytes));
        failed.extend(checked.is_err().then(|| format!("{reader}: {name}")));
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Sound detectors above the floor: opening one takes its matrices, inverted
/// and packed, but no more than four times the file.
#[test]
fn detectors_of_real_size() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let (rows, dim) = (3000, 1100);
    let value = |i: usize| ((i * 7919 + i / 13 * 104_729) % 10_007) as f32 / 10_007.0;
    let values: Vec<f32> = (0..rows * dim).map(value).collect();
    let labels: Vec<u32> = (0..rows as u32).map(|i| i % 10).collect();
    let view = ArrayView2::from_shape((rows, dim), &values).unwrap();
    let train = FeatureSet::from_arrays(view, Some(&labels)).unwrap();
    let config = GmmConfig { shrinkage: Shrinkage::Oas, ..GmmConfig::default() };
    let gmm = config.fit(&TrainingData::new(&train), &mut Silent).unwrap();
    let net = Mlp::new(ModelConfig::default().architecture(dim), 0).unwrap();
    let heat = Heat::new(gmm.clone(), net, 1.0, 1e3, dim).unwrap();
    let knn = KnnConfig { k: Some(5), ..KnnConfig::default() };
    let knn = knn.fit(&TrainingData::new(&train), &mut Silent).unwrap();
    let heat = Fitted::unrecorded(heat);
    for scorer in [Fitted::<dyn Scorer>::from(gmm), heat.into(), knn.into()] {
        Detector::new(scorer).save(&path).unwrap();
        let size = std::fs::metadata(&path).unwrap().len() as usize;
        assert!(4 * size > memory::FLOOR);
        bounded(4 * size, || drop(Detector::open(&path).unwrap()));
    }
}
