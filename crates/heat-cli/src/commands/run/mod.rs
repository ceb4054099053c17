//! `heat run`: from pictures to results.

mod candidates;
mod pictures;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use heat_ood::compose::{Combined, Member};
use heat_ood::recipe::{Grid, Recipe};
use heat_ood::scorers::Scorer;
use heat_ood::{Detector, Error, evaluate::Results};

use super::train::train;
use super::{Data, write_output, wrote};
use crate::args::{Format, RunArgs};
use crate::export;
use crate::progress::{Progress, stop_on_ctrl_c};
use candidates::{Asked, evaluate_all};
use pictures::Pictures;

/// One training run of the command.
struct Run {
    name: String,
    recipe: Recipe,
    folder: PathBuf,
}

pub fn run(args: &RunArgs, progress: &mut Progress) -> Result<()> {
    let asked = Asked::parse(&args.scorers)?;
    let (runs, folder) = runs(args)?;
    asked.iter().try_for_each(|a| a.check(runs.iter().map(|r| r.name.as_str())))?;
    let recipe = &runs[0].recipe;
    for notice in &recipe.notices {
        progress.say(&format!("note: {notice}"));
    }
    let pictures = Pictures::open(args, recipe, progress)?;
    stop_on_ctrl_c()?;
    pictures.extract(progress)?;
    let mut trained: Vec<(String, Arc<dyn Scorer>)> = Vec::new();
    for run in &runs {
        let path = run.folder.join("detector.safetensors");
        if args.resume && path.is_file() && is_of(run, &path, &pictures.data()?)? {
            progress.say(&format!("{} is there already", path.display()));
        } else {
            progress.label = run.name.clone();
            train(&run.recipe, pictures.data()?, &run.folder, args.resume, progress)?;
            progress.label.clear();
        }
        trained.push((run.name.clone(), Detector::open(&path)?.scorer().clone()));
    }
    let data = pictures.data()?.subset(&recipe.subset())?;
    if runs.len() > 1 {
        let combined = compose(&trained, args.beta, &data, &folder, progress)?;
        trained.push(combined);
    }
    let results = evaluate_all(&asked, &trained, &data, &pictures, progress)?;
    report(args, &results, &folder, progress)
}

/// The runs asked for, one for each `ebm`, and the folder of the results.
fn runs(args: &RunArgs) -> Result<(Vec<Run>, PathBuf)> {
    let grid = Grid::parse(&args.settings)?;
    if let Some(key) = grid.varied().into_iter().find(|key| *key != "ebm") {
        let problem = "several values only of `ebm`; `heat sweep` takes lists of any key";
        return Err(Error::config(key, "a list", problem).into());
    }
    let named = args.settings.iter().any(|s| s.starts_with("exp_name="));
    let mut runs = Vec::new();
    for run in grid.resolve(args.recipes.as_deref())? {
        let of_ebm = run.varied.first().map(|(_, ebm)| ebm.clone());
        let name = of_ebm.clone().unwrap_or_else(|| run.recipe.exp_name.clone());
        let mut folder = Path::new(&run.recipe.log_dir).join(&run.recipe.exp_name);
        if let Some(ebm) = of_ebm.filter(|_| named) {
            folder.push(ebm);
        }
        runs.push(Run { name, recipe: run.recipe, folder });
    }
    let folder = match &runs[..] {
        [one] => one.folder.clone(),
        [first, ..] if named => first.folder.parent().unwrap_or(Path::new(".")).to_owned(),
        several => {
            let names: Vec<&str> = several.iter().map(|r| r.name.as_str()).collect();
            Path::new(&several[0].recipe.log_dir).join(names.join("+"))
        }
    };
    Ok((runs, folder))
}

/// Whether a finished run is of this recipe and these features.
fn is_of(run: &Run, detector: &Path, data: &Data) -> Result<bool> {
    let path = run.folder.join("recipe.toml");
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let train = run.recipe.subset().fit(&data.train)?.apply(&data.train)?;
    let hashes = |files: Vec<(String, String)>| files.into_iter().map(|(_, sha)| sha);
    let trained = hashes(Detector::open(detector)?.provenance.train);
    Ok(text == run.recipe.to_toml() && trained.eq(hashes(train.digests()?)))
}

/// The composition of all that was trained, also as a detector file.
fn compose(
    trained: &[(String, Arc<dyn Scorer>)],
    beta: f64,
    data: &Data,
    folder: &Path,
    progress: &mut Progress,
) -> Result<(String, Arc<dyn Scorer>)> {
    let mut members = Vec::new();
    for (name, scorer) in trained {
        members.push(Member::fit(name, scorer.clone(), &data.train, progress)?);
    }
    let combined: Arc<dyn Scorer> = Arc::new(Combined::new(members, beta)?);
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let path = folder.join("detector.safetensors");
    let mut detector = Detector::shared(combined.clone());
    detector.trained_on(&data.train)?;
    detector.save(&path)?;
    wrote(progress, &path);
    Ok((format!("HEAT(beta={beta})"), combined))
}

fn report(args: &RunArgs, results: &Results, folder: &Path, progress: &mut Progress) -> Result<()> {
    progress.clear();
    let path = folder.join("results.json");
    write_output(Some(&path), &export::results(results, Format::Json))?;
    write_output(args.output.as_deref(), &export::results(results, args.format))?;
    wrote(progress, &path);
    Ok(())
}
