//! Whatever writes JSON says how it came about: this version, its command line, and the SHA-256 of
//! what was read.

use crate::common;

use std::fs;
use std::path::Path;

use common::{data, ok, text};
use serde_json::Value;

/// The hash of a file, which `sha256sum` gives too.
fn sha(path: impl AsRef<Path>) -> String {
    heat_ood::io::sha256(path.as_ref()).unwrap()
}

/// What is said of how it was made; `read`: where among the hashes that of which file stands.
#[track_caller]
fn says(made: &Value, command: &str, read: &[(&str, String)]) {
    assert_eq!(made["version"], env!("CARGO_PKG_VERSION"), "{command}: {made}");
    assert_eq!(made["command"], format!("heat {command}"), "{made}");
    for (pointer, want) in read {
        let found = made["sha256"].pointer(pointer).and_then(Value::as_str);
        assert_eq!(found, Some(&**want), "{command}: {pointer} in {made}");
    }
}

#[test]
fn whatever_writes_json_says_how_it_was_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for name in ["train", "test", "head", "ood_mnist", "ood_cifar100"] {
        fs::copy(data(name), path.join(format!("{name}.safetensors"))).unwrap();
    }
    let file = |name: &str| path.join(name);
    fs::create_dir(file("sets")).unwrap();
    fs::copy(data("ood_mnist"), file("sets/mnist.safetensors")).unwrap();
    fs::copy(data("ood_cifar100"), file("sets/cifar100.safetensors")).unwrap();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let run = |line: &str| {
        let words = words(line);
        ok(path, &words.iter().map(String::as_str).collect::<Vec<_>>()).stdout
    };
    run("fit norm --train train.safetensors -o norm.safetensors");
    run("calibrate norm.safetensors --id test.safetensors -o cal.safetensors");
    let of = |name: &str| sha(file(name));
    let train = ("/train/train.safetensors", of("train.safetensors"));
    let head = |text: &str| heat_ood::features::Head::open(file(text)).unwrap().digest();
    let id = ("/id/test.safetensors", of("test.safetensors"));
    let mnist = of("ood_mnist.safetensors");
    let tiny =
        "ebm=quickstart_gmm ebm.model.hidden_dim=16 ebm.model.steps=1 batch_size=500 n_epochs=1";

    // On standard output, one object.
    let table = [
        ("scorers --format json".to_owned(), vec![]),
        (
            "eval --train train.safetensors --head head.safetensors --scorers el --detectors \
             n=norm.safetensors --id test.safetensors --ood m=ood_mnist.safetensors --format json"
                .to_owned(),
            vec![
                train.clone(),
                ("/head", head("head.safetensors")),
                id.clone(),
                ("/ood/m/ood_mnist.safetensors", mnist.clone()),
                ("/detectors/n", of("norm.safetensors")),
            ],
        ),
        (
            "select --train train.safetensors --scorers norm,knn --folds 2 --format json".to_owned(),
            vec![train.clone()],
        ),
        (
            "select --train train.safetensors --scorers norm,knn --surrogates sets --id-val \
             test.safetensors --format json"
                .to_owned(),
            vec![
                train.clone(),
                id.clone(),
                ("/surrogates/mnist/mnist.safetensors", mnist.clone()),
            ],
        ),
        (
            "select --train train.safetensors --scorers norm,knn --tune-on m=ood_mnist.safetensors \
             --id-val test.safetensors --format json"
                .to_owned(),
            vec![train.clone(), id.clone(), ("/ood/m/ood_mnist.safetensors", mnist.clone())],
        ),
        (
            "auto --train train.safetensors --val test.safetensors --surrogates sets --rows 500 \
             --no-residual -o auto.safetensors --json"
                .to_owned(),
            vec![
                train.clone(),
                ("/calibration/test.safetensors", of("test.safetensors")),
                ("/surrogates/mnist/mnist.safetensors", mnist.clone()),
            ],
        ),
        (
            format!(
                "sweep {tiny} seed=0,1 --train train.safetensors --id test.safetensors --ood \
                 m=ood_mnist.safetensors --out sweep --format json"
            ),
            vec![train.clone(), id.clone(), ("/ood/m/ood_mnist.safetensors", mnist.clone())],
        ),
    ];
    let mut sweep = String::new();
    for (line, read) in &table {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let json: Value = serde_json::from_slice(&run(&line)).unwrap();
        says(&json["made"], &line, read);
        sweep = line;
    }

    // In files beside what they tell of.
    let json =
        |name: &str| -> Value { serde_json::from_slice(&fs::read(file(name)).unwrap()).unwrap() };
    let (_, read) = &table[table.len() - 1];
    says(&json("sweep/sweep.json")["made"], &sweep, read);
    let record = json("sweep/seed=1/run.json");
    says(&record["evaluated"], &sweep, read);
    assert!(record["command"].as_str().unwrap().starts_with("heat train --threads"), "{record}");
    assert_eq!(record["sha256"].pointer(train.0), Some(&Value::from(&*train.1)));
    // The same whatever command found it.
    assert!(json("sweep/seed=1/eval.json")["made"].is_null());
    // Another evaluation of the same run is recorded in place of the first.
    let other = sweep.replace("m=ood_mnist", "c=ood_cifar100").replace("--out", "--resume --out");
    run(&other);
    let record = json("sweep/seed=1/run.json");
    let cifar = [("/ood/c/ood_cifar100.safetensors", of("ood_cifar100.safetensors"))];
    says(&record["evaluated"], &other, &cifar);
    assert!(record["command"].as_str().unwrap().starts_with("heat train --threads"), "{record}");
    let line = format!("train {tiny} --train train.safetensors --out run");
    run(&line);
    says(&json("run/run.json"), &line, std::slice::from_ref(&train));

    // Streams of objects: the first event says it; scores are rows and nothing else, for programs
    // that take one object a row.
    let line = "watch cal.safetensors ood_mnist.safetensors";
    let events = text(&run(line));
    let start: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    let read = [("/detector", of("cal.safetensors")), ("/rows/ood_mnist.safetensors", mnist)];
    says(&start["made"], line, &read);
    run("score cal.safetensors ood_mnist.safetensors -o scores.jsonl");
    let scores = fs::read_to_string(file("scores.jsonl")).unwrap();
    for (i, row) in scores.lines().enumerate() {
        let row: Value = serde_json::from_str(row).unwrap();
        assert_eq!(row["row"], i);
    }
}
