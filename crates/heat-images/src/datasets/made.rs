//! How images were made of others, as a manifest keeps it.

use serde::{Deserialize, Serialize};

/// How a set's images were made of those of another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// What was done to them.
    pub kind: String,
    /// Seed of all choices.
    pub seed: u64,
    /// The images that they are made of.
    pub of: MadeOf,
}

/// The images that others are made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MadeOf {
    /// Name of the data set.
    pub dataset: String,
    /// Images of it.
    #[serde(rename = "given")]
    pub images: usize,
    /// Those that could be read and are in no excluded set.
    pub used: usize,
    /// SHA-256 of their numbers.
    pub used_sha256: String,
    /// Sets whose images were left out. Where there is none, these are the images given: of the
    /// training set, if that was given.
    pub excluded: Vec<Excluded>,
    /// By which two images are of different classes, where two are mixed.
    pub classes: MixedClasses,
}

/// A set whose images were left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Excluded {
    /// Where it came from.
    pub set: String,
    /// Name and SHA-256 of each of its files.
    pub files: Vec<(String, String)>,
    /// Images that are in it and in none of the sets before it.
    pub left_out: usize,
}

/// By which two images are of different classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MixedClasses {
    /// Their labels.
    Labels,
    /// What the network says of them.
    Predicted,
    /// Neither is there, or all are of one class: any two images.
    None,
}
