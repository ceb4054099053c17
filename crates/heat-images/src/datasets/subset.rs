//! Some images of a set, as a set of their own.

use std::path::PathBuf;

use super::ImageDataset;
use crate::Image;
use heat_ood::{Error, Result};

/// Some images of a set, named as there.
pub struct ImageSubset<'a> {
    set: &'a dyn ImageDataset,
    name: String,
    images: Vec<usize>,
}

impl<'a> ImageSubset<'a> {
    /// The images with these numbers.
    ///
    /// # Errors
    /// If there is none, or one does not exist.
    pub fn of(set: &'a dyn ImageDataset, images: Vec<usize>) -> Result<Self> {
        if images.is_empty() || images.iter().any(|i| *i >= set.len()) {
            let problem = format!("some of its {} images are to be taken, at least one", set.len());
            return Err(Error::format(set.name(), problem));
        }
        let name = format!("{} ({} of {} images)", set.name(), images.len(), set.len());
        Ok(ImageSubset { set, name, images })
    }
}

impl ImageDataset for ImageSubset<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.images.len()
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.set.label(self.images[i])
    }

    fn classes(&self) -> &[String] {
        self.set.classes()
    }

    fn left_out(&self) -> &[String] {
        self.set.left_out()
    }

    fn place(&self, i: usize) -> String {
        self.set.place(self.images[i])
    }

    fn file(&self, i: usize) -> Option<PathBuf> {
        self.set.file(self.images[i])
    }

    fn image_name(&self, i: usize) -> String {
        self.set.image_name(self.images[i])
    }

    fn image(&self, i: usize) -> Result<Image> {
        self.set.image(self.images[i])
    }
}
