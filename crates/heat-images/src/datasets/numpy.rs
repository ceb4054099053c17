//! Arrays of images: `.npy` (CIFAR-10-C: `fog.npy` with `labels.npy` beside it) and `.npz`
//! (MedMNIST: `test_images`, `test_labels`; Keras: `x_test`, `y_test`).
//!
//! Images are bytes, `[N, H, W]`, `[N, H, W, 3]`, `[N, H, W, 4]` (the last value is passed over) or
//! `[N, 3, H, W]`; labels are whole numbers or texts, `[N]` or `[N, 1]`.

use std::collections::BTreeSet;
use std::path::Path;

use super::archive::{Slice, Store, base};
use super::files::MAX_CLASSES;
use super::records::{Layout, Piece, Records};
use heat_ood::io::NpyHeader;
use heat_ood::{Error, Result};

/// Severities of CIFAR-10-C's corruptions, one after the other in each array.
const SEVERITIES: usize = 5;

/// What parts of a name say which images are meant.
const SPLITS: [&str; 5] = ["train", "test", "val", "valid", "validation"];

/// An array that has been looked at but not read.
struct Entry {
    /// In the store.
    file: u32,
    /// Without directories and ending.
    name: String,
    header: NpyHeader,
}

/// Some bytes for each image.
struct Form {
    height: usize,
    width: usize,
    layout: Layout,
}

impl Entry {
    /// Which images it holds, if its name says so.
    fn split(&self) -> Option<&'static str> {
        let parts = self.name.split('_').map(str::to_lowercase);
        parts.filter_map(|part| SPLITS.into_iter().find(|s| **s == part)).next().map(spelled)
    }

    fn rows(&self) -> usize {
        self.header.shape.first().copied().unwrap_or(0)
    }

    fn form(&self) -> Option<Form> {
        let form = |height, width, layout| Some(Form { height, width, layout });
        match *self.header.shape {
            [_, h, w] | [_, h, w, 1] => form(h, w, Layout::Grey),
            [_, h, w, n @ (3 | 4)] => form(h, w, Layout::Pixels(n)),
            [_, 3, h, w] => form(h, w, Layout::Planes),
            [_, 1, h, w] => form(h, w, Layout::Grey),
            _ => None,
        }
    }

    fn is_images(&self) -> bool {
        matches!(self.header.kind.as_str(), "|u1" | "<u1" | ">u1") && self.form().is_some()
    }

    /// Whether it has one value for each of `n` images.
    fn is_labels(&self, n: usize) -> bool {
        let shape = &self.header.shape;
        shape.first() == Some(&n) && shape.iter().skip(1).all(|d| *d == 1) && shape.len() <= 2
    }

    fn text(&self) -> String {
        let shape = self.header.shape.iter().map(usize::to_string).collect::<Vec<_>>();
        format!("{} {} [{}]", self.name, self.header.kind, shape.join(", "))
    }
}

/// `val` however it is spelled.
fn spelled(split: &str) -> &'static str {
    match split {
        "train" => "train",
        "test" => "test",
        _ => "val",
    }
}

/// Which part of an array is wanted.
struct Wanted<'a> {
    /// A split or the name of an array.
    name: Option<&'a str>,
    /// From 1.
    severity: Option<usize>,
}

impl<'a> Wanted<'a> {
    /// `test`, `fog`, `3`, `fog/3`.
    fn read(split: Option<&'a str>) -> Self {
        let severity = |text: &str| text.parse().ok().filter(|s| (1..=SEVERITIES).contains(s));
        let Some(split) = split else { return Wanted { name: None, severity: None } };
        if let Some(s) = severity(split) {
            return Wanted { name: None, severity: Some(s) };
        }
        match split.rsplit_once('/') {
            Some((name, last)) if severity(last).is_some() => {
                Wanted { name: Some(name), severity: severity(last) }
            }
            _ => Wanted { name: Some(split), severity: None },
        }
    }
}

