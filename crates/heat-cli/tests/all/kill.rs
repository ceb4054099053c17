//! Killed at any moment, nothing is lost: no file is half written, and going
//! on gives the same bytes as never having been killed.
//!
//! Moments are drawn from a fixed seed over the length of a whole run; every
//! other kill waits for a temporary file, to fall into the writing of one.

use crate::common;

use std::fs;
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use heat_images::backbone::find_library;
use heat_ood::io::TensorFile;

use common::{LONGEST, assert_same, data, ok, results, start, tree};

/// Delays as fractions of a whole run (xorshift64*).
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn is_temporary(name: &str) -> bool {
    name.rsplit('/').next().unwrap().starts_with(".heat-")
}

/// A directory is written under a temporary name: the name of a file in it then.
fn final_name(name: &str) -> String {
    let directory =
        |part: &str| part.strip_prefix(".heat-")?.strip_suffix(".tmp").map(str::to_owned);
    let parts = name.split('/').map(|part| directory(part).unwrap_or_else(|| part.to_owned()));
    parts.collect::<Vec<_>>().join("/")
}

/// SIGKILL after `delay`, or, `writing`, as soon after it as a file is being
/// written. Nothing happens to a process that has ended. Whether it had not.
fn kill(mut child: Child, delay: Duration, writing: Option<&Path>) -> bool {
    let start = Instant::now();
    while start.elapsed() < delay && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(1));
    }
    if let Some(directory) = writing {
        while child.try_wait().unwrap().is_none()
            && !tree(directory).keys().any(|n| is_temporary(n))
        {
            assert!(start.elapsed() < delay + LONGEST, "neither writes nor ends");
            std::thread::yield_now();
        }
    }
    let _ = child.kill();
    !child.wait().unwrap().success()
}

/// Every file that has a final name is whole.
fn assert_whole(directory: &Path, when: &str) {
    for (name, path) in tree(directory) {
        if is_temporary(&name) {
            continue;
        }
        if name.ends_with(".safetensors") {
            TensorFile::open(&path).unwrap_or_else(|e| panic!("{when}: {e}"));
        }
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let json = if name.ends_with(".jsonl") {
            lines(fs::read_to_string(&path).unwrap())
        } else if name.ends_with(".json") {
            vec![fs::read_to_string(&path).unwrap()]
        } else {
            Vec::new()
        };
        for text in json {
            serde_json::from_str::<serde_json::Value>(&text)
                .unwrap_or_else(|e| panic!("{name} {when}: {e}"));
        }
    }
}

/// Kill `args` in fresh directories, `rounds` times, each time once or more; then
/// go on to the end and compare with a run that was not killed.
fn rounds(args: &[&str], resume: &[&str], rounds: u64, seed: u64) {
    let whole = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    ok(whole.path(), args);
    let mut length = begun.elapsed();
    let want = results(whole.path());
    assert!(!want.is_empty());
    // A run that was killed before its recipe was written is begun, not resumed.
    let begun = |path: &Path| args[0] != "train" || path.join("run/recipe.toml").is_file();
    let again = |path: &Path| match begun(path) {
        true => [args, resume].concat(),
        false => args.to_vec(),
    };
    let mut moments = Moments(seed);
    let (mut killed, mut half_written) = (0, 0);
    for round in 0..rounds {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        // Every third directory is killed a few times more on its way.
        for attempt in 0..if round % 3 == 2 { 3 } else { 1 } {
            let delay = length.mul_f64(moments.next());
            let writing = (round % 2 == 1).then_some(path);
            let when = format!("round {round}, attempt {attempt}, after {delay:?}");
            let words = if attempt == 0 { args.to_vec() } else { again(path) };
            let child = start(path, &words);
            if kill(child, delay, writing) {
                killed += 1;
            } else {
                // The machine is faster now than it was for the whole run.
                length = length.mul_f64(0.7);
            }
            half_written += u64::from(tree(path).keys().any(|n| is_temporary(n)));
            assert_whole(path, &when);
            for (name, bytes) in results(path) {
                // Those that grow, or are gone at the end.
                let grows = ["metrics.jsonl", ".tmp/extract.json", "surrogates.json"];
                let complete = !is_temporary(&name) && !grows.iter().any(|end| name.ends_with(end));
                assert!(!complete || want.get(&final_name(&name)) == Some(&bytes), "{name} {when}");
            }
        }
        ok(path, &again(path));
        assert_same(&results(path), &want, &format!("after round {round}"));
    }
    println!("{killed} were killed, {half_written} of them while writing a file");
    assert!(killed > rounds / 3, "{killed}");
}

const TINY: [&str; 4] =
    ["ebm=quickstart_gmm", "ebm.model.hidden_dim=16", "ebm.model.steps=1", "batch_size=500"];

