//! Fitting scorers, composing them, and making detectors of them.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use heat_ood::compose::{Combined, Member};
use heat_ood::evaluate::Candidate;
use heat_ood::features::FeatureSet;
use heat_ood::scorers::{Scorer, ScorerSpec, fit_all};
use heat_ood::{Detector, Error};

use super::Data;
use crate::progress::Progress;

/// Fit scorers, all in one pass over the training set as far as they share what they need.
pub fn fit(specs: &[ScorerSpec], data: &Data, progress: &mut Progress) -> Result<Vec<Candidate>> {
    let fitted = fit_all(specs, &data.train, data.head.as_ref(), progress)?;
    let candidates = specs.iter().zip(fitted).map(|(spec, fitted)| Candidate {
        name: spec.to_string(),
        scorer: fitted.scorer,
        fit_seconds: Some(fitted.seconds),
    });
    Ok(candidates.collect())
}

/// A member of a composition: its name, the scorer, its weight.
pub type Part<'a> = (&'a str, &'a Arc<dyn Scorer>, f64);

/// The composition of fitted scorers, with their statistics over the training set.
pub fn compose<'a>(
    name: &str,
    parts: impl IntoIterator<Item = Part<'a>>,
    beta: f64,
    train: &FeatureSet,
    progress: &mut Progress,
) -> Result<Candidate> {
    let start = Instant::now();
    let mut members = Vec::new();
    for (name, scorer, weight) in parts {
        let member = Member::fit(name, Arc::clone(scorer), train, progress)?;
        members.push(Member { weight, ..member });
    }
    Ok(Candidate {
        name: name.to_owned(),
        scorer: Arc::new(Combined::new(members, beta)?),
        fit_seconds: Some(start.elapsed().as_secs_f64()),
    })
}

/// The composition of candidates, by their names.
pub fn combine(
    names: &[String],
    beta: f64,
    candidates: &[Candidate],
    train: &FeatureSet,
    progress: &mut Progress,
) -> Result<Candidate> {
    let mut parts = Vec::new();
    for name in names {
        let found = candidates.iter().find(|c| c.name == *name);
        let found = found.ok_or_else(|| {
            Error::unknown("scorer", name, candidates.iter().map(|c| c.name.as_str()))
        })?;
        parts.push((name.as_str(), &found.scorer, 1.0));
    }
    compose(&format!("combine({},beta={beta})", names.join(",")), parts, beta, train, progress)
}

/// A detector that remembers how it came about, and the rows that it has seen.
pub fn detector(
    scorer: &Arc<dyn Scorer>,
    recipe: Option<String>,
    train: &FeatureSet,
) -> Result<Detector> {
    let mut detector = Detector::shared(Arc::clone(scorer));
    detector.provenance.recipe = recipe;
    detector.trained_on(train)?;
    Ok(detector)
}
