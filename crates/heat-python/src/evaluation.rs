//! Evaluation with intervals and tests, selection, metrics.

use std::path::PathBuf;

use heat_cli::export::{self, Format};
use heat_cli::report::{self, Evaluation, ReportData};
use heat_ood::Detector;
use heat_ood::auto::{AutoConfig, AutoData};
use heat_ood::calibrate::CalibrationConfig;
use heat_ood::evaluate::{Baseline, Candidate, Groups, Results, Statistics};
use heat_ood::features::{FeatureSet, OpenOptions};
use heat_ood::metrics::{self, BootstrapConfig};
use heat_ood::scorers::ScorerSpec;
use heat_ood::select::{
    SelectConfig, Standardise, Surrogates, fit_committee, fit_composition, tune,
};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::detector::{PyDetector, training};
use crate::errors::{exception, input, working};
use crate::features::{PyFeatureSet, PyHead};
use crate::observer::observed;

/// What an evaluation found, and what a report shows of it.
#[pyclass(frozen, module = "heat_ood._heat_ood", name = "Results")]
pub struct PyResults {
    results: Results,
    evaluation: Evaluation,
}

#[pymethods]
impl PyResults {
    /// As text: table, json, csv or markdown.
    fn text(&self, py: Python<'_>, form: &str) -> PyResult<String> {
        let format = match form {
            "table" => Format::Table,
            "json" => Format::Json,
            "csv" => Format::Csv,
            "markdown" => Format::Markdown,
            other => {
                let text = format!("format `{other}`: table, json, csv or markdown");
                return Err(input(py, text));
            }
        };
        working(py, || Ok(export::results(&self.results, format)))
    }

    /// The page of `heat eval --report`.
    fn html(&self, py: Python<'_>, title: String) -> PyResult<String> {
        let evaluation = self.evaluation.clone();
        working(py, || {
            let data = ReportData::new(title, Vec::new());
            report::render(&data.with_results(&self.results, evaluation))
        })
    }
}

/// Sets by name.
type Sets<'py> = Vec<(String, PyRef<'py, PyFeatureSet>)>;

fn owned(sets: &Sets<'_>) -> Vec<(String, FeatureSet)> {
    sets.iter().map(|(name, set)| (name.clone(), set.0.clone())).collect()
}

/// Score, measure, and find out what else is asked for.
#[pyfunction]
#[pyo3(signature = (candidates, id, ood, near_far=None, level=None, compare=None, resamples=None, seed=None,
                    train=None, head=None, force=false, progress=None))]
