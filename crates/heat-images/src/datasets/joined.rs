//! Several sets as one, whose images are named as they were asked for.

use std::path::PathBuf;

use super::{ImageDataset, open};
use crate::{Image, ImageOptions};
use heat_ood::{Error, Result};

/// Sets one after the other, without labels.
struct Joined {
    name: String,
    parts: Vec<Part>,
}

/// One of them.
struct Part {
    set: Box<dyn ImageDataset>,
    /// Number of its first image.
    start: usize,
    /// Path that was given, where names begin with it.
    path: Option<String>,
    /// Whether that is the image.
    single: bool,
}

/// Open images, directories, archives and lists, in this order, as one set without labels. The
/// images of a single directory or archive are named by their paths in it; of several, that path
/// comes after the one given.
///
/// # Errors
/// If there is none, or one of them cannot be opened.
pub fn open_all(paths: &[PathBuf], options: &ImageOptions) -> Result<Box<dyn ImageDataset>> {
    let Some(first) = paths.first() else {
        return Err(Error::needs("reading images", "a path", "name an image or a directory"));
    };
    let (mut parts, mut start) = (Vec::with_capacity(paths.len()), 0);
    for path in paths {
        let set = open(path, options)?;
        let named =
            path.file_name().is_some_and(|name| name.to_string_lossy() == set.image_name(0));
        let single = set.len() == 1 && path.is_file() && named;
        let text = path.display().to_string();
        let text = text.trim_end_matches('/').to_owned();
        let path = (single || paths.len() > 1).then_some(text);
        let length = set.len();
        parts.push(Part { set, start, path, single });
        start += length;
    }
    let name = match paths.len() {
        1 => first.display().to_string(),
        n => format!("{} and {} more", first.display(), n - 1),
    };
    Ok(Box::new(Joined { name, parts }))
}

impl Joined {
    fn part(&self, i: usize) -> (&Part, usize) {
        let at = self.parts.partition_point(|part| part.start <= i).saturating_sub(1);
        let part = &self.parts[at];
        (part, i - part.start)
    }
}

impl ImageDataset for Joined {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.parts.last().map_or(0, |part| part.start + part.set.len())
    }

    fn label(&self, _: usize) -> Option<u32> {
        None
    }

    fn place(&self, i: usize) -> String {
        let (part, i) = self.part(i);
        part.set.place(i)
    }

    fn file(&self, i: usize) -> Option<PathBuf> {
        let (part, i) = self.part(i);
        part.set.file(i)
    }

    fn image_name(&self, i: usize) -> String {
        let (part, i) = self.part(i);
        match &part.path {
            Some(path) if part.single => path.clone(),
            Some(path) => format!("{path}/{}", part.set.image_name(i)),
            None => part.set.image_name(i),
        }
    }

    fn image(&self, i: usize) -> Result<Image> {
        let (part, i) = self.part(i);
        part.set.image(i)
    }
}
