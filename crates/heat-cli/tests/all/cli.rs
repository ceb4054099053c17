//! The command from end to end, on real features.

use crate::common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{command, contains, data, fails, ok, text};
use serde_json::Value;

/// Standard output of a command that must succeed.
fn said(directory: &Path, args: &[&str]) -> String {
    text(&ok(directory, args).stdout)
}

const TINY: [&str; 5] =
    ["ebm=quickstart_gmm", "ebm.model.hidden_dim=32", "ebm.model.steps=2", "n_epochs=2", "seed=5"];

pub fn train(directory: &Path, out: &str, more: &[&str]) -> Output {
    let train = data("train");
    let args = [&["train"], &TINY[..], &["--train", &train, "--out", out], more].concat();
    command(directory, &args).output().unwrap()
}

/// AUROC and FPR95 (ID positive) of scikit-learn 1.9.1 and numpy 2.4.6 on scores
/// computed with numpy in float64 from the same files, by METHOD's formulas.
#[test]
fn eval_agrees_with_numpy_and_scikit_learn() {
    let directory = tempfile::tempdir().unwrap();
    let (cifar, mnist) = (data("ood_cifar100"), data("ood_mnist"));
    let args = [
        "eval",
        "--train",
        &data("train"),
        "--head",
        &data("head"),
        "--id",
        &data("test"),
        "--ood",
        &format!("cifar100={cifar}"),
        &format!("mnist={mnist}"),
        "--scorers",
        "msp,el,knn(k=50),ssd,ssd(pooling=std),maha",
        "--combine",
        "el,ssd",
        "--format",
        "json",
    ];
    let json: Value = serde_json::from_str(&said(directory.path(), &args)).unwrap();
    let expected: Value = serde_json::from_str(include_str!("../expected.json")).unwrap();
    let scorers = json["scorers"].as_object().unwrap();
    let names: Vec<&String> = scorers.keys().collect();
    assert_eq!(names.len(), 7);
    assert_eq!(names[2], "knn(k=50)");
    for (name, sets) in expected.as_object().unwrap() {
        for (set, want) in sets.as_object().unwrap() {
            for (metric, want) in want.as_object().unwrap() {
                let got = scorers[name]["ood"][set][metric].as_f64().unwrap();
                let want = want.as_f64().unwrap();
                // Scores are f32 here and f64 there: pairs may swap, and one row of
                // 500 may fall on the other side of a threshold.
                let tolerance = if metric.starts_with("fpr95") { 0.0021 } else { 2e-5 };
                assert!((got - want).abs() <= tolerance, "{name} {set} {metric}: {got} {want}");
            }
        }
        let average = scorers[name]["average"]["auroc"].as_f64().unwrap();
        let of = |s: &str| scorers[name]["ood"][s]["auroc"].as_f64().unwrap();
        assert!((average - (of("cifar100") + of("mnist")) / 2.0).abs() < 1e-12);
    }
    assert_eq!(scorers["el"]["ood"]["mnist"]["n"], 500);
    assert!(scorers["el"]["seconds"]["score"].as_f64().unwrap() > 0.0);
}

#[test]
fn eval_writes_every_format() {
    let directory = tempfile::tempdir().unwrap();
    let run = |format: &str| {
        let (id, ood) = (data("test"), format!("mnist={}", data("ood_mnist")));
        let (train, head) = (data("train"), data("head"));
        let data = ["--train", &train, "--head", &head, "--id", &id, "--ood", &ood];
        let args = [&["eval"][..], &data, &["--scorers", "el,msp", "--format", format]].concat();
        said(directory.path(), &args)
    };
    insta::assert_snapshot!(run("table"));
    insta::assert_snapshot!(run("markdown"));
    insta::assert_snapshot!(run("csv"));
}

