//! Where the output goes: whole files and whole directories, or none.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::ConvertConfig;
use super::encode::Output;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, FileFormat};
use crate::io::{
    found, held, hold, open_regular, parent, replace_directory, sealed, sha256_of, write_sealed,
};

/// Held while a directory is being filled.
const LOCK: &str = ".lock";

/// Refuse an output that exists, cannot be written, or touches the input.
pub(super) fn check_place(
    out: &Path,
    directory: bool,
    set: &FeatureSet,
    config: &ConvertConfig,
) -> Result<()> {
    let refuse = |problem: String| Err(Error::config("output", out.display(), problem));
    found(out)?;
    let Some(target) = resolved(out) else {
        return refuse("that directory does not exist, or this is no name for a file".into());
    };
    let name = Path::new(set.name());
    let inputs = set.files().iter().map(PathBuf::as_path).chain([name]);
    for input in inputs.chain(config.inputs.iter().map(PathBuf::as_path)) {
        let Ok(real) = input.canonicalize() else {
            continue;
        };
        if target.starts_with(&real) || real.starts_with(&target) {
            return refuse(format!(
                "{} is read by this command, and the output may be neither that nor inside or \
                 around it; choose another place",
                input.display()
            ));
        }
    }
    let Ok(meta) = fs::metadata(out) else {
        return Ok(());
    };
    if meta.is_dir() != directory {
        let (is, needs) = if directory { ("file", "directory") } else { ("directory", "file") };
        return refuse(format!("there is a {is} of that name, and this form is a {needs}"));
    }
    if directory {
        return check_directory(out, config.force);
    }
    if !config.force {
        return refuse("that file exists; choose another name, or allow replacing it".into());
    }
    Ok(())
}

/// The path without links; its last part need not exist.
fn resolved(out: &Path) -> Option<PathBuf> {
    if let Ok(real) = out.canonicalize() {
        return Some(real);
    }
    Some(parent(out).canonicalize().ok()?.join(out.file_name()?))
}

/// An existing directory must be empty, or `force` and hold features alone.
fn check_directory(out: &Path, force: bool) -> Result<()> {
    let refuse = |problem: String| Err(Error::config("output", out.display(), problem));
    for entry in fs::read_dir(out).map_err(Error::io("list", out))? {
        let path = entry.map_err(Error::io("list", out))?.path();
        if !force {
            return refuse(
                "that directory is not empty; choose another, or allow replacing it".into(),
            );
        }
        if !path.is_file() || FileFormat::of(&path).is_none() {
            return refuse(format!(
                "only a whole directory of features is replaced, but {} is none: choose another directory",
                path.display()
            ));
        }
    }
    Ok(())
}

/// Write one file, whole or not at all.
pub(super) fn single(
    out: &Path,
    write: impl FnOnce(&mut Output<'_>) -> Result<()>,
) -> Result<usize> {
    let mut failure = None;
    let done = write_sealed(out, |to| caught(out, to, write, &mut failure));
    failure.map_or(done, Err)?;
    Ok(1)
}

/// The bytes of such a file; `place` is used in messages.
pub(super) fn in_memory(
    place: &Path,
    write: impl FnOnce(&mut Output<'_>) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut failure = None;
    let done = sealed(|to| caught(place, to, write, &mut failure));
    failure.map_or(done.map_err(Error::io("write", place)), Err)
}

fn caught(
    place: &Path,
    to: &mut dyn std::io::Write,
    write: impl FnOnce(&mut Output<'_>) -> Result<()>,
    failure: &mut Option<Error>,
) -> std::io::Result<()> {
    write(&mut Output { to, place }).map_err(|error| {
        *failure = Some(error);
        std::io::Error::other("stopped")
    })
}

/// A directory under its temporary name.
pub(super) struct Unfinished {
    path: PathBuf,
    files: std::cell::Cell<usize>,
}

impl Unfinished {
    /// Write one of its files.
    pub(super) fn file(
        &self,
        name: &str,
        write: impl FnOnce(&mut Output<'_>) -> Result<()>,
    ) -> Result<()> {
        self.files.set(self.files.get() + 1);
        single(&self.path.join(name), write).map(drop)
    }
}

/// Fill a directory beside `out` and give it that name when it is complete.
///
/// Its temporary name is random: nothing that is there already is touched, but for what
/// killed conversions into the same directory left. Two at a time are refused.
pub(super) fn write(
    out: &Path,
    force: bool,
    fill: impl FnOnce(&Unfinished) -> Result<()>,
) -> Result<usize> {
    let prefix = prefix(out);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Everything that the umask allows, as other directories have.
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    let path = builder.tempdir_in(parent(out)).map_err(Error::io("create", out))?.keep();
    let unfinished = Unfinished { path, files: std::cell::Cell::new(0) };
    let result = hold_alone(&unfinished.path, out, &prefix)
        .and_then(|_lock| fill_and_place(&unfinished, out, force, fill));
    if result.is_err() {
        let _ = fs::remove_dir_all(&unfinished.path);
    }
    result?;
    Ok(unfinished.files.get())
}

const SUFFIX: &str = ".tmp";

/// What the temporary names of all conversions into `out` begin with; short, however long
/// its name.
fn prefix(out: &Path) -> String {
    let name = out.file_name().unwrap_or_default().as_encoded_bytes();
    format!(".heat-convert-{}-", &sha256_of([name])[..16])
}

/// Lock our directory, refuse where another process is filling one for the same place, and
/// remove what killed ones left.
fn hold_alone(own: &Path, out: &Path, prefix: &str) -> Result<File> {
    let lock = hold(&own.join(LOCK), out, "is writing that directory")?;
    for entry in fs::read_dir(parent(out)).map_err(Error::io("list", parent(out)))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let other = entry.path();
        // A directory itself, no link to one.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let ours = name.starts_with(prefix) && name.ends_with(SUFFIX) && is_directory;
        if !ours || Some(entry.file_name().as_os_str()) == own.file_name() {
            continue;
        }
        match open_regular(&other.join(LOCK)).map(|lock| lock.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => {
                return Err(held(&other.join(LOCK), out, "is writing that directory"));
            }
            Ok(Ok(())) => drop(fs::remove_dir_all(other)),
            // Without locks nobody can tell; without a lock file it is just being made.
            _ => {}
        }
    }
    Ok(lock)
}

fn fill_and_place(
    unfinished: &Unfinished,
    out: &Path,
    force: bool,
    fill: impl FnOnce(&Unfinished) -> Result<()>,
) -> Result<()> {
    let path = &unfinished.path;
    fill(unfinished)?;
    fs::remove_file(path.join(LOCK)).map_err(Error::io("remove", path))?;
    sync(path);
    // Perhaps somebody has used that name meanwhile.
    if out.exists() {
        check_directory(out, force)?;
    }
    replace_directory(path, out)?;
    sync(parent(out));
    Ok(())
}

fn sync(directory: &Path) {
    if let Ok(directory) = File::open(directory) {
        let _ = directory.sync_all();
    }
}
