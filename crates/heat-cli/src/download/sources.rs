//! Where each data set comes from: `sources.toml` beside this file, and files like it.

use std::path::{Component, Path};

use heat_ood::{Error, Result};
use serde::Deserialize;

const BUILT_IN: &str = include_str!("sources.toml");

/// A data set, or the weights of a network.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub title: String,
    /// The page that states who may do what with it.
    pub terms: String,
    /// Why a program cannot download it, and what to do.
    pub by_hand: Option<String>,
    #[serde(default)]
    pub files: Vec<RemoteFile>,
}

/// One file of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// Path below the data directory, with `/`.
    pub name: String,
    /// Where it is, in the order to try.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Bytes.
    pub size: Option<u64>,
    pub md5: Option<String>,
    pub sha256: Option<String>,
    /// The beginning of its SHA-256.
    pub sha256_prefix: Option<String>,
    /// Who published the checksum.
    pub checksum_by: Option<String>,
    /// Whether a .zip is also unpacked, beside itself.
    #[serde(default)]
    pub unpack: bool,
}

impl RemoteFile {
    /// Its name without directories.
    pub fn base(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// The mirror's address first, then the official ones.
    pub fn addresses(&self, mirror: Option<&str>) -> Vec<String> {
        let mirrored = mirror.map(|base| format!("{}/{}", base.trim_end_matches('/'), self.base()));
        mirrored.into_iter().chain(self.urls.iter().cloned()).collect()
    }

    fn check(&self) -> std::result::Result<(), String> {
        let name = &self.name;
        let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || name.is_empty() || name.contains(['\\', ':']) || name.ends_with('/') {
            return Err(format!("name = \"{name}\": expected a path below the data directory"));
        }
        if name.split('/').any(|part| part.starts_with('.')) {
            return Err(format!(
                "name = \"{name}\": names that begin with a dot are kept for partial files"
            ));
        }
        if let Some(url) = self.urls.iter().find(|u| !is_address(u)) {
            return Err(format!("{name}: urls: \"{url}\" does not begin with https:// or http://"));
        }
        let digits = [
            ("md5", &self.md5, 32..=32),
            ("sha256", &self.sha256, 64..=64),
            ("sha256_prefix", &self.sha256_prefix, 8..=64),
        ];
        for (key, value, length) in digits {
            let Some(value) = value else { continue };
            if !length.contains(&value.len()) || !value.bytes().all(|b| b.is_ascii_hexdigit()) {
                let (least, most) = (length.start(), length.end());
                let wanted =
                    if least == most { format!("{most}") } else { format!("{least} to {most}") };
                return Err(format!(
                    "{name}: {key} = \"{value}\": expected {wanted} hexadecimal digits"
                ));
            }
        }
        match self.unpack && !name.ends_with(".zip") {
            true => Err(format!("{name}: unpack: only a .zip can be unpacked")),
            false => Ok(()),
        }
    }
}

/// Whether it begins as an address that can be downloaded from.
pub fn is_address(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|r| !r.is_empty() && !r.contains(char::is_whitespace))
}

/// Sources by name, in the order they are listed.
pub struct Sources(Vec<(String, Source)>);

impl Sources {
    /// What is built in, with the entries of `own` added or put in its place.
    pub fn open(own: Option<&Path>) -> Result<Self> {
        let mut all = parse(BUILT_IN, Path::new("sources.toml"))?;
        if let Some(path) = own {
            let text = heat_ood::io::read_text(path)?;
            for (name, source) in parse(&text, path)? {
                match all.iter_mut().find(|(n, _)| *n == name) {
                    Some(entry) => entry.1 = source,
                    None => all.push((name, source)),
                }
            }
        }
        Ok(Sources(all))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.0.iter().map(|(name, source)| (name.as_str(), source))
    }

    pub fn get(&self, name: &str) -> Result<&Source> {
        let found = self.iter().find(|(n, _)| *n == name).map(|(_, source)| source);
        found.ok_or_else(|| match Error::unknown("data set", name, self.iter().map(|(n, _)| n)) {
            Error::Unknown { kind, name, hint } if hint.is_empty() => {
                Error::Unknown { kind, name, hint: "; `heat data list` names them".into() }
            }
            error => error,
        })
    }

    /// Those of `names`, or all.
    pub fn select(&self, names: &[String]) -> Result<Vec<(&str, &Source)>> {
        for name in names {
            self.get(name)?;
        }
        let wanted = |n: &str| names.is_empty() || names.iter().any(|name| name == n);
        Ok(self.iter().filter(|(n, _)| wanted(n)).collect())
    }
}

fn parse(text: &str, path: &Path) -> Result<Vec<(String, Source)>> {
    let table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| Error::format(path, e.to_string()))?;
    let mut sources = Vec::new();
    for (name, value) in table {
        let problem = |e: String| Error::format(path, format!("[{name}] {e}"));
        let source: Source =
            value.try_into().map_err(|e: toml::de::Error| problem(e.message().to_owned()))?;
        for file in &source.files {
            file.check().map_err(problem)?;
            if file.urls.is_empty() && source.by_hand.is_none() {
                return Err(problem(format!("{}: no urls: expected at least one", file.name)));
            }
        }
        if source.files.is_empty() && source.by_hand.is_none() {
            return Err(problem("no files: expected [[NAME.files]] with name and urls".into()));
        }
        sources.push((name, source));
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text, Path::new("own.toml")).unwrap_err().to_string()
    }

    fn file(line: &str) -> String {
        let base = "[a]\ntitle = \"A\"\nterms = \"t\"\n[[a.files]]\nurls = [\"https://h/a\"]\n";
        refused(&format!("{base}{line}\n"))
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("name = \"../a\"", "name = \"../a\""),
            ("name = \"/a\"", "below the data directory"),
            ("name = \"a/\"", "below the data directory"),
            ("name = \"b/.heat-a.part\"", "begin with a dot"),
            ("name = \"a\"\nmd5 = \"12\"", "[a] a: md5 = \"12\": expected 32"),
            ("name = \"a\"\nsha256_prefix = \"12345\"", "expected 8 to 64"),
            ("name = \"a\"\nsha256 = \"g\"", "expected 64 hexadecimal"),
            ("name = \"a.tar\"\nunpack = true", "only a .zip"),
            ("name = \"a\"\nsha512 = \"00\"", "unknown field `sha512`"),
            ("size = 1", "missing field `name`"),
        ] {
            let error = file(line);
            assert!(error.starts_with("own.toml: [a]") && error.contains(part), "{error}");
        }
        let ftp =
            "[a]\ntitle = \"A\"\nterms = \"t\"\nfiles = [{ name = \"a\", urls = [\"ftp://h\"] }]";
        assert!(refused(ftp).contains("https:// or http://"));
        assert!(refused("[a]\ntitle = \"A\"\nterms = \"t\"").contains("no files"));
        assert!(refused("[a\n").contains("line 1"));
    }

    #[test]
    fn the_mirror_comes_first() {
        let sources = Sources::open(None).unwrap();
        let file = &sources.get("svhn").unwrap().files[0];
        let urls = file.addresses(Some("http://mirror/data/"));
        assert_eq!(urls[0], "http://mirror/data/test_32x32.mat");
        assert_eq!(urls[1], file.urls[0]);
    }
}