#[test]
fn train_compose_score_and_info() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let out = train(path, "run", &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    contains(&text(&out.stderr), &["epoch 2: loss", "wrote run/detector.safetensors"]);
    for file in ["recipe.toml", "metrics.jsonl", "checkpoints/epoch_2.safetensors"] {
        assert!(path.join("run").join(file).exists(), "{file}");
    }
    said(
        path,
        &["fit", "el", "--train", &data("train"), "--head", &data("head"), "-o", "el.safetensors"],
    );
    let compose = [
        "compose",
        "run/detector.safetensors",
        "el.safetensors",
        "--beta",
        "-1.5",
        "--train",
        &data("train"),
        "-o",
        "both.safetensors",
    ];
    said(path, &compose);
    let csv = said(path, &["score", "run/detector.safetensors", &data("test")]);
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("row,score,energy_nn,energy_prior"));
    let row: Vec<f64> = lines.next().unwrap().split(',').map(|v| v.parse().unwrap()).collect();
    assert!((row[1] - row[2] - row[3]).abs() < 1e-4);
    assert_eq!(csv.lines().count(), 1001);
    for name in ["s.csv", "s.jsonl", "s.npy"] {
        said(path, &["score", "both.safetensors", &data("test"), "-o", name]);
    }
    let csv = fs::read_to_string(path.join("s.csv")).unwrap();
    let npy = fs::read(path.join("s.npy")).unwrap();
    // As numpy writes it, padded to 128 bytes.
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000,), }";
    let want = [b"\x93NUMPY\x01\0\x76\0", format!("{header:<117}\n").as_bytes()].concat();
    assert_eq!(npy[..128], want);
    let values: Vec<f32> =
        npy[npy.len() - 4000..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let jsonl = fs::read_to_string(path.join("s.jsonl")).unwrap();
    for ((line, value), json) in csv.lines().skip(1).zip(values).zip(jsonl.lines()) {
        let score: f32 = line.split(',').nth(1).unwrap().parse().unwrap();
        let json: Value = serde_json::from_str(json).unwrap();
        assert_eq!((score, json["score"].as_f64().unwrap() as f32), (value, value));
    }
    // A checkpoint scores like the detector made from it.
    let from = |file: &str| said(path, &["score", file, &data("ood_mnist")]);
    assert_eq!(from("run/checkpoints/epoch_2.safetensors"), from("run/detector.safetensors"));
    let info = |file: &str| said(path, &["info", file]);
    contains(
        &info("run/detector.safetensors"),
        &["heat", "gmm", "mlp.0.weight", "train.safetensors sha256"],
    );
    contains(
        &info("run/checkpoints/epoch_1.safetensors"),
        &["checkpoint", "epoch    1 of 2", "seed     5"],
    );
    contains(&info("both.safetensors"), &["combined", "\"beta\":\"-1.5\""]);
    contains(&info(&data("train")), &["3000 rows", "avg", "std", "10 classes"]);
    contains(&info(&data("head")), &["10 classes, D = 342"]);
    let (code, error) = fails(path, &["score", "both.safetensors", &data("test"), "-o", "s.txt"]);
    assert_eq!(code, 2);
    contains(&error, &[".csv, .jsonl or .npy"]);
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for threads in ["1", "2", "4"] {
        assert!(train(path, threads, &["--threads", threads]).status.success());
        let (fit, out) = (data("train"), format!("knn{threads}.safetensors"));
        said(path, &["fit", "knn", "k=9", "--train", &fit, "-o", &out, "--threads", threads]);
        let scores = format!("{threads}.csv");
        let detector = format!("{threads}/detector.safetensors");
        said(path, &["score", &detector, &data("test"), "-o", &scores, "--threads", threads]);
    }
    for file in [
        "{}/detector.safetensors",
        "{}/checkpoints/epoch_1.safetensors",
        "knn{}.safetensors",
        "{}.csv",
    ] {
        let read = |n: &str| fs::read(path.join(file.replace("{}", n))).unwrap();
        assert!(read("1") == read("2") && read("1") == read("4"), "{file}");
    }
}

