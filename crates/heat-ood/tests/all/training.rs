//! Training: determinism, resuming, what it learns, what it refuses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use heat_ood::ebm::{HeatConfig, Outcome, Proposal, RunDirectory, Trainer, checkpoint};
use heat_ood::features::{FeatureSet, Head};
use heat_ood::io::TensorFile;
use heat_ood::math::parallel;
use heat_ood::scorers::Prior;
use heat_ood::{Event, Observer, Silent, TrainingData};

fn data(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../heat-cli/data/cifar10-densenet").join(format!("{name}.safetensors"))
}

fn train() -> FeatureSet {
    FeatureSet::open(data("train")).unwrap()
}

/// 15 batches an epoch; accumulation that does not divide them.
fn config() -> HeatConfig {
    let mut config =
        HeatConfig { batch_size: 200, n_epochs: 2, accum_iter: 2, ..HeatConfig::default() };
    config.ebm.model.hidden_dim = 48;
    config.ebm.model.steps = 3;
    config.ebm.optimizer.opt.lr = 1e-3;
    config
}

fn prior(config: &HeatConfig, train: &FeatureSet) -> Arc<dyn Prior> {
    let head = Head::open(data("head")).unwrap();
    config.fit_prior(&TrainingData::new(train).with_head(&head), &mut Silent).unwrap()
}

fn trained(config: &HeatConfig, train: &FeatureSet) -> Vec<f32> {
    let prior = prior(config, train);
    let heat = config.train(prior, &TrainingData::new(train), &mut Silent).unwrap();
    heat.net().parameters().to_vec()
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let train = train();
    for proposal in [
        Proposal::BaseDist,
        Proposal::RandomNormal,
        Proposal::RandomUniform,
        Proposal::Data,
        Proposal::BaseDistTemp,
    ] {
        let mut config = config();
        config.n_epochs = 1;
        config.ebm.model.proposal_type = proposal;
        config.ebm.model.sample_from_batch_statistics = proposal == Proposal::BaseDistTemp;
        let run = |n| parallel::with_threads(n, || trained(&config, &train)).unwrap();
        let one = run(1);
        assert!(one.iter().all(|v| v.is_finite()), "{proposal:?}");
        assert!(one == run(2) && one == run(4), "{proposal:?}");
    }
}

#[test]
fn seeds_matter() {
    let train = train();
    let with = |seed| trained(&HeatConfig { seed, n_epochs: 1, ..config() }, &train);
    assert_ne!(with(0), with(1));
}

/// Stops after some steps.
struct StopAfter(AtomicUsize);

