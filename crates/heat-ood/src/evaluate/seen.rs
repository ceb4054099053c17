//! Test rows that were seen elsewhere: results on them say little.

use super::Candidate;
use crate::error::Result;
use crate::features::{FeatureSet, FieldSet, RowSketch};
use crate::provenance::{Provenance, SEEN};

/// One warning for each test set with rows that a candidate was fitted or tuned on, and one for
/// each OOD set that holds rows of the ID set.
///
/// # Errors
/// If a set cannot be read.
pub fn seen(
    id: &FeatureSet,
    ood: &[(String, FeatureSet)],
    candidates: &[Candidate],
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let theirs = ood.iter().map(|(name, set)| (format!("the OOD set `{name}`"), set));
    for (set, features) in std::iter::once((format!("the ID set {}", id.name()), id)).chain(theirs)
    {
        let say_little = |what: &str, whose: &[&str]| {
            let whose = whose.join(", ");
            format!("{set}: {what} (of {whose}): results on them say little")
        };
        let training = |p: &Provenance| p.contamination(features);
        let tuning = |p: &Provenance| {
            let tuned = p.was_tuned_on(features)?;
            Ok(tuned.then(|| {
                "rows of it were negatives in training, or settings were chosen on them".to_owned()
            }))
        };
        for (what, whose) in
            by_finding(candidates, &training)?.into_iter().chain(by_finding(candidates, &tuning)?)
        {
            warnings.push(say_little(&what, &whose));
        }
    }
    warnings.extend(id_among_ood(id, ood, candidates)?);
    Ok(warnings)
}

/// What is found of the candidates' records, each with the names of those it is true of. Those who
/// have seen the same are looked at once.
fn by_finding<'a>(
    candidates: &'a [Candidate],
    find: &dyn Fn(&Provenance) -> Result<Option<String>>,
) -> Result<Vec<(String, Vec<&'a str>)>> {
    let mut known: Vec<(&Provenance, Option<String>)> = Vec::new();
    let mut findings: Vec<(String, Vec<&str>)> = Vec::new();
    for candidate in candidates {
        let provenance = candidate.scorer.provenance();
        let found = match known.iter().find(|(other, _)| other.has_seen_as(provenance)) {
            Some((_, found)) => found.clone(),
            None => {
                let found = find(provenance)?;
                known.push((provenance, found.clone()));
                found
            }
        };
        let Some(found) = found else { continue };
        match findings.iter_mut().find(|(other, _)| *other == found) {
            Some((_, whose)) => whose.push(&candidate.name),
            None => findings.push((found, vec![&candidate.name])),
        }
    }
    Ok(findings)
}

fn id_among_ood(
    id: &FeatureSet,
    ood: &[(String, FeatureSet)],
    candidates: &[Candidate],
) -> Result<Vec<String>> {
    // Any field does by which rows are known.
    let read = candidates.first().map(|c| c.scorer.needs(id)).transpose()?;
    let field = read.and_then(|needs| needs.fields().next());
    let Some(field) = field else { return Ok(Vec::new()) };
    let rows = RowSketch::of(id, &FieldSet::of(field))?;
    let mut warnings = Vec::new();
    for (name, set) in ood {
        if let Some((o, shared)) = rows.shared(set)?.filter(|(o, _)| o.fraction() > SEEN) {
            warnings.push(format!(
                "the OOD set `{name}`: {} of {} rows that were compared are rows of the ID set \
                 ({}): they are counted as both",
                o.shared,
                o.compared,
                set.rows_text(&shared)
            ));
        }
    }
    Ok(warnings)
}
