//! The evaluation that a report is of: scorers on an ID set and OOD sets.

use std::any::Any;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use heat_ood::calibrate::{Calibration, Ties};
use heat_ood::compose::Combined;
use heat_ood::evaluate::{Candidate, Results, Scores, measure, score_all};
use heat_ood::features::{FeatureSet, Head};
use heat_ood::{Detector, Error, Fitted, Observer, Provenance, Result};

use super::places;

/// The evaluation that a report is of. Scorers are in the order of its table.
#[derive(Clone)]
pub struct Evaluation {
    pub(super) id: Set,
    pub(super) ood: Vec<Set>,
    pub(super) train: Option<Set>,
    pub(super) head: Option<Set>,
    pub(super) scorers: Vec<About>,
    /// Of the scorers, then of further members of compositions.
    pub(super) scores: Scores,
    pub(super) compositions: Vec<Composition>,
    /// Names of each scorer's components.
    pub(super) components: Vec<Vec<Cow<'static, str>>>,
}

/// A feature set.
#[derive(Clone)]
pub(super) struct Set {
    pub name: String,
    pub rows: usize,
    /// Name and SHA-256 of its files.
    pub files: Vec<(String, String)>,
}

/// Where a scorer comes from.
#[derive(Clone)]
pub(super) struct About {
    pub name: String,
    /// Fitted here, or read.
    pub origin: String,
    pub provenance: Provenance,
    /// What its own calibration says of these sets, where it has one.
    pub promise: Option<Promise>,
}

/// A detector's promise, and what became of it.
#[derive(Clone)]
pub(super) struct Promise {
    pub words: String,
    /// Files of the calibration rows.
    pub files: Vec<(String, String)>,
    /// Thresholds: one, or one a class.
    pub thresholds: Vec<f32>,
    /// Fractions of the ID rows, and of each OOD set's, that it flags.
    pub flagged: Vec<f64>,
}

/// A composition whose members' scores are known.
#[derive(Clone)]
pub(super) struct Composition {
    pub name: String,
    pub beta: f64,
    pub members: Vec<MemberScores>,
}

/// A member of a composition.
#[derive(Clone)]
pub(super) struct MemberScores {
    pub name: String,
    /// Which entry of the scores is its own.
    pub entry: usize,
    /// Of its scores over the training set.
    pub mean: f64,
    pub std: f64,
}

impl Evaluation {
    /// Score the sets with every candidate, and measure. What a report shows beyond the results is
    /// kept: the parts of energies, the scores of the members of compositions.
    ///
    /// # Errors
    /// If a set cannot be scored, or its files cannot be read once more for their hashes.
    pub fn of(
        id: &FeatureSet,
        ood: &[(String, FeatureSet)],
        candidates: &[Candidate],
        observer: &mut dyn Observer,
    ) -> Result<(Results, Self)> {
        // A composition's members are often candidates: nothing is scored twice.
        let (all, compositions) = with_members(candidates);
        let scores = score_all(id, ood, &all, true, observer)?;
        let sets = |(name, set): &(String, FeatureSet)| Set::of(name, set);
        let (id_set, ood_sets) =
            (Set::of(id.name(), id)?, ood.iter().map(sets).collect::<Result<_>>()?);
        let results = measure(id.name(), candidates, &scores)?.with_seen(id, ood, candidates)?;
        Ok((results, Evaluation::new(id_set, ood_sets, candidates, scores, compositions)))
    }

    /// The same without what only a report shows.
    pub(crate) fn brief(
        id: &FeatureSet,
        ood: &[(String, FeatureSet)],
        candidates: &[Candidate],
        observer: &mut dyn Observer,
    ) -> Result<(Results, Self)> {
        let scores = score_all(id, ood, candidates, false, observer)?;
        let results = measure(id.name(), candidates, &scores)?.with_seen(id, ood, candidates)?;
        let sets = ood.iter().map(|(name, set)| Set::unread(name, set)).collect();
        let id = Set::unread(id.name(), id);
        Ok((results, Evaluation::new(id, sets, candidates, scores, Vec::new())))
    }

    fn new(
        id: Set,
        ood: Vec<Set>,
        candidates: &[Candidate],
        scores: Scores,
        compositions: Vec<Composition>,
    ) -> Self {
        let scorers = candidates.iter().map(About::fitted).collect();
        let components = candidates.iter().map(|c| c.scorer.components().to_vec()).collect();
        Evaluation { id, ood, train: None, head: None, scorers, scores, compositions, components }
    }

    /// Say what the scorers were fitted on.
    ///
    /// # Errors
    /// If the files cannot be read once more for their hashes.
    pub fn with_training(mut self, train: &FeatureSet, head: Option<&Head>) -> Result<Self> {
        self.train = Some(Set::of(train.name(), train)?);
        self.head = head.map(Set::head);
        Ok(self)
    }

