//! Images that are files of their own: image directories, lists, Tiny-ImageNet,
//! DTD.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use super::ImageDataset;
use super::archive::{Store, base};
use crate::{Image, MAX_PIXELS, decode_within};
use heat_ood::{Error, Result};

const ENDINGS: [&str; 6] = [".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"];

/// Classes of a list: none of those read has more than a thousand.
const MAX_CLASSES: usize = 1 << 16;

/// Number of a file in its store, and its class.
pub(super) type Row = (u32, Option<u32>);

/// Files of a store, in their order.
pub(super) struct Files {
    name: String,
    store: Store,
    rows: Vec<Row>,
    classes: Vec<String>,
    max_pixels: u64,
}

impl ImageDataset for Files {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.rows[i].1
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn place(&self, i: usize) -> String {
        self.store.place(self.file(i))
    }

    fn image(&self, i: usize) -> Result<Image> {
        let name = self.file(i);
        decode_within(&self.store.place(name), &self.store.read(name)?, self.max_pixels)
    }
}

impl Files {
    pub fn new(store: Store, rows: Vec<Row>, classes: Vec<String>) -> Self {
        let name = store.path().display().to_string();
        Files { name, store, rows, classes, max_pixels: MAX_PIXELS }
    }

    /// Refuse images of more than `most` pixels.
    pub fn within(self, most: u64) -> Self {
        Files { max_pixels: most, ..self }
    }

    fn file(&self, i: usize) -> &str {
        self.store.name(self.rows[i].0)
    }
}

pub(super) fn is_image(name: &str) -> bool {
    let ends = |ending: &&str| {
        let start = name.len().saturating_sub(ending.len());
        name.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(ending))
    };
    ENDINGS.iter().any(ends)
}

/// The directories above all images, which say nothing: what the first and the
/// last of sorted names share, all share.
fn common_directory(first: &str, last: &str) -> usize {
    let shared = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
    first.as_bytes()[..shared].iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1)
}

/// One directory for each class, numbered by sorted names; a single directory, or
/// images beside directories, have no classes. Order: that of the paths.
pub(super) fn directory(store: Store) -> Result<Files> {
    let images: Vec<(u32, &str)> = store.numbered().filter(|(_, n)| is_image(n)).collect();
    let (Some((_, first)), Some((_, last))) = (images.first(), images.last()) else {
        let problem = format!("no image in it ({})", ENDINGS.join(", "));
        return Err(Error::format(store.path(), problem));
    };
    let above = match images.len() {
        1 => first.rfind('/').map_or(0, |i| i + 1),
        _ => common_directory(first, last),
    };
    let class = |name: &'_ str| name[above..].find('/').map(|length| above..above + length);
    let labelled = images.len() > 1 && images.iter().all(|(_, n)| class(n).is_some());
    let mut classes: BTreeMap<&str, u32> = BTreeMap::new();
    if labelled {
        classes = images.iter().filter_map(|(_, n)| Some((&n[class(n)?], 0))).collect();
        classes.values_mut().zip(0..).for_each(|(v, i)| *v = i);
    }
    let label = |name: &str| classes.get(&name[class(name)?]).copied();
    let mut rows: Vec<Row> = images.iter().map(|(i, n)| (*i, label(n))).collect();
    // As torchvision's ImageDirectory: class by class.
    rows.sort_by_key(|(file, label)| (*label, *file));
    let classes = classes.into_keys().map(str::to_owned).collect();
    Ok(Files::new(store, rows, classes))
}

/// Lines `path label` or `path`, relative to the list's directory.
pub(super) fn list(path: &Path) -> Result<Files> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let store = Store::open(parent)?;
    let mut rows: Vec<Row> = Vec::with_capacity(text.lines().count());
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let broken = |problem| Error::format(path, format!("line {}: {problem}", i + 1));
        let (name, label) = match line.rsplit_once(char::is_whitespace) {
            Some((name, label)) if !is_image(line) => {
                let class =
                    label.parse().map_err(|_| broken(format!("`{label}` is not a class")))?;
                (name.trim_end(), Some(class))
            }
            _ => (line, None),
        };
        let file = store.index(name);
        let file =
            file.ok_or_else(|| broken(format!("`{name}` is not in {}", parent.display())))?;
        if rows.first().is_some_and(|(_, first)| first.is_some() != label.is_some()) {
            return Err(broken("a class on every line, or on none".into()));
        }
        rows.push((file, label));
    }
    Ok(Files { name: path.display().to_string(), ..Files::new(store, rows, Vec::new()) })
}

