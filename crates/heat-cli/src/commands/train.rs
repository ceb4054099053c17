//! `heat train`: a run directory from a recipe.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use heat_gpu::place::Place;
use heat_gpu::plan::Precision;
use heat_ood::Error;
use heat_ood::ebm::{Outcome, RunDirectory};
use heat_ood::io::read_text;
use heat_ood::recipe::Recipe;
use heat_ood::run::TrainingRun;
use serde_json::{Value, json};

use super::outputs::{RECORD, hashes_of, made, write_record};
use super::{Data, wrote};
use crate::args::{TrainArgs, TrainSet};
use crate::progress::{Progress, human, obey_parent, stop_on_ctrl_c};

pub fn run(args: &TrainArgs, progress: &mut Progress) -> Result<()> {
    if args.supervised {
        obey_parent()?;
    }
    let on = On::given(args.device, args.precision)?;
    let (recipes, out) = (args.recipes.as_deref(), args.out.as_deref());
    let (recipe, out) = Recipe::of_run(&args.settings, recipes, out, args.resume)?;
    for notice in &recipe.notices {
        progress.say(&format!("note: {notice}"));
    }
    let of_images = [
        ("transform", recipe.transform.is_some()),
        ("dataset.data_root", recipe.dataset.as_ref().is_some_and(|d| d.data_root.is_some())),
    ];
    for (key, _) in of_images.iter().filter(|(_, given)| *given) {
        progress.say(&format!("note: `{key}` has no effect: features are read, not images"));
    }
    let data = remembered(args, &out)?;
    let opened = Data::open(&data, progress)?;
    train(&recipe, &opened, &out, args.resume, Some(&data), on, progress)
}

/// Where a run trains, and how exactly.
#[derive(Clone, Copy, Default)]
pub(super) struct On {
    place: Place,
    precision: Precision,
}

impl On {
    /// As it was asked for.
    fn given(place: Place, precision: Option<Precision>) -> Result<Self> {
        if let (Place::Cpu, Some(Precision::Tf32)) = (place, precision) {
            let problem = "is of a card: give --device cuda too, or leave it out";
            return Err(Error::config("precision", Precision::Tf32, problem).into());
        }
        Ok(On { place, precision: precision.unwrap_or_default() })
    }

    /// Nothing for the processor; for a card its name and the precision of its products.
    fn record(self) -> Value {
        match self.place {
            Place::Cpu => Value::Null,
            place => json!({ "name": place.to_string(), "precision": self.precision.to_string() }),
        }
    }

    /// What a run that is resumed elsewhere than before has to know.
    fn say_what_changes(self, out: &Path, progress: &Progress) {
        // A run without a readable record has said nothing of where it trained.
        let text = read_text(&out.join(RECORD)).unwrap_or_default();
        let Ok(read) = serde_json::from_str::<Value>(&text) else { return };
        if read["device"] != self.record() {
            let name = |device: &Value| match device["name"].as_str() {
                None => "cpu".to_owned(),
                Some(name) => format!("{name} ({})", device["precision"].as_str().unwrap_or("f32")),
            };
            progress.say(&format!(
                "note: this run trained on {} and goes on on {}: recipe, rows and streams of random numbers \
                 are the same, but sums are rounded otherwise, so that bits differ from here on",
                name(&read["device"]),
                name(&self.record())
            ));
        }
    }
}

/// What is read: as given, else by the run that is resumed.
fn remembered(args: &TrainArgs, out: &Path) -> Result<TrainSet> {
    if args.resume && !out.join("recipe.toml").is_file() && RunDirectory::latest(out)?.is_none() {
        let problem =
            "there is no run to resume in that directory; leave out `--resume` to begin one";
        return Err(Error::format(out, problem).into());
    }
    let file = out.join(RECORD);
    let read = match args.train.is_none() && file.exists() {
        true => {
            let json: Value = serde_json::from_str(&read_text(&file)?)
                .map_err(|e| Error::format(&file, format!("is not readable: {e}")))?;
            json["read"].clone()
        }
        false => Value::Null,
    };
    let path = |given: &Option<PathBuf>, key: &str| {
        given.clone().or_else(|| read[key].as_str().map(PathBuf::from))
    };
    let Some(train) = path(&args.train, "train") else {
        let place = out.display().to_string();
        let remedy = "give the training features with `--train`";
        return Err(Error::missing(place, "record of what it was trained on", remedy).into());
    };
    let dim = args.dim.or_else(|| read["dim"].as_u64().and_then(|dim| dim.try_into().ok()));
    Ok(TrainSet {
        train,
        labels: path(&args.labels, "labels"),
        head: path(&args.head, "head"),
        dim,
    })
}

/// Write how the run is made. A run without this file is none the worse.
fn record(data: &Data, given: Option<&TrainSet>, on: On, out: &Path) -> Result<()> {
    let mut json = made(hashes_of(Some(data), None)?);
    if let device @ Value::Object(_) = on.record() {
        json["device"] = device;
    }
    if let Some(given) = given {
        // By whole paths: who resumes may stand elsewhere.
        let path = |p: &PathBuf| {
            std::path::absolute(p).unwrap_or_else(|_| p.clone()).display().to_string()
        };
        json["read"] = json!({
            "train": path(&given.train),
            "labels": given.labels.as_ref().map(path),
            "head": given.head.as_ref().map(path),
            "dim": given.dim,
        });
    }
    write_record(out, &json)
}

/// Incomplete batches are left out of every epoch, as in the published code.
fn say_what_an_epoch_is(
    recipe: &Recipe,
    data: &Data,
    steps: usize,
    progress: &Progress,
) -> Result<()> {
    let rows = recipe.subset().fit(&data.train)?.apply(&data.train)?.len();
    let batch = recipe.heat.batch_size;
    let dropped = match rows - steps * batch {
        0 => String::new(),
        left => format!(
            "; {left} of {rows} rows, others each time, make no whole batch and are left out of it"
        ),
    };
    progress.say(&format!("an epoch: {steps} steps of {batch} rows{dropped}"));
    Ok(())
}

/// Train into a run directory.
pub(super) fn train(
    recipe: &Recipe,
    data: &Data,
    out: &Path,
    resume: bool,
    given: Option<&TrainSet>,
    on: On,
    progress: &mut Progress,
) -> Result<()> {
    let mut run =
        TrainingRun::open_on(recipe, &data.training(), out, resume, progress, |trainer| {
            on.place.engine(&recipe.heat, trainer.prior(), on.precision)
        })?;
    if resume {
        on.say_what_changes(out, progress);
    }
    record(data, given, on, out)?;
    stop_on_ctrl_c()?;
    say_what_an_epoch_is(recipe, data, run.trainer().batches(), progress)?;
    let start = Instant::now();
    progress.epochs_left = Some(recipe.heat.total_epochs());
    if run.train(progress)? == Outcome::Stopped {
        bail!(
            "stopped in epoch {} of {}; a checkpoint is in {}: continue with `--resume`",
            run.trainer().state().epoch + 1,
            recipe.heat.total_epochs(),
            out.display()
        );
    }
    progress.say(&format!("trained in {}", human(start.elapsed())));
    let (path, _) = run.finish()?;
    wrote(progress, &path);
    Ok(())
}
