//! HEAT's chains and loss gradients on a card: an [`Engine`](heat_ood::ebm::engine::Engine) for
//! [`heat_ood`].
//!
//! Read in this order: [`plan`] (what is done, in which order, of shapes alone), `kernels/kernels.cu`
//! (how a card does each step), [`launch`] (which kernel, with what), [`mirror`] (the same steps on the processor: how plans are tested
//! without a card), [`engine`] (what is brought to a device, and when), [`place`] (from
//! `cuda:0` to an engine), `driver` (the card itself, with the feature `cuda`).
//!
//! Noise, projection and everything else that is done element by element have the bits that the
//! processor's engine gives; a card's results differ by the rounding of its matrix products alone.

pub mod device;
#[cfg(feature = "cuda")]
pub mod driver;
pub mod engine;
pub mod launch;
pub mod mirror;
pub mod place;
pub mod plan;

/// The source of everything but the products.
pub const KERNELS: &str = include_str!("kernels/kernels.cu");
