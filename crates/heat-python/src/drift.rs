//! Drift of a stream of scores.

use std::sync::{Mutex, PoisonError};

use heat_ood::calibrate::CalibrationScores;
use heat_ood::calibrate::drift::{Drift, DriftConfig, Observation, Tests};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::errors::{exception, input, working};

/// A running test whether a stream still looks like the calibration rows.
#[pyclass(frozen, module = "heat_ood._heat_ood", name = "Drift")]
pub struct PyDrift(Mutex<Drift>);

/// p-values, log10 of both kinds of evidence, alarms as JSON.
type Observed<'py> = (
    Bound<'py, PyArray1<f64>>,
    Option<Bound<'py, PyArray1<f64>>>,
    Option<Bound<'py, PyArray1<f64>>>,
    String,
);

#[pymethods]
impl PyDrift {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "one a setting")]
    fn new(
        py: Python<'_>,
        reference: PyReadonlyArray1<'_, f32>,
        alpha: f64,
        horizon: u64,
        min_admixture: f64,
        tests: &str,
        two_sided: bool,
        seed: u64,
    ) -> PyResult<Self> {
        let tests = match tests {
            "both" => Tests::Both,
            "martingale" => Tests::Martingale,
            "cusum" => Tests::Cusum,
            other => {
                return Err(input(py, format!("tests `{other}`: both, martingale or cusum")));
            }
        };
        let scores = reference.as_array().iter().copied().collect();
        let config = DriftConfig { alpha, horizon, min_admixture, tests, two_sided, seed };
        let drift = CalibrationScores::new(scores).and_then(|s| Drift::new(config, &s));
        drift.map(|drift| PyDrift(Mutex::new(drift))).map_err(|e| exception(py, &e))
    }

    /// Rows seen.
    #[getter]
    fn rows(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rows()
    }

    /// Take in the scores of the next rows.
    fn push<'py>(
        &self,
        py: Python<'py>,
        scores: PyReadonlyArray1<'py, f32>,
    ) -> PyResult<Observed<'py>> {
        let scores: Vec<f32> = scores.as_array().iter().copied().collect();
        let seen = working(py, || {
            let mut drift = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // One that cannot be taken in must not leave half of them behind.
            if let Some(row) = scores.iter().position(|s| s.is_nan()) {
                return Err(heat_ood::Error::NotFinite {
                    place: "the stream".into(),
                    tensor: "score",
                    row,
                    column: 0,
                    value: scores[row],
                });
            }
            scores.iter().map(|score| drift.push(*score)).collect::<heat_ood::Result<Vec<_>>>()
        })?;
        let p = PyArray1::from_iter(py, seen.iter().map(|o| o.p_value));
        let column = |of: fn(&Observation) -> Option<f64>| {
            let all: Option<Vec<f64>> = seen.iter().map(of).collect();
            all.map(|values| PyArray1::from_vec(py, values))
        };
        let alarms: Vec<_> = seen.iter().flat_map(|o| &o.alarms).collect();
        let alarms = serde_json::to_string(&alarms).unwrap_or_default();
        Ok((p, column(|o| o.martingale), column(|o| o.cusum), alarms))
    }
}
