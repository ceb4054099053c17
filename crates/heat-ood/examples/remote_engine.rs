//! Chains that run elsewhere: an [`Engine`] of one's own.
//!
//! Two workers take half of the row blocks each. A block of chains is a pure
//! function of weights, seed, step and block number, so the result is the same
//! to the bit as on one processor. A worker on another machine needs what
//! `sample` is given: the network's parameters (new at each step), the prior,
//! temperatures and projection (the same throughout), the key and its rows. A
//! worker that does not answer is an error, which ends the run (it goes on from
//! its last checkpoint), or loses nothing: `Cpu` computes the same rows.
//!
//! `cargo run --release -p heat-ood --example remote_engine`

use std::thread;

use heat_ood::ebm::engine::{Cpu, Engine, LossBatch};
use heat_ood::ebm::loss::LossValues;
use heat_ood::ebm::mlp::Mlp;
use heat_ood::ebm::sampler::{ChainKey, Energy, Langevin};
use heat_ood::ebm::{HeatConfig, Trainer};
use heat_ood::features::FeatureSet;
use heat_ood::math::{BLOCK_ROWS, parallel};
use heat_ood::{Result, Silent, TrainingData};

#[derive(Default)]
struct TwoWorkers {
    workers: [Cpu; 2],
    here: Cpu,
}

/// One worker: a thread with a pool of its own.
fn work(
    cpu: &mut Cpu,
    energy: &Energy<'_>,
    chain: &Langevin,
    key: ChainKey,
    z: &mut [f32],
) -> Result<()> {
    parallel::with_threads(1, || cpu.sample(energy, chain, key, z))?
}

impl Engine for TwoWorkers {
    fn sample(
        &mut self,
        energy: &Energy<'_>,
        chain: &Langevin,
        key: ChainKey,
        z: &mut [f32],
    ) -> Result<()> {
        let dim = energy.prior.dim();
        // Only whole blocks can be dealt out.
        let first = (z.len() / dim).div_ceil(BLOCK_ROWS) / 2;
        let (near, far) = z.split_at_mut(first * BLOCK_ROWS * dim);
        let far_key = ChainKey { block: key.block + first as u64, ..key };
        let [a, b] = &mut self.workers;
        thread::scope(|scope| {
            let near = scope.spawn(|| work(a, energy, chain, key, near));
            let far = scope.spawn(|| work(b, energy, chain, far_key, far));
            [near, far].into_iter().try_for_each(|w| w.join().expect("a worker does not panic"))
        })
    }

    fn loss_gradient(
        &mut self,
        net: &Mlp,
        batch: &LossBatch<'_>,
        grad: &mut [f32],
    ) -> Result<LossValues> {
        self.here.loss_gradient(net, batch, grad)
    }
}

/// Train on one processor and on two workers, and compare.
pub fn main() -> Result<()> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-cli/data/cifar10-densenet");
    let train = FeatureSet::open(format!("{directory}/train.safetensors"))?;
    // 300 rows are five blocks, the last one incomplete.
    let mut config = HeatConfig { batch_size: 300, n_epochs: 1, ..HeatConfig::default() };
    config.ebm.model.hidden_dim = 64;
    config.ebm.model.steps = 5;
    let prior = config.fit_prior(&TrainingData::new(&train), &mut Silent)?;
    let run = |engine: Box<dyn Engine>| -> Result<Vec<f32>> {
        let trainer = Trainer::new(config.clone(), prior.clone(), &train)?;
        let mut trainer = trainer.with_engine(engine);
        trainer.run(&mut Silent)?;
        Ok(trainer.net().parameters().to_vec())
    };
    let here = run(Box::<Cpu>::default())?;
    let there = run(Box::<TwoWorkers>::default())?;
    assert!(here == there, "two workers must give the same bits");
    println!("{} weights trained on two workers: the same bits as on one", there.len());
    Ok(())
}
