//! The groups that lead from images to features: data sets, networks,
//! transforms, and where the published images lie.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Value;

use super::{Format, ImageOptions, TransformConfig, group};
use crate::error::{Error, Result};
use crate::features::SubsetConfig;
use crate::settings::typed;

/// The `dataset` group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(non_snake_case)]
pub struct DatasetRecipe {
    /// Name of the in-distribution set.
    pub ID_NAME: String,
    /// Number of classes.
    pub num_classes: usize,
    /// Name of its `transform`, unless another is chosen.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transform: String,
    /// The paper's OOD sets for it.
    pub ood: Vec<String>,
    /// Directory of the images, unless another is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_root: Option<PathBuf>,
    /// Which part of the training set is used.
    #[serde(skip_serializing_if = "SubsetConfig::is_default")]
    pub subset: SubsetConfig,
}

/// The `backbone` group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackboneRecipe {
    /// Architecture: weights are checked against it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Feature dimension D; 0 where it is not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub dim: usize,
    /// File of the network: `.onnx`, or a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Tensor to take as features, where what is found is not what is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// What stands before the names of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// A set of images by name: a file of the group `pictures`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImagesRecipe {
    /// Its format; told from the files where absent.
    pub format: Option<Format>,
    /// Its name in `heat data get`.
    pub download: Option<String>,
    /// What is trained on.
    pub train: Option<Part>,
    /// What is evaluated on.
    pub test: Option<Part>,
}

/// A part of a set of images.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Part {
    /// Paths below the data directory; the first that exists is read.
    pub paths: Vec<String>,
    /// Its split.
    pub split: Option<String>,
}

impl ImagesRecipe {
    /// The recipe of that name: of the user's directory, or built in.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn named(name: &str, directory: Option<&Path>) -> Result<Self> {
        match group("pictures", name, directory)?.remove("pictures") {
            Some(Value::Table(table)) => typed(&table, name),
            _ => Ok(Self::default()),
        }
    }

    /// Where the training (or test) images lie below `root`, and how they
    /// are opened.
    ///
    /// # Errors
    /// If the set has no such part, or none of its paths exists.
    pub fn find(&self, name: &str, train: bool, root: &Path) -> Result<(PathBuf, ImageOptions)> {
        let (what, part) = match train {
            true => ("training images", &self.train),
            false => ("test images", &self.test),
        };
        let part = part.as_ref().ok_or_else(|| {
            Error::missing(format!("pictures/{name}.toml"), what, "use another data set")
        })?;
        let options = ImageOptions {
            format: self.format,
            split: part.split.clone(),
            ..ImageOptions::default()
        };
        let paths = part.paths.iter().map(|path| root.join(path));
        if let Some(found) = { paths }.find(|path| path.exists()) {
            return Ok((found, options));
        }
        let remedy = match &self.download {
            Some(download) => format!("`heat data get {download}` fetches them"),
            None => "put them there".to_owned(),
        };
        let looked = format!("{what} of `{name}` (looked for {})", part.paths.join(", "));
        Err(Error::missing(root.display().to_string(), looked, remedy))
    }
}

/// The transform of that name: of the user's directory, or built in.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn transform(name: &str, directory: Option<&Path>) -> Result<TransformConfig> {
    match group("transform", name, directory)?.remove("transform") {
        Some(Value::Table(table)) => typed(&table, "transform"),
        _ => Ok(TransformConfig::default()),
    }
}
