//! Every option of the energy model: against PyTorch where it has a formula,
//! resumed to the byte, on any number of threads, and its refusals.

use crate::common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{D, Golden, close};
use heat_ood::ebm::engine::{Cpu, Engine, LossBatch};
use heat_ood::ebm::mlp::{Architecture, Mlp};
use heat_ood::ebm::sampler::{ChainKey, Energy, Langevin, Projection};
use heat_ood::ebm::{
    HeatConfig, Objective, Outcome, PriorKind, Proposal, RunDirectory, Trainer, checkpoint,
};
use heat_ood::features::{FeatureSet, Head};
use heat_ood::io::{TensorData, TensorFile};
use heat_ood::math::parallel;
use heat_ood::scorers::{GmmConfig, KnnConfig, Prior, Scorer, Scratch, VimConfig};
use heat_ood::{Detector, Event, Fit, Observer, Silent, TrainingData};

/// Written by tests/golden/make_options.py with PyTorch 2.15, in f64.
fn expected(name: &str) -> Vec<f32> {
    let file = TensorFile::open(&common::path("options.safetensors")).unwrap();
    file.f32(name, file.shape(name).unwrap()).unwrap()
}

struct Case {
    golden: Golden,
    prior: Arc<dyn Prior>,
    net: Mlp,
}

impl Case {
    fn new() -> Self {
        let golden = Golden::open();
        let prior =
            GmmConfig::default().fit(&TrainingData::new(&golden.train()), &mut Silent).unwrap();
        let architecture = Architecture {
            input_dim: D,
            hidden_dim: 32,
            n_hidden_layers: 3,
            tied: false,
            tapered: false,
        };
        let net = Mlp::load(architecture, &golden.0, "ebm_gmm_tied.").unwrap();
        Case { golden, prior: prior.scorer().clone(), net }
    }

    fn energy<'a>(&'a self, labels: Option<&'a [u32]>) -> Energy<'a> {
        Energy {
            net: &self.net,
            prior: &*self.prior,
            temperature: 1.0,
            temperature_prior: 1e3,
            projection: Projection::new(&*self.prior, true),
            labels,
        }
    }

    fn rows(&self, name: &str) -> Vec<f32> {
        let mut rows = self.golden.get(&format!("ebm_gmm_tied.{name}"));
        self.energy(None).projection.apply(&mut rows, D);
        rows
    }

    fn sample(&self, labels: Option<&[u32]>, steps: usize, start: f64, svgd: bool) -> Vec<f32> {
        let step_size = (start, start / 10.0);
        let chain = Langevin { steps, step_size, eps: (0.0, 0.0), precondition: false, svgd };
        let key = ChainKey { seed: 0, step: 0, block: 0 };
        let mut z = self.rows("sgld_init");
        Cpu::default().sample(&self.energy(labels), &chain, key, &mut z).unwrap();
        z
    }
}

#[test]
fn class_conditional_chains() {
    let case = Case::new();
    let labels: Vec<u32> = (0..16).map(|i| i % 4).collect();
    let z = case.sample(Some(&labels), 6, 1e-3, false);
    close("conditional", &z, &expected("conditional.sgld"), 1e-4);
}

#[test]
fn stein_particles() {
    let z = Case::new().sample(None, 3, 1e-1, true);
    close("svgd", &z, &expected("svgd"), 1e-4);
}

#[test]
fn noise_contrastive_loss_and_gradient() {
    let case = Case::new();
    let real = case.golden.get("ebm_gmm_tied.train_real");
    let rows = [&real[..], &case.rows("train_proposals")].concat();
    let batch = LossBatch {
        rows: &rows,
        real: real.len() / D,
        temperature: 1.0,
        objective: Objective::NoiseContrastive,
        l2_coef: 10.0,
        weight: 1.0,
        dropout: None,
    };
    let mut grad = vec![0.0; case.net.parameters().len()];
    let v = Cpu::default().loss_gradient(&case.net, &batch, &mut grad).unwrap();
    let got = [v.loss, v.cd, v.l2, v.energy_real, v.energy_generated].map(|v| v as f32);
    close("nce", &got, &expected("nce.log"), 1e-4);
    for (name, tensor) in case.net.split(&grad).iter().filter(|(n, _)| n.ends_with("weight")) {
        let TensorData::F32(values) = &tensor.data else { unreachable!() };
        close(name, values, &expected(&format!("nce.grad.{name}")), 1e-4);
    }
}

