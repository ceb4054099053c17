//! A feature set of each kind of surrogates, and one of the images that they are made of.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Kind, Sources, Surrogates, contact_sheet};
use crate::backbone::{Backbone, ExtractConfig, Extracted, extract, images_of_rows};
use crate::{Excluded, ImageDataset, Made, MadeOf, MixedClasses, Transform, TransformConfig};
use heat_ood::features::{ConvertConfig, FeatureSet, Field, HEAD, ID_SET, Pooling, convert};
use heat_ood::io::{found, hold, map, read_text, remove_abandoned, replace_directory, write_own};
use heat_ood::scorers::rows_near;
use heat_ood::{Error, Event, Observer, Result};

/// What to make.
#[derive(Clone)]
pub struct SurrogateConfig {
    /// The kinds, each once.
    pub kinds: Vec<Kind>,
    /// Images of each.
    pub rows: usize,
    /// Seed of all choices.
    pub seed: u64,
    /// Features whose images are left out: of training, calibration and test sets.
    pub exclude: Vec<FeatureSet>,
    /// Where to write a contact sheet, before the kinds are extracted.
    pub preview: Option<PathBuf>,
}

impl Default for SurrogateConfig {
    fn default() -> Self {
        let kinds = Kind::ALL.to_vec();
        SurrogateConfig { kinds, rows: 1500, seed: 0, exclude: Vec::new(), preview: None }
    }
}

/// What was made.
#[derive(Debug, Clone)]
pub struct ExtractedSurrogates {
    /// The set of the images themselves; of all candidates where sets are excluded.
    pub id: Extracted,
    /// The set of each kind.
    pub kinds: Vec<(Kind, Extracted)>,
    /// Of which images they are made.
    pub of: MadeOf,
}

/// That of all images, of which the excluded ones are then left out.
const CANDIDATES: &str = ".candidates";
/// What the whole was made with.
const RECORD: &str = "surrogates.json";
const LOCK: &str = ".lock";
const MANIFEST: &str = "extract.json";

/// Rows of other programs' features that are this near to a row, relative to its norm, are that
/// row.
const NEAR: f64 = 0.01;

/// What the whole was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    backbone: String,
    backbone_sha256: String,
    tap: String,
    transform: TransformConfig,
    dataset: String,
    images: usize,
    seed: u64,
    rows: usize,
    /// Sets whose images are left out, with their files.
    excluded: Vec<(String, Vec<(String, String)>)>,
    /// Names of the kinds that are finished.
    kinds: Vec<String>,
    /// Of which images they are made, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<MadeOf>,
    version: String,
}

