//! The rows of one shard: decoding, transforming, and the network.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};

use super::ExtractConfig;
use crate::backbone::{Network, Pooled};
use crate::views::seen;
use crate::{ImageDataset, Transform};
use heat_ood::features::{Origin, RowsFile, View, write_rows};
use heat_ood::io::sha256_of;
use heat_ood::math::parallel::{Indices, Pieces};
use heat_ood::math::{blocks, parallel};
use heat_ood::{Error, Result};
use heat_ood::{Event, Observer};

/// The rows of one shard.
#[derive(Default)]
pub(super) struct Rows {
    pub pooled: Pooled,
    pub labels: Vec<i64>,
    /// Numbers of the images that are these rows.
    pub images: Vec<usize>,
    /// Images left out, each with the reason.
    pub problems: Vec<String>,
    /// Of each image, SHA-256 of its size and pixels; none of those left out.
    pub digests: Vec<Option<String>>,
}

impl Rows {
    fn append(&mut self, done: Done) {
        self.pooled.append(done.pooled);
        self.labels.extend(done.labels);
        self.images.extend(done.images);
        self.problems.extend(done.problems);
        self.digests.extend(done.digests);
    }

    /// Write them; the number of values that became 0 in the type of the features.
    pub fn write(
        self,
        path: &Path,
        dataset: &dyn ImageDataset,
        labelled: bool,
        config: &ExtractConfig,
        origin: &Origin,
    ) -> Result<u64> {
        let names: Vec<String> = self.images.iter().map(|i| name(dataset.image_name(*i))).collect();
        let rows = self.pooled.batch(self.labels.len())?;
        let file = RowsFile {
            labels: labelled.then_some(&self.labels[..]),
            classes: kept_classes(dataset),
            names: Some(&names),
            origin: Some(origin),
        };
        write_rows(path, &rows, &file, config.dtype)
    }
}

/// A batch ready for the network.
#[derive(Default)]
struct Ready {
    images: Vec<f32>,
    size: [usize; 2],
    labels: Vec<i64>,
    numbers: Vec<usize>,
    problems: Vec<String>,
    digests: Vec<Option<String>>,
}

/// A batch that has passed the network.
struct Done {
    pooled: Pooled,
    labels: Vec<i64>,
    images: Vec<usize>,
    problems: Vec<String>,
    digests: Vec<Option<String>>,
}

/// An image ready for the network, and the hash of its pixels.
pub(super) struct Prepared {
    size: [usize; 2],
    values: Vec<f32>,
    pub digest: String,
}

/// Where images come from and what is done to them.
pub(super) struct Source<'a> {
    pub dataset: &'a dyn ImageDataset,
    pub config: &'a ExtractConfig,
    /// Networks that work side by side.
    pub copies: usize,
}

/// Batches decoded before a device asks for them.
const AHEAD: usize = 2;