/// `HEAT_ISA` lowers the instructions: fits and scores stay what they are.
#[test]
fn the_instruction_set_changes_no_byte() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let run = |isa: &str, args: &[&str]| {
        let output = command(path, args).env("HEAT_ISA", isa).output().unwrap();
        assert!(output.status.success(), "{isa}: {}", text(&output.stderr));
    };
    let mut sets = vec!["portable"];
    #[cfg(target_arch = "x86_64")]
    sets.extend(is_x86_feature_detected!("avx2").then_some("avx2"));
    #[cfg(target_arch = "aarch64")]
    sets.push("neon");
    let (set, head) = (data("train"), data("head"));
    for scorer in ["gmm", "knn", "vim"] {
        let args = ["fit", scorer, "--train", &set, "--head", &head, "-o"];
        said(path, &[&args[..], &["best.safetensors"]].concat());
        said(path, &["score", "best.safetensors", &data("test"), "-o", "best.csv"]);
        for &isa in &sets {
            let detector = format!("{scorer}-{isa}.safetensors");
            run(isa, &[&args[..], &[&detector]].concat());
            run(isa, &["score", &detector, &data("test"), "-o", "lowered.csv"]);
            let read = |name: &str| fs::read(path.join(name)).unwrap();
            assert!(read(&detector) == read("best.safetensors"), "{scorer} on {isa}");
            assert!(read("lowered.csv") == read("best.csv"), "{scorer} on {isa}");
        }
    }
    for (isa, words) in [("sse9", "expected one of portable, "), ("", "expected one of")] {
        let output = command(path, &["info", "x"]).env("HEAT_ISA", isa).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        contains(&text(&output.stderr), &["`HEAT_ISA`", words]);
    }
}

/// One's own arrays, as numpy writes them.
#[test]
fn npy_features_and_labels() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let npy = |name: &str, descr: &str, shape: &str, data: Vec<u8>| {
        let mut header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        while !(header.len() + 11).is_multiple_of(64) {
            header.push(' ');
        }
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16 + 1).to_le_bytes());
        out.extend(header.as_bytes());
        out.push(b'\n');
        out.extend(data);
        fs::write(path.join(name), out).unwrap();
    };
    let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32;
    let rows = |n: u32, shift: f32| -> Vec<u8> {
        (0..n * 8).flat_map(|i| (value(i) + shift).to_le_bytes()).collect()
    };
    npy("x.npy", "<f4", "(300, 8)", rows(300, 0.0));
    npy("y.npy", "<i4", "(300,)", (0..300i32).flat_map(|i| (i % 3).to_le_bytes()).collect());
    npy("far.npy", "<f4", "(50, 8)", rows(50, 3.0));
    let fit = ["fit", "maha", "--train", "x.npy", "--labels", "y.npy", "-o", "d.safetensors"];
    said(path, &fit);
    assert_eq!(said(path, &["score", "d.safetensors", "far.npy"]).lines().count(), 51);
    let eval = [
        "eval",
        "--detectors",
        "d.safetensors",
        "--id",
        "x.npy",
        "--ood",
        "far.npy",
        "--format",
        "csv",
    ];
    contains(&said(path, &eval), &["d,far,1,0,0,1,1,1"]);
    let (_, error) = fails(path, &["fit", "gmm", "--train", "x.npy", "-o", "e.safetensors"]);
    contains(&error, &["x.npy has no `label`", "--labels"]);
    assert!(!path.join("e.safetensors").exists());
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (train, id) = (data("train"), data("test"));
    let ood = format!("mnist={}", data("ood_mnist"));
    let slash = format!("a/b={}", data("ood_mnist"));
    let cases: [(&[&str], &[&str]); 10] = [
        (&["train", "ebm=heat_gmm_c11", "--train", &train], &["did you mean `ebm=heat_gmm_c1"]),
        (&["train", "ebm.model.stpes=3", "--train", &train], &["did you mean `ebm.model.steps`?"]),
        (
            &["train", "backbone=resnet34_c10", "--train", &train, "--out", "r"],
            &["D = 512", "D = 342"],
        ),
        (&["fit", "knn", "kk=3", "--train", &train, "-o", "d.safetensors"], &["`knn.k`"]),
        (&["fit", "knn", "k=4000", "--train", &train, "-o", "d.safetensors"], &["3000 rows"]),
        (&["eval", "--id", &id, "--ood", &ood], &["--scorers"]),
        (
            &["eval", "--id", &id, "--ood", &ood, "--train", &train, "--scorers", "kn"],
            &["did you mean `knn`?"],
        ),
        (
            &["eval", "--id", &id, "--ood", &ood, &ood, "--train", &train, "--scorers", "knn"],
            &["two sets are named"],
        ),
        (
            &["eval", "--id", &id, "--ood", &slash, "--train", &train, "--scorers", "knn"],
            &["a name holds no slash"],
        ),
        (&["compose"], &["--train"]),
    ];
    for (args, parts) in cases {
        let (code, error) = fails(path, args);
        assert_eq!(code, 2, "{args:?}: {error}");
        contains(&error, parts);
    }
    let (code, error) = fails(path, &["eval", "--id", &id, "--ood", &ood, "--scorers", "knn"]);
    assert_eq!(code, 1);
    contains(&error, &["--train"]);
    let (_, error) = fails(path, &["fit", "el", "--train", &train, "-o", "d.safetensors"]);
    contains(&error, &["--head"]);
    let (_, error) = fails(path, &["score", &train, &id]);
    contains(&error, &["not a detector"]);
}

