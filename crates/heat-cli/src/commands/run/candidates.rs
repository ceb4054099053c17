//! What a run evaluates: scorers asked for by name and what was trained, each
//! on the images as they are or perturbed.

use anyhow::Result;
use heat_images::backbone::Perturbation;
use heat_ood::evaluate::{Candidate, Results, evaluate};
use heat_ood::scorers::{Scorer, ScorerSpec};
use heat_ood::{Error, Fitted};

use super::images::Images;
use crate::commands::scorers;
use crate::commands::{Data, TestSets, split};
use crate::progress::Progress;

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

/// Evaluate all: each perturbation reads features of its own.
pub fn evaluate_all(
    asked: &[Asked],
    trained: &[(String, Fitted<dyn Scorer>)],
    data: &Data,
    images: &Images,
    progress: &mut Progress,
) -> Result<Results> {
    let fitted = fitted(asked, trained, data, progress)?.into_iter().zip(asked);
    let (perturbed, plain): (Vec<_>, Vec<_>) = fitted.partition(|(_, asked)| asked.epsilon > 0.0);
    let mut plain: Vec<Candidate> = plain.into_iter().map(|(candidate, _)| candidate).collect();
    for (name, scorer) in trained {
        let scorer = scorer.clone();
        plain.push(Candidate { name: name.clone(), scorer, fit_seconds: None });
    }
    let TestSets { id, ood } = images.test_sets(&data.subset)?;
    let mut results = evaluate(&id, &ood, &plain, progress)?;
    for (candidate, asked) in perturbed {
        let perturbation = Perturbation::new(candidate.scorer.scorer().clone(), asked.epsilon)?;
        let TestSets { id, ood } = images.perturbed(perturbation, &data.subset, progress)?;
        let theirs = evaluate(&id, &ood, &[candidate], progress)?;
        results.scorers.extend(theirs.scorers);
        results.warnings.extend(theirs.warnings);
    }
    // In the order asked, then what was trained.
    let place = |name: &str| asked.iter().position(|a| a.text == name).unwrap_or(asked.len());
    results.scorers.sort_by_key(|(name, _)| place(name));
    Ok(results)
}

/// A candidate each: fitted, or what was trained under that name.
fn fitted(
    asked: &[Asked],
    trained: &[(String, Fitted<dyn Scorer>)],
    data: &Data,
    progress: &mut Progress,
) -> Result<Vec<Candidate>> {
    let known = |a: &Asked| trained.iter().find(|(name, _)| *name == a.plain);
    let specs = asked.iter().filter(|a| known(a).is_none()).map(|a| ScorerSpec::parse(&a.plain));
    let mut fitted =
        scorers::fit(&specs.collect::<Result<Vec<_>, _>>()?, data, progress)?.into_iter();
    let candidate = |a: &Asked| match known(a) {
        Some((_, scorer)) => {
            Some(Candidate { name: a.text.clone(), scorer: scorer.clone(), fit_seconds: None })
        }
        None => fitted.next().map(|found| Candidate { name: a.text.clone(), ..found }),
    };
    Ok(asked.iter().filter_map(candidate).collect())
}
