//! What a program on the library relies on: provenance by the ordinary way,
//! scorers and engines of its own, training runs in a directory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use heat_ood::calibrate::CalibrationConfig;
use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::ebm::engine::{Cpu, Engine, LossBatch};
use heat_ood::ebm::loss::LossValues;
use heat_ood::ebm::mlp::Mlp;
use heat_ood::ebm::sampler::{ChainKey, Energy, Langevin};
use heat_ood::ebm::{HeatConfig, Outcome, Proposal, RunDirectory, Trainer};
use heat_ood::features::{Batch, FeatureSet, Field, FieldSet, Head, Pooling};
use heat_ood::recipe::Recipe;
use heat_ood::run::TrainingRun;
use heat_ood::scorers::{
    KnnConfig, Prior, Scorer, ScorerSpec, Scratch, Section, register, register_prior,
};
use heat_ood::{
    Detector, Error, Event, Fit, Fitted, Observer, Provenance, Result, Silent, TrainingData,
};

fn path(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../heat-cli/data/cifar10-densenet").join(format!("{name}.safetensors"))
}

fn set(name: &str) -> FeatureSet {
    FeatureSet::open(path(name)).unwrap()
}

fn data() -> TrainingData {
    TrainingData::new(&set("train")).with_head(&Head::open(path("head")).unwrap())
}

/// Two batches of two steps.
fn small() -> HeatConfig {
    let mut config = HeatConfig { batch_size: 128, n_epochs: 2, ..HeatConfig::default() };
    let model = &mut config.ebm.model;
    (model.hidden_dim, model.steps, model.train_max_iter) = (16, 2, Some(2));
    config
}

/// Whatever is fitted remembers its rows, also within something else.
#[test]
fn a_calibration_on_training_rows_is_refused() {
    let data = data();
    let knn = KnnConfig::default().fit(&data, &mut Silent).unwrap();
    let heat = small().fit(&data, &mut Silent).unwrap();
    let members = vec![Part::new("knn", knn.clone()), Part::new("heat", heat.clone())];
    let other = TrainingData::new(&set("test"));
    let combined = CombinedConfig { members, beta: 0.0 }.fit(&other, &mut Silent).unwrap();
    for mut detector in [Detector::new(knn), Detector::new(heat), Detector::new(combined)] {
        let config = CalibrationConfig::default();
        let error = detector.calibrate(&config, &data.features, None, false, &mut Silent);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("3000 of 3000 rows"), "{error}");
        assert!(!error.contains("--"), "{error}");
        assert!(detector.calibration().is_none());
    }
}

/// ‖z − c‖² of `avg`, and the name by which it is read back.
struct Distance(Vec<f32>, &'static str);

const AVG: Field = Field::Features(Pooling::Avg);

impl Scorer for Distance {
    fn name(&self) -> &'static str {
        "distance"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        FieldSet::checked(set, AVG, self.0.len())
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.energy(batch.get(AVG), out);
    }

    fn section(&self) -> Section {
        Section::new(self.1, &self.0)
    }
}

impl Prior for Distance {
    fn dim(&self) -> usize {
        self.0.len()
    }

    fn energy(&self, z: &[f32], out: &mut [f32]) {
        for (o, row) in out.iter_mut().zip(z.chunks(self.dim())) {
            *o = row.iter().zip(&self.0).map(|(v, m)| (v - m).powi(2)).sum();
        }
    }

    fn add_gradient(&self, z: &[f32], scale: f32, grad: &mut [f32], _: &mut Scratch) {
        for (i, g) in grad.iter_mut().enumerate() {
            *g += scale * 2.0 * (z[i] - self.0[i % self.dim()]);
        }
    }
}

/// Without a loader `save` says what is missing; with one the file opens
/// again, to the bit, alone and as the prior of a HEAT in a composition.
#[test]
fn scorers_and_priors_of_ones_own_are_saved_and_opened() {
    let data = data();
    let mut config = small();
    config.ebm.model.proposal_type = Proposal::Data;
    let distance = || Distance(vec![0.25; 342], "distance");
    let alone = Fitted::on(&data, distance()).unwrap();
    let heat = config.train(distance(), &data, &mut Silent).unwrap();
    let members = vec![Part::new("alone", alone.clone()), Part::new("heat", heat)];
    let whole = CombinedConfig { members, beta: 1.0 }.fit(&data, &mut Silent).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("d.safetensors");
    let error = Detector::new(whole.clone()).save(&file).unwrap_err().to_string();
    assert!(error.contains("`scorer` = distance") && error.contains("register"), "{error}");
    assert!(!file.exists());
    // A scorer's loader reads no priors.
    let load = |config: Vec<f32>| Arc::new(Distance(config, "distance"));
    register("distance", move |stored| Ok(load(stored.config()?))).unwrap();
    Detector::new(alone).save(&file).unwrap();
    let error = Detector::new(whole.clone()).save(&file).unwrap_err().to_string();
    assert!(error.contains("register_prior"), "{error}");
    register_prior("distance", move |stored| Ok(load(stored.config()?))).unwrap();
    Detector::new(whole.clone()).save(&file).unwrap();
    let opened = Detector::open(&file).unwrap();
    let test = set("test");
    assert_eq!(opened.score(&test).unwrap(), whole.score(&test).unwrap());
    let again = directory.path().join("e.safetensors");
    opened.save(&again).unwrap();
    assert!(std::fs::read(&file).unwrap() == std::fs::read(&again).unwrap());
    for taken in ["knn", "heat", "combined"] {
        let error = register(taken, move |stored| Ok(load(stored.config()?))).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{taken}: {error}");
    }
}

