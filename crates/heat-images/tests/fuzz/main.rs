//! Readers of images and classifiers on damaged files: no panic, no hang, and
//! at most four times the file's size allocated (or 32 MiB, if that is more),
//! eight times by archives and lists of images.
//!
//! A short, deterministic version of the fuzzing in `fuzz/` at the root of the
//! repository, with the same readers and seeds; `HEAT_FUZZ_ROUNDS` makes it
//! longer. Its own test binary, because the allocator counts for the whole
//! process.

mod bombs;
mod found;
#[path = "../../../heat-ood/tests/fuzz/harness.rs"]
mod harness;
#[path = "../../../heat-ood/tests/fuzz/memory.rs"]
mod memory;
#[path = "../../../heat-ood/tests/fuzz/mutate.rs"]
mod mutate;
mod readers;
mod seeds;

use harness::fuzz;
use memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Files made with other tools.
const IMAGE_GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

#[test]
fn image() {
    fuzz("image", 20000);
}

#[test]
fn image_archive() {
    fuzz("image_archive", 2000);
}

#[test]
fn cifar() {
    fuzz("cifar", 2000);
}

#[test]
fn image_arrays() {
    fuzz("image_arrays", 2000);
}

#[test]
fn svhn() {
    fuzz("svhn", 2000);
}

#[test]
fn idx() {
    fuzz("idx", 2000);
}

#[test]
fn image_lists() {
    fuzz("image_lists", 1000);
}

#[test]
fn lsun() {
    fuzz("lsun", 2000);
}

#[test]
fn onnx() {
    fuzz("onnx", 3000);
}

#[test]
fn small_files_that_mean_much() {
    harness::small_files();
}
