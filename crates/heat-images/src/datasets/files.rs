//! Images that are files of their own: image directories, Tiny-ImageNet, DTD.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;

use super::archive::{Store, base};
use super::{ImageDataset, sniff};
use crate::{Image, MAX_PIXELS, decode_within};
use heat_ood::{Error, Result};

/// Of formats that are decoded. What has another name is known by its first bytes.
const ENDINGS: [&str; 16] = [
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".jfif", ".jpe", ".dib", ".apng",
];

/// Classes of a list: none of the published ones has more than 22,000.
pub(super) const MAX_CLASSES: usize = 1 << 16;

/// Number of a file in its store, and its class.
pub(super) type Row = (u32, Option<u32>);

/// Files of a store, in their order.
pub(super) struct Files {
    name: String,
    store: Store,
    rows: Vec<Row>,
    classes: Vec<String>,
    left_out: Vec<String>,
    notes: Vec<String>,
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

    fn left_out(&self) -> &[String] {
        &self.left_out
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn place(&self, i: usize) -> String {
        self.store.place(self.name_of(i))
    }

    fn file(&self, i: usize) -> Option<PathBuf> {
        Some(self.store.file(self.name_of(i)))
    }

    fn image_name(&self, i: usize) -> String {
        self.name_of(i).to_owned()
    }

    fn image(&self, i: usize) -> Result<Image> {
        let name = self.name_of(i);
        decode_within(&self.store.place(name), &self.store.read(name)?, self.max_pixels)
    }
}

impl Files {
    pub fn new(store: Store, rows: Vec<Row>, classes: Vec<String>) -> Self {
        let name = store.path().display().to_string();
        let left_out = store.lost().to_vec();
        let (notes, max_pixels) = (Vec::new(), MAX_PIXELS);
        Files { name, store, rows, classes, left_out, notes, max_pixels }
    }

    pub fn named(self, name: String) -> Self {
        Files { name, ..self }
    }

    /// With more that is left out and should be known.
    pub fn with(mut self, left_out: Vec<String>, notes: Vec<String>) -> Self {
        self.left_out.extend(left_out);
        self.notes.extend(notes);
        self
    }

    /// Refuse images of more than `most` pixels.
    pub fn within(self, most: u64) -> Self {
        Files { max_pixels: most, ..self }
    }

    fn name_of(&self, i: usize) -> &str {
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

/// Files of a directory: images, and what is none.
struct Sorted<'a> {
    images: Vec<(u32, &'a str)>,
    others: Vec<(&'a str, &'static str)>,
}

/// Those that are in a directory of the split's name, if one is given.
fn sorted_out<'a>(store: &'a Store, split: Option<&str>) -> Result<Sorted<'a>> {
    let mut found = Sorted { images: Vec::new(), others: Vec::new() };
    for (i, name) in store.numbered().filter(|(_, n)| split.is_none_or(|s| is_below(n, s))) {
        if is_image(name) {
            found.images.push((i, name));
            continue;
        }
        let head = store.head(i)?;
        if crate::decode::is_image(&head) {
            found.images.push((i, name));
        } else {
            found.others.push((name, sniff::kind(&head)));
        }
    }
    Ok(found)
}

/// Whether a file lies below a directory of that name.
fn is_below(name: &str, directory: &str) -> bool {
    name.split('/').rev().skip(1).any(|part| part == directory)
}

/// The first few of some names.
fn few(names: &[String]) -> String {
    let more = if names.len() > 3 { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(3)].join(", "))
}

/// One directory for each class, numbered by sorted names, also those without an image; a single
/// directory, or images beside directories, have no classes. Order: that of the paths.
pub(super) fn directory(store: Store, split: Option<&str>) -> Result<Files> {
    // That of the split itself may have been given.
    let split = split.filter(|split| store.path().file_name().is_none_or(|n| n != *split));
    let Sorted { images, others } = sorted_out(&store, split)?;
    let (Some((_, first)), Some((_, last))) = (images.first(), images.last()) else {
        return Err(no_image(&store, split, &others));
    };
    // Images that are not read have directories all the same.
    let unread = others.iter().filter(|(_, kind)| kind.ends_with("to PNG")).map(|(n, _)| *n);
    let (first, last) = unread.fold((*first, *last), |(a, b), n| (a.min(n), b.max(n)));
    let above = match first == last {
        true => first.rfind('/').map_or(0, |i| i + 1),
        false => common_directory(first, last),
    };
    let class = |name: &'_ str| name[above..].find('/').map(|length| above..above + length);
    let beside: Vec<String> = images
        .iter()
        .filter(|(_, n)| class(n).is_none())
        .map(|(_, n)| n[above..].to_owned())
        .collect();
    let labelled = images.len() > 1 && beside.is_empty();
    let mut notes = Vec::new();
    let mut classes: BTreeMap<&str, u32> = BTreeMap::new();
    if labelled {
        let within = |n: &&str| n.starts_with(&first[..above]);
        let files = images.iter().map(|(_, n)| *n).chain(others.iter().map(|(n, _)| *n));
        classes.extend(files.filter(within).filter_map(|n| Some((&n[class(n)?], 0))));
        let empty = store.empty().iter().map(String::as_str);
        let empty = empty.filter(|n| split.is_none_or(|s| is_below(n, s))).filter(within);
        classes.extend(empty.map(|n| (&n[class(n).unwrap_or(above..n.len())], 0)));
        classes.values_mut().zip(0..).for_each(|(v, i)| *v = i);
        let used: BTreeSet<&str> = images.iter().filter_map(|(_, n)| Some(&n[class(n)?])).collect();
        for (name, number) in classes.iter().filter(|(name, _)| !used.contains(*name)) {
            notes.push(format!("no image in `{name}`, which keeps its class number, {number}"));
        }
        let splits = ["train", "test", "val", "valid", "validation", "training", "testing"];
        if classes.keys().all(|name| splits.contains(&name.to_lowercase().as_str())) {
            let names: Vec<String> = classes.keys().map(|n| (*n).to_owned()).collect();
            notes.push(format!("its classes are called {}: was one of them meant?", few(&names)));
        }
    } else if beside.len() < images.len() {
        let (k, n) = (beside.len(), images.len());
        notes.push(format!(
            "{k} of its {n} images lie beside the directories ({}), so that none has a class",
            few(&beside)
        ));
    }
    let label = |name: &str| classes.get(&name[class(name)?]).copied();
    let mut rows: Vec<Row> = images.iter().map(|(i, n)| (*i, label(n))).collect();
    // As torchvision's ImageFolder: class by class.
    rows.sort_by_key(|(file, label)| (*label, *file));
    let classes = classes.into_keys().map(str::to_owned).collect();
    let left_out = others.iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
    Ok(Files::new(store, rows, classes).with(left_out, notes))
}

