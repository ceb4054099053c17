//! Where output goes and what is read: standard output, permissions, what is no regular file,
//! and what others left.
#![cfg(target_os = "linux")]

use crate::common;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{command, contains, data, fails, ok, text};

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn standard_output_is_written_to_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    ok(path, &["fit", "norm", "--train", &data("train"), "-o", "d.safetensors"]);
    let want = ok(path, &["score", "d.safetensors", &data("test")]).stdout;
    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        // To a file that has something in it already, which is added to.
        let out = path.join("out.csv");
        fs::write(&out, "before\n").unwrap();
        let file = File::options().append(true).open(&out).unwrap();
        let mut score = command(path, &["score", "d.safetensors", &data("test"), "-o", name]);
        assert!(score.stdout(file).stderr(Stdio::null()).status().unwrap().success(), "{name}");
        assert_eq!(fs::read(&out).unwrap(), [b"before\n", &want[..]].concat(), "{name}");
        assert!(!path.join("-").exists());
    }
    // A detector too, through a pipe.
    let fit = ok(path, &["fit", "norm", "--train", &data("train"), "-o", "-"]).stdout;
    assert_eq!(fit, fs::read(path.join("d.safetensors")).unwrap());
}

#[test]
fn what_is_private_stays_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let file = path.join("d.safetensors");
    let fit = ["fit", "norm", "--train", &data("train"), "-o", "d.safetensors"];
    ok(path, &fit);
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    ok(path, &fit);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn pipes_and_links_under_names_of_ours_are_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fifo(&path.join("pipe.npy"));
    let (_, error) = fails(path, &["fit", "norm", "--train", "pipe.npy", "-o", "d.safetensors"]);
    contains(&error, &["pipe.npy", "not a regular file"]);
    // A run's lock is another's link, or a pipe.
    fs::write(path.join("precious"), "x").unwrap();
    let train = data("train");
    let tiny =
        ["train", "ebm=quickstart_gmm", "ebm.model.hidden_dim=16", "n_epochs=1", "--train", &train];
    for (name, make) in [("linked", true), ("piped", false)] {
        fs::create_dir(path.join(name)).unwrap();
        let lock = path.join(name).join(".lock");
        if make {
            symlink(path.join("precious"), lock).unwrap()
        } else {
            fifo(&lock)
        }
        let (_, error) = fails(path, &[&tiny[..], &["--out", name]].concat());
        contains(&error, &[".lock"]);
    }
    // Other files of a run are another's links.
    for name in ["metrics.jsonl", "run.json", "detector.safetensors"] {
        let run = path.join(format!("run-{name}"));
        fs::create_dir(&run).unwrap();
        symlink(path.join("precious"), run.join(name)).unwrap();
        let (_, error) = fails(path, &[&tiny[..], &["--out", run.to_str().unwrap()]].concat());
        contains(&error, &[name, "is a link, which is not followed"]);
    }
    assert_eq!(fs::read(path.join("precious")).unwrap(), b"x");
    // The old temporary name of a directory is another's link to a directory of value.
    fs::create_dir(path.join("valuable")).unwrap();
    fs::write(path.join("valuable/a"), "x").unwrap();
    symlink(path.join("valuable"), path.join(".heat-out.tmp")).unwrap();
    ok(path, &["convert", &data("test"), "-o", "out"]);
    assert_eq!(fs::read(path.join("valuable/a")).unwrap(), b"x");
    assert!(path.join("out").is_dir());
}

