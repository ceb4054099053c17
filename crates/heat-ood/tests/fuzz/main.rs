//! Readers on damaged files: no panic, no hang, and at most four times the
//! file's size allocated (or 32 MiB, if that is more).
//!
//! A short, deterministic version of the fuzzing in `fuzz/` at the root of the
//! repository, with the same readers and seeds; `HEAT_FUZZ_ROUNDS` makes it
//! longer. Its own test binary, because the allocator counts for the whole
//! process.

mod bombs;
#[path = "../common/bytes.rs"]
mod bytes;
mod found;
mod harness;
mod memory;
mod mutate;
mod readers;
mod seeds;

use harness::{alone, fuzz};
use heat_ood::ebm::mlp::Mlp;
use heat_ood::ebm::{Heat, ModelConfig};
use heat_ood::features::FeatureSet;
use heat_ood::scorers::{GmmConfig, KnnConfig, Scorer, Shrinkage};
use heat_ood::{Detector, Fit, Fitted, Silent, TrainingData};
use memory::{Counting, bounded};
use ndarray::ArrayView2;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Files made with PyTorch.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

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
fn small_files_that_mean_much() {
    harness::small_files();
}

/// Sound detectors above the floor: opening one takes its matrices, inverted
/// and packed, but no more than four times the file.
#[test]
fn detectors_of_real_size() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    let (rows, dim) = (3000, 1100);
    let value = |i: usize| ((i * 7919 + i / 13 * 104_729) % 10_007) as f32 / 10_007.0;
    let values: Vec<f32> = (0..rows * dim).map(value).collect();
    let labels: Vec<u32> = (0..rows as u32).map(|i| i % 10).collect();
    let view = ArrayView2::from_shape((rows, dim), &values).unwrap();
    let train = FeatureSet::from_arrays(view, Some(&labels)).unwrap();
    let config = GmmConfig { shrinkage: Shrinkage::Oas, ..GmmConfig::default() };
    let gmm = config.fit(&TrainingData::new(&train), &mut Silent).unwrap();
    // To make it takes more than to read it.
    heat_ood::io::set_memory_limit(1 << 30);
    let net = Mlp::new(ModelConfig::default().architecture(dim), 0).unwrap();
    heat_ood::io::set_memory_limit(memory::FLOOR);
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
