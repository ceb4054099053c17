//! Expected values made with other tools, by the scripts in `golden/`.
#![allow(dead_code)]

#[path = "../../../heat-ood/tests/common/bytes.rs"]
pub mod bytes;
pub mod images;

use std::io::Write;
use std::path::PathBuf;

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Relative to the size of the value, floored at the spread of the array: a
/// difference that no ranking could notice.
pub fn close(name: &str, got: &[f32], want: &[f32], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{name}");
    let size = (want.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / want.len() as f64).sqrt();
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let (g, w) = (f64::from(g), f64::from(w));
        let error = (g - w).abs() / w.abs().max(size).max(1e-30);
        assert!(error <= tolerance, "{name}[{i}]: got {g}, expected {w} ({error:.1e})");
    }
}

/// Whether networks can be run here.
pub fn runtime(test: &str) -> bool {
    let found = heat_images::backbone::find_library(None);
    if let Err(error) = &found {
        // Past the harness, which keeps what passing tests print to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {error}");
    }
    found.is_ok()
}
