//! Pictures that are files of their own: image folders, lists, Tiny-ImageNet,
//! DTD.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::archive::{Store, base};
use super::{Image, ImageDataset, decode};
use crate::error::{Error, Result};

const ENDINGS: [&str; 6] = [".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"];

/// Files of a store, in their order.
pub(super) struct Files {
    name: String,
    store: Store,
    /// Name of the file and its class.
    rows: Vec<(String, Option<u32>)>,
    classes: Vec<String>,
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
        self.store.place(&self.rows[i].0)
    }

    fn image(&self, i: usize) -> Result<Image> {
        let name = &self.rows[i].0;
        decode(&self.store.place(name), &self.store.read(name)?)
    }
}

impl Files {
    pub fn new(store: Store, rows: Vec<(String, Option<u32>)>, classes: Vec<String>) -> Self {
        Files { name: store.path().display().to_string(), store, rows, classes }
    }
}

pub(super) fn is_picture(name: &str) -> bool {
    let name = name.to_lowercase();
    ENDINGS.iter().any(|e| name.ends_with(e))
}

/// The folders above all pictures, which say nothing.
fn common_folder(names: &[&str]) -> usize {
    let Some((first, last)) = names.first().zip(names.last()) else {
        return 0;
    };
    // Sorted: what the first and last share, all share.
    let shared = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
    first[..shared].rfind('/').map_or(0, |i| i + 1)
}

/// One folder for each class, numbered by sorted names; a single folder, or
/// pictures beside folders, have no classes. Order: that of the paths.
pub(super) fn folder(store: Store) -> Result<Files> {
    let names: Vec<&str> = store.names().filter(|n| is_picture(n)).collect();
    let above = match names.len() {
        1 => names[0].rfind('/').map_or(0, |i| i + 1),
        _ => common_folder(&names),
    };
    let class = |name: &str| name[above..].split_once('/').map(|(class, _)| class.to_owned());
    let labelled = names.len() > 1 && names.iter().all(|n| class(n).is_some());
    let mut classes: BTreeMap<String, u32> = BTreeMap::new();
    if labelled {
        classes = names.iter().filter_map(|n| Some((class(n)?, 0))).collect();
        classes.values_mut().zip(0..).for_each(|(v, i)| *v = i);
    }
    let row = |name: &&str| (name.to_string(), class(name).and_then(|c| classes.get(&c).copied()));
    let mut rows: Vec<(String, Option<u32>)> = names.iter().map(row).collect();
    // As torchvision's ImageFolder: class by class.
    rows.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    if rows.is_empty() {
        let problem = format!("no picture in it ({})", ENDINGS.join(", "));
        return Err(Error::format(store.path(), problem));
    }
    Ok(Files::new(store, rows, classes.into_keys().collect()))
}

/// Lines `path label` or `path`, relative to the list's folder.
pub(super) fn list(path: &Path) -> Result<Files> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, label) = match line.rsplit_once(char::is_whitespace) {
            Some((name, label)) if !is_picture(line) => {
                let label: u32 = label.parse().map_err(|_| {
                    let problem = format!("line {}: `{label}` is not a class", i + 1);
                    Error::format(path, problem)
                })?;
                (name.trim_end(), Some(label))
            }
            _ => (line, None),
        };
        rows.push((name.to_owned(), label));
    }
    if let Some(i) = rows.iter().position(|r| r.1.is_some() != rows[0].1.is_some()) {
        let problem =
            format!("`{}` and `{}`: a class on every line, or on none", rows[0].0, rows[i].0);
        return Err(Error::format(path, problem));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let store = Store::open(parent)?;
    if let Some((name, _)) = rows.iter().find(|(n, _)| !store.has(n)) {
        let problem = format!("`{name}` is not in {}", parent.display());
        return Err(Error::format(path, problem));
    }
    Ok(Files { name: path.display().to_string(), ..Files::new(store, rows, Vec::new()) })
}

/// Tiny-ImageNet-200: `test`, `val` (with `val_annotations.txt`) or `train`.
pub(super) fn tiny_imagenet(store: Store, split: Option<&str>) -> Result<Files> {
    let below = |part: &'static str| {
        let part = format!("/{part}/");
        store.names().filter(move |n| is_picture(n) && format!("/{n}").contains(&part))
    };
    let split = split.unwrap_or(if below("test").next().is_some() { "test" } else { "val" });
    let (rows, classes) = match split {
        "test" => (below("test").map(|n| (n.to_owned(), None)).collect(), Vec::new()),
        "train" => {
            let names: Vec<String> = below("train").map(str::to_owned).collect();
            let class = |n: &str| {
                let file = n.rsplit('/').next().unwrap_or_default();
                file.split('_').next().unwrap_or_default().to_owned()
            };
            let classes = sorted(names.iter().map(|n| class(n)));
            let rows = names.into_iter().map(|n| {
                let label = classes.binary_search(&class(&n)).ok().map(|i| i as u32);
                (n, label)
            });
            (rows.collect::<Vec<_>>(), classes.clone())
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

fn sorted(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = values.collect();
    all.sort();
    all.dedup();
    all
}

type Rows = (Vec<(String, Option<u32>)>, Vec<String>);

/// Lines `val_0.JPEG n03444034 …`; classes numbered by sorted WordNet ids.
fn annotated(store: &Store) -> Result<Rows> {
    let file =
        store.find("val_annotations.txt").ok_or_else(|| store.missing("val_annotations.txt"))?;
    let text = store.text(file)?;
    let lines = text.lines().filter(|l| !l.trim().is_empty());
    let pairs: Vec<(&str, &str)> = lines
        .map(|l| {
            let mut words = l.split_whitespace();
            words.next().zip(words.next()).ok_or_else(|| {
                let problem = format!("expected `picture class …`, found `{l}`");
                Error::format(store.place(file), problem)
            })
        })
        .collect::<Result<_>>()?;
    let classes = match store.find("wnids.txt") {
        Some(name) => sorted(store.text(name)?.split_whitespace().map(str::to_owned)),
        None => sorted(pairs.iter().map(|(_, class)| class.to_string())),
    };
    // By file name: looking through all names for each would take hours.
    let names: HashMap<&str, &str> =
        store.names().filter(|n| is_picture(n)).map(|n| (base(n), n)).collect();
    let mut rows = Vec::new();
    for (picture, class) in pairs {
        let name = *names.get(base(picture)).ok_or_else(|| store.missing(picture))?;
        let label = classes.binary_search_by(|c| c.as_str().cmp(class)).map_err(|_| {
            let problem = format!("class `{class}` of `{picture}` is not in wnids.txt");
            Error::format(store.place(file), problem)
        })?;
        rows.push((name.to_owned(), Some(label as u32)));
    }
    Ok((rows, classes))
}

/// DTD: the pictures of `labels/<split>.txt`, `test1` unless told.
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
    let names: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let class = |n: &str| n.split('/').next().unwrap_or_default().to_owned();
    let classes = sorted(names.iter().map(|n| class(n)));
    let label = |n: &str| classes.binary_search(&class(n)).ok().map(|i| i as u32);
    let rows: Vec<_> = names.iter().map(|n| (format!("{root}images/{n}"), label(n))).collect();
    if let Some((name, _)) = rows.iter().find(|(n, _)| !store.has(n)) {
        return Err(store.missing(name));
    }
    Ok(Files::new(store, rows, classes))
}
