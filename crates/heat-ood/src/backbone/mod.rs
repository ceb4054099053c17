//! From pictures to features: a classifier as ONNX, run by ONNX Runtime.
//!
//! [`Backbone::open`] reads the graph of any classifier, finds the last linear
//! layer and the feature map before its global pooling, and adds pooled
//! outputs inside the graph, so that only pooled numbers leave the runtime.
//! [`extract`] runs a data set through it into a feature set.

mod extract;
mod graph;
mod meter;
mod proto;
mod runtime;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::features::{Bytes, Head, map};

pub use extract::{ExtractConfig, Extracted, extract};
pub use graph::{Found, Tap};
pub use runtime::{Library, find_library};

use runtime::Session;

/// What the graph alone does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackboneOptions {
    /// The tensor to take as features, `[N, D, h, w]` or `[N, D]`, where what
    /// is found is not what is wanted.
    pub tap: Option<String>,
    /// The ONNX Runtime library, where it should not be searched for.
    pub library: Option<PathBuf>,
}

/// A classifier whose graph has been read.
pub struct Backbone {
    path: PathBuf,
    bytes: std::sync::Arc<Bytes>,
    found: Found,
    options: BackboneOptions,
}

/// Pooled outputs of some pictures.
#[derive(Debug, Clone, Default)]
pub struct Pooled {
    /// `[n, D]`.
    pub avg: Vec<f32>,
    /// Standard deviation over the map with Bessel's correction, `[n, D]`;
    /// empty where the features are vectors.
    pub std: Vec<f32>,
    /// `[n, D]`; empty where the features are vectors.
    pub max: Vec<f32>,
    /// `[n, C]`; empty where there is no linear layer.
    pub logits: Vec<f32>,
}

impl Backbone {
    /// Read an `.onnx` file; the network is not run yet.
    ///
    /// # Errors
    /// If it is not an ONNX model, keeps its weights in another file, has no
    /// picture as its input, or no last linear layer (and no tap is given).
    pub fn open(path: impl AsRef<Path>, options: &BackboneOptions) -> Result<Self> {
        let path = path.as_ref();
        let bytes = map(path)?;
        let found = graph::read(path, &bytes, options.tap.as_deref())?;
        Ok(Backbone { path: path.to_owned(), bytes, found, options: options.clone() })
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was found in the graph.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The last linear layer.
    pub fn head(&self) -> Option<&Head> {
        self.found.head.as_ref()
    }

    /// Load the runtime and the network into it.
    ///
    /// # Errors
    /// If no ONNX Runtime is found, or it refuses the model.
    pub fn load(&self) -> Result<Network> {
        let library = find_library(self.options.library.as_deref())?;
        let model = graph::with_pooled_outputs(&self.bytes, &self.found);
        let session = Session::load(&self.path, &library, &model)?;
        Ok(Network { place: self.path.clone(), session, found: self.found.clone() })
    }
}

/// A network ready to run.
pub struct Network {
    place: PathBuf,
    session: Session,
    found: Found,
}

impl Network {
    /// Features of `n` pictures, `[n, 3, height, width]`.
    ///
    /// # Errors
    /// If the runtime refuses them, or what comes out is not `n` rows.
    pub fn run(&mut self, pictures: Vec<f32>, shape: [usize; 4]) -> Result<Pooled> {
        let n = shape[0];
        if let Some((want, got)) = self.found.mismatch(shape) {
            return Err(Error::Shape {
                place: self.place.display().to_string(),
                tensor: self.found.input.clone(),
                expected: format!("{want}; set the resizing and cropping to it"),
                got,
            });
        }
        let mut outputs = self.session.run(
            &self.place,
            &self.found.input,
            pictures,
            shape,
            &self.found.outputs(),
        )?;
        let mut take = |name: Option<String>| -> Result<Vec<f32>> {
            let Some(name) = name else {
                return Ok(Vec::new());
            };
            let values = outputs.remove(&name).unwrap_or_default();
            if values.is_empty() || !values.len().is_multiple_of(n) {
                let problem =
                    format!("output `{name}` has {} values for {n} pictures", values.len());
                return Err(Error::format(&self.place, problem));
            }
            Ok(values)
        };
        let names = self.found.names();
        Ok(Pooled {
            avg: take(Some(names.avg))?,
            std: take(names.std)?,
            max: take(names.max)?,
            logits: take(names.logits)?,
        })
    }
}
