//! Images to features.

use std::collections::BTreeSet;
use std::path::PathBuf;

use heat_images::backbone::{
    self, Backbone, BackboneOptions, Device, ExtractConfig, LayersAsked, Perturbation, Precision,
};
use heat_images::surrogates::{Kind, SurrogateConfig, extract_surrogates};
use heat_images::{ImageOptions, TransformConfig, open};
use heat_ood::Error;
use heat_ood::features::{Field, View, gram_rows, mean_without_first};
use heat_ood::math::parallel::{Pieces, Slices};
use heat_ood::recipe::Recipe;
use numpy::ndarray::Axis;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray3};
use pyo3::prelude::*;

use crate::detector::PyDetector;
use crate::errors::{exception, input, working};
use crate::features::{PyFeatureSet, PyHead};
use crate::observer::observed;

/// A classifier that makes features of images: an ONNX file, or the weights of a ResNet.
#[pyclass(frozen, module = "heat_ood._heat_ood", name = "Backbone")]
pub struct PyBackbone {
    path: PathBuf,
    options: BackboneOptions,
    opened: Backbone,
}

#[pymethods]
impl PyBackbone {
    #[new]
    #[pyo3(signature = (path, library=None, tap=None, output=None, arch=None, prefix=None))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        library: Option<PathBuf>,
        tap: Option<String>,
        output: Option<String>,
        arch: Option<String>,
        prefix: Option<String>,
    ) -> PyResult<Self> {
        let options = BackboneOptions { tap, output, classes: None, arch, prefix, library };
        let opened = working(py, || Backbone::open(&path, &options))?;
        Ok(PyBackbone { path, options, opened })
    }

    /// What was found in it, in words.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.opened.notes().to_vec()
    }

    /// SHA-256 of the file.
    #[getter]
    fn sha256(&self) -> &str {
        self.opened.sha256()
    }

    /// The last linear layer, where there is one.
    #[getter]
    fn head(&self) -> Option<PyHead> {
        self.opened.head().cloned().map(PyHead)
    }
}

fn transform(py: Python<'_>, arguments: &[String]) -> PyResult<TransformConfig> {
    let recipe = Recipe::resolve(arguments, None).map_err(|e| exception(py, &e))?;
    Ok(recipe.transform.unwrap_or_else(TransformConfig::imagenet))
}

/// Rows, images taken over from before, images left out, how far logits and labels agree; of surrogates
/// their kinds, and how many images each excluded set left out.
type Done = (usize, usize, Vec<String>, Option<String>, Vec<&'static str>, Vec<usize>);

/// Extract images into a feature set; or sets of surrogates made of them.
#[pyfunction]
#[pyo3(signature = (images, network, out, transform_arguments, format=None, split=None, root=None, batch_size=64,
                    shard_rows=8192, dtype="f16", skip_unreadable=false, layers=Vec::new(), found_layers=None, views=Vec::new(), maps=Vec::new(),
                    perturb=None, epsilon=None, perturb_values=None,
                    surrogates=None, surrogate_rows=1500, seed=0, exclude=None, preview=None,
                    device="cpu", precision="f32", progress=None))]
