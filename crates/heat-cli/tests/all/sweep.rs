//! `heat sweep` from end to end, on real features.

use crate::common;

use std::fs;
use std::path::Path;

use serde_json::Value;

use common::{assert_same, command, contains, data, fails, ok, results, start, text, tree};

const TINY: [&str; 5] = [
    "ebm=quickstart_gmm",
    "ebm.model.hidden_dim=16",
    "ebm.model.steps=1",
    "batch_size=500",
    "n_epochs=2",
];

/// `heat sweep` with these settings and options, in `out`.
fn arguments<'a>(train: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["sweep"], &TINY[..], more, &["--train", train, "--out", out]].concat()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Each run is `heat train`'s, whatever runs beside it; `eval.json` is what
/// `heat eval` finds; the summary is their mean and deviation.
#[test]
fn runs_are_those_of_train_and_the_summary_is_theirs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (train, id, mnist) = (data("train"), data("test"), data("ood_mnist"));
    let (ood, cifar) = (format!("mnist={mnist}"), format!("cifar={}", data("ood_cifar100")));
    let sets = ["--id", &id, "--ood", &ood, &cifar];
    let grid = ["ebm.optimizer.opt.lr=1e-3,1e-5", "seed=0,1,2"];
    let more = [&grid[..], &sets].concat();
    ok(path, &[&arguments(&train, "one", &more)[..], &["--threads=1", "--quiet"]].concat());
    let two = [&arguments(&train, "two", &more)[..], &["--jobs=3", "--threads=4"]].concat();
    let out = ok(path, &two);
    contains(&text(&out.stderr), &["lr=1e-3_seed=2: finished in", "(6 of 6)"]);
    contains(&text(&out.stdout), &["opt.lr", "AUROC", "±"]);
    assert_same(&results(&path.join("two")), &results(&path.join("one")), "with other jobs");

    let more = [&["ebm.optimizer.opt.lr=1e-3", "seed=2", "--train", &train][..]].concat();
    ok(path, &[&["train"], &TINY[..], &more, &["--out", "alone"]].concat());
    let mut run = results(&path.join("one/lr=1e-3_seed=2"));
    let eval = run.remove("eval.json").unwrap();
    assert_same(&run, &results(&path.join("alone")), "trained alone");

    let detector = "a=alone/detector.safetensors";
    let args = [&["eval"], &sets[..], &["--detectors", detector, "--format=json"]].concat();
    let alone: Value = serde_json::from_slice(&ok(path, &args).stdout).unwrap();
    let eval: Value = serde_json::from_slice(&eval).unwrap();
    assert_eq!(eval["ood"], alone["scorers"]["a"]["ood"]);
    assert_eq!(eval["average"], alone["scorers"]["a"]["average"]);

    let summary = json(&path.join("one/sweep.json"));
    let row = &summary["settings"][0];
    assert_eq!(row["setting"]["ebm.optimizer.opt.lr"], "1e-3");
    assert_eq!((&row["finished"], &row["failed"]), (&Value::from(3), &Value::from(0)));
    let of = |read: &dyn Fn(&str) -> f64| [0, 1, 2].map(|s| read(&format!("one/lr=1e-3_seed={s}")));
    let cd = of(&|run| {
        let text = fs::read_to_string(path.join(run).join("metrics.jsonl")).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        last["cd_loss"].as_f64().unwrap()
    });
    let fpr = of(&|run| {
        json(&path.join(run).join("eval.json"))["ood"]["cifar"]["fpr95_id_positive"]
            .as_f64()
            .unwrap()
    });
    for (spread, [a, b, c]) in
        [(&row["training"]["cd_loss"], cd), (&row["metrics"]["cifar"]["fpr95_id_positive"], fpr)]
    {
        // Of three values: mean, and variance by their pairwise differences.
        let (mean, squares) =
            ((a + b + c) / 3.0, (a - b).powi(2) + (b - c).powi(2) + (a - c).powi(2));
        assert!((spread["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
        assert!((spread["std"].as_f64().unwrap() - (squares / 6.0).sqrt()).abs() < 1e-12);
    }

    // The same again does nothing but print; other sets are evaluated anew.
    let resume = |more: &[&str]| {
        let args = [&arguments(&train, "one", more)[..], &["--resume"]].concat();
        text(&ok(path, &args).stdout)
    };
    let csv = resume(&[&grid[..], &sets, &["--format=csv", "--sort=auroc"]].concat());
    let rows: Vec<Vec<&str>> = csv.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|r| r.len() == 1 + 2 + 2 * (5 + 3 * 6)));
    let auroc = rows[0].iter().position(|n| *n == "average.auroc_mean").unwrap();
    let value = |i: usize| rows[i][auroc].parse::<f64>().unwrap();
    assert!(value(1) >= value(2));
    assert_same(&results(&path.join("one")), &results(&path.join("two")), "after a resume");
    let markdown =
        resume(&[&grid[..], &["--id", &id, "--ood", &ood, "--format=markdown"]].concat());
    contains(&markdown, &["| ebm.optimizer.opt.lr | runs | loss |", "| 1e-5 | 3 |"]);
    assert!(json(&path.join("one/lr=1e-5_seed=0/eval.json"))["ood"]["cifar"].is_null());
    assert!(!resume(&grid).contains("AUROC"));
}

