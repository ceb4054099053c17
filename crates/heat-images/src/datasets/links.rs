//! The names in an archive, and what its links stand for.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

/// Links that are followed from one name, and directories that links lead into within each other.
const MAX_LINKS: usize = 40;

/// Names that links may add.
const MAX_ADDED: usize = 1 << 20;

/// What is under a name.
pub(super) enum Entry {
    /// Its place in the archive.
    File(Range<usize>),
    Directory,
    /// To a path, seen from the directory `within`.
    Link {
        target: String,
        within: String,
    },
    /// Nothing that can be read, for this reason.
    Lost(&'static str),
}

/// Entries by name.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<String, Entry>);

/// All files, those that links lead to under the links' names too.
#[derive(Default)]
pub(super) struct Listing {
    /// Sorted by name.
    pub files: Vec<(String, Range<usize>)>,
    /// Directories without a file.
    pub empty: Vec<String>,
    /// What leads to no file, with the reason.
    pub lost: Vec<String>,
}

/// A path without `.`, doubled separators and the root; `None` where `..` leads out of it.
pub(super) fn normal(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

/// Where a path leads from a directory; `None`: out of the archive.
fn joined(within: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = within.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Where a path ends when all links on it have been followed.
enum Found {
    File(Range<usize>),
    Directory(String),
    Lost(&'static str),
}

impl Tree {
    /// Of entries of one name, the last replaces the others.
    pub fn add(&mut self, name: String, entry: Entry) {
        // The root itself, in some archives.
        if !name.is_empty() {
            self.0.insert(name, entry);
        }
    }

    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| keep(name));
    }

    /// Follow all links.
    ///
    /// # Errors
    /// If a link leads out of the archive, or links multiply its files.
    pub fn files(&self) -> Result<Listing, String> {
        let (mut out, mut added) = (Listing::default(), 0);
        for (name, entry) in &self.0 {
            match entry {
                Entry::File(at) => out.files.push((name.clone(), at.clone())),
                Entry::Lost(why) => out.lost.push(format!("{name} ({why})")),
                Entry::Link { .. } => self.add_linked(name, &mut out, &mut added)?,
                Entry::Directory => {}
            }
        }
        out.files.sort_by(|a, b| a.0.cmp(&b.0));
        let filled = |name: &str| {
            let below = format!("{name}/");
            let at = out.files.partition_point(|(n, _)| *n < below);
            out.files.get(at).is_some_and(|(n, _)| n.starts_with(&below))
        };
        let directory = |(name, entry): (&String, &Entry)| {
            (matches!(entry, Entry::Directory) && !filled(name)).then(|| name.clone())
        };
        out.empty = self.0.iter().filter_map(directory).collect();
        Ok(out)
    }

    /// Add what a link leads to, under its name.
    fn add_linked(&self, link: &str, out: &mut Listing, added: &mut usize) -> Result<(), String> {
        // Directories still to be gone through: where they are, what they are called, and the
        // directories passed on the way.
        let mut open = vec![(link.to_owned(), link.to_owned(), Vec::<String>::new())];
        while let Some((from, to, mut passed)) = open.pop() {
            count(added)?;
            let found = match self.follow(&from)? {
                Found::File(at) => {
                    out.files.push((to, at));
                    continue;
                }
                Found::Lost(why) => {
                    out.lost.push(format!("{to} ({why})"));
                    continue;
                }
                Found::Directory(found) => found,
            };
            let below = |name: &str, directory: &str| {
                directory.is_empty()
                    || name.strip_prefix(directory).is_some_and(|r| r.starts_with('/'))
            };
            if below(&to, &found) || passed.contains(&found) || passed.len() >= MAX_LINKS {
                out.lost.push(format!("{to} (a link that leads back up)"));
                continue;
            }
            let begin = format!("{found}/");
            let inside = self.0.range::<String, _>((Bound::Excluded(&begin), Bound::Unbounded));
            passed.push(found);
            for (name, entry) in inside.take_while(|(name, _)| name.starts_with(&begin)) {
                count(added)?;
                let to = format!("{to}/{}", &name[begin.len()..]);
                match entry {
                    Entry::File(at) => out.files.push((to, at.clone())),
                    Entry::Link { .. } => open.push((name.clone(), to, passed.clone())),
                    Entry::Directory | Entry::Lost(_) => {}
                }
            }
        }
        Ok(())
    }

    fn follow(&self, path: &str) -> Result<Found, String> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let Some((at, target, within)) = self.first_link(&path) else {
                return Ok(match self.0.get(&path) {
                    Some(Entry::File(at)) => Found::File(at.clone()),
                    Some(Entry::Lost(why)) => Found::Lost(why),
                    _ if self.is_directory(&path) => Found::Directory(path),
                    _ => Found::Lost("a link to nothing in the archive"),
                });
            };
            let end = joined(within, target).ok_or_else(|| {
                format!(
                    "`{}` is a link to `{target}`, out of the archive: refused; unpack it with \
                     care, and give the directory",
                    &path[..at]
                )
            })?;
            let rest = path[at..].trim_start_matches('/');
            path = if rest.is_empty() { end } else { format!("{end}/{rest}") };
            path = path.trim_start_matches('/').to_owned();
        }
        Ok(Found::Lost("a link that leads back to itself"))
    }

