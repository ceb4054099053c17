//! `heat export` and `heat import` from end to end, on real features.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn data(name: &str) -> String {
    let path =
        root().join("crates/heat-cli/data/cifar10-densenet").join(format!("{name}.safetensors"));
    path.to_str().unwrap().to_owned()
}

fn golden(name: &str) -> String {
    let path = root().join("crates/heat-ood/tests/golden/torch").join(name);
    path.to_str().unwrap().to_owned()
}

fn heat(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heat")).args(args).current_dir(directory).output().unwrap()
}

fn ok(directory: &Path, args: &[&str]) -> String {
    let out = heat(directory, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Exit code and standard error of a command that must fail.
fn fails(directory: &Path, args: &[&str]) -> (i32, String) {
    let out = heat(directory, args);
    assert!(!out.status.success(), "{args:?}");
    (out.status.code().unwrap(), String::from_utf8_lossy(&out.stderr).into_owned())
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` not in: {text}");
    }
}

const TINY: [&str; 4] =
    ["ebm=quickstart_gmm", "ebm.model.hidden_dim=32", "ebm.model.steps=2", "n_epochs=1"];

#[test]
fn a_network_goes_to_pytorch_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| ok(directory.path(), args);
    let (train, test) = (data("train"), data("test"));
    run(&[&["train"], &TINY[..], &["--train", &train, "--out", "run"]].concat());
    run(&["export", "run/detector.safetensors", "-o", "net.pt"]);
    let import = [&["import", "net.pt"], &TINY[..], &["--train", &train, "-o", "back.safetensors"]];
    run(&import.concat());
    let scores = |detector: &str| run(&["score", detector, &test]);
    assert_eq!(scores("back.safetensors"), scores("run/detector.safetensors"));
    let info = run(&["info", "net.pt"]);
    contains(&info, &["PyTorch checkpoint", "D = 342, hidden_dim = 32", "tied"]);
    contains(&run(&["info", "back.safetensors"]), &["network read from net.pt", "train "]);
}

#[test]
fn another_network_than_the_recipe_says() {
    let directory = tempfile::tempdir().unwrap();
    let (net, train) = (golden("tapered.pt"), data("train"));
    let import =
        [&["import", &net], &TINY[..], &["--train", &train, "-o", "x.safetensors"]].concat();
    let (code, error) = fails(directory.path(), &import);
    assert_eq!(code, 2);
    let theirs = "D = 12, hidden_dim = 16, n_hidden_layers = 2, tapered (reduce_width)";
    contains(
        &error,
        &["D = 342, hidden_dim = 32, n_hidden_layers = 4, tied", theirs, "tapered.pt"],
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_exported_or_imported() {
    let directory = tempfile::tempdir().unwrap();
    let train = data("train");
    let fails = |args: &[&str]| fails(directory.path(), args).1;
    ok(directory.path(), &["fit", "gmm", "--train", &train, "-o", "gmm.safetensors"]);
    let error = fails(&["export", "gmm.safetensors", "-o", "net.pt"]);
    contains(&error, &["gmm.safetensors", "a `gmm`, which has no network"]);
    contains(&fails(&["export", &train, "-o", "net.pt"]), &["not a detector"]);
    let error = fails(&["export", "gmm.safetensors", "-o", "gmm.safetensors"]);
    contains(&error, &["read by this command"]);
    let import = |net: &str, more: &[&str]| {
        fails(&[&["import", net, "--train", &train, "-o", "x.safetensors"], more].concat())
    };
    contains(&import(&golden("two.pt"), &[]), &["choose one prefix of `first.`, `second.`"]);
    contains(&import(&golden("two.pt"), &["--prefix", "third."]), &["third.mlp.0.weight"]);
    contains(&import(&golden("absent.pt"), &[]), &["absent.pt does not exist"]);
    assert!(!directory.path().join("net.pt").exists());
}
