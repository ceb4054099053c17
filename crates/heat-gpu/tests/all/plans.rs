//! Plans, carried out by the mirror and by the kernels on the processor, against the processor's engine.

use std::sync::Arc;

use heat_gpu::device::Device;
use heat_gpu::engine::Gpu;
use heat_gpu::mirror::{Mirror, tf32};
use heat_gpu::plan::Precision;
use heat_ood::ebm::engine::{Cpu, Engine, LossBatch};
use heat_ood::ebm::loss::Objective;
use heat_ood::ebm::mlp::{Architecture, Dropout, Mlp};
use heat_ood::ebm::sampler::{ChainKey, Energy, Langevin, Projection};
use heat_ood::ebm::{HeatConfig, Proposal};
use heat_ood::features::{FeatureSet, Head};
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::{EnergyLogitsConfig, Fit, GmmConfig, Prior};
use heat_ood::{Silent, TrainingData};

use crate::host::Host;

pub const DIM: usize = 22;
const CLASSES: usize = 3;

/// Features that are all positive, in three groups, with their classes.
fn features(rows: usize) -> (Vec<f32>, Vec<u32>) {
    let mut x = vec![0.0; rows * DIM];
    Stream::new(4, Purpose::User, 0, 0).fill_normal(&mut x);
    for (i, row) in x.chunks_mut(DIM).enumerate() {
        for (j, v) in row.iter_mut().enumerate() {
            *v = (0.2 * *v + if j % CLASSES == i % CLASSES { 1.0 } else { 0.3 }).abs();
        }
    }
    (x, (0..rows).map(|i| (i % CLASSES) as u32).collect())
}

fn data() -> TrainingData {
    let (x, labels) = features(300);
    let x = ndarray::ArrayView2::from_shape((300, DIM), &x).unwrap();
    let set = FeatureSet::from_arrays(x, Some(&labels)).unwrap();
    let mut weight = vec![0.0; CLASSES * DIM];
    Stream::new(5, Purpose::User, 0, 0).fill_normal(&mut weight);
    let head = Head::new(weight, vec![0.1, -0.2, 0.3]).unwrap();
    TrainingData::new(&set).with_classes(CLASSES).with_head(&head)
}

fn gmm(normalize: bool) -> Arc<dyn Prior> {
    let config = GmmConfig { normalize, ..GmmConfig::default() };
    config.fit(&data(), &mut Silent).unwrap().into_parts().0
}

fn el() -> Arc<dyn Prior> {
    EnergyLogitsConfig::default().fit(&data(), &mut Silent).unwrap().into_parts().0
}

fn none() -> Arc<dyn Prior> {
    let mut config = HeatConfig::default();
    config.ebm.model.use_base_dist = false;
    config.ebm.model.proposal_type = Proposal::RandomNormal;
    config.fit_prior(&data(), &mut Silent).unwrap()
}

fn networks() -> Vec<(&'static str, Mlp)> {
    let shape = |hidden_dim, n_hidden_layers, tied, tapered| Architecture {
        input_dim: DIM,
        hidden_dim,
        n_hidden_layers,
        tied,
        tapered,
    };
    vec![
        ("tied", Mlp::new(shape(36, 3, true, false), 1).unwrap()),
        ("untied", Mlp::new(shape(20, 2, false, false), 2).unwrap()),
        ("tapered", Mlp::new(shape(40, 2, false, true), 3).unwrap()),
        ("one layer", Mlp::new(shape(17, 0, true, false), 4).unwrap()),
        ("spectral", Mlp::new(shape(36, 1, false, false), 5).unwrap().with_spectral_norm(5)),
    ]
}

fn chain() -> Langevin {
    Langevin {
        steps: 3,
        step_size: (0.02, 0.01),
        eps: (0.01, 0.001),
        precondition: false,
        svgd: false,
    }
}

/// Rows of chains by an engine: two whole blocks and a piece of one.
fn sampled(engine: &mut dyn Engine, energy: &Energy<'_>, chain: &Langevin) -> Vec<f32> {
    let mut z = features(150).0;
    energy.projection.apply(&mut z, DIM);
    let key = ChainKey { seed: 0x1_2345_6789, step: 7, block: 3 };
    engine.sample(energy, chain, key, &mut z).unwrap();
    z
}

