//! Tests of the public interface, in one program: linking a dozen takes longer than running them.

#[path = "../common/mod.rs"]
mod common;

mod backbone;
mod bad_images;
mod cases;
mod devices;
mod formats;
mod images;
mod lsun;
mod networks;
mod places;
mod resnets;
mod stale;
mod surrogates;