    /// Say that the candidate of that name is a detector, read from `file` or in memory alone. Where
    /// it is calibrated, its promise is held against what it says of the same `id` and `ood`.
    ///
    /// # Errors
    /// If there is no such candidate, the file cannot be read once more for its hash, or classes
    /// cannot be predicted where they are needed.
    pub fn with_detector(
        mut self,
        name: &str,
        file: Option<&Path>,
        detector: &Detector,
        id: &FeatureSet,
        ood: &[(String, FeatureSet)],
    ) -> Result<Self> {
        let names = self.scorers.iter().map(|s| &*s.name);
        let place = names.clone().position(|n| n == name);
        let place = place.ok_or_else(|| Error::unknown("scorer", name, names))?;
        let about = &mut self.scorers[place];
        about.origin = match file {
            Some(file) => format!("{} {}", places::name(file), heat_ood::io::sha256(file)?),
            None => "in memory".into(),
        };
        about.provenance = detector.provenance().clone();
        if let Some(calibration) = detector.calibration() {
            let ood =
                ood.iter().zip(&self.scores.ood).map(|((_, set), (_, all))| (set, &all[place]));
            let sets = std::iter::once((id, &self.scores.id[place])).chain(ood);
            let sets: Vec<_> = sets.map(|(set, found)| (set, &*found.scores)).collect();
            about.promise = Some(Promise::of(calibration, &sets)?);
        }
        Ok(self)
    }

    /// The scores behind the results.
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    pub(super) fn id_scores(&self, entry: usize) -> &[f32] {
        &self.scores.id[entry].scores
    }

    pub(super) fn ood_scores(&self, set: usize, entry: usize) -> &[f32] {
        &self.scores.ood[set].1[entry].scores
    }
}

impl About {
    /// A scorer fitted by this command.
    fn fitted(candidate: &Candidate) -> Self {
        let (name, provenance) = (candidate.name.clone(), candidate.scorer.provenance().clone());
        About { name, origin: "fitted here".into(), provenance, promise: None }
    }
}

impl Promise {
    /// Judge scores that are known: the ID set's, then those of the OOD sets.
    fn of(calibration: &Calibration, sets: &[(&FeatureSet, &[f32])]) -> Result<Self> {
        let fraction = |(set, scores): &(&FeatureSet, &[f32])| -> Result<f64> {
            let classes = calibration.predictor().map(|p| p.predict(set)).transpose()?;
            let verdicts = calibration.verdicts(scores, classes.as_deref(), Ties::Conservative)?;
            let flagged = verdicts.iter().filter(|v| v.ood).count();
            Ok(flagged as f64 / verdicts.len().max(1) as f64)
        };
        Ok(Promise {
            words: calibration.words(),
            files: calibration.files.clone(),
            thresholds: calibration.thresholds().to_vec(),
            flagged: sets.iter().map(fraction).collect::<Result<_>>()?,
        })
    }
}

impl Set {
    /// Reads the files once more, for their hashes.
    fn of(name: &str, set: &FeatureSet) -> Result<Self> {
        Ok(Set { files: set.digests()?, ..Set::unread(name, set) })
    }

    fn unread(name: &str, set: &FeatureSet) -> Self {
        Set { name: places::name(Path::new(name)), rows: set.len(), files: Vec::new() }
    }

    /// A head: its rows are the classes.
    fn head(head: &Head) -> Self {
        let files = vec![("weight and bias".to_owned(), head.digest())];
        Set { name: "head".into(), rows: head.classes(), files }
    }
}

/// Candidates, then the members of compositions that are not among them, so
/// that all are scored at once; and which member is which.
fn with_members(candidates: &[Candidate]) -> (Vec<Candidate>, Vec<Composition>) {
    let mut all = candidates.to_vec();
    let mut compositions = Vec::new();
    for c in candidates {
        let Some(combined) = (&*c.scorer as &dyn Any).downcast_ref::<Combined>() else {
            continue;
        };
        let members = combined.members().iter().map(|m| {
            let known = all.iter().position(|c| Arc::ptr_eq(c.scorer.scorer(), &m.scorer));
            let entry = known.unwrap_or_else(|| {
                let scorer = Fitted::from_parts(Arc::clone(&m.scorer), Provenance::default());
                all.push(Candidate { name: m.name.clone(), scorer, fit_seconds: None });
                all.len() - 1
            });
            MemberScores { name: m.name.clone(), entry, mean: m.mean, std: m.std }
        });
        let members = members.collect();
        compositions.push(Composition { name: c.name.clone(), beta: combined.beta(), members });
    }
    (all, compositions)
}
