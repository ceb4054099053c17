//! What a directory was extracted from, kept beside its shards.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ExtractConfig;
use crate::backbone::{Backbone, Device, PerturbedBy, Precision};
use crate::{ImageDataset, Made, TransformConfig};
use heat_ood::features::{HEAD, Head, Origin, View};
use heat_ood::io::{read_text, sha256_of, write_own};
use heat_ood::{Error, Result};

/// The manifest, `extract.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    backbone: String,
    backbone_sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architecture: Option<String>,
    tap: String,
    dataset: String,
    #[serde(rename = "pictures")]
    images: usize,
    /// SHA-256 of the names and labels of all images, in order, and of the classes' names.
    dataset_sha256: String,
    shard_rows: usize,
    skip_unreadable: bool,
    dtype: String,
    transform: TransformConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    perturbed_by: Option<PerturbedBy>,
    /// Further layers by name, each with its tensor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    layers: BTreeMap<String, String>,
    /// Views of the images whose features are there too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    views: Vec<String>,
    /// What was made of maps besides poolings.
    #[serde(default, rename = "for", skip_serializing_if = "Vec::is_empty")]
    of_maps: Vec<String>,
    /// How the images were made of others, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<Made>,
    /// What the network was run on, where that was not the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_on: Option<RunOn>,
    version: String,
    /// SHA-256 of the pixels of all images that were read, known at the end:
    /// that of each shard's, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pixels_sha256: Option<String>,
    /// What became of the data set, known at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    summary: Option<Summary>,
}

/// A device, which gives other last bits than the processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RunOn {
    /// Of ONNX Runtime.
    provider: String,
    device: String,
    precision: Precision,
}

impl RunOn {
    fn of(backbone: &Backbone) -> Option<Self> {
        let device = backbone.device();
        (*device != Device::Cpu).then(|| RunOn {
            provider: device.provider().to_owned(),
            device: device.to_string(),
            precision: backbone.precision(),
        })
    }
}

/// In words.
fn run_on(run_on: Option<&RunOn>) -> String {
    run_on.map_or("on cpu".to_owned(), |on| format!("on {} in {}", on.device, on.precision))
}

/// What became of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    rows: usize,
    /// Images that could not be read.
    unreadable: usize,
    /// Names of the classes, in the order of their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    classes: Vec<String>,
    /// Files that are no image to be read.
    left_out: usize,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    left_out_files: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// SHA-256 of the values of the head that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head_sha256: Option<String>,
}

/// Files that are named.
const NAMED: usize = 100;

impl Summary {
    pub fn new(dataset: &dyn ImageDataset, unreadable: usize, head: Option<&Head>) -> Self {
        Summary {
            rows: dataset.len() - unreadable,
            unreadable,
            classes: dataset.classes().to_vec(),
            left_out: dataset.left_out().len(),
            left_out_files: dataset.left_out().iter().take(NAMED).cloned().collect(),
            notes: dataset.notes().to_vec(),
            head_sha256: head.map(Head::digest),
        }
    }
}

/// Its name.
pub(super) const MANIFEST: &str = "extract.json";

/// How images were made, in words.
fn made(made: Option<&Made>) -> String {
    match made {
        None => "of images as they are".to_owned(),
        Some(made) => format!(
            "of images made otherwise ({}, seed {}, of {} of the {} images of {})",
            made.kind, made.seed, made.of.used, made.of.images, made.of.dataset
        ),
    }
}

impl Manifest {
    pub fn new(
        dataset: &dyn ImageDataset,
        backbone: &Backbone,
        config: &ExtractConfig,
    ) -> Result<Self> {
        let listed = (0..dataset.len()).flat_map(|i| {
            let label = dataset.label(i).map_or(u64::MAX, u64::from);
            [dataset.place(i).into_bytes(), label.to_le_bytes().to_vec()]
        });
        let classes = dataset.classes().iter().map(|name| format!("{name}\0").into_bytes());
        let name = backbone.path().file_name().unwrap_or_default();
        Ok(Manifest {
            backbone: name.to_string_lossy().into_owned(),
            backbone_sha256: backbone.sha256().to_owned(),
            architecture: backbone.architecture().map(str::to_owned),
            tap: format!("{:?}", backbone.found().tap),
            dataset: dataset.name().to_owned(),
            images: dataset.len(),
            dataset_sha256: sha256_of(listed.chain(classes)),
            shard_rows: config.shard_rows,
            skip_unreadable: config.skip_unreadable,
            dtype: format!("{:?}", config.dtype).to_lowercase(),
            transform: config.transform.clone(),
            perturbed_by: config.perturb.as_ref().map(|p| p.identity().clone()),
            layers: backbone.origin(&config.transform).layers,
            views: config.views.iter().map(View::to_string).collect(),
            of_maps: backbone.found().of_maps().iter().map(|f| f.name().to_owned()).collect(),
            made: dataset.made().cloned(),
            run_on: RunOn::of(backbone),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pixels_sha256: None,
            summary: None,
        })
    }

