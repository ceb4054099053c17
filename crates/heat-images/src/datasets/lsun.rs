//! LSUN: scenes in LMDB databases, one for each category and split
//! (`bedroom_val_lmdb/data.mdb`), the bytes of an image under each key.
//!
//! Order: the categories' as torchvision has them, within each LMDB's order of
//! keys; so the rows are those of `torchvision.datasets.LSUN`.
//!
//! Reference: Yu et al., *LSUN: Construction of a Large-scale Image Dataset using Deep Learning with Humans in the Loop*, 2015.

use std::path::{Path, PathBuf};

use super::ImageDataset;
use super::lmdb::Lmdb;
use crate::{Image, MAX_PIXELS, decode_within};
use heat_ood::{Error, Result};

/// The file of a database, in a directory of its own.
const FILE: &str = "data.mdb";

const CATEGORIES: [&str; 10] = [
    "bedroom",
    "bridge",
    "church_outdoor",
    "classroom",
    "conference_room",
    "dining_room",
    "kitchen",
    "living_room",
    "restaurant",
    "tower",
];

/// One database.
struct Part {
    place: String,
    file: PathBuf,
    images: Lmdb,
    label: Option<u32>,
}

pub(super) struct Lsun {
    name: String,
    parts: Vec<Part>,
    classes: Vec<String>,
    max_pixels: u64,
}

/// Names of the databases of a split, with their classes.
fn directories(split: &str) -> Vec<(String, Option<u32>)> {
    match split {
        "test" => vec![("test_lmdb".into(), None)],
        _ => CATEGORIES
            .iter()
            .zip(0..)
            .map(|(c, i)| (format!("{c}_{split}_lmdb"), Some(i)))
            .collect(),
    }
}

/// Whether a path is one of these, by names alone.
pub(super) fn is_lsun(path: &Path) -> bool {
    let database = |directory: &str| path.join(directory).join(FILE).is_file();
    let of_split =
        |split: &&str| directories(split).iter().any(|(directory, _)| database(directory));
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("mdb"))
        || path.is_dir() && (database("") || ["val", "train", "test"].iter().any(of_split))
}

/// Open a `data.mdb`, the directory of one, or the directory of a split's.
pub(super) fn open(path: &Path, split: Option<&str>) -> Result<Lsun> {
    let name = path.display().to_string();
    let single = if path.is_dir() { path.join(FILE).is_file() } else { true };
    if single {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let images = Lmdb::open(&file)?;
        let parts = vec![Part { place: name.clone(), file, images, label: None }];
        return Ok(Lsun { name, parts, classes: Vec::new(), max_pixels: MAX_PIXELS });
    }
    let split = split.unwrap_or("val");
    if !["val", "train", "test"].contains(&split) {
        return Err(Error::config("split", split, "LSUN has the splits train, val and test"));
    }
    let mut parts = Vec::new();
    for (directory, label) in directories(split) {
        let directory = path.join(directory);
        if directory.is_dir() {
            let place = directory.display().to_string();
            let file = directory.join(FILE);
            parts.push(Part { place, images: Lmdb::open(&file)?, file, label });
        }
    }
    if parts.is_empty() {
        let what = format!("`{}`", directories(split)[0].0);
        return Err(Error::missing(
            name,
            what,
            "unpack LSUN's archives there, or name another split",
        ));
    }
    let labelled = parts.iter().all(|p| p.label.is_some());
    let classes = CATEGORIES.iter().filter(|_| labelled).map(|c| (*c).to_owned()).collect();
    Ok(Lsun { name, parts, classes, max_pixels: MAX_PIXELS })
}

impl Lsun {
    /// Refuse images of more than `most` pixels.
    pub fn within(self, most: u64) -> Self {
        Lsun { max_pixels: most, ..self }
    }

    fn part(&self, mut i: usize) -> (&Part, usize) {
        for part in &self.parts {
            if i < part.images.len() {
                return (part, i);
            }
            i -= part.images.len();
        }
        // Callers stay below `len`; the last image stands for the rest.
        let last = &self.parts[self.parts.len() - 1];
        (last, last.images.len() - 1)
    }
}

impl ImageDataset for Lsun {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.parts.iter().map(|p| p.images.len()).sum()
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.part(i).0.label
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn place(&self, i: usize) -> String {
        let (part, i) = self.part(i);
        let key = part.images.key(i).escape_ascii();
        format!("{}: {key}", part.place)
    }

    fn file(&self, i: usize) -> Option<PathBuf> {
        Some(self.part(i).0.file.clone())
    }

    fn image_name(&self, i: usize) -> String {
        let (part, i) = self.part(i);
        let place = part.place.rsplit(['/', '\\']).next().unwrap_or_default();
        format!("{place}/{}", part.images.key(i).escape_ascii())
    }

    fn image(&self, i: usize) -> Result<Image> {
        let (part, at) = self.part(i);
        decode_within(&self.place(i), part.images.value(at), self.max_pixels)
    }
}