/// A run in a directory says so before it trains: its checkpoints would be lost.
#[test]
fn a_prior_that_cannot_be_read_back_is_no_run_in_a_directory() {
    let (data, mut config) = (data(), small());
    config.ebm.model.proposal_type = Proposal::Data;
    let prior = Distance(vec![0.25; 342], "unregistered");
    let mut trainer = Trainer::new(config, prior, &data.features).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut run = RunDirectory::create(&path, "", "").unwrap();
    let error = run.train(&mut trainer, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("`scorer` = unregistered"), "{error}");
    assert_eq!(trainer.state().step, 0);
    assert_eq!(RunDirectory::latest(&path).unwrap(), None);
}

/// Rows that settings were chosen on count as seen, and so do their files.
#[test]
fn recorded_rows_and_files_are_seen() {
    let data = data();
    let knn = KnnConfig::default().fit(&data, &mut Silent).unwrap();
    let mut detector = Detector::new(knn);
    let test = set("test");
    assert_eq!(detector.provenance().contamination(&test).unwrap(), None);
    detector.record_seen(&test).unwrap();
    let files: Vec<&str> = detector.provenance().train.iter().map(|(f, _)| &**f).collect();
    assert_eq!(files, ["train.safetensors", "test.safetensors"]);
    let found = detector.provenance().contamination(&test).unwrap().unwrap();
    assert!(found.starts_with("1000 of 1000 rows"), "{found}");
}

/// A file that is added is hashed too, whenever the others were.
#[test]
fn digests_are_those_of_all_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("labels.npy");
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    let header =
        format!("{:<117}\n", "{'descr': '<i8', 'fortran_order': False, 'shape': (1000,), }");
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.bytes());
    npy.extend(vec![0; 8000]);
    std::fs::write(&file, npy).unwrap();
    let test = set("test");
    let before = test.digests().unwrap();
    assert_eq!(test.clone().digests().unwrap(), before);
    let after = test.with_labels(&file).unwrap().digests().unwrap();
    assert_eq!((before.len(), after.len(), &after[0]), (1, 2, &before[0]));
    assert_eq!(after[1].0, "labels.npy");
}

/// Notes on which threads it is called, and fails in one batch.
struct Elsewhere {
    cpu: Cpu,
    threads: Arc<Mutex<Vec<ThreadId>>>,
    fails_at: u64,
}

impl Engine for Elsewhere {
    fn sample(
        &mut self,
        energy: &Energy<'_>,
        chain: &Langevin,
        key: ChainKey,
        z: &mut [f32],
    ) -> Result<()> {
        self.threads.lock().unwrap().push(std::thread::current().id());
        if key.step == self.fails_at {
            return Err(Error::missing("the cluster", "worker", "start one"));
        }
        self.cpu.sample(energy, chain, key, z)
    }

    fn loss_gradient(
        &mut self,
        net: &Mlp,
        batch: &LossBatch<'_>,
        grad: &mut [f32],
    ) -> Result<LossValues> {
        self.threads.lock().unwrap().push(std::thread::current().id());
        self.cpu.loss_gradient(net, batch, grad)
    }
}

/// Notes on which threads it is called.
struct Threads(Arc<Mutex<Vec<ThreadId>>>);

impl Observer for Threads {
    fn on(&mut self, _: Event<'_>) {
        self.0.lock().unwrap().push(std::thread::current().id());
    }
}

#[test]
fn engines_hooks_and_observers_are_called_on_the_callers_thread() {
    let threads = Arc::new(Mutex::new(Vec::new()));
    let (data, config) = (data(), small());
    let observer = &mut Threads(threads.clone());
    let prior = config.fit_prior(&data, observer).unwrap();
    let engine = Elsewhere { cpu: Cpu::default(), threads: threads.clone(), fails_at: u64::MAX };
    let hook = threads.clone();
    let mut trainer = Trainer::new(config, prior, &data.features)
        .unwrap()
        .with_engine(Box::new(engine))
        .with_gradient_hook(Box::new(move |_| {
            hook.lock().unwrap().push(std::thread::current().id());
            Ok(())
        }));
    assert_eq!(trainer.run(observer).unwrap(), Outcome::Finished);
    trainer.heat().score_observed(&data.features, observer).unwrap();
    let threads = threads.lock().unwrap();
    // Four batches: sampling, gradient, hook and progress of each.
    assert!(threads.len() > 16);
    assert!(threads.iter().all(|id| *id == std::thread::current().id()));
}