/// The largest difference beside the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let size = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let far = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far.is_finite() && size > 0.0);
    far / size
}

fn energy<'a>(net: &'a Mlp, prior: &'a dyn Prior) -> Energy<'a> {
    Energy {
        net,
        prior,
        temperature: 0.7,
        temperature_prior: 40.0,
        projection: Projection::new(prior, true),
        labels: None,
    }
}

/// Chains of networks and priors on a device against those of the processor: all of them, or each network
/// with one prior and each prior with one network.
fn chains_are_those_of_the_processor<D: Device>(all: bool, mut device: impl FnMut() -> Option<D>) {
    let mut most = 0.0f32;
    let labels: Vec<u32> = (0..150).map(|i| i % CLASSES as u32).collect();
    for (prior_name, prior) in
        [("gmm", gmm(true)), ("gmm plain", gmm(false)), ("el", el()), ("none", none())]
    {
        for (i, (name, net)) in networks().into_iter().enumerate() {
            if !all && i > 0 && prior_name != "el" {
                continue;
            }
            let Some(device) = device() else { return };
            let mut gpu = Gpu::new(device, prior.clone(), Precision::F32).unwrap();
            let plain = energy(&net, &*prior);
            let relu_only = Projection { relu: true, normalize: false, halves: false };
            let halves = Projection { relu: false, normalize: true, halves: true };
            let mut cases = vec![
                ("as it is", plain, chain()),
                ("not normalised", Energy { projection: relu_only, ..plain }, chain()),
                ("halves", Energy { projection: halves, ..plain }, chain()),
                ("no noise", plain, Langevin { eps: (0.0, 0.0), ..chain() }),
                ("no prior", Energy { temperature_prior: f64::INFINITY, ..plain }, chain()),
            ];
            if prior_name.starts_with("gmm") {
                let given = Energy { labels: Some(&labels), ..plain };
                cases.push(("given classes", given, chain()));
                let alone = Energy { temperature_prior: f64::INFINITY, ..given };
                cases.push(("given classes, no prior", alone, chain()));
                cases.push(("no steps", given, Langevin { steps: 0, ..chain() }));
                let whitened = Langevin { precondition: true, ..chain() };
                cases.push(("preconditioned", plain, whitened));
                let both = Langevin { eps: (0.0, 0.0), ..whitened };
                cases.push(("preconditioned, no noise", plain, both));
            }
            if !all && i > 0 {
                cases.truncate(1);
            }
            for (what, energy, chain) in cases {
                let want = sampled(&mut Cpu::default(), &energy, &chain);
                let got = sampled(&mut gpu, &energy, &chain);
                let far = distance(&want, &got);
                most = most.max(far);
                // Rounding of single-precision products over three steps; priors scale it by 1/T_prior
                // and the condition number of their whitening.
                assert!(far < 2e-5, "{prior_name}, {name}, {what}: {far}");
            }
        }
    }
    println!("the largest distance of a chain: {most}");
}

#[test]
fn chains_of_the_mirror() {
    chains_are_those_of_the_processor(true, || Some(Mirror::default()));
}

#[test]
fn chains_of_the_kernels() {
    chains_are_those_of_the_processor(false, || Host::new("chains_of_the_kernels"));
}

fn batch(rows: &[f32], objective: Objective, dropout: Option<Dropout>) -> LossBatch<'_> {
    LossBatch { rows, real: 60, temperature: 0.7, objective, l2_coef: 2.0, weight: 0.5, dropout }
}

/// Loss and gradient of every network against the processor's, added to what is there.
fn gradients_are_those_of_the_processor<D: Device>(mut device: impl FnMut() -> Option<D>) {
    let rows = features(180).0;
    for (name, net) in networks() {
        let Some(device) = device() else { return };
        let mut gpu = Gpu::new(device, none(), Precision::Tf32).unwrap();
        for objective in [Objective::ContrastiveDivergence, Objective::NoiseContrastive] {
            for dropout in [None, Some(Dropout { probability: 0.3, seed: 9, step: 5 })] {
                let batch = batch(&rows, objective, dropout);
                let there: Vec<f32> =
                    (0..net.parameters().len()).map(|i| (i % 7) as f32 * 0.01).collect();
                let (mut want, mut got) = (there.clone(), there);
                let loss = Cpu::default().loss_gradient(&net, &batch, &mut want).unwrap();
                let found = gpu.loss_gradient(&net, &batch, &mut got).unwrap();
                let far = distance(&want, &got);
                assert!(far < 1e-5, "{name}, {objective:?}, {dropout:?}: {far}");
                assert!((loss.loss - found.loss).abs() < 1e-5 * loss.loss.abs().max(1.0), "{name}");
                assert!((loss.energy_real - found.energy_real).abs() < 1e-5, "{name}");
            }
        }
    }
}

