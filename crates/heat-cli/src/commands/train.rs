//! `heat train`: a run folder from a recipe.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use heat_ood::ebm::{Outcome, PriorKind, RunFolder, Trainer, checkpoint};
use heat_ood::features::{FeatureSet, Field};
use heat_ood::recipe::Recipe;
use heat_ood::{Detector, Error};

use super::{Data, wrote};
use crate::args::TrainArgs;
use crate::progress::{Progress, human, obey_parent, stop_on_ctrl_c};

pub fn run(args: &TrainArgs, progress: &mut Progress) -> Result<()> {
    if args.supervised {
        obey_parent()?;
    }
    let (recipe, out) = resolve(args)?;
    for notice in &recipe.notices {
        progress.say(&format!("note: {notice}"));
    }
    let of_pictures = [
        ("transform", recipe.transform.is_some()),
        ("dataset.data_root", recipe.dataset.as_ref().is_some_and(|d| d.data_root.is_some())),
    ];
    for (key, _) in of_pictures.iter().filter(|(_, given)| *given) {
        progress.say(&format!("note: `{key}` has no effect: features are read, not pictures"));
    }
    let data = Data::open(&args.data)?;
    train(&recipe, data, &out, args.resume, progress)
}

/// Train into a run folder.
pub(super) fn train(
    recipe: &Recipe,
    data: Data,
    out: &Path,
    resume: bool,
    progress: &mut Progress,
) -> Result<()> {
    let data = data.subset(&recipe.subset())?;
    check(recipe, &data.train)?;
    let digests = data.train.digests()?;
    // What a checkpoint must agree with: the data, and the head of an `el` prior.
    let mut digest: Vec<String> = digests.iter().map(|(_, sha)| sha.clone()).collect();
    if let (PriorKind::El, Some(head)) = (recipe.heat.ebm.prior, &data.head) {
        digest.push(head.digest());
    }
    let digest = digest.join(" ");
    let latest = if resume { RunFolder::latest(out)? } else { None };
    let mut trainer = match &latest {
        Some(path) => {
            progress.say(&format!("continuing from {}", path.display()));
            checkpoint::resume(path, &recipe.heat, &data.train, &digest)?
        }
        None => begin(recipe, &data, progress)?,
    };
    let mut folder = match &latest {
        None if !resume => RunFolder::create(out, &recipe.to_toml(), &digest)?,
        found => {
            if found.is_none() {
                progress.say(&format!("no checkpoint in {} yet: starting anew", out.display()));
            }
            let trainer = found.as_ref().map(|_| &trainer);
            RunFolder::open(out, &recipe.to_toml(), &digest, trainer)?
        }
    };
    stop_on_ctrl_c()?;
    let start = Instant::now();
    progress.epochs_left = Some(recipe.heat.n_epochs);
    if trainer.run(Some(&mut folder), progress)? == Outcome::Stopped {
        let epoch = trainer.state().epoch;
        bail!(
            "stopped in epoch {} of {}; a checkpoint is in {}: continue with `--resume`",
            epoch + 1,
            recipe.heat.n_epochs,
            out.display()
        );
    }
    progress.say(&format!("trained in {}", human(start.elapsed())));
    let mut detector = Detector::new(trainer.into_heat());
    detector.provenance.recipe = Some(recipe.to_toml());
    detector.provenance.seed = Some(recipe.heat.seed);
    detector.provenance.train = digests;
    detector.has_seen(&data.train)?;
    let path = out.join("detector.safetensors");
    detector.save(&path)?;
    wrote(progress, &path);
    Ok(())
}

/// The recipe and the run folder. A resumed run starts from its own recipe.
fn resolve(args: &TrainArgs) -> Result<(Recipe, PathBuf)> {
    let folder = args.recipes.as_deref();
    let recipe = Recipe::resolve(&args.settings, folder)?;
    let out = args.out.clone();
    let out = out.unwrap_or_else(|| Path::new(&recipe.log_dir).join(&recipe.exp_name));
    let saved = out.join("recipe.toml");
    if !args.resume || !saved.is_file() {
        return Ok((recipe, out));
    }
    let text = std::fs::read_to_string(&saved).map_err(Error::io("read", &saved))?;
    Ok((Recipe::resolve_onto(&text, &args.settings, folder)?, out))
}

fn begin<'a>(recipe: &Recipe, data: &'a Data, progress: &mut Progress) -> Result<Trainer<'a>> {
    let classes = classes(recipe, data);
    let prior = recipe.heat.fit_prior(&data.train, data.head.as_ref(), classes, progress)?;
    Ok(Trainer::new(recipe.heat.clone(), prior, &data.train)?)
}

/// The number of classes, where the subset or the dataset says it.
pub(super) fn classes(recipe: &Recipe, data: &Data) -> Option<usize> {
    let named = recipe.dataset.as_ref().map(|d| d.num_classes).filter(|&n| n > 0);
    data.subset.classes.as_ref().map(Vec::len).or(named)
}

/// What can be said of a recipe and data before anything is fitted.
pub(super) fn check(recipe: &Recipe, train: &FeatureSet) -> Result<()> {
    check_groups(recipe, train)?;
    train.require(Field::Features(recipe.heat.pooling))?;
    Ok(recipe.heat.check_rows(train)?)
}

/// A named backbone says what D must be.
pub(super) fn check_groups(recipe: &Recipe, train: &FeatureSet) -> Result<()> {
    let field = Field::Features(recipe.heat.pooling);
    if let (Some(backbone), Some(dim)) = (&recipe.backbone, train.dim(field))
        && ![0, dim].contains(&backbone.dim)
    {
        let problem = format!(
            "that network has D = {}, but {} has D = {dim}; leave the argument out for features of another network",
            backbone.dim,
            train.name()
        );
        return Err(Error::config("backbone", &backbone.name, problem).into());
    }
    Ok(())
}
