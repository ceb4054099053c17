//! Detectors that are replaced while they are served.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use heat_ood::Detector;
use serde_json::Value;

use crate::common::{Running, detector, request, rows};

fn version(running: &Running) -> String {
    running.get("/v2/models/gmm").json()["versions"][0].as_str().unwrap().to_owned()
}

fn load(running: &Running) -> (u16, Value) {
    let answer = running.admin("POST", "/v2/repository/models/gmm/load");
    (answer.status, answer.json())
}

/// Under load no request fails, and each answer is of one version alone.
#[test]
fn a_reload_loses_no_request_and_mixes_no_versions() {
    let running = Running::start(|_, _| ());
    let directory = running.directory.path();
    let served = directory.join("gmm.safetensors");
    let other = directory.join("other.safetensors");
    let before = directory.join("before.safetensors");
    fs::copy(&served, &before).unwrap();
    detector(&other, "norm", 7);
    let values = rows(40, 3, 0.0);
    let scores = |path| {
        let set = heat_ood::features::FeatureSet::from_arrays(
            ndarray::ArrayView2::from_shape((40, 8), &values).unwrap(),
            None,
        );
        Detector::open(path).unwrap().score(&set.unwrap()).unwrap()
    };
    let known = [scores(&before), scores(&other)];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = [0; 2];
                    while !stop.load(Ordering::Relaxed) {
                        let answer = running.infer("gmm", &request(&values));
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        let got: Vec<f32> =
                            answer.output("score").iter().map(|v| *v as f32).collect();
                        let which = known.iter().position(|known| *known == got);
                        seen[which.expect("of one version alone")] += 1;
                    }
                    seen
                })
            })
            .collect();
        for i in 0..100 {
            let from = if i % 2 == 0 { &other } else { &before };
            let fresh = directory.join("fresh");
            fs::copy(from, &fresh).unwrap();
            fs::rename(&fresh, &served).unwrap();
            assert_eq!(load(&running).0, 200);
        }
        stop.store(true, Ordering::Relaxed);
        let seen: Vec<[usize; 2]> = asking.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(seen.iter().all(|[a, b]| a + b > 0), "{seen:?}");
    });
}

/// What cannot be served changes nothing; a good file always recovers.
#[test]
fn the_last_good_one_stays() {
    let running = Running::start(|_, _| ());
    let path = running.directory.path().join("gmm.safetensors");
    let good = fs::read(&path).unwrap();
    let first = version(&running);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [&good[..good.len() / 2], b"", b"{}", &flipped, b"not a detector at all"] {
        // Written in place: what is loaded is not the file.
        fs::write(&path, bad).unwrap();
        let (status, answer) = load(&running);
        assert_eq!(status, 400);
        let reason = answer["error"].as_str().unwrap();
        assert!(reason.contains("served on"), "{reason}");
        running.works();
        assert_eq!(version(&running), first);
        let index = running.admin("POST", "/v2/repository/index").json();
        assert_eq!(index[0]["state"], "READY");
        assert!(!index[0]["reason"].as_str().unwrap().is_empty());
        assert_eq!(running.get("/v2/health/ready").status, 200);
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(load(&running).0, 400);
    running.works();
    detector(&path, "gmm(normalize=false)", 9);
    assert_eq!(load(&running).0, 200);
    assert_ne!(version(&running), first);
    fs::write(&path, &good).unwrap();
    assert_eq!(load(&running).0, 200);
    assert_eq!(version(&running), first);
    let metrics = running.admin("GET", "/metrics").text();
    for line in
        ["heat_reload_total{result=\"failed\"} 6", "heat_reload_total{result=\"changed\"} 2"]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[test]
fn a_model_is_taken_out_and_put_back() {
    let running = Running::start(|_, _| ());
    assert_eq!(running.admin("POST", "/v2/repository/models/gmm/unload").status, 200);
    assert_eq!(running.get("/v2/models/gmm/ready").status, 503);
    assert_eq!(running.get("/v2/health/ready").status, 503);
    let answer = running.infer("gmm", &request(&rows(1, 1, 0.0)));
    assert!(answer.status == 503 && answer.error().contains("not loaded"));
    assert_eq!(running.infer("knn", &request(&rows(1, 1, 0.0))).status, 200);
    assert_eq!(load(&running).0, 200);
    running.works();
    assert_eq!(running.get("/v2/health/ready").status, 200);
    // What is served is told at the start, not by clients.
    let body = br#"{"parameters": {"config": "{}"}}"#;
    let answer =
        crate::common::ask(running.admin, "POST", "/v2/repository/models/gmm/load", &[], body);
    assert!(answer.status == 400 && answer.error().contains("`config`"));
    let answer =
        crate::common::ask(running.admin, "POST", "/v2/repository/models/x/load", &[], b"");
    assert_eq!(answer.status, 404);
}

/// Alarm and figures after rows from elsewhere; a new version begins anew.
#[test]
fn drift_is_watched() {
    let running = Running::start(|_, _| ());
    let drift = || running.admin("GET", "/heat/v1/models/gmm/drift").json();
    assert_eq!(drift()["state"], "too few rows");
    for i in 0..200 {
        running.infer("gmm", &request(&rows(1, 10_000 + i, 0.0)));
    }
    let settle = || std::thread::sleep(std::time::Duration::from_millis(200));
    settle();
    let quiet = drift();
    assert_eq!(
        (quiet["state"].as_str(), quiet["watched_rows"].as_u64()),
        (Some("steady"), Some(200))
    );
    let [low, high] = [0, 1].map(|i| quiet["band"][i].as_f64().unwrap());
    assert!((low..=high).contains(&quiet["flagged"].as_f64().unwrap()), "{quiet}");
    for i in 0..200 {
        running.infer("gmm", &request(&rows(1, 20_000 + i, 2.0)));
    }
    settle();
    let loud = drift();
    assert_eq!(loud["state"], "drifting");
    let alarm = &loud["alarms"][0];
    assert!((150..260).contains(&alarm["since"].as_u64().unwrap()), "{alarm}");
    let metrics = running.admin("GET", "/metrics").text();
    let evidence =
        metrics.lines().find(|l| l.starts_with("heat_drift_evidence_log10{model=\"gmm\""));
    assert!(evidence.is_some(), "{metrics}");
    running.admin("POST", "/heat/v1/models/gmm/drift/acknowledge");
    assert_eq!(drift()["state"], "drifting, acknowledged");
    running.admin("POST", "/heat/v1/models/gmm/drift/reset");
    assert_eq!(drift()["watched_rows"], 0);
    let recent = running.admin("GET", "/heat/v1/models/gmm/recent").json();
    assert_eq!(recent.as_array().unwrap().len(), 256);
    // The latest first: of the 200 from elsewhere more are called anomalous than of those before.
    let called = |range: std::ops::Range<usize>| range.filter(|i| recent[*i]["ood"] == 1).count();
    assert!(called(0..200) > 60 && called(200..256) < 15, "{}", called(0..200));
}
