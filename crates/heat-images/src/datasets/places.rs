//! Places365, the validation images of 256×256: `val_256` or `val_256.tar`,
//! with labels and class names where the published lists lie in it or beside
//! it, or in `filelist_places365-standard.tar` there.
//!
//! Reference: Zhou et al., *Places: A 10 Million Image Database for Scene Recognition*, TPAMI 2017.

use std::collections::HashMap;
use std::path::Path;

use super::archive::{Store, base, read_file};
use super::files::{Files, Row, is_image};
use heat_ood::{Error, Result};

const CLASSES: usize = 365;
const LABELS: &str = "places365_val.txt";
const CATEGORIES: &str = "categories_places365.txt";
const LISTS: &str = "filelist_places365-standard.tar";
const PREFIX: &str = "Places365_val_";

/// Whether a file is one of the images.
pub(super) fn is_places(name: &str) -> bool {
    base(name).starts_with(PREFIX) && is_image(name)
}

/// A text with the place it came from.
struct Text {
    place: String,
    text: String,
}

/// Order: that of the list of labels, else of the names.
pub(super) fn open(store: Store, split: Option<&str>) -> Result<Files> {
    if let Some(other) = split.filter(|s| *s != "val") {
        return Err(Error::config("split", other, "of Places365 the split val is read"));
    }
    let names: HashMap<&str, u32> =
        store.numbered().filter(|(_, n)| is_places(n)).map(|(i, n)| (base(n), i)).collect();
    if names.is_empty() {
        return Err(store.missing(&format!("{PREFIX}00000001.jpg")));
    }
    let listed = |name: &'static str| listed(&store, name);
    let mut rows: Vec<Row> = Vec::new();
    match listed(LABELS)? {
        Some(list) => {
            for pair in list.pairs() {
                let (image, label) = pair?;
                let name = names.get(image).ok_or_else(|| {
                    let place = store.path().display().to_string();
                    let remedy = format!("{} lists it: unpack the images again", list.place);
                    Error::missing(place, format!("`{image}`"), remedy)
                })?;
                rows.push((*name, Some(label)));
            }
        }
        None => {
            rows = names.values().map(|file| (*file, None)).collect();
            rows.sort();
        }
    }
    let classes = match listed(CATEGORIES)?.filter(|_| rows.iter().all(|r| r.1.is_some())) {
        Some(list) => list.classes()?,
        None => Vec::new(),
    };
    Ok(Files::new(store, rows, classes))
}

/// A list in the store, beside it, or in the archive of lists.
fn listed(store: &Store, name: &str) -> Result<Option<Text>> {
    if let Some(found) = store.find(name) {
        return Ok(Some(Text { place: store.place(found), text: store.text(found)? }));
    }
    let beside = |name: &str| store.path().with_file_name(name);
    if beside(name).is_file() {
        return text(&beside(name)).map(Some);
    }
    let lists = [store.path().join(LISTS), beside(LISTS)];
    let Some(path) = lists.iter().find(|p| p.is_file()) else {
        return Ok(None);
    };
    let lists = Store::open(path)?;
    let found = lists.find(name).ok_or_else(|| lists.missing(name))?;
    Ok(Some(Text { place: lists.place(found), text: lists.text(found)? }))
}

fn text(path: &Path) -> Result<Text> {
    let bytes = read_file(path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Error::format(path, "not a text in UTF-8: download it again"))?;
    Ok(Text { place: path.display().to_string(), text: text.to_owned() })
}

impl Text {
    /// Lines `name number`, the number that of a class.
    fn pairs(&self) -> impl Iterator<Item = Result<(&str, u32)>> {
        let lines = self.text.lines().map(str::trim).enumerate().filter(|(_, l)| !l.is_empty());
        lines.map(|(row, line)| self.pair(row, line))
    }

    fn pair<'a>(&self, row: usize, line: &'a str) -> Result<(&'a str, u32)> {
        let words = line.split_once(char::is_whitespace);
        let pair = words.and_then(|(name, class)| Some((name, class.trim().parse::<u32>().ok()?)));
        let (name, class) = pair.ok_or_else(|| {
            let problem = format!("line {}: expected `name class`, found `{line}`", row + 1);
            Error::format(&self.place, problem)
        })?;
        if class as usize >= CLASSES {
            let (place, label) = (self.place.clone(), i64::from(class));
            return Err(Error::Label { place, row, label, classes: CLASSES });
        }
        Ok((name, class))
    }

    /// Names in the order of their numbers.
    fn classes(&self) -> Result<Vec<String>> {
        let mut pairs = self.pairs().take(CLASSES + 1).collect::<Result<Vec<_>>>()?;
        pairs.sort_by_key(|(_, class)| *class);
        if pairs.iter().zip(0..).any(|((_, class), i)| *class != i) {
            let problem = "its numbers are not 0, 1, 2, …: download it again";
            return Err(Error::format(&self.place, problem));
        }
        Ok(pairs.iter().map(|(name, _)| (*name).to_owned()).collect())
    }
}