    /// What goes with the features: the network, where in it, and how images reach it.
    pub fn origin(&self, backbone: &Backbone) -> Origin {
        backbone.origin(&self.transform)
    }

    fn read(directory: &Path) -> Option<Self> {
        let text = read_text(&directory.join(MANIFEST)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Whether a finished directory has the head that was written into it, or none as then.
    pub fn head_is_there(&self, directory: &Path) -> bool {
        let written = Self::read(directory).and_then(|m| m.summary).and_then(|s| s.head_sha256);
        let head = directory.join(HEAD);
        match written {
            None => !head.exists(),
            written => Head::open(head).ok().map(|head| head.digest()) == written,
        }
    }

    /// What `directory` was made with, or begun with, that is not what this manifest stands for;
    /// none if all is the same.
    pub fn difference(&self, directory: &Path) -> Option<String> {
        let Some(other) = Self::read(directory) else {
            return Some(format!("it has no whole {MANIFEST}"));
        };
        let other = Manifest { pixels_sha256: None, summary: None, ..other };
        if other == *self {
            return None;
        }
        let images = match (other.images, self.images) {
            (then, now) if then != now => format!("of {then} images, and there are {now}"),
            _ => "of images of other names, places or labels".to_owned(),
        };
        let setting = |name: &str, is: &dyn std::fmt::Debug| format!("with {name} {is:?}");
        let short = |digest: &str| digest.chars().take(12).collect::<String>();
        let network = format!("{} ({})", other.backbone, short(&other.backbone_sha256));
        let differences = [
            (other.dataset_sha256 != self.dataset_sha256, images),
            (
                other.backbone_sha256 != self.backbone_sha256,
                format!("by another network, {network}"),
            ),
            (other.architecture != self.architecture, setting("architecture", &other.architecture)),
            (other.tap != self.tap, format!("of the tensor {}", other.tap)),
            (other.transform != self.transform, "with another transform".to_owned()),
            (other.perturbed_by != self.perturbed_by, "with another perturbation".to_owned()),
            (other.layers != self.layers, setting("layers", &other.layers)),
            (other.views != self.views, setting("views", &other.views)),
            (other.of_maps != self.of_maps, setting("for", &other.of_maps)),
            (other.made != self.made, made(other.made.as_ref())),
            (other.run_on != self.run_on, run_on(other.run_on.as_ref())),
            (other.dtype != self.dtype, format!("as {}", other.dtype)),
            (other.shard_rows != self.shard_rows, format!("in shards of {}", other.shard_rows)),
            (
                other.skip_unreadable != self.skip_unreadable,
                "with other handling of unreadable images".to_owned(),
            ),
            (other.version != self.version, format!("by version {}", other.version)),
        ];
        let differing = differences.into_iter().filter(|(differs, _)| *differs);
        let texts: Vec<String> = differing.map(|(_, text)| text).collect();
        // The same images and network under other names.
        let named = || format!("of {} by {}", other.dataset, other.backbone);
        Some(if texts.is_empty() { named() } else { texts.join("; ") })
    }

    pub fn write(&self, directory: &Path) -> Result<()> {
        let file = directory.join(MANIFEST);
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|e| Error::format(&file, e.to_string()))?;
        write_own(&file, |to| to.write_all(text.as_bytes()))
    }

    /// Write the manifest with the summary and the hash of all pixels: that of each shard's, in
    /// order.
    pub fn finish(mut self, directory: &Path, pixels: &[String], summary: Summary) -> Result<()> {
        self.pixels_sha256 = Some(sha256_of(pixels));
        self.summary = Some(summary);
        self.write(directory)
    }
}
