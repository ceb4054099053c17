//! `heat convert`, memmaps and training subsets from end to end.

use crate::common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{command, contains, data, fails, ok, text};
use heat_ood::features::{FeatureSet, Field, Pooling};

const AVG: Field = Field::Features(Pooling::Avg);

/// Standard error of a command that must fail with that code.
fn fails_with(directory: &Path, code: i32, args: &[&str]) -> String {
    let (got, error) = fails(directory, args);
    assert_eq!(got, code, "{args:?}: {error}");
    error
}

fn values(path: impl AsRef<Path>) -> Vec<f32> {
    let set = FeatureSet::open(path).unwrap();
    let mut out = vec![0.0; set.len() * set.dim(AVG).unwrap()];
    set.read(AVG, 0..set.len(), &mut out).unwrap();
    out
}

/// The examples are f16: they go through every form unchanged.
#[test]
fn forms_types_and_notes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (train, head) = (data("train"), data("head"));
    let said = text(&ok(path, &["convert", &train, "-o", "shards", "--shard-rows", "1000"]).stderr);
    contains(&said, &["wrote shards", "3000 rows of label, avg, std in 3 file(s)"]);
    contains(
        &text(&ok(path, &["info", "shards"]).stdout),
        &["3000 rows", "10 classes", "files    3"],
    );
    let said = text(&ok(path, &["convert", "shards", "-o", "memmaps", "--to", "memmap"]).stderr);
    assert!(!said.contains("note"), "{said}");
    contains(&text(&ok(path, &["info", "memmaps"]).stdout), &["avg    [3000, 342]", "10 classes"]);
    ok(path, &["convert", "memmaps", "-o", "x.npz", "--dtype", "f16"]);
    let said = text(&ok(path, &["convert", "x.npz", "-o", "s.npy", "--field", "std"]).stderr);
    contains(&said, &["note: left out avg, label"]);
    let logits = ["convert", "x.npz", "-o", "all.safetensors", "--logits", "--head", &head];
    contains(&text(&ok(path, &logits).stderr), &["label, avg, std, logits in 1 file"]);
    let want = values(&train);
    for out in ["shards", "memmaps", "x.npz", "all.safetensors"] {
        assert!(values(path.join(out)) == want, "{out}");
    }
    // A fit does not notice which form it reads.
    for (set, out) in [(&*train, "a"), ("memmaps", "b")] {
        ok(path, &["fit", "ssd", "--train", set, "-o", out]);
        ok(path, &["score", out, &data("test"), "-o", &format!("{out}.csv")]);
    }
    assert!(fs::read(path.join("a.csv")).unwrap() == fs::read(path.join("b.csv")).unwrap());
    // Memmaps without labels: D from the head or from --dim.
    fs::remove_file(path.join("memmaps/label.mmap")).unwrap();
    contains(&fails_with(path, 1, &["info", "memmaps"]), &["--dim"]);
    ok(path, &["info", "memmaps", "--dim", "342"]);
    ok(path, &["fit", "el", "--train", "memmaps", "--head", &head, "-o", "el"]);
    let labels = ["--labels", "all.safetensors", "--dim", "342"];
    let fit = [&["fit", "gmm", "--train", "memmaps", "-o", "gmm"], &labels[..]].concat();
    ok(path, &fit);
    ok(path, &["score", "gmm", "memmaps", "--dim", "342", "-o", "s.csv"]);
    let (id, ood) = ("memmaps", format!("mnist={}", data("ood_mnist")));
    let eval = ["eval", "--id", id, "--ood", &ood, "--detectors", "gmm", "--dim", "342"];
    ok(path, &eval);
    let said = text(&ok(path, &["convert", "s.npy", "-o", "m", "--to", "memmap"]).stderr);
    contains(&said, &["do not say what D is"]);
}