impl Observer for StopAfter {
    fn on(&mut self, event: Event<'_>) {
        if matches!(event, Event::Advance { loss: Some(_), .. }) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn should_stop(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out: Vec<_> = std::fs::read_dir(directory.join("checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(p).unwrap()))
        .collect();
    out.push(("metrics".into(), std::fs::read(directory.join("metrics.jsonl")).unwrap()));
    out.sort();
    out
}

#[test]
fn a_resumed_run_is_the_uninterrupted_run_to_the_byte() {
    let (train, config) = (train(), config());
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let mut run = RunDirectory::create(&whole, "", "d").unwrap();
    let mut trainer = Trainer::new(config.clone(), prior(&config, &train), &train).unwrap();
    assert_eq!(run.train(&mut trainer, &mut Silent).unwrap(), Outcome::Finished);
    // In the first epoch with a gradient half accumulated, at its end, later.
    for stops in [vec![3], vec![15], vec![1, 16], vec![7, 2, 13]] {
        let path = directory.path().join(format!("{stops:?}"));
        let mut run = RunDirectory::create(&path, "", "d").unwrap();
        let mut trainer = Trainer::new(config.clone(), prior(&config, &train), &train).unwrap();
        for n in stops {
            let mut stop = StopAfter(AtomicUsize::new(n));
            assert_eq!(run.train(&mut trainer, &mut stop).unwrap(), Outcome::Stopped);
            let last = RunDirectory::latest(&path).unwrap().unwrap();
            trainer = checkpoint::resume(&last, &config, &train, "d").unwrap();
            drop(run);
            run = RunDirectory::open(&path, "", "d", Some(&trainer)).unwrap();
        }
        assert_eq!(run.train(&mut trainer, &mut Silent).unwrap(), Outcome::Finished);
        assert!(files(&path) == files(&whole));
    }
}

/// Sets its flag as a step of training begins: the chains of that step end at once.
struct StopWithin {
    left: AtomicUsize,
    flag: Arc<AtomicBool>,
}

impl StopWithin {
    fn new(left: usize) -> Self {
        let flag = Arc::new(AtomicBool::new(left == 0));
        StopWithin { left: AtomicUsize::new(left), flag }
    }
}

impl Observer for StopWithin {
    fn on(&mut self, event: Event<'_>) {
        if matches!(event, Event::Advance { loss: Some(_), .. })
            && self.left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            self.flag.store(true, Ordering::SeqCst);
        }
    }

    fn stop_flag(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.flag))
    }
}

/// Chains that were cut leave no trace: neither in the weights nor in the replay buffer.
#[test]
fn a_run_that_was_stopped_within_a_chain_goes_on_to_the_byte() {
    let train = train();
    for variant in ["chains", "replay", "svgd"] {
        let mut config = config();
        // Stopped before the first checkpoint of an epoch, too.
        config.save_freq = 2;
        config.ebm.model.use_pcd = variant == "replay";
        config.ebm.model.buffer_size = 300;
        config.ebm.model.use_svgd = variant == "svgd";
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("whole");
        let mut run = RunDirectory::create(&whole, "", "d").unwrap();
        let mut trainer = Trainer::new(config.clone(), prior(&config, &train), &train).unwrap();
        assert_eq!(run.train(&mut trainer, &mut Silent).unwrap(), Outcome::Finished);
        let path = directory.path().join("stopped");
        let mut run = RunDirectory::create(&path, "", "d").unwrap();
        let mut trainer = Trainer::new(config.clone(), prior(&config, &train), &train).unwrap();
        // In the first step of all, within an epoch, in the first of the second.
        for (n, step) in [(0, 0), (4, 4), (11, 15), (3, 18)] {
            let mut stop = StopWithin::new(n);
            assert_eq!(run.train(&mut trainer, &mut stop).unwrap(), Outcome::Stopped);
            assert_eq!(trainer.state().step, step, "{variant}");
            drop(run);
            // What is there is enough to go on, however often the run is opened.
            for _ in 0..2 {
                let last = RunDirectory::latest(&path).unwrap().unwrap();
                trainer = checkpoint::resume(&last, &config, &train, "d").unwrap();
                drop(RunDirectory::open(&path, "", "d", Some(&trainer)).unwrap());
            }
            run = RunDirectory::open(&path, "", "d", Some(&trainer)).unwrap();
        }
        assert_eq!(run.train(&mut trainer, &mut Silent).unwrap(), Outcome::Finished);
        assert!(files(&path) == files(&whole), "{variant}");
    }
}

/// A billion steps end as soon as somebody says so.
#[test]
fn a_chain_ends_between_two_steps() {
    let (train, mut config) = (train(), config());
    for svgd in [false, true] {
        config.ebm.model.steps = 1_000_000_000;
        config.ebm.model.use_svgd = svgd;
        let mut trainer = Trainer::new(config.clone(), prior(&config, &train), &train).unwrap();
        let before = trainer.net().parameters().to_vec();
        let mut stop = StopWithin::new(1);
        let flag = Arc::clone(&stop.flag);
        let later = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            flag.store(true, Ordering::SeqCst);
        });
        assert_eq!(trainer.run(&mut stop).unwrap(), Outcome::Stopped);
        later.join().unwrap();
        assert_eq!((trainer.state().step, trainer.net().parameters()), (0, &before[..]));
    }
}

#[test]
fn resuming_with_other_settings_or_data_is_refused() {
    let (train, mut config) = (train(), config());
    config.n_epochs = 1;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let mut run = RunDirectory::create(&path, "", "digest").unwrap();
    let mut trainer = Trainer::new(config.clone(), prior(&config, &train), &train).unwrap();
    run.train(&mut trainer, &mut Silent).unwrap();
    let last = RunDirectory::latest(&path).unwrap().unwrap();
    let resume = |c: &HeatConfig, d: &str| checkpoint::resume(&last, c, &train, d).map(|_| ());
    resume(&config, "digest").unwrap();
    resume(&HeatConfig { n_epochs: 9, ..config.clone() }, "digest").unwrap();
    let other = HeatConfig { seed: 1, ..config.clone() };
    assert!(resume(&other, "digest").unwrap_err().to_string().contains("other settings"));
    assert!(resume(&config, "x").unwrap_err().to_string().contains("other data"));
    let second = RunDirectory::open(&path, "", "digest", None).err().unwrap().to_string();
    assert!(second.contains(&format!("process {} is training", std::process::id())), "{second}");
    drop(run);
    let fewer = HeatConfig { n_epochs: 0, ..config.clone() };
    assert!(resume(&fewer, "digest").unwrap_err().to_string().contains("already finished"));
    let again = RunDirectory::create(&path, "", "digest").err().unwrap().to_string();
    assert!(again.contains("resume it"), "{again}");
    // Half a checkpoint is never taken for a whole one.
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    let error = resume(&config, "digest").unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
    assert!(TensorFile::open(&last).is_err());
}

