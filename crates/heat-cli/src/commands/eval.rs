//! `heat eval`: scorers and detectors against OOD sets.

use std::path::{Path, PathBuf};

use anyhow::Result;
use heat_ood::Error;
use heat_ood::evaluate::{Candidate, Results, accuracy};
use heat_ood::features::Head;
use heat_ood::scorers::committee;
use serde_json::{Map, Value};

use super::outputs::{command_line, hashes_of, made};
use super::scorers::{self, COMMITTEE, Skipped, combine, leave_out};
use super::statistics::{Writing, check_scorers, write};
use super::{
    Data, NamedDetector, TestSets, check_origin, detectors, is_directory_name, named, open_options,
    refuse_overwriting, say_agreement, split, wrote,
};
use crate::args::{EvalArgs, EvalFormat};
use crate::progress::Progress;
use crate::report::{self, Evaluation, ReportData};

pub fn run(args: &EvalArgs, progress: &mut Progress) -> Result<()> {
    refuse_outputs(args)?;
    let Evaluated { results, evaluation, accuracy, made } = evaluated(args, progress)?;
    let (output, sort) = (args.output.as_deref(), args.sort.as_deref());
    let writing = Writing { format: args.format, output, sort, accuracy, made: &made };
    write(&results, evaluation.scores(), &writing, progress)?;
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
    /// For JSON: version, command line, hashes.
    made: Value,
}

/// Fit, score and measure.
pub(super) fn evaluated(args: &EvalArgs, progress: &mut Progress) -> Result<Evaluated> {
    let data = training(args, progress)?;
    let sets = test_sets(args, data.as_ref(), progress)?;
    let head = data.as_ref().and_then(|d| d.head.as_ref());
    if let Some(data) = &data {
        say_agreement(&data.train, head, progress)?;
    }
    say_agreement(&sets.id, head, progress)?;
    let names: Vec<&str> = sets.ood.iter().map(|(name, _)| &**name).collect();
    let statistics = args.statistics.plan(&names, progress)?;
    let read = detectors(&args.detectors)?;
    let (mut candidates, mut skipped) = candidates(args, data.as_ref(), &read, progress)?;
    for set in std::iter::once(&sets.id).chain(sets.ood.iter().map(|(_, set)| set)) {
        let mut made_by = candidates.iter().map(|c| c.scorer.provenance());
        made_by.try_for_each(|provenance| check_origin(provenance, set, args.force))?;
    }
    let TestSets { id, ood } = &sets;
    let score = match args.report.is_some() {
        true => Evaluation::of,
        false => Evaluation::brief,
    };
    let found = loop {
        let names: Vec<&str> = candidates.iter().map(|c| &*c.name).collect();
        check_scorers(&statistics, &names, args.format, args.output.as_deref(), progress)?;
        let error = match score(id, ood, &candidates, progress) {
            Ok(found) => break found,
            Err(error) => error,
        };
        if args.strict {
            return Err(error.into());
        }
        leave_out(error, &sets, &mut candidates, &mut skipped, progress)?;
    };
    let (mut results, mut evaluation) = found;
    progress.clear();
    for (name, reason) in &skipped {
        progress.warn(&format!("{name} is left out: {reason}"));
    }
    results.skipped = skipped;
    statistics.add_to(&mut results, evaluation.scores(), progress)?;
    if args.report.is_some() {
        let kept = |d: &&NamedDetector| results.skipped.iter().all(|(name, _)| *name != d.name);
        for NamedDetector { name, file, detector } in read.iter().filter(kept) {
            evaluation = evaluation.with_detector(name, Some(file), detector, id, ood)?;
        }
        if let Some(Data { train, head, .. }) = &data {
            evaluation = evaluation.with_training(train, head.as_ref())?;
        }
    }
    progress.clear();
    results.warnings.iter().for_each(|warning| progress.warn(warning));
    let accuracy = accuracy_of(args, data.as_ref(), &sets)?;
    let made = match args.format {
        EvalFormat::Json => made(read_hashes(data.as_ref(), &sets, &read)?),
        _ => Value::Null,
    };
    Ok(Evaluated { results, evaluation, accuracy, made })
}

