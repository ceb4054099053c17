//! Images through a network into a feature set.
//!
//! Up to four copies of the network work side by side, each decoding,
//! transforming and running batches of its own; one batch a copy and the
//! features of one shard are in memory. On a device there is one network, for
//! which all threads decode. Shards are written as they are
//! finished, in the directory's temporary name: a killed extraction goes on after
//! the last whole one, where the images are still the same.

mod manifest;
mod record;
mod rows;
mod stream;
mod unfinished;

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use super::{Backbone, Checked, Perturbation};
use crate::{ImageDataset, Transform, TransformConfig};
use heat_ood::evaluate::Agreement;
use heat_ood::features::{FeatureSet, FloatType, HEAD, Origin, View};
use heat_ood::io::{found, read_text, write_own};
use heat_ood::math::blocks;
use heat_ood::{Error, Result};
use heat_ood::{Event, Observer};

use manifest::{Manifest, Summary};
pub use record::images_of_rows;
use record::{Files, Record, Stamp, Standing};
use rows::{Rows, Source};
pub use stream::{Live, Part, stream};
use unfinished::Unfinished;

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
    /// Take those of these views of each image too.
    pub views: BTreeSet<View>,
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
            views: BTreeSet::new(),
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
/// What an earlier run left, finished or not, is taken over where it holds: shards whose bytes are
/// those that were written, of images that are the same. Others are extracted again, and `out` is
/// replaced when all is done.
///
/// # Errors
/// If `out` exists and is not of this run, or was begun with other settings, another process is
/// extracting there, an image cannot be read (without `skip_unreadable`), the network refuses the
/// images, or a write fails. Finished shards are kept: run it again to go on.
pub fn extract(
    dataset: &dyn ImageDataset,
    backbone: &Backbone,
    out: &Path,
    config: &ExtractConfig,
    observer: &mut dyn Observer,
) -> Result<Extracted> {
    check(config, backbone)?;
    let manifest = Manifest::new(dataset, backbone, config)?;
    check_place(out, &manifest)?;
    let run = Run {
        source: Source { dataset, config, copies: backbone.copies() },
        backbone,
        manifest,
        stamps: record::stamps(dataset),
        shards: blocks(dataset.len(), config.shard_rows).collect(),
        out,
    };
    let mut earlier = Earlier::default();
    if out.exists() {
        let standing = run.earlier(out, observer, &mut earlier)?;
        if standing.iter().all(Option::is_some) && run.manifest.head_is_there(out) {
            return run.finished(standing.into_iter().flatten().collect());
        }
    }
    let unfinished = Unfinished::begin(out, &run.manifest)?;
    let done = run.fill(&unfinished, earlier, observer);
    if let Err(error) = &done
        && !matches!(error, Error::Interrupted { .. })
    {
        unfinished.remove_if_empty();
    }
    done
}

/// Refuse a place that exists and is not of this run.
fn check_place(out: &Path, manifest: &Manifest) -> Result<()> {
    if found(out)?.is_none() {
        return Ok(());
    }
    let refuse = |problem: String| Err(Error::config("output", out.display(), problem));
    if let Some(difference) = manifest.difference(out) {
        return refuse(format!(
            "exists, and not as made of these images with this network and these settings: \
             {difference}; choose another name, or remove it"
        ));
    }
    Ok(())
}

/// What was found of an earlier run.
#[derive(Default)]
struct Earlier {
    /// Shards that hold in a finished directory that does not hold as a whole.
    finished: Vec<usize>,
    /// The first image of each shard that has changed.
    changed: Vec<String>,
    /// Files that are not as they were written.
    damaged: Vec<String>,
}

/// An extraction on its way.
struct Run<'a> {
    source: Source<'a>,
    backbone: &'a Backbone,
    manifest: Manifest,
    stamps: Vec<Option<Stamp>>,
    shards: Vec<Range<usize>>,
    out: &'a Path,
}

