//! What was found of a request's rows.

use std::time::Duration;

/// What was found of a request's rows.
#[derive(Debug, Default)]
pub struct Scored {
    /// One a row.
    pub scores: Vec<f32>,
    /// One a row, of calibrated detectors.
    pub p_values: Vec<f64>,
    /// One a row, of calibrated detectors.
    pub ood: Vec<bool>,
    /// One a row, where the detector tells classes.
    pub classes: Vec<u32>,
    /// `[rows, components]`.
    pub components: Vec<f32>,
    /// Time from coming to being scored.
    pub waited: Duration,
    /// Time of being scored, with others.
    pub took: Duration,
}