impl Record {
    fn new(
        dataset: &dyn ImageDataset,
        backbone: &Backbone,
        transform: &TransformConfig,
        config: &SurrogateConfig,
    ) -> Result<Self> {
        let origin = backbone.origin(transform);
        let digests = |set: &FeatureSet| Ok((set.name().to_owned(), set.digests()?));
        Ok(Record {
            backbone: origin.network,
            backbone_sha256: origin.network_sha256,
            tap: origin.tap,
            transform: transform.clone(),
            dataset: dataset.name().to_owned(),
            images: dataset.len(),
            seed: config.seed,
            rows: config.rows,
            excluded: config.exclude.iter().map(digests).collect::<Result<_>>()?,
            kinds: Vec::new(),
            of: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// How `earlier`, of the same directory, differs in what may not differ.
    fn difference(&self, earlier: &Record) -> Option<String> {
        let files = |record: &Record| -> Vec<String> {
            let digests = record.excluded.iter().flat_map(|(_, files)| files);
            digests.map(|(_, digest)| digest.clone()).collect()
        };
        let sets = earlier.excluded.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", ");
        let without = match &*sets {
            "" => "without leaving out any set".to_owned(),
            sets => format!("leaving out {sets}, as they were then"),
        };
        let same_network = earlier.backbone_sha256 == self.backbone_sha256;
        [
            (!same_network, format!("by another network, {}", earlier.backbone)),
            (earlier.tap != self.tap, format!("of the tensor {}", earlier.tap)),
            (earlier.transform != self.transform, "with another transform".into()),
            (
                (&earlier.dataset, earlier.images) != (&self.dataset, self.images),
                format!("of the {} images of {}", earlier.images, earlier.dataset),
            ),
            (earlier.seed != self.seed, format!("with seed {}", earlier.seed)),
            (earlier.rows != self.rows, format!("of {} rows a kind", earlier.rows)),
            (files(earlier) != files(self), without),
            (earlier.version != self.version, format!("by version {}", earlier.version)),
        ]
        .into_iter()
        .find_map(|(differs, how)| differs.then_some(how))
    }

    /// What an earlier run left in `out`, which is refused if it is of another run.
    fn earlier(&self, out: &Path) -> Result<Option<Record>> {
        let refuse = |problem: String| Err(Error::config("output", out.display(), problem));
        match found(out)? {
            None => return Ok(None),
            Some(there) if !there.is_dir() => {
                return refuse("is a file; choose another name".into());
            }
            Some(_) => {}
        }
        let file = out.join(RECORD);
        if !file.exists() {
            // What a killed run left before it could write the record is no reason to refuse.
            remove_abandoned(out);
            let mut entries = fs::read_dir(out).map_err(Error::io("list", out))?;
            let other = entries.find_map(|entry| {
                let name = entry.ok()?.file_name();
                (name != LOCK).then(|| name.to_string_lossy().into_owned())
            });
            return match other {
                None => Ok(None),
                Some(other) => refuse(format!(
                    "holds `{other}`, and no {RECORD}: give a directory of its own to the sets of \
                     surrogates"
                )),
            };
        }
        let earlier: Record = serde_json::from_str(&read_text(&file)?).map_err(|e| {
            Error::format(&file, format!("cannot be read ({e}); remove the directory"))
        })?;
        // What was begun and has made nothing binds nobody.
        let made = earlier.of.is_some();
        match self.difference(&earlier).filter(|_| made) {
            None => Ok(Some(earlier)),
            Some(how) => refuse(format!(
                "exists, and its surrogates were made {how}; choose another name, or remove it"
            )),
        }
    }

    fn write(&self, out: &Path) -> Result<()> {
        write_json(&out.join(RECORD), self)
    }
}

fn write_json(file: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|e| Error::format(file, e.to_string()))?;
    write_own(file, |to| to.write_all(text.as_bytes()))
}

/// Make the sets `out/id` and `out/KIND` of each kind: surrogates of the images of `dataset` that
/// are in none of the excluded sets, and these images as they are. `out/surrogates.json` says with
/// what.
///
/// Images are known again by their features, `avg` within one percent of its norm, since other programs
/// compute them with other last bits. Run again, it goes on where it was interrupted; kinds can be added.
///
/// # Errors
/// If `out` holds anything else or was made with other settings, an excluded set is of another
/// network, no image is left, an image is too small for a kind, or as [`extract`].
pub fn extract_surrogates(
    dataset: &dyn ImageDataset,
    backbone: &Backbone,
    out: &Path,
    extraction: &ExtractConfig,
    config: &SurrogateConfig,
    observer: &mut dyn Observer,
) -> Result<ExtractedSurrogates> {
    check(dataset, extraction, config)?;
    let origin = backbone.origin(&extraction.transform);
    config.exclude.iter().try_for_each(|set| {
        set.require(AVG)?;
        set.check_origin(&origin)
    })?;
    let mut record = Record::new(dataset, backbone, &extraction.transform, config)?;
    let earlier = record.earlier(out)?;
    fs::create_dir_all(out).map_err(Error::io("create", out))?;
    let lock = hold(&out.join(LOCK), out, "is making surrogates in this directory")?;
    record.kinds = earlier.map_or_else(Vec::new, |earlier| earlier.kinds);
    record.write(out)?;
    let run = Run { dataset, backbone, out, extraction, config };
    let (id, sources) = run.sources(observer)?;
    record.of = Some(sources.record().clone());
    record.write(out)?;
    say_classes(&sources, config, observer);
    if let Some(file) = &config.preview {
        contact_sheet(&sources, &config.kinds, config.seed, &extraction.transform, file)?;
    }
    let mut kinds = Vec::with_capacity(config.kinds.len());
    for kind in &config.kinds {
        let (rows, seed, transform) = (config.rows, config.seed, &extraction.transform);
        let set = Surrogates::new(&sources, *kind, rows, seed, transform)?;
        let done = extract(&set, backbone, &out.join(kind.name()), extraction, observer)?;
        kinds.push((*kind, done));
        if !record.kinds.iter().any(|name| name == kind.name()) {
            record.kinds.push(kind.name().to_owned());
            record.write(out)?;
        }
    }
    drop(lock);
    let _ = fs::remove_file(out.join(LOCK));
    Ok(ExtractedSurrogates { id, kinds, of: sources.record().clone() })
}

const AVG: Field = Field::Features(Pooling::Avg);

/// Refuse what cannot work before anything is computed.
fn check(
    dataset: &dyn ImageDataset,
    extraction: &ExtractConfig,
    config: &SurrogateConfig,
) -> Result<()> {
    const MOST: usize = 1 << 24;
    if !(1..=MOST).contains(&config.rows) {
        let problem = format!("expected 1 to {MOST} images of each kind");
        return Err(Error::config("rows", config.rows, problem));
    }
    if config.kinds.is_empty() {
        let problem = "no kind; name some, or all of them";
        return Err(Error::config("surrogates", "", problem));
    }
    if extraction.perturb.is_some() {
        let problem = "images that are moved against a detector's gradient are that detector's \
                       alone, and surrogates are for choosing among detectors: one or the other";
        return Err(Error::config("perturb", "", problem));
    }
    let (name, images) = (dataset.name(), dataset.len());
    config.kinds.iter().try_for_each(|kind| kind.check_sources(name, images))?;
    let mut transform = Transform::new(&extraction.transform)?;
    for i in 0..dataset.len() {
        let image = match dataset.image(i).and_then(|image| transform.pixels(&image)) {
            Ok(image) => image,
            Err(_) if extraction.skip_unreadable => continue,
            Err(error) => return Err(error),
        };
        let place = dataset.place(i);
        return config.kinds.iter().try_for_each(|kind| kind.check_size(&place, &image));
    }
    Ok(())
}

/// Say by which two images are of different classes, where it is not their labels.
fn say_classes(sources: &Sources<'_>, config: &SurrogateConfig, observer: &mut dyn Observer) {
    let two: Vec<&str> =
        config.kinds.iter().filter(|kind| kind.takes_two()).map(|kind| kind.name()).collect();
    let how = match sources.record().classes {
        MixedClasses::Predicted => {
            "images of different predicted classes, since there are no labels of two classes"
        }
        MixedClasses::None => {
            "any two images: neither labels nor the network tell two classes apart, so some pairs may be \
             of one class, which makes them less strange"
        }
        MixedClasses::Labels => return,
    };
    if !two.is_empty() {
        observer.on(Event::Note(&format!("{} mix {how}", two.join(" and "))));
    }
}

struct Run<'a> {
    dataset: &'a dyn ImageDataset,
    backbone: &'a Backbone,
    out: &'a Path,
    extraction: &'a ExtractConfig,
    config: &'a SurrogateConfig,
}

