//! Images to features: the published data sets, decoding, transforms, and the
//! classifiers that make features of them.
//!
//! An [`ImageDataset`] gives its images one by one, in any order, and decodes
//! none before it is asked for; [`open`] tells the format from the files.
//! [`backbone`] runs a classifier on them, and [`backbone::extract`] makes the
//! feature set that the scorers of `heat-ood` read. The settings
//! ([`ImageOptions`], [`TransformConfig`]) are those of `heat_ood::recipe`.
//!
//! Like `heat-ood`, this crate never prints and never panics on input.

pub mod backbone;
mod datasets;
mod decode;
pub mod surrogates;
mod transform;
mod views;

pub use datasets::{
    Excluded, ImageDataset, ImageSubset, Made, MadeOf, MixedClasses, open, open_all,
};
pub use decode::{Image, MAX_PIXELS, decode, decode_within};
pub use heat_ood::recipe::{Filter, Format, ImageOptions, Resize, TransformConfig};
pub use transform::Transform;
