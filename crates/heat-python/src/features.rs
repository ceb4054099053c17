//! Feature sets and heads: NumPy's memory is read where it lies.

use std::path::PathBuf;
use std::sync::Arc;

use heat_ood::evaluate::{Remarks, remarks};
use heat_ood::features::{ByteOwner, FeatureSet, Field, FloatType, Head, Matrix, OpenOptions};
use numpy::{Element, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{exception, input, working};

/// The values of a C-contiguous array, kept alive by it.
struct Held {
    _array: Py<PyAny>,
    pointer: *const u8,
    length: usize,
}

// SAFETY: the bytes belong to the array, which is kept, and are only read. The array is let go
// through PyO3, which waits for the interpreter where it must.
unsafe impl Send for Held {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Held {}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `held` took pointer and length of one contiguous array, which does not move
        // while it is referred to: NumPy refuses to resize it then.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }
    }
}

fn held<T: Element>(array: &Bound<'_, PyArray2<T>>, kind: FloatType) -> PyResult<Matrix> {
    let py = array.py();
    let readonly = array.readonly();
    let values = readonly.as_slice().map_err(|_| input(py, "the array is not C-contiguous"))?;
    let (pointer, length) = (values.as_ptr().cast(), std::mem::size_of_val(values));
    let owner: ByteOwner =
        Arc::new(Held { _array: array.clone().into_any().unbind(), pointer, length });
    let rows = readonly.as_array().nrows();
    Matrix::shared_bytes(rows, owner, kind).map_err(|e| exception(py, &e))
}

/// A matrix of a type that is told apart in Python: half precision and bfloat16 come as `uint16`.
fn matrix(array: &Bound<'_, PyAny>, kind: &str) -> PyResult<Matrix> {
    match kind {
        "f16" => held::<u16>(array.cast()?, FloatType::F16),
        "bf16" => held::<u16>(array.cast()?, FloatType::Bf16),
        "f64" => held::<f64>(array.cast()?, FloatType::F64),
        _ => held::<f32>(array.cast()?, FloatType::F32),
    }
}

fn field(py: Python<'_>, name: &str) -> PyResult<Field> {
    Field::named(name).ok_or_else(|| {
        let fields = "avg, std, max, logits, probs, or one of these of a layer or view (mid.avg)";
        input(py, format!("there is no field `{name}`: {fields}"))
    })
}

/// N rows of features. A clone shares the data.
#[pyclass(frozen, module = "heat_ood._heat_ood", name = "FeatureSet")]
pub struct PyFeatureSet(pub FeatureSet);

