//! The kernels themselves, for benchmarks. They change without notice: this
//! module is there only with the feature `kernels`.

pub use super::linalg::product_nt;
pub use super::matmul::{Aligned, Epilogue, Keep, Packed, View, gemm, gemm_add};
pub use super::moments::Moments;
