//! `heat eval`: scorers and detectors against OOD sets.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use heat_ood::compose::{Combined, Member};
use heat_ood::evaluate::{Candidate, Results, accuracy, measure, score_all};
use heat_ood::features::{FeatureSet, Head, OpenOptions};
use heat_ood::scorers::{ScorerSpec, fit_all};
use heat_ood::{Error, Provenance};

use super::statistics::{check_scorers, write};
use super::{Data, detectors, is_folder_name, named, refuse_overwriting, wrote};
use crate::args::{EvalArgs, EvalFormat};
use crate::progress::Progress;
use crate::report::{self, About, Evaluation, Promise, ReportData, Set};

pub fn run(args: &EvalArgs, progress: &mut Progress) -> Result<()> {
    let named_files = args.ood.iter().chain(&args.detectors).map(|text| named(text).1);
    let plain = [&args.train, &args.labels, &args.head].into_iter().flatten().cloned();
    let inputs: Vec<PathBuf> = named_files.chain(plain).chain([args.id.clone()]).collect();
    let inputs: Vec<&Path> = inputs.iter().map(|p| &**p).collect();
    let into_folder =
        args.format == EvalFormat::Openood && args.output.as_deref().is_some_and(is_folder_name);
    refuse_overwriting(args.output.as_deref().filter(|_| !into_folder), &inputs)?;
    let results_too: Vec<&Path> = inputs.iter().copied().chain(args.output.as_deref()).collect();
    refuse_overwriting(args.report.as_deref(), &results_too)?;
    let same = |a: &Path, b: &Path| std::path::absolute(a).ok() == std::path::absolute(b).ok();
    if let (Some(page), Some(results)) = (&args.report, &args.output)
        && same(page, results)
    {
        let problem = "that is where the results go; choose another name";
        return Err(Error::config("report", page.display(), problem).into());
    }
    let Evaluated { results, evaluation, accuracy } = evaluated(args, progress)?;
    let output = args.output.as_deref();
    write(&results, &evaluation.scores, args.format, output, accuracy, progress)?;
    if let Some(path) = &args.report {
        let data = ReportData::of(&results, Some(evaluation), Vec::new());
        report::write(path, &data)?;
        wrote(progress, path);
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
    let data = match &args.train {
        Some(train) => {
            let (labels, head) = (args.labels.as_deref(), args.head.as_deref());
            Some(Data::from(train, labels, head, args.dim)?.subset(&args.subset.config())?)
        }
        None if args.subset.config().is_whole() => None,
        None => {
            let problem = "a part of the training set needs one: give it with `--train`";
            return Err(Error::config("subset", "", problem).into());
        }
    };
    let options = match &data {
        Some(data) => data.options.clone(),
        None => OpenOptions { dim: args.dim, ..OpenOptions::default() },
    };
    let subset = data.as_ref().map(|d| d.subset.clone()).unwrap_or_default();
    let all = FeatureSet::open_with(&args.id, &options)?;
    let id = subset.apply_test(&all)?;
    if let Some(classes) = &subset.classes {
        progress.say(&format!("note: classes {classes:?}; {} of {} ID rows", id.len(), all.len()));
    }
    let ood = ood_sets(&args.ood, &options)?
        .into_iter()
        .map(|(name, set)| Ok((name, subset.apply_ood(&set)?)))
        .collect::<Result<Vec<_>>>()?;
    let sets: Vec<&str> = ood.iter().map(|(name, _)| &**name).collect();
    let statistics = args.statistics.plan(&sets, progress)?;
    let specs = split(args.scorers.as_deref().unwrap_or_default());
    if specs.is_empty() && args.detectors.is_empty() {
        let problem = "give `--scorers el,knn(k=50)` or `--detectors FILE`, or both";
        return Err(Error::config("scorers", "", problem).into());
    }
    let specs = specs.iter().map(|s| ScorerSpec::parse(s)).collect::<Result<Vec<_>, _>>()?;
    let needs_train = |what: &str| {
        data.as_ref().ok_or_else(|| {
            Error::missing(what, "training set", "give the training features with `--train`")
        })
    };
    let mut candidates = Vec::new();
    let mut abouts: Vec<About> = specs.iter().map(|s| About::fitted(&s.to_string())).collect();
    if !specs.is_empty() {
        let data = needs_train("--scorers")?;
        let fitted = fit_all(&specs, &data.train, data.head.as_ref(), progress)?;
        candidates.extend(specs.iter().zip(fitted).map(|(spec, fitted)| Candidate {
            name: spec.to_string(),
            scorer: fitted.scorer,
            fit_seconds: Some(fitted.seconds),
        }));
    }
    let mut calibrations = Vec::new();
    let files = args.detectors.iter().map(|text| named(text).1);
    for ((name, detector), file) in detectors(&args.detectors)?.into_iter().zip(files) {
        let scorer = detector.scorer().clone();
        warn_seen(&name, &detector.provenance, &id, &ood, progress)?;
        abouts.push(About::read(&name, &file, &detector.provenance));
        calibrations.push((abouts.len() - 1, detector.calibration.clone()));
        candidates.push(Candidate { name, scorer, fit_seconds: None });
    }
    for list in &args.combine {
        let data = needs_train("--combine")?;
        let combined = combine(&split(list), args.beta, &candidates, data, progress)?;
        abouts.push(About::fitted(&combined.name));
        candidates.push(combined);
    }
    for (i, c) in candidates.iter().enumerate() {
        if candidates[..i].iter().any(|other| other.name == c.name) {
            let problem = "there are two of that name; give a detector another with NAME=FILE, or rename \
                           the folder of a run";
            return Err(Error::config("scorers", &c.name, problem).into());
        }
    }
    let names: Vec<&str> = candidates.iter().map(|c| &*c.name).collect();
    check_scorers(&statistics, &names, args.format, args.output.as_deref(), progress)?;
    let report = args.report.is_some();
    let (all, compositions) = match report {
        true => report::with_members(&candidates),
        false => (Vec::new(), Vec::new()),
    };
    let scored = if report { &all } else { &candidates };
    let scores = score_all(&id, &ood, scored, report, progress)?;
    let mut results = measure(id.name(), &candidates, &scores)?;
    statistics.add_to(&mut results, &scores, progress)?;
    for (i, calibration) in calibrations.into_iter().filter(|_| report) {
        let theirs = ood.iter().zip(&scores.ood).map(|((_, set), (_, s))| (set, &*s[i].scores));
        let sets: Vec<_> = std::iter::once((&id, &*scores.id[i].scores)).chain(theirs).collect();
        let promise = calibration.map(|c| Promise::of(&c, &sets)).transpose()?;
        abouts[i].promise = promise;
    }
    progress.clear();
    let accuracy = match (&data, &args.head) {
        _ if args.format != EvalFormat::Openood => None,
        (None, Some(head)) => accuracy(&id, Some(&Head::open(head)?))?,
        (data, _) => accuracy(&id, data.as_ref().and_then(|d| d.head.as_ref()))?,
    };
    // Hashing reads the files once more.
    let of = |name: &str, set: &FeatureSet| match report {
        true => Set::of(name, set),
        false => Ok(Set { name: name.to_owned(), rows: set.len(), files: Vec::new() }),
    };
    let evaluation = Evaluation {
        id: of(id.name(), &id)?,
        ood: ood.iter().map(|(name, set)| of(name, set)).collect::<Result<_, _>>()?,
        head: data.as_ref().and_then(|d| d.head.as_ref()).map(Set::head),
        train: data.map(|d| of(d.train.name(), &d.train)).transpose()?,
        scorers: abouts,
        components: candidates.iter().map(|c| c.scorer.components()).collect(),
        scores,
        compositions,
    };
    Ok(Evaluated { results, evaluation, accuracy })
}

/// Say where settings were chosen on one of these sets, or ID rows were seen.
fn warn_seen(
    name: &str,
    provenance: &Provenance,
    id: &FeatureSet,
    ood: &[(String, FeatureSet)],
    progress: &Progress,
) -> Result<()> {
    if let Some(problem) = provenance.seen(id)? {
        progress.say(&format!("warning: {name}: {problem}: its results on them say little"));
    }
    for (set, features) in ood {
        if provenance.was_tuned_on(features)? {
            progress.say(&format!(
                "warning: the settings of {name} were chosen on {set}: its results there say \
                 nothing of unknown data"
            ));
        }
    }
    Ok(())
}

/// Open OOD sets given as `NAME=FEATURES`.
pub(super) fn ood_sets(
    list: &[String],
    options: &OpenOptions,
) -> Result<Vec<(String, FeatureSet)>> {
    let mut sets: Vec<(String, FeatureSet)> = Vec::new();
    for text in list {
        let (name, path) = named(text);
        const TAKEN: [&str; 4] = ["average", "mean", "nearood", "farood"];
        if TAKEN.contains(&&*name) || sets.iter().any(|(n, _)| *n == name) {
            let problem = format!(
                "there are two sets named `{name}` (averages are {}); write NAME=FEATURES",
                TAKEN.join(", ")
            );
            return Err(Error::config("ood", text, problem).into());
        }
        let slash = text.split_once('=').is_some_and(|(name, _)| name.contains(['/', '\\']));
        if slash && !path.exists() {
            let problem = "there is no such file, and a name holds no slash; write NAME=FEATURES";
            return Err(Error::config("ood", text, problem).into());
        }
        sets.push((name, FeatureSet::open_with(path, options)?));
    }
    Ok(sets)
}

pub(super) fn combine(
    names: &[String],
    beta: f64,
    candidates: &[Candidate],
    data: &Data,
    progress: &mut Progress,
) -> Result<Candidate> {
    let start = Instant::now();
    let mut members = Vec::new();
    for name in names {
        let found = candidates.iter().find(|c| c.name == *name).ok_or_else(|| {
            Error::unknown("scorer", name, candidates.iter().map(|c| c.name.as_str()))
        })?;
        members.push(Member::fit(name, found.scorer.clone(), &data.train, progress)?);
    }
    Ok(Candidate {
        name: format!("combine({},beta={beta})", names.join(",")),
        scorer: std::sync::Arc::new(Combined::new(members, beta)?),
        fit_seconds: Some(start.elapsed().as_secs_f64()),
    })
}

/// Split at commas outside brackets.
pub(super) fn split(list: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut depth = 0;
    for c in list.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            out.push(String::new());
        } else if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out.into_iter().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn commas_within_brackets_do_not_split() {
        assert_eq!(
            split("el, knn(k=50,normalize=true),ssd"),
            ["el", "knn(k=50,normalize=true)", "ssd"]
        );
        assert!(split("").is_empty());
    }
}