/// The gradients of `vim` and `knn` against differences of their energies
/// (over a short way for `knn`, whose neighbours change along it).
#[test]
fn gradients_of_the_other_priors() {
    let golden = Golden::open();
    let (train, head) = (golden.train(), golden.head());
    let data = TrainingData::new(&train).with_head(&head);
    let vim = |c: VimConfig| c.fit(&data, &mut Silent).unwrap().scorer().clone();
    let near = |c: KnnConfig| c.fit(&data, &mut Silent).unwrap().scorer().clone();
    let knn = KnnConfig { k: Some(5), ..KnnConfig::default() };
    let priors: [Arc<dyn Prior>; 4] = [
        vim(VimConfig { principal_dim: Some(8), ..VimConfig::default() }),
        vim(VimConfig { pca: Some(10), normalize: true, ..VimConfig::default() }),
        near(knn.clone()),
        near(KnnConfig { pca: Some(6), ..knn }),
    ];
    for prior in priors {
        let dim = prior.dim();
        let z = prior.steps().apply(&golden.get("test.avg"), D);
        let rows = 8;
        let mut grad = vec![0.0; rows * dim];
        prior.add_gradient(&z[..rows * dim], 2.0, &mut grad, &mut Scratch::default());
        let energy = |z: &[f32]| {
            let mut out = vec![0.0];
            prior.energy(z, &mut out);
            f64::from(out[0])
        };
        for (row, grad) in z.chunks(dim).zip(grad.chunks(dim)) {
            let size = row.iter().map(|v| v.abs()).fold(0.0, f32::max);
            let largest = grad.iter().map(|g| g.abs()).fold(0.0, f32::max);
            for (j, g) in grad.iter().enumerate().step_by(3) {
                let h = if prior.name() == "knn" { 2e-4 } else { 3e-3 } * size;
                let moved = |sign: f32| {
                    let mut z = row.to_vec();
                    z[j] += sign * h;
                    energy(&z)
                };
                let want = 2.0 * (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(h));
                let error = (f64::from(*g) - want).abs() / f64::from(largest);
                assert!(error < 1e-2, "{} {j}: {g} {want}", prior.name());
            }
        }
    }
}

fn data(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../heat-cli/data/cifar10-densenet").join(format!("{name}.safetensors"))
}

fn small() -> HeatConfig {
    let mut config =
        HeatConfig { batch_size: 200, n_epochs: 2, accum_iter: 2, ..HeatConfig::default() };
    let model = &mut config.ebm.model;
    (model.hidden_dim, model.steps, model.train_max_iter) = (48, 3, Some(7));
    config.ebm.optimizer.opt.lr = 1e-3;
    config
}

/// Textures as negatives.
fn against(c: &mut HeatConfig) {
    let model = &mut c.ebm.model;
    (model.proposal_type, model.negatives) = (Proposal::Features, Some(data("ood_textures")));
}

