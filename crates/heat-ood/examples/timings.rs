//! Times the hot paths on generated data, for the side-by-side scripts in
//! `bench/`: prints one JSON object with seconds per repetition (all of them).
//!
//! `cargo run --release -p heat-ood --features kernels --example timings -- WHAT [key=value]...`
//! with WHAT one of `mlp`, `sgld`, `iteration`, `knn`, `metrics`, `fit`,
//! `product` (of f64 matrices, against which `fit` is judged), and keys
//! `d k batch hidden steps rows queries neighbours reps threads`.

use std::time::Instant;

use heat_ood::Silent;
use heat_ood::ebm::mlp::Mlp;
use heat_ood::ebm::sampler::{ChainKey, Energy, Langevin, Projection};
use heat_ood::ebm::{HeatConfig, ModelConfig, Trainer};
use heat_ood::features::{FeatureSet, Field, Pooling};
use heat_ood::math::kernels::{Moments, product_nt};
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::math::{BLOCK_ROWS, blocks, parallel};
use heat_ood::scorers::{GmmConfig, KnnConfig, Prior, Scorer};
use heat_ood::{Fit, TrainingData};
use ndarray::ArrayView2;
use rayon::prelude::*;

struct Args(Vec<(String, usize)>);

impl Args {
    fn get(&self, key: &str, default: usize) -> usize {
        self.0.iter().rev().find(|(k, _)| k == key).map_or(default, |(_, v)| *v)
    }
}

/// Non-negative rows around K means, like pooled features after a ReLU.
fn features(n: usize, d: usize, k: usize) -> FeatureSet {
    let mut means = vec![0.0; k * d];
    Stream::new(1, Purpose::User, 0, 0).fill_uniform(&mut means, 0.0, 1.0);
    let mut rows = vec![0.0; n * d];
    Stream::new(1, Purpose::User, 1, 0).fill_normal(&mut rows);
    let labels: Vec<u32> = (0..n).map(|i| (i % k) as u32).collect();
    for (row, &l) in rows.chunks_mut(d).zip(&labels) {
        for (v, m) in row.iter_mut().zip(&means[l as usize * d..]) {
            *v = (m + 0.3 * *v).max(0.0);
        }
    }
    let view = ArrayView2::from_shape((n, d), &rows).unwrap();
    FeatureSet::from_arrays(view, Some(&labels)).unwrap()
}

fn time(reps: usize, mut f: impl FnMut()) -> Vec<f64> {
    f();
    let once = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..reps).map(once).collect()
}

fn model(args: &Args) -> ModelConfig {
    ModelConfig {
        hidden_dim: args.get("hidden", 1024),
        steps: args.get("steps", 40),
        ..ModelConfig::default()
    }
}

/// Energies and input gradients of a batch, blocks dealt to all threads.
fn mlp(args: &Args) -> Vec<f64> {
    use rayon::prelude::*;
    let (d, batch) = (args.get("d", 512), args.get("batch", 1024));
    let net = Mlp::new(model(args).architecture(d), 0).unwrap();
    let mut z = vec![0.0; batch * d];
    Stream::new(1, Purpose::User, 0, 0).fill_uniform(&mut z, 0.0, 1.0);
    let mut grad = vec![0.0; z.len()];
    let blocks = batch.div_ceil(BLOCK_ROWS);
    let mut ws: Vec<_> = (0..blocks).map(|_| (Default::default(), vec![0.0; BLOCK_ROWS])).collect();
    time(args.get("reps", 15), || {
        parallel::run(|| {
            z.par_chunks(BLOCK_ROWS * d)
                .zip(grad.par_chunks_mut(BLOCK_ROWS * d))
                .zip(&mut ws)
                .for_each(|((z, grad), (ws, e))| {
                    let n = z.len() / d;
                    net.energy(z, d, n, ws, e);
                    net.input_gradient(n, 1.0, ws, grad);
                });
        });
    })
}

/// One Langevin step with the Gaussian prior, `steps` of them in a chain, each
/// chain started by a draw from the prior: seconds per step.
fn sgld(args: &Args) -> Vec<f64> {
    use heat_ood::ebm::engine::{Cpu, Engine};
    let (d, k, batch) = (args.get("d", 512), args.get("k", 10), args.get("batch", 1024));
    let train = features((4 * k).max(2 * d).max(4096), d, k);
    let prior =
        GmmConfig::default().fit(&TrainingData::new(&train).with_classes(k), &mut Silent).unwrap();
    let model = ModelConfig { steps: args.get("steps", 5), ..model(args) };
    let net = Mlp::new(model.architecture(d), 0).unwrap();
    let energy = Energy {
        net: &net,
        prior: &*prior,
        temperature: 1.0,
        temperature_prior: 1e3,
        projection: Projection::new(&*prior, true),
        labels: None,
    };
    let chain: Langevin = model.langevin();
    let mut start = vec![0.0; batch * d];
    let mut stream = Stream::new(0, Purpose::Proposal, 0, 0);
    prior.sample(&mut stream, None, None, &mut start, &mut Default::default()).unwrap();
    energy.projection.apply(&mut start, d);
    let mut engine = Cpu::default();
    let mut z = start.clone();
    let draw = args.get("draw", 0) == 1;
    let mut scratch = Default::default();
    let times = time(args.get("reps", 15), || {
        if draw {
            prior.sample(&mut stream, None, None, &mut z, &mut scratch).unwrap();
            energy.projection.apply(&mut z, d);
        } else {
            z.copy_from_slice(&start);
        }
        let key = ChainKey { seed: 0, step: 0, block: 0 };
        engine.sample(&energy, &chain, key, &mut z).unwrap();
    });
    times.into_iter().map(|t| t / chain.steps as f64).collect()
}

