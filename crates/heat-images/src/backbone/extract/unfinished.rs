//! The directory of an extraction under its temporary name, held by one process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::manifest::{MANIFEST, Manifest};
use super::record::is_ours;
use heat_ood::features::HEAD;
use heat_ood::io::{hidden_name, hold, parent, replace_directory};
use heat_ood::{Error, Result};

const LOCK: &str = ".lock";

/// Where the command says how it was called, once the directory has its name.
const RECORD: &str = "run.json";

/// Held until the directory has its name.
pub(super) struct Unfinished {
    pub path: PathBuf,
    /// Directories above it that were not there, the innermost first.
    made: Vec<PathBuf>,
    _lock: File,
}

impl Unfinished {
    /// New, or as an earlier run left it.
    ///
    /// # Errors
    /// If another process holds it, it was begun with other settings, or `out` holds more than
    /// was extracted.
    pub fn begin(out: &Path, manifest: &Manifest) -> Result<Self> {
        check_replaceable(out)?;
        let path = parent(out).join(hidden_name(out, ".tmp"));
        let above = parent(out).ancestors().filter(|p| !p.as_os_str().is_empty());
        let made = above.take_while(|p| !p.exists()).map(Path::to_owned).collect();
        let lock = loop {
            // What has that name may be another's link, to a directory of value.
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_dir()) {
                let problem = "is no directory of this program; remove it, or choose another name";
                return Err(Error::format(path, problem));
            }
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
            let lock = hold(&path.join(LOCK), out, "is extracting into this directory");
            // Whoever held it may have finished meanwhile, and taken the directory with it.
            match lock {
                Ok(lock) if path.join(LOCK).exists() => break lock,
                Err(error) if path.exists() => return Err(error),
                _ => {}
            }
        };
        let unfinished = Unfinished { path, made, _lock: lock };
        unfinished.refuse_links()?;
        if !unfinished.path.join(MANIFEST).is_file() {
            manifest.write(&unfinished.path)?;
        } else if let Some(difference) = manifest.difference(&unfinished.path) {
            if unfinished.has_shards() {
                let problem = format!(
                    "begun with other images, another network or other settings: {difference}; \
                     give the same, or remove that directory"
                );
                return Err(Error::format(&unfinished.path, problem));
            }
            // What was begun and has made nothing binds nobody.
            unfinished.clear()?;
            manifest.write(&unfinished.path)?;
        }
        Ok(unfinished)
    }

    /// The names in it that an extraction gives.
    fn ours(&self) -> impl Iterator<Item = String> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| is_ours(name))
    }

    /// Whether there are rows in it: lists of images that could not be read are made again at once.
    fn has_shards(&self) -> bool {
        self.ours().any(|name| name.starts_with("shard-"))
    }

    /// Remove what was extracted.
    fn clear(&self) -> Result<()> {
        for name in self.ours() {
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Refuse a directory with links in it, which may be another's who made it before us: what
    /// they lead to would be read as ours, or replaced.
    fn refuse_links(&self) -> Result<()> {
        for entry in fs::read_dir(&self.path).map_err(Error::io("list", &self.path))? {
            let path = entry.map_err(Error::io("list", &self.path))?.path();
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
                let problem = "is a link, which an extraction never makes; remove its directory, \
                               or choose another name";
                return Err(Error::format(path, problem));
            }
        }
        Ok(())
    }

    /// Remove it, unless a shard was finished.
    pub fn remove_if_empty(&self) {
        if self.has_shards() {
            return;
        }
        let _ = fs::remove_dir_all(&self.path);
        // Only those that are empty can be removed.
        let _ = self.made.iter().try_for_each(fs::remove_dir);
    }

    /// Give it its name. What has that is replaced, if all of it was extracted.
    pub fn place(&self, out: &Path) -> Result<()> {
        check_replaceable(out)?;
        replace_directory(&self.path, out)?;
        let _ = fs::remove_file(out.join(LOCK));
        Ok(())
    }
}

/// Refuse to replace a directory that holds anything but what was extracted.
fn check_replaceable(out: &Path) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(out).map_err(Error::io("list", out))? {
        let name = entry.map_err(Error::io("list", out))?.file_name();
        let name = name.to_string_lossy();
        if !(is_ours(&name) || [HEAD, MANIFEST, LOCK, RECORD].contains(&&*name)) {
            let problem = format!(
                "is out of date, and holds `{name}`, which was not extracted: move that away and \
                 run the same command again, or remove the directory"
            );
            return Err(Error::config("output", out.display(), problem));
        }
    }
    Ok(())
}
