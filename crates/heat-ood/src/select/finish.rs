//! The chosen scorers, fitted on the whole training set and composed.

use super::deal::Deal;
use crate::compose::{Combined, CombinedConfig, Part, mean_std};
use crate::error::Result;
use crate::features::FeatureSet;
use crate::observe::Observer;
use crate::scorers::{
    Fit, Fitted, Scorer, ScorerSpec, TrainingData, committee, fit_all, fit_each, score_together,
};

/// How the members of a composition are brought to one scale.
#[derive(Clone, Copy)]
pub enum Standardise<'a> {
    /// By their scores of the training set, on which they were fitted.
    Training,
    /// By their scores of ID rows that were held out of training.
    HeldOut(&'a FeatureSet),
    /// By the scores of a fifth of the training rows, drawn with this seed, after a fit on the
    /// others; of the training set as it is, where no class has five rows.
    Fifth(u64),
    /// By these means and deviations.
    Known(&'a [(f64, f64)]),
}

/// Fit scorers on the whole training set and compose them, with these weights; one alone stays
/// what it is.
///
/// # Errors
/// If a scorer cannot be fitted, all its scores are equal, or rows that are said to be held out
/// are training rows.
pub fn fit_composition(
    composition: &[(String, f64)],
    standardise: Standardise<'_>,
    data: &TrainingData,
    observer: &mut dyn Observer,
) -> Result<Fitted<dyn Scorer>> {
    let specs = composition.iter().map(|(name, _)| ScorerSpec::parse(name));
    let specs = specs.collect::<Result<Vec<_>>>()?;
    let fitted = fit_all(&specs, data, observer)?;
    let parts = composition
        .iter()
        .zip(fitted)
        .map(|((name, weight), (scorer, _))| Part { weight: *weight, ..Part::new(name, scorer) });
    compose(&specs, parts.collect(), standardise, data, observer)
}

/// The fixed [`committee`] of such data, fitted and composed; its members by name; and those that
/// cannot be fitted, with the reasons.
pub struct FittedCommittee {
    /// The composition.
    pub scorer: Fitted<dyn Scorer>,
    /// Who is in it.
    pub members: Vec<String>,
    /// Who is not, and why.
    pub skipped: Vec<(String, String)>,
}

/// Fit the fixed [`committee`] of such data, as far as its members can be.
///
/// # Errors
/// If none can be fitted, or as [`fit_composition`].
pub fn fit_committee(
    standardise: Standardise<'_>,
    data: &TrainingData,
    observer: &mut dyn Observer,
) -> Result<FittedCommittee> {
    let all = committee(data);
    let (mut specs, mut parts) = (Vec::new(), Vec::new());
    let (mut skipped, mut first) = (Vec::new(), None);
    for (spec, fitted) in all.iter().zip(fit_each(&all, data, observer)) {
        match fitted {
            Ok((scorer, _)) => {
                parts.push(Part::new(spec.to_string(), scorer));
                specs.push(spec.clone());
            }
            Err(error) => {
                skipped.push((spec.to_string(), error.to_string()));
                first.get_or_insert(error);
            }
        }
    }
    if let (true, Some(error)) = (parts.is_empty(), first) {
        return Err(error);
    }
    let members = parts.iter().map(|part| part.name.clone()).collect();
    let scorer = compose(&specs, parts, standardise, data, observer)?;
    Ok(FittedCommittee { scorer, members, skipped })
}

/// Fitted scorers as one.
fn compose(
    specs: &[ScorerSpec],
    mut members: Vec<Part>,
    standardise: Standardise<'_>,
    data: &TrainingData,
    observer: &mut dyn Observer,
) -> Result<Fitted<dyn Scorer>> {
    if members.len() == 1 {
        return Ok(members.remove(0).scorer);
    }
    let config = CombinedConfig { members, beta: 0.0 };
    let scale = match standardise {
        Standardise::Training => None,
        Standardise::HeldOut(set) => {
            return Ok(config.fit_held_out(set, false, observer)?.into());
        }
        Standardise::Fifth(seed) => fifth(specs, seed, data, observer)?,
        Standardise::Known(scale) => Some(scale.to_vec()),
    };
    let Some(scale) = scale else { return Ok(config.fit(data, observer)?.into()) };
    let name = data.features.name();
    let members = config.members.iter().zip(scale);
    let members = members.map(|(part, (mean, std))| part.standardised(mean, std, name));
    let combined = Combined::new(members.collect::<Result<_>>()?, config.beta)?;
    Ok(Fitted::of_parts(combined, config.members.iter().map(|m| m.scorer.provenance())).into())
}

/// Mean and deviation of each scorer over a fifth of the training rows, fitted on the others;
/// none where there are no such rows.
fn fifth(
    specs: &[ScorerSpec],
    seed: u64,
    data: &TrainingData,
    observer: &mut dyn Observer,
) -> Result<Option<Vec<(f64, f64)>>> {
    let train = &data.features;
    let labels = match train.labelled() {
        true => train.labels(0..train.len(), data.count_classes()?)?,
        false => vec![0; train.len()],
    };
    let dealt = Deal { labels: &labels, most: labels.len(), seed }.fold(&[], 0);
    if dealt.validation.len() < 2 {
        return Ok(None);
    }
    let mut part = data.clone();
    part.features = train.select(dealt.fit, None)?;
    let held_out = train.select(dealt.validation, None)?;
    let fitted = fit_all(specs, &part, observer)?;
    let scorers: Vec<&dyn Scorer> = fitted.iter().map(|(scorer, _)| &**scorer).collect();
    let scored = score_together(&held_out, &scorers, false, observer)?;
    Ok(Some(scored.iter().map(|s| mean_std(&s.scores)).collect()))
}