#[test]
fn a_run_is_not_overwritten_and_resumes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(train(path, "whole", &["n_epochs=3"]).status.success());
    assert!(train(path, "run", &[]).status.success());
    let again = train(path, "run", &[]);
    contains(&text(&again.stderr), &["already holds a run", "--resume"]);
    // Two more epochs than before: only n_epochs is said anew.
    let data = data("train");
    said(path, &["train", "n_epochs=3", "--resume", "--train", &data, "--out", "run"]);
    for file in ["checkpoints/epoch_3.safetensors", "metrics.jsonl"] {
        let read = |run: &str| fs::read(path.join(run).join(file)).unwrap();
        assert!(read("run") == read("whole"), "{file}");
    }
    let other = command(path, &["train", "seed=9", "--resume", "--train", &data, "--out", "run"])
        .output()
        .unwrap();
    contains(&text(&other.stderr), &["other settings"]);
}

/// A device or a pipe is no file to be replaced, a link stays one, and nothing is
/// written among the files of a set that is read.
#[cfg(unix)]
#[test]
fn outputs_that_are_no_files_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let train = data("train");
    let fit = |output: &str| ["fit", "norm", "--train", &train, "-o", output].map(str::to_owned);
    let refused = |args: &[String], parts: &[&str]| {
        let args: Vec<&str> = args.iter().map(|s| &**s).collect();
        contains(&fails(path, &args).1, parts);
    };
    assert!(
        std::process::Command::new("mkfifo").arg(path.join("pipe")).status().unwrap().success()
    );
    refused(&fit("pipe"), &["pipe", "not a regular file"]);
    assert!(!fs::symlink_metadata(path.join("pipe")).unwrap().is_file());
    fs::create_dir(path.join("directory")).unwrap();
    refused(&fit("directory"), &["name of a directory"]);
    refused(&fit("new/"), &["name of a directory"]);
    fs::write(path.join("old"), "old").unwrap();
    std::os::unix::fs::symlink("old", path.join("link")).unwrap();
    said(path, &["fit", "norm", "--train", &train, "-o", "link"]);
    assert!(fs::symlink_metadata(path.join("link")).unwrap().is_symlink());
    assert!(fs::read(path.join("old")).unwrap().len() > 100);
    said(path, &["convert", &train, "-o", "shards"]);
    let before = common::tree(&path.join("shards"));
    let name = before.keys().next().unwrap();
    std::os::unix::fs::symlink(path.join("shards").join(name), path.join("into")).unwrap();
    for name in [&format!("shards/{name}"), "shards/new.safetensors", "into"] {
        let args = ["fit", "norm", "--train", "shards", "-o", name].map(str::to_owned);
        refused(&args, &["would be a part of it"]);
    }
    assert_eq!(common::tree(&path.join("shards")), before);
    let id = data("test");
    let ood = format!("mnist={}", data("ood_mnist"));
    let eval = ["eval", "--train", &train, "--id", &id, "--ood", &ood, "--scorers", "norm"];
    let same = [&eval[..], &["-o", "r.html", "--report", "./r.html"]].concat();
    contains(&fails(path, &same).1, &["that is where the results go"]);
    // A slash says that a directory is meant.
    said(path, &[&eval[..], &["--format", "openood", "-o", "csv/"]].concat());
    assert!(path.join("csv/norm.csv").is_file());
}

