//! Lists of images: lines `path label` or `path`, as OpenOOD and others write them.
//!
//! A path is below the root (the list's own directory, another one, or an archive) or absolute.
//! Between path and label are blanks, a tab, a comma or a semicolon; what stands after the label
//! is not read. Labels are numbers, −1 for none, or names of classes.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::archive::{Store, read_file};
use super::files::{Files, MAX_CLASSES, Row};
use heat_ood::{Error, Result};

/// What a first line calls its columns.
const HEADINGS: [&str; 10] = [
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "image",
    "image_path",
    "img",
    "name",
    "image_id",
];

/// Open a list.
pub(super) fn open(path: &Path, root: Option<&Path>) -> Result<Files> {
    let bytes = read_file(path)?;
    let not_text = |_| Error::format(path, "not a text in UTF-8, as a list of images is");
    let text = std::str::from_utf8(&bytes).map_err(not_text)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let beside = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = Place::open(root.unwrap_or(beside))?;
    // By line: of each name the first number, as lists may name a file often.
    let mut names: HashMap<Cow<str>, u32> = HashMap::new();
    let mut lines: Vec<u32> = Vec::new();
    let mut written: Vec<&str> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let broken = |problem| Error::format(path, format!("line {}: {problem}", i + 1));
        let Some((name, label)) = place.row(line) else {
            let name = first(line);
            if lines.is_empty() && HEADINGS.contains(&name.to_lowercase().as_str()) {
                continue;
            }
            return Err(broken(place.absent(name, root.is_some())));
        };
        if !lines.is_empty() && label.is_some() == written.is_empty() {
            return Err(broken("a class on every line, or on none".into()));
        }
        let next = names.len() as u32;
        lines.push(*names.entry(name).or_insert(next));
        written.extend(label);
    }
    let (labels, classes) = labels(path, &written)?;
    let store = place.store(names.keys());
    // From numbers by line to the store's.
    let mut files = vec![0; names.len()];
    for (name, number) in &names {
        let file = store.index(name);
        let file = file.ok_or_else(|| Error::format(path, "its files change while it is read"))?;
        files[*number as usize] = file;
    }
    let label = |row: usize| labels.get(row).copied().flatten();
    let rows: Vec<Row> =
        lines.iter().enumerate().map(|(row, n)| (files[*n as usize], label(row))).collect();
    let without = rows.iter().filter(|r| r.1.is_none()).count();
    let mut notes = Vec::new();
    if without > 0 && without < rows.len() {
        let n = rows.len();
        notes.push(format!("{without} of its {n} images have no class, so that no label is kept"));
    }
    Ok(Files::new(store, rows, classes).named(path.display().to_string()).with(Vec::new(), notes))
}

/// Where the files of a list are.
enum Place<'a> {
    Directory(&'a Path),
    Archive(Store),
}

impl<'a> Place<'a> {
    fn open(root: &'a Path) -> Result<Self> {
        // Not listed, as it may hold far more than the list.
        Ok(if root.is_dir() { Place::Directory(root) } else { Place::Archive(Store::open(root)?) })
    }