/// A whole training iteration: proposals, chains, loss gradient, Adam.
fn iteration(args: &Args) -> Vec<f64> {
    let (d, k, batch) = (args.get("d", 512), args.get("k", 10), args.get("batch", 1024));
    let train = features(20 * batch, d, k);
    let prior =
        GmmConfig::default().fit(&TrainingData::new(&train).with_classes(k), &mut Silent).unwrap();
    let mut config =
        HeatConfig { batch_size: batch, n_epochs: usize::MAX, ..HeatConfig::default() };
    config.ebm.model = model(args);
    let mut trainer = Trainer::new(config, prior, &train).unwrap();
    let reps = args.get("reps", 7).min(18);
    parallel::run(|| {
        time(reps, || {
            trainer.propose().unwrap();
            trainer.sample().unwrap();
            trainer.apply().unwrap();
        })
    })
}

fn knn(args: &Args) -> Vec<f64> {
    let (d, rows) = (args.get("d", 512), args.get("rows", 50_000));
    let (queries, k) = (args.get("queries", 5_000), args.get("neighbours", 50));
    let config = KnnConfig { k: Some(k), ..KnnConfig::default() };
    let knn = config.fit(&TrainingData::new(&features(rows, d, 10)), &mut Silent).unwrap();
    let test = features(queries, d, 10);
    time(args.get("reps", 5), || {
        knn.score(&test).unwrap();
    })
}

fn metrics(args: &Args) -> Vec<f64> {
    let n = args.get("rows", 10_000_000) / 2;
    let mut scores = vec![0.0; 2 * n];
    Stream::new(1, Purpose::User, 0, 0).fill_normal(&mut scores);
    let (id, ood) = scores.split_at_mut(n);
    ood.iter_mut().for_each(|v| *v += 1.0);
    time(args.get("reps", 3), || {
        heat_ood::metrics::evaluate(id, ood).unwrap();
    })
}

fn fit(args: &Args) -> Vec<f64> {
    let (d, rows, k) = (args.get("d", 2048), args.get("rows", 20_000), args.get("k", 1000));
    let set = features(rows, d, k);
    time(args.get("reps", 3), || {
        let mut moments = Moments::new(d, k);
        let mut block = vec![0.0; Moments::block_rows(d) * d];
        for range in blocks(rows, Moments::block_rows(d)) {
            let labels = set.labels(range.clone(), k).unwrap();
            let block = &mut block[..range.len() * d];
            set.read_parallel(Field::Features(Pooling::Avg), range, block).unwrap();
            parallel::run(|| moments.update(block, &labels));
        }
    })
}

/// `[rows, d] · [rows, d]ᵀ`-like products of whole matrices, on all threads.
fn product(args: &Args) -> Vec<f64> {
    let (d, rows) = (args.get("d", 2048), args.get("rows", 4096));
    let x: Vec<f64> = (0..d * rows).map(|i| (i % 97) as f64).collect();
    let mut out = vec![0.0; d * d];
    let piece = d.div_ceil(2 * parallel::threads());
    time(args.get("reps", 3), || {
        parallel::run(|| {
            let pieces = out.par_chunks_mut(piece * d).zip(x.par_chunks(piece * rows));
            pieces.for_each(|(out, a)| product_nt(a, &x, out, rows));
        });
    })
}

fn main() {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_default();
    let parse = |w: String| {
        let (k, v) = w.split_once('=').expect("key=value");
        (k.to_owned(), v.parse().expect("a number"))
    };
    let args = Args(words.map(parse).collect());
    if let Some((_, n)) = args.0.iter().find(|(k, _)| k == "threads") {
        parallel::set_threads(*n).unwrap();
    }
    let seconds = match what.as_str() {
        "mlp" => mlp(&args),
        "sgld" => sgld(&args),
        "iteration" => iteration(&args),
        "knn" => knn(&args),
        "metrics" => metrics(&args),
        "fit" => fit(&args),
        "product" => product(&args),
        other => panic!("unknown measurement `{other}`"),
    };
    println!("{}", serde_json::json!({ "what": what, "seconds": seconds }));
}
