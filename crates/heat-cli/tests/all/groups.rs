//! Many scorers at once: groups of them, those that fail, their order, and what is written.

use crate::common;

use std::fs;
use std::path::Path;

use common::{contains, data, fails, ok, text};
use serde_json::Value;

fn eval(directory: &Path, more: &[&str]) -> String {
    let (id, ood) = (data("test"), format!("mnist={}", data("ood_mnist")));
    let second = format!("cifar100={}", data("ood_cifar100"));
    let train = data("train");
    let args = ["eval", "--train", &train, "--id", &id, "--ood", &ood, &second];
    let out = ok(directory, &[&args[..], more].concat());
    text(&out.stdout)
}

#[test]
fn one_failing_scorer_is_left_out_and_said_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    // Without a head, `react` cannot be fitted.
    let scorers = ["--scorers", "norm,react,knn"];
    let forms = |form: &str| eval(path, &[&scorers[..], &["--format", form]].concat());
    let table = forms("table");
    contains(&table, &["knn", "norm", "left out: react: the scorer `react` needs a head"]);
    contains(&forms("markdown"), &["| norm |", "left out: react: "]);
    contains(
        &forms("csv"),
        &["\nknn,mnist,", "\nreact,\"left out: the scorer `react` needs a head"],
    );
    let json: Value = serde_json::from_str(&forms("json")).unwrap();
    assert_eq!(json["scorers"].as_object().unwrap().len(), 2);
    assert!(json["skipped"]["react"].as_str().unwrap().contains("needs a head"));
    assert_eq!(json["made"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(json["made"]["command"].as_str().unwrap().starts_with("heat eval --train"));
    let sha = &json["made"]["sha256"];
    for (name, file) in [("id", "test.safetensors"), ("train", "train.safetensors")] {
        assert_eq!(sha[name][file].as_str().unwrap().len(), 64, "{sha}");
    }
    assert_eq!(sha["ood"]["mnist"].as_object().unwrap().len(), 1);
    let board = forms("leaderboard");
    contains(&board, &["scorer,mean FPR@95,mean AUROC", "\nnorm,", "\nreact,\"left out: "]);
    eval(path, &[&scorers[..], &["--report", "r.html", "-o", "t.txt"]].concat());
    contains(&fs::read_to_string(path.join("r.html")).unwrap(), &["Left out: <b>react</b>"]);
    // The composition of one that is left out is left out too.
    let combined = eval(path, &[&scorers[..], &["--combine", "norm,react"]].concat());
    contains(&combined, &["its member react is left out"]);

    let (id, ood) = (data("test"), format!("mnist={}", data("ood_mnist")));
    let train = data("train");
    let args = ["eval", "--train", &train, "--id", &id, "--ood", &ood];
    for more in [&["--scorers", "norm,react", "--strict"][..], &["--scorers", "react,dice"]] {
        let (code, error) = fails(path, &[&args[..], more].concat());
        assert_eq!(code, 1);
        contains(&error, &["error: the scorer `react` needs a head", "--head FILE"]);
    }
}

#[test]
fn select_leaves_out_what_fails() {
    let directory = tempfile::tempdir().unwrap();
    let train = data("train");
    let args =
        ["select", "--train", &train, "--scorers", "norm,react", "--folds", "2", "--rows", "500"];
    let out = ok(directory.path(), &args);
    contains(&text(&out.stdout), &["norm", "left out: react: the scorer `react` needs a head"]);
    let (_, error) = fails(directory.path(), &[&args[..], &["--strict"]].concat());
    contains(&error, &["`react` needs a head"]);
}

#[test]
fn groups_sorting_and_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let names = |more: &[&str]| -> Vec<String> {
        let json = eval(path, &[more, &["--format", "json"]].concat());
        let json: Value = serde_json::from_str(&json).unwrap();
        json["scorers"].as_object().unwrap().keys().cloned().collect()
    };
    let free = names(&["--scorers", "unlabelled"]);
    for scorer in ["gmm(kmeans=1)", "norm", "knn", "kpca"] {
        assert!(free.contains(&scorer.to_owned()), "{free:?}");
    }
    assert!(
        !free.iter().any(|n| ["el", "msp", "react", "vim", "mean"].contains(&&**n)),
        "{free:?}"
    );
    // A group and one of its members name it once.
    assert_eq!(names(&["--scorers", "unlabelled,knn"]), free);
    assert_eq!(names(&["--scorers", "norm,knn,mean", "--sort", "name"]), ["knn", "mean", "norm"]);
    let table = ["--scorers", "norm,knn,mean", "--sort"];
    let by = |column: &str, value: fn(&Value) -> f64| {
        let json = eval(path, &[&table[..], &[column, "--format", "json"]].concat());
        let json: Value = serde_json::from_str(&json).unwrap();
        json["scorers"].as_object().unwrap().values().map(value).collect::<Vec<f64>>()
    };
    assert!(by("average", |s| s["average"]["auroc"].as_f64().unwrap()).is_sorted_by(|a, b| a >= b));
    assert!(
        by("mnist", |s| s["ood"]["mnist"]["auroc"].as_f64().unwrap()).is_sorted_by(|a, b| a >= b)
    );
    let fpr = by("fpr95_id_positive", |s| s["average"]["fpr95_id_positive"].as_f64().unwrap());
    assert!(fpr.is_sorted());
    // A leaderboard too: the same lines in another order.
    let board =
        |more: &[&str]| eval(path, &[&table[..2], &["--format", "leaderboard"], more].concat());
    let (given, sorted) = (board(&[]), board(&["--sort", "name"]));
    let first = |board: &str| -> Vec<String> {
        board.lines().map(|l| l.split(',').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(first(&given), ["scorer", "norm", "knn", "mean"]);
    assert_eq!(first(&sorted), ["scorer", "knn", "mean", "norm"]);
    assert!(given.lines().all(|line| sorted.lines().any(|other| other == line)));
    let named = ["--scorers", "norm,knn", "--combine", "norm,knn", "--name", "both"];
    assert_eq!(names(&named), ["norm", "knn", "both"]);
    let (id, ood) = (data("test"), format!("mnist={}", data("ood_mnist")));
    let train = data("train");
    let args = ["eval", "--train", &train, "--id", &id, "--ood", &ood, "--scorers", "norm"];
    let (code, error) = fails(path, &[&args[..], &["--sort", "mnits"]].concat());
    assert_eq!(code, 2);
    contains(&error, &["unknown column `mnits`; did you mean `mnist`?"]);
}
