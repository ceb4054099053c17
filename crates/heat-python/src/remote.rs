//! Chains of training that run elsewhere: Python says where.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use heat_ood::ebm::engine::{Cpu, Engine, LossBatch};
use heat_ood::ebm::loss::LossValues;
use heat_ood::ebm::mlp::Mlp;
use heat_ood::ebm::sampler::{ChainKey, Energy, Langevin, Projection};
use heat_ood::ebm::{Heat, Trainer};
use heat_ood::math::{BLOCK_ROWS, parallel};
use heat_ood::scorers::{Fitted, Prior};
use heat_ood::{Detector, Error, Result};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::{input, working};

/// What an engine of Python's raised, to be raised again when the run has ended.
pub type Raised = Arc<Mutex<Option<PyErr>>>;

/// Asks a Python object for the chains; the rest of a step is computed here.
pub struct PyEngine {
    engine: Py<PyAny>,
    raised: Raised,
    here: Cpu,
}

impl PyEngine {
    /// Tell the engine what stays the same throughout the run (`begin(model, block_rows)`).
    ///
    /// # Errors
    /// If the model cannot be written, or the engine raises, which `raised` then holds.
    pub fn begin(engine: Py<PyAny>, trainer: &Trainer, raised: Raised) -> Result<Self> {
        let model = Detector::new(Fitted::unrecorded(trainer.heat())).to_bytes()?;
        let engine = PyEngine { engine, raised, here: Cpu::default() };
        engine.ask(|py| {
            let model = PyBytes::new(py, &model);
            engine.engine.call_method1(py, "begin", (model, BLOCK_ROWS)).map(drop)
        })?;
        Ok(engine)
    }

    fn ask<R>(&self, work: impl FnOnce(Python<'_>) -> PyResult<R>) -> Result<R> {
        Python::attach(work).map_err(|error| {
            self.raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            Error::Stopped
        })
    }
}

impl Engine for PyEngine {
    fn sample(
        &mut self,
        energy: &Energy<'_>,
        chain: &Langevin,
        key: ChainKey,
        z: &mut [f32],
    ) -> Result<()> {
        if chain.svgd {
            // All rows meet in each step: nothing can be dealt out.
            return self.here.sample(energy, chain, key, z);
        }
        let dim = energy.prior.dim();
        // Of networks with spectral norm or standardised inputs, what they apply.
        let parameters = energy.net.applied();
        self.ask(|py| {
            let job = PyDict::new(py);
            job.set_item("parameters", PyArray1::from_slice(py, parameters))?;
            job.set_item("temperatures", (energy.temperature, energy.temperature_prior))?;
            let Projection { relu, normalize, halves } = energy.projection;
            job.set_item("projection", (relu, normalize, halves))?;
            let (step_size, eps) = (chain.step_size, chain.eps);
            job.set_item("chain", (chain.steps, step_size, eps, chain.precondition))?;
            job.set_item("key", (key.seed, key.step, key.block))?;
            let rows = PyArray1::from_slice(py, z).reshape([z.len() / dim, dim])?;
            job.set_item("rows", rows)?;
            job.set_item("labels", energy.labels.map(|l| PyArray1::from_slice(py, l)))?;
            let found = self.engine.call_method1(py, "sample", (job,))?;
            let found: PyReadonlyArray2<'_, f32> = found.extract(py)?;
            let values = found.as_slice().ok().filter(|v| v.len() == z.len());
            let values = values.ok_or_else(|| {
                let shape = found.as_array().shape().to_vec();
                let wanted = z.len() / dim;
                input(
                    py,
                    format!("the engine gave {shape:?}, expected [{wanted}, {dim}], C-contiguous"),
                )
            })?;
            z.copy_from_slice(values);
            Ok(())
        })
    }

    fn loss_gradient(
        &mut self,
        net: &Mlp,
        batch: &LossBatch<'_>,
        grad: &mut [f32],
    ) -> Result<LossValues> {
        self.here.loss_gradient(net, batch, grad)
    }

    fn stop_on(&mut self, flag: Option<Arc<AtomicBool>>) {
        self.here.stop_on(flag);
    }
}

/// A worker's side: runs chains of a model that was trained elsewhere.
#[pyclass(frozen, module = "heat_ood._heat_ood", name = "Chains")]
pub struct PyChains {
    prior: Arc<dyn Prior>,
    running: Mutex<(Mlp, Cpu)>,
}

#[pymethods]
impl PyChains {
    /// The chains of the model that `begin` of an engine is given.
    #[new]
    fn new(py: Python<'_>, model: &[u8]) -> PyResult<Self> {
        let bytes = model.to_vec();
        let detector = working(py, || Detector::from_bytes("model", bytes))?;
        let scorer: &dyn std::any::Any = &**detector.scorer();
        let heat = scorer.downcast_ref::<Heat>();
        let heat = heat.ok_or_else(|| input(py, "model: not a residual energy with its prior"))?;
        let running = Mutex::new((heat.net().clone(), Cpu::default()));
        Ok(PyChains { prior: heat.prior().clone(), running })
    }

    /// Run the chains of some rows to their ends: a pure function of what is given.
    #[pyo3(signature = (parameters, temperatures, projection, chain, key, rows, labels=None, threads=1))]
    #[expect(clippy::too_many_arguments, reason = "those of the engine")]
    fn run<'py>(
        &self,
        py: Python<'py>,
        parameters: PyReadonlyArray1<'py, f32>,
        temperatures: (f64, f64),
        projection: (bool, bool, bool),
        chain: (usize, (f64, f64), (f64, f64), bool),
        key: (u64, u64, u64),
        rows: PyReadonlyArray2<'py, f32>,
        labels: Option<PyReadonlyArray1<'py, u32>>,
        threads: usize,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let [n, dim] = [rows.as_array().nrows(), rows.as_array().ncols()];
        let parameters = parameters.as_slice()?.to_vec();
        let labels = labels.map(|l| l.as_slice().map(<[u32]>::to_vec)).transpose()?;
        let mut z = rows.as_slice()?.to_vec();
        let held = self.running.lock().unwrap_or_else(PoisonError::into_inner).0.parameters().len();
        if dim != self.prior.dim() || parameters.len() != held || n == 0 {
            let expected = self.prior.dim();
            return Err(input(
                py,
                format!(
                    "rows [{n}, {dim}] and {} parameters, expected [N, {expected}] and {held}",
                    parameters.len()
                ),
            ));
        }
        if labels.as_ref().is_some_and(|l| l.len() != n) {
            return Err(input(py, format!("labels: expected one for each of {n} rows")));
        }
        let (relu, normalize, halves) = projection;
        let projection = Projection { relu, normalize, halves };
        let (steps, step_size, eps, precondition) = chain;
        let chain = Langevin { steps, step_size, eps, precondition, svgd: false };
        let (seed, step, block) = key;
        let z = working(py, || {
            parallel::with_threads(threads, || {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                let (net, cpu) = &mut *running;
                net.update(|p| p.copy_from_slice(&parameters));
                let energy = Energy {
                    net,
                    prior: &*self.prior,
                    temperature: temperatures.0,
                    temperature_prior: temperatures.1,
                    projection,
                    labels: labels.as_deref(),
                };
                cpu.sample(&energy, &chain, ChainKey { seed, step, block }, &mut z)
            })??;
            Ok(z)
        })?;
        PyArray1::from_vec(py, z).reshape([n, dim])
    }
}