impl<'a> Run<'a> {
    /// The features of all images, and the images that surrogates are made of.
    fn sources(&self, observer: &mut dyn Observer) -> Result<(Extracted, Sources<'a>)> {
        let exclude = &self.config.exclude;
        let place = self.out.join(if exclude.is_empty() { ID_SET } else { CANDIDATES });
        let done = extract(self.dataset, self.backbone, &place, self.extraction, observer)?;
        let images = images_of_rows(&place, self.dataset.len(), self.extraction.shard_rows)?;
        let candidates = FeatureSet::open(&place)?;
        if images.len() != candidates.len() {
            let problem = format!("has {} rows of {} images", candidates.len(), images.len());
            return Err(Error::format(&place, problem));
        }
        if exclude.is_empty() {
            let predicted = predicted(&candidates)?;
            let sources = Sources::new(self.dataset, images, predicted.as_deref(), Vec::new())?;
            return Ok((done, sources));
        }
        let (mut kept, mut excluded) = (vec![true; images.len()], Vec::new());
        for set in exclude {
            observer.on(Event::Note(&format!("comparing with {}", set.name())));
            let mut left_out = 0;
            for row in rows_near(&candidates, set, AVG, NEAR)? {
                left_out += usize::from(std::mem::take(&mut kept[row as usize]));
            }
            let (set, files) = (set.name().to_owned(), set.digests()?);
            excluded.push(Excluded { set, files, left_out });
        }
        let rows: Vec<u32> = (0..).zip(&kept).filter(|(_, kept)| **kept).map(|r| r.0).collect();
        if rows.is_empty() {
            let remedy =
                "each is in a set that is left out: give other images, or leave out fewer sets";
            let what = "image left to make surrogates of";
            return Err(Error::missing(self.dataset.name(), what, remedy));
        }
        let images = rows.iter().map(|row| images[*row as usize]).collect();
        let id = candidates.select(rows, None)?;
        let sources = Sources::new(self.dataset, images, predicted(&id)?.as_deref(), excluded)?;
        self.write_id(&id, &place, &sources, observer)?;
        Ok((done, sources))
    }

    /// Write the candidates that are left, unless they are there.
    fn write_id(
        &self,
        id: &FeatureSet,
        candidates: &Path,
        sources: &Sources<'_>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let place = self.out.join(ID_SET);
        // The manifest of all, and which of them these are.
        let manifest = candidates.join(MANIFEST);
        let mut manifest: serde_json::Value = serde_json::from_str(&read_text(&manifest)?)
            .map_err(|e| Error::format(&manifest, e.to_string()))?;
        let made =
            Made { kind: ID_SET.into(), seed: self.config.seed, of: sources.record().clone() };
        manifest["made"] = serde_json::to_value(made).unwrap_or_default();
        let there = read_text(&place.join(MANIFEST)).ok();
        let there = there.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let whole = |set: FeatureSet| set.len() == id.len();
        if there.as_ref() == Some(&manifest) && FeatureSet::open(&place).is_ok_and(whole) {
            return Ok(());
        }
        let new = self.out.join(".id-new");
        if new.exists() {
            fs::remove_dir_all(&new).map_err(Error::io("remove", &new))?;
        }
        let how = ConvertConfig {
            dtype: Some(self.extraction.dtype),
            shard_rows: Some(self.extraction.shard_rows),
            ..ConvertConfig::default()
        };
        convert(id, None, &new, &how, observer)?;
        let head = candidates.join(HEAD);
        if head.is_file() {
            let bytes = map(&head)?;
            write_own(&new.join(HEAD), |to| to.write_all(&bytes))?;
        }
        write_json(&new.join(MANIFEST), &manifest)?;
        replace_directory(&new, &place)
    }
}

/// The class of the largest logit of each row, where there are logits of several.
fn predicted(set: &FeatureSet) -> Result<Option<Vec<u32>>> {
    let several = set.dim(Field::Logits).is_some_and(|classes| classes > 1);
    several.then(|| set.largest_logits()).transpose()
}