fn recipe(settings: &[&str]) -> Recipe {
    let common = ["batch_size=128", "n_epochs=2", "ebm.model.hidden_dim=16", "ebm.model.steps=2"];
    let own = ["ebm.model.train_max_iter=2"];
    Recipe::resolve(&[settings, &common, &own].concat(), None).unwrap()
}

fn finished(recipe: &Recipe, data: &TrainingData, directory: &Path, resume: bool) -> Vec<u8> {
    let mut run = TrainingRun::open(recipe, data, directory, resume, &mut Silent).unwrap();
    assert_eq!(run.train(&mut Silent).unwrap(), Outcome::Finished);
    let (path, detector) = run.finish().unwrap();
    assert_eq!(path, directory.join("detector.safetensors"));
    assert_eq!(detector.provenance().recipe.as_deref(), Some(&*recipe.to_toml()));
    std::fs::read(path).unwrap()
}

/// An engine that fails ends the run; it goes on from its last checkpoint, and
/// ends with the bytes of a run that nothing happened to.
#[test]
fn a_run_goes_on_after_its_engine_failed() {
    let (data, recipe) = (data(), recipe(&["ebm=heat_gmm_c10"]));
    let directory = tempfile::tempdir().unwrap();
    let (whole, broken) = (directory.path().join("whole"), directory.path().join("broken"));
    let want = finished(&recipe, &data, &whole, false);
    let run = TrainingRun::open(&recipe, &data, &broken, false, &mut Silent).unwrap();
    let engine = Elsewhere { cpu: Cpu::default(), threads: Arc::default(), fails_at: 3 };
    let mut run = run.with_engine(Box::new(engine));
    let error = run.train(&mut Silent).unwrap_err().to_string();
    assert_eq!(error, "the cluster has no worker; start one");
    let error = run.finish().err().unwrap().to_string();
    assert!(error.contains("epoch 1 of 2"), "{error}");
    assert!(finished(&recipe, &data, &broken, true) == want);
}

/// Another head changes the prior of `el` and of `vim`, but none that does not
/// read it.
#[test]
fn a_run_resumed_with_another_head_is_refused() {
    let data = data();
    let mut weight = data.head.as_ref().unwrap().weight().to_vec();
    weight[0] += 1.0;
    let head = Head::new(weight, vec![0.0; 10]).unwrap();
    let other = TrainingData::new(&data.features).with_head(&head);
    for (settings, refused) in [
        (&["ebm=heat_el_c10"][..], true),
        (&["ebm=heat_gmm_c10", "ebm.prior=vim", "ebm.model.proposal_type=data"], true),
        (&["ebm=heat_gmm_c10"], false),
    ] {
        let recipe = recipe(settings);
        let directory = tempfile::tempdir().unwrap();
        finished(&recipe, &data, directory.path(), false);
        let resumed = TrainingRun::open(&recipe, &other, directory.path(), true, &mut Silent);
        let error = resumed.err().map(|e| e.to_string());
        assert_eq!(error.is_some(), refused, "{settings:?}: {error:?}");
        assert!(error.is_none_or(|e| e.contains("with another head")), "{settings:?}");
    }
}

/// A scorer of which nobody knows what it has seen is not refused anything.
#[test]
fn unrecorded_scorers_have_seen_nothing() {
    let scorer = ScorerSpec::parse("norm").unwrap().fit(&data(), &mut Silent).unwrap();
    assert_eq!(scorer.provenance().train.len(), 1);
    let bare = Fitted::unrecorded(Distance(vec![0.0; 342], "distance"));
    assert_eq!(*bare.provenance(), Provenance::new());
    assert_eq!(bare.provenance().contamination(&set("train")).unwrap(), None);
}

/// The rows stay in the mapped file: another in its place changes nothing.
#[test]
fn an_open_detector_keeps_the_file_it_was_opened_from() {
    let directory = tempfile::tempdir().unwrap();
    let [file, other] = ["d", "e"].map(|name| directory.path().join(name));
    let (data, test) = (data(), set("test"));
    for name in ["knn(k=3)", "nnguide", "cfood(alpha=0.5)", "relation", "lid", "dknn", "trust"] {
        let fit = |name: &str| ScorerSpec::parse(name).unwrap().fit(&data, &mut Silent).unwrap();
        let scorer = fit(name);
        let scores = scorer.score(&test).unwrap();
        Detector::new(scorer).save(&file).unwrap();
        let opened = Detector::open(&file).unwrap();
        Detector::new(fit("norm")).save(&file).unwrap();
        assert_eq!(opened.score(&test).unwrap(), scores, "{name}");
        // Written from the file that has no name any more, to the name itself.
        opened.save(&file).unwrap();
        opened.save(&other).unwrap();
        assert!(std::fs::read(&file).unwrap() == std::fs::read(&other).unwrap());
        assert_eq!(Detector::open(&file).unwrap().score(&test).unwrap(), scores, "{name}");
    }
}