impl Run<'_> {
    /// The shards in the finished directory, where they hold.
    fn earlier(
        &self,
        out: &Path,
        observer: &mut dyn Observer,
        earlier: &mut Earlier,
    ) -> Result<Vec<Option<Record>>> {
        let name = self.source.dataset.name();
        let (task, total) = (format!("check {name}"), self.source.dataset.len() as u64);
        observer.on(Event::Begin { task: &task, total });
        let mut found = Vec::new();
        for i in 0..self.shards.len() {
            found.push(self.standing(out, i, earlier));
            if found[i].is_some() {
                earlier.finished.push(i);
            }
            observer.on(Event::Advance { done: self.shards[i].end as u64, loss: None });
            if observer.should_stop() {
                return Err(Error::Interrupted { place: out.to_owned() });
            }
        }
        observer.on(Event::End);
        Ok(found)
    }

    /// The record of shard `i` in `directory`, if it holds.
    fn standing(&self, directory: &Path, i: usize, earlier: &mut Earlier) -> Option<Record> {
        let files = Files::new(directory, i);
        match Record::of_earlier(&files, self.shards[i].clone(), &self.stamps, &self.source) {
            Standing::Whole(record) => return Some(record),
            Standing::Changed(place) => earlier.changed.push(place),
            Standing::Damaged => earlier.damaged.push(files.shard.display().to_string()),
            Standing::Absent if directory == self.out => {
                earlier.damaged.push(files.shard.display().to_string());
            }
            Standing::Absent => {}
        }
        None
    }

    fn fill(
        &self,
        unfinished: &Unfinished,
        mut earlier: Earlier,
        observer: &mut dyn Observer,
    ) -> Result<Extracted> {
        let (source, backbone, manifest) = (&self.source, self.backbone, &self.manifest);
        let (dataset, config) = (source.dataset, source.config);
        let origin = manifest.origin(backbone);
        // All rows have labels, or none has, whatever the shard.
        let labelled = (0..dataset.len()).all(|i| dataset.label(i).is_some());
        let (mut done, mut lost) = (Extracted::default(), 0);
        let mut loaded = vec![backbone.load_for(config.batch_size)?];
        let first = source.first(0..source.dataset.len())?;
        let checked = match &first {
            Some((image, size)) => loaded[0].check_on(image, *size)?,
            None => Checked::default(),
        };
        for note in backbone.notes_of(&checked) {
            observer.on(Event::Note(&note));
        }
        let task = format!("extract {}", dataset.name());
        observer.on(Event::Begin { task: &task, total: dataset.len() as u64 });
        let mut pixels = Vec::new();
        for (i, range) in self.shards.iter().enumerate() {
            let files = Files::new(&unfinished.path, i);
            let mut record = self.standing(&unfinished.path, i, &mut earlier);
            if record.is_none() && earlier.finished.contains(&i) {
                Files::new(self.out, i).link_to(&files)?;
                record = self.standing(&unfinished.path, i, &mut earlier);
            }
            let record = match record {
                Some(record) => {
                    done.resumed += range.len();
                    record
                }
                None => {
                    let batches = range.len().div_ceil(config.batch_size);
                    while loaded.len() < source.copies.min(batches) {
                        let mut network = backbone.load_for(config.batch_size)?;
                        first.iter().for_each(|(_, size)| network.assume(*size, &checked));
                        loaded.push(network);
                    }
                    let Some(rows) = source.rows(&mut loaded, range.clone(), observer)? else {
                        return Err(Error::Interrupted { place: unfinished.path.clone() });
                    };
                    let (record, zeros) =
                        self.write(&files, range.clone(), rows, labelled, &origin)?;
                    lost += zeros;
                    record
                }
            };
            pixels.push(record.pixels);
            if files.unreadable.is_file() {
                done.unreadable.extend(lines(&files.unreadable)?);
            }
            observer.on(Event::Advance { done: range.end as u64, loss: None });
            if observer.should_stop() && i + 1 < self.shards.len() {
                return Err(Error::Interrupted { place: unfinished.path.clone() });
            }
        }
        observer.on(Event::End);
        earlier.say(observer);
        if lost > 0 {
            let narrow = format!("{:?}", config.dtype).to_lowercase();
            let problem = format!("{lost} values became 0 as {narrow}, which f32 would keep");
            observer.on(Event::Warning(&problem));
        }
        done.rows = dataset.len() - done.unreadable.len();
        if done.rows == 0 {
            return Err(Error::format(dataset.name(), "none of its images can be read"));
        }
        let head = backbone.head().filter(|_| checked.headless.is_none());
        if let Some(head) = head {
            head.save(unfinished.path.join(HEAD))?;
        }
        let summary = Summary::new(dataset, done.unreadable.len(), head);
        manifest.clone().finish(&unfinished.path, &pixels, summary)?;
        unfinished.place(self.out)?;
        done.agreement = Agreement::of_all(&FeatureSet::open(self.out)?, None)?;
        Ok(done)
    }

    /// Write a shard, the list of what is left out, and last the record: what has one is complete.
    fn write(
        &self,
        files: &Files,
        range: Range<usize>,
        rows: Rows,
        labelled: bool,
        origin: &Origin,
    ) -> Result<(Record, u64)> {
        if rows.problems.is_empty() {
            remove(&files.unreadable)?;
        } else {
            let text = rows.problems.join("\n");
            write_own(&files.unreadable, |to| to.write_all(text.as_bytes()))?;
        }
        let (digests, mut lost) = (rows.digests.clone(), 0);
        if rows.labels.is_empty() {
            remove(&files.shard)?;
        } else {
            lost = rows.write(
                &files.shard,
                self.source.dataset,
                labelled,
                self.source.config,
                origin,
            )?;
        }
        let record = Record::new(files, &self.stamps[range], &digests);
        record.write(files)?;
        Ok((record, lost))
    }

    /// What is in `out`, where the same run was ended after its last step.
    fn finished(&self, records: Vec<Record>) -> Result<Extracted> {
        let images = self.source.dataset.len();
        let mut done = Extracted { resumed: images, ..Extracted::default() };
        for i in 0..records.len() {
            let list = Files::new(self.out, i).unreadable;
            if list.is_file() {
                done.unreadable.extend(lines(&list)?);
            }
        }
        done.rows = images.saturating_sub(done.unreadable.len());
        done.agreement = Agreement::of_all(&FeatureSet::open(self.out)?, None)?;
        Ok(done)
    }
}

impl Earlier {
    fn say(&self, observer: &mut dyn Observer) {
        let shards = |n: usize| if n == 1 { "1 shard".into() } else { format!("{n} shards") };
        for (names, what) in [
            (&self.changed, "images have changed since they were extracted"),
            (&self.damaged, "files are missing, damaged or without a record of their images"),
        ] {
            if let Some(first) = names.first() {
                let n = shards(names.len());
                observer.on(Event::Note(&format!("{what} (first {first}): {n} extracted again")));
            }
        }
    }
}

fn remove(file: &Path) -> Result<()> {
    if file.exists() { fs::remove_file(file).map_err(Error::io("remove", file)) } else { Ok(()) }
}

fn check(config: &ExtractConfig, backbone: &Backbone) -> Result<()> {
    for (key, value) in [("batch_size", config.batch_size), ("shard_rows", config.shard_rows)] {
        if !(1..=1 << 20).contains(&value) {
            return Err(Error::config(key, value, "expected 1 to 1048576 images"));
        }
    }
    backbone.check_views(&config.views)?;
    Transform::new(&config.transform).map(drop)
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let text = read_text(path)?;
    Ok(text.lines().map(str::to_owned).collect())
}