impl Source<'_> {
    /// Rows of one shard; `None` when a stop was asked for.
    ///
    /// Of several networks each works on a batch of its own, from decoding to features: nobody waits
    /// for another, and the batches are put in order here. For one network alone, on a device,
    /// all threads decode, some batches ahead of it.
    pub fn rows(
        &self,
        networks: &mut [Network],
        range: Range<usize>,
        observer: &mut dyn Observer,
    ) -> Result<Option<Rows>> {
        let mut all = Rows::default();
        let batches = blocks(range.len(), self.config.batch_size);
        let batches: Vec<_> = batches.map(|b| range.start + b.start..range.start + b.end).collect();
        let next = AtomicUsize::new(0);
        let whole = std::thread::scope(|scope| {
            let (send, receive) = channel();
            let (next, batches) = (&next, &batches[..]);
            for network in networks {
                let send = send.clone();
                if network.is_on_device() {
                    let (ahead, ready) = sync_channel(AHEAD);
                    scope.spawn(move || {
                        work(next, batches, |i, batch| {
                            ahead.send((i, self.prepare(batch))).is_ok()
                        });
                    });
                    scope.spawn(move || {
                        ready.into_iter().all(|(i, ready)| {
                            hand(&send, i, ready.and_then(|ready| self.features(network, ready)))
                        });
                    });
                } else {
                    scope.spawn(move || {
                        work(next, batches, |i, batch| {
                            let ready = self.prepare(batch);
                            hand(&send, i, ready.and_then(|ready| self.features(network, ready)))
                        });
                    });
                }
            }
            drop(send);
            // Those that were faster than the ones before them.
            let mut early = BTreeMap::new();
            let mut due = 0;
            for (i, done) in receive {
                early.insert(i, done);
                while let Some(done) = early.remove(&due) {
                    all.append(done?);
                    observer.on(Event::Advance { done: batches[due].end as u64, loss: None });
                    due += 1;
                    if observer.should_stop() {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        })?;
        Ok(whole.then_some(all))
    }

    /// From some images to their features.
    fn features(&self, network: &mut Network, mut ready: Ready) -> Result<Done> {
        let n = ready.labels.len();
        let mut pooled = Pooled::default();
        if n > 0 {
            let shape = [n, 3, ready.size[0], ready.size[1]];
            let perturbed = |network: &mut Network, mut images: Vec<f32>| {
                if let Some(perturbation) = &self.config.perturb {
                    perturbation.apply(network, &mut images, shape)?;
                }
                Ok::<_, Error>(images)
            };
            let run = |network: &mut Network, images: Vec<f32>| {
                let images = perturbed(network, images)?;
                network.run(images, shape)
            };
            // Views are made of the images, which the network takes.
            let images = match self.config.views.is_empty() {
                true => std::mem::take(&mut ready.images),
                false => ready.images.clone(),
            };
            pooled = run(network, images)?;
            for view in &self.config.views {
                let features = if let View::Dropout(passes) = view {
                    let images = perturbed(network, ready.images.clone())?;
                    network.dropped(&images, shape, *passes)?
                } else {
                    Pooled::mean(view.passes(), |pass| {
                        let (images, logits) = (&ready.images, &pooled.logits);
                        let moved = |percent| network.nudged(images, logits, shape, percent);
                        let transform = &self.config.transform;
                        let images = seen(*view, pass, images, shape, transform, moved)?;
                        run(network, images)
                    })?
                };
                pooled.views.push((view.part()?, features));
            }
        }
        let Ready { labels, numbers, problems, digests, .. } = ready;
        Ok(Done { pooled, labels, images: numbers, problems, digests })
    }

    /// Decode and transform some images: here, or, where there are more
    /// threads than networks, on all of them.
    fn prepare(&self, range: Range<usize>) -> Result<Ready> {
        let made: Vec<Result<Prepared>> = if parallel::threads() > self.copies {
            let images = range.clone().into_par_iter();
            images.collect_with(|| None, |transform, i| self.image(transform, i))
        } else {
            let mut transform = None;
            range.clone().map(|i| self.image(&mut transform, i)).collect()
        };
        let mut ready = Ready::default();
        for (i, made) in range.zip(made) {
            let image = match made {
                Ok(image) => image,
                Err(error) if self.config.skip_unreadable => {
                    ready.problems.push(error.to_string().replace('\n', " "));
                    ready.digests.push(None);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if ready.labels.is_empty() {
                ready.size = image.size;
            }
            if ready.size != image.size {
                return Err(Error::Shape {
                    place: self.dataset.place(i),
                    tensor: "image".into(),
                    expected: format!("{:?} as the others; resize or crop them", ready.size),
                    got: format!("{:?}", image.size),
                });
            }
            ready.images.extend(image.values);
            ready.digests.push(Some(image.digest));
            ready.numbers.push(i);
            ready.labels.push(self.dataset.label(i).map_or(-1, i64::from));
        }
        Ok(ready)
    }

    /// The first of some images that can be read, as the network gets it, with its
    /// height and width.
    pub fn first(&self, images: Range<usize>) -> Result<Option<(Vec<f32>, [usize; 2])>> {
        let mut transform = None;
        for i in images {
            match self.image(&mut transform, i) {
                Ok(image) => return Ok(Some((image.values, image.size))),
                Err(_) if self.config.skip_unreadable => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Image `i`, decoded and transformed.
    pub fn image(&self, transform: &mut Option<Transform>, i: usize) -> Result<Prepared> {
        let transform = match transform {
            Some(transform) => transform,
            none => none.insert(Transform::new(&self.config.transform)?),
        };
        let image = self.dataset.image(i)?;
        let sides = [image.height, image.width].map(|side| (side as u64).to_le_bytes());
        let digest = sha256_of([&sides[0][..], &sides[1], &image.rgb]);
        let (height, width, values) = match self.dataset.made() {
            // Of images as the network gets them.
            Some(_) => transform.normalised(&image),
            None => transform.apply(&image)?,
        };
        Ok(Prepared { size: [height, width], values, digest })
    }
}

/// Names of the classes that go into each shard: not those of a set where every image seems to
/// have a class of its own.
fn kept_classes(dataset: &dyn ImageDataset) -> &[String] {
    const MOST: usize = 1 << 20;
    let classes = dataset.classes();
    let bytes: usize = classes.iter().map(|name| name.len() + 3).sum();
    if bytes > MOST { &[] } else { classes }
}

/// A name as a feature set can hold it.
pub(super) fn name(mut file: String) -> String {
    const LONGEST: usize = 4096;
    if file.contains('\0') {
        file = file.replace('\0', "\u{fffd}");
    }
    if file.len() > LONGEST {
        let mut end = LONGEST;
        while !file.is_char_boundary(end) {
            end -= 1;
        }
        file.truncate(end);
    }
    file
}

/// Take the next batch and its number to `with`, until there is none or that says that it is enough.
fn work(
    next: &AtomicUsize,
    batches: &[Range<usize>],
    mut with: impl FnMut(usize, Range<usize>) -> bool,
) {
    loop {
        let i = next.fetch_add(1, Ordering::Relaxed);
        match batches.get(i) {
            Some(batch) if with(i, batch.clone()) => {}
            _ => break,
        }
    }
}

/// Hand a batch on; whether to go on. Where the other end has gone, it has met an error.
fn hand(send: &Sender<(usize, Result<Done>)>, i: usize, done: Result<Done>) -> bool {
    let failed = done.is_err();
    send.send((i, done)).is_ok() && !failed
}
