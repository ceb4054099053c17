//! From images to features: a classifier, run by ONNX Runtime.
//!
//! [`Backbone::open`] reads the graph of any classifier in ONNX, finds the last
//! linear layer and the feature map before its global pooling, and adds pooled
//! outputs inside the graph, so that only pooled numbers leave the runtime. Of
//! a ResNet the weights are enough (PyTorch checkpoints, safetensors): its
//! graph is made here. [`extract`] runs a data set through it into a feature
//! set. A second graph gives the gradient with respect to the images, by
//! which [`Perturbation`] moves them before they are scored.

mod check;
mod constants;
mod device;
mod dropout;
mod external;
mod extract;
mod fixed;
mod gradient;
mod graph;
mod layer;
mod layers;
mod linear;
mod maps;
mod meter;
mod network;
mod outputs;
mod passes;
mod perturb;
mod pooled;
mod pooling;
mod proto;
mod provider;
mod quantised;
mod resnet;
mod rewrite;
mod runtime;
mod shapes;
mod training;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::TransformConfig;
use heat_ood::features::{Head, Origin};
use heat_ood::io::{Bytes, map, sha256_of, write_atomically};
use heat_ood::{Error, Result};

pub use check::Checked;
pub use device::{Device, Precision};
pub use extract::{ExtractConfig, Extracted, Live, Part, extract, images_of_rows, stream};
pub use graph::{Chosen, Found, Tap};
pub use layer::Layer;
pub use layers::LayersAsked;
pub use network::Network;
pub use perturb::{Perturbation, PerturbedBy};
pub use pooled::{Pooled, PooledLayer};
pub use runtime::{Library, find_library};

use graph::Asked;
use resnet::{ResNet, Spec};
use weights::StateDict;

/// What the file alone does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackboneOptions {
    /// The tensor to take as features, `[N, D, h, w]` or `[N, D]`, where what
    /// is found is not what is wanted.
    pub tap: Option<String>,
    /// The output that is the classifier's, where there are several and
    /// another one is found.
    pub output: Option<String>,
    /// Classes of the labels, by which one of several outputs is chosen.
    pub classes: Option<usize>,
    /// The architecture that weights must be of (`resnet34`), and what they do
    /// not tell: `stem=…`, `stride_in=…`, apart by commas or spaces.
    pub arch: Option<String>,
    /// What stands before the names of the weights, where a file has several
    /// networks.
    pub prefix: Option<String>,
    /// The ONNX Runtime library, where it should not be searched for.
    pub library: Option<PathBuf>,
}

/// A classifier whose graph has been read.
#[derive(Clone)]
pub struct Backbone {
    path: PathBuf,
    bytes: Arc<Bytes>,
    found: Found,
    architecture: Option<String>,
    notes: Vec<String>,
    sha256: String,
    options: BackboneOptions,
    device: Device,
    precision: Precision,
}

