//! Pictures through a network into a feature set.
//!
//! While the network runs on one batch, the next is decoded and transformed on
//! all threads; no more than two batches and one shard are in memory. Shards
//! are written as they are finished, in the folder's temporary name: a killed
//! extraction goes on after the last whole one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Backbone, Network, Pooled};
use crate::error::{Error, Result};
use crate::features::{
    ConvertConfig, FeatureSet, FloatType, Form, Tensor, convert, encode_tensors, save_tensors,
    sha256, write_atomically,
};
use crate::images::{ImageDataset, Transform, TransformConfig};
use crate::math::{blocks, parallel};
use crate::observe::{Event, Observer};

/// How to extract.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtractConfig {
    /// From pictures to the network's input.
    pub transform: TransformConfig,
    /// Pictures that the network is given at a time.
    pub batch_size: usize,
    /// Pictures of a shard.
    pub shard_rows: usize,
    /// Leave out pictures that cannot be read, and list them, instead of
    /// stopping at the first.
    pub skip_unreadable: bool,
    /// Type of the written features.
    pub dtype: FloatType,
}

impl Default for ExtractConfig {
    fn default() -> Self {
        ExtractConfig {
            transform: TransformConfig::imagenet(),
            batch_size: 64,
            shard_rows: 8192,
            skip_unreadable: false,
            dtype: FloatType::F16,
        }
    }
}

/// What was extracted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extracted {
    /// Rows of the feature set.
    pub rows: usize,
    /// Pictures taken over from an extraction that was interrupted.
    pub resumed: usize,
    /// Pictures left out, each with the reason.
    pub unreadable: Vec<String>,
}

/// What a folder was extracted from, kept beside its shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    backbone: String,
    backbone_sha256: String,
    tap: String,
    dataset: String,
    pictures: usize,
    /// SHA-256 of the names and labels of all pictures, in order.
    dataset_sha256: String,
    shard_rows: usize,
    skip_unreadable: bool,
    dtype: String,
    transform: TransformConfig,
    version: String,
}

const MANIFEST: &str = "extract.json";

/// Extract `dataset` into the folder `out`, and the head into
/// `head.safetensors` beside it.
///
/// # Errors
/// If `out` exists and is not of this run, was begun with other settings, a picture cannot be read
/// (without `skip_unreadable`), the network refuses the pictures, or a write
/// fails. Finished shards are kept: run it again to go on.
pub fn extract(
    dataset: &dyn ImageDataset,
    backbone: &Backbone,
    out: &Path,
    config: &ExtractConfig,
    observer: &mut dyn Observer,
) -> Result<Extracted> {
    check(config)?;
    let manifest = manifest(dataset, backbone, config)?;
    if let Some(done) = finished(out, &manifest)? {
        return Ok(done);
    }
    if out.exists() {
        let problem = "exists; choose another name or remove it";
        return Err(Error::config("output", out.display(), problem));
    }
    let unfinished = begin(out, &manifest)?;
    let mut network = None;
    let mut done = Extracted::default();
    let task = format!("extract {}", dataset.name());
    observer.on(Event::Begin { task: &task, total: dataset.len() as u64 });
    for (i, range) in blocks(dataset.len(), config.shard_rows).enumerate() {
        let shard = unfinished.join(format!("shard-{i:05}.safetensors"));
        let list = unfinished.join(format!("unreadable-{i:05}.txt"));
        if shard.is_file() || (list.is_file() && lines(&list)?.len() == range.len()) {
            done.resumed += range.len();
        } else {
            let network = match &mut network {
                Some(network) => network,
                none => none.insert(backbone.load()?),
            };
            let made = rows(dataset, network, range.clone(), config, observer)?;
            let Some((rows, problems)) = made else {
                return Err(Error::Interrupted { place: unfinished });
            };
            // The list first: a shard that is there is complete.
            if !problems.is_empty() {
                write_atomically(&list, |to| to.write_all(problems.join("\n").as_bytes()))?;
            }
            if !rows.labels.is_empty() {
                rows.write(&shard, config)?;
            }
        }
        if list.is_file() {
            done.unreadable.extend(lines(&list)?);
        }
        observer.on(Event::Advance { done: range.end as u64, loss: None });
    }
    observer.on(Event::End);
    done.rows = dataset.len() - done.unreadable.len();
    if done.rows == 0 {
        return Err(Error::format(dataset.name(), "none of its pictures can be read"));
    }
    if let Some(head) = backbone.head() {
        save_tensors(&parent(out).join("head.safetensors"), &head.tensors(), &[])?;
    }
    fs::rename(&unfinished, out).map_err(Error::io("rename", &unfinished))?;
    Ok(done)
}

