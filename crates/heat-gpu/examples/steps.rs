//! Times of a Langevin step and of a loss's gradient at the published shapes, on the processor or a card.
//!
//! `cargo run --release -p heat-gpu --features cuda --example steps -- cuda:0 [tf32|f32] [small]`
//!
//! Prints a line of JSON for each shape: medians of five, in milliseconds. A step is a chain's time divided
//! by its steps, rows brought and taken back included; the first chain, which makes the graph, apart.

use std::sync::Arc;
use std::time::Instant;

use heat_gpu::place::Place;
use heat_gpu::plan::Precision;
use heat_ood::ebm::HeatConfig;
use heat_ood::ebm::engine::{Cpu, Engine, LossBatch};
use heat_ood::ebm::loss::Objective;
use heat_ood::ebm::mlp::{Architecture, Mlp};
use heat_ood::ebm::sampler::{ChainKey, Energy, Langevin, Projection};
use heat_ood::features::FeatureSet;
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::{Fit, GmmConfig, Prior};
use heat_ood::{Result, Silent, TrainingData};

struct Shape {
    name: &'static str,
    rows: usize,
    classes: usize,
    net: Architecture,
}

fn shapes(small: bool) -> Vec<Shape> {
    let net = |input_dim, hidden_dim, n_hidden_layers, tapered: bool| Architecture {
        input_dim,
        hidden_dim,
        n_hidden_layers,
        tied: !tapered,
        tapered,
    };
    if small {
        return vec![Shape { name: "small", rows: 128, classes: 10, net: net(64, 128, 4, false) }];
    }
    vec![
        Shape { name: "CIFAR", rows: 1024, classes: 10, net: net(512, 1024, 4, false) },
        Shape { name: "ImageNet", rows: 256, classes: 1000, net: net(2048, 1024, 6, true) },
    ]
}

fn features(rows: usize, dim: usize, stream: u64) -> Vec<f32> {
    let mut x = vec![0.0; rows * dim];
    Stream::new(1, Purpose::User, stream, 0).fill_normal(&mut x);
    x.iter_mut().for_each(|v| *v = v.abs());
    x
}

/// Of five, in milliseconds.
fn median(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        run()?;
        times.push(1e3 * start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[2])
}

fn measure(shape: &Shape, place: Place, precision: Precision) -> Result<String> {
    let dim = shape.net.input_dim;
    let fitted = 2 * dim.max(shape.classes);
    let x = features(fitted, dim, 0);
    let labels: Vec<u32> = (0..fitted).map(|i| (i % shape.classes) as u32).collect();
    let view = ndarray::ArrayView2::from_shape((fitted, dim), &x).expect("as many as made");
    let data = TrainingData::new(&FeatureSet::from_arrays(view, Some(&labels))?);
    let data = data.with_classes(shape.classes);
    let prior: Arc<dyn Prior> = GmmConfig::default().fit(&data, &mut Silent)?.into_parts().0;
    let engine = place.engine(&HeatConfig::default(), &prior, precision)?;
    let mut engine = engine.unwrap_or_else(|| Box::new(Cpu::default()) as Box<dyn Engine>);
    let mut net = Mlp::new(shape.net, 1)?;
    let chain = Langevin {
        steps: 40,
        step_size: (0.01, 0.001),
        eps: (0.005, 0.0005),
        precondition: false,
        svgd: false,
    };
    let projection = Projection::new(&*prior, true);
    let mut z = features(shape.rows, dim, 1);
    projection.apply(&mut z, dim);
    let mut step = 0;
    let mut sample = |engine: &mut dyn Engine, net: &Mlp| {
        let energy = Energy {
            net,
            prior: &*prior,
            temperature: 1.0,
            temperature_prior: 1e3,
            projection,
            labels: None,
        };
        step += 1;
        let key = ChainKey { seed: 1, step, block: 0 };
        engine.sample(&energy, &chain, key, &mut z)
    };
    let start = Instant::now();
    sample(&mut *engine, &net)?;
    let first = 1e3 * start.elapsed().as_secs_f64();
    let all = median(|| sample(&mut *engine, &net))?;
    let rows = features(3 * shape.rows, dim, 2);
    let batch = LossBatch {
        rows: &rows,
        real: shape.rows,
        temperature: 1.0,
        objective: Objective::ContrastiveDivergence,
        l2_coef: 10.0,
        weight: 1.0,
        dropout: None,
    };
    let mut gradient = vec![0.0; net.parameters().len()];
    engine.loss_gradient(&net, &batch, &mut gradient)?;
    let loss = median(|| engine.loss_gradient(&net, &batch, &mut gradient).map(drop))?;
    // Both with weights that are new each time.
    let both = median(|| {
        net.update(|p| p[0] += 1e-6);
        sample(&mut *engine, &net)?;
        engine.loss_gradient(&net, &batch, &mut gradient).map(drop)
    })?;
    Ok(format!(
        "{{\"shape\": \"{}\", \"device\": \"{place}\", \"precision\": \"{precision}\", \"first_chain_ms\": {first:.2}, \
         \"step_ms\": {:.4}, \"loss_gradient_ms\": {loss:.3}, \"chain_and_gradient_ms\": {both:.3}}}",
        shape.name,
        all / chain.steps as f64
    ))
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let place = args.first().map_or(Ok(Place::Cpu), |text| text.parse())?;
    let precision = args.get(1).map_or(Ok(Precision::Tf32), |text| text.parse())?;
    for shape in shapes(args.iter().any(|a| a == "small")) {
        println!("{}", measure(&shape, place, precision)?);
    }
    Ok(())
}
