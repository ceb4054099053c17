//! Images through a network into a feature set.
//!
//! Up to four copies of the network work side by side, each decoding,
//! transforming and running batches of its own; one batch a copy and the
//! features of one shard are in memory. Shards are written as they are
//! finished, in the directory's temporary name: a killed extraction goes on after
//! the last whole one.

mod manifest;
mod rows;

use std::fs;
use std::path::Path;

use super::{Backbone, Checked, Perturbation, networks};
use crate::{ImageDataset, Transform, TransformConfig};
use heat_ood::evaluate::Agreement;
use heat_ood::features::{FeatureSet, FloatType, HEAD};
use heat_ood::io::{read_text, write_atomically};
use heat_ood::math::blocks;
use heat_ood::{Error, Result};
use heat_ood::{Event, Observer};

use manifest::{Manifest, Summary, digest_file};
use rows::Source;

/// How to extract.
#[derive(Clone)]
pub struct ExtractConfig {
    /// From images to the network's input.
    pub transform: TransformConfig,
    /// Images that the network is given at a time.
    pub batch_size: usize,
    /// Images of a shard.
    pub shard_rows: usize,
    /// Leave out images that cannot be read, and list them, instead of
    /// stopping at the first.
    pub skip_unreadable: bool,
    /// Type of the written features.
    pub dtype: FloatType,
    /// Move each image before its features are taken.
    pub perturb: Option<Perturbation>,
}

impl Default for ExtractConfig {
    fn default() -> Self {
        ExtractConfig {
            transform: TransformConfig::imagenet(),
            batch_size: 64,
            shard_rows: 8192,
            skip_unreadable: false,
            dtype: FloatType::F16,
            perturb: None,
        }
    }
}

/// What was extracted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extracted {
    /// Rows of the feature set.
    pub rows: usize,
    /// Images taken over from an extraction that was interrupted.
    pub resumed: usize,
    /// Images left out, each with the reason.
    pub unreadable: Vec<String>,
    /// How far the network's logits and the labels agree, where there are both: wrong weights,
    /// strides or preprocessing give features that look like any others.
    pub agreement: Option<Agreement>,
}

/// Extract `dataset` into the directory `out`, and the network's head into its `head.safetensors`.
///
/// # Errors
/// If `out` exists and is not of this run, was begun with other settings, a
/// image cannot be read (without `skip_unreadable`), the network refuses the
/// images, or a write fails. Finished shards are kept: run it again to go on.
pub fn extract(
    dataset: &dyn ImageDataset,
    backbone: &Backbone,
    out: &Path,
    config: &ExtractConfig,
    observer: &mut dyn Observer,
) -> Result<Extracted> {
    check(config)?;
    let manifest = Manifest::new(dataset, backbone, config)?;
    if manifest.describes(out) {
        return finished(out, dataset.len(), config);
    }
    if out.exists() {
        let problem = "exists, and not as made of these images with this network and these \
                       settings; choose another name, or remove it";
        return Err(Error::config("output", out.display(), problem));
    }
    let origin = manifest.origin(backbone);
    let unfinished = manifest.begin(out)?;
    // All rows have labels, or none has, whatever the shard.
    let labelled = (0..dataset.len()).all(|i| dataset.label(i).is_some());
    let source = Source { dataset, config };
    let mut loaded = Vec::new();
    let (mut done, mut lost) = (Extracted::default(), 0);
    let task = format!("extract {}", dataset.name());
    observer.on(Event::Begin { task: &task, total: dataset.len() as u64 });
    let shards: Vec<_> = blocks(dataset.len(), config.shard_rows).collect();
    loaded.push(backbone.load()?);
    let first = source.first()?;
    let checked = match &first {
        Some((image, size)) => loaded[0].check_on(image, *size)?,
        None => Checked::default(),
    };
    for note in backbone.notes_of(&checked) {
        observer.on(Event::Note(&note));
    }
    for (i, range) in shards.iter().enumerate() {
        let shard = unfinished.join(format!("shard-{i:05}.safetensors"));
        let list = unfinished.join(format!("unreadable-{i:05}.txt"));
        let digest = digest_file(&unfinished, i);
        if shard.is_file() || (list.is_file() && lines(&list)?.len() == range.len()) {
            done.resumed += range.len();
        } else {
            let batches = range.len().div_ceil(config.batch_size);
            while loaded.len() < networks().min(batches) {
                let mut network = backbone.load()?;
                first.iter().for_each(|(_, size)| network.assume(*size, &checked));
                loaded.push(network);
            }
            let Some(rows) = source.rows(&mut loaded, range.clone(), observer)? else {
                return Err(Error::Interrupted { place: unfinished });
            };
            write_atomically(&digest, |to| to.write_all(rows.digest.as_bytes()))?;
            // The lists first: a shard that is there is complete.
            if !rows.problems.is_empty() {
                let text = rows.problems.join("\n");
                write_atomically(&list, |to| to.write_all(text.as_bytes()))?;
            }
            if !rows.labels.is_empty() {
                lost += rows.write(&shard, labelled, config, &origin)?;
            }
        }
        if list.is_file() {
            done.unreadable.extend(lines(&list)?);
        }
        observer.on(Event::Advance { done: range.end as u64, loss: None });
    }
    observer.on(Event::End);
    if lost > 0 {
        let narrow = format!("{:?}", config.dtype).to_lowercase();
        let problem = format!("{lost} values became 0 as {narrow}, which f32 would keep");
        observer.on(Event::Warning(&problem));
    }
    done.rows = dataset.len() - done.unreadable.len();
    if done.rows == 0 {
        return Err(Error::format(dataset.name(), "none of its images can be read"));
    }
    if let Some(head) = backbone.head().filter(|_| checked.headless.is_none()) {
        head.save(unfinished.join(HEAD))?;
    }
    let summary = Summary::new(dataset, done.unreadable.len());
    manifest.finish(&unfinished, shards.len(), summary)?;
    for file in (0..shards.len()).map(|i| digest_file(&unfinished, i)).filter(|f| f.exists()) {
        fs::remove_file(&file).map_err(Error::io("remove", &file))?;
    }
    fs::rename(&unfinished, out).map_err(Error::io("rename", &unfinished))?;
    done.agreement = Agreement::of_all(&FeatureSet::open(out)?, None)?;
    Ok(done)
}

/// What is in `out`, where the same run was ended after its last step.
fn finished(out: &Path, images: usize, config: &ExtractConfig) -> Result<Extracted> {
    let mut done = Extracted { resumed: images, ..Extracted::default() };
    for i in 0..blocks(images, config.shard_rows).count() {
        let list = out.join(format!("unreadable-{i:05}.txt"));
        if list.is_file() {
            done.unreadable.extend(lines(&list)?);
        }
    }
    done.rows = images.saturating_sub(done.unreadable.len());
    done.agreement = Agreement::of_all(&FeatureSet::open(out)?, None)?;
    Ok(done)
}

fn check(config: &ExtractConfig) -> Result<()> {
    for (key, value) in [("batch_size", config.batch_size), ("shard_rows", config.shard_rows)] {
        if !(1..=1 << 20).contains(&value) {
            return Err(Error::config(key, value, "expected 1 to 1048576 images"));
        }
    }
    Transform::new(&config.transform).map(drop)
}

fn parent(out: &Path) -> &Path {
    match out.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let text = read_text(path)?;
    Ok(text.lines().map(str::to_owned).collect())
}
