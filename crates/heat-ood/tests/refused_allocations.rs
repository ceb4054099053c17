//! What a file says of itself allocates no more than four times the file, or the memory
//! limit if that is more: an allocator that refuses everything above ends the process.
//!
//! Its own test binary, because the allocator counts for the whole process.

#[path = "common/bytes.rs"]
mod bytes;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{f32s, i64s, npy};
use heat_ood::features::{FeatureSet, Field, Head, Pooling};
use heat_ood::io::set_memory_limit;
use heat_ood::math::parallel;
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Silent, TrainingData};

/// What is allowed at once. Larger requests get no memory.
const LIMIT: usize = 48 << 20;

struct Refusing;

static NOW: AtomicUsize = AtomicUsize::new(0);

// SAFETY: what is granted comes from the system's allocator; null is a refusal.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if NOW.fetch_add(layout.size(), Ordering::SeqCst) + layout.size() > 3 * LIMIT
            || layout.size() > LIMIT
        {
            NOW.fetch_sub(layout.size(), Ordering::SeqCst);
            return std::ptr::null_mut();
        }
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
static ALLOCATOR: Refusing = Refusing;

const FITS: &str = "msp max_logit el klm gen temperature gmm ssd rmds mean norm knn(k=1) kpca vim \
                    residual she cosine fdbd cadref pnml gmm(pca=1) neco";

/// Open it, read everything, and fit everything on it; errors are as good as results.
fn work(path: &Path) {
    let Ok(set) = FeatureSet::open(path) else { return };
    let _ = (set.classes(), set.class_names(), set.check_logits(None));
    let avg = Field::Features(Pooling::Avg);
    let dim = set.dim(avg).unwrap_or(1);
    let head = (dim < 1 << 17).then(|| Head::new(vec![0.5; 3 * dim], vec![0.0; 3]).unwrap());
    for spec in FITS.split_whitespace() {
        let spec = ScorerSpec::parse(spec).unwrap();
        for data in [TrainingData::new(&set), TrainingData::new(&set).with_head(head.as_ref())] {
            let fitted = spec.fit(&data, &mut Silent);
            let _ = fitted.map(|scorer| scorer.score(&set));
        }
    }
}

fn zip(entries: &[(&str, Vec<u8>)], method: zip::CompressionMethod) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn nothing_that_a_file_says_is_believed() {
    set_memory_limit(LIMIT / 2);
    // What the threads need for themselves is no promise of a file, and grows with their number.
    parallel::set_threads(2).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        work(&path);
    };
    let (stored, deflated) = (zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated);
    // Labels of 999,999 and more, in sets of a few rows, narrow and wide.
    for dim in [1, 64, 6000] {
        for label in [999_999, 1 << 19, (1 << 20) - 1, 1 << 40, i64::MAX - 1, i64::MAX] {
            let rows = 4;
            let avg: Vec<f32> = (0..rows * dim).map(|i| (i % 7) as f32 + 1.0).collect();
            let avg = npy("<f4", false, &format!("({rows}, {dim})"), &f32s(&avg));
            let y = npy("<i8", false, "(4,)", &i64s(&[0, 0, label, label]));
            file("x.npz", &zip(&[("avg.npy", avg), ("label.npy", y)], stored));
        }
    }
    // One row of many columns: no covariance of 160 GB.
    let wide = npy("<f2", false, "(1, 131072)", &vec![0x3c; 2 * 131_072]);
    file("x.npy", &wide);
    // What is compressed a thousandfold.
    let zeros = npy("<f4", false, "(4000, 8000)", &vec![0; 4 * 8_000_000]);
    file("x.npz", &zip(&[("avg.npy", zeros)], deflated));
    // Headers that promise more than is there.
    for shape in
        ["(99999999, 999)", "(4611686018427387904, 1)", "(1, 4611686018427387904)", "(0, 5)"]
    {
        for order in [false, true] {
            for kind in ["<f4", ">f8", "<U9", "|S1048576", "<i8"] {
                file("x.npy", &npy(kind, order, shape, &[0; 64]));
            }
        }
    }
    // Tables: one long line, many short ones, many names, a bomb.
    file("x.csv", &b"1,".repeat(400_000));
    file("x.csv", &b"1\n".repeat(4000));
    let names: String = (0..4000).map(|i| format!("1,n{i}\n")).collect();
    file("x.csv", format!("a,label\n{names}").as_bytes());
    file("x.csv", format!("a,label\n1,{}\n", "x".repeat(1 << 20)).as_bytes());
    let bomb = {
        use std::io::Write;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..200 {
            gz.write_all(&b"1,2,3,4,5,6,7,8\n".repeat(65_536)).unwrap();
        }
        gz.finish().unwrap()
    };
    file("x.csv.gz", &bomb);
    // A line without end, and a quote, of which little is in the file.
    for start in ["", "a,label\n1,\""] {
        use std::io::Write;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(start.as_bytes()).unwrap();
        for _ in 0..200 {
            gz.write_all(&b"1".repeat(1 << 20)).unwrap();
        }
        file("x.csv.gz", &gz.finish().unwrap());
    }
    // One number of which the text has no end.
    file("x.csv", &[b"1\n".as_slice(), &b"1".repeat(3 << 20)].concat());
}
