//! A residual trained against given rows: against PyTorch, what dropout does, what the trainer puts together,
//! what it refuses.

use crate::common;

use std::path::Path;

use common::{D, Golden, close};
use heat_ood::ebm::engine::{Cpu, Engine, LossBatch};
use heat_ood::ebm::mlp::{Architecture, Dropout, Mlp};
use heat_ood::ebm::optim::Adam;
use heat_ood::ebm::{
    Heat, HeatConfig, Negatives, Objective, Outcome, Proposal, RunDirectory, Trainer, checkpoint,
    torch,
};
use heat_ood::features::{FeatureSet, Origin};
use heat_ood::io::{Tensor, TensorData, TensorFile, save_tensors};
use heat_ood::math::parallel;
use heat_ood::recipe::{Recipe, names};
use heat_ood::scorers::Scorer;
use heat_ood::{Detector, Event, Fitted, Observer, Silent, TrainingData};
use ndarray::Array2;

/// Written by tests/golden/make_residual.py.
struct Expected(TensorFile);

impl Expected {
    fn open() -> Self {
        Expected(TensorFile::open(&common::path("residual.safetensors")).unwrap())
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.0.f32(name, self.0.shape(name).unwrap()).unwrap()
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        self.0.f64(name, self.0.shape(name).unwrap()).unwrap()
    }
}

fn energies(net: &Mlp, rows: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; rows.len() / D];
    net.energy(rows, D, out.len(), &mut Default::default(), &mut out);
    out
}

/// Standardised inputs, the noise-contrastive loss, AdamW: ten steps as PyTorch takes them.
#[test]
fn ten_steps_as_pytorch_takes_them() {
    let (golden, expected) = (Golden::open(), Expected::open());
    let architecture = Architecture {
        input_dim: D,
        hidden_dim: 32,
        n_hidden_layers: 3,
        tied: false,
        tapered: false,
    };
    let net = Mlp::load(architecture, &golden.0, "ebm_gmm_tied.").unwrap();
    let mut net = net.with_standardised_inputs(expected.f64("mean"), expected.f64("deviation"));
    let real = golden.get("ebm_gmm_tied.train_real");
    let rows = [&real[..], &golden.get("ebm_gmm_tied.train_proposals")].concat();
    let mut adam = Adam::new([0.9, 0.999], net.parameters().len()).with_weight_decay(2.0);
    let log = expected.f32("log");
    for step in 0..10 {
        let batch = LossBatch {
            rows: &rows,
            real: real.len() / D,
            temperature: 1.0,
            objective: Objective::NoiseContrastive,
            l2_coef: 0.05,
            weight: 1.0,
            dropout: None,
        };
        let mut grad = vec![0.0; net.parameters().len()];
        let v = Cpu::default().loss_gradient(&net, &batch, &mut grad).unwrap();
        net.through_parameters(&mut grad);
        let got = [v.loss, v.cd, v.l2, v.energy_real, v.energy_generated].map(|v| v as f32);
        close(&format!("step {step}"), &got, &log[step * 5..][..5], 1e-4);
        let lr = if step < 6 { 1e-3 } else { 1e-4 };
        net.update(|p| adam.step(p, &grad, lr));
    }
    for (name, tensor) in net.split(net.parameters()) {
        let TensorData::F32(values) = &tensor.data else { unreachable!() };
        close(&name, values, &expected.f32(&name), 1e-3);
    }
    // The network that is kept reads plain features.
    let baked = net.baked();
    assert_ne!(baked.parameters(), net.parameters());
    for net in [&net, &baked] {
        close("energies", &energies(net, &rows), &expected.f32("energies"), 1e-4);
    }
}

