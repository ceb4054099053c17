//! The residual energy: a small MLP with LeakyReLU(0.2) and a scalar output.
//!
//! - *tied*: Linear(D,H), then one Linear(H,H) applied `n_hidden` times, then
//!   Linear(H,1). The published code multiplies a Python list of modules, so
//!   its hidden layers share their weights.
//! - *untied*: the same with `n_hidden` separate Linear(H,H).
//! - *tapered*: Linear(D,H), then for i in 0..n_hidden with w = H/2^i:
//!   Linear(w,w), Linear(w,w), Linear(w,w/2); then Linear(H/2^n_hidden, 1).
//!
//! Parameters lie in one vector, each layer's weight `[out, in]` then its bias,
//! so that optimiser and checkpoint see plain arrays. Backward passes are
//! written by hand: the derivative of LeakyReLU is read off the activation's
//! sign. Work on a block of rows runs on one thread ([`Mlp::energy`],
//! [`Mlp::input_gradient`]); the parameter gradient runs on all
//! ([`Mlp::forward_all`], [`Mlp::backward_all`]).

mod architecture;
mod batch;
mod packs;
mod spectral;
mod standard;

pub use architecture::Architecture;
pub use batch::{BatchWorkspace, Dropout};

pub(in crate::ebm) use architecture::Place;

use architecture::Linear;
use packs::Packs;
use spectral::Spectral;
use standard::Standard;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::io::{Tensor, TensorFile, check_memory};
use crate::math::matmul::{Aligned, Epilogue, Keep, View, gemm};
use crate::math::rng::{Purpose, Stream};

/// Slope of LeakyReLU below zero.
pub const SLOPE: f32 = 0.2;

/// A linear map, as another device needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Columns of its weight.
    pub input: usize,
    /// Rows of its weight, and length of its bias.
    pub output: usize,
    /// Where its weight begins; its bias follows.
    pub offset: usize,
}

/// The network with its parameters.
#[derive(Clone)]
pub struct Mlp {
    architecture: Architecture,
    linears: Vec<Linear>,
    /// Hidden layers in order of application, as indices of `linears`.
    order: Vec<usize>,
    parameters: Vec<f32>,
    /// What is applied, where it is not the parameters themselves.
    made: Option<Vec<f32>>,
    /// No other state of any network has this number.
    version: u64,
    packs: Packs,
    spectral: Option<Spectral>,
    standard: Option<Standard>,
}

/// Memory for a block of rows on one thread.
#[derive(Default, Clone)]
pub struct Workspace {
    activations: Vec<Aligned>,
    delta: [Aligned; 2],
    scratch: Aligned,
}

/// Leading dimension for rows of `n` floats: whole cache lines, and not a
/// multiple of 4 KiB, which would put all rows into the same cache sets.
fn stride(n: usize) -> usize {
    n.next_multiple_of(16) + 16
}

struct BiasLeaky<'a>(&'a [f32]);

impl Epilogue for BiasLeaky<'_> {
    #[inline(always)]
    fn apply(&mut self, _: usize, column: usize, values: &mut [f32]) {
        for (v, b) in values.iter_mut().zip(&self.0[column..]) {
            let x = *v + b;
            *v = if x > 0.0 { x } else { SLOPE * x };
        }
    }
}

/// Multiplies by LeakyReLU's derivative at the stored activations.
struct Mask<'a> {
    activations: &'a [f32],
    ld: usize,
}

impl Epilogue for Mask<'_> {
    #[inline(always)]
    fn apply(&mut self, row: usize, column: usize, values: &mut [f32]) {
        let activations = &self.activations[row * self.ld + column..];
        for (v, a) in values.iter_mut().zip(activations) {
            *v *= if *a > 0.0 { 1.0 } else { SLOPE };
        }
    }
}

