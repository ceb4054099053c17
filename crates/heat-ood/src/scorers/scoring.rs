//! The loop over a set's rows: every block is read once, and all scorers
//! score it.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::{blocks, parallel};
use crate::observe::{Event, Observer};

/// Rows scored by one task.
const SCORE_ROWS: usize = 256;

/// Map every block of rows with `f`, in parallel, and give the values to
/// `take` in row order.
pub(super) fn map_blocks<T: Send>(
    set: &FeatureSet,
    needs: FieldSet,
    observer: &mut dyn Observer,
    f: impl Fn(&Batch) -> T + Sync,
    mut take: impl FnMut(Range<usize>, T) -> Result<()>,
) -> Result<()> {
    // Progress and the first error come in row order, a few blocks at a time.
    let together = SCORE_ROWS * 16 * parallel::threads().max(4);
    let task = format!("score {}", set.name());
    observer.on(Event::Begin { task: &task, total: set.len() as u64 });
    for piece in blocks(set.len(), together) {
        let ranges: Vec<Range<usize>> = blocks(piece.len(), SCORE_ROWS)
            .map(|r| piece.start + r.start..piece.start + r.end)
            .collect();
        let results: Vec<Result<T>> = parallel::run(|| {
            ranges
                .par_iter()
                .map_init(Batch::default, |batch, range| {
                    set.batch(needs, range.clone(), batch)?;
                    Ok(f(batch))
                })
                .collect()
        });
        for (range, result) in ranges.into_iter().zip(results) {
            take(range, result?)?;
        }
        observer.on(Event::Advance { done: piece.end as u64, loss: None });
    }
    observer.on(Event::End);
    Ok(())
}

fn check_finite(
    set: &FeatureSet,
    scorer: &'static str,
    start: usize,
    values: &[f32],
    width: usize,
) -> Result<()> {
    match values.iter().position(|s| !s.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let (place, row) = (set.name().to_owned(), start + at / width);
            Err(Error::Score { place, row, scorer, value: values[at] })
        }
    }
}

/// What one scorer found on a set, beside others.
#[derive(Debug, Clone, Default)]
pub struct ScoredSet {
    /// One score per row.
    pub scores: Vec<f32>,
    /// [`Scorer::component_batch`](super::Scorer::component_batch) of each row, `[N, components]`; empty
    /// where not asked for.
    pub components: Vec<f32>,
    /// The scorer's share of the wall-clock time: its processor time divided
    /// by the number of threads.
    pub seconds: f64,
}

/// Score a set block by block; `f` gives what each of the scorers `names`
/// found on a batch.
pub(super) fn score_blocks(
    set: &FeatureSet,
    needs: FieldSet,
    names: &[&'static str],
    observer: &mut dyn Observer,
    f: impl Fn(&Batch) -> Vec<ScoredSet> + Sync,
) -> Result<Vec<ScoredSet>> {
    let mut out = vec![ScoredSet::default(); names.len()];
    out.iter_mut().for_each(|scored| scored.scores.reserve_exact(set.len()));
    map_blocks(set, needs, observer, f, |rows, found| {
        for ((out, name), found) in out.iter_mut().zip(names).zip(found) {
            check_finite(set, name, rows.start, &found.scores, 1)?;
            let width = found.components.len() / rows.len();
            check_finite(set, name, rows.start, &found.components, width)?;
            out.scores.extend(found.scores);
            out.components.extend(found.components);
            out.seconds += found.seconds;
        }
        Ok(())
    })?;
    Ok(out)
}