/// One hidden layer of ones above a zero weight: each row's energy is the number of activations that are
/// kept times 1/(1 − p).
#[test]
fn dropout_keeps_the_mean() {
    const H: usize = 300;
    const ROWS: usize = 1000;
    let architecture = Architecture {
        input_dim: 1,
        hidden_dim: H,
        n_hidden_layers: 0,
        tied: false,
        tapered: false,
    };
    let mut net = Mlp::new(architecture, 0).unwrap();
    // Weight 0 and bias 1 of each unit, weight 1 above, bias 0.
    net.update(|p| {
        p.fill(1.0);
        p[..H].fill(0.0);
        p[3 * H] = 0.0;
    });
    for probability in [0.1, 0.5, 0.9] {
        let energies = |seed, step| {
            let dropout = Some(Dropout { probability, seed, step });
            let mut out = vec![0.0; ROWS];
            net.forward_all(&[0.0; ROWS], ROWS, dropout, &mut Default::default(), &mut out);
            out
        };
        let kept: Vec<f64> =
            energies(0, 0).iter().map(|e| f64::from(*e) * (1.0 - probability)).collect();
        assert!(kept.iter().all(|k| (k - k.round()).abs() < 1e-3), "{probability}");
        let n = (H * ROWS) as f64;
        let fraction = kept.iter().sum::<f64>() / n;
        let error = (probability * (1.0 - probability) / n).sqrt();
        assert!((fraction - (1.0 - probability)).abs() < 4.0 * error, "{probability}: {fraction}");
        // Rows differ as independent ones do: the variance of a binomial, within 15 %.
        let mean = fraction * H as f64;
        let variance = kept.iter().map(|k| (k - mean).powi(2)).sum::<f64>() / ROWS as f64;
        let want = H as f64 * probability * (1.0 - probability);
        assert!((variance / want - 1.0).abs() < 0.15, "{probability}: {variance} {want}");
        assert_eq!(energies(0, 0), energies(0, 0));
        assert_ne!(energies(0, 0), energies(0, 1));
        assert_ne!(energies(0, 0), energies(1, 0));
    }
}

/// The gradient of the loss with the same activations dropped, against its differences.
#[test]
fn gradient_goes_through_dropout() {
    let golden = Golden::open();
    let architecture = Architecture {
        input_dim: D,
        hidden_dim: 16,
        n_hidden_layers: 2,
        tied: true,
        tapered: false,
    };
    let rows = [golden.get("ebm_gmm_tied.train_real"), golden.get("ebm_gmm_tied.train_proposals")];
    let (real, rows) = (rows[0].len() / D, rows.concat());
    let batch = LossBatch {
        rows: &rows,
        real,
        temperature: 1.0,
        objective: Objective::NoiseContrastive,
        l2_coef: 0.1,
        weight: 1.0,
        dropout: Some(Dropout { probability: 0.4, seed: 5, step: 7 }),
    };
    let mut net = Mlp::new(architecture, 3).unwrap();
    let mut gradient = vec![0.0; net.parameters().len()];
    Cpu::default().loss_gradient(&net, &batch, &mut gradient).unwrap();
    let largest = gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
    let mut checked = 0;
    for i in (0..gradient.len()).step_by(7) {
        let h = 1e-3f32;
        let mut loss = |by: f32| {
            net.update(|p| p[i] += by);
            let mut unused = vec![0.0; gradient.len()];
            let v = Cpu::default().loss_gradient(&net, &batch, &mut unused).unwrap();
            net.update(|p| p[i] -= by);
            v.loss
        };
        let want = (loss(h) - loss(-h)) / (2.0 * f64::from(h));
        let error = (f64::from(gradient[i]) - want).abs() / f64::from(largest);
        assert!(error < 1e-2, "{i}: {} {want}", gradient[i]);
        checked += usize::from(want != 0.0);
    }
    assert!(checked > 50, "{checked}");
}

fn set(rows: &[[f32; 3]]) -> FeatureSet {
    FeatureSet::from_arrays(ndarray::aview2(rows), None).unwrap()
}

fn config() -> HeatConfig {
    let mut config = HeatConfig { n_epochs: 3, batch_size: 4, ..HeatConfig::default() };
    (config.standardize, config.ebm.loss.eps_data, config.ebm.loss.l2_coef) = (true, 0.0, 1e-3);
    let model = &mut config.ebm.model;
    (model.hidden_dim, model.n_hidden_layers, model.tied) = (8, 1, false);
    (model.use_base_dist, model.proposal_type) = (false, Proposal::Features);
    config.ebm.loss.objective = Objective::NoiseContrastive;
    let opt = &mut config.ebm.optimizer.opt;
    (opt.lr, opt.betas, opt.weight_decay) = (1e-2, [0.9, 0.999], 0.1);
    config.ebm.optimizer.sch.milestones = vec![2];
    config
}

