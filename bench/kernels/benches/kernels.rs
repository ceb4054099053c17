//! Criterion benches of the hot kernels: `cargo bench -p heat-kernels`.
//!
//! One thread each, so that a change in a kernel is not hidden by scheduling.
//! Comparisons with peers are in `bench/`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use heat_ood::Silent;
use heat_ood::ebm::ModelConfig;
use heat_ood::ebm::mlp::{Mlp, Workspace};
use heat_ood::ebm::sampler::{ChainKey, ChainWorkspace, Energy, Langevin, Projection};
use heat_ood::features::FeatureSet;
use heat_ood::math::BLOCK_ROWS;
use heat_ood::math::kernels::{Keep, Packed, View, gemm};
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::{Aligned, Gmm, GmmConfig, Prior};
use heat_ood::{Fit, Fitted, TrainingData};
use ndarray::Array2;

const D: usize = 512;

fn uniform(n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n];
    Stream::new(1, Purpose::User, 0, 0).fill_uniform(&mut out, 0.0, 1.0);
    out
}

fn prior(k: usize) -> Fitted<Gmm> {
    let n = 4 * D;
    let rows = Array2::from_shape_vec((n, D), uniform(n * D)).unwrap();
    let labels: Vec<u32> = (0..n).map(|i| (i % k) as u32).collect();
    let set = FeatureSet::from_arrays(rows.view(), Some(&labels)).unwrap();
    GmmConfig::default().fit(&TrainingData::new(&set), &mut Silent).unwrap()
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    for n in [512, 1024] {
        let (a, b) = (uniform(BLOCK_ROWS * 1024), uniform(1024 * n));
        let packed = Packed::new(View::rows(&b, n), 1024, n);
        let mut out = vec![0.0; BLOCK_ROWS * n];
        let mut scratch = Aligned::default();
        group.throughput(Throughput::Elements((2 * BLOCK_ROWS * 1024 * n) as u64));
        group.bench_function(format!("{BLOCK_ROWS}x1024x{n}"), |bench| {
            bench.iter(|| {
                let a = View::rows(&a, 1024);
                gemm(a, BLOCK_ROWS, &packed, &mut out, n, &mut scratch, &mut Keep);
            });
        });
    }
}

fn network(c: &mut Criterion) {
    let net = Mlp::new(ModelConfig::default().architecture(D), 0).unwrap();
    let z = uniform(BLOCK_ROWS * D);
    let (mut ws, mut e, mut g) = (Workspace::default(), vec![0.0; BLOCK_ROWS], z.clone());
    c.bench_function("mlp energy, one block", |b| {
        b.iter(|| net.energy(&z, D, BLOCK_ROWS, &mut ws, &mut e));
    });
    c.bench_function("mlp input gradient, one block", |b| {
        b.iter(|| {
            net.energy(&z, D, BLOCK_ROWS, &mut ws, &mut e);
            net.input_gradient(BLOCK_ROWS, 1.0, &mut ws, &mut g);
        });
    });
}

fn gaussian(c: &mut Criterion) {
    for k in [10, 100] {
        let prior = prior(k);
        let z = uniform(BLOCK_ROWS * D);
        let mut g = vec![0.0; z.len()];
        let mut scratch = Default::default();
        c.bench_function(&format!("gmm gradient, K = {k}, one block"), |b| {
            b.iter(|| prior.add_gradient(&z, 1.0, &mut g, &mut scratch));
        });
    }
}

fn chain(c: &mut Criterion) {
    let prior = prior(10);
    let net = Mlp::new(ModelConfig::default().architecture(D), 0).unwrap();
    let energy = Energy {
        net: &net,
        prior: &*prior,
        temperature: 1.0,
        temperature_prior: 1e3,
        projection: Projection::new(&*prior, true),
        labels: None,
    };
    let chain = Langevin {
        steps: 1,
        step_size: (1e-4, 1e-5),
        eps: (5e-3, 5e-4),
        precondition: false,
        svgd: false,
    };
    let key = ChainKey { seed: 0, step: 0, block: 0 };
    let mut z = uniform(BLOCK_ROWS * D);
    let mut ws = ChainWorkspace::default();
    c.bench_function("SGLD step, K = 10, one block", |b| {
        b.iter(|| energy.sgld(&chain, key, &mut z, &mut ws));
    });
}

fn noise(c: &mut Criterion) {
    let mut x = vec![0.0; BLOCK_ROWS * D];
    let mut group = c.benchmark_group("noise");
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("normal", |b| {
        b.iter(|| Stream::new(1, Purpose::User, 0, 0).fill_normal(&mut x));
    });
}

fn metrics(c: &mut Criterion) {
    let (id, ood) = (uniform(500_000), uniform(500_000));
    c.bench_function("all metrics, 1 M scores", |b| {
        b.iter(|| heat_ood::metrics::evaluate(&id, &ood).unwrap());
    });
}

criterion_group!(benches, products, network, gaussian, chain, noise, metrics);
criterion_main!(benches);
