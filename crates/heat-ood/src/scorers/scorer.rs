//! What every scorer can do.

use std::any::Any;
use std::borrow::Cow;

use super::persist::Section;
use super::scoring::{Classify, Found, ScoredSet, Task, score_blocks};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, Part};
use crate::observe::{Observer, Silent};

/// A fitted scorer.
///
/// `&dyn Scorer` can be cast to [`Any`] and so to its own type, as by who
/// looks for the members of a [`Combined`](crate::compose::Combined).
pub trait Scorer: Any + Send + Sync {
    /// Name of the method.
    fn name(&self) -> &'static str;

    /// The fields to read of `set`.
    ///
    /// # Errors
    /// If the set lacks one or has it in another dimension.
    fn needs(&self, set: &FeatureSet) -> Result<FieldSet>;

    /// The fields that stand for a set it is fitted on: views that it only scores may be missing there.
    ///
    /// # Errors
    /// As [`Scorer::needs`].
    fn needs_of_training(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.needs(set)
    }

    /// Other layers and views that it reads, besides the set itself.
    fn parts(&self) -> Vec<Part> {
        Vec::new()
    }

    /// Which of [`Field::OF_MAPS`] it reads, of the set itself or of its parts: they are extracted only
    /// where it is asked for.
    fn of_maps(&self) -> Vec<Field> {
        Vec::new()
    }

    /// One score for each row of `batch`, on the current thread.
    fn score_batch(&self, batch: &Batch, out: &mut [f32]);

    /// Everything needed to score, for the detector file.
    fn section(&self) -> Section;

    /// Add `scale`·∂score/∂field of each row to the fields of `out`: the
    /// direction in which an image is perturbed before it is scored (ODIN).
    /// The fields read are those that `batch` has.
    ///
    /// # Errors
    /// If the scorer has no such gradient, as by default, or the batch lacks
    /// a field.
    fn gradient_batch(&self, _batch: &Batch, _scale: f64, _out: &mut Batch) -> Result<()> {
        let problem = "has no gradient; images are perturbed by msp, max_logit, el, joint_energy, odin, react, \
                       temperature, gmm, ssd, maha, heat and compositions of these";
        Err(Error::config("perturb", self.name(), problem))
    }

    /// Scores apart that make up the whole, by name (HEAT: `energy_nn` and
    /// `energy_prior`; a composition: `score.` and each member's name); empty for
    /// most. A scorer that has some also implements [`Scorer::score_with_components`].
    fn components(&self) -> &[Cow<'static, str>] {
        &[]
    }

    /// The scores of a batch as [`Scorer::score_batch`] gives them, and the
    /// components of each row, `[rows, components]`: both of one computation.
    fn score_with_components(&self, batch: &Batch, scores: &mut [f32], _components: &mut [f32]) {
        self.score_batch(batch, scores);
    }

    /// One score per row of the set.
    ///
    /// # Errors
    /// If the set lacks a field or holds NaN or infinity.
    fn score(&self, set: &FeatureSet) -> Result<Vec<f32>> {
        self.score_observed(set, &mut Silent)
    }

    /// The same, reporting progress.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    fn score_observed(&self, set: &FeatureSet, observer: &mut dyn Observer) -> Result<Vec<f32>> {
        let score = &|batch: &Batch, out: &mut [f32], _: &mut [f32]| self.score_batch(batch, out);
        let task = Task { name: self.name(), components: 0, score };
        Ok(score_alone(set, &self.needs(set)?, task, observer)?.scores)
    }

    /// The components of each row of the set, `[N, components]`.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    fn score_components(&self, set: &FeatureSet) -> Result<Vec<f32>> {
        let score = &|batch: &Batch, scores: &mut [f32], components: &mut [f32]| {
            self.score_with_components(batch, scores, components);
        };
        let task = Task { name: self.name(), components: self.components().len(), score };
        Ok(score_alone(set, &self.needs(set)?, task, &mut Silent)?.components)
    }
}

/// The fields that any of these reads of `set`.
pub(crate) fn joint_needs<'a>(
    scorers: impl IntoIterator<Item = &'a dyn Scorer>,
    set: &FeatureSet,
) -> Result<FieldSet> {
    let mut scorers = scorers.into_iter();
    scorers.try_fold(FieldSet::default(), |needs, s| Ok(needs.and(s.needs(set)?)))
}

/// Score a set with one scorer.
fn score_alone(
    set: &FeatureSet,
    needs: &FieldSet,
    task: Task,
    observer: &mut dyn Observer,
) -> Result<ScoredSet> {
    let found = score_blocks(set, needs, &[task], None, observer)?;
    Ok(found.all()?.0.into_iter().next().unwrap_or_default())
}

/// Score a set with many scorers, reading it once.
///
/// Every block of rows is read with the fields that any of them needs, and
/// all score it before the next is read.
///
/// # Errors
/// As [`Scorer::score`], of the first row at fault.
pub fn score_together(
    set: &FeatureSet,
    scorers: &[&dyn Scorer],
    components: bool,
    observer: &mut dyn Observer,
) -> Result<Vec<ScoredSet>> {
    let needs = joint_needs(scorers.iter().copied(), set)?;
    Ok(score_beside(set, &needs, scorers, components, None, observer)?.all()?.0)
}

