//! Intervals, tests, groups, seeds and OpenOOD's form through `heat eval`.

use crate::common;

use std::fs;
use std::path::Path;

use common::{contains, data, fails, npy, ok, text};
use serde_json::Value;

/// `heat eval` on three OOD sets.
fn arguments(more: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = ["eval", "--train"].map(str::to_owned).to_vec();
    args.extend([data("train"), "--head".into(), data("head"), "--id".into(), data("test")]);
    args.push("--ood".into());
    for set in ["mnist", "textures", "cifar100"] {
        args.push(format!("{set}={}", data(&format!("ood_{set}"))));
    }
    args.extend(more.iter().map(|s| (*s).to_owned()));
    args
}

fn eval(directory: &Path, more: &[&str]) -> String {
    let args = arguments(more);
    let args: Vec<&str> = args.iter().map(|s| &**s).collect();
    text(&ok(directory, &args).stdout)
}

/// scikit-learn 1.9.1 on scores computed with numpy 2.4.6 in float64:
/// `roc_curve(…, drop_intermediate=False)`, `roc_auc_score`, `auc(recall, precision)`
/// of `precision_recall_curve`; accuracy of the head's largest logit.
#[test]
fn openood_layout() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let el = ["--scorers", "el", "--format", "openood"];
    let csv = eval(path, &[&el[..], &["--groups", "cifar10"]].concat());
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines,
        [
            "dataset,FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC",
            "cifar100,38.60,89.03,94.02,78.12,94.90",
            "nearood,38.60,89.03,94.02,78.12,94.90",
            "mnist,4.80,98.90,99.51,97.20,94.90",
            "textures,56.90,87.25,91.01,77.09,94.90",
            "farood,30.85,93.07,95.26,87.15,94.90",
        ]
    );
    // Without groups, in the order given.
    let plain = eval(path, &el);
    let names: Vec<&str> = plain.lines().map(|l| l.split(',').next().unwrap()).collect();
    assert_eq!(names, ["dataset", "mnist", "textures", "cifar100", "mean"]);
    eval(path, &["--scorers", "el,knn(k=5),msp", "--format", "openood", "-o", "csv"]);
    for file in ["el.csv", "knn_k=5.csv", "msp.csv"] {
        let first = fs::read_to_string(path.join("csv").join(file)).unwrap();
        contains(&first, &["dataset,FPR@95", "\nmean,"]);
    }
    assert_eq!(fs::read_to_string(path.join("csv/el.csv")).unwrap(), plain);
}

#[test]
fn intervals_and_comparisons_in_every_format() {
    let directory = tempfile::tempdir().unwrap();
    let run = |format: &str, threads: &str| {
        let more = ["--scorers", "el,msp", "--ci", "0.9", "--compare", "el", "--resamples", "200"];
        let more = [&more[..], &["--near", "cifar100", "--far", "mnist"]].concat();
        eval(directory.path(), &[&more[..], &["--format", format, "--threads", threads]].concat())
    };
    let json: Value = serde_json::from_str(&run("json", "2")).unwrap();
    let msp = &json["comparison"]["scorers"]["msp"];
    for column in [&msp["average"], &msp["near"], &msp["far"], &msp["ood"]["textures"]] {
        let test = &column["auroc"];
        let [low, high] = [0, 1].map(|i| test["ci"][i].as_f64().unwrap());
        let difference = test["difference"].as_f64().unwrap();
        assert!(low <= difference && difference <= high, "{test}");
        let (p, holm) = (test["p"].as_f64().unwrap(), test["p_holm"].as_f64().unwrap());
        assert!(p > 0.0 && p == holm && (p < 0.1) == (low > 0.0 || high < 0.0), "{test}");
    }
    let el = &json["scorers"]["el"];
    for column in [&el["average"], &el["near"], &el["far"], &el["ood"]["textures"]] {
        for (name, ends) in column["ci"].as_object().unwrap() {
            assert!(ends[0].as_f64().unwrap() < ends[1].as_f64().unwrap(), "{name}");
        }
    }
    let table = run("table", "2");
    assert_eq!(table, run("table", "1"));
    contains(&table, &["Difference to el", "[low, high]: 90 %", "near: cifar100. far: mnist."]);
    let markdown = run("markdown", "2");
    contains(&markdown, &["| AUROC / FPR95 (ID+) / FPR95 (OOD+) | average | near | far | mnist |"]);
    let csv = run("csv", "2");
    let width = |line: &str| line.split(',').count();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 6);
    assert!(lines.iter().all(|l| width(l) == 2 + 6 * (1 + 2 + 5) + 1), "{csv}");
    contains(lines[0], &["auroc_lo,auroc_hi", "fpr95_id_positive_p_holm", ",reference"]);
}

