//! The scores that some scorers gave some rows, and what compositions of them are worth.

use crate::compose::mean_std;
use crate::error::Result;
use crate::metrics;

/// Scores of ID rows and of each kind of rows that plays OOD.
pub(super) struct Trial {
    /// `[scorer][row]`, standardised.
    id: Vec<Vec<f32>>,
    /// `[kind][scorer][row]`, likewise.
    kinds: Vec<Vec<Vec<f32>>>,
    /// `[kind][scorer]`.
    pub auroc: Vec<Vec<f64>>,
    /// Mean and deviation of each scorer over the ID rows.
    pub scale: Vec<(f64, f64)>,
}

impl Trial {
    /// Of scores `[scorer][set][row]`, the first set that of ID.
    pub fn new(scores: Vec<Vec<Vec<f32>>>) -> Result<Self> {
        let mut scores = scores;
        let sets = scores.first().map_or(0, Vec::len);
        let mut auroc = vec![Vec::with_capacity(scores.len()); sets.saturating_sub(1)];
        let mut scale = Vec::with_capacity(scores.len());
        for sets in &mut scores {
            let (id, kinds) = (&sets[0], sets[1..].iter().map(|s| &**s));
            let found = metrics::aurocs(id, kinds)?;
            auroc.iter_mut().zip(found).for_each(|(kind, a)| kind.push(a));
            let (mean, std) = mean_std(id);
            scale.push((mean, std));
            if usable(std) {
                let apply = |v: &mut f32| *v = ((f64::from(*v) - mean) / std) as f32;
                sets.iter_mut().flatten().for_each(apply);
            }
        }
        let mut by_set: Vec<Vec<Vec<f32>>> = vec![Vec::with_capacity(scores.len()); sets];
        for scorer in scores {
            by_set.iter_mut().zip(scorer).for_each(|(set, rows)| set.push(rows));
        }
        let kinds = by_set.split_off(1.min(sets));
        Ok(Trial { id: by_set.pop().unwrap_or_default(), kinds, auroc, scale })
    }

    /// Without one of the scorers.
    pub fn remove(&mut self, scorer: usize) {
        self.id.remove(scorer);
        self.scale.remove(scorer);
        self.kinds.iter_mut().for_each(|kind| drop(kind.remove(scorer)));
        for kind in &mut self.auroc {
            kind.remove(scorer);
        }
    }

    /// The standardised scores of ID and of each kind, `[scorer][row]`.
    pub fn sets(&self) -> impl Iterator<Item = &[Vec<f32>]> {
        std::iter::once(&*self.id).chain(self.kinds.iter().map(|kind| &**kind))
    }

    /// Whether a scorer's scores of the ID rows differ, so that they have a unit.
    pub fn varies(&self, scorer: usize) -> bool {
        usable(self.scale[scorer].1)
    }

    /// The AUROC of a weighted sum of standardised scores against each kind.
    pub fn composed(&self, weights: &[f64]) -> Vec<f64> {
        let sum = |scores: &[Vec<f32>]| {
            let mut out = vec![0.0f32; scores[0].len()];
            for (s, &w) in scores.iter().zip(weights).filter(|(_, w)| **w > 0.0) {
                out.iter_mut().zip(s).for_each(|(o, v)| *o += w as f32 * v);
            }
            out
        };
        let kinds: Vec<Vec<f32>> = self.kinds.iter().map(|kind| sum(kind)).collect();
        let found = metrics::aurocs(&sum(&self.id), kinds.iter().map(|k| &**k));
        // Never empty; NaN only where sums overflow, which is no choice.
        found.unwrap_or_else(|_| vec![0.0; kinds.len()])
    }
}

fn usable(std: f64) -> bool {
    std.is_finite() && std > 0.0
}
