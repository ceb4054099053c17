//! Images through a network, some at a time, without a file.

use std::ops::Range;

use super::rows::{Source, name};
use super::{Backbone, Checked, ExtractConfig, check, networks};
use crate::ImageDataset;
use heat_ood::features::{FeatureSet, RowsFile, encode_rows};
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
    check(config)?;
    let config = &ExtractConfig { skip_unreadable: true, ..config.clone() };
    let source = Source { dataset, config };
    let origin = backbone.origin(&config.transform);
    let mut loaded = vec![backbone.load()?];
    let first = source.first()?;
    let Some((image, size)) = &first else {
        return Err(Error::format(dataset.name(), "none of its images can be read"));
    };
    let checked: Checked = loaded[0].check_on(image, *size)?;
    for note in backbone.notes_of(&checked) {
        observer.on(Event::Note(&note));
    }
    let task = format!("score {}", dataset.name());
    observer.on(Event::Begin { task: &task, total: dataset.len() as u64 });
    for images in blocks(dataset.len(), config.shard_rows) {
        let batches = images.len().div_ceil(config.batch_size);
        while loaded.len() < networks().min(batches) {
            let mut network = backbone.load()?;
            network.assume(*size, &checked);
            loaded.push(network);
        }
        let Some(rows) = source.rows(&mut loaded, images.clone(), observer)? else {
            return Ok(false);
        };
        let lost = images.clone().filter(|i| rows.images.binary_search(i).is_err());
        let unreadable = lost.zip(rows.problems).collect();
        let names: Vec<String> = rows.images.iter().map(|i| name(dataset.image_name(*i))).collect();
        let set = match names.len() {
            0 => None,
            n => {
                let file =
                    RowsFile { names: Some(&names), origin: Some(&origin), ..RowsFile::default() };
                let bytes =
                    encode_rows(dataset.name(), &rows.pooled.batch(n)?, &file, config.dtype)?;
                Some(FeatureSet::from_safetensors(dataset.name(), bytes)?)
            }
        };
        if !take(Part { images, rows: set, unreadable })? {
            return Ok(false);
        }
    }
    observer.on(Event::End);
    Ok(true)
}
