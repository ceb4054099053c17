//! Local intrinsic dimensionality (`lid`): k / Σ_i log(r_k/r_i), r_i the distances to the k
//! nearest training rows.
//!
//! 0 for a row that is in the training set; the largest number of single precision where all k are equally far.
//! The index and its cost are those of `knn`.
//!
//! *Differences from the paper*: neighbours are sought among all training rows, as in scio, not
//! within minibatches of 100; one layer at a time (`layer=`), whose scores the authors give to a
//! classifier trained on adversarial rows.
//!
//! Reference: Ma et al., *Characterizing Adversarial Subspaces Using Local
//! Intrinsic Dimensionality*, ICLR 2018.

use super::indexed::Indexed;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::scorers::context::FitContext;
use crate::scorers::input::{contradiction, feature_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `lid`.
    LidConfig, normalize = false;
    /// Number of neighbours.
    k: usize = 20,
}

offer! { LidConfig => Lid }

/// A fitted `lid` scorer.
pub struct Lid {
    config: LidConfig,
    index: Indexed,
}

impl Method for LidConfig {
    const NAME: &'static str = "lid";
    type Scorer = Lid;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Lid> {
        if self.k < 2 {
            return Err(Error::config("k", self.k, "how distances grow takes two neighbours"));
        }
        Ok(Lid { config: self.clone(), index: Indexed::fit(self, self.k, context)? })
    }

    fn load(stored: &Stored<'_>) -> Result<Lid> {
        let (config, k, index): (LidConfig, _, _) = Indexed::load(stored)?;
        if config.k != k {
            return Err(contradiction(stored));
        }
        Ok(Lid { config, index })
    }
}

/// Of squared distances, nearest first.
fn dimensionality(nearest: &[(f64, u32)]) -> f64 {
    let [(first, _), .., (last, _)] = nearest else { return 0.0 };
    if *first == 0.0 {
        return 0.0;
    }
    // Of squares each logarithm is twice that of the distances.
    let sum: f64 = nearest.iter().map(|(square, _)| (last / square).ln()).sum();
    (2.0 * nearest.len() as f64 / sum).min(f64::from(f32::MAX))
}

impl Scorer for Lid {
    fn name(&self) -> &'static str {
        "lid"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.index.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.index.each_nearest(batch, self.config.k, |row, nearest| {
            out[row] = dimensionality(nearest) as f32;
        });
    }

    fn section(&self) -> Section {
        let config = self.index.config(&self.config, self.config.k);
        Section::new("lid", config).with("", self.index.tensors())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distances 1, 2, 4: 3 / (log 4 + log 2 + 0).
    #[test]
    fn by_hand() {
        let of = |squares: [f64; 3]| dimensionality(&squares.map(|s| (s, 0)));
        assert!((of([1.0, 4.0, 16.0]) - 3.0 / 8f64.ln()).abs() < 1e-14);
        assert_eq!(of([0.0, 1.0, 2.0]), 0.0);
        assert_eq!(of([4.0, 4.0, 4.0]), f64::from(f32::MAX));
    }
}
