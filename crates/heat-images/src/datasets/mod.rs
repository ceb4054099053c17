//! Pictures: data sets in their published formats, decoding, transforms.
//!
//! An [`ImageDataset`] gives its pictures one by one, in any order, and decodes
//! none before it is asked for. [`open`] tells the format from the files.
//! Scorers know nothing of pictures: `backbone` turns them into feature sets.

mod archive;
mod cifar;
mod files;
mod idx;
mod lmdb;
mod lsun;
mod matlab;
mod pickle;
mod places;
mod records;
mod svhn;

use std::path::Path;

use crate::{Format, Image, ImageOptions, MAX_PIXELS};
use archive::Store;
use files::Files;
use heat_ood::{Error, Result};

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
