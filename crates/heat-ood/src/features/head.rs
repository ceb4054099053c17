//! The classifier's last linear layer.

use std::path::Path;

use super::FileFormat;
use crate::error::{Error, Result};
use crate::io::{Npz, Tensor, TensorFile, sha256_of};
use crate::math::matmul::{Aligned, Keep, Packed, View, gemm};

/// Most columns of the matrices of scorers: packed for products, their rows
/// are filled up to a multiple of 32.
pub(crate) const MAX_DIM: usize = 1 << 18;

/// logits = z·Wᵀ + b.
#[derive(Clone)]
pub struct Head {
    classes: usize,
    dim: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    packed: Packed,
}

impl Head {
    /// A head from `weight` (`[C, D]`, row-major) and `bias` (`[C]`).
    ///
    /// # Errors
    /// If the lengths disagree or a value is not finite.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>) -> Result<Self> {
        Self::checked("head", weight, bias)
    }

    fn checked(place: &str, weight: Vec<f32>, bias: Vec<f32>) -> Result<Self> {
        let classes = bias.len();
        if classes == 0 || weight.is_empty() || !weight.len().is_multiple_of(classes) {
            return Err(Error::Shape {
                place: place.to_owned(),
                tensor: "weight".into(),
                expected: format!("[{classes}, D] to go with bias [{classes}]"),
                got: format!("{} values", weight.len()),
            });
        }
        let dim = weight.len() / classes;
        if dim > MAX_DIM {
            let problem = format!("`weight` has {dim} columns, and {MAX_DIM} are the most");
            return Err(Error::format(place, problem));
        }
        for (tensor, values, width) in [("weight", &weight, dim), ("bias", &bias, 1)] {
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return Err(Error::NotFinite {
                    place: place.to_owned(),
                    tensor,
                    row: i / width,
                    column: i % width,
                    value: values[i],
                });
            }
        }
        let packed = Packed::new(View::rows(&weight, dim).t(), dim, classes);
        Ok(Head { classes, dim, weight, bias, packed })
    }

    /// Read `weight [C, D]` and `bias [C]` from a `.safetensors` or `.npz` file.
    ///
    /// # Errors
    /// If a tensor is absent, has a wrong shape, or holds NaN or infinity.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match FileFormat::of(path) {
            Some(FileFormat::Npz) => return Self::open_npz(path),
            Some(FileFormat::Npy) => {
                let problem = "one array, and a head has two: save both as \
                               `np.savez(\"head.npz\", weight=W, bias=b)`, W of shape [C, D]";
                return Err(Error::format(path, problem));
            }
            _ => {}
        }
        Self::from_file(&TensorFile::open(path)?)
    }

    /// The same from an open file.
    ///
    /// # Errors
    /// As [`Head::open`].
    pub fn from_file(file: &TensorFile) -> Result<Self> {
        let content = file.content();
        if ["a detector", "a checkpoint", "features", "labels"].contains(&content) {
            let problem = format!("holds {content}, not a head, which has `weight` and `bias`");
            return Err(Error::format(file.path(), problem));
        }
        let shape = file.shape("weight")?.to_vec();
        let weight = file.f32("weight", &shape)?;
        let bias = file.f32("bias", &shape[..1.min(shape.len())])?;
        Self::shaped(file.path(), &shape, weight, bias)
    }

    fn shaped(path: &Path, shape: &[usize], weight: Vec<f32>, bias: Vec<f32>) -> Result<Self> {
        if shape.len() != 2 {
            return Err(Error::Shape {
                place: path.display().to_string(),
                tensor: "weight".into(),
                expected: "[C, D]".into(),
                got: format!("{shape:?}"),
            });
        }
        if bias.len() != shape[0] {
            return Err(Error::Shape {
                place: path.display().to_string(),
                tensor: "bias".into(),
                expected: format!("[{}], as weight is {shape:?}", shape[0]),
                got: format!("{} values", bias.len()),
            });
        }
        Self::checked(&path.display().to_string(), weight, bias)
    }

    fn open_npz(path: &Path) -> Result<Self> {
        let arrays = Npz::open(path)?.arrays(&["weight", "bias"])?;
        let get = |name: &str| {
            let found = arrays.iter().find(|(n, _)| n == name);
            let (_, array) = found.ok_or_else(|| {
                let place = path.display().to_string();
                Error::missing(place, format!("array `{name}`"), "a head has weight and bias")
            })?;
            let mut values = vec![0.0; array.shape.iter().product()];
            array.read_f32(0, &mut values);
            Ok((array.shape.clone(), values))
        };
        let (shape, weight) = get("weight")?;
        let (_, bias) = get("bias")?;
        Self::shaped(path, &shape, weight, bias)
    }

    /// The head of some classes alone: rows of W and b in the given order.
    ///
    /// # Errors
    /// If none is given, or one is not below C.
    pub fn select(&self, classes: &[u32]) -> Result<Self> {
        if let Some(c) = classes.iter().find(|c| **c as usize >= self.classes) {
            let problem = format!("the head has {} classes, from 0", self.classes);
            return Err(Error::config("classes", c, problem));
        }
        let rows = classes.iter().map(|&c| &self.weight[c as usize * self.dim..][..self.dim]);
        let bias = classes.iter().map(|&c| self.bias[c as usize]).collect();
        Self::new(rows.flatten().copied().collect(), bias)
    }

    /// Number of classes C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Feature dimension D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// W, `[C, D]`.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// b, `[C]`.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Logits `[n, C]` of the rows `z` (`[n, D]`), on the current thread.
    pub fn logits(&self, z: &[f32], out: &mut [f32], scratch: &mut Aligned) {
        let n = z.len() / self.dim;
        let z = View::rows(z, self.dim);
        gemm(z, n, &self.packed, out, self.classes, scratch, &mut Keep);
        for row in out.chunks_exact_mut(self.classes) {
            for (o, b) in row.iter_mut().zip(&self.bias) {
                *o += b;
            }
        }
    }

    /// Write `weight` and `bias` as a `.safetensors` file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        crate::io::save_tensors(path.as_ref(), &self.tensors(), &[])
    }

    /// SHA-256 of the values, in hexadecimal.
    pub fn digest(&self) -> String {
        sha256_of(self.weight.iter().chain(&self.bias).map(|v| v.to_le_bytes()))
    }

    pub(crate) fn tensors(&self) -> Vec<(String, Tensor)> {
        let weight = Tensor::f32([self.classes, self.dim], self.weight.clone());
        let bias = Tensor::f32([self.classes], self.bias.clone());
        vec![("weight".into(), weight), ("bias".into(), bias)]
    }
}
