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
    /// A table of text: `.csv`, `.tsv`, also compressed.
    Csv,
}

impl FileFormat {
    const ALL: [FileFormat; 5] = [
        FileFormat::Safetensors,
        FileFormat::Npy,
        FileFormat::Npz,
        FileFormat::Memmap,
        FileFormat::Csv,
    ];

    /// The ending of names, without the dot.
    pub fn ending(self) -> &'static str {
        match self {
            FileFormat::Safetensors => "safetensors",
            FileFormat::Npy => "npy",
            FileFormat::Npz => "npz",
            FileFormat::Memmap => "mmap",
            FileFormat::Csv => "csv",
        }
    }

    /// The format that a file's name tells, in capitals or not.
    pub fn of(path: impl AsRef<Path>) -> Option<Self> {
        let path = path.as_ref();
        let ending = path.extension()?;
        if ending.eq_ignore_ascii_case("gz") {
            return Self::of(path.file_stem()?).filter(|f| *f == FileFormat::Csv);
        }
        if ending.eq_ignore_ascii_case("tsv") {
            return Some(FileFormat::Csv);
        }
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
        let tables = ["a.csv", "a.TSV", "a.csv.gz", "a.tsv.GZ"].map(FileFormat::of);
        assert_eq!(tables, [Some(FileFormat::Csv); 4]);
        assert_eq!(FileFormat::of("a.npy.gz"), None);
        assert_eq!(FileFormat::Npy.file("avg"), "avg.npy");
    }
}
