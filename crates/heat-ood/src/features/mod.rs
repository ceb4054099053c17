//! Features of a classifier: how they are stored, read and transformed.
//!
//! A [`FeatureSet`] is a read-only view of N rows, memory-mapped and read by
//! block: no operation needs memory proportional to N·D. Fields: `avg`, `std`,
//! `max` (pooled features, `[N, D]`), `logits` or `probs` (`[N, C]`), `label` (`[N]`), and names of
//! the rows.

mod batch;
mod classes;
mod collection;
mod convert;
mod formats;
mod head;
mod labels;
mod memmap;
mod memory;
mod names;
mod numbering;
mod open;
mod origin;
mod preprocessing;
mod sanity;
mod set;
mod shard;
mod sketch;
mod stream;
mod subset;
mod table;
mod unnamed;
mod whole_labels;

pub use batch::{Batch, FieldSet};

pub use convert::{
    ConvertConfig, Converted, FloatType, Form, RowsFile, convert, encode_rows, write_rows,
};
pub use formats::FileFormat;
pub use head::Head;
pub(crate) use head::MAX_DIM;
pub use memory::{ByteOwner, InMemory, Matrix, Owner};
pub(crate) use numbering::Present;
pub use open::OpenOptions;
pub use origin::Origin;
pub use preprocessing::{Pca, Preprocessing, PreprocessingConfig};
pub use set::{FeatureSet, HEAD, RowNames};
pub use sketch::{Overlap, RowSketch};
pub use stream::{FeatureStream, StreamForm};
pub use subset::{Subset, SubsetConfig};

use serde::{Deserialize, Serialize};

/// Which pooled features a scorer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the feature map.
    #[default]
    Avg,
    /// Standard deviation over the feature map.
    Std,
    /// Maximum over the feature map.
    Max,
}

impl Pooling {
    /// The field's name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Avg => "avg",
            Pooling::Std => "std",
            Pooling::Max => "max",
        }
    }
}

/// A matrix of a feature set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Pooled features.
    Features(Pooling),
    /// The classifier's outputs.
    Logits,
    /// Its probabilities, where there are no logits.
    Probabilities,
}

/// Number of fields.
pub(crate) const FIELDS: usize = 5;

impl Field {
    pub(crate) const ALL: [Field; FIELDS] = [
        Field::Features(Pooling::Avg),
        Field::Features(Pooling::Std),
        Field::Features(Pooling::Max),
        Field::Logits,
        Field::Probabilities,
    ];

    pub(crate) fn index(self) -> usize {
        match self {
            Field::Features(p) => p as usize,
            Field::Logits => 3,
            Field::Probabilities => 4,
        }
    }

    /// The field's name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Field::Features(p) => p.name(),
            Field::Logits => "logits",
            Field::Probabilities => "probs",
        }
    }
}
