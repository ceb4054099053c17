//! What confidence intervals are of.

use serde::Serialize;

/// What the intervals of some results are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IntervalsOf {
    /// Level of confidence.
    pub level: f64,
    /// Number of resamples.
    pub resamples: usize,
    /// Their seed.
    pub seed: u64,
}
