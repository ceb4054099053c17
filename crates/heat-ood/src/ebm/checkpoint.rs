//! Checkpoints: everything that a run needs to go on bit for bit.
//!
//! A safetensors file that holds the scorer as a detector does (network and
//! prior: a checkpoint can be scored with), and besides the optimiser's
//! moments (`adam.first.mlp.0.weight` …), the accumulated gradient
//! (`gradient.…`), and as metadata the settings, counters and history. Random
//! streams are named by seed and counters, so there is no generator to store.

use std::path::Path;

use super::config::HeatConfig;
use super::heat::Heat;
use super::mlp::Mlp;
use super::train::{State, Trainer};
use crate::error::{Error, Result};
use crate::features::FeatureSet;
use crate::io::{TensorFile, save_tensors};
use crate::scorers::{Outline, Scorer, Stored};

/// The `format` of a checkpoint's metadata.
pub(crate) const FORMAT: &str = "heat-checkpoint";

/// Write a checkpoint.
pub(super) fn save(path: &Path, trainer: &Trainer, train_digest: &str) -> Result<()> {
    let mut tensors = Vec::new();
    let outline = trainer.heat().section().flatten("", &mut tensors);
    for (prefix, values) in [
        ("adam.first.", &trainer.adam.first),
        ("adam.second.", &trainer.adam.second),
        ("gradient.", &trainer.gradient),
    ] {
        let named = trainer.net.split(values).into_iter();
        tensors.extend(named.map(|(n, t)| (format!("{prefix}{n}"), t)));
    }
    let named = trainer.net.spectral_tensors().into_iter();
    tensors.extend(named.map(|(n, t)| (format!("spectral.{n}"), t)));
    let named = trainer.net.standard_tensors().into_iter();
    tensors.extend(named.map(|(n, t)| (format!("standard.{n}"), t)));
    if let Some(replay) = &trainer.replay {
        tensors.extend(replay.tensors());
    }
    let metadata = [
        ("format", FORMAT.to_owned()),
        ("version", crate::scorers::FORMAT_VERSION.to_string()),
        ("scorer", json(&outline)),
        ("config", json(&trainer.config)),
        ("state", json(&trainer.state)),
        ("adam_steps", trainer.adam.steps.to_string()),
        ("train", train_digest.to_owned()),
    ];
    save_tensors(path, &tensors, &metadata)
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Steps finished at a checkpoint.
pub(super) fn step(path: &Path) -> Result<u64> {
    Ok(read_state(&TensorFile::open(path)?)?.step)
}

fn read<T: serde::de::DeserializeOwned>(file: &TensorFile, key: &str) -> Result<T> {
    let bad = |why: String| Error::format(file.path(), format!("not a checkpoint: `{key}` {why}"));
    let text = file.metadata(key).ok_or_else(|| bad("is absent".into()))?;
    serde_json::from_str(text).map_err(|e| bad(e.to_string()))
}

/// The counters and history of a checkpoint.
///
/// # Errors
/// If the file is not a checkpoint.
pub fn read_state(file: &TensorFile) -> Result<State> {
    read(file, "state")
}

/// The settings of a checkpoint.
///
/// # Errors
/// If the file is not a checkpoint.
pub fn read_config(file: &TensorFile) -> Result<HeatConfig> {
    read(file, "config")
}

/// Go on from a checkpoint. `config` must be that of the checkpoint, but for
/// `n_epochs`, `save_freq` and the place of the negatives, whose content is part of `train_digest`.
///
/// # Errors
/// If the file is not a checkpoint, was made with other settings or from
/// other data.
pub fn resume(
    path: &Path,
    config: &HeatConfig,
    train: &FeatureSet,
    train_digest: &str,
) -> Result<Trainer> {
    let file = TensorFile::open(path)?;
    let saved = read_config(&file)?;
    let comparable = |c: &HeatConfig| {
        // With several networks, all have as many epochs.
        let n_epochs = if c.ebm.model.nets > 1 { c.n_epochs } else { 0 };
        let mut c = HeatConfig { n_epochs, save_freq: 1, ..c.clone() };
        c.ebm.model.negatives = None;
        c
    };
    if comparable(&saved) != comparable(config) {
        return Err(Error::format(
            path,
            "was made with other settings; only n_epochs and save_freq may change on resume",
        ));
    }
    if file.metadata("train") != Some(train_digest) {
        return Err(Error::format(
            path,
            format!(
                "was made from other data than {}, with another head or against other negatives",
                train.name()
            ),
        ));
    }
    let state = read_state(&file)?;
    if state.epoch > config.total_epochs() {
        let problem = format!("the run has already finished epoch {}", state.epoch);
        return Err(Error::config("n_epochs", config.n_epochs, problem));
    }
    let outline: Outline = read(&file, "scorer")?;
    let heat = Heat::load(&Stored::new(&file, "", &outline))?;
    let architecture = heat.net().architecture();
    // The optimiser's vectors are laid out like a network.
    let vector = |prefix: &str| Ok(Mlp::load(architecture, &file, prefix)?.parameters().to_vec());
    let mut adam = config.optimiser(0);
    adam.steps = read(&file, "adam_steps")?;
    adam.first = vector("adam.first.")?;
    adam.second = vector("adam.second.")?;
    let mut nets = heat.nets;
    let Some(mut net) = nets.pop() else {
        return Err(Error::format(path, "holds no network"));
    };
    if config.ebm.model.use_spectral_norm {
        net = net.load_spectral(&file, "spectral.")?;
    }
    if config.standardize {
        net = net.load_standard(&file, "standard.")?;
    }
    nets.push(net);
    let (config, prior, negatives) = (config.clone(), heat.prior, config.open_negatives()?);
    let mut trainer = Trainer::assemble(config, prior, train, negatives, nets, adam, state)?;
    check_counters(path, &trainer)?;
    if let Some(replay) = &mut trainer.replay {
        let conditional = trainer.config.ebm.model.conditional();
        let classes = trainer.prior.mixture().filter(|_| conditional);
        replay.load(&file, classes.map(<[f64]>::len))?;
    }
    trainer.gradient = vector("gradient.")?;
    Ok(trainer)
}

/// That the counters are those of a run over this set: everything random is
/// named by them.
fn check_counters(path: &Path, trainer: &Trainer) -> Result<()> {
    let State { epoch, batch, step, .. } = trainer.state;
    let before = (epoch as u64).checked_mul(trainer.batches() as u64);
    let n_epochs = trainer.config.n_epochs;
    let of_net = epoch.checked_sub(trainer.done.len().saturating_mul(n_epochs));
    let sound = before.and_then(|n| n.checked_add(batch as u64)) == Some(step)
        && of_net.is_some_and(|epoch| epoch <= n_epochs)
        && batch <= trainer.batches()
        && trainer.adam.steps <= step;
    if sound {
        return Ok(());
    }
    let problem = format!(
        "its counters contradict each other (epoch {epoch}, batch {batch}, step {step}): the file is damaged"
    );
    Err(Error::format(path, problem))
}