/// The same, but that a scorer which cannot score the set, or one of its rows, does not keep
/// the others from it.
///
/// # Errors
/// If the set cannot be read.
pub fn score_each(
    set: &FeatureSet,
    scorers: &[&dyn Scorer],
    components: bool,
    observer: &mut dyn Observer,
) -> Result<Vec<Result<ScoredSet>>> {
    let needs: Vec<Result<FieldSet>> = scorers.iter().map(|s| s.needs(set)).collect();
    let able = scorers.iter().zip(&needs).filter(|(_, needs)| needs.is_ok());
    let able: Vec<&dyn Scorer> = able.map(|(scorer, _)| *scorer).collect();
    if able.is_empty() {
        return Ok(needs.into_iter().map(|needs| needs.map(|_| ScoredSet::default())).collect());
    }
    let joint = joint_needs(able.iter().copied(), set)?;
    let found = score_beside(set, &joint, &able, components, None, observer)?;
    let mut found = found.scored.into_iter();
    let each = |needs: Result<FieldSet>| {
        needs.and_then(|_| found.next().unwrap_or(Ok(ScoredSet::default())))
    };
    Ok(needs.into_iter().map(each).collect())
}

/// The same, with the classes that `classify` gives from the fields of `needs`.
pub(super) fn score_beside(
    set: &FeatureSet,
    needs: &FieldSet,
    scorers: &[&dyn Scorer],
    components: bool,
    classify: Option<&Classify>,
    observer: &mut dyn Observer,
) -> Result<Found> {
    let width = |s: &dyn Scorer| if components { s.components().len() } else { 0 };
    let calls: Vec<_> = scorers
        .iter()
        .map(|s| {
            let plain = width(*s) == 0;
            move |batch: &Batch, scores: &mut [f32], components: &mut [f32]| match plain {
                true => s.score_batch(batch, scores),
                false => s.score_with_components(batch, scores, components),
            }
        })
        .collect();
    let task =
        |(s, score): (&&dyn Scorer, _)| Task { name: s.name(), components: width(*s), score };
    let tasks: Vec<Task> = scorers.iter().zip(calls.iter().map(|c| c as _)).map(task).collect();
    score_blocks(set, needs, &tasks, classify, observer)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread::{self, ThreadId};

    use super::*;
    use crate::features::{Field, Pooling};

    const AVG: Field = Field::Features(Pooling::Avg);

    /// The first of two values is the score, both are components.
    #[derive(Default)]
    struct Recording(Mutex<Vec<(&'static str, usize, ThreadId)>>);

    impl Recording {
        fn record(&self, call: &'static str, batch: &Batch) {
            self.0.lock().unwrap().push((call, batch.rows(), thread::current().id()));
        }
    }

    impl Scorer for Recording {
        fn name(&self) -> &'static str {
            "recording"
        }

        fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
            FieldSet::checked(set, AVG, 2)
        }

        fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
            self.record("scores", batch);
            out.iter_mut().zip(batch.get(AVG).chunks(2)).for_each(|(o, row)| *o = row[0]);
        }

        fn components(&self) -> &[Cow<'static, str>] {
            &[Cow::Borrowed("first"), Cow::Borrowed("second")]
        }

        fn score_with_components(&self, batch: &Batch, scores: &mut [f32], parts: &mut [f32]) {
            self.record("both", batch);
            parts.copy_from_slice(batch.get(AVG));
            scores.iter_mut().zip(parts.chunks(2)).for_each(|(o, row)| *o = row[0]);
        }

        fn section(&self) -> Section {
            Section::new("recording", ())
        }
    }

    fn set(rows: usize) -> FeatureSet {
        let rows = ndarray::Array2::from_shape_fn((rows, 2), |(i, j)| (2 * i + j) as f32);
        FeatureSet::from_arrays(rows.view(), None).unwrap()
    }

    #[test]
    fn scores_and_components_come_of_one_call() {
        for rows in [1, 256, 600] {
            let (scorer, set) = (Recording::default(), set(rows));
            let found = score_together(&set, &[&scorer], true, &mut Silent).unwrap();
            let values: Vec<f32> = (0..2 * rows).map(|i| i as f32).collect();
            assert_eq!(found[0].components, values);
            assert!(found[0].scores.iter().eq(values.iter().step_by(2)));
            let calls = scorer.0.into_inner().unwrap();
            assert!(calls.iter().all(|(call, ..)| *call == "both"));
            assert_eq!(calls.iter().map(|(_, rows, _)| rows).sum::<usize>(), rows);
        }
        let scorer = Recording::default();
        assert_eq!(scorer.score(&set(2)).unwrap(), [0.0, 2.0]);
        assert_eq!(scorer.score_components(&set(2)).unwrap(), [0.0, 1.0, 2.0, 3.0]);
        let calls = scorer.0.into_inner().unwrap();
        assert!(calls.iter().map(|(call, ..)| *call).eq(["scores", "both"]));
    }

    /// No thread is woken for a few rows.
    #[test]
    fn one_block_is_scored_where_it_is_asked_for() {
        for (rows, here) in [(1, true), (256, true), (257, false)] {
            let scorer = Recording::default();
            scorer.score(&set(rows)).unwrap();
            let calls = scorer.0.into_inner().unwrap();
            assert!(calls.iter().all(|(_, _, id)| (*id == thread::current().id()) == here));
        }
    }

    #[test]
    fn a_score_that_is_no_number_is_named() {
        for rows in [300, 20] {
            let mut values = ndarray::Array2::zeros((rows, 2));
            values[[rows - 3, 0]] = f32::MAX;
            let set = FeatureSet::from_arrays(values.view(), None).unwrap();
            let double = |batch: &Batch, out: &mut [f32], _: &mut [f32]| {
                out.iter_mut().zip(batch.get(AVG).chunks(2)).for_each(|(o, row)| *o = 2.0 * row[0]);
            };
            let task = Task { name: "double", components: 0, score: &double };
            let found = score_alone(&set, &FieldSet::of(AVG), task, &mut Silent);
            let error = found.unwrap_err().to_string();
            assert!(error.contains("double") && error.contains(&format!("row {}", rows - 3)));
        }
    }
}
