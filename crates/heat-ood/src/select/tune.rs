//! Choosing settings on an OOD *validation* set, by OpenOOD's protocol: every
//! candidate is fitted on the training set, and the one with the highest mean
//! AUROC of ID validation rows against the OOD validation sets is taken. Test
//! sets play no part.
//!
//! Each candidate is fitted anew, alone, and the SHA-256 of everything that
//! the fit found is kept: equal ones of different settings show a setting
//! without effect, as happened unnoticed in other libraries' searches.
//!
//! Reference: Zhang et al., *OpenOOD v1.5*, 2023, §3.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::features::FeatureSet;
use crate::metrics;
use crate::observe::Observer;
use crate::scorers::{ScorerSpec, Section, TrainingData};

/// One candidate of a search.
#[derive(Debug, Clone, Serialize)]
pub struct Tuned {
    /// The scorer as written.
    pub name: String,
    /// Number of its fit, from 1, in order.
    pub fit: usize,
    /// SHA-256 of the fitted scorer's settings and tensors.
    pub sha256: String,
    /// SHA-256 of its tensors alone.
    pub tensors_sha256: String,
    /// Mean AUROC over the validation sets.
    pub auroc: f64,
    /// AUROC against each validation set.
    pub by_set: Vec<(String, f64)>,
}

/// What a search found.
#[derive(Debug, Clone, Serialize)]
pub struct Tuning {
    /// The candidates in the order tried.
    pub candidates: Vec<Tuned>,
    /// Place of the best among them.
    pub best: usize,
    /// Candidates that could not be fitted or scored, each with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(String, String)>,
}

/// Fit and judge every candidate; one that cannot be fitted or scored is left out, unless
/// this is `strict`.
///
/// # Errors
/// If there is none, two are written alike, none can be fitted and scored, or one cannot and
/// this is `strict`.
pub fn tune(
    specs: &[ScorerSpec],
    data: &TrainingData,
    id: &FeatureSet,
    ood: &[(String, FeatureSet)],
    strict: bool,
    observer: &mut dyn Observer,
) -> Result<Tuning> {
    if specs.is_empty() || ood.is_empty() {
        let problem = "name candidates, e.g. `knn(k=1|10|50)`, and at least one validation set";
        return Err(Error::config("scorers", "", problem));
    }
    if let Some(twice) = (1..specs.len()).find(|&i| specs[..i].contains(&specs[i])) {
        return Err(Error::config("scorers", &specs[twice], "is named twice"));
    }
    let (mut candidates, mut skipped) = (Vec::<Tuned>::new(), Vec::new());
    for (i, spec) in specs.iter().enumerate() {
        match judge(spec, i + 1, data, id, ood, observer) {
            Ok(candidate) => candidates.push(candidate),
            Err(error) if strict || (candidates.is_empty() && i + 1 == specs.len()) => {
                return Err(error);
            }
            Err(error) => skipped.push((spec.to_string(), error.to_string())),
        }
    }
    let mut best = 0;
    for (i, c) in candidates.iter().enumerate() {
        if c.auroc > candidates[best].auroc {
            best = i;
        }
    }
    Ok(Tuning { candidates, best, skipped })
}

/// Fit one, and find its AUROC against each set.
fn judge(
    spec: &ScorerSpec,
    fit: usize,
    data: &TrainingData,
    id: &FeatureSet,
    ood: &[(String, FeatureSet)],
    observer: &mut dyn Observer,
) -> Result<Tuned> {
    let scorer = spec.fit(data, observer)?;
    let (sha256, tensors_sha256) = digests(scorer.section());
    let ours = scorer.score_observed(id, observer)?;
    let mut by_set = Vec::new();
    for (set, features) in ood {
        let theirs = scorer.score_observed(features, observer)?;
        by_set.push((set.clone(), metrics::auroc(&ours, &theirs)?));
    }
    let auroc = by_set.iter().map(|(_, a)| a).sum::<f64>() / by_set.len() as f64;
    Ok(Tuned { name: spec.to_string(), fit, sha256, tensors_sha256, auroc, by_set })
}

fn digests(section: Section) -> (String, String) {
    let mut tensors = Vec::new();
    let outline = section.flatten("", &mut tensors);
    let mut hash = Sha256::new();
    for (name, tensor) in &tensors {
        hash.update(name.as_bytes());
        hash.update(tensor.bytes());
    }
    let of_tensors = hash.clone();
    hash.update(serde_json::to_string(&outline).unwrap_or_default().as_bytes());
    let hex = |h: Sha256| h.finalize().iter().map(|b| format!("{b:02x}")).collect::<String>();
    (hex(hash), hex(of_tensors))
}