#[test]
fn what_others_left_or_hold_is_let_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let train = data("train");
    fs::create_dir_all(path.join("run")).unwrap();
    // An extraction that is not finished, a file that another command holds, one of a killed writer.
    fs::create_dir_all(path.join("run/.heat-features.tmp")).unwrap();
    fs::write(path.join("run/.heat-features.tmp/extract.json"), "{}").unwrap();
    fs::write(path.join("run/.heat-HeLd00.tmp"), "half").unwrap();
    let held = File::open(path.join("run/.heat-HeLd00.tmp")).unwrap();
    held.lock().unwrap();
    fs::write(path.join("run/.heat-dEaD00.tmp"), "half").unwrap();
    let tiny = ["ebm=quickstart_gmm", "ebm.model.hidden_dim=16", "ebm.model.steps=1", "n_epochs=1"];
    ok(path, &[&["train"], &tiny[..], &["--train", &train, "--out", "run"]].concat());
    assert!(path.join("run/.heat-features.tmp/extract.json").exists());
    assert!(path.join("run/.heat-HeLd00.tmp").exists());
    assert!(!path.join("run/.heat-dEaD00.tmp").exists());
    ok(path, &["convert", &data("test"), "-o", "run/features"]);
    assert!(path.join("run/.heat-features.tmp/extract.json").exists());

    // The run is a detector, and knows what it was made of.
    let scores = text(&ok(path, &["score", "run", &data("test")]).stdout);
    assert!(scores.starts_with("row,score"), "{scores:.40}");
    let record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path.join("run/run.json")).unwrap()).unwrap();
    assert!(record["command"].as_str().unwrap().contains("heat train ebm=quickstart_gmm"));
    assert!(record["sha256"]["train"]["train.safetensors"].is_string(), "{record}");
    let out = ok(path, &["train", "n_epochs=2", "--out", "run", "--resume"]);
    contains(&text(&out.stderr), &["continuing from"]);
    // A checkpoint that was cut short is named, once.
    let checkpoints = fs::read_dir(path.join("run/checkpoints")).unwrap();
    let checkpoint = checkpoints.map(|entry| entry.unwrap().path()).next().unwrap();
    let whole = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &whole[..100]).unwrap();
    let (_, error) = fails(path, &["train", "--out", "run", "--resume"]);
    let name = checkpoint.file_name().unwrap().to_str().unwrap();
    contains(&error, &["delete it to continue from an earlier checkpoint"]);
    assert_eq!(error.lines().last().unwrap().matches(name).count(), 1, "{error}");
    fs::write(&checkpoint, whole).unwrap();
    let (code, error) =
        fails(path, &["train", "--out", "elsewhere", "--resume", "--train", &train]);
    assert_eq!(code, 1);
    contains(&error, &["elsewhere", "no run to resume"]);
    assert!(!path.join("elsewhere").exists());
}

/// A duplicate of a training row among the calibration rows blocks nothing but itself.
#[test]
fn duplicates_of_training_rows_can_be_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let row =
        |i: usize| -> Vec<f32> { (0..3).map(|j| ((i * 7 + j * 3) % 101) as f32 + 0.25).collect() };
    let write = |name: &str, rows: Vec<Vec<f32>>| {
        common::npy(&path.join(name), &rows.iter().map(|r| &r[..]).collect::<Vec<_>>());
    };
    write("train.npy", (0..60).map(row).collect());
    // Rows 3 and 17 are training rows.
    let other = |i: usize| row(i).iter().map(|v| v + 0.5).collect::<Vec<f32>>();
    let cal = |i: usize| if [3, 17].contains(&i) { row(i) } else { other(i) };
    write("cal.npy", (0..60).map(cal).collect());
    ok(path, &["fit", "norm", "--train", "train.npy", "-o", "d.safetensors"]);
    let calibrate = ["calibrate", "d.safetensors", "--id", "cal.npy", "-o", "c.safetensors"];
    let (_, error) = fails(path, &calibrate);
    contains(&error, &["2 of 60 rows", "(row 3, 17)", "--drop-seen"]);
    let out = text(&ok(path, &[&calibrate[..], &["--drop-seen"]].concat()).stderr);
    contains(&out, &["2 of 60 rows were in training and are left out"]);
    assert!(!out.contains("nothing is promised"), "{out}");
    // The same as of the other rows alone.
    write("clean.npy", (0..60).filter(|i| ![3, 17].contains(i)).map(cal).collect());
    let clean = ["calibrate", "d.safetensors", "--id", "clean.npy", "-o", "clean.safetensors"];
    ok(path, &clean);
    let verdicts = |d: &str| ok(path, &["score", d, "train.npy"]).stdout;
    assert!(verdicts("c.safetensors") == verdicts("clean.safetensors"));

    // Through the training file itself, which needs no word, and through others.
    let through = |train: &[&str]| {
        text(&ok(path, &[&calibrate[..], &["--drop-seen", "--train"], train].concat()).stderr)
    };
    assert!(!through(&["train.npy"]).contains("warning"));
    fs::copy(path.join("train.npy"), path.join("copy.npy")).unwrap();
    assert!(!through(&["copy.npy"]).contains("warning"));
    let sha = |name: &str| {
        let bytes = fs::read(path.join(name)).unwrap();
        heat_ood::io::sha256_of([&bytes[..]])[..12].to_owned()
    };
    let (known, given) = (sha("train.npy"), sha("clean.npy"));
    let out = through(&["train.npy", "clean.npy"]);
    let warning = format!(
        "warning: clean.npy (SHA-256 {given}) is not what the detector was fitted on, which is \
         train.npy (SHA-256 {known}): "
    );
    contains(&out, &[&warning, "2 of 60 rows were in training"]);
    assert_eq!(out.matches("warning").count(), 1, "{out}");
    // Changed since, under its own name.
    write("train.npy", (0..61).map(row).collect());
    let warning = format!("warning: train.npy (SHA-256 {}) is not what", sha("train.npy"));
    contains(&through(&["train.npy"]), &[&warning, &format!("train.npy (SHA-256 {known})")]);
}

