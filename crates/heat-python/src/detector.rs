//! Detectors: fitting, scoring, calibrating, files.

use std::path::PathBuf;
use std::sync::PoisonError;

use heat_ood::calibrate::{CalibrationConfig, Guarantee, Ties};
use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::ebm::Outcome;
use heat_ood::features::FeatureSet;
use heat_ood::math::parallel;
use heat_ood::recipe::Recipe;
use heat_ood::run::TrainingRun;
use heat_ood::scorers::{self, ScorerSpec, catalogue};
use heat_ood::{Detector, Event, Fit, TrainingData};
use numpy::PyArray1;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::{exception, input, working};
use crate::features::{PyFeatureSet, PyHead};
use crate::observer::observed;
use crate::remote::{PyEngine, Raised};

/// A fitted scorer, with what turns its scores into verdicts once it is calibrated.
#[pyclass(frozen, module = "heat_ood._heat_ood", name = "Detector")]
pub struct PyDetector(pub Detector);

/// Scores, p-values, verdicts and predicted classes.
type Predicted<'py> = (
    Bound<'py, PyArray1<f32>>,
    Option<Bound<'py, PyArray1<f64>>>,
    Option<Bound<'py, PyArray1<bool>>>,
    Option<Bound<'py, PyArray1<i64>>>,
);

/// What is fitted on; a head that does not go with the rows is refused, also where nothing reads it.
pub fn training(
    py: Python<'_>,
    set: &PyFeatureSet,
    head: Option<&PyHead>,
    classes: Option<usize>,
) -> PyResult<TrainingData> {
    if let Some(PyHead(head)) = head {
        let checked = set.0.check_head(head);
        let checked =
            checked.and_then(|()| set.0.indexing(head.classes()).check_classes(head.classes()));
        checked.map_err(|e| exception(py, &e))?;
    }
    Ok(TrainingData::new(&set.0).with_head(head.map(|head| &head.0)).with_classes(classes))
}

