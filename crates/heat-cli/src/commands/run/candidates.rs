//! What a run evaluates: scorers asked for by name and what was trained, each
//! on the images as they are or perturbed.

use anyhow::Result;
use heat_images::backbone::Perturbation;
use heat_ood::evaluate::{Candidate, Results, evaluate};
use heat_ood::scorers::{Scorer, ScorerSpec, fit_each};
use heat_ood::{Error, Fitted};

use super::images::Images;
use crate::commands::scorers::{Skipped, leave_out};
use crate::commands::{Data, TestSets, split};
use crate::progress::{Progress, interrupted};
use crate::words::with_help;

/// ODIN's published ε.
const EPSILON: f64 = 0.0014;

/// A scorer as the command names it.
pub struct Asked {
    text: String,
    /// Its name and settings without ε.
    plain: String,
    epsilon: f64,
}

impl Asked {
    /// Read `odin(epsilon=0.0014),knn(k=50)`.
    pub fn parse(list: &str) -> Result<Vec<Self>> {
        split(list).into_iter().map(Self::one).collect()
    }

    /// That it is a scorer or one of those to be trained.
    pub fn check<'a>(&self, mut trained: impl Iterator<Item = &'a str>) -> Result<()> {
        if trained.any(|name| name == self.plain) {
            return Ok(());
        }
        Ok(ScorerSpec::parse(&self.plain).map(drop)?)
    }

    fn one(text: String) -> Result<Self> {
        let (name, inner) = match text.strip_suffix(')').and_then(|t| t.split_once('(')) {
            Some((name, inner)) => (name.to_owned(), inner.to_owned()),
            None => (text.clone(), String::new()),
        };
        let mut epsilon = if name == "odin" { EPSILON } else { 0.0 };
        let mut settings = Vec::new();
        for setting in inner.split(',').map(str::trim).filter(|s| !s.is_empty()) {
            match setting.split_once('=') {
                Some((key, value)) if key.trim() == "epsilon" => {
                    let problem = "expected a number of at least 0, such as 0.0014";
                    let number = value.trim().parse::<f64>().ok();
                    epsilon = number
                        .filter(|e| e.is_finite() && *e >= 0.0)
                        .ok_or_else(|| Error::config("epsilon", value, problem))?;
                }
                _ => settings.push(setting),
            }
        }
        let plain = match settings.is_empty() {
            true => name,
            false => format!("{name}({})", settings.join(",")),
        };
        Ok(Asked { text, plain, epsilon })
    }
}

/// Evaluate all: each perturbation reads features of its own. Scorers that fail are left out, with
/// their reasons, unless this is `strict`.
pub fn evaluate_all(
    asked: &[Asked],
    trained: &[(String, Fitted<dyn Scorer>)],
    data: &Data,
    images: &Images,
    strict: bool,
    progress: &mut Progress,
) -> Result<Results> {
    let mut skipped = Skipped::new();
    let fitted = fitted(asked, trained, data, strict, &mut skipped, progress)?;
    let (perturbed, plain): (Vec<_>, Vec<_>) =
        fitted.into_iter().partition(|(_, asked)| asked.epsilon > 0.0);
    let mut plain: Vec<Candidate> = plain.into_iter().map(|(candidate, _)| candidate).collect();
    for (name, scorer) in trained {
        let scorer = scorer.clone();
        plain.push(Candidate { name: name.clone(), scorer, fit_seconds: None });
    }
    let sets = images.test_sets(&data.subset)?;
    let mut results = loop {
        match evaluate(&sets.id, &sets.ood, &plain, progress) {
            Ok(results) => break results,
            Err(error) if strict => return Err(error.into()),
            Err(error) => leave_out(error, &sets, &mut plain, &mut skipped, progress)?,
        }
    };
    for (candidate, asked) in perturbed {
        let name = candidate.name.clone();
        match evaluate_perturbed(candidate, asked.epsilon, data, images, progress) {
            Ok(theirs) => {
                results.scorers.extend(theirs.scorers);
                results.warnings.extend(theirs.warnings);
            }
            Err(error) if strict || interrupted() => return Err(error),
            Err(error) => skipped.push((name, with_help(format!("{error:#}")))),
        }
    }
    progress.clear();
    for (name, reason) in &skipped {
        progress.warn(&format!("{name} is left out: {reason}"));
    }
    // In the order asked, then what was trained.
    let place = |name: &str| asked.iter().position(|a| a.text == name).unwrap_or(asked.len());
    results.scorers.sort_by_key(|(name, _)| place(name));
    skipped.sort_by_key(|(name, _)| place(name));
    results.skipped = skipped;
    Ok(results)
}

/// Evaluate one on images that are perturbed by it first.
fn evaluate_perturbed(
    candidate: Candidate,
    epsilon: f64,
    data: &Data,
    images: &Images,
    progress: &mut Progress,
) -> Result<Results> {
    let perturbation = Perturbation::new(candidate.scorer.scorer().clone(), epsilon)?;
    let TestSets { id, ood } = images.perturbed(perturbation, &data.subset, progress)?;
    Ok(evaluate(&id, &ood, &[candidate], progress)?)
}

/// A candidate each: fitted, or what was trained under that name.
fn fitted<'a>(
    asked: &'a [Asked],
    trained: &[(String, Fitted<dyn Scorer>)],
    data: &Data,
    strict: bool,
    skipped: &mut Skipped,
    progress: &mut Progress,
) -> Result<Vec<(Candidate, &'a Asked)>> {
    let known = |a: &Asked| trained.iter().find(|(name, _)| *name == a.plain);
    let specs = asked.iter().filter(|a| known(a).is_none()).map(|a| ScorerSpec::parse(&a.plain));
    let specs = specs.collect::<heat_ood::Result<Vec<_>>>()?;
    let mut fitted = fit_each(&specs, &data.training(), progress).into_iter();
    let mut candidates = Vec::new();
    for a in asked {
        let found = match known(a) {
            Some((_, scorer)) => Some(Ok((scorer.clone(), None))),
            None => fitted.next().map(|f| f.map(|(scorer, seconds)| (scorer, Some(seconds)))),
        };
        match found {
            Some(Ok((scorer, fit_seconds))) => {
                candidates.push((Candidate { name: a.text.clone(), scorer, fit_seconds }, a));
            }
            Some(Err(error)) if strict => return Err(error.into()),
            Some(Err(error)) => skipped.push((a.text.clone(), with_help(error.to_string()))),
            None => {}
        }
    }
    Ok(candidates)
}
