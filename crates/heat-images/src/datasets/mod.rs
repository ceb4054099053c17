//! Images: data sets in their published formats, decoding, transforms.
//!
//! An [`ImageDataset`] gives its images one by one, in any order, and decodes
//! none before it is asked for. [`open`] tells the format from the files.
//! Scorers know nothing of images: `backbone` turns them into feature sets.

mod archive;
mod cifar;
mod files;
mod idx;
mod joined;
mod links;
mod list;
mod lmdb;
mod lsun;
mod made;
mod matlab;
mod numpy;
mod pickle;
mod places;
mod records;
mod sniff;
mod subset;
mod svhn;

use std::path::{Path, PathBuf};

use crate::{Format, Image, ImageOptions, MAX_PIXELS};
use archive::Store;
use files::Files;
use heat_ood::{Error, Result};
pub use joined::open_all;
pub use made::{Excluded, Made, MadeOf, MixedClasses};
pub use subset::ImageSubset;

/// Labelled or unlabelled images.
pub trait ImageDataset: Send + Sync {
    /// Where it came from, for messages.
    fn name(&self) -> &str;

    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there is none. Never: sets without images are refused.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of image `i`, if the set has labels.
    fn label(&self, i: usize) -> Option<u32>;

    /// Names of the classes, where the set says them.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// What it holds that is no image to be read, by name.
    fn left_out(&self) -> &[String] {
        &[]
    }

    /// What else should be known before its rows are used: classes without an image, images
    /// without a class.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// What names image `i` in messages and lists: its file, or its record.
    fn place(&self, i: usize) -> String;

    /// The file that image `i` is read from; others may lie in it too. By its size and times an
    /// extraction knows, without decoding it again, that the image is the same.
    fn file(&self, _i: usize) -> Option<PathBuf> {
        None
    }

    /// What image `i` is called within the set: the path of its file there, or its record.
    fn image_name(&self, i: usize) -> String {
        self.place(i)
    }

    /// How the images were made of those of another set, where they were. Such images are as the
    /// network gets them: they are not resized and cropped once more.
    fn made(&self) -> Option<&Made> {
        None
    }

    /// Decode image `i`.
    ///
    /// # Errors
    /// If it cannot be read or is not an image; the text names its place.
    fn image(&self, i: usize) -> Result<Image>;
}

/// Open a data set: a directory, an archive (`.tar`, `.tar.gz`, `.tgz`, `.zip`),
/// a `.npy`, `.npz`, `.mat`, IDX or list file, or one image.
///
/// # Errors
/// If it cannot be read, is of no known format, lacks the split, or holds no
/// image.
pub fn open(path: impl AsRef<Path>, options: &ImageOptions) -> Result<Box<dyn ImageDataset>> {
    let path = path.as_ref();
    let (format, store) = match options.format {
        Some(format) => (format, None),
        None => guess(path)?,
    };
    let set = open_as(path, format, store, options)?;
    if set.is_empty() {
        return Err(Error::format(path, "no image in it"));
    }
    Ok(set)
}

/// Open a set of that format; `store` is what its files are in, where they
/// have been listed already.
fn open_as(
    path: &Path,
    format: Format,
    store: Option<Store>,
    options: &ImageOptions,
) -> Result<Box<dyn ImageDataset>> {
    let split = options.split.as_deref();
    let store = || store.map_or_else(|| Store::open(path), Ok);
    let most = options.max_pixels.unwrap_or(MAX_PIXELS);
    let records = |set: records::Records| set.within(path, most).map(Box::new);
    let files = |set: Files| Box::new(set.within(most));
    Ok(match format {
        Format::Svhn => records(svhn::open(path, split)?)?,
        Format::Idx => records(idx::open(path, split)?)?,
        Format::Numpy => records(numpy::open(path, split)?)?,
        Format::List => files(list::open(path, options.root.as_deref())?),
        Format::Lsun => Box::new(lsun::open(path, split)?.within(most)),
        Format::Cifar10 | Format::Cifar100 => {
            Box::new(cifar::open(store()?, format == Format::Cifar100, split)?)
        }
        Format::Tinyimagenet => files(files::tiny_imagenet(store()?, split)?),
        Format::Textures => files(files::textures(store()?, split)?),
        Format::Places => files(places::open(store()?, split)?),
        Format::Folder => files(files::directory(store()?, split)?),
    })
}

/// The format, from names alone; with the files, where they had to be listed:
/// to list a compressed archive is to unpack it.
fn guess(path: &Path) -> Result<(Format, Option<Store>)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let ends = |endings: &[&str]| endings.iter().any(|ending| plain.ends_with(ending));
    if !path.is_dir() {
        if ends(&[".mat"]) {
            return Ok((Format::Svhn, None));
        }
        if ends(&[".npy", ".npz"]) {
            return Ok((Format::Numpy, None));
        }
        if idx::is_idx(plain) {
            return Ok((Format::Idx, None));
        }
        if ends(&[".txt", ".lst", ".list", ".csv", ".tsv"]) {
            return Ok((Format::List, None));
        }
    }
    if lsun::is_lsun(path) {
        return Ok((Format::Lsun, None));
    }
    let store = Store::open(path)?;
    let has = |name: &str| store.find(name).is_some();
    let format = if has("test_batch.bin") || has("test_batch") || has("data_batch_1.bin") {
        Format::Cifar10
    } else if has("fine_label_names.txt") || (has("meta") && has("test")) {
        Format::Cifar100
    } else if has("wnids.txt") || has("val_annotations.txt") {
        Format::Tinyimagenet
    } else if has("labels/test1.txt") {
        Format::Textures
    } else if store.names().any(places::is_places) {
        Format::Places
    } else if path.is_dir() && store.names().any(idx::is_idx) {
        Format::Idx
    } else if path.is_dir() && store.names().any(|n| n.ends_with(".npy")) && !has_images(&store) {
        Format::Numpy
    } else if let Some(file) = store.names().find(|n| n.ends_with("_32x32.mat") || is_numpy(n)) {
        if has_images(&store) { Format::Folder } else { return Err(found_inside(path, file)) }
    } else {
        Format::Folder
    };
    Ok((format, Some(store)))
}

fn is_numpy(name: &str) -> bool {
    name.ends_with(".npz") || name.ends_with(".npy")
}

fn has_images(store: &Store) -> bool {
    store.names().any(files::is_image)
}

fn found_inside(path: &Path, file: &str) -> Error {
    Error::format(path, format!("no image in it, but `{file}`: unpack it and give that file"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What told the format is read from, though the archive has gone.
    #[test]
    fn a_compressed_archive_is_unpacked_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar.gz");
        let mut tar = tar::Builder::new(Vec::new());
        let png = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/images/rgb.png");
        tar.append_path_with_name(png, "a.png").unwrap();
        let file = std::fs::File::create(&path).unwrap();
        let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gz.write_all(&tar.into_inner().unwrap()).unwrap();
        gz.finish().unwrap();
        let (format, store) = guess(&path).unwrap();
        assert_eq!(format, Format::Folder);
        std::fs::remove_file(&path).unwrap();
        let set = open_as(&path, format, store, &ImageOptions::default()).unwrap();
        assert_eq!((set.len(), set.image(0).unwrap().width), (1, 37));
    }
}
