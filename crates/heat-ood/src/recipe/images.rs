//! What recipes say of images: how a data set is opened, and what is done to
//! an image before a network sees it. Plain settings; reading and transforming
//! are the crate `heat-images`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The published formats of image data sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// CIFAR-10, binary or Python pickles.
    Cifar10,
    /// CIFAR-100 (fine labels), binary or Python pickles.
    Cifar100,
    /// SVHN, cropped digits: MATLAB files.
    Svhn,
    /// The MNIST family: IDX files, plain or compressed.
    Idx,
    /// Tiny-ImageNet-200.
    Tinyimagenet,
    /// DTD, the Describable Textures Dataset.
    Textures,
    /// LSUN: LMDB databases.
    Lsun,
    /// The validation images of Places365, 256×256.
    Places,
    /// One directory for each class, or images without classes.
    Folder,
    /// A text file of lines `path label`, or `path` alone.
    List,
    /// Arrays of images: `.npy`, `.npz`.
    Numpy,
}

/// What the files of a data set alone do not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageOptions {
    /// The format, where it should not be guessed.
    pub format: Option<Format>,
    /// `train`, `val` or `test`; for textures `test1`, `train2`, …. Default:
    /// what the published evaluations read: `test`, of Tiny-ImageNet `val`
    /// where its test images are absent, of textures `test1`. Of a folder, the
    /// directory of that name; of CIFAR-10-C's arrays, the severity (`1` to `5`).
    pub split: Option<String>,
    /// Most pixels of an image; default: Pillow's bound for decompression
    /// bombs, 178,956,970.
    pub max_pixels: Option<u64>,
    /// Directory or archive that the paths of a list are in; default: the list's directory.
    pub root: Option<PathBuf>,
}

/// Interpolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Triangle.
    #[default]
    Bilinear,
    /// Cubic with a = −½.
    Bicubic,
}

/// Size to resize to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Resize {
    /// The short side; the other keeps the proportions.
    Short(usize),
    /// `[height, width]`.
    Exact([usize; 2]),
}

/// What is done to an image, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformConfig {
    /// Resize first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// How.
    pub filter: Filter,
    /// Then cut this square out of the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// Subtracted from each channel in [0, 1].
    pub mean: [f32; 3],
    /// Then divided by.
    pub std: [f32; 3],
}

impl Default for TransformConfig {
    /// To [0, 1] alone.
    fn default() -> Self {
        TransformConfig {
            resize: None,
            filter: Filter::Bilinear,
            crop: None,
            mean: [0.0; 3],
            std: [1.0; 3],
        }
    }
}

impl TransformConfig {
    /// ImageNet's: short side 256, crop 224.
    pub fn imagenet() -> Self {
        TransformConfig {
            resize: Some(Resize::Short(256)),
            crop: Some(224),
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            ..Self::default()
        }
    }
}
