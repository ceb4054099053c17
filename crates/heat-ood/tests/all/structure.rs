//! One direction: what the source files of every crate take from each other,
//! read off their `use` lines and paths, is no circle.
//!
//! An arrow goes from the file that names something to the file that defines
//! it, through re-exports. A module and those inside it may know each other
//! (a module's own file declares and re-exports what its parts define). Else
//! there is no circle of files, and none among the modules of one parent,
//! each taken with all that is inside it. Tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path within its crate, the crate's name first.
type Name = Vec<String>;

#[derive(Default)]
struct Module {
    /// What is defined here, parts included.
    items: BTreeSet<String>,
    /// What is imported or re-exported: the name here, and its path.
    uses: Vec<(String, Name)>,
    globs: Vec<Name>,
    /// Paths that are written out.
    paths: Vec<Name>,
}

/// The text without comments, strings and what is compiled for tests only.
fn code(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("#[cfg(test)]") {
            item_end(rest)
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[skip..];
    }
    out
}

/// Where the item that begins here ends: after its `;` or its braces.
fn item_end(text: &str) -> usize {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return i + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return i + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The paths of a `use` tree with the names they get; `*` for all names.
fn leaves(tree: &str, before: &[String], out: &mut Vec<(String, Name)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut path = before.to_vec();
        path.extend(segments(&tree[..open]));
        let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let (mut depth, mut start) = (0, 0);
        for (i, c) in inner.char_indices().chain([(inner.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    leaves(&inner[start..i], &path, out);
                    start = i + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, name) = match tree.split_once(" as ") {
        Some((path, name)) => (path, Some(name.trim())),
        None => (tree, None),
    };
    let mut full = before.to_vec();
    full.extend(segments(path));
    if full.last().is_some_and(|last| last == "self") {
        full.pop();
    }
    if let Some(last) = full.last().cloned() {
        out.push((name.map_or(last, str::to_owned), full));
    }
}

fn segments(path: &str) -> impl Iterator<Item = String> {
    path.split("::").map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned)
}

/// Words that stand before the name of an item.
const ITEMS: [&str; 9] =
    ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "macro_rules!"];

fn read(text: &str) -> Module {
    let (text, mut module) = (code(text), Module::default());
    let words: Vec<&str> =
        text.split(|c: char| !is_word(c) && c != '!').filter(|w| !w.is_empty()).collect();
    for pair in words.windows(2) {
        if ITEMS.contains(&pair[0]) {
            module.items.insert(pair[1].to_owned());
        }
    }
    // Settings are declared by macros.
    for (at, _) in text.match_indices("_settings! {") {
        let name = text[at + 12..].trim_start().split(|c| !is_word(c)).next();
        module.items.extend(name.map(str::to_owned));
    }
    // The one macro that declares modules, and re-exports what they hold.
    if let Some(at) = text.find("\nmethods! {") {
        let inner = &text[at + 11..at + text[at..].find('}').unwrap_or(0)];
        for name in inner.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            module.items.insert(name.to_owned());
            module.globs.push(vec!["self".into(), name.into()]);
        }
    }
    let mut rest = &text[..];
    while let Some(at) = rest.find("use ") {
        let starts = rest[..at].chars().next_back().is_none_or(|c| !is_word(c));
        rest = &rest[at + 4..];
        let end = rest.find(';').unwrap_or(rest.len());
        if starts && !rest[..end].contains('$') {
            let mut found = Vec::new();
            leaves(&rest[..end], &[], &mut found);
            for (name, mut path) in found {
                if name == "*" {
                    path.pop();
                    module.globs.push(path);
                } else {
                    module.uses.push((name, path));
                }
            }
        }
    }
    for start in ["crate::", "super::", "heat_ood::", "heat_images::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_none_or(|c| !is_word(c) && c != ':' && c != '$') {
                let end = text[at..].find(|c: char| !is_word(c) && c != ':');
                let path = &text[at..at + end.unwrap_or(text.len() - at)];
                module.paths.push(segments(path).collect());
            }
        }
    }
    module
}

/// All modules of the crates, by name.
fn modules() -> BTreeMap<Name, Module> {
    let crates = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = BTreeMap::new();
    for name in ["heat-ood", "heat-images", "heat-serve", "heat-cli", "heat-python"] {
        let root = vec![name.replace('-', "_")];
        walk(&crates.join(name).join("src"), &root, &mut all);
    }
    all
}