/// Every option, and options that meet.
fn variants() -> Vec<(&'static str, HeatConfig)> {
    let with = |f: fn(&mut HeatConfig)| {
        let mut config = small();
        f(&mut config);
        config
    };
    vec![
        ("spectral", with(|c| c.ebm.model.use_spectral_norm = true)),
        ("pcd", with(|c| (c.ebm.model.use_pcd, c.ebm.model.buffer_size) = (true, 1000))),
        ("svgd", with(|c| c.ebm.model.use_svgd = true)),
        ("nce", with(|c| c.ebm.loss.objective = Objective::NoiseContrastive)),
        ("no chains", with(|c| c.ebm.model.use_sgld = false)),
        ("no prior", with(|c| c.ebm.model.use_base_dist = false)),
        ("tapered", with(|c| (c.ebm.model.reduce_width, c.ebm.model.n_hidden_layers) = (true, 3))),
        ("kmeans", with(|c| c.ebm.model.base_dist.use_kmeans = true)),
        (
            "shrunk",
            with(|c| {
                c.ebm.model.base_dist.shrinkage = heat_ood::scorers::Shrinkage::Ratio(1.0);
                c.ebm.model.precondition = true;
            }),
        ),
        (
            "conditional pcd",
            with(|c| {
                let model = &mut c.ebm.model;
                model.base_dist.use_simplified_mahalanobis_score = true;
                (model.use_pcd, model.buffer_size, model.restart_prob) = (true, 500, 0.2);
            }),
        ),
        (
            "conditional statistics",
            with(|c| {
                let model = &mut c.ebm.model;
                model.base_dist.use_simplified_mahalanobis_score = true;
                model.sample_from_batch_statistics = true;
                model.proposal_type = Proposal::BaseDistTemp;
                (model.use_spectral_norm, model.reduce_width) = (true, true);
            }),
        ),
        (
            "conditional svgd on data",
            with(|c| {
                let model = &mut c.ebm.model;
                model.base_dist.use_simplified_mahalanobis_score = true;
                (model.use_svgd, model.proposal_type) = (true, Proposal::Data);
            }),
        ),
        (
            "vim",
            with(|c| {
                (c.ebm.prior, c.normalize) = (PriorKind::Vim, false);
                c.ebm.model.proposal_type = Proposal::Data;
            }),
        ),
        (
            "knn",
            with(|c| {
                (c.ebm.prior, c.ebm.model.base_dist.k) = (PriorKind::Knn, Some(10));
                c.ebm.model.proposal_type = Proposal::Data;
            }),
        ),
        ("dropout", with(|c| c.ebm.model.dropout = 0.4)),
        ("weight decay", with(|c| c.ebm.optimizer.opt.weight_decay = 0.1)),
        ("standardised", with(|c| c.standardize = true)),
        (
            "standardised, normalised by their spectrum, dropped",
            with(|c| {
                (c.standardize, c.ebm.model.use_spectral_norm) = (true, true);
                (c.ebm.model.dropout, c.ebm.model.reduce_width) = (0.2, true);
            }),
        ),
        ("chains from given rows", with(against)),
        (
            "persistent chains from given rows of principal components",
            with(|c| {
                against(c);
                (c.use_pca, c.pca_n_principal_components) = (true, 20);
                (c.ebm.model.use_pcd, c.ebm.model.buffer_size) = (true, 500);
            }),
        ),
        (
            "residual alone",
            with(|c| {
                against(c);
                (c.standardize, c.ebm.model.use_base_dist) = (true, false);
                (c.ebm.model.dropout, c.ebm.optimizer.opt.weight_decay) = (0.3, 1e-2);
                c.ebm.loss.objective = Objective::NoiseContrastive;
            }),
        ),
    ]
}

struct StopAfter(usize);

impl Observer for StopAfter {
    fn on(&mut self, event: Event<'_>) {
        if matches!(event, Event::Advance { loss: Some(_), .. }) {
            self.0 -= 1;
        }
    }

    fn should_stop(&self) -> bool {
        self.0 == 0
    }
}

fn fit(config: &HeatConfig, train: &FeatureSet) -> Arc<dyn Prior> {
    let head = Head::open(data("head")).unwrap();
    config.fit_prior(&TrainingData::new(train).with_head(&head), &mut Silent).unwrap()
}

/// The last checkpoint of a run that is stopped and resumed after some steps.
fn run(path: &Path, config: &HeatConfig, train: &FeatureSet, stop: Option<usize>) -> Vec<u8> {
    let mut directory = RunDirectory::create(path, "", "d").unwrap();
    let mut trainer = Trainer::new(config.clone(), fit(config, train), train).unwrap();
    if let Some(n) = stop {
        let outcome = directory.train(&mut trainer, &mut StopAfter(n)).unwrap();
        assert_eq!(outcome, Outcome::Stopped);
        drop((directory, trainer));
        let latest = RunDirectory::latest(path).unwrap().unwrap();
        trainer = checkpoint::resume(&latest, config, train, "d").unwrap();
        directory = RunDirectory::open(path, "", "d", Some(&trainer)).unwrap();
        assert_eq!(directory.train(&mut trainer, &mut Silent).unwrap(), Outcome::Finished);
    } else {
        assert_eq!(directory.train(&mut trainer, &mut Silent).unwrap(), Outcome::Finished);
    }
    std::fs::read(path.join("checkpoints/epoch_2.safetensors")).unwrap()
}

