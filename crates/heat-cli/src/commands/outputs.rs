//! What commands write: files whole, and never over what they read.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use heat_ood::Error;
use heat_ood::features::{FeatureSet, FileFormat};
use heat_ood::io::{check_writable, is_standard_output, read_text, write_own};

use serde_json::{Map, Value, json};

use super::{Data, TestSets};
use crate::invocation;
use crate::progress::Progress;

/// Write a file whole, or standard output.
pub fn write_output(path: Option<&Path>, text: &str) -> Result<()> {
    write_bytes(path, text.as_bytes())
}

/// The same of bytes.
pub fn write_bytes(path: Option<&Path>, bytes: &[u8]) -> Result<()> {
    match path {
        Some(path) => heat_ood::io::write_atomically(path, |w| w.write_all(bytes))?,
        None => std::io::stdout().lock().write_all(bytes).context("write results")?,
    }
    Ok(())
}

/// Give `write` a file that is whole or not there in the end, or standard output.
pub fn write_along(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let Some(path) = path else {
        return write(&mut std::io::stdout().lock());
    };
    let mut failure = None;
    let done = heat_ood::io::write_atomically(path, |to| {
        write(to).map_err(|error| {
            failure = Some(error);
            std::io::Error::other("stopped")
        })
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(done?),
    }
}

/// Refuse to replace a file that is read, and what is no file; said before any work.
pub fn refuse_overwriting(output: Option<&Path>, inputs: &[&Path]) -> Result<()> {
    let Some(output) = output else {
        return Ok(());
    };
    let refuse = |problem: &str| Err(Error::config("output", output.display(), problem).into());
    if is_directory_name(output) {
        return refuse("is the name of a directory; name a file");
    }
    let directory_of = |file: &Path| match file.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    };
    if !directory_of(output).is_dir() {
        return refuse("that directory does not exist");
    }
    let target = heat_ood::io::destination(output)?;
    if !is_standard_output(&target) {
        check_writable(&directory_of(&target))?;
    }
    let real = |p: &Path| p.canonicalize().ok();
    for input in inputs.iter().filter_map(|input| real(input)) {
        if real(&target).as_ref() == Some(&input) {
            return refuse("that file is read by this command; choose another name");
        }
        let directory = real(&directory_of(&target));
        if input.is_dir() && FileFormat::of(&target).is_some() && directory == Some(input) {
            return refuse(
                "that directory is a feature set that is read: this would be a part of it",
            );
        }
    }
    Ok(())
}

/// Whether a directory of that name exists, or a slash at the end says one is meant.
pub fn is_directory_name(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().to_string_lossy().ends_with(['/', '\\'])
}

/// Say that a file was written.
pub fn wrote(progress: &mut Progress, path: &Path) {
    progress.clear();
    if is_standard_output(path) {
        return;
    }
    progress.say(&format!("wrote {}", path.display()));
}

/// This process's command line, as a shell needs it.
pub fn command_line() -> String {
    let arguments = invocation::arguments().iter().map(|word| quoted(&word.to_string_lossy()));
    std::iter::once("heat".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// How something came about, for JSON: this program's version, the command line, and the hashes
/// of what was read, by name.
pub fn made(read: Map<String, Value>) -> Value {
    let mut made = json!({"version": env!("CARGO_PKG_VERSION"), "command": command_line()});
    if !read.is_empty() {
        made["sha256"] = Value::Object(read);
    }
    made
}

/// How a directory was made, beside what is in it: for people, and for a run that is resumed. It is
/// no part of what decides a result, nor of what is compared.
pub const RECORD: &str = "run.json";

/// Write how a directory was made.
pub fn write_record(directory: &Path, record: &Value) -> Result<()> {
    let file = directory.join(RECORD);
    Ok(write_own(&file, |w| w.write_all(format!("{record:#}\n").as_bytes()))?)
}

/// Say in a directory's record how a part of what is in it was made.
pub fn add_to_record(directory: &Path, key: &str, made: &Value) -> Result<()> {
    let text = read_text(&directory.join(RECORD)).unwrap_or_default();
    // One that is missing or damaged is made anew: nothing else depends on it.
    let read: Value = serde_json::from_str(&text).unwrap_or_default();
    let mut record = read.as_object().cloned().unwrap_or_default();
    record.insert(key.to_owned(), made.clone());
    write_record(directory, &Value::Object(record))
}

/// The hashes of a training set with its head, and of test sets.
pub fn hashes_of(data: Option<&Data>, sets: Option<&TestSets>) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    if let Some(data) = data {
        all.insert("train".into(), hashes(&data.train)?);
        all.extend(data.head.as_ref().map(|head| ("head".to_owned(), head.digest().into())));
    }
    if let Some(sets) = sets {
        all.insert("id".into(), hashes(&sets.id)?);
        all.extend(hashes_of_each("ood", &sets.ood)?);
    }
    Ok(all)
}

/// The hashes of some sets by their names, under `key`.
pub fn hashes_of_each(key: &str, sets: &[(String, FeatureSet)]) -> Result<Map<String, Value>> {
    let each = sets.iter().map(|(name, set)| Ok((name.clone(), hashes(set)?)));
    let each: Map<String, Value> = each.collect::<Result<_>>()?;
    Ok(Map::from_iter([(key.to_owned(), Value::Object(each))]))
}

/// The hashes of a set's files, by their names.
pub fn hashes(set: &FeatureSet) -> Result<Value> {
    Ok(set.digests()?.into_iter().map(|(name, sha)| (name, Value::String(sha))).collect())
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("--ood=a/b.npy"), "--ood=a/b.npy");
        assert_eq!(quoted("knn(k=50)"), "'knn(k=50)'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
