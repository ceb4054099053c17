//! The portable file: everything needed to score, with provenance.
//!
//! One safetensors file without pickle. All parameters are in it, prior and
//! feature steps included: scoring never fits anything. Metadata: `format`,
//! `version`, `scorer` (the outline of the tensors, JSON), `provenance`
//! (JSON), and `calibration` (JSON) in calibrated ones. Files of a newer version are refused, older ones load. A training
//! checkpoint can be opened as a detector too.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::calibrate::{Calibration, CalibrationConfig, Fusion, Ties, Verdict};
use crate::compose::Combined;
use crate::ebm::{Heat, checkpoint};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Head, RowSketch};
use crate::io::{TensorFile, save_tensors};
use crate::observe::Observer;
use crate::scorers::{self, FORMAT_VERSION, Outline, Scorer, Stored, Together};

const FORMAT: &str = "heat-detector";

/// What stands before the names of a calibration's tensors.
const CALIBRATION: &str = "calibration.";

/// Tensors of the hashes of rows that were seen, and of those tuned on.
const TRAIN_ROWS: &str = "train_rows";
const TUNED_ROWS: &str = "tuned_rows";

/// Where a detector comes from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of this library.
    pub library_version: String,
    /// The resolved recipe or the scorer's settings, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Seed of the training run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Name and SHA-256 of each file of the training set.
    #[serde(default)]
    pub train: Vec<(String, String)>,
    /// Name and SHA-256 of each file of OOD validation sets that settings were
    /// chosen on: no set to report results on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tuned_on: Vec<(String, String)>,
    /// Samples by hash of the rows that the scorer has seen, so that they are
    /// noticed in a calibration set whatever file they lie in: of training,
    /// of members' training and calibration, of ID validation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowSketch>,
    /// Likewise of the rows of `tuned_on`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tuned_rows: Vec<RowSketch>,
}

/// The share of seen rows from which a set is called seen.
const SEEN: f64 = 0.01;

impl Provenance {
    /// Also what another detector, a part of this one, has seen.
    pub fn include(&mut self, part: &Provenance) {
        for file in &part.train {
            if !self.train.contains(file) {
                self.train.push(file.clone());
            }
        }
        for rows in &part.rows {
            self.include_rows(rows);
        }
        for file in &part.tuned_on {
            if !self.tuned_on.contains(file) {
                self.tuned_on.push(file.clone());
            }
        }
        for rows in &part.tuned_rows {
            if !self.tuned_rows.contains(rows) {
                self.tuned_rows.push(rows.clone());
            }
        }
    }

    /// Also these rows.
    pub fn include_rows(&mut self, rows: &RowSketch) {
        if !self.rows.contains(rows) {
            self.rows.push(rows.clone());
        }
    }

    /// Whether settings were chosen on rows of this set, or on a file of it.
    ///
    /// # Errors
    /// If the set cannot be read.
    pub fn was_tuned_on(&self, set: &FeatureSet) -> Result<bool> {
        for rows in &self.tuned_rows {
            if rows.overlap(set)?.is_some_and(|o| o.share() > SEEN) {
                return Ok(true);
            }
        }
        if self.tuned_on.is_empty() {
            return Ok(false);
        }
        let digests = set.digests()?;
        Ok(self.tuned_on.iter().any(|(_, d)| digests.iter().any(|(_, other)| other == d)))
    }

    /// Which of these rows the scorer has seen, in words: more than one in a
    /// hundred of those that can be compared; or, where a sample allows no
    /// comparison of ten rows, a whole file.
    ///
    /// # Errors
    /// If the set cannot be read.
    pub fn seen(&self, id: &FeatureSet) -> Result<Option<String>> {
        /// Fewer compared rows say nothing.
        const FEW: usize = 10;
        let mut sampled = !self.rows.is_empty();
        for rows in &self.rows {
            match rows.overlap(id)? {
                Some(o) if o.share() > SEEN => {
                    return Ok(Some(format!(
                        "{} of {} rows of {} that were compared are training rows",
                        o.shared,
                        o.compared,
                        id.name()
                    )));
                }
                Some(o) if o.compared >= FEW.min(id.len()) => {}
                _ => sampled = false,
            }
        }
        if sampled {
            return Ok(None);
        }
        let digests = id.digests()?;
        let known = digests.iter().find_map(|(name, digest)| {
            let found = self.train.iter().find(|(_, d)| d == digest)?;
            Some(format!("{name} is the training file {}", found.0))
        });
        Ok(known)
    }
}

/// A fitted scorer with its provenance.
#[derive(Clone)]
pub struct Detector {
    scorer: Arc<dyn Scorer>,
    /// Where it comes from.
    pub provenance: Provenance,
    /// What turns its scores into verdicts, once calibrated.
    pub calibration: Option<Arc<Calibration>>,
}

/// Scores of a set with what is thought of its rows.
#[derive(Debug, Clone)]
pub struct Judged {
    /// One score a row.
    pub scores: Vec<f32>,
    /// [`Scorer::component_batch`], `[N, components]`.
    pub components: Vec<f32>,
    /// One verdict a row, if the detector is calibrated.
    pub verdicts: Option<Vec<Verdict>>,
}

