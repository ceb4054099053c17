//! Fits whose rows are in parts: `heat fit --partial`, `heat merge`.

use crate::common;

use std::path::Path;

use common::{contains, data, fails, ok, text};
use heat_ood::Silent;
use heat_ood::features::{ConvertConfig, FeatureSet, convert};

/// The training rows in three files.
fn parts(path: &Path) {
    let train = FeatureSet::open(data("train")).unwrap();
    let n = train.len() as u32;
    for (i, rows) in [0..n / 5, n / 5..n / 2, n / 2..n].into_iter().enumerate() {
        let part = train.select(rows.collect(), None).unwrap();
        let to = path.join(format!("{i}.safetensors"));
        convert(&part, None, &to, &ConvertConfig::default(), &mut Silent).unwrap();
    }
}

fn partial<'a>(scorer: &'a [&'a str], part: &'a str, out: &'a str) -> Vec<&'a str> {
    [&["fit"], scorer, &["--train", part, "--partial", "-o", out]].concat()
}

fn said(path: &Path, args: &[&str]) -> String {
    text(&ok(path, args).stdout)
}

/// Numbers of the second column.
fn scores(csv: &str) -> Vec<f64> {
    csv.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse().unwrap()).collect()
}

#[test]
fn rounds_of_parts_give_the_detector() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    parts(path);
    let head = data("head");
    for (scorer, rounds) in [(&["gmm"][..], 1), (&["vim"], 2), (&["knn", "k=3"], 1)] {
        let mut after: Option<String> = None;
        for round in 1..=rounds {
            for i in 0..3 {
                let (part, out) = (format!("{i}.safetensors"), format!("{i}.stats"));
                let mut args = partial(scorer, &part, &out);
                args.extend(["--head", &head]);
                if let Some(after) = &after {
                    args.extend(["--after", after]);
                }
                ok(path, &args);
            }
            let out = format!("round{round}");
            let told = ok(path, &["merge", "0.stats", "1.stats", "2.stats", "-o", &out]);
            let told = text(&told.stderr);
            let another = "another round is needed";
            assert_eq!(told.contains(another), round < rounds, "{told}");
            after = Some(out);
        }
        let merged = after.unwrap();
        ok(
            path,
            &[&["fit"], scorer, &["--train", &data("train"), "--head", &head, "-o", "whole"]]
                .concat(),
        );
        let of = |detector: &str| scores(&said(path, &["score", detector, &data("test")]));
        let (got, want) = (of(&merged), of("whole"));
        let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() <= 1e-5 * largest, "{scorer:?}: {g} {w}");
        }
        // Verified by its probe rows, and its training rows are known.
        contains(
            &said(path, &["info", "--verify", &merged]),
            &["probe rows score as where it was made"],
        );
        let (_, seen) = fails(path, &["calibrate", &merged, "--id", &data("train"), "-o", "no"]);
        contains(&seen, &["training rows"]);
    }
}

#[test]
fn a_tree_of_merges_and_what_is_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    parts(path);
    let head = data("head");
    for i in 0..3 {
        let (part, out) = (format!("{i}.safetensors"), format!("{i}.stats"));
        ok(path, &[&partial(&["maha"], &part, &out)[..], &["--head", &head]].concat());
    }
    ok(path, &["merge", "--only", "0.stats", "1.stats", "-o", "01.stats"]);
    let told = said(path, &["info", "01.stats"]);
    contains(&told, &["statistics of round 1", "scorers  maha", "part     0.safetensors"]);
    ok(path, &["merge", "01.stats", "2.stats", "-o", "tree"]);
    ok(path, &["merge", "0.stats", "1.stats", "2.stats", "-o", "row"]);
    let bytes = |name: &str| std::fs::read(path.join(name)).unwrap();
    assert_eq!(bytes("tree"), bytes("row"));

    for (args, words) in [
        (vec!["merge", "0.stats", "0.stats", "-o", "x"], &["the rows of", "in both"][..]),
        (vec!["merge", "0.stats", "1.stats", "-o", "0.stats"], &["0.stats"]),
        (vec!["merge", "row", "-o", "x"], &["a detector", "not statistics"]),
        (vec!["score", "0.stats", "0.safetensors"], &["statistics of a part", "`heat merge`"]),
        (vec!["merge", "none.stats", "-o", "x"], &["none.stats", "does not exist"]),
        (partial(&["gmm"], "0.safetensors", "x"), &["number of classes", "--classes"]),
        (partial(&["cfood"], "0.safetensors", "x"), &["number of classes"]),
        (partial(&["committee"], "0.safetensors", "x"), &["gather and merge each"]),
    ] {
        contains(&fails(path, &args).1, words);
    }
    let cfood = [&partial(&["cfood"], "0.safetensors", "x")[..], &["--head", &head]].concat();
    contains(&fails(path, &cfood).1, &["cannot fit cfood", "fit it on one machine"]);
    ok(path, &[&partial(&["gmm"], "0.safetensors", "x")[..], &["--classes", "10"]].concat());
    assert!(!path.join("none").exists());
}