/// Open an array, an `.npz`, or the arrays of a directory.
pub(super) fn open(path: &Path, split: Option<&str>) -> Result<Records> {
    let is_array = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"));
    let store = match path.parent() {
        Some(parent) if is_array && path.is_file() => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            arrays_beside(parent)?
        }
        _ => Store::open(path)?,
    };
    let entries = entries(&store)?;
    let wanted = Wanted::read(split);
    let given = if is_array { path.file_stem().and_then(|s| s.to_str()) } else { None };
    let images = chosen(path, &entries, given, &wanted)?;
    let form = images.form().ok_or_else(|| Error::format(path, "not an array of images"))?;
    let (n, place) = (images.rows(), store.place(store.name(images.file)));
    let broken = |problem: String| Error::format(&place, problem);
    if images.header.by_column {
        return Err(broken("saved column by column: save `np.ascontiguousarray` of it".into()));
    }
    let stride = Records::size(form.width, form.height, form.layout).filter(|size| *size > 0);
    let bytes = store.read(store.name(images.file))?;
    let values =
        stride.and_then(|stride| bytes.checked_part(images.header.size, stride.checked_mul(n)?));
    let (Some(stride), Some(values)) = (stride, values) else {
        return Err(broken(format!("truncated: {} needs more bytes", images.text())));
    };
    let (labels, mut notes) = labels_of(&store, &entries, images)?;
    let (mut labels, classes) = match labels {
        Some(entry) => read_labels(&store, entry)?,
        None => (None, Vec::new()),
    };
    let rows = match wanted.severity {
        None => 0..n,
        Some(s) if n.is_multiple_of(SEVERITIES) => {
            notes.push(format!("severity {s} of {SEVERITIES}"));
            (s - 1) * (n / SEVERITIES)..s * (n / SEVERITIES)
        }
        Some(s) => {
            let problem = format!("{place} has {n} images, not {SEVERITIES} severities of as many");
            return Err(Error::config("split", s, problem));
        }
    };
    if labels.as_ref().is_some_and(|l| l.len() != n) {
        return Err(broken("labels of another number".into()));
    }
    labels = labels.map(|l| l[rows.clone()].to_vec());
    let values = values.part(rows.start * stride..rows.end * stride);
    let place = match wanted.severity {
        Some(s) => format!("{place}, severity {s}"),
        None => place,
    };
    let file = store.file(store.name(images.file));
    let pieces = vec![Piece { place, file, bytes: values, stride, skip: 0, labels }];
    let Form { height, width, layout } = form;
    Ok(Records { name: path.display().to_string(), width, height, layout, pieces, classes, notes })
}

/// The arrays of a directory, without what lies deeper.
fn arrays_beside(directory: &Path) -> Result<Store> {
    let listed = std::fs::read_dir(directory).map_err(Error::io("list", directory))?;
    let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_array = |name: &String| name.to_lowercase().ends_with(".npy") && !name.starts_with('.');
    Ok(Store::of(directory, names.filter(is_array).collect()))
}

fn entries(store: &Store) -> Result<Vec<Entry>> {
    let mut out = Vec::new();
    for (file, path) in store.numbered() {
        let lower = path.to_lowercase();
        let Some(stem) = lower.strip_suffix(".npy") else { continue };
        let name = base(&path[..stem.len()]).to_owned();
        // Others are said to be absent where they are wanted.
        if let Ok(header) = NpyHeader::read(&store.head(file)?) {
            out.push(Entry { file, name, header });
        }
    }
    Ok(out)
}

