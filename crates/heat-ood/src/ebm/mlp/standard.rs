//! Standardised inputs: the first layer sees (z − mean)/deviation of each coordinate.
//!
//! As with spectral normalisation, the parameters are those that are trained, and what is applied is
//! made of them: W/deviation and b − W·(mean/deviation). So chains, scores and input gradients are those of a
//! network of plain features, and a detector holds that network.

use super::{Linear, Mlp};
use crate::error::Result;
use crate::io::{Tensor, TensorFile};

/// Mean and deviation of every coordinate.
#[derive(Debug, Clone)]
pub(super) struct Standard {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Standard {
    /// Turn the first layer's parameters into those for plain features.
    pub(super) fn fold(&self, first: &Linear, parameters: &mut [f32]) {
        let (weight, bias) = parameters[..first.bias().end].split_at_mut(first.bias().start);
        for (row, bias) in weight.chunks_exact_mut(first.input).zip(bias) {
            let mut shift = 0.0;
            for ((w, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                let folded = f64::from(*w) / deviation;
                shift += folded * mean;
                *w = folded as f32;
            }
            *bias = (f64::from(*bias) - shift) as f32;
        }
    }

    /// Turn the gradient with respect to the folded parameters into that with respect to the trained ones.
    fn unfold(&self, first: &Linear, grad: &mut [f32]) {
        let (weight, bias) = grad[..first.bias().end].split_at_mut(first.bias().start);
        for (row, &bias) in weight.chunks_exact_mut(first.input).zip(&*bias) {
            for ((g, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *g = ((f64::from(*g) - f64::from(bias) * mean) / deviation) as f32;
            }
        }
    }
}

impl Mlp {
    /// The same network on inputs that are standardised first; a coordinate without deviation is
    /// centred only.
    pub fn with_standardised_inputs(mut self, mean: Vec<f64>, deviation: Vec<f64>) -> Self {
        // Of what is constant but for rounding, a quotient would be noise.
        let usable = |(d, m): (f64, &f64)| if d > 1e-6 * m.abs() { d } else { 1.0 };
        let deviation = deviation.into_iter().zip(&mean).map(usable).collect();
        self.standard = Some(Standard { mean, deviation });
        self.update(|_| {});
        self
    }

    /// The trained parameters with mean and deviation, for a checkpoint; empty where inputs are not
    /// standardised.
    pub(crate) fn standard_tensors(&self) -> Vec<(String, Tensor)> {
        let Some(standard) = &self.standard else {
            return Vec::new();
        };
        let dim = [self.architecture.input_dim];
        let mut out = self.split(&self.parameters);
        out.push(("mean".into(), Tensor::f64(dim, standard.mean.clone())));
        out.push(("deviation".into(), Tensor::f64(dim, standard.deviation.clone())));
        out
    }

    /// Read back what [`Mlp::standard_tensors`] gave.
    pub(crate) fn load_standard(mut self, file: &TensorFile, prefix: &str) -> Result<Self> {
        let trained = Mlp::load(self.architecture, file, prefix)?;
        let dim = [self.architecture.input_dim];
        let mean = file.f64(&format!("{prefix}mean"), &dim)?;
        let deviation = file.f64(&format!("{prefix}deviation"), &dim)?;
        self.parameters = trained.parameters;
        Ok(self.with_standardised_inputs(mean, deviation))
    }

    pub(super) fn through_standard(&self, grad: &mut [f32]) {
        if let Some(standard) = &self.standard {
            standard.unfold(&self.linears[0], grad);
        }
    }
}