/// A training set that is cut short, or written into, while it is read; and one that is read into
/// memory, which is not touched by that.
#[test]
fn a_set_that_changes_during_training() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let train = |options: &[&str], epochs: &str, change: &dyn Fn(&Path)| {
        let set = path.join("train.safetensors");
        fs::copy(data("train"), &set).unwrap();
        let _ = fs::remove_dir_all(path.join("run"));
        let tiny = ["train", "ebm=quickstart_gmm", "ebm.model.hidden_dim=16", "ebm.model.steps=1"];
        let rest = ["--train", "train.safetensors", "--out", "run"];
        let mut command = command(path, &[&tiny[..], &[epochs], &rest, options].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let first = path.join("run/checkpoints/epoch_1.safetensors");
        common::wait_until(&mut child, || first.exists());
        change(&set);
        let out = child.wait_with_output().unwrap();
        (out.status.code(), text(&out.stderr))
    };
    let cut = |set: &Path| File::options().write(true).open(set).unwrap().set_len(5000).unwrap();
    let grown = |set: &Path| {
        use std::io::Write;
        File::options().append(true).open(set).unwrap().write_all(b"more").unwrap();
    };
    let (code, error) = train(&["save_freq=1"], "n_epochs=100000", &cut);
    assert_eq!(code, Some(4), "{error}");
    contains(
        &error,
        &["error: ", "train.safetensors: was cut short by another program", "--no-mmap"],
    );
    let (code, error) = train(&["save_freq=1"], "n_epochs=100000", &grown);
    assert_eq!(code, Some(1), "{error}");
    contains(&error, &["train.safetensors: was changed while it was read", "rename it"]);
    // What was done before is kept.
    assert!(path.join("run/checkpoints/epoch_1.safetensors").exists());
    let (code, error) = train(&["save_freq=1", "--no-mmap"], "n_epochs=40", &cut);
    assert_eq!(code, Some(0), "{error}");
    let (_, error) = fails(
        path,
        &[
            "fit",
            "el",
            "--train",
            &data("train"),
            "--no-mmap",
            "--memory",
            "1kB",
            "-o",
            "d.safetensors",
        ],
    );
    contains(&error, &["to read it into memory takes", "memory limit", "--memory SIZE"]);
}

/// `info --verify` proves a detector, and says where there is nothing to prove.
#[test]
fn a_detector_is_verified() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    ok(path, &["fit", "gmm", "--train", &data("train"), "-o", "d.safetensors"]);
    let out = text(&ok(path, &["info", "d.safetensors", "--verify"]).stdout);
    contains(&out, &["verified 16 probe rows score as where it was made"]);
    for isa in ["portable", "avx2"] {
        let mut lowered = command(path, &["info", "d.safetensors", "--verify"]);
        let out = lowered.env("HEAT_ISA", isa).output().unwrap();
        assert!(out.status.success(), "{isa}: {}", text(&out.stderr));
    }
    let (code, error) = fails(path, &["info", &data("test"), "--verify"]);
    assert_eq!(code, 1);
    contains(&error, &["probe rows", "no detector"]);
}

/// Said before rows are read: the training set of the command does not even exist.
#[test]
fn a_directory_that_cannot_be_written_is_refused_before_the_work() {
    use std::os::unix::process::CommandExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    let out = path.join("mine");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, PermissionsExt::from_mode(0o555)).unwrap();
    let mut fit = command(path, &["fit", "norm", "--train", "none", "-o", "mine/d.safetensors"]);
    if fs::metadata(path).is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0) {
        // Nothing is refused to root: as nobody.
        fit.uid(65534).gid(65534);
    }
    match fit.output() {
        Ok(done) => contains(&text(&done.stderr), &["write into mine", "Permission denied"]),
        Err(error) => eprintln!("skipped: nobody cannot run this build: {error}"),
    }
    fs::set_permissions(&out, PermissionsExt::from_mode(0o755)).unwrap();
}
