//! The portable file: everything needed to score, with provenance.
//!
//! One safetensors file without pickle. All parameters are in it, prior and
//! feature steps included: scoring never fits anything. Metadata: `format`,
//! `version`, `scorer` (the outline of the tensors, JSON), `provenance`
//! (JSON), `calibration` (JSON) in calibrated ones, and `probes` (JSON) where it can prove itself
//! ([`Detector::verify`]). Files of a newer version are refused, older ones load. A training
//! checkpoint can be opened as a detector too.

use std::path::Path;
use std::sync::Arc;

use crate::calibrate::{Calibration, CalibrationConfig, Fusion, Ties, Verdict};
use crate::compose::Combined;
use crate::ebm::{Heat, checkpoint};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field, Head, RowSketch};
use crate::io::{Tensor, TensorData, TensorFile, save_tensors, sealed_tensors};
use crate::observe::{Observer, Silent};
use crate::probes::{Described, Probes, Recorded};
use crate::provenance::Provenance;
use crate::scorers::{
    self, AtLayer, FORMAT_VERSION, Fitted, LAYER, Outline, OverViews, Predictor, SEALED, ScoredSet,
    Scorer, Stored, VIEWS,
};

const FORMAT: &str = "heat-detector";

/// What stands before the names of a calibration's tensors.
const CALIBRATION: &str = "calibration.";

/// Tensors of the hashes of rows that were seen, and of those tuned on.
const TRAIN_ROWS: &str = "train_rows";
const TUNED_ROWS: &str = "tuned_rows";

/// A fitted scorer with its provenance and, once calibrated, what turns its
/// scores into verdicts.
#[derive(Clone)]
pub struct Detector {
    scorer: Arc<dyn Scorer>,
    provenance: Provenance,
    calibration: Option<Arc<Calibration>>,
    /// Whether features of another network are taken.
    any_origin: bool,
    /// What it gave on its probes when it was made, if it was opened.
    recorded: Option<Recorded>,
}

/// What came of [`Detector::verify`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Proof {
    /// Rows that were scored.
    pub rows: usize,
    /// The largest difference of their scores from those stored.
    pub difference: f64,
    /// The largest that rounding explains, on any processor.
    pub tolerance: f64,
}

/// Scores of a set with what is thought of its rows.
#[derive(Debug, Clone, Default)]
pub struct Prediction {
    /// One score a row.
    pub scores: Vec<f32>,
    /// Those of [`Scorer::score_with_components`], `[N, components]`.
    pub components: Vec<f32>,
    /// One verdict a row, if the detector is calibrated.
    pub verdicts: Option<Vec<Verdict>>,
    /// The classes that the classifier predicts: where calibrated by class, or where they have
    /// names and the set has logits.
    pub classes: Option<Vec<u32>>,
    /// Names of the classes by number, where the training labels had some.
    pub class_names: Vec<String>,
}

impl Detector {
    /// A detector of a fitted scorer. It remembers what the fit has seen.
    pub fn new(fitted: impl Into<Fitted<dyn Scorer>>) -> Self {
        let (scorer, provenance) = fitted.into().into_parts();
        Detector { scorer, provenance, calibration: None, any_origin: false, recorded: None }
    }

    /// The scorer.
    pub fn scorer(&self) -> &Arc<dyn Scorer> {
        &self.scorer
    }

    /// The scorer with what it has seen, as a part of something else.
    pub fn fitted(&self) -> Fitted<dyn Scorer> {
        Fitted::from_parts(Arc::clone(&self.scorer), self.provenance.clone())
    }

    /// Where it comes from, and what it has seen.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The same detector, which also takes features that are known to come from another network or
    /// transform than those it was fitted on. Its scores then mean nothing unless you know why.
    #[must_use]
    pub fn of_any_origin(mut self) -> Self {
        self.any_origin = true;
        self
    }

    fn check_origin(&self, set: &FeatureSet) -> Result<()> {
        if self.any_origin { Ok(()) } else { self.provenance.check_origin(set) }
    }

    /// What turns its scores into verdicts, once calibrated.
    pub fn calibration(&self) -> Option<&Arc<Calibration>> {
        self.calibration.as_ref()
    }

    /// Decide at another rate from now on, by the same calibration.
    ///
    /// # Errors
    /// If it is not calibrated, or by too few rows for that rate.
    pub fn set_alpha(&mut self, alpha: f64) -> Result<()> {
        let Some(calibration) = &self.calibration else {
            return Err(Error::missing("the detector", "calibration", "calibrate it first"));
        };
        self.calibration = Some(Arc::new(calibration.with_alpha(alpha)?));
        Ok(())
    }

