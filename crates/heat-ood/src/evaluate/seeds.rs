//! Mean and deviation over seeds: scorers named `NAME@SEED`.

use serde::Serialize;

use super::{ScorerResults, as_map};
use crate::error::{Error, Result};
use crate::metrics::{self, Metrics, Spread};

/// Mean and unbiased standard deviation of every metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MetricsSpread {
    /// The means.
    pub mean: Metrics,
    /// The standard deviations, with n − 1.
    pub std: Metrics,
}

/// What several seeds of one scorer come to.
#[derive(Debug, Clone, Serialize)]
pub struct SeedResults {
    /// The seeds, in the order of the scorers.
    pub seeds: Vec<u64>,
    /// Over the seeds, on each OOD set.
    #[serde(serialize_with = "as_map")]
    pub ood: Vec<(String, MetricsSpread)>,
    /// Of the average over the OOD sets.
    pub average: MetricsSpread,
    /// Of the average over the near sets, where there are groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<MetricsSpread>,
    /// Of the average over the far sets, where there are groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far: Option<MetricsSpread>,
}

impl MetricsSpread {
    /// Of at least two.
    fn of(values: &[Metrics]) -> Self {
        let mean = metrics::average(values);
        let std = |i: usize| {
            let column: Vec<f64> = values.iter().map(|m| m.to_array()[i]).collect();
            Spread::of(&column).and_then(|s| s.std).unwrap_or(f64::NAN)
        };
        MetricsSpread { mean, std: Metrics::from_array(std::array::from_fn(std)) }
    }
}

/// `NAME@SEED` in its parts.
fn seeded(name: &str) -> Option<(&str, u64)> {
    let (name, seed) = name.rsplit_once('@')?;
    Some((name, seed.parse().ok()?)).filter(|_| !name.is_empty())
}

/// One NAME, its seeds, and where they are among the scorers.
type Group<'a> = (&'a str, Vec<u64>, Vec<usize>);

/// Every NAME of which there are two seeds or more.
///
/// # Errors
/// If a scorer has the very name of such a summary.
pub(super) fn groups<'a>(names: &[&'a str]) -> Result<Vec<Group<'a>>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let Some((name, seed)) = seeded(name) else { continue };
        match groups.iter_mut().find(|g| g.0 == name) {
            Some(group) if group.1.contains(&seed) => {
                let problem = "that seed is there twice; every one is counted once";
                return Err(Error::config("detectors", format!("{name}@{seed}"), problem));
            }
            Some(group) => {
                group.1.push(seed);
                group.2.push(place);
            }
            None => groups.push((name, vec![seed], vec![place])),
        }
    }
    groups.retain(|g| g.1.len() > 1);
    if let Some((name, ..)) = groups.iter().find(|g| names.contains(&g.0)) {
        let problem = "that is the name of the summary over its seeds; give the scorer another";
        return Err(Error::config("detectors", name, problem));
    }
    Ok(groups)
}

/// The summary of every NAME of which there are two seeds or more.
///
/// # Errors
/// As [`groups`].
pub(super) fn summaries(scorers: &[(String, ScorerResults)]) -> Result<Vec<(String, SeedResults)>> {
    let names: Vec<&str> = scorers.iter().map(|(name, _)| &**name).collect();
    let one = |(name, seeds, places): Group<'_>| {
        let all: Vec<&ScorerResults> = places.iter().map(|&i| &scorers[i].1).collect();
        (name.to_owned(), summary(seeds, &all))
    };
    Ok(groups(&names)?.into_iter().map(one).collect())
}

fn summary(seeds: Vec<u64>, all: &[&ScorerResults]) -> SeedResults {
    let of = |value: &dyn Fn(&ScorerResults) -> Option<Metrics>| {
        let values: Vec<Metrics> = all.iter().filter_map(|r| value(r)).collect();
        (values.len() == all.len()).then(|| MetricsSpread::of(&values))
    };
    let averages: Vec<Metrics> = all.iter().map(|r| r.average.metrics).collect();
    let names = all[0].ood.iter().map(|(name, _)| name);
    let on = |name: &String| {
        of(&|r| r.ood.iter().find(|(n, _)| n == name).map(|(_, s)| s.metrics))
            .map(|spread| (name.clone(), spread))
    };
    SeedResults {
        ood: names.filter_map(on).collect(),
        average: MetricsSpread::of(&averages),
        near: of(&|r| r.near.as_ref().map(|a| a.metrics)),
        far: of(&|r| r.far.as_ref().map(|a| a.metrics)),
        seeds,
    }
}