    /// The first link on a path: where its name ends there, and where it leads.
    fn first_link(&self, path: &str) -> Option<(usize, &str, &str)> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().find_map(|at| match self.0.get(&path[..at]) {
            Some(Entry::Link { target, within }) => Some((at, target.as_str(), within.as_str())),
            _ => None,
        })
    }

    fn is_directory(&self, path: &str) -> bool {
        if path.is_empty() || matches!(self.0.get(path), Some(Entry::Directory)) {
            return true;
        }
        let begin = format!("{path}/");
        let mut after = self.0.range::<String, _>((Bound::Excluded(&begin), Bound::Unbounded));
        after.next().is_some_and(|(name, _)| name.starts_with(&begin))
    }
}

/// One more name that a link has added.
fn count(added: &mut usize) -> Result<(), String> {
    *added += 1;
    let problem = "its links multiply its files: refused; unpack it, and give the directory";
    if *added > MAX_ADDED { Err(problem.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (i, (name, target)) in entries.iter().enumerate() {
            let within = name.rsplit_once('/').map_or("", |p| p.0).to_owned();
            let entry = match *target {
                "" => Entry::File(i..i + 1),
                "/" => Entry::Directory,
                target => Entry::Link { target: target.into(), within },
            };
            tree.add((*name).into(), entry);
        }
        tree
    }

    fn files(entries: &[(&str, &str)]) -> (Vec<(String, usize)>, Vec<String>) {
        let listing = tree(entries).files().unwrap();
        (listing.files.into_iter().map(|(n, at)| (n, at.start)).collect(), listing.lost)
    }

    fn named(list: &[(&str, usize)]) -> Vec<(String, usize)> {
        list.iter().map(|(n, i)| ((*n).to_owned(), *i)).collect()
    }

    #[test]
    fn links_stand_for_what_they_lead_to() {
        // Before its target, in a chain, through `..`, to a directory, within a linked directory.
        let (all, lost) = files(&[
            ("a/early", "../b/x"),
            ("b/x", ""),
            ("b/chain", "../a/early"),
            ("c", "b"),
            ("d/through", "../c/x"),
            ("e", "c"),
        ]);
        let want = [
            ("a/early", 1),
            ("b/chain", 1),
            ("b/x", 1),
            ("c/chain", 1),
            ("c/x", 1),
            ("d/through", 1),
            ("e/chain", 1),
            ("e/x", 1),
        ];
        assert_eq!(all, named(&want));
        assert!(lost.is_empty());
    }

    #[test]
    fn links_that_lead_nowhere_are_named() {
        let (all, lost) = files(&[
            ("a/nothing", "b"),
            ("a/self", "self"),
            ("a/one", "two"),
            ("a/two", "one"),
            ("a/up", ".."),
            ("a/here", "."),
            ("a/x", ""),
        ]);
        assert_eq!(all, named(&[("a/x", 6)]));
        assert_eq!(
            lost,
            [
                "a/here (a link that leads back up)",
                "a/nothing (a link to nothing in the archive)",
                "a/one (a link that leads back to itself)",
                "a/self (a link that leads back to itself)",
                "a/two (a link that leads back to itself)",
                "a/up (a link that leads back up)",
            ]
        );
        // Two directories that hold links to each other: each is shown once within the other.
        let (all, lost) = files(&[("a/b", "../c"), ("c/a", "../a"), ("c/x", ""), ("a/y", "")]);
        let want = [("a/b/x", 2), ("a/y", 3), ("c/a/y", 3), ("c/x", 2)];
        assert_eq!(all, named(&want));
        assert_eq!(lost.len(), 2);
    }

    #[test]
    fn links_out_of_the_archive_are_refused() {
        for target in ["/etc/passwd", "../../x", "../a/../../x"] {
            let said = tree(&[("a/x", target), ("a/y", "")]).files().err().unwrap();
            assert!(said.contains("`a/x`") && said.contains(target), "{said}");
        }
    }

    #[test]
    fn links_that_multiply_files_are_refused() {
        // Each directory holds two links to the next: 2⁴⁰ files.
        let mut entries = Vec::new();
        for i in 0..39 {
            entries.push((format!("d{i}/a"), format!("../d{}", i + 1)));
            entries.push((format!("d{i}/b"), format!("../d{}", i + 1)));
        }
        entries.push(("d39/x".into(), String::new()));
        let entries: Vec<_> = entries.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        assert!(tree(&entries).files().err().unwrap().contains("multiply"));
    }

    #[test]
    fn directories_without_files() {
        let listing = tree(&[("a", "/"), ("b", "/"), ("b/x", ""), ("c/d", "/")]).files().unwrap();
        assert_eq!(listing.empty, ["a", "c/d"]);
    }
}