#[expect(clippy::too_many_arguments, reason = "one a setting")]
pub fn evaluate(
    py: Python<'_>,
    candidates: Vec<(String, PyRef<'_, PyDetector>, Option<f64>)>,
    id: &PyFeatureSet,
    ood: Sets<'_>,
    near_far: Option<(Vec<String>, Vec<String>)>,
    level: Option<f64>,
    compare: Option<String>,
    resamples: Option<usize>,
    seed: Option<u64>,
    train: Option<&PyFeatureSet>,
    head: Option<&PyHead>,
    force: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<PyResults> {
    let usual = Statistics::default();
    let statistics = Statistics {
        groups: near_far.map(|(near, far)| Groups { near, far }),
        intervals: level.is_some(),
        compare: compare.map(|name| match &*name {
            "best" => Baseline::Best,
            _ => Baseline::Named(name),
        }),
        level: level.unwrap_or(usual.level),
        bootstrap: BootstrapConfig {
            resamples: resamples.unwrap_or(usual.bootstrap.resamples),
            seed: seed.unwrap_or(usual.bootstrap.seed),
        },
    };
    let detectors: Vec<(String, Detector)> =
        candidates.iter().map(|(name, detector, _)| (name.clone(), detector.0.clone())).collect();
    let fitted = candidates.iter().map(|(name, detector, seconds)| Candidate {
        name: name.clone(),
        scorer: detector.0.fitted(),
        fit_seconds: *seconds,
    });
    let (candidates, ood): (Vec<_>, _) = (fitted.collect(), owned(&ood));
    let (id, train, head) = (&id.0, train.map(|set| &set.0), head.map(|head| &head.0));
    let (results, evaluation) = observed(py, progress, |observer| {
        let sets: Vec<&str> = ood.iter().map(|(name, _)| &**name).collect();
        let names: Vec<&str> = candidates.iter().map(|c| &*c.name).collect();
        statistics.check_sets(&sets)?;
        statistics.check_scorers(&names)?;
        for (_, detector) in detectors.iter().filter(|_| !force) {
            let all = std::iter::once(id).chain(ood.iter().map(|(_, set)| set));
            all.into_iter().try_for_each(|set| detector.provenance().check_origin(set))?;
        }
        let (mut results, mut evaluation) = Evaluation::of(id, &ood, &candidates, observer)?;
        statistics.add_to(&mut results, evaluation.scores(), observer)?;
        for (name, detector) in detectors.iter().filter(|(_, d)| d.calibration().is_some()) {
            evaluation = evaluation.with_detector(name, None, detector, id, &ood)?;
        }
        if let Some(train) = train {
            evaluation = evaluation.with_training(train, head)?;
        }
        Ok((results, evaluation))
    })?;
    Ok(PyResults { results, evaluation })
}

fn scores(array: &PyReadonlyArray1<'_, f32>) -> Vec<f32> {
    array.as_array().iter().copied().collect()
}

/// Every metric of ID against OOD scores, as JSON.
#[pyfunction]
pub fn measure(
    py: Python<'_>,
    id: PyReadonlyArray1<'_, f32>,
    ood: PyReadonlyArray1<'_, f32>,
) -> PyResult<String> {
    let (id, ood) = (scores(&id), scores(&ood));
    let found = working(py, || metrics::evaluate(&id, &ood))?;
    Ok(serde_json::to_string(&found).unwrap_or_default())
}

/// OpenOOD's areas under precision and recall (trapezoid): ID and OOD positive.
#[pyfunction]
pub fn openood_aupr(
    py: Python<'_>,
    id: PyReadonlyArray1<'_, f32>,
    ood: PyReadonlyArray1<'_, f32>,
) -> PyResult<(f64, f64)> {
    let (id, ood) = (scores(&id), scores(&ood));
    working(py, || metrics::openood_aupr(&id, &ood)).map(|[a, b]| (a, b))
}

/// Which of many p-values are discoveries at a false discovery rate.
#[pyfunction]
pub fn benjamini_hochberg(
    py: Python<'_>,
    p_values: PyReadonlyArray1<'_, f64>,
    rate: f64,
) -> PyResult<Vec<bool>> {
    let p: Vec<f64> = p_values.as_array().iter().copied().collect();
    working(py, || heat_ood::calibrate::benjamini_hochberg(&p, rate))
}

/// Make a detector, every choice taken by evidence; what was found as JSON, and as a text.
#[pyfunction]
#[pyo3(signature = (set, head=None, surrogates=None, id=None, calibration=None, residual=true, views=true, alpha=0.05,
                    rows=20_000, seed=0, progress=None))]
#[expect(clippy::too_many_arguments, reason = "one a setting")]
pub fn auto(
    py: Python<'_>,
    set: &PyFeatureSet,
    head: Option<&PyHead>,
    surrogates: Option<Sets<'_>>,
    id: Option<&PyFeatureSet>,
    calibration: Option<&PyFeatureSet>,
    residual: bool,
    views: bool,
    alpha: f64,
    rows: usize,
    seed: u64,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, String, PyDetector)> {
    let config = AutoConfig {
        select: SelectConfig { rows, seed, ..SelectConfig::default() },
        residual,
        views,
        calibration: CalibrationConfig { alpha, ..CalibrationConfig::default() },
    };
    let data = training(py, set, head, None)?;
    let id = id.map(|id| id.0.clone());
    let surrogates = surrogates.map(|sets| Surrogates { kinds: owned(&sets), id });
    let calibration = calibration.map(|rows| rows.0.clone());
    let made = observed(py, progress, |observer| {
        let given = AutoData {
            train: &data,
            surrogates: surrogates.as_ref(),
            calibration: calibration.as_ref(),
        };
        config.run(given, observer)
    })?;
    let json = serde_json::to_string(&made.report).unwrap_or_default();
    Ok((json, made.report.to_string(), PyDetector(made.detector)))
}

/// Rank scorers and compose them without OOD data; what was found as JSON, and the composition.
/// `surrogates` play OOD, told from the rows of `id`; without them what features alone allow.
#[pyfunction]
#[pyo3(signature = (specs, set, head=None, surrogates=None, id=None, folds=5, rows=20_000, members=8, seed=0,
                    strict=false, force=false, kind_rows=None, progress=None))]
