//! What is shared with the deterministic tests of `heat-images`.

#[path = "../../crates/heat-images/tests/fuzz/readers.rs"]
pub mod readers;
#[path = "../../crates/heat-images/tests/fuzz/seeds.rs"]
pub mod seeds;

/// Images and classifiers made with other tools.
const IMAGE_GOLDEN: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/heat-images/tests/golden");