#[pymethods]
impl PyDetector {
    /// Open a detector's file.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        working(py, || Detector::open(path)).map(PyDetector)
    }

    /// A detector of the bytes of its file.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let bytes = bytes.to_vec();
        working(py, || Detector::from_bytes("memory", bytes)).map(PyDetector)
    }

    /// The bytes of its file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = working(py, || self.0.to_bytes())?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Write its file, whole or not at all.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        working(py, || self.0.save(path))
    }

    /// Name of the method.
    #[getter]
    fn scorer(&self) -> &'static str {
        self.0.scorer().name()
    }

    /// Where it comes from, and how it is calibrated, as JSON.
    fn info(&self) -> String {
        let section = self.0.scorer().section();
        serde_json::json!({
            "scorer": self.0.scorer().name(),
            "settings": section.config,
            "provenance": self.0.provenance(),
            "calibration": self.0.calibration().map(|c| {
                let mut json = serde_json::to_value(c.config()).unwrap_or_default();
                json["rows"] = c.scores().len().into();
                json["thresholds"] = serde_json::json!(c.thresholds());
                json["words"] = c.words().into();
                json
            }),
        })
        .to_string()
    }

    /// One score a row; higher = more out-of-distribution.
    #[pyo3(signature = (set, threads=None, progress=None))]
    fn score<'py>(
        &self,
        py: Python<'py>,
        set: &PyFeatureSet,
        threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let (detector, set) = (&self.0, &set.0);
        let scores = match threads {
            Some(threads) => {
                working(py, || parallel::with_threads(threads, || detector.score(set))?)?
            }
            None => observed(py, progress, |observer| detector.score_observed(set, observer))?,
        };
        Ok(PyArray1::from_vec(py, scores))
    }

    /// Scores with p-values, verdicts and predicted classes, where it is calibrated.
    #[pyo3(signature = (set, seed=None, progress=None, threads=None))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        set: &PyFeatureSet,
        seed: Option<u64>,
        progress: Option<Py<PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Predicted<'py>> {
        let ties = seed.map_or(Ties::Conservative, |seed| Ties::Randomized { seed, first: 0 });
        let (detector, set) = (&self.0, &set.0);
        let found = match threads {
            Some(threads) => working(py, || {
                let predict = || detector.predict(set, ties, &mut heat_ood::Silent);
                parallel::with_threads(threads, predict)?
            })?,
            None => observed(py, progress, |observer| detector.predict(set, ties, observer))?,
        };
        let verdicts = found.verdicts.as_deref();
        let p = verdicts.map(|v| PyArray1::from_iter(py, v.iter().map(|v| v.p_value)));
        let ood = verdicts.map(|v| PyArray1::from_iter(py, v.iter().map(|v| v.ood)));
        let classes = found.classes.as_deref();
        let classes = classes.map(|c| PyArray1::from_iter(py, c.iter().map(|c| i64::from(*c))));
        Ok((PyArray1::from_vec(py, found.scores), p, ood, classes))
    }

    /// What makes up the score, by name: of HEAT the network's energy and the prior's.
    fn components<'py>(&self, py: Python<'py>, set: &PyFeatureSet) -> PyResult<Bound<'py, PyDict>> {
        let names = self.0.scorer().components();
        let (detector, set) = (&self.0, &set.0);
        let found = working(py, || detector.predict(set, Ties::default(), &mut heat_ood::Silent))?;
        let parts = PyDict::new(py);
        for (i, name) in names.iter().enumerate() {
            let column = found.components.iter().skip(i).step_by(names.len()).copied();
            parts.set_item(&**name, PyArray1::from_iter(py, column))?;
        }
        Ok(parts)
    }

    /// A calibrated copy.
    #[pyo3(signature = (set, alpha, guarantee, delta, per_class, head=None, force=false))]
    #[expect(clippy::too_many_arguments, reason = "one a setting")]
    fn calibrate(
        &self,
        py: Python<'_>,
        set: &PyFeatureSet,
        alpha: f64,
        guarantee: &str,
        delta: f64,
        per_class: bool,
        head: Option<&PyHead>,
        force: bool,
    ) -> PyResult<Self> {
        let guarantee = match guarantee {
            "marginal" => Guarantee::Marginal,
            "clopper_pearson" => Guarantee::ClopperPearson,
            "dkw" => Guarantee::Dkw,
            other => {
                let text = format!("guarantee `{other}`: marginal, clopper_pearson or dkw");
                return Err(input(py, text));
            }
        };
        let config = CalibrationConfig { alpha, guarantee, delta, per_class };
        let mut detector = self.0.clone();
        let (set, head) = (&set.0, head.map(|head| &head.0));
        let calibrated = observed(py, None, move |observer| {
            detector.calibrate(&config, set, head, force, observer)?;
            Ok(detector)
        })?;
        Ok(PyDetector(calibrated))
    }

    /// The ID rows that it has not seen, and how many it had; `train` are the sets it was fitted on.
    fn without_seen(
        &self,
        py: Python<'_>,
        set: &PyFeatureSet,
        train: Vec<PyRef<'_, PyFeatureSet>>,
    ) -> PyResult<(PyFeatureSet, usize)> {
        let train: Vec<_> = train.iter().map(|set| set.0.clone()).collect();
        let provenance = self.0.provenance();
        let (left, dropped) = observed(py, None, |observer| {
            for text in provenance.unrecorded(&train)? {
                observer.on(Event::Warning(&text));
            }
            provenance.without_seen(&set.0, &train)
        })?;
        Ok((PyFeatureSet(left), dropped))
    }

    /// A copy that decides at another rate.
    fn with_alpha(&self, py: Python<'_>, alpha: f64) -> PyResult<Self> {
        let mut detector = self.0.clone();
        detector.set_alpha(alpha).map_err(|e| exception(py, &e))?;
        Ok(PyDetector(detector))
    }

    /// A copy that takes features of another network or transform.
    fn of_any_origin(&self) -> Self {
        PyDetector(self.0.clone().of_any_origin())
    }

    /// Scores of its calibration rows, ascending.
    fn calibration_scores<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<f32>>> {
        self.0.calibration().map(|c| PyArray1::from_slice(py, c.scores().scores()))
    }
}