impl Backbone {
    /// Read an `.onnx` file, or the weights of a ResNet (`.pt`, `.pth`,
    /// `.ckpt`, `.th`, `.safetensors`); the network is not run yet.
    ///
    /// # Errors
    /// If it is not an ONNX model, its weights are in another file that is not
    /// there, or it has no image as its input; if weights are not those of the
    /// architecture, with every mismatch.
    pub fn open(path: impl AsRef<Path>, options: &BackboneOptions) -> Result<Self> {
        let path = path.as_ref();
        let mut bytes = map(path)?;
        let (mut architecture, mut notes) = (None, Vec::new());
        let mut sha256 = sha256_of([&bytes[..]]);
        if weights::holds_weights(&bytes) {
            let dict = StateDict::open(path, &resnet::ANCHORS, options.prefix.as_deref())?;
            let spec = options.arch.as_deref().map(Spec::parse).transpose()?.unwrap_or_default();
            let network = ResNet::of(&dict, &spec)?;
            if let Some(prefix) = dict.of_several() {
                sha256 = sha256_of([&sha256, prefix]);
            }
            notes.extend(dict.note());
            notes.extend(network.notes(&dict, &spec)?);
            bytes = Arc::new(Bytes::from(network.graph(&dict)?));
            architecture = Some(network.name);
        } else if let Some(key) = options.arch.as_ref().or(options.prefix.as_ref()) {
            let problem = "an ONNX file says itself what it is; leave the option out";
            return Err(Error::config("backbone", key, problem));
        } else {
            let model = graph::decode(path, &bytes)?;
            let opset = graph::opset(&model);
            let outside = external::some_are_outside(&model);
            let quantised = quantised::some_are(&model, opset);
            notes.extend(training::notes(&model));
            let trains = training::some_do(&model);
            drop(model);
            if outside {
                bytes = Arc::new(Bytes::from(external::inlined(path, &bytes)?));
                sha256 = sha256_of([&bytes[..]]);
            }
            if quantised {
                bytes = Arc::new(Bytes::from(quantised::taken_apart(path, &bytes, opset)?));
            }
            if trains {
                bytes = Arc::new(Bytes::from(training::ended(path, &bytes)?));
            }
        }
        let asked = Asked {
            tap: options.tap.as_deref(),
            output: options.output.as_deref(),
            classes: options.classes,
        };
        let found = graph::read(path, &bytes, asked)?;
        Ok(Backbone {
            path: path.to_owned(),
            bytes,
            found,
            architecture,
            notes,
            sha256,
            options: options.clone(),
            device: Device::Cpu,
            precision: Precision::F32,
        })
    }

    /// The same network, run on that device.
    ///
    /// # Errors
    /// If the device has no such precision, no ONNX Runtime is found, or the one that is has no
    /// provider for the device. Whether there is such a device is seen when images are given.
    pub fn on(self, device: Device, precision: Precision) -> Result<Self> {
        precision.check(&device)?;
        if device != Device::Cpu {
            runtime::require(&find_library(self.options.library.as_deref())?, &device)?;
        }
        Ok(Backbone { device, precision, ..self })
    }

    /// What it is run on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How exactly it is computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Write the graph with its pooled outputs (`avg`, `std`, `max`, `logits`
    /// under the names in the graph) as an `.onnx` file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let model = outputs::with_pooled_outputs(&self.bytes, &self.found);
        write_atomically(path.as_ref(), |to| to.write_all(&model))
    }

    /// What the weights are of, where it was read from weights.
    pub fn architecture(&self) -> Option<&str> {
        self.architecture.as_deref()
    }

    /// What its weights leave open, and what was assumed.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What to say of it before its features are taken, as it was seen to run.
    pub fn notes_of(&self, checked: &Checked) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(why) = &checked.alone {
            notes.push(format!("`avg` alone, without `std` and `max`: {why}"));
        }
        match (&self.found.headless, &checked.headless) {
            (Some(why), _) => notes.push(format!("features alone, without a head: {why}")),
            (None, Some(why)) => notes.push(format!("no head is written: {why}")),
            _ => {}
        }
        if self.head().is_some_and(|head| head.classes() == 1) {
            let problem = "one logit: scores of softmax and of several logits (msp, max_logit, el, \
                           odin) say nothing of it; scorers of features do";
            notes.push(problem.into());
        }
        notes
    }

    /// SHA-256 of the file; of the whole model where its weights are in others; of the file's and
    /// of what stands before its names where the file has several networks.
    pub fn sha256(&self) -> &str {
        &self.sha256
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

    /// What goes with features that it makes: the network, where in it they are taken, and how
    /// images reach it.
    pub fn origin(&self, transform: &TransformConfig) -> Origin {
        let architecture = self.architecture().map(|name| format!("{name}, "));
        Origin {
            network: self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            network_sha256: self.sha256.clone(),
            tap: architecture.unwrap_or_default() + &format!("{:?}", self.found.tap),
            transform: serde_json::to_string(transform).unwrap_or_default(),
            head_sha256: self.head().map(Head::digest),
            layers: self
                .found
                .layers()
                .iter()
                .map(|l| (l.part.name().to_owned(), l.tensor.clone()))
                .collect(),
            device: match &self.device {
                Device::Cpu => None,
                device => Some(format!("{device}, {}", self.precision)),
            },
        }
    }
}
