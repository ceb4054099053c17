//! Times the hot paths on generated data, for the side-by-side scripts in
//! `bench/`: prints one JSON object with seconds per repetition (all of them).
//!
//! `cargo run --release -p heat-ood --features kernels --example timings -- WHAT [key=value]...`
//! with WHAT one of `mlp`, `sgld`, `iteration`, `knn`, `metrics`, `fit`,
//! `product` (of f64 matrices, against which `fit` is judged), `method` (the
//! fit of a `scorer`) and `row` (one row scored, in a `call` named at
//! [`row`]), and keys
//! `scorer call d k batch hidden steps rows queries neighbours reps threads`.

use std::time::Instant;

use heat_ood::calibrate::Ties;
use heat_ood::ebm::mlp::{Mlp, Workspace};
use heat_ood::ebm::sampler::{ChainKey, Energy, Langevin, Projection};
use heat_ood::ebm::{Heat, HeatConfig, ModelConfig, Trainer};
use heat_ood::features::{Batch, FeatureSet, Field, Head, Pooling};
use heat_ood::math::kernels::{Aligned, Keep, Moments, Packed, View, gemm, product_nt};
use heat_ood::math::parallel::{Pieces, Slices, SlicesMut};
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::math::{BLOCK_ROWS, blocks, parallel};
use heat_ood::scorers::{GmmConfig, KnnConfig, Prior, Scorer, ScorerSpec};
use heat_ood::{Detector, Fit, Fitted, Silent, TrainingData};
use ndarray::ArrayView2;

struct Args(Vec<(String, String)>);

impl Args {
    fn text<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.0.iter().rev().find(|(k, _)| k == key).map_or(default, |(_, v)| v)
    }

    fn get(&self, key: &str, default: usize) -> usize {
        self.text(key, &default.to_string()).parse().expect("a number")
    }
}

fn class_means(d: usize, k: usize) -> Vec<f32> {
    let mut means = vec![0.0; k * d];
    Stream::new(1, Purpose::User, 0, 0).fill_uniform(&mut means, 0.0, 1.0);
    means
}

/// A head that tells classes apart by few columns: it is wrong now and then.
fn head(d: usize, k: usize) -> Head {
    let means = class_means(d, k);
    let weight = means.iter().enumerate().map(|(i, m)| if i % d < 24 { m - 0.5 } else { 0.0 });
    Head::new(weight.collect(), vec![0.0; k]).unwrap()
}

/// Non-negative rows around K means, like pooled features after a ReLU.
fn features(n: usize, d: usize, k: usize) -> FeatureSet {
    let means = class_means(d, k);
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
                .zip(ws.par_iter_mut())
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

/// The fit of a scorer by name.
fn method(args: &Args) -> Vec<f64> {
    let (d, rows, k) = (args.get("d", 2048), args.get("rows", 20_000), args.get("k", 1000));
    let data = TrainingData::new(&features(rows, d, k)).with_classes(k).with_head(&head(d, k));
    let spec = ScorerSpec::parse(args.text("scorer", "temperature")).unwrap();
    time(args.get("reps", 3), || {
        spec.fit(&data, &mut Silent).unwrap();
    })
}

/// One row scored, as a service does: seconds per call. `call` is
/// - `set`: the row made a set, and scored;
/// - `score`: a set of one row scored;
/// - `predict`: the same with components and verdicts;
/// - `batch`: a batch of one row given to the scorer, without set and loop;
/// - `kernel`: the products of `el`, `gmm` or `heat`, and nothing else.
fn row(args: &Args) -> Vec<f64> {
    const CALLS: usize = 200;
    let (d, k, rows) = (args.get("d", 512), args.get("k", 10), args.get("rows", 50_000));
    let (name, call) = (args.text("scorer", "el"), args.text("call", "score"));
    let (head, train) = (head(d, k), features(rows, d, k));
    let data = TrainingData::new(&train).with_classes(k).with_head(&head);
    let gmm = || GmmConfig::default().fit(&data, &mut Silent).unwrap();
    let net = || Mlp::new(model(args).architecture(d), 0).unwrap();
    let scorer: Fitted<dyn Scorer> = match name {
        "heat" => Fitted::unrecorded(Heat::new(gmm(), net(), 1.0, 1e3, d).unwrap()).into(),
        name => ScorerSpec::parse(name).unwrap().fit(&data, &mut Silent).unwrap(),
    };
    let detector = Detector::new(scorer);
    let scorer = detector.scorer();
    let mut values = vec![0.0; d];
    train.read(Field::Features(Pooling::Avg), 1..2, &mut values).unwrap();
    let set = FeatureSet::from_row(&values).unwrap();
    let batch = Batch::of(1, [(Field::Features(Pooling::Avg), values.clone())]).unwrap();
    let mut score = [0.0];
    let mut once: Box<dyn FnMut() + '_> = match (call, name) {
        ("set", _) => Box::new(|| {
            scorer.score(&FeatureSet::from_row(&values).unwrap()).unwrap();
        }),
        ("score", _) => Box::new(|| {
            scorer.score(&set).unwrap();
        }),
        ("predict", _) => Box::new(|| {
            detector.predict(&set, Ties::Conservative, &mut Silent).unwrap();
        }),
        ("batch", _) => Box::new(|| scorer.score_batch(&batch, &mut score)),
        ("kernel", "el") => {
            let weight = Packed::new(View::rows(head.weight(), d).t(), d, k);
            let (mut out, mut scratch) = (vec![0.0; k], Aligned::default());
            let values = &values;
            Box::new(move || {
                let row = View::rows(values, d);
                gemm(row, 1, &weight, &mut out, k, &mut scratch, &mut Keep);
            })
        }
        ("kernel", "gmm" | "heat") => {
            let row: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            let (inverse, means) = (gmm().scale_tril().to_vec(), gmm().means().to_vec());
            let (mut white, mut products) = (vec![0.0; d], vec![0.0; k]);
            let net = (name == "heat").then(net);
            let (mut workspace, mut energy) = (Workspace::default(), [0.0]);
            let values = &values;
            Box::new(move || {
                product_nt(&row, &inverse, &mut white, d);
                product_nt(&white, &means, &mut products, d);
                if let Some(net) = &net {
                    net.energy(values, d, 1, &mut workspace, &mut energy);
                }
            })
        }
        (other, _) => panic!("unknown call `{other}` of `{name}`"),
    };
    let times = time(args.get("reps", 15), || (0..CALLS).for_each(|_| once()));
    times.into_iter().map(|t| t / CALLS as f64).collect()
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
        (k.to_owned(), v.to_owned())
    };
    let args = Args(words.map(parse).collect());
    if args.0.iter().any(|(k, _)| k == "threads") {
        parallel::set_threads(args.get("threads", 1)).unwrap();
    }
    let seconds = match what.as_str() {
        "mlp" => mlp(&args),
        "sgld" => sgld(&args),
        "iteration" => iteration(&args),
        "knn" => knn(&args),
        "metrics" => metrics(&args),
        "fit" => fit(&args),
        "product" => product(&args),
        "method" => method(&args),
        "row" => row(&args),
        other => panic!("unknown measurement `{other}`"),
    };
    println!("{}", serde_json::json!({ "what": what, "seconds": seconds }));
}
