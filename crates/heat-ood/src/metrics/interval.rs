//! Intervals and tests of every metric.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Metrics;
use crate::error::{Error, Result};

/// An interval of each metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intervals {
    /// The lower ends.
    pub low: Metrics,
    /// The upper ends.
    pub high: Metrics,
}

/// A paired test of each metric: one scorer against a reference, on the same rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tests {
    /// The scorer's value minus the reference's.
    pub difference: Metrics,
    /// Interval of the difference.
    pub ci: Intervals,
    /// Two-sided p-value of no difference; NaN where there is no test (one row).
    pub p: Metrics,
    /// The same, corrected for the number of scorers compared (Holm).
    pub p_holm: Metrics,
}

impl Serialize for Intervals {
    /// `{"auroc": [low, high], …}`
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Metrics::COUNT))?;
        let ends = self.low.to_array().into_iter().zip(self.high.to_array());
        for (name, (low, high)) in Metrics::NAMES.iter().zip(ends) {
            map.serialize_entry(name, &[low, high])?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Test {
    difference: f64,
    ci: [f64; 2],
    p: f64,
    p_holm: f64,
}

impl Serialize for Tests {
    /// `{"auroc": {"difference": …, "ci": [low, high], "p": …, "p_holm": …}, …}`
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Metrics::COUNT))?;
        let parts = [self.difference, self.ci.low, self.ci.high, self.p, self.p_holm];
        let parts = parts.map(|m| m.to_array());
        for (i, name) in Metrics::NAMES.iter().enumerate() {
            let [difference, low, high, p, p_holm] = parts.map(|values| values[i]);
            map.serialize_entry(name, &Test { difference, ci: [low, high], p, p_holm })?;
        }
        map.end()
    }
}

/// Refuse levels of confidence that are none.
///
/// # Errors
/// If `level` is not between 0 and 1.
pub fn check_level(level: f64) -> Result<()> {
    if level > 0.0 && level < 1.0 {
        return Ok(());
    }
    let problem = "a level of confidence lies between 0 and 1, as 0.95 does";
    Err(Error::config("level", level, problem))
}