#[test]
fn a_run_that_diverges_does_not_stop_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let train = data("train");
    let grid = ["ebm.optimizer.opt.lr=1e30,1e-4", "seed=0,1"];
    let (code, error) = fails(path, &arguments(&train, "s", &grid));
    assert_eq!(code, 1);
    contains(&error, &["2 of 4 runs failed", "lr=1e30_seed=1: training diverged at epoch 1"]);
    let summary = json(&path.join("s/sweep.json"));
    assert_eq!(summary["settings"][0]["failed"], 2);
    assert_eq!(summary["settings"][1]["finished"], 2);
    contains(summary["runs"]["lr=1e30_seed=0"]["error"].as_str().unwrap(), &["diverged"]);
    assert_eq!(summary["runs"]["lr=1e-4_seed=0"]["state"], "finished");
}

#[test]
fn nothing_runs_unless_all_of_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (train, id) = (data("train"), data("test"));
    let cases: [(&[&str], &str); 11] = [
        (&["seed=0,1", "ebm.model.stpes=1,2"], "did you mean `ebm.model.steps`?"),
        (&["seed=0,1", "ebm=quickstart_gmm2"], "did you mean"),
        (&["n_epochs=3,4"], "given twice"),
        (&["ebm.model.n_hidden_layers=2,x"], "n_hidden_layers"),
        (&["backbone=resnet34_c10", "seed=0,1"], "D = 342"),
        (&["ebm.prior=gmm,el", "normalize=false"], "--head"),
        (&["seed=0,1", "--jobs=0"], "--jobs"),
        (&["seed=0,1", "--id", &id], "--ood"),
        (&["seed=0,1", "--ood", "x=no.safetensors", "--id", &id], "no.safetensors"),
        (&["seed=0,1", "-o", "no/table.txt"], "does not exist"),
        (&["seed=0,,1"], "is empty"),
    ];
    for (more, part) in cases {
        let more = [more, &["--format=json"]].concat();
        let out = command(path, &arguments(&train, "s", &more)).output().unwrap();
        assert!(!out.status.success(), "{more:?}");
        contains(&text(&out.stderr), &[part]);
        assert!(!path.join("s").exists(), "{more:?}");
    }
    let large = ["sweep", "batch_size=500,5000", "--train", &train, "--out=s"];
    contains(&fails(path, &large).1, &["`batch_size` = 5000", "3000 rows"]);
    assert!(!path.join("s").exists());
}

#[test]
fn a_directory_is_one_sweep() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (train, other) = (data("train"), data("test"));
    let grid = ["n_epochs=1,2"];
    let args = [&["sweep"], &TINY[..4], &grid, &["--train", &train, "--out=s"]].concat();
    ok(path, &args);
    let whole = results(&path.join("s"));
    let refused = |args: &[&str], part: &str| {
        let (code, error) = fails(path, args);
        assert_eq!(code, 1, "{error}");
        contains(&error, &[part]);
    };
    refused(&args, "continue it with `--resume`");
    let resume = |more: &[&'static str]| [&["sweep"], more, &["--out=s", "--resume"]].concat();
    let of = |train| ["--train", train];
    let three = [&resume(&TINY[..4])[..], &["n_epochs=1,3"], &of(&train)].concat();
    refused(&three, "another grid, `ebm=quickstart_gmm ebm.model.hidden_dim=16");
    let same = [&resume(&TINY[..4])[..], &grid].concat();
    refused(&[&same[..], &of(&other)].concat(), "from other data");
    let same = [&same[..], &of(&train)].concat();
    {
        let lock = fs::File::create(path.join("s/.lock")).unwrap();
        lock.lock().unwrap();
        refused(&same, "is sweeping in this directory");
    }
    // A detector that is damaged or lost is made again from its checkpoint.
    let detector = path.join("s/n_epochs=1/detector.safetensors");
    let bytes = fs::read(&detector).unwrap();
    fs::write(&detector, &bytes[..bytes.len() - 5]).unwrap();
    fs::remove_file(path.join("s/n_epochs=2/detector.safetensors")).unwrap();
    fs::write(path.join("s/n_epochs=1/.heat-dEad01.tmp"), "half").unwrap();
    fs::write(path.join("s/.heat-dEad02.tmp"), "half").unwrap();
    ok(path, &same);
    assert_same(&results(&path.join("s")), &whole, "after the damage");
    // Somebody else's run in a run's place is left alone.
    fs::write(path.join("s/n_epochs=1/recipe.toml"), "seed = 7\n").unwrap();
    refused(&same, "is not this run's recipe");
    fs::create_dir(path.join("full")).unwrap();
    fs::write(path.join("full/notes.txt"), "mine").unwrap();
    refused(&arguments(&train, "full", &["seed=0,1"]), "not empty (`notes.txt`)");
    assert_eq!(tree(&path.join("full")).into_keys().collect::<Vec<_>>(), [".lock", "notes.txt"]);
}

/// One signal to the sweep alone: its runs stop with checkpoints.
#[cfg(unix)]
#[test]
fn ctrl_c_reaches_every_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let train = data("train");
    let long = ["n_epochs=2000", "seed=0,1,2", "--jobs=2", "--train", &train, "--out=s"];
    let mut child = start(path, &[&["sweep"], &TINY[..4], &long].concat());
    let begun = |run: &str| path.join(run).join("checkpoints/epoch_1.safetensors").exists();
    common::wait_until(&mut child, || begun("s/seed=0") && begun("s/seed=1"));
    assert_eq!(common::interrupt(&mut child), Some(130));
    let files = tree(&path.join("s"));
    let stopped = files.keys().filter(|n| n.contains("checkpoints/step_"));
    assert_eq!(stopped.count(), 2);
    assert!(!path.join("s/seed=2").exists());
}
