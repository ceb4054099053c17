//! What a run evaluates: scorers asked for by name and what was trained, each
//! on the pictures as they are or perturbed.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use heat_images::backbone::Perturbation;
use heat_ood::Error;
use heat_ood::evaluate::{Candidate, Results, evaluate};
use heat_ood::scorers::{Scorer, ScorerSpec};

use super::pictures::Pictures;
use crate::commands::Data;
use crate::commands::eval::split;
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
    trained: &[(String, Arc<dyn Scorer>)],
    data: &Data,
    pictures: &Pictures,
    progress: &mut Progress,
) -> Result<Results> {
    let (mut plain, mut perturbed) = (Vec::new(), Vec::new());
    for scorer in asked {
        let candidate = fit(scorer, trained, data, progress)?;
        if scorer.epsilon > 0.0 {
            perturbed.push((candidate, scorer.epsilon));
        } else {
            plain.push(candidate);
        }
    }
    for (name, scorer) in trained {
        let scorer = scorer.clone();
        plain.push(Candidate { name: name.clone(), scorer, fit_seconds: None });
    }
    let (id, ood) = pictures.test_sets(&data.subset)?;
    let mut results = evaluate(&id, &ood, &plain, progress)?;
    for (candidate, epsilon) in perturbed {
        let perturbation = Perturbation::new(candidate.scorer.clone(), epsilon)?;
        let (id, ood) = pictures.perturbed(perturbation, &data.subset, progress)?;
        let theirs = evaluate(&id, &ood, &[candidate], progress)?;
        results.scorers.extend(theirs.scorers);
    }
    // In the order asked, then what was trained.
    let place = |name: &str| asked.iter().position(|a| a.text == name).unwrap_or(asked.len());
    results.scorers.sort_by_key(|(name, _)| place(name));
    Ok(results)
}

/// Fit a scorer, or take what was trained under that name.
fn fit(
    asked: &Asked,
    trained: &[(String, Arc<dyn Scorer>)],
    data: &Data,
    progress: &mut Progress,
) -> Result<Candidate> {
    let name = asked.text.clone();
    if let Some((_, scorer)) = trained.iter().find(|(trained, _)| *trained == asked.plain) {
        return Ok(Candidate { name, scorer: scorer.clone(), fit_seconds: None });
    }
    let start = Instant::now();
    let scorer = ScorerSpec::parse(&asked.plain)?;
    let scorer = scorer.fit(&data.train, data.head.as_ref(), progress)?;
    Ok(Candidate { name, scorer, fit_seconds: Some(start.elapsed().as_secs_f64()) })
}
