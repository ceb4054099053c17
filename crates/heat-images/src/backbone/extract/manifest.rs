//! What a directory was extracted from, kept beside its shards.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ExtractConfig, parent};
use crate::backbone::{Backbone, PerturbedBy};
use crate::{ImageDataset, TransformConfig};
use heat_ood::features::Origin;
use heat_ood::io::{read_text, sha256_of, write_atomically};
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
    /// SHA-256 of the names and labels of all images, in order.
    dataset_sha256: String,
    shard_rows: usize,
    skip_unreadable: bool,
    dtype: String,
    transform: TransformConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    perturbed_by: Option<PerturbedBy>,
    version: String,
    /// SHA-256 of the pixels of all images that were read, known at the end:
    /// that of each shard's, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pixels_sha256: Option<String>,
    /// What became of the data set, known at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    summary: Option<Summary>,
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
}

/// Files that are named.
const NAMED: usize = 100;

impl Summary {
    pub fn new(dataset: &dyn ImageDataset, unreadable: usize) -> Self {
        Summary {
            rows: dataset.len() - unreadable,
            unreadable,
            classes: dataset.classes().to_vec(),
            left_out: dataset.left_out().len(),
            left_out_files: dataset.left_out().iter().take(NAMED).cloned().collect(),
            notes: dataset.notes().to_vec(),
        }
    }
}

const MANIFEST: &str = "extract.json";

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
        let name = backbone.path().file_name().unwrap_or_default();
        Ok(Manifest {
            backbone: name.to_string_lossy().into_owned(),
            backbone_sha256: backbone.sha256().to_owned(),
            architecture: backbone.architecture().map(str::to_owned),
            tap: format!("{:?}", backbone.found().tap),
            dataset: dataset.name().to_owned(),
            images: dataset.len(),
            dataset_sha256: sha256_of(listed),
            shard_rows: config.shard_rows,
            skip_unreadable: config.skip_unreadable,
            dtype: format!("{:?}", config.dtype).to_lowercase(),
            transform: config.transform.clone(),
            perturbed_by: config.perturb.as_ref().map(|p| p.identity().clone()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pixels_sha256: None,
            summary: None,
        })
    }

    /// What goes with the features: the network, where in it, and how images reach it.
    pub fn origin(&self, backbone: &Backbone) -> Origin {
        let transform = serde_json::to_string(&self.transform).unwrap_or_default();
        let architecture = self.architecture.as_deref().map(|name| format!("{name}, "));
        Origin {
            network: self.backbone.clone(),
            network_sha256: self.backbone_sha256.clone(),
            tap: architecture.unwrap_or_default() + &self.tap,
            transform,
            head_sha256: backbone.head().map(|head| head.digest()),
        }
    }

    fn read(directory: &Path) -> Option<Self> {
        let text = read_text(&directory.join(MANIFEST)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Whether the finished features in `directory` are those that this manifest
    /// stands for.
    pub fn describes(&self, directory: &Path) -> bool {
        let begun = |m| Manifest { pixels_sha256: None, summary: None, ..m };
        Self::read(directory).map(begun).as_ref() == Some(self)
    }

    pub fn write(&self, directory: &Path) -> Result<()> {
        let file = directory.join(MANIFEST);
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|e| Error::format(&file, e.to_string()))?;
        write_atomically(&file, |to| to.write_all(text.as_bytes()))
    }

    /// The directory under its temporary name, new or as an earlier run left it.
    pub fn begin(&self, out: &Path) -> Result<PathBuf> {
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let directory = parent(out).join(format!(".heat-{name}.tmp"));
        // What has that name may be another's link, to a directory of value.
        if fs::symlink_metadata(&directory).is_ok_and(|found| !found.is_dir()) {
            let problem = "is no directory of this program; remove it, or choose another name";
            return Err(Error::format(directory, problem));
        }
        if directory.join(MANIFEST).is_file() {
            if self.describes(&directory) {
                return Ok(directory);
            }
            let problem = "begun with other images, another network or other settings; \
                           give the same, or remove that directory";
            return Err(Error::format(directory, problem));
        }
        fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        self.write(&directory)?;
        Ok(directory)
    }

    /// Write the manifest with the summary and the hash of all pixels, of
    /// which each shard left its own in a file.
    pub fn finish(mut self, directory: &Path, shards: usize, summary: Summary) -> Result<()> {
        if Self::read(directory).is_some_and(|m| m.pixels_sha256.is_some()) {
            // By an earlier run, which may have removed the files since.
            return Ok(());
        }
        let files: Vec<PathBuf> = (0..shards).map(|i| digest_file(directory, i)).collect();
        let read = |f: &PathBuf| read_text(f);
        let digests = files.iter().map(read).collect::<Result<Vec<String>>>()?;
        self.pixels_sha256 = Some(sha256_of(digests));
        self.summary = Some(summary);
        self.write(directory)
    }
}

/// Where the hash of a shard's pixels is kept until the end.
pub(super) fn digest_file(directory: &Path, shard: usize) -> PathBuf {
    directory.join(format!("pixels-{shard:05}.sha256"))
}
