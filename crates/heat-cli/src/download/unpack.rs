//! A .zip into a directory beside it: all of it or nothing.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use heat_ood::io::{free_space, hidden_name, parent, zip_entries};
use heat_ood::{Error, Result};
use indicatif::DecimalBytes;
use zip::ZipArchive;

use super::fetch::no_room;

/// Directory that `archive` is unpacked into: its name without `.zip`.
pub fn directory_of(archive: &Path) -> PathBuf {
    archive.with_extension("")
}

/// Most files and directories of an archive: no published data set has as many.
const MOST_ENTRIES: usize = 4_000_000;

/// Unpack unless that is done already, to at most so many bytes; whether it was needed.
pub fn unpack(archive: &Path, most: u64) -> Result<bool> {
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
    let entries = entries(archive, &mut zip)?;
    check_room(archive, &entries, most)?;
    // Not `create_dir_all`, which takes what has come there since.
    std::fs::create_dir(&temporary).map_err(Error::io("create", &temporary))?;
    let done = fill(archive, &mut zip, &entries, &temporary)
        .and_then(|()| std::fs::rename(&temporary, &target).map_err(Error::io("write", &target)));
    if done.is_err() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    done.map(|()| true)
}

/// Refuse what would take more than allowed, or than there is room for: before a byte is written.
fn check_room(archive: &Path, entries: &[Entry], most: u64) -> Result<()> {
    let bytes = entries.iter().fold(0u64, |sum, e| sum.saturating_add(e.size));
    if bytes > most {
        let problem = format!(
            "unpacks to {bytes} bytes, and {} are the most allowed: is it the right archive? Then \
             allow more with --most SIZE",
            DecimalBytes(most)
        );
        return Err(Error::format(archive, problem));
    }
    match free_space(parent(archive)) {
        Some(room) if bytes > room => Err(no_room(archive, "unpacks to", bytes, room)),
        _ => Ok(()),
    }
}

/// Write all entries into a directory: of each as many bytes as it says, no more and no fewer.
fn fill(
    archive: &Path,
    zip: &mut ZipArchive<&File>,
    entries: &[Entry],
    temporary: &Path,
) -> Result<()> {
    for (i, entry) in entries.iter().enumerate() {
        let path = temporary.join(&entry.path);
        let directory = if entry.is_directory { Some(path.as_path()) } else { path.parent() };
        if let Some(directory) = directory {
            std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        }
        if !entry.is_directory {
            let file = zip.by_index(i).map_err(|e| damaged(archive, &e))?;
            let mut reader = file.take(entry.size.saturating_add(1));
            let mut out = File::create_new(&path).map_err(Error::io("create", &path))?;
            let unlike = |what: String| {
                let problem = format!(
                    "`{}` in it {what}; delete it and download it again",
                    entry.path.display()
                );
                Error::format(archive, problem)
            };
            let n = std::io::copy(&mut reader, &mut out).map_err(|e| match e.kind() {
                // Of the archive, and not of the disk.
                ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => {
                    unlike(format!("is damaged: {e}"))
                }
                _ => Error::io("write", &path)(e),
            })?;
            if n != entry.size {
                return Err(unlike(format!("is not of the {} bytes that it says", entry.size)));
            }
            out.sync_all().map_err(Error::io("write", &path))?;
        }
    }
    Ok(())
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
    // Its reader believes what a damaged or made up directory says of itself.
    let whole = heat_ood::io::map_file(archive, file).map(|bytes| zip_entries(&bytes).is_some());
    if !whole? {
        let problem = "not a whole .zip: its directory is damaged; delete it and download it again";
        return Err(Error::format(archive, problem));
    }
    ZipArchive::new(file).map_err(|e| damaged(archive, &e))
}

fn damaged(archive: &Path, error: &zip::result::ZipError) -> Error {
    Error::format(archive, format!("not a whole .zip: {error}; delete it and download it again"))
}

/// Entries by their place below the directory. A top directory of the directory's own
/// name is not doubled.
fn entries<R: Read + Seek>(archive: &Path, zip: &mut ZipArchive<R>) -> Result<Vec<Entry>> {
    if zip.len() > MOST_ENTRIES {
        let problem = format!("has {} entries, more than {MOST_ENTRIES}: refused", zip.len());
        return Err(Error::format(archive, problem));
    }
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
