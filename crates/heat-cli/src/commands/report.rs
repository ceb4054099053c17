//! `heat report`: a page on training runs, sweeps and results.

use std::path::{Path, PathBuf};

use anyhow::Result;
use heat_ood::Error;
use heat_ood::features::SubsetConfig;
use heat_ood::recipe::Recipe;

use super::eval::{self, Evaluated};
use super::outputs::command_line;
use super::{named, refuse_overwriting, wrote};
use crate::args::{EvalArgs, EvalFormat, ReportArgs, SubsetArgs};
use crate::progress::Progress;
use crate::report::{self, Found, ReportData};

pub fn run(args: &ReportArgs, progress: &mut Progress) -> Result<()> {
    let found = report::find(&args.runs)?;
    let sets = args.ood.iter().map(|text| named(text).1);
    let plain = [&args.id, &args.train, &args.labels, &args.head].into_iter().flatten().cloned();
    let inputs: Vec<_> = found.files.iter().cloned().chain(sets).chain(plain).collect();
    let inputs: Vec<&Path> = inputs.iter().map(|p| &**p).collect();
    refuse_overwriting(Some(&args.output), &inputs)?;
    let arguments = args.id.as_ref().map(|id| evaluation(args, id, &found)).transpose()?;
    let mut data = ReportData::new(command_line(), found.runs);
    if let Some(arguments) = arguments {
        let Evaluated { results, evaluation, .. } = eval::evaluated(&arguments, progress)?;
        data = data.with_results(&results, evaluation);
    }
    data.tables.extend(found.tables);
    report::write(&args.output, &data)?;
    wrote(progress, &args.output);
    Ok(())
}

/// What `heat eval` would be given.
fn evaluation(args: &ReportArgs, id: &Path, found: &Found) -> Result<EvalArgs> {
    if found.detectors.is_empty() && args.scorers.is_none() {
        let problem =
            "none of these runs is finished; leave out `--id` and `--ood`, or give `--scorers`";
        return Err(Error::config("runs", "", problem).into());
    }
    // By whole paths: names of a sweep's runs have `=` in them.
    let whole = |path: &PathBuf| path.canonicalize().map_err(Error::io("find", path));
    let detectors = found.detectors.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
    Ok(EvalArgs {
        force: false,
        train: args.train.clone(),
        labels: args.labels.clone(),
        head: args.head.clone(),
        dim: args.dim,
        subset: subset(found)?,
        id: id.to_owned(),
        ood: args.ood.clone(),
        scorers: args.scorers.clone(),
        detectors: detectors.iter().map(|p| p.display().to_string()).collect(),
        strict: false,
        name: Vec::new(),
        sort: None,
        combine: args.combine.clone(),
        beta: args.beta,
        format: EvalFormat::Table,
        output: None,
        report: Some(args.output.clone()),
        statistics: args.statistics.clone(),
    })
}

/// The classes that the runs know, which must be the same to be evaluated together.
fn subset(found: &Found) -> Result<SubsetArgs> {
    let mut all: Vec<SubsetConfig> = Vec::new();
    for run in &found.runs {
        let config = Recipe::resolve_onto::<&str>(&run.recipe, &[], None)?.subset();
        // A fraction of the rows alone says nothing of the test sets.
        let config = if config.number_labels.is_some() { config } else { SubsetConfig::default() };
        if !all.contains(&config) {
            all.push(config);
        }
    }
    if all.len() > 1 {
        let problem = "these runs were trained on different classes; write a report on each";
        return Err(Error::config("dataset.subset", "", problem).into());
    }
    let config = all.pop().unwrap_or_default();
    Ok(SubsetArgs {
        subset_proportion: config.proportion,
        subset_labels: config.number_labels,
        subset_seed: config.random_state,
    })
}