/// What the trainer does where batches leave no choice: the whole set, and kinds of one row. Real rows and
/// negatives are stepped alike, half of the negatives are of each kind.
#[test]
fn the_trainer_puts_the_steps_together() {
    let train = set(&[[1.0, 2.0, 2.0], [2.0, 1.0, 2.0], [0.0, 3.0, 4.0], [5.0, 0.0, 0.0]]);
    let kinds = [set(&[[0.0, 0.0, 2.0]]), set(&[[-3.0, 4.0, 0.0]])];
    let config = config();
    let negatives: Vec<_> =
        kinds.iter().enumerate().map(|(i, k)| (i.to_string(), k.clone())).collect();
    let negatives = Negatives::new(negatives).unwrap();
    let prior = config.fit_prior(&TrainingData::new(&train), &mut Silent).unwrap();
    assert_eq!(prior.section().kind, "none");
    let mut trainer = Trainer::against(config.clone(), prior, &train, negatives).unwrap();
    trainer.run(&mut Silent).unwrap();

    let third = 1.0f32 / 3.0;
    let real = [third, 2.0 * third, 2.0 * third, 2.0 * third, third, 2.0 * third];
    let real = [&real[..], &[0.0, 0.6, 0.8, 1.0, 0.0, 0.0]].concat();
    let given = [[0.0, 0.0, 1.0], [-0.6, 0.8, 0.0]];
    let mut mean = vec![0.0; 3];
    let mut deviation = vec![0.0; 3];
    for j in 0..3 {
        let real = real.chunks(3).map(|row| f64::from(row[j])).collect::<Vec<_>>();
        let all = [
            &real[..],
            &given.map(|row| f64::from(row[j]))[..],
            &given.map(|row| f64::from(row[j]))[..],
        ];
        let all = all.concat();
        mean[j] = all.iter().sum::<f64>() / 8.0;
        deviation[j] = (all.iter().map(|v| (v - mean[j]).powi(2)).sum::<f64>() / 8.0).sqrt();
    }
    let net = Mlp::new(config.ebm.model.architecture(3), config.seed).unwrap();
    let mut net = net.with_standardised_inputs(mean, deviation);
    let mut adam = Adam::new([0.9, 0.999], net.parameters().len()).with_weight_decay(0.1);
    let rows = [&real[..], &given.concat(), &given.concat()].concat();
    for epoch in 0..3 {
        let batch = LossBatch {
            rows: &rows,
            real: 4,
            temperature: 1.0,
            objective: Objective::NoiseContrastive,
            l2_coef: 1e-3,
            weight: 1.0,
            dropout: None,
        };
        let mut grad = vec![0.0; net.parameters().len()];
        Cpu::default().loss_gradient(&net, &batch, &mut grad).unwrap();
        net.through_parameters(&mut grad);
        net.update(|p| adam.step(p, &grad, if epoch < 2 { 1e-2 } else { 1e-3 }));
    }
    close("parameters", trainer.net().parameters(), net.parameters(), 1e-4);
}

/// Settings that are off are not written: a recipe of old is written as it was, and so is a detector.
#[test]
fn what_is_off_leaves_no_trace() {
    let new = ["standardize", "dropout", "negatives", "weight_decay", "nets"];
    for name in names("ebm", None).iter().filter(|name| *name != "heat_surrogate") {
        let text = Recipe::resolve(&[format!("ebm={name}")], None).unwrap().to_toml();
        assert!(new.iter().all(|key| !text.contains(key)), "{text}");
    }
    let text = Recipe::resolve(&["ebm=heat_surrogate"], None).unwrap().to_toml();
    assert!(
        text.contains("standardize") && text.contains("dropout") && text.contains("weight_decay")
    );
}

fn rows(n: usize, d: usize, salt: u64) -> Array2<f32> {
    Array2::from_shape_fn((n, d), |(i, j)| {
        let x = ((i * d + j) as u64 + salt).wrapping_mul(6_364_136_223_846_793_005);
        (x >> 40) as f32 / (1u64 << 24) as f32 + 0.01
    })
}

fn memory(rows: &Array2<f32>, network: Option<&str>) -> FeatureSet {
    let set = FeatureSet::from_arrays(rows.view(), None).unwrap();
    set.with_origin(network.map(|network| Origin {
        network: "net.onnx".into(),
        network_sha256: network.into(),
        tap: "flatten".into(),
        transform: "{}".into(),
        head_sha256: None,
        layers: Default::default(),
        device: None,
    }))
}

fn save(place: &Path, rows: &Array2<f32>) {
    let (n, d) = rows.dim();
    let avg = Tensor::f32([n, d], rows.iter().copied().collect::<Vec<_>>());
    save_tensors(place, &[("avg".into(), avg)], &[]).unwrap();
}