/// The one array of images that is meant.
fn chosen<'a>(
    path: &Path,
    entries: &'a [Entry],
    given: Option<&str>,
    wanted: &Wanted<'_>,
) -> Result<&'a Entry> {
    let list = |some: &[&Entry]| {
        let texts: Vec<String> = some.iter().take(8).map(|e| e.text()).collect();
        format!("{}{}", texts.join(", "), if some.len() > 8 { ", …" } else { "" })
    };
    let of_name = |name: &str| entries.iter().filter(|e| e.name == name).collect::<Vec<_>>();
    let mut found: Vec<&Entry> = match given {
        Some(name) => of_name(name),
        None => entries.iter().collect(),
    };
    let all = list(&found);
    found.retain(|e| e.is_images());
    if found.is_empty() {
        let problem = format!(
            "no array of images in it: expected bytes (uint8, 0 to 255) of shape [N, H, W], \
             [N, H, W, 3] or [N, 3, H, W]; found {}",
            if all.is_empty() { "no array" } else { &all }
        );
        return Err(Error::format(path, problem));
    }
    let images = list(&found);
    match wanted.name {
        Some(name) if given.is_none() && !of_name(name).is_empty() => {
            found.retain(|e| e.name == name);
        }
        Some(name) if found.iter().any(|e| e.split().is_some()) => {
            let split = if SPLITS.contains(&name) { Some(spelled(name)) } else { None };
            found.retain(|e| split.is_some() && e.split() == split);
        }
        Some(name) if given.is_none() => found.retain(|e| e.name == name),
        Some(name) => {
            let problem = "of an array, a severity from 1 to 5 is taken; others have no parts";
            return Err(Error::config("split", name, problem));
        }
        None if found.len() > 1 && found.iter().any(|e| e.split() == Some("test")) => {
            found.retain(|e| e.split() == Some("test"));
        }
        None => {}
    }
    match found[..] {
        [one] => Ok(one),
        [] => Err(Error::config(
            "split",
            wanted.name.unwrap_or_default(),
            format!("none of the arrays of {}: {images}", path.display()),
        )),
        _ => {
            let problem =
                format!("holds several arrays of images, name one as the split: {images}");
            Err(Error::format(path, problem))
        }
    }
}

/// The array of labels that belongs to one of images, and what should be said of it.
fn labels_of<'a>(
    store: &Store,
    entries: &'a [Entry],
    images: &Entry,
) -> Result<(Option<&'a Entry>, Vec<String>)> {
    let directory = |e: &Entry| store.name(e.file).rsplit_once('/').map(|p| p.0.to_owned());
    let near = |e: &&Entry| {
        e.file != images.file && directory(e) == directory(images) && e.split() == images.split()
    };
    let is_called = |e: &Entry| {
        let name = e.name.to_lowercase();
        let named = ["label", "target", "class"].iter().any(|part| name.contains(part));
        named || name.split('_').any(|part| part == "y") || name == "arr_1"
    };
    let beside: Vec<&Entry> = entries.iter().filter(near).filter(|e| is_called(e)).collect();
    let fitting: Vec<&Entry> =
        beside.iter().copied().filter(|e| e.is_labels(images.rows())).collect();
    // Of several, the one that is called as the images are.
    let pairs = [("images", "labels"), ("image", "label"), ("x", "y"), ("data", "labels")];
    let twin = |e: &Entry| {
        let renamed = |(from, to): (&str, &str)| {
            let parts =
                images.name.split('_').map(|p| if p.eq_ignore_ascii_case(from) { to } else { p });
            parts.collect::<Vec<_>>().join("_").eq_ignore_ascii_case(&e.name)
        };
        pairs.into_iter().any(renamed) || e.name == format!("{}_labels", images.name)
    };
    let twins: Vec<&Entry> = fitting.iter().copied().filter(|e| twin(e)).collect();
    let found = match (&fitting[..], &twins[..]) {
        ([one], _) | (_, [one]) => Some(*one),
        _ => None,
    };
    let mut notes = Vec::new();
    if found.is_none() && !beside.is_empty() {
        let texts: Vec<String> = beside.iter().take(4).map(|e| e.text()).collect();
        let n = images.rows();
        notes.push(format!("no labels: none of {} alone fits {n} images", texts.join(", ")));
    }
    Ok((found, notes))
}

