//! The extension of the Python package `heat_ood`: a thin layer over the library. What users see
//! is in `python/heat_ood/`.

mod detector;
mod drift;
mod errors;
mod evaluation;
mod features;
mod images;
mod observer;
mod remote;
mod statistics;

use pyo3::prelude::*;

/// HEAT's library, as the package `heat_ood` calls it.
#[pymodule]
mod _heat_ood {
    #[pymodule_export]
    use crate::detector::{
        PyDetector, compose, fit, num_threads, parse_spec, resolve_recipe, scorer_group,
        scorer_list, set_num_threads, spec_text, train,
    };
    #[pymodule_export]
    use crate::drift::PyDrift;
    #[pymodule_export]
    use crate::evaluation::{
        PyResults, auto, benjamini_hochberg, committee, evaluate, measure, open_surrogates,
        openood_aupr, select, tune_on,
    };
    #[pymodule_export]
    use crate::features::{PyFeatureSet, PyHead};
    #[pymodule_export]
    use crate::images::{PyBackbone, extract, of_maps};
    #[pymodule_export]
    use crate::remote::PyChains;
    #[pymodule_export]
    use crate::statistics::PyStatistics;

    use std::ffi::OsString;

    use pyo3::prelude::*;

    /// Run the command `heat` with these arguments, of which the first is its name.
    ///
    /// `program` starts it anew, as a sweep does for each of its runs.
    #[pyfunction]
    fn command(py: Python<'_>, program: Vec<OsString>, arguments: Vec<OsString>) -> u8 {
        let code = py.detach(|| heat_cli::run_as(program, arguments));
        // An `ExitCode` does not tell its number, but what it equals.
        (0..=u8::MAX).find(|n| std::process::ExitCode::from(*n) == code).unwrap_or(1)
    }

    /// Version of the library.
    #[pyfunction]
    fn version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}