#[pymethods]
impl PyFeatureSet {
    /// Open a file or a directory.
    #[staticmethod]
    #[pyo3(signature = (path, labels=None, dim=None, label_column=None, in_memory=false))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        labels: Option<PathBuf>,
        dim: Option<usize>,
        label_column: Option<String>,
        in_memory: bool,
    ) -> PyResult<Self> {
        let options = OpenOptions { dim, fallback_dim: None, label_column, in_memory };
        let set = working(py, || {
            let set = FeatureSet::open_with(path, &options)?;
            labels.map_or(Ok(set.clone()), |labels| set.with_labels(labels))
        })?;
        Ok(PyFeatureSet(set))
    }

    /// A set of C-contiguous arrays: `fields` by name, each with its kind of number.
    #[staticmethod]
    #[pyo3(signature = (name, fields, labels=None, class_names=None))]
    fn from_arrays(
        py: Python<'_>,
        name: String,
        fields: Vec<(String, Bound<'_, PyAny>, String)>,
        labels: Option<PyReadonlyArray1<'_, i64>>,
        class_names: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let mut set = FeatureSet::in_memory(name);
        for (name, array, kind) in &fields {
            set = set.field(field(py, name)?, matrix(array, kind)?);
        }
        if let Some(labels) = labels {
            set = set.labels(labels.as_array().iter().copied());
        }
        let set = match class_names {
            Some(names) => set.class_names(names).and_then(|set| set.build()),
            None => set.build(),
        };
        set.map(PyFeatureSet).map_err(|e| exception(py, &e))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// Where it came from.
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// The files it was read from.
    #[getter]
    fn files(&self) -> Vec<PathBuf> {
        self.0.files().to_vec()
    }

    /// Columns of each field that is there.
    #[getter]
    fn dims<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dims = PyDict::new(py);
        for field in self.0.fields() {
            if let Some(columns) = self.0.dim(field) {
                dims.set_item(field.name(), columns)?;
            }
        }
        Ok(dims)
    }

    /// Whether rows have labels.
    #[getter]
    fn labelled(&self) -> bool {
        self.0.labelled()
    }

    /// Names of the classes by number, where labels were texts or not 0, 1, ….
    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.0.class_names()
    }

    /// What is worth knowing about how it was read, its labels and its classifier; and what must
    /// be wrong.
    #[pyo3(signature = (head=None))]
    fn remarks(
        &self,
        py: Python<'_>,
        head: Option<&PyHead>,
    ) -> PyResult<(Vec<String>, Vec<String>)> {
        let head = head.map(|head| &head.0);
        let Remarks { notes, mut warnings } = working(py, || remarks(&self.0, head))?;
        // What cannot be read is said by who needs it.
        warnings.extend(self.0.check_logits(head).unwrap_or_default());
        let read = self.0.notices().iter().cloned();
        Ok((read.chain(self.0.label_notices()).chain(notes).collect(), warnings))
    }

    /// Number of classes of the labels.
    fn classes(&self, py: Python<'_>) -> PyResult<usize> {
        working(py, || self.0.classes())
    }

    /// Rows `start..stop` of a field, as `float32`.
    fn read<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        start: usize,
        stop: usize,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let field = field(py, name)?;
        let columns = self.0.require(field).map_err(|e| exception(py, &e))?;
        if start > stop || stop > self.0.len() {
            return Err(input(py, format!("rows {start}..{stop} of {}", self.0.len())));
        }
        let values = working(py, || {
            let mut values = vec![0.0; (stop - start) * columns];
            self.0.read(field, start..stop, &mut values)?;
            Ok(values)
        })?;
        PyArray1::from_vec(py, values).reshape([stop - start, columns])
    }

    /// Labels by the numbers of their classes.
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let labels = working(py, || self.0.labels(0..self.0.len(), self.0.classes()?))?;
        Ok(PyArray1::from_vec(py, labels))
    }

    /// Some rows, in the given order.
    fn select(&self, py: Python<'_>, rows: PyReadonlyArray1<'_, i64>) -> PyResult<Self> {
        let row = |i: &i64| {
            let row = u32::try_from(*i).ok().filter(|i| (*i as usize) < self.0.len());
            row.ok_or_else(|| input(py, format!("row {i} of {}", self.0.len())))
        };
        let rows = rows.as_array().iter().map(row).collect::<PyResult<Vec<u32>>>()?;
        working(py, || self.0.select(rows, None)).map(PyFeatureSet)
    }
}

/// The classifier's last linear layer.
#[pyclass(frozen, module = "heat_ood._heat_ood", name = "Head")]
pub struct PyHead(pub Head);

#[pymethods]
impl PyHead {
    #[new]
    fn new(
        py: Python<'_>,
        weight: PyReadonlyArray2<'_, f32>,
        bias: PyReadonlyArray1<'_, f32>,
    ) -> PyResult<Self> {
        let (rows, columns) = weight.as_array().dim();
        if bias.as_array().len() != rows {
            let text = format!(
                "the head's weight is [{rows}, {columns}] and its bias [{}]: expected [C, D] and [C]",
                bias.as_array().len()
            );
            return Err(input(py, text));
        }
        let weight = weight.as_array().iter().copied().collect();
        let bias = bias.as_array().iter().copied().collect();
        Head::new(weight, bias).map(PyHead).map_err(|e| exception(py, &e))
    }

    /// Read `weight` and `bias` from a file.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        working(py, || Head::open(path)).map(PyHead)
    }

    /// Write them to a file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        working(py, || self.0.save(path))
    }

    /// W, `[C, D]`.
    #[getter]
    fn weight<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let values = PyArray1::from_slice(py, self.0.weight());
        values.reshape([self.0.classes(), self.0.dim()])
    }

    /// b, `[C]`.
    #[getter]
    fn bias<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        PyArray1::from_slice(py, self.0.bias())
    }
}
