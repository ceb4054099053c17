//! Images through a network, some at a time, without a file.

use std::ops::Range;

use super::rows::{Source, name};
use super::{Backbone, Checked, ExtractConfig, check};
use crate::ImageDataset;
use crate::backbone::Network;
use heat_ood::features::{FeatureSet, Origin, RowsFile, encode_rows};
use heat_ood::math::blocks;
use heat_ood::{Error, Event, Observer, Result};

/// Some images of a set, in their order.
pub struct Part {
    /// Which.
    pub images: Range<usize>,
    /// The rows of those that could be read: the same, to the bit, as those of a set that was
    /// extracted with these settings. `None` where none could.
    pub rows: Option<FeatureSet>,
    /// Images that could not be read, ascending, each with the reason.
    pub unreadable: Vec<(usize, String)>,
}

/// A network that is kept loaded, for images that come one after the other.
pub struct Live<'a> {
    backbone: &'a Backbone,
    config: ExtractConfig,
    origin: Origin,
    networks: Vec<Network>,
    /// What was found of it on the first images.
    known: Option<([usize; 2], Checked)>,
}

impl<'a> Live<'a> {
    /// Load the network. Images that cannot be read are told with the others.
    ///
    /// # Errors
    /// If a setting is out of range, no ONNX Runtime is found, or it refuses the network.
    pub fn new(backbone: &'a Backbone, config: &ExtractConfig) -> Result<Self> {
        check(config, backbone)?;
        let config = ExtractConfig { skip_unreadable: true, ..config.clone() };
        let origin = backbone.origin(&config.transform);
        let networks = vec![backbone.load_for(config.batch_size)?];
        Ok(Live { backbone, config, origin, networks, known: None })
    }

    /// Look once at what the network makes of the first image that can be read; whether there was one.
    fn look(
        &mut self,
        dataset: &dyn ImageDataset,
        images: Range<usize>,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let source = Source { dataset, config: &self.config, copies: self.backbone.copies() };
        if self.known.is_none()
            && let Some((image, size)) = source.first(images)?
        {
            let checked = self.networks[0].check_on(&image, size)?;
            for note in self.backbone.notes_of(&checked) {
                observer.on(Event::Note(&note));
            }
            self.known = Some((size, checked));
        }
        Ok(self.known.is_some())
    }

    /// The rows of some images of a set; `None` when a stop was asked for.
    ///
    /// # Errors
    /// If the network refuses them.
    pub fn rows(
        &mut self,
        dataset: &dyn ImageDataset,
        images: Range<usize>,
        observer: &mut dyn Observer,
    ) -> Result<Option<Part>> {
        self.look(dataset, images.clone(), observer)?;
        if let Some((size, checked)) = &self.known {
            let batches = images.len().div_ceil(self.config.batch_size);
            while self.networks.len() < self.backbone.copies().min(batches) {
                let mut network = self.backbone.load_for(self.config.batch_size)?;
                network.assume(*size, checked);
                self.networks.push(network);
            }
        }
        let source = Source { dataset, config: &self.config, copies: self.backbone.copies() };
        let Some(rows) = source.rows(&mut self.networks, images.clone(), observer)? else {
            return Ok(None);
        };
        let lost = images.clone().filter(|i| rows.images.binary_search(i).is_err());
        let unreadable = lost.zip(rows.problems).collect();
        let names: Vec<String> = rows.images.iter().map(|i| name(dataset.image_name(*i))).collect();
        let set = match names.len() {
            0 => None,
            n => {
                let names = Some(&names[..]);
                let file = RowsFile { names, origin: Some(&self.origin), ..RowsFile::default() };
                let batch = rows.pooled.batch(n)?;
                let bytes = encode_rows(dataset.name(), &batch, &file, self.config.dtype)?;
                Some(FeatureSet::from_safetensors(dataset.name(), bytes)?)
            }
        };
        Ok(Some(Part { images, rows: set, unreadable }))
    }
}

/// Give `take` the features of all images, `config.shard_rows` at a time, until it says that this
/// is enough or a stop is asked for; whether all were given. Images that cannot be read are told
/// with the others.
///
/// # Errors
/// If none of the images can be read, the network refuses them, or `take` fails.
pub fn stream(
    dataset: &dyn ImageDataset,
    backbone: &Backbone,
    config: &ExtractConfig,
    observer: &mut dyn Observer,
    take: &mut dyn FnMut(Part) -> Result<bool>,
) -> Result<bool> {
    let mut live = Live::new(backbone, config)?;
    if !live.look(dataset, 0..dataset.len(), observer)? {
        return Err(Error::format(dataset.name(), "none of its images can be read"));
    }
    let task = format!("score {}", dataset.name());
    observer.on(Event::Begin { task: &task, total: dataset.len() as u64 });
    for images in blocks(dataset.len(), config.shard_rows) {
        let Some(part) = live.rows(dataset, images, observer)? else {
            return Ok(false);
        };
        if !take(part)? {
            return Ok(false);
        }
    }
    observer.on(Event::End);
    Ok(true)
}
