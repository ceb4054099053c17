//! Statistics of parts of a training set.

use std::path::PathBuf;

use heat_ood::scorers::ScorerSpec;
use heat_ood::statistics::Statistics;
use heat_ood::{Error, Silent};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::detector::{PyDetector, training};
use crate::errors::{exception, working};
use crate::features::{PyFeatureSet, PyHead};
use crate::observer::observed;

/// What the fits of some scorers gather from a part of the rows.
#[pyclass(frozen, module = "heat_ood._heat_ood", name = "Statistics")]
pub struct PyStatistics(pub Statistics);

#[pymethods]
impl PyStatistics {
    /// Gather them from a part, after those merged of the round before.
    #[staticmethod]
    #[pyo3(signature = (specs, set, head=None, classes=None, after=None, progress=None))]
    fn of(
        py: Python<'_>,
        specs: Vec<String>,
        set: &PyFeatureSet,
        head: Option<&PyHead>,
        classes: Option<usize>,
        after: Option<&PyStatistics>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let specs: heat_ood::Result<Vec<_>> = specs.iter().map(|s| ScorerSpec::parse(s)).collect();
        let specs = specs.map_err(|e| exception(py, &e))?;
        let data = training(py, set, head, classes)?;
        let after = after.map(|after| &after.0);
        observed(py, progress, |observer| Statistics::of(&specs, &data, after, observer))
            .map(PyStatistics)
    }

    /// These with the rows of other parts, which follow.
    fn merged(&self, py: Python<'_>, others: Vec<PyRef<'_, PyStatistics>>) -> PyResult<Self> {
        let others: Vec<&Statistics> = others.iter().map(|other| &other.0).collect();
        working(py, || {
            let mut all = self.0.clone();
            others.iter().try_for_each(|other| all.merge(other))?;
            Ok(all)
        })
        .map(PyStatistics)
    }

    /// The detectors with the scorers as written; None where another round is needed.
    fn finish(&self, py: Python<'_>) -> PyResult<Option<Vec<(String, PyDetector)>>> {
        let found = working(py, || match self.0.finish(&mut Silent) {
            Ok(detectors) => Ok(Some(detectors)),
            Err(Error::AnotherRound { .. }) => Ok(None),
            Err(error) => Err(error),
        })?;
        let named = |detectors: Vec<_>| {
            let names = self.0.scorers().iter().cloned();
            names.zip(detectors.into_iter().map(PyDetector)).collect()
        };
        Ok(found.map(named))
    }

    /// The scorers that they are for.
    #[getter]
    fn scorers(&self) -> Vec<String> {
        self.0.scorers().to_vec()
    }

    /// Number of rows.
    #[getter]
    fn rows(&self) -> usize {
        self.0.rows()
    }

    /// Which round, from 1.
    #[getter]
    fn round(&self) -> usize {
        self.0.round()
    }

    /// The bytes of its file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = working(py, || self.0.to_bytes())?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Statistics of such bytes.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let bytes = bytes.to_vec();
        working(py, || Statistics::from_bytes("memory", bytes)).map(PyStatistics)
    }

    /// Write its file, whole or not at all.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        working(py, || self.0.save(path))
    }

    /// Open its file.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        working(py, || Statistics::open(path)).map(PyStatistics)
    }
}
