//! The columns of results: the average, near, far, then each set.

use super::{Groups, ScorerResults};
use crate::metrics::{Intervals, Metrics};

/// The sets behind each column.
pub(super) type Columns = Vec<Vec<usize>>;

/// The columns of these sets, with near and far ones where there are groups.
pub(super) fn columns(groups: Option<&Groups>, sets: &[&str]) -> Columns {
    let place = |name: &String| sets.iter().position(|s| s == name);
    let mut columns = vec![(0..sets.len()).collect()];
    if let Some(groups) = groups {
        let group = |names: &[String]| names.iter().filter_map(place).collect();
        columns.extend([group(&groups.near), group(&groups.far)]);
    }
    columns.extend((0..sets.len()).map(|s| vec![s]));
    columns
}

/// The metrics of every column.
pub(super) fn values(scorer: &ScorerResults) -> Vec<Metrics> {
    let averages = std::iter::once(&scorer.average).chain(&scorer.near).chain(&scorer.far);
    let sets = scorer.ood.iter().map(|(_, set)| set.metrics);
    averages.map(|a| a.metrics).chain(sets).collect()
}

/// Where the intervals of every column belong.
pub(super) fn places(scorer: &mut ScorerResults) -> impl Iterator<Item = &mut Option<Intervals>> {
    let averages =
        std::iter::once(&mut scorer.average).chain(&mut scorer.near).chain(&mut scorer.far);
    let sets = scorer.ood.iter_mut().map(|(_, set)| &mut set.ci);
    averages.map(|a| &mut a.ci).chain(sets)
}
