//! The loop over a set's rows: every block is read once, and all scorers
//! score it.
//!
//! What differs from call to call is given as `dyn`: the loop is compiled once.

use std::ops::Range;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::parallel::{Pieces, Slices};
use crate::math::{blocks, parallel};
use crate::observe::{Event, Observer};

/// Rows scored by one task.
const SCORE_ROWS: usize = 256;

/// What one scorer found on a set, beside others.
#[derive(Debug, Clone, Default)]
pub struct ScoredSet {
    /// One score per row.
    pub scores: Vec<f32>,
    /// Components of each row, `[N, components]`, as
    /// [`Scorer::score_with_components`](super::Scorer::score_with_components) gives them; empty
    /// where not asked for.
    pub components: Vec<f32>,
    /// The scorer's share of the wall-clock time: its processor time divided
    /// by the number of threads.
    pub seconds: f64,
}

/// One scorer's part of the loop.
pub(super) struct Task<'a> {
    /// Name of the scorer.
    pub name: &'static str,
    /// Number of components; 0 where they are not asked for.
    pub components: usize,
    /// Writes the scores of a batch and its components.
    pub score: &'a ScoreBatch<'a>,
}

pub(super) type ScoreBatch<'a> = dyn Fn(&Batch, &mut [f32], &mut [f32]) + Sync + 'a;

/// Gives the class of each row of a batch.
pub(super) type Classify<'a> = dyn Fn(&Batch) -> Vec<u32> + Sync + 'a;

/// What is found on some rows: by each of the scorers, and the classes.
#[derive(Default)]
pub(super) struct Found {
    /// Of each scorer, or the first row that it could not score.
    pub scored: Vec<Result<ScoredSet>>,
    pub classes: Vec<u32>,
}

impl Task<'_> {
    /// Score rows `start..`, refusing what is no number.
    fn run(&self, set: &FeatureSet, start: usize, batch: &Batch) -> Result<ScoredSet> {
        let began = Instant::now();
        let mut scores = vec![0.0; batch.rows()];
        let mut components = vec![0.0; batch.rows() * self.components];
        (self.score)(batch, &mut scores, &mut components);
        for (values, width) in [(&scores, 1), (&components, self.components)] {
            if let Some(at) = values.iter().position(|s| !s.is_finite()) {
                let (place, row) = (set.name().to_owned(), start + at / width);
                return Err(Error::Score { place, row, scorer: self.name, value: values[at] });
            }
        }
        Ok(ScoredSet { scores, components, seconds: began.elapsed().as_secs_f64() })
    }
}

impl Found {
    /// On the rows of `range`.
    fn on<'a>(
        set: &'a FeatureSet,
        needs: &FieldSet,
        tasks: &[Task],
        classify: Option<&Classify>,
        range: Range<usize>,
        batch: &mut Batch<'a>,
    ) -> Result<Self> {
        set.batch(needs, range.clone(), batch)?;
        let scored = tasks.iter().map(|task| task.run(set, range.start, batch)).collect();
        Ok(Found { scored, classes: classify.map_or_else(Vec::new, |f| f(batch)) })
    }

    /// Take in what is found on the rows that follow.
    fn extend(&mut self, next: Found) {
        for (all, next) in self.scored.iter_mut().zip(next.scored) {
            match (&mut *all, next) {
                (Ok(all), Ok(next)) => {
                    all.scores.extend(next.scores);
                    all.components.extend(next.components);
                    all.seconds += next.seconds;
                }
                (Ok(_), Err(error)) => *all = Err(error),
                // The first row at fault is told.
                (Err(_), _) => {}
            }
        }
        self.classes.extend(next.classes);
    }
}

/// Score a set block by block, reading `needs`. Progress and the first error
/// come in row order; an observer may end it between some thousand rows.
pub(super) fn score_blocks(
    set: &FeatureSet,
    needs: &FieldSet,
    tasks: &[Task],
    classify: Option<&Classify>,
    observer: &mut dyn Observer,
) -> Result<Found> {
    observer.on(Event::Begin { task: &format!("score {}", set.name()), total: set.len() as u64 });
    let of = |range, batch: &mut _| Found::on(set, needs, tasks, classify, range, batch);
    // One block is scored here: to wake a thread for it takes longer than a few rows do.
    let found = if set.len() <= SCORE_ROWS {
        let found = of(0..set.len(), &mut Batch::default())?;
        observer.on(Event::Advance { done: set.len() as u64, loss: None });
        found
    } else {
        let mut found = Found::default();
        found.scored.extend(tasks.iter().map(|task| {
            Ok(ScoredSet {
                scores: Vec::with_capacity(set.len()),
                components: Vec::with_capacity(set.len() * task.components),
                seconds: 0.0,
            })
        }));
        let threads = parallel::threads();
        for piece in blocks(set.len(), SCORE_ROWS * 4 * threads.max(4)) {
            let ranges: Vec<Range<usize>> = blocks(piece.len(), SCORE_ROWS)
                .map(|r| piece.start + r.start..piece.start + r.end)
                .collect();
            let each = |batch: &mut _, range: &Range<usize>| of(range.clone(), batch);
            let results = ranges.par_iter().collect_with(Batch::default, each);
            results.into_iter().try_for_each(|next| next.map(|next| found.extend(next)))?;
            observer.on(Event::Advance { done: piece.end as u64, loss: None });
            if observer.should_stop() {
                return Err(Error::Stopped);
            }
        }
        found.scored.iter_mut().flatten().for_each(|s| s.seconds /= threads as f64);
        found
    };
    observer.on(Event::End);
    Ok(found)
}

impl Found {
    /// What all scorers found, or the first's error.
    pub fn all(self) -> Result<(Vec<ScoredSet>, Vec<u32>)> {
        Ok((self.scored.into_iter().collect::<Result<_>>()?, self.classes))
    }
}