#[test]
fn refusals() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let train = data("train");
    let convert =
        |more: &[&'static str]| -> Vec<&str> { [&["convert", train.as_str()], more].concat() };
    let dtype = fails_with(path, 2, &convert(&["-o", "x", "--dtype", "f31"]));
    contains(&dtype, &["unknown dtype `f31`", "did you mean `f32`?"]);
    contains(
        &fails_with(path, 1, &convert(&["-o", "x", "--fields", "max"])),
        &["`max`", "avg, std"],
    );
    contains(&fails_with(path, 1, &convert(&["-o", "x", "--logits"])), &["--head"]);
    let onto_itself = fails_with(path, 2, &["convert", &train, "-o", &train, "--force"]);
    contains(&onto_itself, &["read by this command"]);
    contains(&fails_with(path, 2, &convert(&["-o", "x.txt"])), &["`.txt`", "--to"]);
    let labels = fails_with(path, 2, &convert(&["-o", "x", "--subset-labels", "11"]));
    contains(&labels, &["`subset.number_labels` = 11", "10 classes"]);
    contains(
        &fails_with(path, 1, &convert(&["-o", "x", "--dim", "7"])),
        &["[N, 7]", "[3000, 342]"],
    );
    fs::create_dir(path.join("full")).unwrap();
    fs::write(path.join("full/notes.txt"), b"keep").unwrap();
    contains(&fails_with(path, 2, &convert(&["-o", "full"])), &["not empty"]);
    contains(&fails_with(path, 2, &convert(&["-o", "full", "--force"])), &["notes.txt"]);
    assert_eq!(fs::read_dir(path).unwrap().count(), 1);
    assert_eq!(fs::read(path.join("full/notes.txt")).unwrap(), b"keep");
}

/// A training set of 60,000 × 64 as memmaps, exact in f16, enough to be caught in the act.
fn large(directory: &Path) {
    let (rows, dim) = (60_000, 64);
    let bytes = |n: usize, f: &dyn Fn(usize) -> f64| -> Vec<u8> {
        (0..n).flat_map(|i| f(i).to_le_bytes()).collect()
    };
    fs::create_dir(directory.join("in")).unwrap();
    let feat = bytes(rows * dim, &|i| (i.wrapping_mul(2_654_435_761) % 2048) as f64 / 8.0);
    fs::write(directory.join("in/feat.mmap"), feat).unwrap();
    fs::write(directory.join("in/label.mmap"), bytes(rows, &|i| (i % 9) as f64)).unwrap();
}

/// Killed at some moment, there is either nothing under the output's name or
/// all of it; what is left otherwise is refused; running it again succeeds.
#[cfg(unix)]
#[test]
fn killed_at_any_moment_nothing_half_is_taken_for_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    large(path);
    let convert = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heat"));
        command.args(["convert", "in", "-q", "--shard-rows", "4096", "--force", "-o", out]);
        command.current_dir(path).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let want = values(path.join("in"));
    let start = std::time::Instant::now();
    assert!(convert("whole").status().unwrap().success());
    let whole = start.elapsed();
    let (mut unfinished, mut finished) = (0, 0);
    for i in 0..24u32 {
        let out = if i % 2 == 0 { "out" } else { "out.safetensors" };
        // A second run replaces the first's output: that must stay whole too.
        let existed = path.join(out).exists();
        let mut child = convert(out).spawn().unwrap();
        // Spread over the time of a whole run, and somewhat beyond.
        let part = f64::from((i * 7) % 24) / 20.0;
        std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * part));
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        if done {
            finished += 1
        } else {
            unfinished += 1
        }
        if path.join(out).exists() {
            assert!(values(path.join(out)) == want, "{i}");
        } else {
            assert!(!done && !existed, "{i}");
        }
        for entry in fs::read_dir(path).unwrap() {
            let left = entry.unwrap().path();
            if left.file_name().unwrap().to_string_lossy().starts_with('.') {
                assert!(FeatureSet::open(&left).is_err(), "{}", left.display());
            }
        }
    }
    assert!(unfinished > 5, "{unfinished} of {finished}");
    assert!(convert("out").status().unwrap().success());
    assert!(values(path.join("out")) == want);
    assert!(!path.join(".heat-out.tmp").exists());
    // The same bytes as a run that nobody disturbed.
    for entry in fs::read_dir(path.join("whole")).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |directory: &str| fs::read(path.join(directory).join(&name)).unwrap();
        assert!(read("whole") == read("out"));
    }
}

const TINY: [&str; 5] = [
    "ebm=quickstart_gmm",
    "ebm.model.hidden_dim=16",
    "ebm.model.steps=1",
    "n_epochs=1",
    "batch_size=64",
];