/// Tiny-ImageNet-200: `test`, `val` (with `val_annotations.txt`) or `train`.
pub(super) fn tiny_imagenet(store: Store, split: Option<&str>) -> Result<Files> {
    let below = |part: &'static str| {
        let is_below = move |n: &str| n.split('/').rev().skip(1).any(|directory| directory == part);
        store.numbered().filter(move |(_, n)| is_image(n) && is_below(n))
    };
    let place = store.path().display().to_string();
    let split = split.unwrap_or(if below("test").next().is_some() { "test" } else { "val" });
    let (rows, classes) = match split {
        "test" => (below("test").map(|(i, _)| (i, None)).collect(), Vec::new()),
        "train" => {
            let class = |n: &'_ str| -> Range<usize> {
                let start = n.len() - base(n).len();
                start..n[start..].find('_').map_or(n.len(), |length| start + length)
            };
            let classes = sorted(&place, below("train").map(|(_, n)| &n[class(n)]))?;
            let rows = below("train").map(|(i, n)| (i, place_in(&classes, &n[class(n)])));
            (rows.collect::<Vec<_>>(), classes)
        }
        "val" => annotated(&store)?,
        other => {
            let problem = "Tiny-ImageNet has the splits train, val and test";
            return Err(Error::config("split", other, problem));
        }
    };
    if rows.is_empty() {
        return Err(store.missing(&format!("{split}/images")));
    }
    Ok(Files::new(store, rows, classes))
}

/// Distinct names in their order.
fn sorted<'a>(place: &str, names: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let mut all = BTreeSet::new();
    for name in names {
        all.insert(name);
        if all.len() > MAX_CLASSES {
            return Err(Error::format(place, format!("more than {MAX_CLASSES} classes")));
        }
    }
    Ok(all.into_iter().map(str::to_owned).collect())
}

fn place_in(classes: &[String], class: &str) -> Option<u32> {
    classes.binary_search_by(|c| c.as_str().cmp(class)).ok().map(|i| i as u32)
}

/// Lines `val_0.JPEG n03444034 …`; classes numbered by sorted WordNet ids.
fn annotated(store: &Store) -> Result<(Vec<Row>, Vec<String>)> {
    let file =
        store.find("val_annotations.txt").ok_or_else(|| store.missing("val_annotations.txt"))?;
    let text = store.text(file)?;
    let lines = || text.lines().filter(|l| !l.trim().is_empty());
    let classes = match store.find("wnids.txt") {
        Some(name) => sorted(&store.place(name), store.text(name)?.split_whitespace())?,
        None => sorted(&store.place(file), lines().filter_map(|l| l.split_whitespace().nth(1)))?,
    };
    // By file name: looking through all names for each would take hours.
    let names: HashMap<&str, u32> =
        store.numbered().filter(|(_, n)| is_image(n)).map(|(i, n)| (base(n), i)).collect();
    let mut rows = Vec::new();
    for line in lines() {
        let broken = |problem| Error::format(store.place(file), problem);
        let mut words = line.split_whitespace();
        let (Some(image), Some(class)) = (words.next(), words.next()) else {
            return Err(broken(format!("expected `image class …`, found `{line}`")));
        };
        let name = *names.get(base(image)).ok_or_else(|| store.missing(image))?;
        let label = place_in(&classes, class)
            .ok_or_else(|| broken(format!("class `{class}` of `{image}` is not in wnids.txt")))?;
        rows.push((name, Some(label)));
    }
    Ok((rows, classes))
}

/// DTD: the images of `labels/<split>.txt`, `test1` unless told.
///
/// Reference: Cimpoi et al., *Describing Textures in the Wild*, CVPR 2014.
pub(super) fn textures(store: Store, split: Option<&str>) -> Result<Files> {
    let split = match split {
        None | Some("test") => "test1",
        Some(other) => other,
    };
    let listed = format!("labels/{split}.txt");
    let file = store.find(&listed).ok_or_else(|| store.missing(&listed))?;
    let root = &file[..file.len() - listed.len()];
    let text = store.text(file)?;
    let names = || text.lines().map(str::trim).filter(|l| !l.is_empty());
    let class = |name: &'_ str| name.split('/').next().map_or(0, str::len);
    let classes = sorted(&store.place(file), names().map(|n| &n[..class(n)]))?;
    let mut rows = Vec::new();
    for name in names() {
        let path = format!("{root}images/{name}");
        let file = store.index(&path).ok_or_else(|| store.missing(&path))?;
        rows.push((file, place_in(&classes, &name[..class(name)])));
    }
    Ok(Files::new(store, rows, classes))
}