fn check(config: &ExtractConfig) -> Result<()> {
    for (key, value) in [("batch_size", config.batch_size), ("shard_rows", config.shard_rows)] {
        if !(1..=1 << 20).contains(&value) {
            return Err(Error::config(key, value, "expected 1 to 1048576 pictures"));
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

fn manifest(
    dataset: &dyn ImageDataset,
    backbone: &Backbone,
    config: &ExtractConfig,
) -> Result<Manifest> {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for i in 0..dataset.len() {
        hash.update(dataset.place(i).as_bytes());
        hash.update(dataset.label(i).map_or(u64::MAX, u64::from).to_le_bytes());
    }
    let hash = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(Manifest {
        backbone: backbone.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        backbone_sha256: sha256(backbone.path())?,
        tap: format!("{:?}", backbone.found().tap),
        dataset: dataset.name().to_owned(),
        pictures: dataset.len(),
        dataset_sha256: hash,
        shard_rows: config.shard_rows,
        skip_unreadable: config.skip_unreadable,
        dtype: format!("{:?}", config.dtype).to_lowercase(),
        transform: config.transform.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// What is in `out`, if the same run was ended after its last step.
fn finished(out: &Path, manifest: &Manifest) -> Result<Option<Extracted>> {
    if read_manifest(&out.join(MANIFEST)).as_ref() != Some(manifest) {
        return Ok(None);
    }
    let mut done = Extracted { resumed: manifest.pictures, ..Extracted::default() };
    for i in 0..manifest.pictures.div_ceil(manifest.shard_rows) {
        let list = out.join(format!("unreadable-{i:05}.txt"));
        if list.is_file() {
            done.unreadable.extend(lines(&list)?);
        }
    }
    done.rows = manifest.pictures - done.unreadable.len().min(manifest.pictures);
    Ok(Some(done))
}

fn read_manifest(file: &Path) -> Option<Manifest> {
    serde_json::from_str(&fs::read_to_string(file).ok()?).ok()
}

/// The folder under its temporary name, new or as an earlier run left it.
fn begin(out: &Path, manifest: &Manifest) -> Result<PathBuf> {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let folder = parent(out).join(format!(".heat-{name}.tmp"));
    let file = folder.join(MANIFEST);
    if file.is_file() {
        if read_manifest(&file).as_ref() == Some(manifest) {
            return Ok(folder);
        }
        let problem = "begun with other pictures, another network or other settings; \
                       give the same, or remove that folder";
        return Err(Error::format(folder, problem));
    }
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let text =
        serde_json::to_string_pretty(manifest).map_err(|e| Error::format(&file, e.to_string()))?;
    write_atomically(&file, |to| to.write_all(text.as_bytes()))?;
    Ok(folder)
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The rows of one shard.
#[derive(Default)]
struct Rows {
    pooled: Pooled,
    labels: Vec<i64>,
}

impl Rows {
    fn write(self, path: &Path, config: &ExtractConfig) -> Result<()> {
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
        convert(&set, None, path, &to, &mut crate::observe::Silent).map(drop)
    }
}

/// A batch ready for the network.
struct Ready {
    end: usize,
    pictures: Vec<f32>,
    size: [usize; 2],
    labels: Vec<i64>,
    problems: Vec<String>,
}

/// Rows of one shard and what was left out; `None` when a stop was asked for.
fn rows(
    dataset: &dyn ImageDataset,
    network: &mut Network,
    range: std::ops::Range<usize>,
    config: &ExtractConfig,
    observer: &mut dyn Observer,
) -> Result<Option<(Rows, Vec<String>)>> {
    let (mut all, mut problems) = (Rows::default(), Vec::new());
    let whole = std::thread::scope(|scope| {
        let (send, receive) = sync_channel::<Result<Ready>>(1);
        let batches = range.clone();
        scope.spawn(move || {
            for batch in blocks(batches.len(), config.batch_size) {
                let batch = batches.start + batch.start..batches.start + batch.end;
                let ready = prepare(dataset, batch, config);
                let failed = ready.is_err();
                // The other end has gone: it has met an error.
                if send.send(ready).is_err() || failed {
                    break;
                }
            }
        });
        for ready in receive {
            let ready = ready?;
            problems.extend(ready.problems);
            let n = ready.labels.len();
            if n > 0 {
                let [h, w] = ready.size;
                let pooled = network.run(ready.pictures, [n, 3, h, w])?;
                all.pooled.avg.extend(pooled.avg);
                all.pooled.std.extend(pooled.std);
                all.pooled.max.extend(pooled.max);
                all.pooled.logits.extend(pooled.logits);
                all.labels.extend(ready.labels);
            }
            observer.on(Event::Advance { done: ready.end as u64, loss: None });
            if observer.should_stop() {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    Ok(whole.then_some((all, problems)))
}

/// Decode and transform some pictures on all threads.
fn prepare(
    dataset: &dyn ImageDataset,
    range: std::ops::Range<usize>,
    config: &ExtractConfig,
) -> Result<Ready> {
    let one = |transform: &mut Option<Transform>, i: usize| {
        let transform = match transform {
            Some(transform) => transform,
            none => none.insert(Transform::new(&config.transform)?),
        };
        let image = dataset.image(i)?;
        transform.apply(&image)
    };
    let made: Vec<Result<(usize, usize, Vec<f32>)>> = parallel::run(|| {
        range.clone().into_par_iter().map_init(|| None, |transform, i| one(transform, i)).collect()
    });
    let mut ready = Ready {
        end: range.end,
        pictures: Vec::new(),
        size: [0, 0],
        labels: Vec::new(),
        problems: Vec::new(),
    };
    for (i, made) in range.zip(made) {
        let (h, w, values) = match made {
            Ok(made) => made,
            Err(error) if config.skip_unreadable => {
                ready.problems.push(error.to_string().replace('\n', " "));
                continue;
            }
            Err(error) => return Err(error),
        };
        if ready.labels.is_empty() {
            ready.size = [h, w];
        }
        if ready.size != [h, w] {
            return Err(Error::Shape {
                place: dataset.place(i),
                tensor: "picture".into(),
                expected: format!("{:?} as the others; resize or crop them", ready.size),
                got: format!("[{h}, {w}]"),
            });
        }
        ready.pictures.extend(values);
        ready.labels.push(dataset.label(i).map_or(-1, i64::from));
    }
    Ok(ready)
}
