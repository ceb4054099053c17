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
mod lock;
mod mapped;
mod memory;
mod npy;
mod npy_header;
mod npy_text;
mod regular;
mod temporary;
mod tensors;
mod texts;
mod write;
mod zip_directory;

pub use bytes::{Bytes, map, map_file, mapping, set_mapping, sha256, sha256_of};
pub use floats::Floats;
pub use kind::{NPY, ONNX, SAFETENSORS, kind_of};
pub use lock::{held, hold};
pub use mapped::mapped_file;
pub use memory::{free_memory, memory_limit, readable, set_memory_limit};
pub use npy_header::Header as NpyHeader;
pub use regular::{open_own, open_regular, read_bounded, read_text};
pub use temporary::{hidden_name, remove_abandoned};
pub(crate) use tensors::Encoded;
pub use tensors::{Tensor, TensorData, TensorFile, encode_tensors, save_tensors, sealed_tensors};
pub use write::{
    check_writable, destination, found, free_space, is_standard_output, parent, refuse_link,
    replace_directory, write_atomically, write_own,
};
pub(crate) use write::{sealed, write_sealed};
pub(crate) use zip_directory::has_crc;
pub use zip_directory::{ZipCheck, zip_entries};

pub(crate) use array::{Array, Dtype, Names};
pub(crate) use budget::Budget;
pub(crate) use bytes::{Stamp, reading, stamps};
pub(crate) use memory::{check_means, check_memory, check_moments};
pub(crate) use npy::{Npz, NpzEntry, element, open_npy, open_npy_texts};
pub(crate) use temporary::is_unfinished;
pub(crate) use texts::{Joined, LONGEST, Texts};
