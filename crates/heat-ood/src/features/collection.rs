//! Several feature sets in one directory, each by its name.

use std::path::{Path, PathBuf};

use super::{FeatureSet, FileFormat, HEAD, OpenOptions};
use crate::error::{Error, Result};

/// The name of the ID rows among the sets of a directory whose others play OOD.
pub const ID_SET: &str = "id";

impl FeatureSet {
    /// Open every feature set of a directory: its sub-directories, and its `.safetensors`, `.npy`,
    /// `.npz` and `.csv` files, each by its name without the ending, in the order of the names.
    /// What is hidden, and a `head.safetensors`, is passed over.
    ///
    /// # Errors
    /// If there is none, two have one name, or one cannot be opened.
    pub fn open_each(
        directory: impl AsRef<Path>,
        options: &OpenOptions,
    ) -> Result<Vec<(String, FeatureSet)>> {
        let directory = directory.as_ref();
        let expected = "expected a directory with one feature set a kind, in sub-directories or \
                        in .safetensors, .npy, .npz or .csv files";
        if directory.is_file() {
            return Err(Error::format(directory, format!("is a file; {expected}")));
        }
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(Error::io("list", directory))? {
            let path = entry.map_err(Error::io("list", directory))?.path();
            found.extend(name_of(&path).map(|name| (name, path)));
        }
        found.sort();
        if let Some(twice) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let problem = format!(
                "there are two sets of this name: {} and {}",
                twice[0].1.display(),
                twice[1].1.display()
            );
            return Err(Error::format(directory.join(&twice[0].0), problem));
        }
        if found.is_empty() {
            return Err(Error::format(directory, format!("holds no feature set; {expected}")));
        }
        let open = |(name, path)| Ok((name, FeatureSet::open_with(path, options)?));
        found.into_iter().map(open).collect()
    }
}

/// The name of the set at `path`, if one may be there.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    if name.starts_with('.') || name == HEAD {
        return None;
    }
    if path.is_dir() {
        return Some(name);
    }
    let format = FileFormat::of(path).filter(|format| *format != FileFormat::Memmap)?;
    // `.csv.gz` has two endings.
    let stem = name.rsplit_once('.').map_or(&*name, |(stem, _)| stem);
    let inner = stem.rsplit_once('.').filter(|_| format == FileFormat::Csv && name.ends_with("gz"));
    Some(inner.map_or(stem, |(stem, _)| stem).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn sets_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let open = || FeatureSet::open_each(path, &OpenOptions::default());
        assert!(open().err().unwrap().to_string().contains("holds no feature set"));
        let table = "a,b\n1,2\n3,4\n";
        fs::create_dir(path.join("zoom")).unwrap();
        let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
        npy.extend(format!("{header:<117}\n").bytes());
        npy.extend([1f32, 2.0].map(f32::to_le_bytes).concat());
        fs::write(path.join("zoom/avg.npy"), npy).unwrap();
        for file in ["blur.csv", "surrogates.json", ".heat-x.tmp", "notes.txt", "head.safetensors"]
        {
            fs::write(path.join(file), table).unwrap();
        }
        let sets = open().unwrap();
        let found: Vec<_> = sets.iter().map(|(name, set)| (&**name, set.len())).collect();
        assert_eq!(found, [("blur", 2), ("zoom", 1)]);
        fs::write(path.join("zoom.csv"), table).unwrap();
        assert!(open().err().unwrap().to_string().contains("two sets of this name"));
        let file = FeatureSet::open_each(path.join("blur.csv"), &OpenOptions::default());
        assert!(file.err().unwrap().to_string().contains("is a file; expected a directory"));
        let absent = FeatureSet::open_each(path.join("absent"), &OpenOptions::default());
        assert!(absent.err().unwrap().to_string().contains("does not exist"));
    }
}
