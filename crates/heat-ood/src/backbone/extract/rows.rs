//! The rows of one shard: decoding and transforming beside the network.

use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;

use super::ExtractConfig;
use crate::backbone::{Network, Pooled};
use crate::error::{Error, Result};
use crate::features::{
    ConvertConfig, FeatureSet, Form, Tensor, convert, encode_tensors, sha256_of,
};
use crate::images::{ImageDataset, Transform};
use crate::math::{blocks, parallel};
use crate::observe::{Event, Observer, Silent};

/// The rows of one shard.
#[derive(Default)]
pub(super) struct Rows {
    pooled: Pooled,
    pub labels: Vec<i64>,
    /// Pictures left out, each with the reason.
    pub problems: Vec<String>,
    /// SHA-256 of the pictures' sizes and pixels.
    pub digest: String,
}

impl Rows {
    /// Give a batch to the network.
    fn add(
        &mut self,
        mut ready: Ready,
        network: &mut Network,
        config: &ExtractConfig,
    ) -> Result<()> {
        let n = ready.labels.len();
        if n == 0 {
            return Ok(());
        }
        let shape = [n, 3, ready.size[0], ready.size[1]];
        if let Some(perturbation) = &config.perturb {
            perturbation.apply(network, &mut ready.pictures, shape)?;
        }
        let pooled = network.run(ready.pictures, shape)?;
        self.pooled.avg.extend(pooled.avg);
        self.pooled.std.extend(pooled.std);
        self.pooled.max.extend(pooled.max);
        self.pooled.logits.extend(pooled.logits);
        self.labels.extend(ready.labels);
        Ok(())
    }

    pub fn write(self, path: &Path, config: &ExtractConfig) -> Result<()> {
        let n = self.labels.len();
        let matrix = |values: Vec<f32>| Tensor::f32([n, values.len() / n], values);
        let all = [
            ("avg", self.pooled.avg),
            ("std", self.pooled.std),
            ("max", self.pooled.max),
            ("logits", self.pooled.logits),
        ];
        let there = all.into_iter().filter(|(_, v)| !v.is_empty());
        let mut tensors: Vec<(String, Tensor)> =
            there.map(|(name, values)| (name.to_owned(), matrix(values))).collect();
        if self.labels.iter().all(|l| *l >= 0) {
            tensors.push(("label".into(), Tensor::i64([n], self.labels)));
        }
        let place = path.display().to_string();
        let set = FeatureSet::from_safetensors(&place, encode_tensors(&tensors)?)?;
        let to = ConvertConfig {
            form: Some(Form::Safetensors),
            dtype: Some(config.dtype),
            force: true,
            ..ConvertConfig::default()
        };
        convert(&set, None, path, &to, &mut Silent).map(drop)
    }
}

/// A batch ready for the network.
struct Ready {
    end: usize,
    pictures: Vec<f32>,
    size: [usize; 2],
    labels: Vec<i64>,
    problems: Vec<String>,
    digests: Vec<String>,
}

/// A picture ready for the network, and the hash of its pixels.
struct Picture {
    size: [usize; 2],
    values: Vec<f32>,
    digest: String,
}

/// Where pictures come from and what is done to them.
pub(super) struct Source<'a> {
    pub dataset: &'a dyn ImageDataset,
    pub config: &'a ExtractConfig,
}

impl Source<'_> {
    /// Rows of one shard; `None` when a stop was asked for.
    pub fn rows(
        &self,
        network: &mut Network,
        range: Range<usize>,
        observer: &mut dyn Observer,
    ) -> Result<Option<Rows>> {
        let (mut all, mut digests) = (Rows::default(), Vec::new());
        let whole = std::thread::scope(|scope| {
            let (send, receive) = sync_channel::<Result<Ready>>(1);
            let batches = range.clone();
            scope.spawn(move || {
                for batch in blocks(batches.len(), self.config.batch_size) {
                    let batch = batches.start + batch.start..batches.start + batch.end;
                    let ready = self.prepare(batch);
                    let failed = ready.is_err();
                    // The other end has gone: it has met an error.
                    if send.send(ready).is_err() || failed {
                        break;
                    }
                }
            });
            for ready in receive {
                let mut ready = ready?;
                all.problems.append(&mut ready.problems);
                digests.append(&mut ready.digests);
                let end = ready.end;
                all.add(ready, network, self.config)?;
                observer.on(Event::Advance { done: end as u64, loss: None });
                if observer.should_stop() {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        all.digest = sha256_of(digests);
        Ok(whole.then_some(all))
    }

    /// Decode and transform some pictures on all threads.
    fn prepare(&self, range: Range<usize>) -> Result<Ready> {
        let made: Vec<Result<Picture>> = parallel::run(|| {
            let pictures = range.clone().into_par_iter();
            pictures.map_init(|| None, |transform, i| self.picture(transform, i)).collect()
        });
        let mut ready = Ready {
            end: range.end,
            pictures: Vec::new(),
            size: [0, 0],
            labels: Vec::new(),
            problems: Vec::new(),
            digests: Vec::new(),
        };
        for (i, made) in range.zip(made) {
            let picture = match made {
                Ok(picture) => picture,
                Err(error) if self.config.skip_unreadable => {
                    ready.problems.push(error.to_string().replace('\n', " "));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if ready.labels.is_empty() {
                ready.size = picture.size;
            }
            if ready.size != picture.size {
                return Err(Error::Shape {
                    place: self.dataset.place(i),
                    tensor: "picture".into(),
                    expected: format!("{:?} as the others; resize or crop them", ready.size),
                    got: format!("{:?}", picture.size),
                });
            }
            ready.pictures.extend(picture.values);
            ready.digests.push(picture.digest);
            ready.labels.push(self.dataset.label(i).map_or(-1, i64::from));
        }
        Ok(ready)
    }

    fn picture(&self, transform: &mut Option<Transform>, i: usize) -> Result<Picture> {
        let transform = match transform {
            Some(transform) => transform,
            none => none.insert(Transform::new(&self.config.transform)?),
        };
        let image = self.dataset.image(i)?;
        let sides = [image.height, image.width].map(|side| (side as u64).to_le_bytes());
        let digest = sha256_of([&sides[0][..], &sides[1], &image.rgb]);
        let (height, width, values) = transform.apply(&image)?;
        Ok(Picture { size: [height, width], values, digest })
    }
}
