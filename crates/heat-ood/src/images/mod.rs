//! Pictures: data sets in their published formats, decoding, transforms.
//!
//! An [`ImageDataset`] gives its pictures one by one, in any order, and decodes
//! none before it is asked for. [`open`] tells the format from the files.
//! Scorers know nothing of pictures: `backbone` turns them into feature sets.

mod archive;
mod cifar;
mod decode;
mod files;
mod idx;
#[cfg_attr(not(feature = "lmdb"), path = "no_lmdb.rs")]
mod lmdb;
mod lsun;
mod matlab;
#[cfg(feature = "lmdb")]
mod pages;
mod pickle;
mod places;
mod records;
mod svhn;
mod transform;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use archive::Store;
use files::Files;

pub use decode::{Image, MAX_PIXELS, decode, decode_within};
pub use transform::{Filter, Resize, Transform, TransformConfig};

/// Labelled or unlabelled pictures.
pub trait ImageDataset: Send + Sync {
    /// Where it came from, for messages.
    fn name(&self) -> &str;

    /// Number of pictures.
    fn len(&self) -> usize;

    /// Whether there is none. Never: sets without pictures are refused.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of picture `i`, if the set has labels.
    fn label(&self, i: usize) -> Option<u32>;

    /// Names of the classes, where the set says them.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// What names picture `i` in messages and lists: its file, or its record.
    fn place(&self, i: usize) -> String;

    /// Decode picture `i`.
    ///
    /// # Errors
    /// If it cannot be read or is not a picture; the text names its place.
    fn image(&self, i: usize) -> Result<Image>;
}

/// The published formats.
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
    /// LSUN: LMDB databases (with the cargo feature `lmdb`).
    Lsun,
    /// The validation pictures of Places365, 256×256.
    Places,
    /// One folder for each class, or pictures without classes.
    Folder,
    /// A text file of lines `path label`, or `path` alone.
    List,
}

/// What the files alone do not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageOptions {
    /// The format, where it should not be guessed.
    pub format: Option<Format>,
    /// `train`, `val` or `test`; for textures `test1`, `train2`, …. Default:
    /// what the published evaluations read: `test`, of Tiny-ImageNet `val`
    /// where its test pictures are absent, of textures `test1`.
    pub split: Option<String>,
    /// Most pixels of a picture; default: [`MAX_PIXELS`].
    pub max_pixels: Option<u64>,
}

/// Open a data set: a folder, an archive (`.tar`, `.tar.gz`, `.tgz`, `.zip`),
/// a `.mat`, IDX or list file.
///
/// # Errors
/// If it cannot be read, is of no known format, lacks the split, or holds no
/// picture.
pub fn open(path: impl AsRef<Path>, options: &ImageOptions) -> Result<Box<dyn ImageDataset>> {
    let path = path.as_ref();
    let split = options.split.as_deref();
    let format = match options.format {
        Some(format) => format,
        None => guess(path)?,
    };
    let most = options.max_pixels.unwrap_or(MAX_PIXELS);
    let records = |set: records::Records| set.within(path, most).map(Box::new);
    let files = |set: Files| Box::new(set.within(most));
    let set: Box<dyn ImageDataset> = match format {
        Format::Svhn => records(svhn::open(path, split)?)?,
        Format::Idx => records(idx::open(path, split)?)?,
        Format::List => files(files::list(path)?),
        Format::Lsun => Box::new(lsun::open(path, split)?.within(most)),
        Format::Cifar10 | Format::Cifar100 => {
            Box::new(cifar::open(Store::open(path)?, format == Format::Cifar100, split)?)
        }
        Format::Tinyimagenet => files(files::tiny_imagenet(Store::open(path)?, split)?),
        Format::Textures => files(files::textures(Store::open(path)?, split)?),
        Format::Places => files(places::open(Store::open(path)?, split)?),
        Format::Folder => files(files::folder(Store::open(path)?)?),
    };
    if set.is_empty() {
        return Err(Error::format(path, "no picture in it"));
    }
    Ok(set)
}

/// The format, from names alone.
fn guess(path: &Path) -> Result<Format> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    if plain.ends_with(".mat") {
        return Ok(Format::Svhn);
    }
    if plain.contains("-ubyte") || plain.contains("-idx") {
        return Ok(Format::Idx);
    }
    if plain.ends_with(".txt") || plain.ends_with(".lst") || plain.ends_with(".list") {
        return Ok(Format::List);
    }
    if lsun::is_lsun(path) {
        return Ok(Format::Lsun);
    }
    let store = Store::open(path)?;
    let has = |name: &str| store.find(name).is_some();
    Ok(if has("test_batch.bin") || has("test_batch") || has("data_batch_1.bin") {
        Format::Cifar10
    } else if has("fine_label_names.txt") || (has("meta") && has("test")) {
        Format::Cifar100
    } else if has("wnids.txt") || has("val_annotations.txt") {
        Format::Tinyimagenet
    } else if has("labels/test1.txt") {
        Format::Textures
    } else if store.names().any(places::is_places) {
        Format::Places
    } else if let Some(file) = store.names().find(|n| n.ends_with("_32x32.mat")) {
        return Err(found_inside(path, file));
    } else {
        Format::Folder
    })
}

fn found_inside(path: &Path, file: &str) -> Error {
    Error::format(path, format!("holds `{file}`: give that file"))
}
