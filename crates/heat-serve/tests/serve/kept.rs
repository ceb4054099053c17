//! What the monitor knows, over a restart.

use std::fs;
use std::path::Path;

use heat_serve::{NamedFile, Server, Settings};
use serde_json::Value;

use crate::common::{Running, detector, request, rows};

/// With one detector, which lies in the directory, and keeps its state there.
fn start(directory: &Path, change: impl FnOnce(&mut Settings)) -> Running {
    Running::start(|settings, _| {
        let path = directory.join("one.safetensors");
        settings.detectors = vec![NamedFile { name: "one".into(), path }];
        settings.monitor_state = Some(directory.join("state"));
        change(settings);
    })
}

fn drift(running: &Running) -> Value {
    running.admin("GET", "/heat/v1/models/one/drift").json()
}

fn send(running: &Running, seeds: std::ops::Range<u64>, shift: f32) {
    for seed in seeds {
        assert_eq!(running.infer("one", &request(&rows(1, seed, shift))).status, 200);
    }
}

#[test]
fn a_restart_forgets_nothing() {
    let made = tempfile::tempdir().unwrap();
    detector(&made.path().join("one.safetensors"), "gmm(normalize=false)", 1);
    let mut running = start(made.path(), |_| ());
    send(&running, 10_000..10_150, 0.0);
    send(&running, 20_000..20_150, 2.0);
    running.end();
    let mut running = start(made.path(), |_| ());
    let found = drift(&running);
    assert_eq!((&found["state"], &found["watched_rows"]), (&"drifting".into(), &300.into()));
    assert_eq!(found["rows"], 300);
    assert!(found["alarms"][0]["since"].as_u64().unwrap() > 100, "{found}");
    running.admin("POST", "/heat/v1/models/one/drift/acknowledge");
    running.end();
    let mut running = start(made.path(), |_| ());
    assert_eq!(drift(&running)["state"], "drifting, acknowledged");
    // Clients' names are not in the file.
    assert_eq!(running.admin("GET", "/heat/v1/models/one/recent").json(), serde_json::json!([]));
    running.admin("POST", "/heat/v1/models/one/drift/reset");
    running.end();
    let mut running = start(made.path(), |_| ());
    assert_eq!(drift(&running)["watched_rows"], 0);
    running.end();
    let file = made.path().join("state/one.monitor");
    assert!(fs::metadata(&file).unwrap().len() < 64 << 10);
}

/// The same rows give the same with a restart among them as without.
#[test]
fn evidence_goes_on() {
    let made = tempfile::tempdir().unwrap();
    detector(&made.path().join("one.safetensors"), "gmm(normalize=false)", 1);
    let whole = start(made.path(), |settings| settings.monitor_state = None);
    send(&whole, 10_000..10_120, 0.5);
    let mut parted = start(made.path(), |_| ());
    send(&parted, 10_000..10_060, 0.5);
    parted.end();
    let parted = start(made.path(), |_| ());
    send(&parted, 10_060..10_120, 0.5);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(drift(&whole)["watched_rows"], 120);
    assert_eq!(drift(&whole)["evidence"], drift(&parted)["evidence"]);
}

#[test]
fn what_is_of_another_version_or_damaged_begins_anew() {
    let made = tempfile::tempdir().unwrap();
    let path = made.path().join("one.safetensors");
    detector(&path, "gmm(normalize=false)", 1);
    let mut running = start(made.path(), |_| ());
    send(&running, 10_000..10_060, 0.0);
    running.end();
    let file = made.path().join("state/one.monitor");
    let good = fs::read(&file).unwrap();
    let watched = || {
        let mut running = start(made.path(), |_| ());
        let rows = drift(&running)["watched_rows"].as_u64().unwrap();
        send(&running, 10_000..10_002, 0.0);
        running.end();
        rows
    };
    let mut flipped = good.clone();
    flipped[good.len() - 9] ^= 4;
    let unsealed = fs::read(&path).unwrap();
    for bad in [&flipped, &good[..good.len() / 2], b"", b"{}", &unsealed] {
        fs::write(&file, bad).unwrap();
        assert_eq!(watched(), 0);
        // Replaced by a good one.
        assert_eq!(watched(), 2);
    }
    fs::write(&file, &good).unwrap();
    let other = start(made.path(), |settings| settings.drift_effect = 0.1);
    assert_eq!(drift(&other)["watched_rows"], 0);
    drop(other);
    fs::write(&file, &good).unwrap();
    assert_eq!(watched(), 60);
    detector(&path, "norm", 1);
    assert_eq!(watched(), 0);
}

/// What cannot be kept is counted, and costs no request.
#[cfg(unix)]
#[test]
fn a_place_that_cannot_be_written() {
    let made = tempfile::tempdir().unwrap();
    detector(&made.path().join("one.safetensors"), "gmm(normalize=false)", 1);
    let mut running = start(made.path(), |_| ());
    let second = Settings {
        detectors: vec![NamedFile {
            name: "one".into(),
            path: made.path().join("one.safetensors"),
        }],
        monitor_state: Some(made.path().join("state")),
        ..Settings::default()
    };
    let error = Server::open(second.clone()).err().unwrap().to_string();
    assert!(error.contains("keeps the state") && error.contains("another place"), "{error}");
    // A link under the file's name is not followed.
    let precious = made.path().join("precious");
    fs::write(&precious, "mine").unwrap();
    std::os::unix::fs::symlink(&precious, made.path().join("state/one.monitor")).unwrap();
    send(&running, 0..3, 0.0);
    running.end();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    let file = Settings { monitor_state: Some(precious), ..second.clone() };
    assert!(Server::open(file).is_err());
    let absent = Settings { monitor_state: Some(made.path().join("a/b")), ..second };
    let error = Server::open(absent).err().unwrap().to_string();
    assert!(error.contains("a/b"), "{error}");
}