    /// What a line says: the name of a file that is there, and a label.
    fn row<'t>(&self, line: &'t str) -> Option<(Cow<'t, str>, Option<&'t str>)> {
        if let Some(name) = self.name(unquoted(line)) {
            return Some((name, None));
        }
        for separator in ['\t', ',', ';'] {
            if let Some((name, rest)) = line.split_once(separator)
                && let Some(name) = self.name(unquoted(name))
            {
                let label = unquoted(rest.split(separator).next().unwrap_or_default());
                return Some((name, Some(label).filter(|l| !l.is_empty())));
            }
        }
        // Names may hold blanks, and class names too: the longest name that is there.
        let blanks = line.match_indices(char::is_whitespace);
        blanks.rev().find_map(|(at, _)| {
            let name = self.name(unquoted(&line[..at]))?;
            let rest = line[at..].trim();
            // More columns are numbers.
            let numbers = rest.split_whitespace().all(|word| word.parse::<f64>().is_ok());
            let label = if numbers { rest.split_whitespace().next()? } else { rest };
            Some((name, Some(unquoted(label))))
        })
    }

    /// A file's name in the store.
    fn name<'t>(&self, written: &'t str) -> Option<Cow<'t, str>> {
        let is_there = |name: &str| match self {
            Place::Directory(root) => !name.is_empty() && root.join(name).is_file(),
            Place::Archive(store) => store.index(name).is_some(),
        };
        let plain = |name: &'t str| {
            let mut name = name;
            while let Some(rest) = name.strip_prefix("./") {
                name = rest.trim_start_matches('/');
            }
            name
        };
        let is_out = |name: &str| name.split(['/', '\\']).any(|part| part == "..");
        if is_out(written) {
            return None;
        }
        let below_root = plain(written).trim_start_matches('/');
        for name in [plain(written), below_root] {
            if is_there(name) {
                return Some(name.into());
            }
        }
        let turned = written.replace('\\', "/");
        let turned = turned.trim_start_matches("./");
        (written.contains('\\') && is_there(turned)).then(|| turned.to_owned().into())
    }

    fn path(&self) -> &Path {
        match self {
            Place::Directory(root) => root,
            Place::Archive(store) => store.path(),
        }
    }

    fn absent(&self, name: &str, given: bool) -> String {
        let place = self.path().display();
        let remedy = match given {
            true => "is that the directory its paths begin in?",
            false => "if its paths begin in another directory, give that as the root",
        };
        format!("`{name}` is not in {place}; {remedy}")
    }

    fn store<'n>(self, names: impl Iterator<Item = &'n Cow<'n, str>>) -> Store {
        match self {
            Place::Archive(store) => store,
            Place::Directory(root) => Store::of(root, names.map(|n| n.to_string()).collect()),
        }
    }
}

/// The path of a line that leads to no file, for messages.
fn first(line: &str) -> &str {
    let end = line.find(['\t', ',', ';']).or_else(|| line.rfind(char::is_whitespace));
    unquoted(line[..end.unwrap_or(line.len())].trim())
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

/// Classes by their numbers; names of classes are numbered in their order.
fn labels(path: &Path, written: &[&str]) -> Result<(Vec<Option<u32>>, Vec<String>)> {
    let number = |text: &str| text.parse::<i64>().ok();
    let numbers = written.iter().filter(|text| number(text).is_some_and(|n| n >= 0)).count();
    let absent = written.iter().filter(|text| number(text) == Some(-1)).count();
    if numbers + absent == written.len() {
        let label = |text: &&str| match number(text) {
            Some(n) if n < MAX_CLASSES as i64 => Ok(u32::try_from(n).ok()),
            _ => Err(Error::format(path, format!("class {text}: more than {MAX_CLASSES}"))),
        };
        let labels = written.iter().map(label).collect::<Result<_>>()?;
        return Ok((labels, Vec::new()));
    }
    if let Some(text) = written.iter().find(|text| number(text).is_some_and(|n| n < -1)) {
        return Err(Error::format(
            path,
            format!("class {text}; expected 0 and above, or -1 for none"),
        ));
    }
    if numbers > 0 {
        let name = written.iter().find(|text| number(text).is_none()).copied().unwrap_or_default();
        let problem = format!("class `{name}` beside classes that are numbers");
        return Err(Error::format(path, problem));
    }
    let names: BTreeSet<&str> =
        written.iter().copied().filter(|text| number(text).is_none()).collect();
    if names.len() > MAX_CLASSES {
        return Err(Error::format(path, format!("more than {MAX_CLASSES} classes")));
    }
    let places: HashMap<&str, u32> = names.iter().copied().zip(0..).collect();
    let labels = written.iter().map(|text| places.get(text).copied()).collect();
    Ok((labels, names.into_iter().map(str::to_owned).collect()))
}