#[test]
fn kinds_are_found_in_a_directory() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let refused = |path: &Path| Negatives::open(path).err().unwrap().to_string();
    let error = refused(place.path());
    assert!(error.contains("holds no feature set"), "{error}");
    let error = refused(&at("elsewhere"));
    assert!(error.contains("nothing lies there"), "{error}");
    // ID rows, a network's head, what is hidden and other files are no kinds.
    for name in ["id", ".hidden"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    save(&at("id/a.safetensors"), &rows(3, 4, 0));
    save(&at("head.safetensors"), &rows(3, 4, 0));
    std::fs::write(at("preview.png"), b"").unwrap();
    let error = refused(place.path());
    assert!(error.contains("no kind of negatives lies there"), "{error}");
    std::fs::create_dir(at("zoom")).unwrap();
    let error = refused(place.path());
    assert!(error.contains("zoom"), "{error}");
    save(&at("zoom/a.safetensors"), &rows(3, 4, 0));
    save(&at("blur.safetensors"), &rows(5, 4, 9));
    let negatives = Negatives::open(place.path()).unwrap();
    let found: Vec<_> = negatives.kinds().iter().map(|(k, set)| (k.as_str(), set.len())).collect();
    assert_eq!(found, [("blur", 5), ("zoom", 3)]);
    let one = Negatives::open(at("blur.safetensors")).unwrap();
    assert_eq!(one.kinds()[0].0, "blur");
    // Other content, other kinds: another digest.
    let before = negatives.digest().unwrap();
    save(&at("blur.safetensors"), &rows(5, 4, 8));
    let changed = Negatives::open(place.path()).unwrap().digest().unwrap();
    std::fs::remove_file(at("blur.safetensors")).unwrap();
    let fewer = Negatives::open(place.path()).unwrap().digest().unwrap();
    assert!(before != changed && changed != fewer);
}

#[test]
fn what_cannot_be_negatives() {
    let train = memory(&rows(200, 4, 0), Some("aa"));
    let config = HeatConfig { batch_size: 20, ..config() };
    let refused = |set: FeatureSet| {
        let prior = config.fit_prior(&TrainingData::new(&train), &mut Silent).unwrap();
        let negatives = Negatives::new(vec![("blur".into(), set)]).unwrap();
        Trainer::against(config.clone(), prior, &train, negatives).err().map(|e| e.to_string())
    };
    assert_eq!(refused(memory(&rows(50, 4, 12_345), Some("aa"))), None);
    // Of an unknown network: nothing speaks against it.
    assert_eq!(refused(memory(&rows(50, 4, 12_345), None)), None);
    let says = |set: FeatureSet, part: &str| {
        let error = refused(set).unwrap();
        assert!(error.contains(part), "{error}");
    };
    says(memory(&rows(50, 4, 12_345), Some("bb")), "features of network net.onnx (bb…)");
    says(memory(&rows(50, 5, 12_345), None), "expected [N, 4]");
    says(
        memory(&rows(50, 4, 0), None),
        "50 of 50 rows that were compared of memory are training rows",
    );
    let mut bad = rows(1, 4, 12_345);
    bad[(0, 2)] = f32::NAN;
    says(memory(&bad, None), "NaN");
    let std = FeatureSet::in_memory("x").std(rows(9, 4, 1)).build().unwrap();
    says(std, "`avg`");
    assert!(Negatives::new(Vec::new()).is_err());
}

/// Rows that served as negatives are remembered: an OOD set among them is no test any more.
#[test]
fn negatives_are_remembered() {
    let place = tempfile::tempdir().unwrap();
    save(&place.path().join("blur.safetensors"), &rows(50, 4, 12_345));
    let train = memory(&rows(200, 4, 0), None);
    let mut config = HeatConfig { batch_size: 20, n_epochs: 1, ..config() };
    config.ebm.model.negatives = Some(place.path().to_owned());
    let prior = config.fit_prior(&TrainingData::new(&train), &mut Silent).unwrap();
    let heat = config.train(prior, &TrainingData::new(&train), &mut Silent).unwrap();
    let seen = |set: &FeatureSet| heat.provenance().was_tuned_on(set).unwrap();
    assert!(seen(&memory(&rows(50, 4, 12_345), None)));
    assert!(!seen(&memory(&rows(50, 4, 99_999), None)));
}

fn small() -> (FeatureSet, Negatives, HeatConfig) {
    let negatives = Negatives::new(vec![
        ("a".into(), memory(&rows(30, 6, 777), None)),
        ("b".into(), memory(&rows(50, 6, 12_345), None)),
    ]);
    let mut config = HeatConfig { batch_size: 32, n_epochs: 2, ..config() };
    config.ebm.model.dropout = 0.3;
    (memory(&rows(200, 6, 0), None), negatives.unwrap(), config)
}

fn trainer(config: &HeatConfig, train: &FeatureSet, negatives: &Negatives) -> Trainer {
    let prior = config.fit_prior(&TrainingData::new(train), &mut Silent).unwrap();
    Trainer::against(config.clone(), prior, train, negatives.clone()).unwrap()
}