/// The residual must learn to tell real rows from generated ones.
#[test]
fn contrastive_divergence_separates_real_from_generated() {
    let train = train();
    let mut config = config();
    config.n_epochs = 4;
    config.ebm.loss.l2_coef = 1.0;
    let mut logs = Vec::new();
    struct Keep<'a>(&'a mut Vec<heat_ood::EpochLog>);
    impl Observer for Keep<'_> {
        fn on(&mut self, event: Event<'_>) {
            if let Event::Epoch(log) = event {
                self.0.push(log.clone());
            }
        }
    }
    config.train(prior(&config, &train), &TrainingData::new(&train), &mut Keep(&mut logs)).unwrap();
    assert_eq!(logs.len(), 4);
    assert!(logs[3].cd_loss < 5.0 * logs[0].cd_loss && logs[0].cd_loss < 0.0);
    assert!(logs[3].energy_nn_real < logs[3].energy_nn_generated);
    assert_eq!(logs[3].step, 60);
}

/// Parameters counted by hand: Linear(a, b) has ab + b; D = 342, H = 48, four
/// hidden layers. Steps in whitened coordinates leave the network as it is and
/// change what it learns.
#[test]
fn untied_tapered_preconditioned_and_pca_train() {
    let train = train();
    let (first, hidden, last) = (342 * 48 + 48, 48 * 48 + 48, 48 + 1);
    let tapered = 2 * hidden + (48 * 24 + 24) + 2 * (24 * 24 + 24) + (24 * 12 + 12) + 12 + 1;
    type Change = fn(&mut HeatConfig);
    let changes: [(Change, usize); 4] = [
        (|c| c.ebm.model.tied = false, first + 4 * hidden + last),
        (|c| (c.ebm.model.reduce_width, c.ebm.model.n_hidden_layers) = (true, 2), first + tapered),
        (|c| c.ebm.model.precondition = true, first + hidden + last),
        (
            |c| (c.use_pca, c.pca_n_principal_components, c.pca_whiten) = (true, 20, true),
            (20 * 48 + 48) + hidden + last,
        ),
    ];
    let plain = trained(&HeatConfig { n_epochs: 1, ..config() }, &train);
    for (change, parameters) in changes {
        let mut config = HeatConfig { n_epochs: 1, ..config() };
        change(&mut config);
        let other = trained(&config, &train);
        assert_eq!(other.len(), parameters);
        assert!(other.iter().all(|v| v.is_finite()) && other != plain);
        // It has moved from where it began.
        let start = Trainer::new(config.clone(), prior(&config, &train), &train).unwrap();
        assert_ne!(start.net().parameters(), other);
    }
}

#[test]
fn refusals() {
    let train = train();
    let error = |change: fn(&mut HeatConfig)| {
        let mut config = config();
        change(&mut config);
        let head = Head::open(data("head")).unwrap();
        let prior = match config.fit_prior(&TrainingData::new(&train).with_head(&head), &mut Silent)
        {
            Ok(prior) => prior,
            Err(e) => return e.to_string(),
        };
        config.train(prior, &TrainingData::new(&train), &mut Silent).err().unwrap().to_string()
    };
    let contains = |text: String, part: &str| assert!(text.contains(part), "{text}");
    contains(error(|c| c.batch_size = 3001), "larger than the training set (3000 rows)");
    contains(error(|c| c.ebm.model.temperature_prior = 0.0), "positive");
    contains(error(|c| c.ebm.model.step_size_start = f64::NAN), "step_size_start");
    contains(error(|c| c.ebm.optimizer.opt.lr = f64::INFINITY), "lr");
    let el = |c: &mut HeatConfig| c.ebm.prior = heat_ood::ebm::PriorKind::El;
    contains(error(el), "plain `avg`");
    contains(
        error(|c| (c.ebm.prior, c.normalize) = (heat_ood::ebm::PriorKind::El, false)),
        "not a distribution that can be sampled",
    );
    contains(
        error(|c| {
            (c.ebm.prior, c.normalize) = (heat_ood::ebm::PriorKind::El, false);
            c.ebm.model.proposal_type = Proposal::RandomNormal;
            c.ebm.model.precondition = true;
        }),
        "no covariance",
    );
    contains(error(|c| c.ebm.optimizer.opt.lr = 1e30), "diverged");
}