impl Mlp {
    /// A network initialised as PyTorch's Linear: uniform on ±1/√fan_in.
    ///
    /// # Errors
    /// If the architecture is impossible.
    pub fn new(architecture: Architecture, seed: u64) -> Result<Self> {
        // Packed on both sides, with the gradient and the optimiser's two moments.
        let total = architecture.plan()?.0.last().map_or(0, |l| l.bias().end);
        check_memory("the energy network (`ebm.model.hidden_dim`)", total.checked_mul(24))?;
        let mut net = Self::zeroed(architecture)?;
        for (i, linear) in net.linears.iter().enumerate() {
            let bound = 1.0 / (linear.input as f32).sqrt();
            let mut stream = Stream::new(seed, Purpose::Init, i as u64, 0);
            let values = &mut net.parameters[linear.weight().start..linear.bias().end];
            stream.fill_uniform(values, -bound, bound);
        }
        net.changed();
        Ok(net)
    }

    fn zeroed(architecture: Architecture) -> Result<Self> {
        let (linears, order) = architecture.plan()?;
        let total = linears.last().map_or(0, |l| l.bias().end);
        Ok(Mlp {
            architecture,
            parameters: vec![0.0; total],
            made: None,
            version: 0,
            packs: Packs::default(),
            linears,
            order,
            spectral: None,
            standard: None,
        })
    }

    /// Read the parameters from tensors named as PyTorch names them
    /// (`mlp.0.weight` …) after `prefix`.
    ///
    /// # Errors
    /// If a tensor is absent or has another shape.
    pub fn load(architecture: Architecture, file: &TensorFile, prefix: &str) -> Result<Self> {
        // Shapes first: nothing is allocated for a network that is not there.
        let (linears, _) = architecture.plan()?;
        for linear in &linears {
            file.expect(
                &format!("{prefix}{}.weight", linear.name),
                &[linear.output, linear.input],
            )?;
        }
        Self::filled(architecture, |name, shape| file.f32(&format!("{prefix}{name}"), shape))
    }

    /// A network whose parameters come from `values(name, shape)`: those of
    /// `mlp.0.weight`, `mlp.0.bias` …, shared ones once.
    pub(super) fn filled(
        architecture: Architecture,
        mut values: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let mut net = Self::zeroed(architecture)?;
        for linear in &net.linears {
            let shape = [linear.output, linear.input];
            let weight = values(&format!("{}.weight", linear.name), &shape)?;
            net.parameters[linear.weight()].copy_from_slice(&weight);
            let bias = values(&format!("{}.bias", linear.name), &shape[..1])?;
            net.parameters[linear.bias()].copy_from_slice(&bias);
        }
        net.changed();
        Ok(net)
    }

    /// One network that computes the mean of several: as many times as wide, what is hidden apart.
    ///
    /// # Errors
    /// If it would be too wide.
    pub(in crate::ebm) fn mean_of(nets: &[Mlp]) -> Result<Mlp> {
        let architecture = nets[0].architecture;
        let hidden_dim = architecture.hidden_dim * nets.len();
        let mut wide = Self::zeroed(Architecture { hidden_dim, ..architecture })?;
        let top = wide.linears.len() - 1;
        for (n, net) in nets.iter().enumerate() {
            let parameters = net.applied();
            for (i, (to, from)) in wide.linears.iter().zip(&net.linears).enumerate() {
                let share = if i == top { 1.0 / nets.len() as f32 } else { 1.0 };
                let first_row = if i == top { 0 } else { n * from.output };
                let first_column = if i == 0 { 0 } else { n * from.input };
                for (row, values) in parameters[from.weight()].chunks(from.input).enumerate() {
                    let at = to.offset + (first_row + row) * to.input + first_column;
                    let out = &mut wide.parameters[at..at + from.input];
                    out.iter_mut().zip(values).for_each(|(o, v)| *o = share * v);
                }
                let out = &mut wide.parameters[to.bias()][first_row..];
                let bias = &parameters[from.bias()];
                out.iter_mut().zip(bias).for_each(|(o, v)| *o += share * v);
            }
        }
        wide.changed();
        Ok(wide)
    }