    /// Remember how it was made, in words, and from which seed.
    pub fn record_recipe(&mut self, recipe: impl Into<String>, seed: Option<u64>) {
        self.provenance.recipe = Some(recipe.into());
        self.provenance.seed = seed;
    }

    /// Remember rows and files that it has seen besides those it was fitted
    /// on: they are none to calibrate on.
    ///
    /// # Errors
    /// If the set cannot be read, or the scorer not score it.
    pub fn record_seen(&mut self, rows: &FeatureSet) -> Result<()> {
        let seen = Provenance::of_training(rows, &self.scorer.needs(rows)?)?;
        self.provenance.include(&seen);
        Ok(())
    }

    /// Remember an OOD validation set that settings were chosen on.
    ///
    /// # Errors
    /// As [`Detector::record_seen`].
    pub fn record_tuning(&mut self, set: &FeatureSet) -> Result<()> {
        let sketch = RowSketch::of(set, &self.scorer.needs(set)?)?;
        self.provenance.tuned_on.extend(set.digests()?);
        self.provenance.tuned_rows.push(sketch);
        Ok(())
    }

    /// One score per row of the set; higher = more out-of-distribution.
    ///
    /// # Errors
    /// If the set lacks a field, holds NaN or infinity, or comes from another network or transform.
    pub fn score(&self, set: &FeatureSet) -> Result<Vec<f32>> {
        self.score_observed(set, &mut Silent)
    }

    /// The same, reporting progress; the observer may end it.
    ///
    /// # Errors
    /// As [`Detector::score`]; [`Error::Stopped`] if the observer asks for an end.
    pub fn score_observed(
        &self,
        set: &FeatureSet,
        observer: &mut dyn Observer,
    ) -> Result<Vec<f32>> {
        self.check_origin(set)?;
        self.scorer.score_observed(set, observer)
    }

    /// Calibrate on in-distribution rows that took no part in training (see
    /// [`crate::calibrate`]). Rows that did are refused unless `force`d.
    ///
    /// # Errors
    /// As [`CalibrationConfig::fit`], or if rows were in training.
    pub fn calibrate(
        &mut self,
        config: &CalibrationConfig,
        id: &FeatureSet,
        head: Option<&Head>,
        force: bool,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        if !force {
            self.check_origin(id)?;
        }
        let seen = self.provenance.contamination(id)?;
        if let Some(problem) = seen.as_ref().filter(|_| !force) {
            let remedy = "calibrate on rows that took no part in training, or insist: nothing is \
                          promised then";
            let problem = format!("{problem} (of {}); {remedy}", id.name());
            return Err(Error::Fit { what: "calibration".into(), problem });
        }
        let mut calibration = config.fit(&*self.scorer, id, head, observer)?;
        calibration.forced = seen.is_some();
        self.calibration = Some(Arc::new(calibration));
        Ok(())
    }

    /// Scores, components and verdicts of a set, which is read once.
    ///
    /// # Errors
    /// If the set lacks a field, holds NaN or infinity, or comes from another network or transform.
    pub fn predict(
        &self,
        set: &FeatureSet,
        ties: Ties,
        observer: &mut dyn Observer,
    ) -> Result<Prediction> {
        self.check_origin(set)?;
        let scorer = &*self.scorer;
        let class_names = self.provenance.classes.clone();
        let named = !class_names.is_empty() && set.dim(Field::Logits) == Some(class_names.len());
        let by_class = self.calibration.as_ref().and_then(|c| c.predictor());
        // Classes are found in the same pass where the scorer reads the logits anyway.
        let named_here = match by_class {
            None if named && scorer.needs(set)?.fields().any(|f| f == Field::Logits) => {
                Some(Predictor::new(set, None)?)
            }
            _ => None,
        };
        let (found, classes) = match by_class.or(named_here.as_ref()) {
            Some(predictor) => {
                let (found, classes) = predictor.score(set, scorer, true, observer)?;
                (found, Some(classes))
            }
            None => {
                let found = scorers::score_together(set, &[scorer], true, observer)?;
                (found.into_iter().next().unwrap_or_default(), None)
            }
        };
        let ScoredSet { scores, components, .. } = found;
        let verdicts = self.calibration.as_ref();
        let verdicts = verdicts.map(|c| c.verdicts(&scores, classes.as_deref(), ties));
        let verdicts = verdicts.transpose()?;
        // A scorer of features alone takes rows whose logits are none.
        let classes = classes.or_else(|| named.then(|| set.largest_logits().ok()).flatten());
        Ok(Prediction { verdicts, scores, components, classes, class_names })
    }

