//! Files below the level of features: bytes, named tensors, numpy arrays,
//! writes that leave a whole file or none.
//!
//! Everything read here may come from a stranger: what a file says of itself
//! is checked before memory is set aside for it, and at most four times its
//! size (or 32 MiB) is; for rows that cannot be mapped, what [`memory_limit`] says.

mod array;
mod budget;
mod bytes;
pub(crate) mod digest;
mod floats;
mod kind;
mod mapped;
mod memory;
mod npy;
mod npy_header;
mod npy_text;
mod regular;
mod temporary;
mod tensors;
mod write;
mod zip_directory;

pub use bytes::{Bytes, map, map_file, mapping, set_mapping, sha256, sha256_of};
pub use floats::Floats;
pub use kind::{SAFETENSORS, kind_of};
pub use mapped::mapped_file;
pub use memory::{memory_limit, set_memory_limit};
pub use npy_header::Header as NpyHeader;
pub use regular::{open_own, open_regular, read_bounded, read_text};
pub use temporary::remove_abandoned;
pub(crate) use tensors::Encoded;
pub use tensors::{Tensor, TensorData, TensorFile, encode_tensors, save_tensors};
pub(crate) use write::write_sealed;
pub use write::{destination, is_standard_output, refuse_link, write_atomically, write_own};
pub(crate) use zip_directory::has_crc;
pub use zip_directory::{ZipCheck, zip_entries};

pub(crate) use array::{Array, Dtype, Names};
pub(crate) use budget::Budget;
pub(crate) use bytes::{Stamp, reading, stamps};
pub(crate) use memory::{check_means, check_memory, check_moments, readable};
pub(crate) use npy::{Npz, NpzEntry, open_npy};
pub(crate) use temporary::is_unfinished;
pub(crate) use write::parent;
