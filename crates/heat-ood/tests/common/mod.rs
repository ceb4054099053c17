//! Expected values computed by the published HEAT implementation (float32,
//! CPU) on small generated data, C = 4, D = 24. `golden/reference.safetensors`
//! holds inputs and outputs side by side.
#![allow(dead_code)]

pub mod bytes;
pub mod maps;
pub mod sets;
pub mod simulate;

use std::path::PathBuf;

use heat_ood::features::{FeatureSet, Head};
use heat_ood::io::TensorFile;
use ndarray::ArrayView2;

pub const C: usize = 4;
pub const D: usize = 24;

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub struct Golden(pub TensorFile);

impl Golden {
    pub fn open() -> Self {
        Golden(TensorFile::open(&path("reference.safetensors")).unwrap())
    }

    pub fn get(&self, name: &str) -> Vec<f32> {
        let shape = self.0.shape(name).unwrap().to_vec();
        self.0.f32(name, &shape).unwrap()
    }

    pub fn set(&self, name: &str) -> FeatureSet {
        let values = self.get(name);
        let view = ArrayView2::from_shape((values.len() / D, D), &values).unwrap();
        FeatureSet::from_arrays(view, None).unwrap()
    }

    pub fn train(&self) -> FeatureSet {
        let values = self.get("train.avg");
        let view = ArrayView2::from_shape((values.len() / D, D), &values).unwrap();
        FeatureSet::from_arrays(view, Some(&self.integers("train.label"))).unwrap()
    }

    pub fn integers(&self, name: &str) -> Vec<u32> {
        let bytes = std::fs::read(path("reference.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let raw = file.tensor(name).unwrap().data();
        let words = raw.as_chunks::<8>().0;
        words.iter().map(|w| i64::from_le_bytes(*w) as u32).collect()
    }

    pub fn head(&self) -> Head {
        Head::new(self.get("head.weight"), self.get("head.bias")).unwrap()
    }
}

/// Relative to the size of the value, floored at the spread of the array: a
/// difference that no ranking could notice.
pub fn close(name: &str, got: &[f32], want: &[f32], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{name}");
    let size = (want.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / want.len() as f64).sqrt();
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let (g, w) = (f64::from(g), f64::from(w));
        let error = (g - w).abs() / w.abs().max(size).max(1e-30);
        assert!(error <= tolerance, "{name}[{i}]: got {g}, expected {w} ({error:.1e})");
    }
}
