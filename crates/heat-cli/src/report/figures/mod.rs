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

/// The q-quantile of ascending scores, as a score that occurs.
pub fn quantile(ascending: &[f32], q: f64) -> f64 {
    let last = ascending.len().saturating_sub(1);
    let at = (q * last as f64).round() as usize;
    ascending.get(at).map_or(0.0, |v| f64::from(*v))
}

fn ascending<'a>(parts: impl IntoIterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut all: Vec<f32> = parts.into_iter().flatten().copied().collect();
    all.sort_unstable_by(f32::total_cmp);
    all
}