#[test]
fn gradients_of_the_mirror() {
    gradients_are_those_of_the_processor(|| Some(Mirror::default()));
}

#[test]
fn gradients_of_the_kernels() {
    gradients_are_those_of_the_processor(|| Host::new("gradients_of_the_kernels"));
}

/// One engine through updates of the weights, other shapes in between, and back: nothing old is used.
#[test]
fn weights_and_shapes_that_change() {
    let prior = gmm(true);
    let mut gpu = Gpu::new(Mirror::default(), prior.clone(), Precision::F32).unwrap();
    let mut net = networks().remove(0).1;
    let rows = features(180).0;
    for round in 0..3 {
        let energy = energy(&net, &*prior);
        let want = sampled(&mut Cpu::default(), &energy, &chain());
        assert!(distance(&want, &sampled(&mut gpu, &energy, &chain())) < 2e-5, "{round}");
        let mut gradient = vec![0.0; net.parameters().len()];
        let batch = batch(&rows, Objective::ContrastiveDivergence, None);
        gpu.loss_gradient(&net, &batch, &mut gradient).unwrap();
        net.update(|p| p.iter_mut().zip(&gradient).for_each(|(p, g)| *p -= 0.1 * g));
    }
}

/// Eleven bits, halves away from zero: by hand.
#[test]
fn rounding_of_the_fast_units() {
    let unit = 2f32.powi(-10);
    for (x, want) in [
        (1.0, 1.0),
        (1.0 + unit, 1.0 + unit),
        (1.0 + 0.5 * unit, 1.0 + unit),
        (1.0 + 0.49 * unit, 1.0),
        (-1.0 - 0.5 * unit, -1.0 - unit),
        (2.0 - 0.25 * unit, 2.0),
        (0.0, 0.0),
        (f32::INFINITY, f32::INFINITY),
    ] {
        assert_eq!(tf32(x), want, "{x}");
    }
    assert!(tf32(f32::NAN).is_nan());
}

/// With the fast units a step's gradient of the network has a relative error of about 2⁻¹¹, and the
/// prior's none: what differs after three steps, root of the mean square, is below a hundredth of the
/// first step's noise, whose deviation is 0.01.
#[test]
fn fast_units_change_less_than_the_noise() {
    let prior = gmm(true);
    for (name, net) in networks() {
        let energy = energy(&net, &*prior);
        let want = sampled(&mut Cpu::default(), &energy, &chain());
        let mut gpu = Gpu::new(Mirror::default(), prior.clone(), Precision::Tf32).unwrap();
        let got = sampled(&mut gpu, &energy, &chain());
        let squares = want.iter().zip(&got).map(|(a, b)| f64::from(a - b).powi(2));
        let far = (squares.sum::<f64>() / want.len() as f64).sqrt();
        assert!(far > 0.0 && far < 0.01 * chain().eps.0, "{name}: {far}");
    }
}

/// A class that the prior has not would be read beyond its means.
#[test]
fn classes_that_there_are_not() {
    let prior = gmm(true);
    let net = networks().remove(0).1;
    let mut gpu = Gpu::new(Mirror::default(), prior.clone(), Precision::F32).unwrap();
    let labels = vec![CLASSES as u32; 10];
    let energy = Energy { labels: Some(&labels), ..energy(&net, &*prior) };
    let mut z = features(10).0;
    let key = ChainKey { seed: 1, step: 0, block: 0 };
    let said = gpu.sample(&energy, &chain(), key, &mut z).unwrap_err().to_string();
    assert!(said.contains("class 3") && said.contains("0..3"), "{said}");
}
