//! The figures, one file each. Each function gives HTML; a figure that there
//! is nothing to draw for is left out.

pub mod beta;
pub mod calibration;
pub mod correlation;
pub mod cost;
pub mod curves;
pub mod energies;
pub mod histograms;
pub mod training;

use super::scale::quantile;

fn ascending<'a>(parts: impl IntoIterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut all: Vec<f32> = parts.into_iter().flatten().copied().collect();
    all.sort_unstable_by(f32::total_cmp);
    all
}
