//! Noise, preconditioning and logged energies against numbers found by hand.
//!
//! The Gaussian has mean 0, Σ = [[2, 1], [1, 1]], so Σ⁻¹ = [[1, −1], [−1, 2]]
//! and L = [[√2, 0], [1/√2, 1/√2]]. Networks are zero where they would disturb.

use std::sync::Arc;

use heat_ood::ebm::mlp::{Architecture, Mlp};
use heat_ood::ebm::sampler::{ChainKey, ChainWorkspace, Energy, Langevin, Projection};
use heat_ood::ebm::{HeatConfig, Objective, PriorKind, Proposal, Trainer};
use heat_ood::features::{FeatureSet, Head};
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::{Gmm, GmmConfig, Prior, Scratch};
use heat_ood::{EpochLog, Fit, Fitted, Silent, TrainingData};
use ndarray::{Array2, ArrayView2, aview2};

fn gaussian() -> Fitted<Gmm> {
    let rows = [[2.0f32, 1.0], [-2.0, -1.0], [0.0, 1.0], [0.0, -1.0]];
    let set = FeatureSet::from_arrays(aview2(&rows), Some(&[0; 4])).unwrap();
    let config = GmmConfig { normalize: false, ..GmmConfig::default() };
    config.fit(&TrainingData::new(&set).with_classes(1), &mut Silent).unwrap()
}

/// −(z₁ + 2z₂ + 0.5): the energy of a head of one class.
fn linear(train: &FeatureSet) -> Arc<dyn Prior> {
    let head = Head::new(vec![1.0, 2.0], vec![0.5]).unwrap();
    let mut config = HeatConfig::default();
    (config.normalize, config.ebm.prior) = (false, PriorKind::El);
    config.fit_prior(&TrainingData::new(train).with_head(&head), &mut Silent).unwrap()
}

fn zero() -> Mlp {
    let architecture = Architecture {
        input_dim: 2,
        hidden_dim: 4,
        n_hidden_layers: 1,
        tied: true,
        tapered: false,
    };
    let mut net = Mlp::new(architecture, 0).unwrap();
    net.update(|p| p.fill(0.0));
    net
}

fn energy<'a>(net: &'a Mlp, prior: &'a dyn Prior, temperature_prior: f64) -> Energy<'a> {
    let projection = Projection::default();
    Energy { net, prior, temperature: 1.0, temperature_prior, projection, labels: None }
}

fn chain(steps: usize, step_size: (f64, f64), eps: (f64, f64), precondition: bool) -> Langevin {
    Langevin { steps, step_size, eps, precondition, svgd: false }
}

const KEY: ChainKey = ChainKey { seed: 9, step: 5, block: 3 };

/// The noise of step `t`.
fn noise(t: u64, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    Stream::new(KEY.seed, Purpose::Langevin, KEY.step, KEY.block << 32 | t).fill_normal(&mut out);
    out
}

fn close(got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((f64::from(*g) - w).abs() <= 1e-6 * w.abs().max(1.0), "{got:?} {want:?}");
    }
}

/// Two steps of z ← Π(z − λ_t ∇E − σ_t ε) with ∇E = −(1, 2)/4. The second has
/// (start − end)/4 + end: λ = 0.8 then 0.44, σ = 0.4 then 0.16.
#[test]
fn steps_with_known_noise() {
    let rows = Array2::<f32>::ones((4, 2));
    let train = FeatureSet::from_arrays(rows.view(), None).unwrap();
    let (net, prior) = (zero(), linear(&train));
    let energy = energy(&net, &*prior, 4.0);
    let start = [0.3f32, -0.2, 1.5, 0.7, -1.0, 2.0];
    let chain = chain(2, (0.8, 0.32), (0.4, 0.08), false);
    for projection in
        [Projection::default(), Projection { relu: true, normalize: true, halves: false }]
    {
        let mut z = start;
        let energy = Energy { projection, ..energy };
        energy.sgld(&chain, KEY, &mut z, &mut ChainWorkspace::default());
        let mut want = start.map(f64::from);
        for (t, lambda, sigma) in [(0, 0.8, 0.4), (1, 0.44, 0.16)] {
            let noise = noise(t, 6);
            for (i, row) in want.chunks_mut(2).enumerate() {
                for (j, v) in row.iter_mut().enumerate() {
                    *v += lambda * (j + 1) as f64 / 4.0 - sigma * f64::from(noise[2 * i + j]);
                }
                if projection.relu {
                    row.iter_mut().for_each(|v| *v = v.max(0.0));
                    let norm = row[0].hypot(row[1]).max(1e-12);
                    row.iter_mut().for_each(|v| *v /= norm);
                }
            }
        }
        close(&z, &want);
    }
}

/// 20,000 chains of 60 steps: the covariance of rows against the law, whose
/// standard error is √((V_ii V_jj + V_ij²)/n).
fn stationary(precondition: bool, want: [[f64; 2]; 2]) {
    const ROWS: usize = 20_000;
    let (net, prior) = (zero(), gaussian());
    let mut z = vec![0.0; 2 * ROWS];
    energy(&net, &*prior, 1.0).sgld(
        &chain(60, (0.5, 0.5), (0.5, 0.5), precondition),
        KEY,
        &mut z,
        &mut ChainWorkspace::default(),
    );
    let n = ROWS as f64;
    let mean = |f: &dyn Fn(&[f32]) -> f64| z.chunks(2).map(f).sum::<f64>() / n;
    for i in 0..2 {
        let bound = 5.0 * (want[i][i] / n).sqrt();
        assert!(mean(&|r| f64::from(r[i])).abs() < bound, "mean {i}");
        for j in 0..=i {
            let got = mean(&|r| f64::from(r[i]) * f64::from(r[j]));
            let error = ((want[i][i] * want[j][j] + want[i][j].powi(2)) / n).sqrt();
            assert!((got - want[i][j]).abs() < 5.0 * error, "{i} {j}: {got} {}", want[i][j]);
        }
    }
}