#[test]
fn names_and_files_that_would_collide() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (train, id) = (data("train"), data("test"));
    let ood = format!("mnist={}", data("ood_mnist"));
    for name in ["a.safetensors", "b.safetensors"] {
        said(path, &["fit", "knn", "k=5", "--train", &train, "-o", name]);
    }
    // Dots in names once made tensors of two members collide.
    let members = ["compose", "x=a.safetensors", "x.prior=b.safetensors", "--beta", "-inf"];
    said(path, &[&members[..], &["--train", &train, "-o", "c.safetensors"]].concat());
    assert_eq!(said(path, &["score", "c.safetensors", &id]).lines().count(), 1001);
    let eval = ["eval", "--id", &id, "--ood", &ood, "--train", &train];
    let (code, error) = fails(path, &[&eval[..], &["--scorers", "knn,knn"]].concat());
    assert_eq!(code, 2);
    contains(&error, &["two have that name"]);
    let (_, error) =
        fails(path, &["compose", "a.safetensors", "--train", &train, "-o", "a.safetensors"]);
    contains(&error, &["read by this command"]);
    let (_, error) = fails(path, &["fit", "knn", "--train", &train, "-o", "no/d.safetensors"]);
    contains(&error, &["does not exist"]);
    let tiny = ["train", "n_epochs=0", "--train", &train, "--out", "r"];
    contains(&fails(path, &tiny).1, &["`n_epochs` = 0"]);
}

/// A limit on file sizes stands in for a full disk: writes fail half way.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(train(path, "run", &["n_epochs=1"]).status.success());
    let before = fs::read(path.join("run/checkpoints/epoch_1.safetensors")).unwrap();
    let command = format!(
        "trap '' XFSZ; ulimit -f 100; exec {} train n_epochs=2 --resume --train {} --out run",
        env!("CARGO_BIN_EXE_heat"),
        data("train")
    );
    let out = Command::new("sh").args(["-c", &command]).current_dir(path).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    contains(&text(&out.stderr), &["write run/checkpoints/epoch_2.safetensors", "large"]);
    let names: Vec<String> = fs::read_dir(path.join("run/checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, ["epoch_1.safetensors"]);
    assert!(fs::read(path.join("run/checkpoints/epoch_1.safetensors")).unwrap() == before);
    said(path, &["train", "n_epochs=2", "--resume", "--train", &data("train"), "--out", "run"]);
    assert!(path.join("run/checkpoints/epoch_2.safetensors").exists());
}

/// Ctrl-C ends after the step with a checkpoint, from which the run goes on.
#[cfg(unix)]
#[test]
fn ctrl_c_saves_a_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let data = data("train");
    let args =
        [&["train"], &TINY[..], &["n_epochs=2000", "--train", &data, "--out", "run"]].concat();
    let mut child = common::start(path, &args);
    common::wait_until(&mut child, || path.join("run/checkpoints/epoch_1.safetensors").exists());
    assert_eq!(common::interrupt(&mut child), Some(130));
    let names = fs::read_dir(path.join("run/checkpoints")).unwrap();
    let steps =
        names.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("step_"));
    assert_eq!(steps.count(), 1);
}