    /// Tensors under PyTorch's names; shared weights once, under the first name.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        self.split(self.applied())
    }

    /// The parameters as they are applied: normalised, and for plain features, where inputs are
    /// standardised.
    pub fn applied(&self) -> &[f32] {
        self.made.as_ref().unwrap_or(&self.parameters)
    }

    /// Of every linear map where it lies in [`Mlp::applied`]: its weight `[out, in]`, then its bias.
    pub fn layers(&self) -> Vec<Layer> {
        let layer = |l: &Linear| Layer { input: l.input, output: l.output, offset: l.offset };
        self.linears.iter().map(layer).collect()
    }

    /// The maps of [`Mlp::layers`] in order of application, but for the last, which comes once at the end.
    pub fn hidden_order(&self) -> &[usize] {
        &self.order
    }

    /// A number that changes with the parameters: where two networks have the same, they are the same.
    pub fn version(&self) -> u64 {
        self.version
    }

    fn make(&self) -> Vec<f32> {
        let mut out = self.parameters.clone();
        if let Some(spectral) = &self.spectral {
            for (i, linear) in self.linears[..self.linears.len() - 1].iter().enumerate() {
                let scale = spectral.scale(i);
                out[linear.weight()].iter_mut().for_each(|w| *w *= scale);
            }
        }
        if let Some(standard) = &self.standard {
            standard.fold(&self.linears[0], &mut out);
        }
        out
    }

    /// Any vector laid out like the parameters (a gradient, a moment), as tensors.
    pub fn split(&self, values: &[f32]) -> Vec<(String, Tensor)> {
        let both = |l: &Linear| {
            let weight = Tensor::f32([l.output, l.input], values[l.weight()].to_vec());
            let bias = Tensor::f32([l.output], values[l.bias()].to_vec());
            [(format!("{}.weight", l.name), weight), (format!("{}.bias", l.name), bias)]
        };
        self.linears.iter().flat_map(both).collect()
    }

    /// Shape of the network.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// All parameters.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// Change the parameters.
    pub fn update(&mut self, f: impl FnOnce(&mut [f32])) {
        f(&mut self.parameters);
        if let Some(spectral) = &mut self.spectral {
            let normalised = self.linears.len() - 1;
            spectral.measure(&self.linears[..normalised], &self.parameters);
        }
        self.changed();
    }

    /// Nothing made of the parameters as they were is used any more.
    fn changed(&mut self) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.version = NEXT.fetch_add(1, Ordering::Relaxed);
        self.made = self.is_made().then(|| self.make());
        self.packs.outdate();
    }

    /// Whether what is applied is made of the parameters.
    pub(in crate::ebm) fn is_made(&self) -> bool {
        self.spectral.is_some() || self.standard.is_some()
    }

    /// Turn the gradient with respect to what is applied ([`Mlp::backward_all`]) into that with
    /// respect to the parameters.
    pub fn through_parameters(&self, grad: &mut [f32]) {
        self.through_standard(grad);
        self.through_spectral_norm(grad);
    }

    /// The network that computes the same and applies its parameters as they are.
    pub fn baked(&self) -> Mlp {
        let mut net = self.clone();
        if net.is_made() {
            (net.spectral, net.standard) = (None, None);
            net.update(|p| p.copy_from_slice(self.applied()));
        }
        net
    }

    fn last(&self) -> &Linear {
        &self.linears[self.linears.len() - 1]
    }

    fn width(&self, layer: usize) -> usize {
        self.linears[self.order[layer]].output
    }

    fn widest(&self) -> usize {
        self.linears.iter().map(|l| l.input.max(l.output)).max().unwrap_or(1)
    }

    /// E_nn of the `n` rows of `z` (`[n, D]`, leading dimension `ld`), keeping
    /// the activations for [`Mlp::input_gradient`].
    pub fn energy(&self, z: &[f32], ld: usize, n: usize, ws: &mut Workspace, out: &mut [f32]) {
        ws.activations.resize_with(self.order.len(), Aligned::default);
        for layer in 0..self.order.len() {
            let (before, after) = ws.activations.split_at_mut(layer);
            let input = match before.last() {
                Some(a) => View::rows(a, stride(self.width(layer - 1))),
                None => View::rows(z, ld),
            };
            after[0].reserve(n * stride(self.width(layer)));
            self.layer_forward(layer, input, n, &mut after[0], &mut ws.scratch);
        }
        let top = &ws.activations[self.order.len() - 1];
        self.output(top, &mut out[..n]);
    }

    fn layer_forward(
        &self,
        layer: usize,
        input: View<'_>,
        n: usize,
        out: &mut [f32],
        scratch: &mut Aligned,
    ) {
        let index = self.order[layer];
        let mut epilogue = BiasLeaky(&self.applied()[self.linears[index].bias()]);
        let ld = stride(self.width(layer));
        gemm(input, n, &self.packs().forward[index], out, ld, scratch, &mut epilogue);
    }

    /// The last layer: a dot product, summed in f64.
    fn output(&self, top: &[f32], out: &mut [f32]) {
        let last = self.last();
        let weight = &self.parameters[last.weight()];
        let bias = f64::from(self.parameters[last.bias()][0]);
        crate::math::arch().dispatch(
            #[inline(always)]
            || {
                for (o, row) in out.iter_mut().zip(top.chunks(stride(last.input))) {
                    *o = (dot(&row[..last.input], weight) + bias) as f32;
                }
            },
        );
    }

    /// `scale`·∂E_nn/∂z of the `n` rows last given to [`Mlp::energy`], into
    /// `grad` (`[n, D]`, no gaps).
    pub fn input_gradient(&self, n: usize, scale: f32, ws: &mut Workspace, grad: &mut [f32]) {
        let ld = stride(self.widest());
        let [a, b] = &mut ws.delta;
        a.reserve(n * ld);
        b.reserve(n * ld);
        let (mut now, mut next) = (a, b);
        let top = self.order.len() - 1;
        let seed = |_: usize| scale;
        self.seed_delta(&ws.activations[top], n, seed, now, ld);
        for layer in (0..=top).rev() {
            let index = self.order[layer];
            let delta = View::rows(now, ld);
            let weight = &self.packs().backward[index];
            if layer == 0 {
                let d = self.linears[index].input;
                gemm(delta, n, weight, grad, d, &mut ws.scratch, &mut Keep);
            } else {
                let mut mask = Mask {
                    activations: &ws.activations[layer - 1],
                    ld: stride(self.width(layer - 1)),
                };
                gemm(delta, n, weight, next, ld, &mut ws.scratch, &mut mask);
                std::mem::swap(&mut now, &mut next);
            }
        }
    }

    /// ∂/∂(last hidden pre-activation): `seed(row)`·w ⊙ mask.
    fn seed_delta(
        &self,
        top: &[f32],
        n: usize,
        seed: impl Fn(usize) -> f32,
        delta: &mut [f32],
        ld: usize,
    ) {
        let last = self.last();
        let weight = &self.parameters[last.weight()];
        let rows = delta.chunks_mut(ld).zip(top.chunks(stride(last.input)));
        for (i, (delta, a)) in rows.take(n).enumerate() {
            let s = seed(i);
            for ((d, a), w) in delta.iter_mut().zip(&a[..last.input]).zip(weight) {
                *d = s * w * if *a > 0.0 { 1.0 } else { SLOPE };
            }
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    let (a, a_tail) = a.as_chunks::<16>();
    let (b, b_tail) = b.as_chunks::<16>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            sums[i] += f64::from(a[i]) * f64::from(b[i]);
        }
    }
    let tail = a_tail.iter().zip(b_tail).map(|(a, b)| f64::from(*a) * f64::from(*b));
    sums.iter().sum::<f64>() + tail.sum::<f64>()
}
