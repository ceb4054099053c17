//! What the fuzz targets share with the deterministic tests of `heat-ood` and
//! `heat-images` (`tests/fuzz` of each crate): readers, seeds, mutations and
//! the counting allocator are the same code.

#[path = "../../crates/heat-ood/tests/common/bytes.rs"]
pub mod bytes;
pub mod images;
#[path = "../../crates/heat-ood/tests/fuzz/memory.rs"]
pub mod memory;
#[path = "../../crates/heat-ood/tests/fuzz/mutate.rs"]
pub mod mutate;
#[path = "../../crates/heat-ood/tests/fuzz/readers.rs"]
pub mod readers;
#[path = "../../crates/heat-ood/tests/fuzz/seeds.rs"]
pub mod seeds;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use heat_ood::math::parallel;

/// Files made with PyTorch.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/heat-ood/tests/golden");

/// Every reader, by the name of its target.
pub fn all_readers() -> impl Iterator<Item = &'static (&'static str, readers::Reader)> {
    readers::READERS.iter().chain(images::readers::READERS)
}

/// Files for the reader of that name, some of them made in `directory`.
pub fn all_seeds(reader: &str, directory: &Path) -> Vec<Vec<u8>> {
    let of_images = images::readers::READERS.iter().any(|(name, _)| *name == reader);
    if of_images {
        images::seeds::seeds(reader, directory)
    } else {
        seeds::seeds(reader, directory)
    }
}

/// The seeds of a target, made once.
fn seeds_of(reader: &str) -> &'static [Vec<u8>] {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| all_seeds(reader, &directory()))
}

/// A directory of this process, in memory where the system has such a place.
fn directory() -> PathBuf {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = DIRECTORY.get_or_init(|| {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
    });
    made.path().to_owned()
}

/// Give `input` to the reader of that name.
///
/// # Panics
/// If the reader panics or allocates too much: a finding.
pub fn check(reader: &str, input: &[u8]) {
    let (_, read) = all_readers().find(|(name, _)| *name == reader).expect("a reader");
    let directory = directory();
    // Within the pool, so that no part of the work waits for a thread to wake.
    parallel::run(|| {
        memory::bounded(memory::growth(reader) * input.len(), || read(&directory, input))
    });
}

/// Change `data[..size]` in place by libFuzzer's own mutations or, half the
/// time, by those that know the formats; returns the new size.
pub fn change(reader: &str, data: &mut [u8], size: usize, most: usize, seed: u32) -> usize {
    let mut random = mutate::Random(u64::from(seed));
    if random.below(2) == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, most);
    }
    let seeds = seeds_of(reader);
    let other = &seeds[random.below(seeds.len())];
    let changed = mutate::mutate(&data[..size], other, &mut random);
    let length = changed.len().min(most).min(data.len());
    data[..length].copy_from_slice(&changed[..length]);
    length
}

/// The body of a target.
#[macro_export]
macro_rules! target {
    ($reader:literal) => {
        #[global_allocator]
        static ALLOCATOR: $crate::memory::Counting = $crate::memory::Counting;

        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::check($reader, input));

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
            $crate::change($reader, data, size, most, seed)
        });
    };
}
