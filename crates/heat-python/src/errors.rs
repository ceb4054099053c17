//! The library's errors as Python's exceptions (`heat_ood.errors`).

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use heat_ood::Error;
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// An exception class of `heat_ood.errors`.
pub fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        Ok::<_, PyErr>(PyModule::import(py, "heat_ood.errors")?.unbind())
    })?;
    Ok(module.bind(py).getattr(name)?.cast_into::<PyType>()?)
}

fn of_class(py: Python<'_>, name: &str, text: String) -> PyErr {
    match class(py, name) {
        Ok(class) => PyErr::from_type(class, text),
        Err(error) => error,
    }
}

/// The exception that says the same.
pub fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let text = error.to_string();
    let name = match error {
        Error::Io { source, path, .. } => {
            // With a number and a name Python makes it a FileNotFoundError and the like.
            let number = source.raw_os_error().or(match source.kind() {
                ErrorKind::NotFound => Some(2),
                ErrorKind::PermissionDenied => Some(13),
                ErrorKind::AlreadyExists => Some(17),
                _ => None,
            });
            let Some(number) = number else { return PyOSError::new_err(text) };
            return PyOSError::new_err((number, text, path.display().to_string()));
        }
        Error::Interrupted { .. } | Error::Stopped => return PyKeyboardInterrupt::new_err(text),
        Error::Format { .. } => "FormatError",
        Error::Unknown { .. } => "UnknownNameError",
        Error::Foreign { .. } => "ForeignFeaturesError",
        Error::Diverged { .. } => "DivergedError",
        Error::Fit { .. } => "FitError",
        _ => "InputError",
    };
    of_class(py, name, text)
}

/// An error in what was given.
pub fn input(py: Python<'_>, text: impl Into<String>) -> PyErr {
    of_class(py, "InputError", text.into())
}

/// Do some work while other Python threads run. A panic, which is a bug, becomes an error
/// that `except Exception` sees.
pub fn working<R: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> heat_ood::Result<R> + Send,
) -> PyResult<R> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(done) => done.map_err(|error| exception(py, &error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            let text = format!("internal error, please report it: {text}");
            Err(of_class(py, "HeatError", text))
        }
    }
}
