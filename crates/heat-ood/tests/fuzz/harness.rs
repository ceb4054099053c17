//! Damaged files given to readers, one test at a time, within a time and a
//! bound on memory.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use heat_ood::math::parallel;

use super::bombs::bombs;
use super::memory::{bounded, growth};
use super::mutate::{Random, mutate};
use super::readers::READERS;
use super::seeds::seeds;

/// One test at a time, because the allocator counts for all.
static ALONE: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    // What cannot be mapped may take no more than anything else here.
    heat_ood::io::set_memory_limit(super::memory::FLOOR);
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Far more than any input takes, on a busy machine too.
const HANG: Duration = Duration::from_secs(10);

/// Give `input` to the reader of that name.
pub fn check(reader: &str, directory: &Path, input: &[u8]) {
    let (_, read) = READERS.iter().find(|(name, _)| *name == reader).unwrap();
    let start = Instant::now();
    bounded(growth(reader) * input.len(), || read(directory, input));
    assert!(start.elapsed() < HANG, "{reader}: took {:?}", start.elapsed());
}

/// Mutated seeds; a failure leaves its input in the temporary directory.
pub fn fuzz(reader: &str, rounds: u64) {
    let _alone = alone();
    // On one thread of the pool, so that no input waits for others to wake.
    parallel::with_threads(1, || run(reader, rounds)).unwrap();
}

fn run(reader: &str, rounds: u64) {
    let directory = tempfile::tempdir().unwrap();
    let seeds = seeds(reader, directory.path());
    for seed in &seeds {
        check(reader, directory.path(), seed);
    }
    let more = std::env::var("HEAT_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok());
    for round in 0..more.unwrap_or(rounds) {
        let mut random = Random(round);
        let [seed, other] = [0, 1].map(|_| &seeds[random.below(seeds.len())]);
        let input = mutate(seed, other, &mut random);
        let failed = std::panic::catch_unwind(|| check(reader, directory.path(), &input)).is_err();
        if failed {
            let path = std::env::temp_dir().join(format!("heat-fuzz-{reader}-{round}"));
            std::fs::write(&path, &input).unwrap();
            panic!("{reader}, round {round}: {}", path.display());
        }
    }
}

/// Small files that mean much, with the names of those that are believed.
pub fn small_files() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let mut failed = Vec::new();
    for (reader, name, bytes) in bombs() {
        eprintln!("{reader} {name}");
        let checked = std::panic::catch_unwind(|| check(reader, directory.path(), &bytes));
        failed.extend(checked.is_err().then(|| format!("{reader}: {name}")));
    }
    assert!(failed.is_empty(), "{failed:?}");
}
