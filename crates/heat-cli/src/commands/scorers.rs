//! Fitting scorers, composing them, and making detectors of them.

use std::time::Instant;

use anyhow::Result;
use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::evaluate::{Candidate, unscorable};
use heat_ood::scorers::{Group, Scorer, ScorerSpec, fit_all, fit_each};
use heat_ood::{Detector, Error, Fit, Fitted, TrainingData};

use super::{Data, TestSets, split};
use crate::progress::Progress;
use crate::words::with_help;

/// Fit scorers, all in one pass over the training set as far as they share what they need.
pub fn fit(specs: &[ScorerSpec], data: &Data, progress: &mut Progress) -> Result<Vec<Candidate>> {
    let fitted = fit_all(specs, &data.training(), progress)?;
    let candidates = specs.iter().zip(fitted).map(|(spec, (scorer, seconds))| Candidate {
        name: spec.to_string(),
        scorer,
        fit_seconds: Some(seconds),
    });
    Ok(candidates.collect())
}

/// Names with the reasons why they were left out.
pub type Skipped = Vec<(String, String)>;

/// The same, but that scorers which cannot be fitted are left out, unless this is `strict`.
///
/// # Errors
/// If it is strict and one cannot be fitted, or none can.
pub fn fit_possible(
    specs: &[ScorerSpec],
    data: &Data,
    strict: bool,
    progress: &mut Progress,
) -> Result<(Vec<Candidate>, Skipped)> {
    if strict {
        return Ok((fit(specs, data, progress)?, Vec::new()));
    }
    let (mut candidates, mut skipped, mut first) = (Vec::new(), Vec::new(), None);
    for (spec, fitted) in specs.iter().zip(fit_each(specs, &data.training(), progress)) {
        match fitted {
            Ok((scorer, seconds)) => candidates.push(Candidate {
                name: spec.to_string(),
                scorer,
                fit_seconds: Some(seconds),
            }),
            Err(error) => {
                skipped.push((spec.to_string(), with_help(error.to_string())));
                first.get_or_insert(error);
            }
        }
    }
    match first {
        // One alone has its own error.
        Some(error) if candidates.is_empty() => Err(error.into()),
        _ => Ok((candidates, skipped)),
    }
}

/// After that error of scoring them all: remove the candidates that cannot score these sets.
///
/// # Errors
/// The error itself, if none of them is the cause, or all are.
pub fn leave_out(
    error: Error,
    sets: &TestSets,
    candidates: &mut Vec<Candidate>,
    skipped: &mut Skipped,
    progress: &mut Progress,
) -> Result<()> {
    let failed = unscorable(&sets.id, &sets.ood, candidates, progress)?;
    if failed.is_empty() || failed.len() == candidates.len() {
        return Err(error.into());
    }
    for (i, error) in failed.into_iter().rev() {
        skipped.push((candidates.remove(i).name, with_help(error.to_string())));
    }
    Ok(())
}

/// The word for the fixed composition, and for its members.
pub const COMMITTEE: &str = "committee";

/// Scorers as a list names them: `knn(k=50),el`, and groups of them (`all`, `unlabelled`), for
/// such a training set. With `alternatives`, `knn(k=1|10)` stands for two.
pub fn specs(list: &str, alternatives: bool, data: Option<&Data>) -> Result<Vec<ScorerSpec>> {
    let (words, mut of_groups) = (split(list), Vec::new());
    let members = |group: Group| match data {
        Some(data) => group.scorers_for(&data.training()),
        None => group.scorers(),
    };
    for group in words.iter().filter_map(|word| Group::named(word)) {
        of_groups.extend(members(group));
    }
    let mut specs: Vec<ScorerSpec> = Vec::new();
    for word in &words {
        let named = match Group::named(word) {
            Some(group) => members(group),
            None if alternatives => ScorerSpec::parse_alternatives(word)?,
            None => vec![ScorerSpec::parse(word)?],
        };
        // What is in a group and named beside it is meant once.
        for spec in named {
            if !(of_groups.contains(&spec) && specs.contains(&spec)) {
                specs.push(spec);
            }
        }
    }
    Ok(specs)
}

/// The composition of fitted scorers, with their statistics over the training set.
pub fn compose(
    name: &str,
    members: Vec<Part>,
    beta: f64,
    data: &TrainingData,
    progress: &mut Progress,
) -> Result<Candidate> {
    let start = Instant::now();
    let scorer = CombinedConfig { members, beta }.fit(data, progress)?.into();
    let fit_seconds = Some(start.elapsed().as_secs_f64());
    Ok(Candidate { name: name.to_owned(), scorer, fit_seconds })
}

/// The composition of candidates, by their names.
pub fn combine(
    name: Option<&str>,
    names: &[String],
    beta: f64,
    candidates: &[Candidate],
    data: &Data,
    progress: &mut Progress,
) -> Result<Candidate> {
    let mut members = Vec::new();
    for name in names {
        let found = candidates.iter().find(|c| c.name == *name);
        let found = found.ok_or_else(|| {
            Error::unknown("scorer", name, candidates.iter().map(|c| c.name.as_str()))
        })?;
        members.push(Part::new(name, found.scorer.clone()));
    }
    let usual = format!("combine({},beta={beta})", names.join(","));
    compose(name.unwrap_or(&usual), members, beta, &data.training(), progress)
}

/// A detector that says how it was made.
pub fn detector(scorer: impl Into<Fitted<dyn Scorer>>, recipe: &str) -> Detector {
    let mut detector = Detector::new(scorer);
    detector.record_recipe(recipe, None);
    detector
}