/// V = AVA + σ²I with A = I − λΣ⁻¹ = [[½, ½], [½, 0]], so V = σ²(I − A²)⁻¹;
/// λ = σ = ½. (The continuous limit, σ²/(2λ)·Σ, is another: [[½, ¼], [¼, ¼]].)
#[test]
fn chains_reach_the_law_of_the_discretised_dynamics() {
    stationary(false, [[0.6, 0.2], [0.2, 0.4]]);
}

/// V = (1 − λ)²V + σ²Σ, so V = Σ/3.
#[test]
fn preconditioned_chains_have_the_covariance_of_the_prior() {
    stationary(true, [[2.0 / 3.0, 1.0 / 3.0], [1.0 / 3.0, 1.0 / 3.0]]);
}

/// λΣg + σLε with g = (1, 2), ε = (1, −1): Σg = (4, 3), Lε = (√2, 0).
#[test]
fn preconditioned_step_by_hand() {
    let prior = gaussian();
    let mut gradient = [1.0, 2.0];
    let noise = [1.0, -1.0];
    assert!(prior.whitened_step(&mut gradient, 0.5, &noise, 0.1, &mut Scratch::default()));
    close(&gradient, &[2.0 + 0.1 * 2f64.sqrt(), 1.5]);
}

/// One step from z = (3, 1): ΣΣ⁻¹z/T = z/T, T = 2.
#[test]
fn preconditioned_chain_by_hand() {
    let (net, prior) = (zero(), gaussian());
    let mut z = [3.0, 1.0];
    let chain = chain(1, (0.4, 0.0), (0.3, 0.0), true);
    energy(&net, &*prior, 2.0).sgld(&chain, KEY, &mut z, &mut ChainWorkspace::default());
    let e: Vec<f64> = noise(0, 2).into_iter().map(f64::from).collect();
    let root = 2f64.sqrt();
    close(&z, &[3.0 * 0.8 - 0.3 * root * e[0], 0.8 - 0.3 * (e[0] + e[1]) / root]);
}

/// One batch of four rows (1, 1), on which the linear prior is −3.5.
fn logged(change: impl Fn(&mut HeatConfig)) -> EpochLog {
    let rows = [1.0f32; 8];
    let train = FeatureSet::from_arrays(ArrayView2::from_shape((4, 2), &rows).unwrap(), None);
    let train = train.unwrap();
    let mut config = HeatConfig { batch_size: 4, n_epochs: 1, ..HeatConfig::default() };
    (config.normalize, config.ebm.prior, config.ebm.loss.eps_data) = (false, PriorKind::El, 0.0);
    let model = &mut config.ebm.model;
    (model.hidden_dim, model.n_hidden_layers, model.proposal_type) = (8, 1, Proposal::Data);
    // One step of 0.5 without noise.
    (model.steps, model.step_size_start, model.eps_start) = (1, 0.5, 0.0);
    model.temperature_prior = 2.0;
    change(&mut config);
    let mut trainer = Trainer::new(config, linear(&train), &train).unwrap();
    trainer.run(&mut Silent).unwrap();
    trainer.state().history[0].clone()
}

/// The network is all but switched off by its temperature. The step goes to
/// (1, 1) + 0.5·(1, 2)/2 = (1.25, 1.5), where the prior is −4.75; generated
/// rows are these and the initial ones. All divided by T_prior = 2.
#[test]
fn logged_energies_by_hand() {
    let of = |objective: Objective, svgd: bool| {
        let log = logged(|c| {
            (c.ebm.loss.objective, c.ebm.model.use_svgd) = (objective, svgd);
            c.ebm.model.temperature = 1e30;
        });
        assert_eq!(log.energy_prior_real, -1.75);
        assert_eq!(log.energy_real, log.energy_prior_real + log.energy_nn_real);
        assert!((log.energy_generated - log.energy_prior_generated).abs() < 1e-20);
        log.energy_prior_generated
    };
    assert_eq!(of(Objective::ContrastiveDivergence, false), -(1.75 + 2.375) / 2.0);
    // Proposals alone; no step is taken.
    assert_eq!(of(Objective::NoiseContrastive, false), -1.75);
    // Final samples alone. Particles that coincide have a kernel of ones and no repulsion: the
    // mean gradient is that of each.
    assert_eq!(of(Objective::ContrastiveDivergence, true), -2.375);
}

/// What is trained is what is logged: with both, their sum; without the prior,
/// the network alone.
#[test]
fn the_whole_energy_is_that_of_the_chains() {
    let both = logged(|_| {});
    assert!(both.energy_nn_real.abs() > 1e-3);
    assert_eq!(both.energy_real, both.energy_nn_real - 1.75);
    assert_eq!(both.energy_generated, both.energy_nn_generated + both.energy_prior_generated);
    let alone = logged(|c| c.ebm.model.use_base_dist = false);
    assert_eq!((alone.energy_prior_real, alone.energy_prior_generated), (0.0, 0.0));
    assert_eq!(alone.energy_real, alone.energy_nn_real);
    assert_eq!(alone.energy_generated, alone.energy_nn_generated);
}