/// A signal is heard between two Langevin steps, however many there are: the step of training is
/// taken anew when the run goes on, to the bytes of a run that was never stopped.
#[cfg(unix)]
#[test]
fn signals_are_heard_within_a_chain() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let data = data("train");
    for (signal, out) in [("-INT", "int"), ("-TERM", "term")] {
        let steps = "ebm.model.steps=1e9";
        let args = ["train", "ebm=quickstart_gmm", "ebm.model.hidden_dim=16", steps];
        let args = [&args[..], &["n_epochs=1", "--train", &data, "--out", out]].concat();
        let mut child = common::start(path, &args);
        // The record is written just before the first step.
        common::wait_until(&mut child, || path.join(out).join("run.json").exists());
        std::thread::sleep(std::time::Duration::from_millis(500));
        let sent = std::time::Instant::now();
        assert_eq!(common::signal(&mut child, signal), Some(130), "{signal}");
        assert!(sent.elapsed().as_secs() < 20, "{signal}: {:?}", sent.elapsed());
        assert!(path.join(out).join("checkpoints/step_0.safetensors").exists());
        // Stopped and begun again, it stands where it stood.
        let more = ["train", "--resume", "--out", out];
        let mut child = common::start(path, &more);
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert_eq!(common::signal(&mut child, signal), Some(130), "{signal}");
    }
}

/// The README's first command, from an empty directory.
#[test]
fn quickstart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let table = said(path, &["quickstart"]);
    contains(&table, &["FPR95 (ID+)", "FPR95 (OOD+)", "HEAT-GMM-std", "cifar100"]);
    let text = fs::read_to_string(path.join("heat-quickstart/results.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let auroc = |name: &str| json["scorers"][name]["average"]["auroc"].as_f64().unwrap();
    // The composition beats each of its parts.
    for part in ["HEAT-GMM", "HEAT-GMM-std", "HEAT-EL"] {
        assert!(auroc("HEAT") > auroc(part), "{part}");
    }
    let page = fs::read_to_string(path.join("heat-quickstart/report.html")).unwrap();
    contains(&page, &["fig-energies", "fig-beta-0", "fig-calibration", "HEAT-GMM-std"]);
    // What came from where.
    let sha = |file: &Path| heat_ood::io::sha256(file).unwrap();
    let train = format!("train.safetensors {}", sha(Path::new(&data("train"))));
    let (_, scorers) = page.split_once("<table id=\"scorers\"").unwrap();
    let (scorers, _) = scorers.split_once("</table>").unwrap();
    assert_eq!(scorers.matches(&train).count(), 11, "{scorers}");
    for name in ["heat", "quickstart_gmm", "quickstart_gmm_std", "quickstart_el"] {
        let name = format!("{name}.safetensors");
        let file = path.join("heat-quickstart").join(&name);
        contains(scorers, &[&format!("<td>{name} {}</td>", sha(&file))]);
    }
    let detector = "heat-quickstart/heat.safetensors";
    let csv = said(path, &["score", detector, &data("ood_textures")]);
    assert_eq!(csv.lines().count(), 501);
    // Detectors remember the rows that they were fitted on.
    for name in ["heat", "quickstart_gmm", "quickstart_gmm_std", "quickstart_el"] {
        let detector = format!("heat-quickstart/{name}.safetensors");
        let (_, error) =
            fails(path, &["calibrate", &detector, "--id", &data("train"), "-o", "calibrated"]);
        contains(&error, &["training rows"]);
    }
}
