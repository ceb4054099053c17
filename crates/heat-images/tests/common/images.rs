//! Images and what is expected of them (`golden/make_images.py`).

use std::fs;
use std::path::{Path, PathBuf};

use heat_images::{Format, ImageDataset, ImageOptions, open};

pub fn golden(name: &str) -> PathBuf {
    super::path("images").join(name)
}

/// Shape and bytes of an expected array.
pub fn expected(name: &str) -> (Vec<usize>, Vec<u8>) {
    let bytes = fs::read(golden("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    (tensor.shape().to_vec(), tensor.data().to_vec())
}

pub fn options(format: Option<Format>, split: &str) -> ImageOptions {
    let split = (!split.is_empty()).then(|| split.into());
    ImageOptions { format, split, ..ImageOptions::default() }
}

/// What is said of a path that is refused.
pub fn refusal(path: impl AsRef<Path>, options: &ImageOptions) -> String {
    let path = path.as_ref();
    open(path, options).err().unwrap_or_else(|| panic!("{} opens", path.display())).to_string()
}

/// A directory with copies of one image under these names.
pub fn copies(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(golden("rgb.png"), path).unwrap();
    }
}

/// Names and labels of all images.
pub fn rows(set: &dyn ImageDataset) -> Vec<(String, Option<u32>)> {
    (0..set.len())
        .map(|i| (set.place(i).rsplit('/').next().unwrap().to_owned(), set.label(i)))
        .collect()
}

pub fn want(rows: &[(&str, Option<u32>)]) -> Vec<(String, Option<u32>)> {
    rows.iter().map(|(n, l)| (n.to_string(), *l)).collect()
}
