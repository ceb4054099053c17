//! The file formats of features, told by the endings of names.

use std::path::Path;

/// A format of files that features, labels or a head are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Named tensors.
    Safetensors,
    /// One array of numpy's.
    Npy,
    /// Named arrays of numpy's, in a zip.
    Npz,
    /// A raw array of the published code's.
    Memmap,
}

impl FileFormat {
    const ALL: [FileFormat; 4] =
        [FileFormat::Safetensors, FileFormat::Npy, FileFormat::Npz, FileFormat::Memmap];

    /// The ending of names, without the dot.
    pub fn ending(self) -> &'static str {
        match self {
            FileFormat::Safetensors => "safetensors",
            FileFormat::Npy => "npy",
            FileFormat::Npz => "npz",
            FileFormat::Memmap => "mmap",
        }
    }

    /// The format that a file's name tells, in capitals or not.
    pub fn of(path: impl AsRef<Path>) -> Option<Self> {
        let ending = path.as_ref().extension()?;
        Self::ALL.into_iter().find(|f| ending.eq_ignore_ascii_case(f.ending()))
    }

    /// The name of a file of this format.
    pub(super) fn file(self, stem: &str) -> String {
        format!("{stem}.{}", self.ending())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_format() {
        assert_eq!(FileFormat::of("a/b.NPZ"), Some(FileFormat::Npz));
        assert_eq!(FileFormat::of("feat.mmap"), Some(FileFormat::Memmap));
        assert_eq!(FileFormat::of("x.safetensors.bak"), None);
        assert_eq!(FileFormat::of("npy"), None);
        assert_eq!(FileFormat::Npy.file("avg"), "avg.npy");
    }
}