    /// Write the file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written, or holds a scorer or prior of your own whose
    /// loader is not [registered](scorers::register): it could not be opened
    /// again.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (tensors, metadata) = self.encoded()?;
        save_tensors(path.as_ref(), &tensors, &metadata)
    }

    /// The bytes of the file that [`Detector::save`] writes.
    ///
    /// # Errors
    /// If it holds a scorer or prior of your own whose loader is not [registered](scorers::register).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (tensors, metadata) = self.encoded()?;
        sealed_tensors(&tensors, &metadata)
    }

    /// A detector of such bytes; `name` is used in messages.
    ///
    /// # Errors
    /// As [`Detector::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::from_file(&TensorFile::from_memory(Path::new(name), bytes)?)
    }

    /// Tensors and metadata of the file.
    #[expect(clippy::type_complexity, reason = "as `save_tensors` takes them")]
    fn encoded(&self) -> Result<(Vec<(String, Tensor)>, Vec<(&'static str, String)>)> {
        let mut tensors = Vec::new();
        let outline = self.scorer.section().flatten("", &mut tensors);
        check_loaders(&outline)?;
        check_finite(self.scorer.name(), &tensors)?;
        let json = |v: serde_json::Result<String>| v.unwrap_or_default();
        let mut metadata = vec![
            ("format", FORMAT.to_owned()),
            ("version", FORMAT_VERSION.to_string()),
            ("scorer", json(serde_json::to_string(&outline))),
            ("provenance", json(serde_json::to_string(&self.provenance))),
        ];
        if let Some(calibration) = &self.calibration {
            let outline = calibration.section().flatten(CALIBRATION, &mut tensors);
            metadata.push(("calibration", json(serde_json::to_string(&outline))));
        }
        for (i, rows) in self.provenance.rows.iter().enumerate() {
            tensors.extend(rows.tensors(&format!("{TRAIN_ROWS}.{i}")));
        }
        for (i, rows) in self.provenance.tuned_rows.iter().enumerate() {
            tensors.extend(rows.tensors(&format!("{TUNED_ROWS}.{i}")));
        }
        if let Some(recorded) = self.recorded() {
            let (described, probes) = self.provenance.probes.tensors(&recorded);
            tensors.extend(probes);
            metadata.push(("probes", json(serde_json::to_string(&described))));
        }
        Ok((tensors, metadata))
    }

    /// What it gives on its probes: as stored in the file that it was opened from, which says
    /// what was right; else as it is. `None` where it has none, or they cannot be scored.
    fn recorded(&self) -> Option<Recorded> {
        let known = self.recorded.clone();
        known.or_else(|| self.provenance.probes.record(|set| self.scorer.score(set)))
    }

    /// Prove that it scores as it did where it was made, by at most sixteen rows that are stored
    /// with their scores. `None` where there are none: in files of earlier versions, in
    /// checkpoints, and of scorers of which nothing is known about their training rows.
    ///
    /// The rows are mixtures of training rows, four each, and none of these; their scores are taken
    /// when a detector is first saved, and stay. That a file's bytes are those that were written
    /// is checked whenever it is opened. This shows besides that program and processor
    /// do with them what those did that wrote it; it takes the time of scoring sixteen rows.
    ///
    /// # Errors
    /// If it scores otherwise.
    pub fn verify(&self) -> Result<Option<Proof>> {
        let Some(recorded) = self.recorded() else { return Ok(None) };
        let difference = self.provenance.probes.compare(&recorded, |set| self.scorer.score(set))?;
        let (rows, tolerance) = (recorded.scores.len(), recorded.tolerance);
        if difference > tolerance {
            let place = self.scorer.name();
            let problem = format!(
                "does not score as it did when it was made: on its {rows} probe rows scores \
                 differ by up to {difference:.3e}, and rounding explains {tolerance:.3e}. \
                 Something else made the file or reads it; make the detector again with this version"
            );
            return Err(Error::format(place, problem));
        }
        Ok(Some(Proof { rows, difference, tolerance }))
    }

    /// The fields that it reads, each with its D, as told by its probe rows; nothing where it has
    /// none (see [`Detector::verify`]).
    pub fn inputs(&self) -> Vec<(Field, usize)> {
        self.provenance.probes.dims().collect()
    }

    /// Open a detector or a checkpoint.
    ///
    /// The rows of `knn`, `nnguide`, `cfood` and `relation` stay in the file, which is
    /// mapped. To put another file in its place, by renaming as [`Detector::save`] does,
    /// changes nothing of this one; to write into it or to cut it short while it is open
    /// does.
    ///
    /// # Errors
    /// If the file is truncated, not a detector, of a newer version, or its
    /// tensors contradict each other.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file(&TensorFile::open(path.as_ref())?)
    }

    /// The same from an open file.
    ///
    /// # Errors
    /// As [`Detector::open`].
    pub fn from_file(file: &TensorFile) -> Result<Self> {
        let bad = |why: String| Error::format(file.path(), why);
        let format = file.metadata("format").unwrap_or_default();
        if format != FORMAT && format != checkpoint::FORMAT {
            return Err(bad(format!("holds {}, not a detector", file.content())));
        }
        let version: u32 = file.metadata("version").and_then(|v| v.parse().ok()).unwrap_or(0);
        if version == 0 || version > FORMAT_VERSION {
            return Err(bad(format!(
                "has format version {version}, this program reads up to {FORMAT_VERSION}: update it"
            )));
        }
        if version >= SEALED && !file.is_sealed() {
            return Err(bad("is damaged: it has no digest. Copy or create it again".into()));
        }
        let outline: Outline = serde_json::from_str(file.metadata("scorer").unwrap_or_default())
            .map_err(|e| bad(format!("its outline is not readable: {e}")))?;
        let scorer = load(&Stored::new(file, "", &outline))?;
        let provenance = file.metadata("provenance").map(serde_json::from_str);
        let provenance = provenance
            .transpose()
            .map_err(|e| bad(format!("its provenance is not readable: {e}")))?
            .unwrap_or_default();
        let mut detector = Detector::new(Fitted::from_parts(scorer, provenance));
        for (i, rows) in detector.provenance.rows.iter_mut().enumerate() {
            rows.read(file, &format!("{TRAIN_ROWS}.{i}"))?;
        }
        for (i, rows) in detector.provenance.tuned_rows.iter_mut().enumerate() {
            rows.read(file, &format!("{TUNED_ROWS}.{i}"))?;
        }
        if let Some(text) = file.metadata("probes") {
            let described: Described = serde_json::from_str(text)
                .map_err(|e| bad(format!("its probe rows are not readable: {e}")))?;
            let (probes, recorded) = Probes::read(file, &described)?;
            (detector.provenance.probes, detector.recorded) = (probes, Some(recorded));
        }
        if let Some(text) = file.metadata("calibration") {
            let outline: Outline = serde_json::from_str(text)
                .map_err(|e| bad(format!("its calibration is not readable: {e}")))?;
            let calibration = Calibration::load(&Stored::new(file, CALIBRATION, &outline))?;
            detector.calibration = Some(Arc::new(calibration));
        }
        Ok(detector)
    }
}

