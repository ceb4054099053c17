//! Spectral normalisation of every linear map but the last (METHOD §4): its
//! weight is divided by max(1, σ/10), σ ≈ uᵀWv its largest singular value,
//! with one power iteration on u and v per training forward.
//!
//! The parameters stay as they are; only the packed operands are scaled. The
//! gradient goes through σ with u and v held fixed, as PyTorch's does.
//!
//! Reference: Miyato et al., *Spectral Normalization for Generative Adversarial Networks*, ICLR 2018.

use super::{Linear, Mlp};
use crate::error::Result;
use crate::io::{Tensor, TensorFile};
use crate::math::parallel::{Pieces, Slices, SlicesMut};
use crate::math::rng::{Purpose, Stream};

/// Largest singular value a weight may keep.
const LIMIT: f64 = 10.0;

/// u, v and σ of every normalised map.
#[derive(Debug, Clone)]
pub(super) struct Spectral {
    maps: Vec<Map>,
}

#[derive(Debug, Clone)]
struct Map {
    /// `[out]`.
    u: Vec<f32>,
    /// `[in]`.
    v: Vec<f32>,
    sigma: f64,
}

impl Map {
    /// u and v after one power iteration.
    fn iterate(&mut self, w: &[f32]) {
        let input = self.v.len();
        let mut v = vec![0.0f64; input];
        for (row, &u) in w.chunks_exact(input).zip(&self.u) {
            v.iter_mut().zip(row).for_each(|(v, &w)| *v += f64::from(w) * f64::from(u));
        }
        self.v = normalized(&v);
        self.u = normalized(&times(w, &self.v));
        self.measure(w);
    }

    fn measure(&mut self, w: &[f32]) {
        let wv = times(w, &self.v);
        self.sigma = wv.iter().zip(&self.u).map(|(a, &b)| a * f64::from(b)).sum();
    }

    fn scale(&self) -> f32 {
        if self.sigma > LIMIT { (LIMIT / self.sigma) as f32 } else { 1.0 }
    }
}

/// W·v.
fn times(w: &[f32], v: &[f32]) -> Vec<f64> {
    let dot = |row: &[f32]| row.iter().zip(v).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    w.chunks_exact(v.len()).map(dot).collect()
}

fn normalized(x: &[f64]) -> Vec<f32> {
    let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
    x.iter().map(|v| (v / norm) as f32).collect()
}

impl Spectral {
    /// The factor on the weight of map `i`.
    pub(super) fn scale(&self, i: usize) -> f32 {
        self.maps[i].scale()
    }

    /// Take new weights into account, u and v as they are.
    pub(super) fn measure(&mut self, linears: &[Linear], parameters: &[f32]) {
        let maps = self.maps.par_iter_mut().zip(linears.par_iter());
        maps.for_each(|(m, l)| m.measure(&parameters[l.weight()]));
    }
}

impl Mlp {
    /// The same network with spectral normalisation, u and v drawn at random.
    pub fn with_spectral_norm(mut self, seed: u64) -> Self {
        let normalised = &self.linears[..self.linears.len() - 1];
        let draw = |(i, l): (usize, &Linear)| {
            // After the streams of the initial weights.
            let mut stream = Stream::new(seed, Purpose::Init, i as u64, 1);
            let mut unit = |n: usize| {
                let mut x = vec![0.0; n];
                stream.fill_normal(&mut x);
                normalized(&x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())
            };
            let (u, v) = (unit(l.output), unit(l.input));
            Map { u, v, sigma: 0.0 }
        };
        let maps = normalised.iter().enumerate().map(draw).collect();
        self.spectral = Some(Spectral { maps });
        self.update(|_| {});
        self
    }

    /// One power iteration, before a training forward; nothing without
    /// spectral normalisation.
    pub fn power_iteration(&mut self) {
        let Mlp { spectral: Some(spectral), linears, parameters, .. } = self else {
            return;
        };
        let maps = spectral.maps.par_iter_mut().zip(linears.par_iter());
        maps.for_each(|(m, l)| m.iterate(&parameters[l.weight()]));
        self.changed();
    }