#[test]
fn seeds_are_summed_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for (file, k) in [("a.safetensors", "k=3"), ("b.safetensors", "k=30")] {
        ok(path, &["fit", "knn", k, "--train", &data("train"), "-o", file]);
    }
    let seeds = ["--detectors", "knn@0=a.safetensors", "knn@1=b.safetensors"];
    let run = |format: &str| eval(path, &[&seeds[..], &["--format", format]].concat());
    let json: Value = serde_json::from_str(&run("json")).unwrap();
    let of = |s: &str| json["scorers"][s]["ood"]["mnist"]["auroc"].as_f64().unwrap();
    let (a, b) = (of("knn@0"), of("knn@1"));
    let mnist = &json["seeds"]["knn"]["ood"]["mnist"];
    assert!((mnist["mean"]["auroc"].as_f64().unwrap() - (a + b) / 2.0).abs() < 1e-15);
    let std = mnist["std"]["auroc"].as_f64().unwrap();
    assert!(std > 0.0 && (std - (a - b).abs() / 2f64.sqrt()).abs() < 1e-15);
    assert_eq!(json["seeds"]["knn"]["seeds"], serde_json::json!([0, 1]));
    let shown = format!("{:.2} ± {:.2}", 50.0 * (a + b), 100.0 * std);
    contains(&run("table"), &["knn (2 seeds)", &shown, "standard deviation over the seeds"]);
    contains(&run("markdown"), &["| knn (2 seeds) |", &shown]);
    contains(&run("csv"), &["detection_accuracy,auroc_std", "\nknn,mnist,"]);
}

/// One row shows no variation: nothing is proved by it, whatever the metric.
#[test]
fn a_side_of_one_row_has_no_tests() {
    let directory = tempfile::tempdir().unwrap();
    let npy = |name: &str, rows: &[&[f32]]| npy(&directory.path().join(name), rows);
    npy("train.npy", &[&[1.0, 0.0], &[0.0, 2.0], &[3.0, 1.0]]);
    let compare = |id: &[&[f32]], ood: &[&[f32]]| {
        npy("id.npy", id);
        npy("ood.npy", ood);
        let scorers = ["--scorers", "norm,knn(k=1)", "--compare", "norm", "--resamples", "50"];
        let sets = ["eval", "--train", "train.npy", "--id", "id.npy", "--ood", "ood.npy"];
        text(&ok(directory.path(), &[&sets[..], &scorers].concat()).stdout)
    };
    let table = compare(&[&[1.0, 0.0]], &[&[9.0, 9.0]]);
    assert!(!table.contains("NaN"), "{table}");
    let row = |l: &&str| l.starts_with("| knn");
    let line = table.lines().rfind(row).unwrap();
    // All three metrics shown, with neither interval nor p.
    assert_eq!((line.matches("[–]").count(), line.matches('–').count()), (3, 6), "{table}");
    // Two rows that are told apart by one scorer and mixed up by the other.
    let table = compare(&[&[1.0, 0.0], &[0.0, 2.0]], &[&[0.1, 0.1], &[0.1, 0.1]]);
    let line = table.lines().rfind(row).unwrap();
    assert!(line.contains(" – "), "{table}");
}

#[test]
fn refusals() {
    let directory = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 12] = [
        (&["--ci", "95"], "between 0 and 1"),
        (&["--ci", "0"], "between 0 and 1"),
        (&["--ci", "nan"], "between 0 and 1"),
        (&["--ci", "--resamples", "0"], "`resamples` = 0"),
        (&["--resamples", "50"], "`--ci` and `--compare` only"),
        (&["--near", "mnits", "--far", "mnist"], "did you mean `mnist`?"),
        (&["--near", "mnist", "--far", "mnist"], "twice"),
        (&["--near", "mnist"], "--far"),
        (&["--groups", "cifar"], "did you mean `cifar10"),
        (&["--groups", "imagenet"], "ssb_hard, ninco"),
        (&["--compare", "ell"], "did you mean `el`?"),
        (&["--format", "openood"], "-o DIR"),
    ];
    for (more, part) in cases {
        let args = arguments(&[&["--scorers", "el,msp"], more].concat());
        let (code, error) = fails(directory.path(), &args.iter().map(|s| &**s).collect::<Vec<_>>());
        assert_eq!(code, 2, "{more:?}: {error}");
        contains(&error, &[part]);
    }
}
