//! What a scorer writes into a detector file, and reads back.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::io::{Encoded, Tensor, TensorFile, sha256_of};

/// Version of the detector and checkpoint format: newer ones are refused.
/// Version 1 had −max softmax as the score of `msp`, which such files keep; from
/// version 3 on a file has a digest of its bytes ([`SEALED`]).
pub(crate) const FORMAT_VERSION: u32 = 3;

/// The first version whose files have a digest.
pub(crate) const SEALED: u32 = 3;

/// A scorer taken apart: its kind, settings, tensors and inner scorers.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// Which scorer.
    pub kind: String,
    /// Settings and small numbers.
    pub config: Value,
    /// Arrays, by name.
    pub tensors: Vec<(String, Tensor)>,
    /// Scorers within this one, by name.
    pub parts: Vec<(String, Section)>,
}

/// A [`Section`] without its tensors, as written to the file's metadata.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outline {
    pub kind: String,
    pub config: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<(String, Outline)>,
}

impl Section {
    /// A section of that kind with its settings.
    pub fn new(kind: &str, config: impl Serialize) -> Self {
        Section {
            kind: kind.to_owned(),
            config: serde_json::to_value(config).unwrap_or(Value::Null),
            ..Section::default()
        }
    }

    /// Add tensors, their names prefixed.
    pub fn with(mut self, prefix: &str, tensors: Vec<(String, Tensor)>) -> Self {
        let named = tensors.into_iter().map(|(n, t)| (format!("{prefix}{n}"), t));
        self.tensors.extend(named);
        self
    }

    /// Add an inner scorer.
    pub fn with_part(mut self, name: impl Into<String>, part: Section) -> Self {
        self.parts.push((name.into(), part));
        self
    }

    /// SHA-256 of everything in it, in hexadecimal.
    ///
    /// # Errors
    /// If its tensors have other sizes than their shapes say.
    pub fn digest(self) -> Result<String> {
        let mut tensors = Vec::new();
        let outline = self.flatten("", &mut tensors);
        let outline = serde_json::to_vec(&outline).unwrap_or_default();
        let tensors = Encoded::in_memory(&tensors)?;
        Ok(sha256_of(std::iter::once(&outline[..]).chain(tensors.pieces())))
    }

    /// The outline, and all tensors with their full names.
    pub(crate) fn flatten(self, prefix: &str, out: &mut Vec<(String, Tensor)>) -> Outline {
        let named = self.tensors.into_iter().map(|(n, t)| (format!("{prefix}{n}"), t));
        out.extend(named);
        let parts = self.parts.into_iter().map(|(name, part)| {
            let outline = part.flatten(&format!("{prefix}{name}."), out);
            (name, outline)
        });
        Outline { kind: self.kind, config: self.config, parts: parts.collect() }
    }
}

/// A section within an open file.
pub struct Stored<'a> {
    /// The file that holds the tensors.
    pub file: &'a TensorFile,
    /// What stands before the names of this section's tensors.
    pub prefix: String,
    outline: &'a Outline,
}

impl<'a> Stored<'a> {
    pub(crate) fn new(file: &'a TensorFile, prefix: &str, outline: &'a Outline) -> Self {
        Stored { file, prefix: prefix.to_owned(), outline }
    }

    /// Which scorer it is.
    pub fn kind(&self) -> &str {
        &self.outline.kind
    }

    /// Its settings.
    ///
    /// # Errors
    /// If they are not those of a `T`.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.outline.config).map_err(|e| {
            let problem = format!("the settings of its `{}` are not readable: {e}", self.kind());
            Error::format(self.file.path(), problem)
        })
    }

    /// The full name of a tensor.
    pub fn name(&self, tensor: &str) -> String {
        format!("{}{tensor}", self.prefix)
    }

    /// The inner scorers, by name.
    pub fn parts(&self) -> impl Iterator<Item = (&'a str, Stored<'a>)> {
        self.outline.parts.iter().map(|(name, outline)| {
            let prefix = self.name(&format!("{name}."));
            (name.as_str(), Stored::new(self.file, &prefix, outline))
        })
    }

    /// The inner scorer of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn part(&self, name: &str) -> Result<Stored<'a>> {
        let found = self.parts().find(|(n, _)| *n == name);
        found.map(|(_, s)| s).ok_or_else(|| {
            let problem = format!("its `{}` lacks the part `{name}`", self.kind());
            Error::format(self.file.path(), problem)
        })
    }
}