#[test]
fn options_resume_to_the_byte_on_any_number_of_threads() {
    let train = FeatureSet::open(data("train")).unwrap();
    let test = FeatureSet::open(data("test")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let plain = {
        let config = small();
        config
            .train(fit(&config, &train), &TrainingData::new(&train), &mut Silent)
            .unwrap()
            .score(&test)
            .unwrap()
    };
    for (name, config) in variants() {
        let at = |tag: &str| directory.path().join(format!("{name} {tag}"));
        let whole = run(&at("whole"), &config, &train, None);
        let resumed = || run(&at("resumed"), &config, &train, Some(5));
        let resumed = parallel::with_threads(3, resumed).unwrap();
        assert!(whole == resumed, "{name}: resumed");
        // The checkpoint scores as the scorer does, and the option does something.
        let heat =
            config.train(fit(&config, &train), &TrainingData::new(&train), &mut Silent).unwrap();
        let scores = heat.score(&test).unwrap();
        let saved = Detector::open(at("whole").join("checkpoints/epoch_2.safetensors")).unwrap();
        assert_eq!(saved.score(&test).unwrap(), scores, "{name}");
        assert!(scores.iter().all(|s| s.is_finite()) && scores != plain, "{name}");
    }
}

#[test]
fn refusals() {
    let train = FeatureSet::open(data("train")).unwrap();
    let head = Head::open(data("head")).unwrap();
    let check = |change: fn(&mut HeatConfig), part: &str| {
        let mut config = small();
        change(&mut config);
        let fitted = config.fit_prior(&TrainingData::new(&train).with_head(&head), &mut Silent);
        let trained = fitted
            .and_then(|p| config.train(p, &TrainingData::new(&train), &mut Silent).map(|_| ()));
        let error = trained.err().unwrap_or_else(|| panic!("{part}")).to_string();
        assert!(error.contains(part), "{error}");
    };
    check(|c| c.ebm.model.restart_prob = 1.5, "a fraction lies between 0 and 1");
    check(|c| (c.ebm.model.use_pcd, c.ebm.model.buffer_size) = (true, 0), "buffer_size");
    check(|c| (c.ebm.model.use_pcd, c.ebm.model.buffer_size) = (true, usize::MAX), "buffer_size");
    check(|c| (c.ebm.model.use_pcd, c.ebm.model.steps) = (true, 0), "no chains to go on");
    check(|c| (c.ebm.model.use_svgd, c.ebm.model.precondition) = (true, true), "Langevin");
    check(
        |c| (c.ebm.loss.objective, c.ebm.model.use_pcd) = (Objective::NoiseContrastive, true),
        "are the proposals",
    );
    check(
        |c| {
            c.ebm.model.base_dist.use_simplified_mahalanobis_score = true;
            c.ebm.model.base_dist.use_kmeans = true;
        },
        "clusters",
    );
    check(
        |c| {
            c.ebm.model.base_dist.use_simplified_mahalanobis_score = true;
            c.ebm.model.precondition = true;
        },
        "whole mixture",
    );
    check(
        |c| {
            (c.ebm.prior, c.ebm.model.sample_from_batch_statistics) = (PriorKind::Knn, true);
            c.ebm.model.proposal_type = Proposal::Data;
        },
        "draw components",
    );
    check(|c| c.ebm.prior = PriorKind::Knn, "not a distribution that can be sampled");
    check(|c| c.ebm.model.base_dist.k = Some(5), "is a setting of the `knn` prior, not of `gmm`");
    check(|c| c.ebm.model.base_dist.principal_dim = Some(5), "of the `vim` prior");
    check(
        |c| {
            (c.ebm.prior, c.normalize) = (PriorKind::Vim, false);
            c.ebm.model.base_dist.use_kmeans = true;
        },
        "of the `gmm` prior, not of `vim`",
    );
    check(
        |c| {
            c.ebm.model.base_dist.shrinkage = heat_ood::scorers::Shrinkage::Ratio(-1.0);
        },
        "a ratio is a number ≥ 0",
    );
    check(|c| c.ebm.model.dropout = 1.0, "at least 0 and less than 1");
    check(|c| c.ebm.optimizer.opt.weight_decay = -1.0, "must be a number ≥ 0");
    check(
        |c| c.ebm.model.negatives = Some(data("test")),
        "only `ebm.model.proposal_type=features`",
    );
    check(|c| c.ebm.model.proposal_type = Proposal::Features, "needs rows to draw from");
}
