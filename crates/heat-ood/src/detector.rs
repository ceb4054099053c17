//! The portable file: everything needed to score, with provenance.
//!
//! One safetensors file without pickle. All parameters are in it, prior and
//! feature steps included: scoring never fits anything. Metadata: `format`,
//! `version`, `scorer` (the outline of the tensors, JSON), `provenance`
//! (JSON). Files of a newer version are refused, older ones load. A training
//! checkpoint can be opened as a detector too.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::compose::Combined;
use crate::ebm::{Heat, checkpoint};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, TensorFile, save_tensors};
use crate::scorers::{self, FORMAT_VERSION, Outline, Scorer, Stored};

const FORMAT: &str = "heat-detector";

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
}

/// A fitted scorer with its provenance.
#[derive(Clone)]
pub struct Detector {
    scorer: Arc<dyn Scorer>,
    /// Where it comes from.
    pub provenance: Provenance,
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
        Detector { scorer, provenance }
    }

    /// The scorer.
    pub fn scorer(&self) -> &Arc<dyn Scorer> {
        &self.scorer
    }

    /// One score per row of the set; higher = more out-of-distribution.
    ///
    /// # Errors
    /// If the set lacks a field or holds NaN or infinity.
    pub fn score(&self, set: &FeatureSet) -> Result<Vec<f32>> {
        self.scorer.score(set)
    }

    /// Write the file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut tensors = Vec::new();
        let outline = self.scorer.section().flatten("", &mut tensors);
        let json = |v: serde_json::Result<String>| v.unwrap_or_default();
        let metadata = [
            ("format", FORMAT.to_owned()),
            ("version", FORMAT_VERSION.to_string()),
            ("scorer", json(serde_json::to_string(&outline))),
            ("provenance", json(serde_json::to_string(&self.provenance))),
        ];
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
        Ok(Detector { scorer, provenance })
    }
}

/// Any scorer, compositions and residual energies included.
fn load(stored: &Stored<'_>) -> Result<Arc<dyn Scorer>> {
    match stored.kind() {
        "heat" => Ok(Arc::new(Heat::load(stored)?)),
        "combined" => Ok(Arc::new(Combined::load(stored, load)?)),
        _ => scorers::load(stored),
    }
}