/// Settings as the command's.
fn settings(py: Python<'_>, given: &Bound<'_, PyDict>) -> PyResult<toml::Table> {
    let mut table = toml::Table::new();
    for (key, value) in given {
        let key: String = key.extract()?;
        let value = if let Ok(value) = value.extract::<bool>() {
            toml::Value::Boolean(value)
        } else if let Ok(value) = value.extract::<i64>() {
            toml::Value::Integer(value)
        } else if let Ok(value) = value.extract::<f64>() {
            toml::Value::Float(value)
        } else if let Ok(value) = value.extract::<String>() {
            toml::Value::String(value)
        } else {
            let kind = value.get_type().name()?;
            let text = format!("`{key}`: expected a number, a text or a truth value, got {kind}");
            return Err(input(py, text));
        };
        table.insert(key, value);
    }
    Ok(table)
}

/// Fit a scorer by its name.
#[pyfunction]
#[pyo3(signature = (name, given, set, head=None, classes=None, progress=None))]
pub fn fit(
    py: Python<'_>,
    name: String,
    given: &Bound<'_, PyDict>,
    set: &PyFeatureSet,
    head: Option<&PyHead>,
    classes: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<PyDetector> {
    let spec = ScorerSpec { name, settings: settings(py, given)? };
    let data = training(py, set, head, classes)?;
    let detector = observed(py, progress, |observer| {
        let mut detector = Detector::new(spec.fit(&data, observer)?);
        detector.record_recipe(spec.to_string(), None);
        Ok(detector)
    })?;
    Ok(PyDetector(detector))
}

/// The settings of a scorer as the command writes them.
#[pyfunction]
pub fn spec_text(py: Python<'_>, name: String, given: &Bound<'_, PyDict>) -> PyResult<String> {
    Ok(ScorerSpec { name, settings: settings(py, given)? }.to_string())
}

/// Name and settings of a scorer written as the command does, settings as JSON.
#[pyfunction]
pub fn parse_spec(py: Python<'_>, text: &str) -> PyResult<(String, String)> {
    let spec = ScorerSpec::parse(text).map_err(|e| exception(py, &e))?;
    Ok((spec.name, serde_json::to_string(&spec.settings).unwrap_or_default()))
}

/// All scorers with their settings and defaults, and what a fit needs, as JSON.
#[pyfunction]
pub fn scorer_list() -> String {
    let list = catalogue().iter().map(|listed| {
        let settings: serde_json::Map<_, _> = listed.settings.iter().cloned().collect();
        (listed.name.to_owned(), serde_json::Value::Object(settings))
    });
    serde_json::Value::Object(list.collect()).to_string()
}

/// Names of a group of scorers: all, logits, features, head, maps, unlabelled, committee (those for such
/// training data, where they are given).
#[pyfunction]
#[pyo3(signature = (word, set=None, head=None))]
pub fn scorer_group(
    py: Python<'_>,
    word: &str,
    set: Option<&PyFeatureSet>,
    head: Option<&PyHead>,
) -> PyResult<Vec<String>> {
    let known = scorers::Group::ALL.map(|(name, _)| name);
    let group = scorers::Group::named(word);
    let group =
        group.ok_or_else(|| exception(py, &heat_ood::Error::unknown("group", word, known)))?;
    let members = match set {
        Some(set) => group.scorers_for(&training(py, set, head, None)?),
        None => group.scorers(),
    };
    Ok(members.iter().map(ScorerSpec::to_string).collect())
}

/// A recipe resolved, as TOML.
#[pyfunction]
#[pyo3(signature = (arguments, recipes=None))]
pub fn resolve_recipe(
    py: Python<'_>,
    arguments: Vec<String>,
    recipes: Option<PathBuf>,
) -> PyResult<(String, Vec<String>)> {
    let recipe = Recipe::resolve(&arguments, recipes.as_deref());
    let recipe = recipe.map_err(|e| exception(py, &e))?;
    Ok((recipe.to_toml(), recipe.notices))
}

/// Train a recipe in a directory; another Ctrl-C or an exception of `progress` leaves a checkpoint.
///
/// `engine`, where there is one, has the methods `begin(model, block_rows)` and `sample(job)`; the
/// latter returns the rows to which it ran the job's chains, as `Chains.run` does.
#[pyfunction]
#[pyo3(signature = (recipe, out, set, head=None, resume=false, progress=None, engine=None))]
#[expect(clippy::too_many_arguments, reason = "one a setting")]
pub fn train(
    py: Python<'_>,
    recipe: &str,
    out: PathBuf,
    set: &PyFeatureSet,
    head: Option<&PyHead>,
    resume: bool,
    progress: Option<Py<PyAny>>,
    engine: Option<Py<PyAny>>,
) -> PyResult<PyDetector> {
    let recipe = Recipe::parse(recipe).map_err(|e| exception(py, &e))?;
    let data = training(py, set, head, None)?;
    let place = out.display().to_string();
    let raised = Raised::default();
    let done = observed(py, progress, |observer| {
        let mut run = TrainingRun::open(&recipe, &data, &out, resume, observer)?;
        if let Some(engine) = engine {
            let engine = PyEngine::begin(engine, run.trainer(), raised.clone())?;
            run = run.with_engine(Box::new(engine));
        }
        if run.train(observer)? == Outcome::Stopped {
            return Ok(None);
        }
        run.finish().map(|(_, detector)| Some(detector))
    });
    if let Some(error) = raised.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    done?.map(PyDetector).ok_or_else(|| {
        PyKeyboardInterrupt::new_err(format!("stopped; a checkpoint is in {place}: resume=True"))
    })
}

/// Compose detectors; statistics of their scores are taken over the set: the training set, or, with
/// `against`, rows held out of training, and the weights against these sets, where there are some.
#[pyfunction]
#[pyo3(signature = (members, beta, set, head=None, against=None, progress=None))]
pub fn compose(
    py: Python<'_>,
    members: Vec<(String, PyRef<'_, PyDetector>, f64)>,
    beta: f64,
    set: &PyFeatureSet,
    head: Option<&PyHead>,
    against: Option<Vec<PyRef<'_, PyFeatureSet>>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<PyDetector> {
    let held_out = against.is_some();
    let against: Vec<FeatureSet> = against.iter().flatten().map(|set| set.0.clone()).collect();
    let names: Vec<String> = members.iter().map(|(name, ..)| name.clone()).collect();
    let parts = members.iter().map(|(name, detector, weight)| Part {
        weight: *weight,
        ..Part::new(name, detector.0.fitted())
    });
    let (parts, data) = (parts.collect(), training(py, set, head, None)?);
    for (_, detector, _) in &members {
        for set in against.iter().chain([&set.0]) {
            let checked = detector.0.provenance().check_origin(set);
            checked.map_err(|e| exception(py, &e))?;
        }
    }
    let config = CombinedConfig { members: parts, beta };
    let detector = observed(py, progress, |observer| {
        let mut detector = Detector::new(match held_out {
            true if !against.is_empty() => {
                config.fit_against(&data.features, &against, false, observer)?
            }
            true => config.fit_held_out(&data.features, false, observer)?,
            false => config.fit(&data, observer)?,
        });
        detector.record_recipe(format!("combine({},beta={beta})", names.join(",")), None);
        Ok(detector)
    })?;
    Ok(PyDetector(detector))
}

/// Threads that work in this process from now on.
#[pyfunction]
pub fn set_num_threads(py: Python<'_>, threads: usize) -> PyResult<()> {
    working(py, || parallel::set_threads(threads))
}

/// Threads that work in this process.
#[pyfunction]
pub fn num_threads() -> usize {
    parallel::threads()
}