/// Labels, none where all are −1, and names of classes.
fn read_labels(store: &Store, entry: &Entry) -> Result<(Option<Vec<u32>>, Vec<String>)> {
    let place = store.place(store.name(entry.file));
    let bytes = store.read(store.name(entry.file))?;
    let values = bytes.part(entry.header.size..bytes.len());
    let broken = |problem: String| Error::format(&place, problem);
    if let Some(texts) = texts(&entry.header.kind, &values, entry.rows()) {
        let names: BTreeSet<&String> = texts.iter().collect();
        if names.len() > MAX_CLASSES {
            return Err(broken(format!("more than {MAX_CLASSES} classes")));
        }
        let names: Vec<String> = names.into_iter().cloned().collect();
        let label = |text: &String| names.binary_search(text).map(|i| i as u32).ok();
        let labels = texts.iter().map(label).collect::<Option<Vec<u32>>>();
        return Ok((labels, names));
    }
    let numbers = numbers(&entry.header.kind, &values, entry.rows());
    let numbers = numbers.ok_or_else(|| {
        broken(format!("{} does not hold whole numbers or texts, one for each image", entry.text()))
    })?;
    if numbers.iter().all(|n| *n == -1) {
        return Ok((None, Vec::new()));
    }
    let label = |(row, n): (usize, &i64)| match u32::try_from(*n) {
        Ok(label) if (label as usize) < MAX_CLASSES => Ok(label),
        _ => Err(Error::Label { place: place.clone(), row, label: *n, classes: MAX_CLASSES }),
    };
    let labels = numbers.iter().enumerate().map(label).collect::<Result<_>>()?;
    Ok((Some(labels), Vec::new()))
}

/// `n` whole numbers of a type such as `<i8`.
fn numbers(kind: &str, bytes: &Slice, n: usize) -> Option<Vec<i64>> {
    let (order, name) = kind.split_at_checked(1)?;
    let (letter, size) = name.split_at_checked(1)?;
    let size: usize = size.parse().ok().filter(|s| [1, 2, 4, 8].contains(s))?;
    let bytes = bytes.get(..n.checked_mul(size)?)?;
    let read = |value: &[u8]| {
        let mut word = [0; 8];
        word[..size].copy_from_slice(value);
        if order == ">" {
            word[..size].reverse();
        }
        let raw = u64::from_le_bytes(word);
        let unused = 64 - 8 * size as u32;
        let whole = |v: f64| (v.fract() == 0.0 && v.abs() < 1e15).then_some(v as i64);
        match (letter, size) {
            ("i", _) => Some((raw << unused) as i64 >> unused),
            ("u", _) | ("b", 1) => i64::try_from(raw).ok(),
            ("f", 4) => whole(f32::from_bits(raw as u32).into()),
            ("f", 8) => whole(f64::from_bits(raw)),
            _ => None,
        }
    };
    bytes.chunks_exact(size).map(read).collect()
}

/// `n` texts of a type such as `<U5` or `|S5`.
fn texts(kind: &str, bytes: &Slice, n: usize) -> Option<Vec<String>> {
    let (order, name) = kind.split_at_checked(1)?;
    let (letter, length) = name.split_at_checked(1)?;
    let length: usize = length.parse().ok().filter(|l| (1..=1 << 12).contains(l))?;
    let size = length * if letter == "U" { 4 } else { 1 };
    let bytes = bytes.get(..n.checked_mul(size)?)?;
    let point = |value: &[u8; 4]| {
        let code =
            if order == ">" { u32::from_be_bytes(*value) } else { u32::from_le_bytes(*value) };
        char::from_u32(code)
    };
    let text = |value: &[u8]| {
        let text: Option<String> = match letter {
            "U" => value.as_chunks().0.iter().map(point).collect(),
            "S" => Some(String::from_utf8_lossy(value).into_owned()),
            _ => None,
        };
        text.map(|text| text.trim_end_matches('\0').to_owned())
    };
    bytes.chunks_exact(size).map(text).collect()
}
