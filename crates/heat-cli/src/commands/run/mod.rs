//! `heat run`: from images to results.

mod candidates;
mod images;

use std::path::{Path, PathBuf};

use anyhow::Result;
use heat_ood::compose::Part;
use heat_ood::evaluate::Results;
use heat_ood::io::{refuse_link, write_own};
use heat_ood::recipe::{Grid, Recipe};
use heat_ood::scorers::Scorer;
use heat_ood::{Detector, Error, Fitted};
use serde_json::Value;

use super::outputs::{hashes_of, made};
use super::scorers::compose;
use super::statistics::{shown, with_made};
use super::train::{On, train};
use super::{Data, write_output, wrote};
use crate::args::RunArgs;
use crate::export::{self, Format};
use crate::progress::{Progress, stop_on_ctrl_c};
use candidates::{Asked, evaluate_all};
use images::Images;

/// One training run of the command.
struct Run {
    name: String,
    recipe: Recipe,
    directory: PathBuf,
}

pub fn run(args: &RunArgs, progress: &mut Progress) -> Result<()> {
    let asked = Asked::parse(&args.scorers)?;
    let (runs, directory) = runs(args)?;
    asked.iter().try_for_each(|a| a.check(runs.iter().map(|r| r.name.as_str())))?;
    let recipe = &runs[0].recipe;
    for notice in &recipe.notices {
        progress.say(&format!("note: {notice}"));
    }
    let images = Images::open(args, recipe, progress)?;
    stop_on_ctrl_c()?;
    images.extract(progress)?;
    let mut trained: Vec<(String, Fitted<dyn Scorer>)> = Vec::new();
    for run in &runs {
        let path = run.directory.join("detector.safetensors");
        if args.resume && path.is_file() && is_of(run, &path, &images.data(progress)?)? {
            progress.say(&format!("{} already exists", path.display()));
        } else {
            progress.label = run.name.clone();
            let data = images.data(progress)?;
            train(&run.recipe, &data, &run.directory, args.resume, None, On::default(), progress)?;
            progress.label.clear();
        }
        trained.push((run.name.clone(), Detector::open(&path)?.fitted()));
    }
    let data = images.data(progress)?.subset(&recipe.subset())?;
    if runs.len() > 1 {
        let combined = composition(&trained, args.beta, &data, &directory, progress)?;
        trained.push(combined);
    }
    let results = evaluate_all(&asked, &trained, &data, &images, args.strict, progress)?;
    let read = hashes_of(Some(&data), Some(&images.test_sets(&data.subset)?))?;
    report(args, &results, &made(read), &directory, progress)
}

/// The runs asked for, one for each `ebm`, and the directory of the results.
fn runs(args: &RunArgs) -> Result<(Vec<Run>, PathBuf)> {
    let grid = Grid::parse(&args.settings)?;
    if let Some(key) = grid.varied().into_iter().find(|key| *key != "ebm") {
        let problem = "only `ebm` takes several values; `heat sweep` takes lists of any key";
        return Err(Error::config(key, "a list", problem).into());
    }
    let named = args.settings.iter().any(|s| s.starts_with("exp_name="));
    let mut runs = Vec::new();
    for run in grid.resolve(args.recipes.as_deref())? {
        let of_ebm = run.varied.first().map(|(_, ebm)| ebm.clone());
        let name = of_ebm.clone().unwrap_or_else(|| run.recipe.exp_name.clone());
        let mut directory = Path::new(&run.recipe.log_dir).join(&run.recipe.exp_name);
        if let Some(ebm) = of_ebm.filter(|_| named) {
            directory.push(ebm);
        }
        runs.push(Run { name, recipe: run.recipe, directory });
    }
    let directory = match &runs[..] {
        [one] => one.directory.clone(),
        [first, ..] if named => first.directory.parent().unwrap_or(Path::new(".")).to_owned(),
        several => {
            let names: Vec<&str> = several.iter().map(|r| r.name.as_str()).collect();
            Path::new(&several[0].recipe.log_dir).join(names.join("+"))
        }
    };
    Ok((runs, directory))
}

/// Whether a finished run is of this recipe and these features.
fn is_of(run: &Run, detector: &Path, data: &Data) -> Result<bool> {
    let path = run.directory.join("recipe.toml");
    let text = heat_ood::io::read_text(&path)?;
    let train = run.recipe.subset().fit(&data.train)?.apply(&data.train)?;
    let hashes = |files: Vec<(String, String)>| files.into_iter().map(|(_, sha)| sha);
    let trained = hashes(Detector::open(detector)?.provenance().train.clone());
    Ok(text == run.recipe.to_toml() && trained.eq(hashes(train.digests()?)))
}

/// The composition of all that was trained, also as a detector file.
fn composition(
    trained: &[(String, Fitted<dyn Scorer>)],
    beta: f64,
    data: &Data,
    directory: &Path,
    progress: &mut Progress,
) -> Result<(String, Fitted<dyn Scorer>)> {
    let parts = trained.iter().map(|(name, scorer)| Part::new(name, scorer.clone())).collect();
    let name = format!("HEAT(beta={beta})");
    let scorer = compose(&name, parts, beta, &data.training(), progress)?.scorer;
    std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let path = directory.join("detector.safetensors");
    refuse_link(&path)?;
    Detector::new(scorer.clone()).save(&path)?;
    wrote(progress, &path);
    Ok((name, scorer))
}

fn report(
    args: &RunArgs,
    results: &Results,
    made: &Value,
    directory: &Path,
    progress: &mut Progress,
) -> Result<()> {
    progress.clear();
    let path = directory.join("results.json");
    let json = with_made(&export::results(results, Format::Json), made);
    write_own(&path, |w| w.write_all(json.as_bytes()))?;
    let text = match (args.format, &args.output) {
        (Format::Table, None) => shown(results),
        (Format::Json, _) => json,
        (other, _) => export::results(results, other),
    };
    write_output(args.output.as_deref(), &text)?;
    wrote(progress, &path);
    Ok(())
}
