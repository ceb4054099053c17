//! Features of a classifier: how they are stored, read and transformed.
//!
//! A [`FeatureSet`] is a read-only view of N rows, memory-mapped and read by
//! block: no operation needs memory proportional to N·D. Fields: `avg`, `std`,
//! `max` (pooled features, `[N, D]`), `logits` or `probs` (`[N, C]`), `gram`, `rankfeat`, `nac` and
//! `graduncertainty` (what some scorers want of a map or a gradient), `label` (`[N]`), and names of the rows. The same of other layers and views of
//! the image stand beside them, as `PART.avg`:
//! [`FeatureSet::part`] gives a set of these.

mod batch;
mod classes;
mod collection;
mod convert;
mod field;
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
mod reduced;
mod sanity;
mod set;
mod shard;
mod sketch;
mod stream;
mod subset;
mod table;
mod unnamed;
mod view;
mod whole_labels;

pub use batch::{Batch, FieldSet};

pub use collection::ID_SET;
pub use convert::{
    ConvertConfig, Converted, FloatType, Form, RowsFile, convert, encode_rows, write_rows,
};
pub use field::{Field, Part, PartField, Pooling};
pub use formats::FileFormat;
pub use head::Head;
pub(crate) use head::MAX_DIM;
pub use memory::{ByteOwner, InMemory, Matrix, Owner};
pub(crate) use numbering::Present;
pub use open::OpenOptions;
pub use origin::Origin;
pub(crate) use preprocessing::Sought;
pub use preprocessing::{Pca, Preprocessing, PreprocessingConfig};
pub use reduced::{
    GRAM_POWERS, beyond_uniform, gram_rows, mean_without_first, signed_root, signed_square,
};
pub(crate) use set::Description;
pub use set::{FeatureSet, HEAD, RowNames};
pub use sketch::{Overlap, RowSketch};
pub use stream::{FeatureStream, StreamForm};
pub use subset::{Subset, SubsetConfig};
pub use view::{MIRROR, View};