fn walk(directory: &Path, module: &[String], all: &mut BTreeMap<Name, Module>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut inner = module.to_vec();
        if path.is_dir() {
            inner.push(stem);
            walk(&path, &inner, all);
        } else if path.extension().is_some_and(|e| e == "rs") && stem != "main" && stem != "tests" {
            if stem != "mod" && stem != "lib" {
                inner.push(stem);
            }
            all.insert(inner, read(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The module that defines what `path` names in `at`, as far as it is ours.
fn resolve(
    all: &BTreeMap<Name, Module>,
    at: &[String],
    path: &[String],
    depth: u32,
) -> Option<Name> {
    let (first, rest) = path.split_first()?;
    // Re-exports of re-exports; more is a glob that leads back.
    if depth > 6 {
        return None;
    }
    let mut here = at.to_vec();
    let mut rest = rest;
    match &**first {
        "crate" => here.truncate(1),
        "self" => {}
        "super" => {
            here.pop();
            while rest.first().is_some_and(|s| s == "super") {
                here.pop();
                rest = &rest[1..];
            }
        }
        name if all.contains_key(&vec![name.to_owned()]) => here = vec![name.to_owned()],
        _ => rest = path,
    }
    let Some((next, after)) = rest.split_first() else {
        return Some(here);
    };
    let mut child = here.clone();
    child.push(next.clone());
    if all.contains_key(&child) {
        let inner: Name = std::iter::once("self".to_owned()).chain(after.iter().cloned()).collect();
        return resolve(all, &child, &inner, depth + 1);
    }
    let module = all.get(&here)?;
    if let Some((_, target)) = module.uses.iter().find(|(name, _)| name == next) {
        // An import of the same name from elsewhere, not itself.
        if target.first() != Some(next) || target.len() > 1 {
            let target: Name = target.iter().chain(after).cloned().collect();
            if let Some(found) = resolve(all, &here, &target, depth + 1) {
                return Some(found);
            }
        }
    }
    if module.items.contains(next) {
        return Some(here);
    }
    // A glob that names no more than this module would lead back.
    module.globs.iter().filter(|glob| glob.len() > 1 || glob[0] != "super").find_map(|glob| {
        let target: Name = glob.iter().chain(rest).cloned().collect();
        let found = resolve(all, &here, &target, depth + 1)?;
        (found != here).then_some(found)
    })
}

/// Who takes something from whom.
fn arrows(all: &BTreeMap<Name, Module>) -> BTreeSet<(Name, Name)> {
    let mut out = BTreeSet::new();
    for (name, module) in all {
        let used = module.uses.iter().map(|(_, path)| path);
        for path in used.chain(&module.paths).chain(&module.globs) {
            let Some(target) = resolve(all, name, path, 0) else {
                continue;
            };
            if !target.starts_with(name) && !name.starts_with(&target) {
                out.insert((name.clone(), target));
            }
        }
    }
    out
}

/// A circle among these, if there is one.
fn circle(arrows: &BTreeSet<(Name, Name)>) -> Option<Vec<String>> {
    fn visit(
        at: &Name,
        arrows: &BTreeSet<(Name, Name)>,
        way: &mut Vec<Name>,
        done: &mut BTreeSet<Name>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|n| n == at) {
            let all = way[start..].iter().chain([at]);
            return Some(all.map(|name| name.join("::")).collect());
        }
        if !done.insert(at.clone()) {
            return None;
        }
        way.push(at.clone());
        let found = arrows
            .iter()
            .filter(|(from, _)| from == at)
            .find_map(|(_, to)| visit(to, arrows, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    arrows.iter().find_map(|(from, _)| visit(from, arrows, &mut Vec::new(), &mut done))
}

#[test]
fn no_file_is_in_a_circle() {
    let arrows = arrows(&modules());
    // The reader is not blind.
    let pair = |a: &str, b: &str| {
        let name = |text: &str| text.split("::").map(str::to_owned).collect::<Name>();
        (name(a), name(b))
    };
    assert!(arrows.len() > 500, "{}", arrows.len());
    for (from, to) in [
        ("heat_ood::detector", "heat_ood::ebm::heat"),
        ("heat_ood::ebm::prior", "heat_ood::scorers::gaussian::gmm"),
        ("heat_cli::commands::train", "heat_ood::run"),
        ("heat_ood::scorers::head::cosine", "heat_ood::scorers::input"),
    ] {
        assert!(arrows.contains(&pair(from, to)), "{from} → {to}");
    }
    assert_eq!(circle(&arrows), None);
}

#[test]
fn no_module_is_in_a_circle_with_its_neighbours() {
    let arrows = arrows(&modules());
    let mut levels: BTreeMap<Name, BTreeSet<(Name, Name)>> = BTreeMap::new();
    for (from, to) in &arrows {
        let same = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        let parts = (from[..=same].to_vec(), to[..=same].to_vec());
        levels.entry(from[..same].to_vec()).or_default().insert(parts);
    }
    let circles: Vec<_> = levels.values().filter_map(circle).collect();
    assert!(circles.is_empty(), "{circles:#?}");
}
