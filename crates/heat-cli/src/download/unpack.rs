//! A .zip into a directory beside it: all of it or nothing.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use heat_ood::io::hidden_name;
use heat_ood::{Error, Result};
use zip::ZipArchive;

/// Directory that `archive` is unpacked into: its name without `.zip`.
pub fn directory_of(archive: &Path) -> PathBuf {
    archive.with_extension("")
}

/// Unpack unless that is done already; whether it was needed.
pub fn unpack(archive: &Path) -> Result<bool> {
    let file = heat_ood::io::open_regular(archive)?;
    // Two processes must not unpack at once; without locks they may.
    let _ = file.lock();
    let mut zip = open(archive, &file)?;
    let target = directory_of(archive);
    if target.exists() {
        check(archive, &mut zip, &target)?;
        return Ok(false);
    }
    // The lock on the archive says that nobody else is unpacking it.
    let temporary = target.with_file_name(hidden_name(&target, ".unpacking"));
    match std::fs::symlink_metadata(&temporary) {
        Ok(found) if !found.is_dir() => {
            let problem = "is no directory of this program; remove it";
            return Err(Error::format(temporary, problem));
        }
        Ok(_) => std::fs::remove_dir_all(&temporary).map_err(Error::io("remove", &temporary))?,
        Err(_) => {}
    }
    // Not `create_dir_all`, which takes what has come there since.
    std::fs::create_dir(&temporary).map_err(Error::io("create", &temporary))?;
    let entries = entries(archive, &mut zip)?;
    for (i, entry) in entries.iter().enumerate() {
        let path = temporary.join(&entry.path);
        let directory = if entry.is_directory { Some(path.as_path()) } else { path.parent() };
        if let Some(directory) = directory {
            std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        }
        if !entry.is_directory {
            let mut reader = zip.by_index(i).map_err(|e| damaged(archive, &e))?.take(entry.size);
            let mut out = File::create_new(&path).map_err(Error::io("create", &path))?;
            std::io::copy(&mut reader, &mut out).map_err(Error::io("write", &path))?;
            out.sync_all().map_err(Error::io("write", &path))?;
        }
    }
    std::fs::rename(&temporary, &target).map_err(Error::io("write", &target))?;
    Ok(true)
}

/// Whether the directory of an archive holds all its files.
pub fn is_unpacked(archive: &Path) -> Result<bool> {
    let target = directory_of(archive);
    let file = heat_ood::io::open_regular(archive)?;
    let mut zip = open(archive, &file)?;
    if target.exists() {
        check(archive, &mut zip, &target)?;
    }
    Ok(target.exists())
}

struct Entry {
    path: PathBuf,
    size: u64,
    is_directory: bool,
}

fn open<'a>(archive: &Path, file: &'a File) -> Result<ZipArchive<&'a File>> {
    ZipArchive::new(file).map_err(|e| damaged(archive, &e))
}

fn damaged(archive: &Path, error: &zip::result::ZipError) -> Error {
    Error::format(archive, format!("not a whole .zip: {error}; delete it and download it again"))
}

/// Entries by their place below the directory. A top directory of the directory's own
/// name is not doubled.
fn entries<R: Read + Seek>(archive: &Path, zip: &mut ZipArchive<R>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for i in 0..zip.len() {
        let file = zip.by_index(i).map_err(|e| damaged(archive, &e))?;
        let Some(path) = file.enclosed_name() else {
            let name = file.name().unwrap_or_default();
            let problem = format!("`{name}` would lie outside the directory; nothing was unpacked");
            return Err(Error::format(archive, problem));
        };
        entries.push(Entry { path, size: file.size(), is_directory: file.is_dir() });
    }
    let top = directory_of(archive);
    let top = Path::new(top.file_name().unwrap_or_default());
    if entries.iter().all(|e| e.path.starts_with(top)) {
        for entry in &mut entries {
            entry.path = entry.path.strip_prefix(top).unwrap_or(&entry.path).to_owned();
        }
    }
    Ok(entries)
}

/// Every file of the archive is in the directory, with its size.
fn check<R: Read + Seek>(archive: &Path, zip: &mut ZipArchive<R>, directory: &Path) -> Result<()> {
    for entry in entries(archive, zip)?.iter().filter(|e| !e.is_directory) {
        let path = directory.join(&entry.path);
        let size = std::fs::metadata(&path).ok().map(|m| m.len());
        if size != Some(entry.size) {
            let got = size.map_or("missing".into(), |n| format!("{n} bytes"));
            let remedy = format!("delete {} and run `heat data get` again", directory.display());
            let problem = format!(
                "{got}, expected {} bytes as in {}; {remedy}",
                entry.size,
                archive.display()
            );
            return Err(Error::format(path, problem));
        }
    }
    Ok(())
}