/// Of everything that was read.
fn read_hashes(
    data: Option<&Data>,
    sets: &TestSets,
    read: &[NamedDetector],
) -> Result<Map<String, Value>> {
    let mut all = hashes_of(data, Some(sets))?;
    if !read.is_empty() {
        let sha = |d: &NamedDetector| Ok((d.name.clone(), heat_ood::io::sha256(&d.file)?.into()));
        let detectors = read.iter().map(sha).collect::<Result<_>>()?;
        all.insert("detectors".into(), Value::Object(detectors));
    }
    Ok(all)
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
) -> Result<(Vec<Candidate>, Skipped)> {
    let specs = scorers::specs(args.scorers.as_deref().unwrap_or_default(), false, data)?;
    if specs.is_empty() && read.is_empty() {
        let problem = "give `--scorers el,knn(k=50)` or `--detectors FILE`, or both";
        return Err(Error::config("scorers", "", problem).into());
    }
    if args.name.len() > args.combine.len() {
        let problem = "is that of a composition: give as many `--combine` as names";
        return Err(Error::config("name", args.name.join(" "), problem).into());
    }
    let needs_train = |what: &str| {
        let remedy = "give the training features with `--train`";
        data.ok_or_else(|| Error::needs(what, "a training set", remedy))
    };
    let (mut candidates, mut skipped) = match specs.is_empty() {
        true => Default::default(),
        false => {
            let strict = args.strict || read.is_empty() && specs.len() == 1;
            scorers::fit_possible(&specs, needs_train("`--scorers`")?, strict, progress)?
        }
    };
    candidates.extend(read.iter().map(|NamedDetector { name, detector, .. }| Candidate {
        name: name.clone(),
        scorer: detector.fitted(),
        fit_seconds: None,
    }));
    let words = args.scorers.as_deref().map(split).unwrap_or_default();
    if let Some(data) = data.filter(|_| words.iter().any(|word| word == COMMITTEE)) {
        let all = committee(&data.training()).into_iter().map(|spec| spec.to_string());
        let fitted = |name: &String| candidates.iter().any(|c| c.name == *name);
        let members: Vec<String> = all.filter(fitted).collect();
        if members.len() > 1 {
            let whole = combine(Some(COMMITTEE), &members, 0.0, &candidates, data, progress)?;
            candidates.push(whole);
        }
    }
    for (i, list) in args.combine.iter().enumerate() {
        let data = needs_train("`--combine`")?;
        let (name, members) = (args.name.get(i).map(String::as_str), split(list));
        if let Some((member, _)) = skipped.iter().find(|(name, _)| members.contains(name)) {
            let reason = format!("its member {member} is left out");
            skipped.push((name.map_or_else(|| format!("combine({list})"), str::to_owned), reason));
            continue;
        }
        candidates.push(combine(name, &members, args.beta, &candidates, data, progress)?);
    }
    for (i, c) in candidates.iter().enumerate() {
        if candidates[..i].iter().any(|other| other.name == c.name) {
            let problem = "two have that name; give a detector another one with NAME=FILE, or rename \
                           the directory of a run";
            return Err(Error::config("scorers", &c.name, problem).into());
        }
    }
    Ok((candidates, skipped))
}

/// The classifier's accuracy, for OpenOOD's form.
fn accuracy_of(args: &EvalArgs, data: Option<&Data>, sets: &TestSets) -> Result<Option<f64>> {
    if ![EvalFormat::Openood, EvalFormat::Leaderboard].contains(&args.format) {
        return Ok(None);
    }
    Ok(match (data, &args.head) {
        (None, Some(head)) => accuracy(&sets.id, Some(&Head::open(head)?))?,
        (data, _) => accuracy(&sets.id, data.and_then(|d| d.head.as_ref()))?,
    })
}