#[test]
fn training_on_subsets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (data, test) = (data("train"), data("test"));
    let train = |out: &str, more: &[&str]| {
        let args = [&["train"], &TINY[..], more, &["--train", &data, "--out", out]].concat();
        command(path, &args).output().unwrap()
    };
    let quarter = "dataset.subset.proportion=0.25";
    let five = "dataset.subset.number_labels=5";
    for (out, more) in [
        ("quarter", &[quarter][..]),
        ("again", &[quarter]),
        ("seed", &[quarter, "dataset.subset.random_state=1"]),
        ("five", &["dataset=cifar10", five]),
    ] {
        let done = train(out, more);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let read = |run: &str| fs::read(path.join(run).join("detector.safetensors")).unwrap();
    assert!(read("quarter") == read("again"));
    assert!(read("quarter") != read("seed"));
    let info = |run: &str| text(&ok(path, &["info", run]).stdout);
    contains(&info("quarter"), &["subset: 750 rows sha256", "proportion = 0.25", "\"classes\":10"]);
    contains(&info("five"), &["subset: 1500 rows of 5 classes", "\"classes\":5"]);
    // A checkpoint is bound to its subset.
    let other = train("quarter", &["--resume", "n_epochs=2", "dataset.subset.random_state=1"]);
    contains(&text(&other.stderr), &["made from other data"]);
    assert!(train("quarter", &["--resume", "n_epochs=2"]).status.success());
    assert_eq!(
        text(&ok(path, &["score", "five/detector.safetensors", &test]).stdout).lines().count(),
        1001
    );
    let wrong = train("no", &["dataset.subset.proportion=2"]);
    contains(&text(&wrong.stderr), &["`subset.proportion` = 2"]);
}

#[test]
fn fit_and_eval_on_subsets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (train, head, test) = (data("train"), data("head"), data("test"));
    let k = |out: &str, more: &[&str]| {
        ok(path, &[&["fit", "knn", "--train", &train, "-o", out], more].concat());
        let info = text(&ok(path, &["info", out]).stdout);
        let (_, after) = info.split_once("\"k\":").unwrap();
        // `settings` come first and hold k only where it was given.
        let last = after.rsplit("\"k\":").next().unwrap();
        last.split(',').next().unwrap().to_owned()
    };
    assert_eq!(k("whole", &[]), "50");
    assert_eq!(k("tenth", &["--subset-proportion", "0.1"]), "5");
    assert_eq!(k("given", &["k=30", "--subset-proportion", "0.1"]), "3");
    // Fewer classes, all their rows: as near as before.
    assert_eq!(k("five", &["--subset-labels", "5"]), "50");
    let ood = format!("mnist={}", data("ood_mnist"));
    let sets = ["--train", &train, "--head", &head, "--id", &test, "--ood", &ood];
    let subset = ["--subset-labels", "5", "--subset-proportion", "0.5", "--subset-seed", "2"];
    let scorers = ["--scorers", "el,msp,ssd,knn", "--format", "csv"];
    let eval = |subset: &[&str]| ok(path, &[&["eval"], &sets[..], &scorers, subset].concat());
    let all = eval(&subset);
    let (csv, said) = (text(&all.stdout), text(&all.stderr));
    assert_eq!(csv.lines().count(), 9);
    assert_eq!(text(&eval(&subset).stdout), csv);
    contains(&said, &["note: classes [", "of 1000 ID rows"]);
    // The test set's own rows of the five classes.
    let (_, left) = said.split_once("]; ").unwrap();
    let rows: usize = left.split(' ').next().unwrap().parse().unwrap();
    let (_, inside) = said.split_once("note: classes [").unwrap();
    let classes: Vec<u32> =
        inside.split(']').next().unwrap().split(", ").map(|c| c.parse().unwrap()).collect();
    let set = FeatureSet::open(&test).unwrap();
    let labels = set.labels(0..set.len(), 10).unwrap();
    assert_eq!(rows, labels.iter().filter(|l| classes.contains(l)).count());
    assert_eq!(classes.len(), 5);
    let lonely =
        ["eval", "--id", &test, "--ood", &ood, "--detectors", "whole", "--subset-labels", "2"];
    contains(&fails_with(path, 2, &lonely), &["--train"]);
}
