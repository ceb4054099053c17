//! `heat train`: a run directory from a recipe.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use heat_ood::ebm::Outcome;
use heat_ood::recipe::Recipe;
use heat_ood::run::TrainingRun;

use super::{Data, wrote};
use crate::args::TrainArgs;
use crate::progress::{Progress, human, obey_parent, stop_on_ctrl_c};

pub fn run(args: &TrainArgs, progress: &mut Progress) -> Result<()> {
    if args.supervised {
        obey_parent()?;
    }
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
    let data = Data::open(&args.data, progress)?;
    train(&recipe, &data, &out, args.resume, progress)
}

/// Train into a run directory.
pub(super) fn train(
    recipe: &Recipe,
    data: &Data,
    out: &Path,
    resume: bool,
    progress: &mut Progress,
) -> Result<()> {
    let mut run = TrainingRun::open(recipe, &data.training(), out, resume, progress)?;
    stop_on_ctrl_c()?;
    let start = Instant::now();
    progress.epochs_left = Some(recipe.heat.n_epochs);
    if run.train(progress)? == Outcome::Stopped {
        bail!(
            "stopped in epoch {} of {}; a checkpoint is in {}: continue with `--resume`",
            run.trainer().state().epoch + 1,
            recipe.heat.n_epochs,
            out.display()
        );
    }
    progress.say(&format!("trained in {}", human(start.elapsed())));
    let (path, _) = run.finish()?;
    wrote(progress, &path);
    Ok(())
}