#[expect(clippy::too_many_arguments, reason = "one a setting")]
pub fn select(
    py: Python<'_>,
    specs: Vec<String>,
    set: &PyFeatureSet,
    head: Option<&PyHead>,
    surrogates: Option<Sets<'_>>,
    id: Option<&PyFeatureSet>,
    folds: usize,
    rows: usize,
    members: usize,
    seed: u64,
    strict: bool,
    force: bool,
    kind_rows: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, PyDetector)> {
    let parsed: heat_ood::Result<Vec<_>> = specs.iter().map(|s| ScorerSpec::parse(s)).collect();
    let specs = parsed.map_err(|e| exception(py, &e))?;
    let config = SelectConfig { folds, rows, kind_rows, members, seed, strict };
    let data = training(py, set, head, None)?;
    let id = id.map(|id| id.0.clone());
    let surrogates = surrogates.map(|sets| Surrogates { kinds: owned(&sets), id: id.clone() });
    if let (Some(sets), Some(origin), false) = (&surrogates, data.features.origin(), force) {
        sets.check_origin(origin).map_err(|e| exception(py, &e))?;
    }
    let (json, detector) = observed(py, progress, |observer| {
        let found = match &surrogates {
            Some(sets) => config.run_on(&specs, &data, sets, observer)?,
            None => config.run(&specs, &data, observer)?,
        };
        let standardise = found.standardise(id.as_ref(), seed);
        let scorer = fit_composition(&found.composition, standardise, &data, observer)?;
        let mut detector = Detector::new(scorer);
        let words = found.composition.iter().map(|(n, w)| format!("{w:.4} {n}"));
        let words: Vec<String> = words.collect();
        detector.record_recipe(format!("select: {}", words.join(" + ")), None);
        if let Some(Surrogates { kinds, id }) = &surrogates {
            id.iter().try_for_each(|id| detector.record_seen(id))?;
            kinds.iter().try_for_each(|(_, set)| detector.record_tuning(set))?;
        }
        let mut json = serde_json::to_value(&found).unwrap_or_default();
        json["trust"] = found.trust().into();
        Ok((json.to_string(), detector))
    })?;
    Ok((json, PyDetector(detector)))
}

/// The feature sets of a directory, one a kind, and that of ID rows.
#[pyfunction]
#[expect(clippy::type_complexity, reason = "what Python unpacks")]
pub fn open_surrogates(
    py: Python<'_>,
    directory: PathBuf,
) -> PyResult<(Vec<(String, PyFeatureSet)>, Option<PyFeatureSet>)> {
    let found = working(py, || Surrogates::open(directory, &OpenOptions::default()))?;
    let kinds = found.kinds.into_iter().map(|(name, set)| (name, PyFeatureSet(set)));
    Ok((kinds.collect(), found.id.map(PyFeatureSet)))
}

/// The fixed committee of such data as one detector, its members, and who is left out and why.
#[pyfunction]
#[pyo3(signature = (set, head=None, standardise=None, progress=None))]
#[expect(clippy::type_complexity, reason = "what Python unpacks")]
pub fn committee(
    py: Python<'_>,
    set: &PyFeatureSet,
    head: Option<&PyHead>,
    standardise: Option<&PyFeatureSet>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(PyDetector, Vec<String>, Vec<(String, String)>)> {
    let data = training(py, set, head, None)?;
    let held_out = standardise.map(|set| set.0.clone());
    let found = observed(py, progress, |observer| {
        let standardise = held_out.as_ref().map_or(Standardise::Fifth(0), Standardise::HeldOut);
        fit_committee(standardise, &data, observer)
    })?;
    let mut detector = Detector::new(found.scorer);
    detector.record_recipe(format!("committee: {}", found.members.join(" + ")), None);
    Ok((PyDetector(detector), found.members, found.skipped))
}

/// Judge settings on validation sets; what was found as JSON, and the best one fitted.
#[pyfunction]
#[pyo3(signature = (specs, set, id, ood, head=None, strict=false, progress=None))]
#[expect(clippy::too_many_arguments, reason = "one a setting")]
pub fn tune_on(
    py: Python<'_>,
    specs: Vec<String>,
    set: &PyFeatureSet,
    id: &PyFeatureSet,
    ood: Sets<'_>,
    head: Option<&PyHead>,
    strict: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, PyDetector)> {
    let parsed: heat_ood::Result<Vec<Vec<_>>> =
        specs.iter().map(|s| ScorerSpec::parse_alternatives(s)).collect();
    let specs = parsed.map_err(|e| exception(py, &e))?.concat();
    let (data, id, ood) = (training(py, set, head, None)?, &id.0, owned(&ood));
    if let Some(origin) = data.features.origin() {
        let mut sets = std::iter::once(id).chain(ood.iter().map(|(_, set)| set));
        sets.try_for_each(|set| set.check_origin(origin)).map_err(|e| exception(py, &e))?;
    }
    let (json, detector) = observed(py, progress, |observer| {
        let found = tune(&specs, &data, id, &ood, strict, observer)?;
        let composition = [(found.candidates[found.best].name.clone(), 1.0)];
        let mut detector =
            Detector::new(fit_composition(&composition, Standardise::Training, &data, observer)?);
        detector.record_recipe(format!("select: 1.0000 {}", composition[0].0), None);
        detector.record_seen(id)?;
        ood.iter().try_for_each(|(_, set)| detector.record_tuning(set))?;
        Ok((serde_json::to_string(&found).unwrap_or_default(), detector))
    })?;
    Ok((json, PyDetector(detector)))
}
