//! The Open Inference Protocol, version 2, over HTTP, with its binary extension.
//!
//! Written down at <https://github.com/kserve/open-inference-protocol>; the binary extension in
//! Triton's `docs/protocol/extension_binary_data.md`. Bodies are JSON, after which tensors may
//! follow as bytes; the header [`LENGTH`] then says how long the JSON is. Clients label their bodies
//! in many ways or not at all, so that header alone decides.

mod answer;
#[cfg(test)]
pub mod fuzz;
mod json;
mod numbers;
mod parameters;
mod request;
pub mod wire;

pub use answer::{Answer, Column, encode};
pub use json::{LONGEST_NAME, MOST_INPUTS, MOST_OUTPUTS, MOST_SIDES};
pub use parameters::{Given, LONGEST_SETTING, Setting, parameters};
pub use request::{
    Asked, Contents, Input, LONGEST_ID, Request, Values, check_id, parse, raw, tensor,
};

/// The header that says how many bytes of a body are JSON.
pub const LENGTH: &str = "inference-header-content-length";

/// Types of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool,
    /// Integers.
    Uint8,
    /// Integers.
    Int64,
    /// Half precision.
    Fp16,
    /// Half precision with the exponent of single precision.
    Bf16,
    /// Single precision.
    Fp32,
    /// Double precision.
    Fp64,
    /// Strings of bytes.
    Bytes,
}

impl Datatype {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Datatype::Bool => "BOOL",
            Datatype::Uint8 => "UINT8",
            Datatype::Int64 => "INT64",
            Datatype::Fp16 => "FP16",
            Datatype::Bf16 => "BF16",
            Datatype::Fp32 => "FP32",
            Datatype::Fp64 => "FP64",
            Datatype::Bytes => "BYTES",
        }
    }

    /// That of a word, of those that inputs may have.
    pub fn of_input(name: &str) -> Option<Self> {
        use Datatype::*;
        [Uint8, Fp16, Bf16, Fp32, Fp64, Bytes].into_iter().find(|t| t.name() == name)
    }

    /// Bytes of an element, where all have as many.
    fn size(self) -> Option<usize> {
        match self {
            Datatype::Bool | Datatype::Uint8 => Some(1),
            Datatype::Fp16 | Datatype::Bf16 => Some(2),
            Datatype::Fp32 => Some(4),
            Datatype::Fp64 | Datatype::Int64 => Some(8),
            Datatype::Bytes => None,
        }
    }
}