/// Any scorer, compositions and residual energies included.
fn load(stored: &Stored<'_>) -> Result<Arc<dyn Scorer>> {
    match stored.kind() {
        HEAT => Ok(Arc::new(Heat::load(stored)?)),
        COMBINED => Ok(Arc::new(Combined::load(stored, load)?)),
        FUSION => Ok(Arc::new(Fusion::load(stored, load)?)),
        LAYER => Ok(Arc::new(AtLayer::load(stored, &load)?)),
        VIEWS => Ok(Arc::new(OverViews::load(stored, &load)?)),
        _ => scorers::load(stored),
    }
}

const HEAT: &str = "heat";
const COMBINED: &str = "combined";
const FUSION: &str = "fusion";

/// That [`load`] will take its numbers.
fn check_finite(scorer: &str, tensors: &[(String, Tensor)]) -> Result<()> {
    let finite = |tensor: &Tensor| match &tensor.data {
        TensorData::F32(values) => values.iter().all(|v| v.is_finite()),
        TensorData::F64(values) => values.iter().all(|v| v.is_finite()),
        TensorData::I64(_) => true,
    };
    let wrong = tensors.iter().find(|(_, tensor)| !finite(tensor));
    wrong.map_or(Ok(()), |(name, _)| {
        let problem = format!(
            "`{name}` holds NaN or infinity, so that the file could not be opened: its settings are \
             too large or too small for these features"
        );
        Err(Error::Fit { what: scorer.to_owned(), problem })
    })
}

/// That [`load`] will find a loader for everything in it.
fn check_loaders(outline: &Outline) -> Result<()> {
    match &*outline.kind {
        HEAT => outline.parts.iter().try_for_each(|(_, prior)| scorers::check_prior(&prior.kind)),
        COMBINED | LAYER | VIEWS => {
            outline.parts.iter().try_for_each(|(_, part)| check_loaders(part))
        }
        // Beside each member stands its calibration.
        FUSION => {
            let members = outline.parts.iter().filter(|(name, _)| !name.contains('.'));
            members.map(|(_, part)| part).try_for_each(check_loaders)
        }
        kind => scorers::check_scorer(kind),
    }
}
