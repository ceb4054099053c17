//! The energy model against the published implementation: energies, input
//! gradients, chains, first gradients, ten training steps.

use crate::common;

use std::sync::Arc;

use common::{C, D, Golden, close};
use heat_ood::Silent;
use heat_ood::ebm::Heat;
use heat_ood::ebm::engine::{Cpu, Engine, LossBatch};
use heat_ood::ebm::mlp::{Architecture, Mlp};
use heat_ood::ebm::optim::Adam;
use heat_ood::ebm::sampler::{ChainKey, ChainWorkspace, Energy, Langevin, Projection};
use heat_ood::io::TensorData;
use heat_ood::scorers::{EnergyLogitsConfig, GmmConfig, Prior, Scorer};
use heat_ood::{Fit, TrainingData};

const TOLERANCE: f64 = 1e-4;
/// After ten training steps, as METHOD asks.
const TRAINED: f64 = 1e-3;

struct Case {
    name: &'static str,
    prior: Arc<dyn Prior>,
    architecture: Architecture,
    temperature: f64,
    temperature_prior: f64,
    step_size: (f64, f64),
}

fn cases(golden: &Golden) -> Vec<Case> {
    let train = golden.train();
    let data = TrainingData::new(&train).with_classes(C);
    let gmm: Arc<dyn Prior> =
        GmmConfig::default().fit(&data, &mut Silent).unwrap().scorer().clone();
    let el = EnergyLogitsConfig::default()
        .fit(&TrainingData::new(&train).with_head(&golden.head()), &mut Silent)
        .unwrap();
    let architecture = |n_hidden_layers, tapered: bool| Architecture {
        input_dim: D,
        hidden_dim: 32,
        n_hidden_layers,
        tied: !tapered,
        tapered,
    };
    vec![
        Case {
            name: "ebm_gmm_tied",
            prior: gmm.clone(),
            architecture: architecture(3, false),
            temperature: 1.0,
            temperature_prior: 1e3,
            step_size: (1e-3, 1e-4),
        },
        Case {
            name: "ebm_el_tied",
            prior: el.scorer().clone(),
            architecture: architecture(2, false),
            temperature: 0.5,
            temperature_prior: 1.0,
            step_size: (1e-2, 1e-3),
        },
        Case {
            name: "ebm_gmm_tapered",
            prior: gmm,
            architecture: architecture(2, true),
            temperature: 1.0,
            temperature_prior: 5e3,
            step_size: (1e-3, 1e-4),
        },
    ]
}

impl Case {
    fn net(&self, golden: &Golden) -> Mlp {
        Mlp::load(self.architecture, &golden.0, &format!("{}.", self.name)).unwrap()
    }

    fn get(&self, golden: &Golden, what: &str) -> Vec<f32> {
        golden.get(&format!("{}.{what}", self.name))
    }

    fn energy<'a>(&'a self, net: &'a Mlp) -> Energy<'a> {
        Energy {
            net,
            prior: &*self.prior,
            temperature: self.temperature,
            temperature_prior: self.temperature_prior,
            projection: Projection::new(&*self.prior, true),
            labels: None,
        }
    }

    fn chain(&self) -> Langevin {
        Langevin {
            steps: 6,
            step_size: self.step_size,
            eps: (0.0, 0.0),
            precondition: false,
            svgd: false,
        }
    }
}

const KEY: ChainKey = ChainKey { seed: 0, step: 0, block: 0 };

#[test]
fn energies_and_input_gradients() {
    let golden = Golden::open();
    for case in cases(&golden) {
        let net = case.net(&golden);
        let heat =
            Heat::new(case.prior.clone(), net.clone(), case.temperature, case.temperature_prior, D)
                .unwrap();
        let test = golden.set("test.avg");
        let energy = heat.score(&test).unwrap();
        close(case.name, &energy, &case.get(&golden, "energy"), TOLERANCE);
        let parts = heat.score_components(&test).unwrap();
        let part = |i: usize| parts.chunks(2).map(|p| p[i]).collect::<Vec<_>>();
        close(case.name, &part(0), &case.get(&golden, "energy_nn"), TOLERANCE);
        close(case.name, &part(1), &case.get(&golden, "energy_prior"), TOLERANCE);
        let z = case.prior.steps().apply(&golden.get("test.avg"), D);
        let mut grad = vec![0.0; z.len()];
        case.energy(&net).gradient(&z, &mut grad, &mut ChainWorkspace::default());
        close(case.name, &grad, &case.get(&golden, "energy_grad"), TOLERANCE);
    }
}

#[test]
fn noise_free_chains() {
    let golden = Golden::open();
    for case in cases(&golden) {
        let net = case.net(&golden);
        let energy = case.energy(&net);
        let mut initial = case.get(&golden, "sgld_init");
        energy.projection.apply(&mut initial, D);
        let mut z = initial.clone();
        energy.sgld(&case.chain(), KEY, &mut z, &mut ChainWorkspace::default());
        z.extend(initial);
        close(case.name, &z, &case.get(&golden, "sgld_negatives"), TOLERANCE);
    }
}

#[test]
fn first_gradients_and_ten_training_steps() {
    let golden = Golden::open();
    for case in cases(&golden) {
        let mut net = case.net(&golden);
        let real = case.get(&golden, "train_real");
        let mut initial = case.get(&golden, "train_proposals");
        Projection::new(&*case.prior, true).apply(&mut initial, D);
        let mut engine = Cpu::default();
        let mut adam = Adam::new([0.0, 0.999], net.parameters().len());
        let log = case.get(&golden, "train_log");
        for step in 0..10 {
            let mut z = initial.clone();
            engine.sample(&case.energy(&net), &case.chain(), KEY, &mut z).unwrap();
            let rows = [&real[..], &z, &initial].concat();
            let batch = LossBatch {
                rows: &rows,
                real: real.len() / D,
                temperature: case.temperature,
                objective: Default::default(),
                l2_coef: 10.0,
                weight: 1.0,
                dropout: None,
            };
            let mut grad = vec![0.0; net.parameters().len()];
            let v = engine.loss_gradient(&net, &batch, &mut grad).unwrap();
            if step == 0 {
                for (name, tensor) in net.split(&grad) {
                    let TensorData::F32(values) = &tensor.data else { unreachable!() };
                    let want = case.get(&golden, &format!("grad0.{name}"));
                    close(&format!("{} {name}", case.name), values, &want, TOLERANCE);
                }
            }
            let got = [v.loss, v.cd, v.l2, v.energy_real, v.energy_generated].map(|v| v as f32);
            let tolerance = if step == 0 { TOLERANCE } else { TRAINED };
            close(&format!("{} step {step}", case.name), &got, &log[step * 5..][..5], tolerance);
            let lr = if step < 6 { 1e-3 } else { 1e-4 };
            net.update(|p| adam.step(p, &grad, lr));
        }
        for (name, tensor) in net.tensors() {
            let TensorData::F32(values) = &tensor.data else { unreachable!() };
            let after = name.replacen("mlp.", "mlp_after10.", 1);
            close(&format!("{} {name}", case.name), values, &case.get(&golden, &after), TRAINED);
        }
    }
}
