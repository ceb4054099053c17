//! `heat eval`: scorers and detectors against OOD sets.

use std::path::{Path, PathBuf};

use anyhow::Result;
use heat_ood::Error;
use heat_ood::evaluate::{Candidate, Results, accuracy};
use heat_ood::features::Head;
use heat_ood::scorers::ScorerSpec;

use super::outputs::command_line;
use super::scorers::{combine, fit};
use super::statistics::{check_scorers, write};
use super::{
    Data, NamedDetector, TestSets, detectors, is_directory_name, named, open_options,
    refuse_overwriting, split, wrote,
};
use crate::args::{EvalArgs, EvalFormat};
use crate::progress::Progress;
use crate::report::{self, Evaluation, ReportData};

pub fn run(args: &EvalArgs, progress: &mut Progress) -> Result<()> {
    refuse_outputs(args)?;
    let Evaluated { results, evaluation, accuracy } = evaluated(args, progress)?;
    let output = args.output.as_deref();
    write(&results, evaluation.scores(), args.format, output, accuracy, progress)?;
    if let Some(path) = &args.report {
        let data = ReportData::new(command_line(), Vec::new()).with_results(&results, evaluation);
        report::write(path, &data)?;
        wrote(progress, path);
    }
    Ok(())
}

/// Refuse outputs that would replace an input or each other.
fn refuse_outputs(args: &EvalArgs) -> Result<()> {
    let named_files = args.ood.iter().chain(&args.detectors).map(|text| named(text).1);
    let plain = [&args.train, &args.labels, &args.head].into_iter().flatten().cloned();
    let inputs: Vec<PathBuf> = named_files.chain(plain).chain([args.id.clone()]).collect();
    let inputs: Vec<&Path> = inputs.iter().map(|p| &**p).collect();
    let into_directory =
        args.format == EvalFormat::Openood && args.output.as_deref().is_some_and(is_directory_name);
    refuse_overwriting(args.output.as_deref().filter(|_| !into_directory), &inputs)?;
    let results_too: Vec<&Path> = inputs.iter().copied().chain(args.output.as_deref()).collect();
    refuse_overwriting(args.report.as_deref(), &results_too)?;
    let same = |a: &Path, b: &Path| std::path::absolute(a).ok() == std::path::absolute(b).ok();
    if let (Some(page), Some(results)) = (&args.report, &args.output)
        && same(page, results)
    {
        let problem = "that is where the results go; choose another name";
        return Err(Error::config("report", page.display(), problem).into());
    }
    Ok(())
}

/// What an evaluation found.
pub(super) struct Evaluated {
    pub results: Results,
    /// The scores, and for a report where everything comes from.
    pub evaluation: Evaluation,
    /// The classifier's on the ID set, where OpenOOD's form is asked for.
    accuracy: Option<f64>,
}

/// Fit, score and measure.
pub(super) fn evaluated(args: &EvalArgs, progress: &mut Progress) -> Result<Evaluated> {
    let data = training(args, progress)?;
    let sets = test_sets(args, data.as_ref(), progress)?;
    let names: Vec<&str> = sets.ood.iter().map(|(name, _)| &**name).collect();
    let statistics = args.statistics.plan(&names, progress)?;
    let read = detectors(&args.detectors)?;
    let candidates = candidates(args, data.as_ref(), &read, progress)?;
    read.iter().try_for_each(|detector| warn_seen(detector, &sets, progress))?;
    let names: Vec<&str> = candidates.iter().map(|c| &*c.name).collect();
    check_scorers(&statistics, &names, args.format, args.output.as_deref(), progress)?;
    let TestSets { id, ood } = &sets;
    let (mut results, mut evaluation) = match args.report.is_some() {
        true => Evaluation::of(id, ood, &candidates, progress)?,
        false => Evaluation::brief(id, ood, &candidates, progress)?,
    };
    statistics.add_to(&mut results, evaluation.scores(), progress)?;
    if args.report.is_some() {
        for NamedDetector { name, file, detector } in &read {
            evaluation = evaluation.with_detector(name, file, detector, id, ood)?;
        }
        if let Some(Data { train, head, .. }) = &data {
            evaluation = evaluation.with_training(train, head.as_ref())?;
        }
    }
    progress.clear();
    Ok(Evaluated { results, evaluation, accuracy: accuracy_of(args, data.as_ref(), &sets)? })
}