#[expect(clippy::too_many_arguments, reason = "one a setting")]
pub fn extract(
    py: Python<'_>,
    images: PathBuf,
    network: &PyBackbone,
    out: PathBuf,
    transform_arguments: Vec<String>,
    format: Option<String>,
    split: Option<String>,
    root: Option<PathBuf>,
    batch_size: usize,
    shard_rows: usize,
    dtype: &str,
    skip_unreadable: bool,
    layers: Vec<(String, String)>,
    found_layers: Option<usize>,
    views: Vec<String>,
    maps: Vec<String>,
    perturb: Option<PyRef<'_, PyDetector>>,
    epsilon: Option<f64>,
    perturb_values: Option<usize>,
    surrogates: Option<Vec<String>>,
    surrogate_rows: usize,
    seed: u64,
    exclude: Option<Vec<PyRef<'_, PyFeatureSet>>>,
    preview: Option<PathBuf>,
    device: &str,
    precision: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<Done> {
    let device: Device = device.parse().map_err(|e: Error| exception(py, &e))?;
    let precision: Precision = precision.parse().map_err(|e: Error| exception(py, &e))?;
    let transform = transform(py, &transform_arguments)?;
    let dtype = dtype.parse().map_err(|e: Error| exception(py, &e))?;
    let exclude = exclude.iter().flatten().map(|set| set.0.clone()).collect();
    let surrogates = surrogates
        .map(|names| Kind::parse(&names))
        .transpose()
        .map_err(|e| exception(py, &e))?
        .map(|kinds| SurrogateConfig { kinds, rows: surrogate_rows, seed, exclude, preview });
    let perturb = perturb.map(|detector| {
        let problem = "how far the images are moved, in normalised pixel values, such as 0.0014";
        let epsilon = epsilon.ok_or_else(|| Error::config("epsilon", "None", problem))?;
        Perturbation::new(detector.0.scorer().clone(), epsilon)?.of_largest(perturb_values)
    });
    let perturb = perturb.transpose().map_err(|e| exception(py, &e))?;
    if perturb.is_none() && (epsilon.is_some() || perturb_values.is_some()) {
        return Err(input(
            py,
            "epsilon and perturb_values go with perturb, the detector whose energy they follow",
        ));
    }
    observed(py, progress, |observer| {
        let named = |name: String| {
            let value = serde_json::Value::String(name.to_lowercase());
            serde_json::from_value(value).map_err(|e| Error::config("format", name, e.to_string()))
        };
        let format = format.map(named).transpose()?;
        let set = open(&images, &ImageOptions { format, split, root, max_pixels: None })?;
        let largest = (0..set.len()).filter_map(|i| set.label(i)).max();
        let classes = largest.map(|label| label as usize + 1);
        // By the number of classes one of several outputs is chosen, unless one was named.
        let chosen = (classes.is_some() && network.options.output.is_none()).then(|| {
            let options = BackboneOptions { classes, ..network.options.clone() };
            Backbone::open(&network.path, &options)
        });
        let chosen = chosen.transpose()?;
        let backbone = chosen.unwrap_or_else(|| network.opened.clone()).on(device, precision)?;
        let layers = LayersAsked { named: layers, found: found_layers };
        let views =
            views.iter().map(|name| name.parse()).collect::<heat_ood::Result<BTreeSet<View>>>()?;
        let of_maps = maps.iter().map(|name| {
            let known = Field::OF_MAPS.into_iter().find(|field| field.name() == name);
            known.ok_or_else(|| {
                Error::unknown("field of maps", name, Field::OF_MAPS.map(Field::name))
            })
        });
        let of_maps = of_maps.collect::<heat_ood::Result<Vec<_>>>()?;
        let backbone = backbone.with_layers_of(&layers, &*set, &transform)?;
        let backbone = &backbone.with_fields_of_maps(&of_maps)?;
        let batch_size = backbone.found().batch().unwrap_or(batch_size);
        let config = ExtractConfig {
            transform,
            batch_size,
            shard_rows,
            skip_unreadable,
            dtype,
            perturb,
            views,
        };
        let (done, used, kinds, left_out) = match &surrogates {
            None => {
                let done = backbone::extract(&*set, backbone, &out, &config, observer)?;
                let rows = done.rows;
                (done, rows, Vec::new(), Vec::new())
            }
            Some(asked) => {
                let done = extract_surrogates(&*set, backbone, &out, &config, asked, observer)?;
                let kinds = done.kinds.iter().map(|(kind, _)| kind.name()).collect();
                let left_out = done.of.excluded.iter().map(|set| set.left_out).collect();
                (done.id, done.of.used, kinds, left_out)
            }
        };
        let agreement = done.agreement.map(|agreement| agreement.to_string());
        Ok((used, done.resumed, done.unreadable, agreement, kinds, left_out))
    })
}

/// What a scorer reads of maps `[N, C, cells]`: `gram` or `rankfeat`.
#[pyfunction]
pub fn of_maps<'py>(
    py: Python<'py>,
    name: &str,
    maps: PyReadonlyArray3<'py, f32>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let [n, channels, cells] = [0, 1, 2].map(|axis| maps.as_array().len_of(Axis(axis)));
    let values = maps.as_slice().map_err(|_| input(py, "the array is not C-contiguous"))?;
    let made = working(py, || {
        let rows = values.par_chunks((channels * cells).max(1));
        match name {
            "gram" => Ok(rows.map(|map| gram_rows(map, channels)).collect().concat()),
            _ => {
                let rows = rows.map(|map| mean_without_first(map, channels)).collect();
                Ok(rows.into_iter().collect::<heat_ood::Result<Vec<_>>>()?.concat())
            }
        }
    })?;
    let columns = made.len() / n.max(1);
    PyArray1::from_vec(py, made).reshape([n, columns])
}
