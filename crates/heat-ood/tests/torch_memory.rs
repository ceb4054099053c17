//! What reading a PyTorch checkpoint allocates: four times the file's size, or
//! 32 MiB if that is more, whatever the file says.
//!
//! Its own test binary, because the allocator counts for the whole process.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::path;
use heat_ood::ebm::mlp::{Architecture, Mlp};
use heat_ood::ebm::torch::{self, ReadOptions};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::SeqCst) + layout.size();
        MOST.fetch_max(now, Ordering::SeqCst);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FLOOR: usize = 32 << 20;

/// The most bytes allocated at once while a file is read, and whether it was.
fn peak(path: &Path) -> (usize, bool) {
    let before = NOW.load(Ordering::SeqCst);
    MOST.store(before, Ordering::SeqCst);
    let read = torch::read(path, &ReadOptions::default()).is_ok();
    (MOST.load(Ordering::SeqCst) - before, read)
}

fn archive(entries: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(name, options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    archive([("a/data.pkl".to_owned(), [b"\x80\x02", pickle, b"."].concat())])
}

fn unicode(length: usize) -> Vec<u8> {
    [b"X", &(length as u32).to_le_bytes()[..], &vec![b'k'; length]].concat()
}

/// Pickles that are small and mean much.
fn bombs() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add = |name: &str, pickle: Vec<u8>| all.push((name.to_owned(), with_pickle(&pickle)));
    // Many objects, few bytes each, on both sides of the budget.
    let many: [(&str, &[u8]); 12] = [
        ("none", b"N"),
        ("tuples", b")"),
        ("lists", b"]"),
        ("dicts", b"}"),
        ("marks", b"("),
        ("nested", b"(("),
        ("kept", b"N\x94"),
        ("doubled", b"N2"),
        ("text", b"U\x01a"),
        ("filled", b"}K\x01Ns"),
        ("pairs", b"NN\x86"),
        ("classes", b"ca\nb\n"),
    ];
    for (name, unit) in many {
        for n in [20_000, 40_000, 60_000, 120_000, 2_000_000] {
            add(&format!("{name} {n}"), [b"(", &unit.repeat(n)[..], b"l"].concat());
        }
    }
    // Copies of copies; of one long text; of one long class name.
    add("doubling", [b"Nq\x00".to_vec(), b"h\x00h\x00\x86q\x00".repeat(40)].concat());
    add("dup", [b"N".to_vec(), b"2\x86".repeat(60)].concat());
    let copies = b"h\x00".repeat(30_000);
    add("long text", [b"(", &unicode(1 << 16)[..], b"q\x00", &copies, b"l"].concat());
    let class = [b"c", &vec![b'm'; 1 << 16][..], b"\nn\n"].concat();
    add("long class", [b"(", &class[..], b"q\x00", &copies, b"l"].concat());
    // A module that is remembered empty and fetched full.
    let full =
        [&b"(cm\nM\n)\x81q\x00(X\x01\x00\x00\x00a]("[..], &b"N".repeat(2000), b"edb"].concat();
    add("module", [&full[..], &copies, b"l"].concat());
    // Names that repeat one long key for every tensor.
    let tensor =
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n\
        X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00))\x89NtR";
    let list = [&tensor[..], b"q\x00", &b"h\x00".repeat(9000), b"l"].concat();
    add("names", [b"}", &unicode(1 << 16)[..], b"(", &list, b"s"].concat());
    // Deeper than a stack would hold.
    add("deep", [b"]".repeat(100_000), b"a".repeat(99_999)].concat());
    all
}

/// Archives that lie about their directory or have little else.
fn directories() -> Vec<(String, Vec<u8>)> {
    let whole = fs::read(path("torch").join("bare.pt")).unwrap();
    let end = whole.len() - 22;
    let mut all = Vec::new();
    for (name, at) in [("entries", end + 10), ("size", end + 12), ("place", end + 16)] {
        let mut bytes = whole.clone();
        bytes[at..at + 2].copy_from_slice(&[0xff; 2]);
        all.push((name.to_owned(), bytes.clone()));
        // Without the longer record that has the same numbers.
        bytes.drain(end - 76..end);
        all.push((format!("{name}, short"), bytes));
    }
    for at in [end - 76 + 24, end - 76 + 32, end - 76 + 40, end - 76 + 48] {
        let mut bytes = whole.clone();
        bytes[at..at + 7].copy_from_slice(&[0xff; 7]);
        all.push((format!("long record {at}"), bytes));
    }
    let many = (0..60_000).map(|i| (format!("a/{i}"), Vec::new()));
    all.push(("many entries".into(), archive(many)));
    all
}

#[test]
fn memory_is_in_proportion_to_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.pt");
    // A directory with two records is read by the one that counts.
    let bombs = bombs().into_iter().map(|bomb| (bomb, false));
    for ((name, bytes), may_be_read) in bombs.chain(directories().into_iter().map(|d| (d, true))) {
        fs::write(&file, &bytes).unwrap();
        let (peak, read) = peak(&file);
        assert!(!read || may_be_read, "{name}");
        let most = FLOOR.max(4 * bytes.len());
        assert!(peak <= most, "{name}: {peak} bytes for a file of {}", bytes.len());
    }
    let architecture = Architecture {
        input_dim: 512,
        hidden_dim: 1024,
        n_hidden_layers: 4,
        tied: true,
        tapered: false,
    };
    let untied = Architecture { n_hidden_layers: 2, tied: false, ..architecture };
    for architecture in [architecture, untied] {
        torch::write(&file, &Mlp::new(architecture, 1).unwrap()).unwrap();
        let length = fs::metadata(&file).unwrap().len() as usize;
        // The network itself takes three times its parameters.
        let (peak, read) = peak(&file);
        assert!(read && peak <= 4 * length, "{peak} bytes for a file of {length}");
    }
}