#[test]
fn training() {
    let train = data("train");
    let args = ["n_epochs=5", "seed=3", "--train", &train, "--out", "run", "--threads", "2"];
    rounds(&[&["train"], &TINY[..], &args].concat(), &["--resume"], 12, 1);
}

#[test]
fn sweeps() {
    let (train, id) = (data("train"), data("test"));
    let ood = format!("mnist={}", data("ood_mnist"));
    let args = [
        "n_epochs=2",
        "seed=0,1",
        "ebm.optimizer.opt.lr=1e-4,1e-5",
        "--jobs=2",
        "--threads=2",
        "--out=sweep",
        "--train",
        &train,
        "--id",
        &id,
        "--ood",
        &ood,
    ];
    rounds(&[&["sweep"], &TINY[..], &args].concat(), &["--resume"], 8, 2);
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-images/tests/golden");

/// Forty images of two classes, and what runs a network on them; `None` without ONNX Runtime.
fn images(test: &str) -> Option<tempfile::TempDir> {
    if let Err(error) = find_library(None) {
        eprintln!("SKIPPED {test}: {error}");
        return None;
    }
    let images = tempfile::tempdir().unwrap();
    for i in 0..40u8 {
        let class = images.path().join(["cat", "dog"][usize::from(i % 2)]);
        fs::create_dir_all(&class).unwrap();
        let mut image = fs::read(format!("{GOLDEN}/images/rgb.bmp")).unwrap();
        image[54..].iter_mut().for_each(|v| *v = v.wrapping_mul(1 + i));
        fs::write(class.join(format!("{i}.bmp")), image).unwrap();
    }
    Some(images)
}

/// Shards of four rows: a kill falls between, or within, one of ten.
#[test]
fn extractions() {
    let Some(images) = images("extractions") else { return };
    // One is damaged: what is left out is the same, too.
    fs::write(images.path().join("cat/17.bmp"), "BM").unwrap();
    let model = format!("{GOLDEN}/onnx/plain.onnx");
    let images = images.path().to_str().unwrap();
    let network = ["extract", images, "--backbone", &model, "--preset=cifar10", "--resize=8x8"];
    let shards = ["--shard-rows=4", "--batch-size=2", "--skip-unreadable", "-o", "features"];
    rounds(&[&network[..], &shards].concat(), &[], 12, 5);
}

/// Fourteen kinds, a set each: a kill falls between, or within, one of them.
#[test]
fn surrogates() {
    let Some(images) = images("surrogates") else { return };
    let model = format!("{GOLDEN}/onnx/plain.onnx");
    let images = images.path().to_str().unwrap();
    let network = ["extract", images, "--backbone", &model, "--preset=cifar10", "--resize=8x8"];
    let kinds = ["--surrogates", "all", "--surrogate-rows=20", "-o", "surrogates"];
    let command = [&network[..], &kinds].concat();
    rounds(&command, &[], 10, 6);
    // Killed before its record was whole: what is left is no other's.
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("surrogates");
    fs::create_dir(&out).unwrap();
    fs::write(out.join(".heat-dEad01.tmp"), "half").unwrap();
    ok(directory.path(), &command);
    assert!(!out.join(".heat-dEad01.tmp").exists());
}

#[test]
fn fits() {
    let train = data("train");
    for (scorer, seed) in [("knn", 3), ("gmm", 4)] {
        rounds(&["fit", scorer, "--train", &train, "-o", "d.safetensors"], &[], 9, seed);
    }
}

/// A file may not grow beyond what `ulimit -f` allows: the system's signal for it would end the
/// command without a word, and leave its temporary file.
#[cfg(unix)]
#[test]
fn files_that_may_not_grow() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let heat = env!("CARGO_BIN_EXE_heat");
    let (train, test) = (data("train"), data("test"));
    for (words, out) in [
        (format!("fit gmm --train {train}"), "d"),
        (format!("convert {test}"), "c.npz"),
        (format!("convert {test}"), "shards"),
        (format!("train ebm=quickstart_gmm n_epochs=1 ebm.model.steps=1 --train {train}"), "run"),
    ] {
        let option = if out == "run" { "--out" } else { "-o" };
        let script = format!("ulimit -f 8; exec {heat} {words} {option} {out}");
        let out = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(path)
            .output()
            .unwrap();
        let error = common::text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{words}: {:?}: {error}", out.status);
        common::contains(&error, &["error: write ", "File too large"]);
        let left: Vec<String> =
            common::tree(path).into_keys().filter(|name| name.contains(".heat-")).collect();
        assert!(left.is_empty(), "{words}: {left:?}");
    }
}
