//! Where `heat train` trains.

use std::fs;

use serde_json::Value;

use crate::cli::train;
use crate::common::{contains, text};

/// A device that cannot train leaves nothing behind: the next command needs no `--resume`.
#[test]
fn training_on_a_device_that_cannot() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for (more, says) in [
        // The tests' program is built without CUDA.
        (&["--device", "cuda"][..], &["cuda:0", "--features cuda", "--device cpu"][..]),
        (&["--device", "cuda:3"], &["cuda:3", "built without CUDA"]),
        (
            &["--device", "cuda", "ebm.prior=knn", "ebm.model.proposal_type=data"],
            &["`knn`", "`gmm`", "--device cpu"],
        ),
        (&["--device", "cuda", "ebm.model.use_svgd=true"], &["ebm.model.use_svgd", "--device cpu"]),
        (&["--device", "tensorrt"], &["tensorrt", "cpu or cuda"]),
        (&["--device", "cuda:x"], &["cuda:x", "cuda:1"]),
        (&["--precision", "bf16"], &["bf16", "tf32 or f32"]),
        (&["--precision", "tf32"], &["tf32", "--device cuda"]),
    ] {
        let out = train(path, "run", more);
        assert!(!out.status.success(), "{more:?}");
        contains(&text(&out.stderr), says);
        assert!(!path.join("run").exists(), "{more:?}");
    }
    assert!(train(path, "run", &["--device", "cpu", "--precision", "f32"]).status.success());
    let record = fs::read_to_string(path.join("run/run.json")).unwrap();
    assert!(!record.contains("\"device\""), "{record}");
}

/// What a run that began on a card is told on the processor; that it goes on is the point of checkpoints
/// that are the same for both.
#[test]
fn a_run_of_a_card_goes_on_on_the_processor() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(train(path, "run", &[]).status.success());
    let file = path.join("run/run.json");
    let mut record: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    record["device"] = serde_json::json!({ "name": "cuda:0", "precision": "tf32" });
    fs::write(&file, record.to_string()).unwrap();
    let out = train(path, "run", &["--resume"]);
    assert!(out.status.success());
    contains(&text(&out.stderr), &["cuda:0 (tf32)", "on cpu", "bits differ"]);
    let out = train(path, "run", &["--resume"]);
    assert!(!text(&out.stderr).contains("bits differ"));
    // A run that begins, and one whose record is lost, have been nowhere else.
    fs::remove_file(&file).unwrap();
    let out = train(path, "run", &["--resume"]);
    assert!(out.status.success() && !text(&out.stderr).contains("bits differ"));
}
