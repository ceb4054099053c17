//! Progress, warnings and Ctrl-C, on the calling thread.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use heat_ood::{Error, Event, Observer, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors;

/// How often Python is asked whether somebody pressed Ctrl-C.
const SIGNALS: Duration = Duration::from_millis(100);

/// Calls a Python callable with events, at most ten a second of progress within a task.
pub struct PyObserver {
    callback: Option<Py<PyAny>>,
    error: RefCell<Option<PyErr>>,
    asked: Cell<Instant>,
    told: Instant,
}

impl PyObserver {
    pub fn new(callback: Option<Py<PyAny>>) -> Self {
        let now = Instant::now();
        PyObserver { callback, error: RefCell::new(None), asked: Cell::new(now), told: now }
    }

    fn keep(&self, result: PyResult<()>) {
        if let Err(error) = result {
            self.error.borrow_mut().get_or_insert(error);
        }
    }

    fn failed(&self) -> bool {
        self.error.borrow().is_some()
    }

    fn tell(&self, fill: impl FnOnce(&Bound<'_, PyDict>) -> PyResult<()>) {
        let Some(callback) = self.callback.as_ref().filter(|_| !self.failed()) else { return };
        self.keep(Python::attach(|py| {
            let event = PyDict::new(py);
            fill(&event)?;
            callback.call1(py, (event,)).map(drop)
        }));
    }
}

impl Observer for PyObserver {
    fn on(&mut self, event: Event<'_>) {
        let _ = self.should_stop();
        match event {
            Event::Begin { task, total } => self.tell(|e| {
                e.set_item("event", "begin")?;
                e.set_item("task", task)?;
                e.set_item("total", total)
            }),
            Event::Advance { done, loss } => {
                if self.told.elapsed() < SIGNALS {
                    return;
                }
                self.told = Instant::now();
                self.tell(|e| {
                    e.set_item("event", "advance")?;
                    e.set_item("done", done)?;
                    e.set_item("loss", loss)
                });
            }
            Event::End => self.tell(|e| e.set_item("event", "end")),
            Event::Epoch(log) => self.tell(|e| {
                e.set_item("event", "epoch")?;
                let json = serde_json::to_value(log).unwrap_or_default();
                for (key, value) in json.as_object().into_iter().flatten() {
                    match value.as_u64() {
                        Some(n) => e.set_item(key, n)?,
                        None => e.set_item(key, value.as_f64())?,
                    }
                }
                Ok(())
            }),
            Event::Warning(text) if !self.failed() => self.keep(Python::attach(|py| {
                let class = errors::class(py, "HeatWarning")?;
                let warnings = PyModule::import(py, "warnings")?;
                warnings.call_method1("warn", (text, class)).map(drop)
            })),
            Event::Note(text) if !self.failed() => self.keep(Python::attach(|py| {
                let logging = PyModule::import(py, "logging")?;
                let logger = logging.call_method1("getLogger", ("heat_ood",))?;
                logger.call_method1("info", ("%s", text)).map(drop)
            })),
            _ => {}
        }
    }

    fn should_stop(&self) -> bool {
        if !self.failed() && self.asked.get().elapsed() >= SIGNALS {
            self.asked.set(Instant::now());
            self.keep(Python::attach(|py| py.check_signals()));
        }
        self.failed()
    }
}

/// Work that an observer watches; an exception of the callback, or Ctrl-C, is raised when it ends.
pub fn observed<R: Send>(
    py: Python<'_>,
    callback: Option<Py<PyAny>>,
    work: impl FnOnce(&mut dyn Observer) -> Result<R> + Send,
) -> PyResult<R> {
    let mut observer = PyObserver::new(callback);
    let watched = &mut observer;
    let done = errors::working(py, move || Ok(work(watched)))?;
    match observer.error.into_inner() {
        Some(error) => Err(error),
        None => done.map_err(|error: Error| errors::exception(py, &error)),
    }
}