/// The mean of three networks is that of three runs with the seeds that follow each other; exported it is one
/// network.
#[test]
fn the_mean_of_several_networks() {
    let (train, negatives, mut config) = small();
    let alone = |seed| {
        let mut trainer = trainer(&HeatConfig { seed, ..config.clone() }, &train, &negatives);
        trainer.run(&mut Silent).unwrap();
        trainer.into_heat()
    };
    let apart = [alone(5), alone(6), alone(7)];
    (config.seed, config.ebm.model.nets) = (5, 3);
    let mut together = trainer(&config, &train, &negatives);
    together.run(&mut Silent).unwrap();
    assert_eq!(together.state().epoch, 6);
    let heat = together.into_heat();
    assert_eq!(heat.nets().len(), 3);
    for (one, net) in apart.iter().zip(heat.nets()) {
        assert!(one.net().parameters() == net.parameters());
    }
    let scores = heat.score(&train).unwrap();
    let of_each = apart.each_ref().map(|one| one.score(&train).unwrap());
    let mean: Vec<f32> = (0..train.len())
        .map(|i| (of_each.iter().map(|s| f64::from(s[i])).sum::<f64>() / 3.0) as f32)
        .collect();
    close("mean", &scores, &mean, 1e-6);

    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("detector.safetensors");
    Detector::new(Fitted::unrecorded(heat)).save(&file).unwrap();
    assert_eq!(Detector::open(&file).unwrap().score(&train).unwrap(), scores);
    let wide = torch::network(&TensorFile::open(&file).unwrap()).unwrap();
    assert_eq!(wide.architecture().hidden_dim, 3 * config.ebm.model.hidden_dim);
    let plain = HeatConfig { standardize: false, ..config };
    let prior = plain.fit_prior(&TrainingData::new(&train), &mut Silent).unwrap();
    let exported = Heat::new(prior, wide, 1.0, f64::INFINITY, 6).unwrap();
    close("exported", &exported.score(&train).unwrap(), &scores, 1e-5);
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

/// Two networks of two epochs of six steps, with dropout: stopped within either, and where one ends.
#[test]
fn several_networks_resume_to_the_byte() {
    let (train, _, mut config) = small();
    let place = tempfile::tempdir().unwrap();
    save(&place.path().join("a.safetensors"), &rows(30, 6, 777));
    (config.ebm.model.nets, config.ebm.model.negatives) = (2, Some(place.path().to_owned()));
    let new = |config: &HeatConfig| {
        let prior = config.fit_prior(&TrainingData::new(&train), &mut Silent).unwrap();
        Trainer::new(config.clone(), prior, &train).unwrap()
    };
    let runs = tempfile::tempdir().unwrap();
    let last = |path: &Path| std::fs::read(path.join("checkpoints/epoch_4.safetensors")).unwrap();
    let whole = runs.path().join("whole");
    let mut run = RunDirectory::create(&whole, "", "d").unwrap();
    assert_eq!(run.train(&mut new(&config), &mut Silent).unwrap(), Outcome::Finished);
    for stops in [vec![4], vec![12], vec![13], vec![5, 7, 9]] {
        let path = runs.path().join(format!("{stops:?}"));
        let mut run = RunDirectory::create(&path, "", "d").unwrap();
        let mut trainer = new(&config);
        for steps in stops {
            let outcome = run.train(&mut trainer, &mut StopAfter(steps)).unwrap();
            assert_eq!(outcome, Outcome::Stopped);
            drop(run);
            let latest = RunDirectory::latest(&path).unwrap().unwrap();
            trainer = checkpoint::resume(&latest, &config, &train, "d").unwrap();
            run = RunDirectory::open(&path, "", "d", Some(&trainer)).unwrap();
        }
        let resumed = || run.train(&mut trainer, &mut Silent).unwrap();
        assert_eq!(parallel::with_threads(3, resumed).unwrap(), Outcome::Finished);
        assert!(last(&path) == last(&whole));
    }
    // All networks have as many epochs; the negatives may lie elsewhere.
    let latest = RunDirectory::latest(&whole).unwrap().unwrap();
    let resume = |config: &HeatConfig| checkpoint::resume(&latest, config, &train, "d").map(drop);
    let longer = HeatConfig { n_epochs: 3, ..config.clone() };
    assert!(resume(&longer).unwrap_err().to_string().contains("other settings"));
    config.ebm.model.negatives = Some(place.path().join("a.safetensors"));
    resume(&config).unwrap();
}
