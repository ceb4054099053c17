//! The images that surrogates are made of: which of a data set, and of which class each is taken to
//! be.

use std::ops::Range;

use crate::{Excluded, ImageDataset, MadeOf, MixedClasses};
use heat_ood::io::sha256_of;
use heat_ood::math::rng::Stream;
use heat_ood::{Error, Result};

/// Images of a data set that surrogates are made of.
pub struct Sources<'a> {
    dataset: &'a dyn ImageDataset,
    images: Vec<usize>,
    /// Positions in `images`, class by class.
    by_class: Vec<u32>,
    /// For each image, where its class lies there.
    class: Vec<Range<u32>>,
    record: MadeOf,
}

impl<'a> Sources<'a> {
    /// The images of `dataset` with these numbers. Classes are its labels; where not all of these have
    /// one, or all have the same, `predicted` (of each of `images`); where that says nothing either, every
    /// image counts as a class of its own. `excluded` is kept for the record.
    ///
    /// # Errors
    /// If there is no image, more than 2³² − 1, or not as many predictions.
    pub fn new(
        dataset: &'a dyn ImageDataset,
        images: Vec<usize>,
        predicted: Option<&[u32]>,
        excluded: Vec<Excluded>,
    ) -> Result<Self> {
        if images.is_empty() {
            let remedy = "give other images, or leave out fewer sets";
            return Err(Error::missing(dataset.name(), "image left to make surrogates of", remedy));
        }
        if u32::try_from(images.len()).is_err() {
            let problem = "surrogates are made of at most 4294967295 images";
            return Err(Error::format(dataset.name(), problem));
        }
        if let Some(predicted) = predicted.filter(|predicted| predicted.len() != images.len()) {
            let problem = format!("{} predictions for {} images", predicted.len(), images.len());
            return Err(Error::format(dataset.name(), problem));
        }
        let tells = |classes: &[u32]| classes.iter().any(|class| *class != classes[0]);
        let labels: Option<Vec<u32>> = images.iter().map(|i| dataset.label(*i)).collect();
        let (classes, by) = match (labels.filter(|l| tells(l)), predicted.filter(|p| tells(p))) {
            (Some(labels), _) => (labels, MixedClasses::Labels),
            (None, Some(predicted)) => (predicted.to_vec(), MixedClasses::Predicted),
            (None, None) => ((0..images.len() as u32).collect(), MixedClasses::None),
        };
        let mut by_class: Vec<u32> = (0..images.len() as u32).collect();
        by_class.sort_by_key(|image| classes[*image as usize]);
        let mut class = vec![0..0; images.len()];
        let mut start = 0;
        for same in by_class.chunk_by(|a, b| classes[*a as usize] == classes[*b as usize]) {
            let range = start..start + same.len() as u32;
            same.iter().for_each(|image| class[*image as usize] = range.clone());
            start = range.end;
        }
        let record = MadeOf {
            dataset: dataset.name().to_owned(),
            images: dataset.len(),
            used: images.len(),
            used_sha256: sha256_of(images.iter().map(|i| (*i as u64).to_le_bytes())),
            excluded,
            classes: by,
        };
        Ok(Sources { dataset, images, by_class, class, record })
    }

    /// The data set.
    pub fn dataset(&self) -> &dyn ImageDataset {
        self.dataset
    }

    /// The numbers of its images.
    pub fn images(&self) -> &[usize] {
        &self.images
    }

    /// What is written of them.
    pub fn record(&self) -> &MadeOf {
        &self.record
    }

    /// The position of any image of another class than that at `position`: there is one if there are
    /// two images.
    pub(super) fn of_another_class(&self, position: usize, stream: &mut Stream) -> usize {
        let own = &self.class[position];
        let others = self.images.len() as u32 - (own.end - own.start);
        let at = stream.below(others);
        let at = if at < own.start { at } else { at + (own.end - own.start) };
        self.by_class[at as usize] as usize
    }
}