/// The error for a place without images: what was looked for, and what there is.
fn no_image(store: &Store, split: Option<&str>, others: &[(&str, &str)]) -> Error {
    if let Some(split) = split {
        let problem = format!("no image in a directory of that name in {}", store.path().display());
        return Error::config("split", split, problem);
    }
    let n = others.len() + store.lost().len();
    // A few are named, and one more that says that there are more.
    let named = others.iter().map(|(name, kind)| format!("{name} ({kind})"));
    let named: Vec<String> = named.chain(store.lost().iter().cloned()).take(4).collect();
    let found = match n {
        0 => "it is empty".to_owned(),
        n => format!("its {n} files are {}", few(&named)),
    };
    let problem = format!(
        "no image in it (JPEG, PNG, BMP, GIF, WebP, TIFF, PNM: {}) and no data set of a known \
         format (CIFAR, SVHN, IDX, Tiny-ImageNet, DTD, LSUN, Places365, numpy arrays, a list); {found}",
        ENDINGS.join(" ")
    );
    Error::format(store.path(), problem)
}

/// Tiny-ImageNet-200: `test`, `val` (with `val_annotations.txt`) or `train`.
pub(super) fn tiny_imagenet(store: Store, split: Option<&str>) -> Result<Files> {
    let below = |part: &'static str| {
        store.numbered().filter(move |(_, n)| is_image(n) && is_below(n, part))
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
        "val" => match arranged(&store, "val")? {
            Some(found) => found,
            None => annotated(&store)?,
        },
        other => {
            let problem = "Tiny-ImageNet has the splits train, val and test";
            return Err(Error::config("split", other, problem));
        }
    };
    if rows.is_empty() {
        return Err(store.missing(&format!("{split}/images")));
    }
    let mut left_out = Vec::new();
    if split == "val" {
        let listed: BTreeSet<u32> = rows.iter().map(|(i, _)| *i).collect();
        let unlisted = below("val").filter(|(i, _)| !listed.contains(i));
        left_out.extend(unlisted.map(|(_, n)| format!("{n} (in no list)")));
    }
    Ok(Files::new(store, rows, classes).with(left_out, Vec::new()))
}

/// A split that has been sorted into directories of WordNet ids, `val/n01443537/images/0.JPEG`.
fn arranged(store: &Store, split: &str) -> Result<Option<(Vec<Row>, Vec<String>)>> {
    let class = |n: &'_ str| -> Option<Range<usize>> {
        let at = n.match_indices('/').map(|(at, _)| at + 1);
        let mut parts = [0].into_iter().chain(at).map(|at| (at, &n[at..]));
        let start = parts.find_map(|(at, rest)| {
            let below = rest.strip_prefix(split)?.starts_with('/');
            below.then_some(at + split.len() + 1)
        })?;
        let end = start + n[start..].find('/')?;
        (&n[start..end] != "images").then_some(start..end)
    };
    let images = || {
        let images = store.numbered().filter(|(_, n)| is_image(n));
        images.filter_map(|(i, n)| Some((i, &n[class(n)?])))
    };
    if images().next().is_none() {
        return Ok(None);
    }
    let place = store.path().display().to_string();
    let classes = match store.find("wnids.txt") {
        Some(name) => sorted(&store.place(name), store.text(name)?.split_whitespace())?,
        None => sorted(&place, images().map(|(_, class)| class))?,
    };
    let mut rows = Vec::new();
    for (i, class) in images() {
        let label = place_in(&classes, class).ok_or_else(|| {
            let problem = format!("class `{class}` of `{}` is not in wnids.txt", store.name(i));
            Error::format(&place, problem)
        })?;
        rows.push((i, Some(label)));
    }
    rows.sort_by_key(|(file, label)| (*label, *file));
    Ok(Some((rows, classes)))
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