/// The training set, where one is given.
fn training(args: &EvalArgs, progress: &Progress) -> Result<Option<Data>> {
    let (labels, head) = (args.labels.as_deref(), args.head.as_deref());
    let config = args.subset.config();
    match &args.train {
        Some(train) => {
            Ok(Some(Data::from(train, labels, head, args.dim, progress)?.subset(&config)?))
        }
        None if config.is_whole() => Ok(None),
        None => {
            let problem = "there is no training set to take a part of: give it with `--train`";
            Err(Error::config("subset", "", problem).into())
        }
    }
}

/// The test sets, or the part of them that goes with the part of the training set.
fn test_sets(args: &EvalArgs, data: Option<&Data>, progress: &Progress) -> Result<TestSets> {
    let Some(data) = data else {
        let options = open_options(args.dim, None);
        return TestSets::open(&args.id, &args.ood, &options, None, progress);
    };
    let all = TestSets::open(&args.id, &args.ood, &data.options, Some(data), progress)?;
    let sets = all.part(&data.subset)?;
    if let Some(classes) = &data.subset.classes {
        let (part, whole) = (sets.id.len(), all.id.len());
        progress.say(&format!("note: classes {classes:?}; {part} of {whole} ID rows"));
    }
    Ok(sets)
}

/// The scorers asked for, fitted, then the detectors, then compositions of these.
fn candidates(
    args: &EvalArgs,
    data: Option<&Data>,
    read: &[NamedDetector],
    progress: &mut Progress,
) -> Result<Vec<Candidate>> {
    let specs = split(args.scorers.as_deref().unwrap_or_default());
    if specs.is_empty() && read.is_empty() {
        let problem = "give `--scorers el,knn(k=50)` or `--detectors FILE`, or both";
        return Err(Error::config("scorers", "", problem).into());
    }
    let specs = specs.iter().map(|s| ScorerSpec::parse(s)).collect::<Result<Vec<_>, _>>()?;
    let needs_train = |what: &str| {
        let remedy = "give the training features with `--train`";
        data.ok_or_else(|| Error::missing(what, "training set", remedy))
    };
    let mut candidates = match specs.is_empty() {
        true => Vec::new(),
        false => fit(&specs, needs_train("--scorers")?, progress)?,
    };
    candidates.extend(read.iter().map(|NamedDetector { name, detector, .. }| Candidate {
        name: name.clone(),
        scorer: detector.fitted(),
        fit_seconds: None,
    }));
    for list in &args.combine {
        let data = needs_train("--combine")?;
        candidates.push(combine(&split(list), args.beta, &candidates, data, progress)?);
    }
    for (i, c) in candidates.iter().enumerate() {
        if candidates[..i].iter().any(|other| other.name == c.name) {
            let problem = "two have that name; give a detector another one with NAME=FILE, or rename \
                           the directory of a run";
            return Err(Error::config("scorers", &c.name, problem).into());
        }
    }
    Ok(candidates)
}

/// The classifier's accuracy, for OpenOOD's form.
fn accuracy_of(args: &EvalArgs, data: Option<&Data>, sets: &TestSets) -> Result<Option<f64>> {
    if args.format != EvalFormat::Openood {
        return Ok(None);
    }
    Ok(match (data, &args.head) {
        (None, Some(head)) => accuracy(&sets.id, Some(&Head::open(head)?))?,
        (data, _) => accuracy(&sets.id, data.and_then(|d| d.head.as_ref()))?,
    })
}

/// Say where settings were chosen on one of these sets, or ID rows were seen.
fn warn_seen(read: &NamedDetector, sets: &TestSets, progress: &Progress) -> Result<()> {
    let NamedDetector { name, detector, .. } = read;
    if let Some(problem) = detector.provenance().contamination(&sets.id)? {
        progress.say(&format!("warning: {name}: {problem}: its results on them say little"));
    }
    for (set, features) in &sets.ood {
        if detector.provenance().was_tuned_on(features)? {
            progress.say(&format!(
                "warning: the settings of {name} were chosen on {set}: its results there say \
                 nothing about unknown data"
            ));
        }
    }
    Ok(())
}
