//! Fitting scorers, composing them, and making detectors of them.

use std::time::Instant;

use anyhow::Result;
use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::evaluate::Candidate;
use heat_ood::scorers::{Scorer, ScorerSpec, fit_all};
use heat_ood::{Detector, Error, Fit, Fitted, TrainingData};

use super::Data;
use crate::progress::Progress;

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
    let name = format!("combine({},beta={beta})", names.join(","));
    compose(&name, members, beta, &data.training(), progress)
}

/// A detector that says how it was made.
pub fn detector(scorer: impl Into<Fitted<dyn Scorer>>, recipe: &str) -> Detector {
    let mut detector = Detector::new(scorer);
    detector.record_recipe(recipe, None);
    detector
}