impl Detector {
    /// A detector of a fitted scorer.
    pub fn new(scorer: impl Scorer + 'static) -> Self {
        Self::shared(Arc::new(scorer))
    }

    /// The same of a shared scorer.
    pub fn shared(scorer: Arc<dyn Scorer>) -> Self {
        let provenance = Provenance {
            library_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Provenance::default()
        };
        Detector { scorer, provenance, calibration: None }
    }

    /// The scorer.
    pub fn scorer(&self) -> &Arc<dyn Scorer> {
        &self.scorer
    }

    /// Remember which files, and which rows of what the scorer reads, it was
    /// trained on.
    ///
    /// # Errors
    /// If the set cannot be read, or the scorer not score it.
    pub fn trained_on(&mut self, train: &FeatureSet) -> Result<()> {
        self.provenance.train = train.digests()?;
        self.provenance.rows.clear();
        self.has_seen(train)
    }

    /// Also these rows, which then are none to calibrate on.
    ///
    /// # Errors
    /// As [`Detector::trained_on`].
    pub fn has_seen(&mut self, rows: &FeatureSet) -> Result<()> {
        let sketch = RowSketch::of(rows, self.scorer.needs(rows)?)?;
        self.provenance.include_rows(&sketch);
        Ok(())
    }

    /// Remember an OOD validation set that settings were chosen on.
    ///
    /// # Errors
    /// As [`Detector::trained_on`].
    pub fn tuned_on(&mut self, set: &FeatureSet) -> Result<()> {
        let sketch = RowSketch::of(set, self.scorer.needs(set)?)?;
        self.provenance.tuned_on.extend(set.digests()?);
        self.provenance.tuned_rows.push(sketch);
        Ok(())
    }

    /// One score per row of the set; higher = more out-of-distribution.
    ///
    /// # Errors
    /// If the set lacks a field or holds NaN or infinity.
    pub fn score(&self, set: &FeatureSet) -> Result<Vec<f32>> {
        self.scorer.score(set)
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
        let seen = self.provenance.seen(id)?;
        if let Some(problem) = seen.as_ref().filter(|_| !force) {
            let remedy = "calibrate on rows that took no part in training, or insist with \
                          `--force`: nothing is promised then";
            let problem = format!("{problem}; {remedy}");
            return Err(Error::Fit { what: "calibration".into(), problem });
        }
        let mut calibration = config.fit(&*self.scorer, id, head, observer)?;
        calibration.forced = seen.is_some();
        self.calibration = Some(Arc::new(calibration));
        Ok(())
    }

    /// Scores, components and verdicts of a set; read once, and once more for
    /// the predicted classes where it is calibrated by class.
    ///
    /// # Errors
    /// If the set lacks a field or holds NaN or infinity.
    pub fn judge(
        &self,
        set: &FeatureSet,
        ties: Ties,
        observer: &mut dyn Observer,
    ) -> Result<Judged> {
        let found = scorers::score_together(set, &[&*self.scorer], true, observer)?;
        let Together { scores, components, .. } = found.into_iter().next().unwrap_or_default();
        let verdicts = match &self.calibration {
            None => None,
            Some(calibration) => {
                let classes = calibration.predictor().map(|p| p.predict(set)).transpose()?;
                Some(calibration.verdicts(&scores, classes.as_deref(), ties)?)
            }
        };
        Ok(Judged { scores, components, verdicts })
    }

    /// Write the file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut tensors = Vec::new();
        let outline = self.scorer.section().flatten("", &mut tensors);
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
        save_tensors(path.as_ref(), &tensors, &metadata)
    }

    /// Open a detector or a checkpoint.
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
            return Err(bad("not a detector: make one with `heat fit` or `heat train`".into()));
        }
        let version: u32 = file.metadata("version").and_then(|v| v.parse().ok()).unwrap_or(0);
        if version == 0 || version > FORMAT_VERSION {
            return Err(bad(format!(
                "has format version {version}, this program reads up to {FORMAT_VERSION}: update it"
            )));
        }
        let outline: Outline = serde_json::from_str(file.metadata("scorer").unwrap_or_default())
            .map_err(|e| bad(format!("its outline is not readable: {e}")))?;
        let scorer = load(&Stored::new(file, "", &outline))?;
        let provenance = file.metadata("provenance").map(serde_json::from_str);
        let provenance = provenance
            .transpose()
            .map_err(|e| bad(format!("its provenance is not readable: {e}")))?
            .unwrap_or_default();
        let mut detector = Detector { scorer, provenance, calibration: None };
        for (i, rows) in detector.provenance.rows.iter_mut().enumerate() {
            rows.read(file, &format!("{TRAIN_ROWS}.{i}"))?;
        }
        for (i, rows) in detector.provenance.tuned_rows.iter_mut().enumerate() {
            rows.read(file, &format!("{TUNED_ROWS}.{i}"))?;
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
        "heat" => Ok(Arc::new(Heat::load(stored)?)),
        "combined" => Ok(Arc::new(Combined::load(stored, load)?)),
        "fusion" => Ok(Arc::new(Fusion::load(stored, load)?)),
        _ => scorers::load(stored),
    }
}
