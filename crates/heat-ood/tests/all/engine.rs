//! Training spread out: chains on other workers, gradients averaged between
//! trainers.

use std::sync::{Arc, Barrier, Mutex};

use heat_ood::ebm::{HeatConfig, Trainer};
use heat_ood::features::FeatureSet;
use heat_ood::math::parallel;
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::{GmmConfig, Prior};
use heat_ood::{Error, Fit, Silent, TrainingData};
use ndarray::Array2;

#[path = "../../examples/remote_engine.rs"]
mod remote_engine;

#[test]
fn two_workers_give_the_same_bits_as_one() {
    remote_engine::main().unwrap();
}

/// 450 rows of 12 dimensions and 3 classes.
fn rows(seed: u64) -> FeatureSet {
    let mut values = vec![0.0; 450 * 12];
    Stream::new(seed, Purpose::Input, 0, 0).fill_normal(&mut values);
    let rows = Array2::from_shape_fn((450, 12), |(i, j)| {
        (values[i * 12 + j] + if j == i % 3 { 3.0 } else { 1.0 }).abs()
    });
    let labels: Vec<u32> = (0..450).map(|i| i % 3).collect();
    FeatureSet::from_arrays(rows.view(), Some(&labels)).unwrap()
}

/// 9 batches an epoch, 5 optimiser steps.
fn config() -> HeatConfig {
    let mut config =
        HeatConfig { batch_size: 50, n_epochs: 2, accum_iter: 2, ..HeatConfig::default() };
    config.ebm.model.hidden_dim = 16;
    config.ebm.model.steps = 2;
    config.ebm.optimizer.opt.lr = 1e-3;
    config
}

fn prior(set: &FeatureSet) -> Arc<dyn Prior> {
    let fitted = GmmConfig::default().fit(&TrainingData::new(set), &mut Silent).unwrap();
    fitted.scorer().clone()
}

/// The weights after a run, with what the hook does.
fn trained<H>(set: &FeatureSet, prior: &Arc<dyn Prior>, hook: H) -> heat_ood::Result<Vec<f32>>
where
    H: FnMut(&mut [f32]) -> heat_ood::Result<()> + Send + 'static,
{
    let mut trainer =
        Trainer::new(config(), prior.clone(), set)?.with_gradient_hook(Box::new(hook));
    parallel::with_threads(1, || trainer.run(&mut Silent))??;
    Ok(trainer.net().parameters().to_vec())
}

/// The mean over two threads, as an all-reduce gives it.
struct Mean {
    sum: Mutex<Vec<f32>>,
    barrier: Barrier,
}

impl Mean {
    fn of(&self, gradient: &mut [f32]) {
        {
            let mut sum = self.sum.lock().unwrap();
            sum.resize(gradient.len(), 0.0);
            sum.iter_mut().zip(&*gradient).for_each(|(s, g)| *s += g);
        }
        self.barrier.wait();
        gradient.iter_mut().zip(&*self.sum.lock().unwrap()).for_each(|(g, s)| *g = s / 2.0);
        if self.barrier.wait().is_leader() {
            self.sum.lock().unwrap().clear();
        }
        self.barrier.wait();
    }
}

#[test]
fn trainers_whose_gradients_are_averaged_stay_in_step() {
    let (a, b) = (rows(1), rows(2));
    let prior = prior(&a);
    let mean = Arc::new(Mean { sum: Mutex::default(), barrier: Barrier::new(2) });
    let together = |set: &FeatureSet| {
        let mean = mean.clone();
        trained(set, &prior, move |gradient| {
            mean.of(gradient);
            Ok(())
        })
        .unwrap()
    };
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| together(&a));
        let second = scope.spawn(|| together(&b));
        (first.join().unwrap(), second.join().unwrap())
    });
    assert!(first == second);
    let alone = |set| trained(set, &prior, |_| Ok(())).unwrap();
    assert!(first != alone(&a) && first != alone(&b));
}

#[test]
fn the_hook_is_called_once_an_optimiser_step_and_may_fail() {
    let set = rows(1);
    let prior = prior(&set);
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let hooked = trained(&set, &prior, move |_| {
        *counted.lock().unwrap() += 1;
        Ok(())
    });
    assert_eq!(*calls.lock().unwrap(), 10);
    let mut plain = Trainer::new(config(), prior.clone(), &set).unwrap();
    plain.run(&mut Silent).unwrap();
    assert!(hooked.unwrap() == plain.net().parameters());
    let failed = trained(&set, &prior, |_| Err(Error::config("peer", 1, "does not answer")));
    assert!(failed.unwrap_err().to_string().contains("does not answer"));
}