    /// Turn the gradient with respect to the normalised weights into that with
    /// respect to the parameters: for W/s, s = σ/10 > 1, it is
    /// (G − ⟨G, W⟩/σ·uvᵀ)/s.
    pub(super) fn through_spectral_norm(&self, grad: &mut [f32]) {
        let Some(spectral) = &self.spectral else {
            return;
        };
        for (map, linear) in spectral.maps.iter().zip(&self.linears) {
            if map.scale() == 1.0 {
                continue;
            }
            let (w, g) = (&self.parameters[linear.weight()], &mut grad[linear.weight()]);
            let along: f64 = w.iter().zip(&*g).map(|(&w, &g)| f64::from(w) * f64::from(g)).sum();
            let (scale, along) = (map.scale(), (along / map.sigma) as f32);
            for (row, u) in g.chunks_exact_mut(linear.input).zip(&map.u) {
                for (g, v) in row.iter_mut().zip(&map.v) {
                    *g = scale * (*g - along * u * v);
                }
            }
        }
    }

    /// The parameters, u and v, for a checkpoint; empty without spectral
    /// normalisation, where [`Mlp::tensors`] says everything.
    pub(crate) fn spectral_tensors(&self) -> Vec<(String, Tensor)> {
        let Some(spectral) = &self.spectral else {
            return Vec::new();
        };
        let mut out = self.split(&self.parameters);
        for (map, linear) in spectral.maps.iter().zip(&self.linears) {
            let u = Tensor::f32([linear.output], map.u.clone());
            let v = Tensor::f32([linear.input], map.v.clone());
            out.extend([(format!("{}.u", linear.name), u), (format!("{}.v", linear.name), v)]);
        }
        out
    }

    /// Read back what [`Mlp::spectral_tensors`] gave.
    pub(crate) fn load_spectral(mut self, file: &TensorFile, prefix: &str) -> Result<Self> {
        let raw = Mlp::load(self.architecture, file, prefix)?;
        let read = |l: &Linear| {
            let u = file.f32(&format!("{prefix}{}.u", l.name), &[l.output])?;
            let v = file.f32(&format!("{prefix}{}.v", l.name), &[l.input])?;
            Ok(Map { u, v, sigma: 0.0 })
        };
        let normalised = &self.linears[..self.linears.len() - 1];
        let maps = normalised.iter().map(read).collect::<Result<_>>()?;
        self.spectral = Some(Spectral { maps });
        self.update(|p| p.copy_from_slice(&raw.parameters));
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Architecture;
    use super::*;

    fn net() -> Mlp {
        let architecture = Architecture {
            input_dim: 2,
            hidden_dim: 2,
            n_hidden_layers: 0,
            tied: false,
            tapered: false,
        };
        let mut net = Mlp::new(architecture, 0).unwrap();
        // W = diag(30, 2), σ = 30; output weight (1, 1), no biases.
        net.update(|p| p.copy_from_slice(&[30.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1.0, 1.0, 0.0]));
        net.with_spectral_norm(3)
    }

    /// The largest singular value becomes 10, by hand.
    #[test]
    fn divides_by_a_tenth_of_the_largest_singular_value() {
        let mut net = net();
        (0..60).for_each(|_| net.power_iteration());
        let w = net.applied();
        assert!((w[0] - 10.0).abs() < 1e-5 && (w[3] - 2.0 / 3.0).abs() < 1e-6, "{w:?}");
        assert_eq!(net.parameters()[0], 30.0);
        let small = net.baked();
        assert_eq!(small.parameters(), w);
    }

    /// Against differences of the energy, with u and v held fixed.
    #[test]
    fn gradient_goes_through_the_norm() {
        let mut net = net();
        (0..60).for_each(|_| net.power_iteration());
        let z = [0.3f32, 0.7];
        let energy = |net: &Mlp| {
            let mut out = [0.0];
            net.energy(&z, 2, 1, &mut Default::default(), &mut out);
            f64::from(out[0])
        };
        let mut grad = vec![0.0; net.parameters().len()];
        let mut ws = super::super::BatchWorkspace::default();
        net.forward_all(&z, 1, None, &mut ws, &mut [0.0]);
        net.backward_all(&z, &[1.0], &mut ws, &mut grad);
        net.through_spectral_norm(&mut grad);
        for i in 0..4 {
            let h = 1e-2f32;
            let mut moved = |sign: f32| {
                net.update(|p| p[i] += sign * h);
                let e = energy(&net);
                net.update(|p| p[i] -= sign * h);
                e
            };
            let want = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(h));
            assert!((f64::from(grad[i]) - want).abs() < 2e-3, "{i}: {} {want}", grad[i]);
        }
    }
}
