//! `heat extract`, `heat backbone inspect`, `heat doctor`.

use crate::common;

use std::fs;
use std::path::Path;

use common::{command, contains, fails, ok, runtime, text};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-images/tests/golden");

fn model(name: &str) -> String {
    format!("{GOLDEN}/onnx/{name}.onnx")
}

fn images(directory: &Path) {
    for (i, class) in ["cat", "dog", "cat", "dog", "cat", "dog"].iter().enumerate() {
        let class = directory.join("images").join(class);
        fs::create_dir_all(&class).unwrap();
        let mut image = fs::read(format!("{GOLDEN}/images/rgb.bmp")).unwrap();
        image[54..].iter_mut().for_each(|v| *v = v.wrapping_mul(1 + i as u8));
        fs::write(class.join(format!("{i}.bmp")), image).unwrap();
    }
}

#[test]
fn graphs_are_described() {
    let directory = tempfile::tempdir().unwrap();
    let said = text(&ok(directory.path(), &["backbone", "inspect", &model("plain")]).stdout);
    contains(&said, &["image [?, 3, 8, 8]", "map: a map", "fc: 6 → 4 classes", "opset 17"]);
    let said = text(&ok(directory.path(), &["backbone", "inspect", &model("vector")]).stdout);
    contains(&said, &["flat: a vector, avg alone"]);
    let said = text(&ok(directory.path(), &["backbone", "inspect", &model("headless")]).stdout);
    contains(&said, &["map: a map", "none: no linear layer with constant weights"]);
}

#[test]
fn what_is_missing_is_said() {
    let directory = tempfile::tempdir().unwrap();
    images(directory.path());
    let plain = model("plain");
    let args = ["extract", "images", "--backbone", &plain, "-o", "out"];
    let refused = |more: &[&str], parts: &[&str]| {
        let (_, error) = fails(directory.path(), &[&args[..], more].concat());
        contains(&error, parts);
    };
    refused(&[], &["the normalisation", "--preset cifar10|cifar100|imagenet"]);
    refused(
        &["--preset", "imagenett"],
        &["`transform=imagenett`", "did you mean `transform=imagenet`"],
    );
    refused(&["--preset", "cifar10", "--mean", "1,2"], &["three numbers"]);
    refused(&["--preset", "cifar10", "--resize", "8y8"], &["`resize` = 8y8", "32x32"]);
    refused(&["--preset", "cifar10", "--format", "cifar"], &["`cifar`", "cifar10"]);
    refused(&["--preset", "cifar10", "--batch-size", "0"], &["`batch_size` = 0"]);
    refused(
        &["--device", "gpu"],
        &["`device` = gpu", "cuda, tensorrt, migraphx", "openvino:GPU.1"],
    );
    refused(
        &["--preset", "cifar10", "--precision", "tf32"],
        &["`precision` = tf32", "cpu has none"],
    );
    let (_, error) = fails(directory.path(), &["score", "d", "features", "--device", "cuda"]);
    contains(&error, &["--backbone <FILE>"]);
    let mut none = command(directory.path(), &["doctor"]);
    let out = none.env("ORT_DYLIB_PATH", "absent.so").output().unwrap();
    assert!(!out.status.success());
    contains(&text(&out.stderr), &["absent.so", "ORT_DYLIB_PATH", "pip install onnxruntime"]);
    assert!(!directory.path().join("out").exists());
}

/// Features of another network, and of images transformed otherwise, are refused by whatever was
/// fitted on these, unless told to go on.
fn other_networks_are_refused(path: &Path, plain: &str) {
    let copy = path.join("other.onnx");
    let mut bytes = fs::read(plain).unwrap();
    // An unknown field of the message: another file, the same network to the runtime.
    bytes.extend([0xfa, 0x3f, 0x01, b'x']);
    fs::write(&copy, bytes).unwrap();
    let extract = |backbone: &str, mean: &str, out: &str| {
        let network = ["extract", "images", "--backbone", backbone, "--preset", "cifar10"];
        let transform = ["--resize", "8x8", "--mean", mean, "-o", out];
        ok(path, &[&network[..], &transform].concat());
    };
    extract(copy.to_str().unwrap(), "0.4914,0.4822,0.4465", "other");
    extract(plain, "0,0,0", "moved");
    let knn = ["fit", "knn(k=3)", "--train"];
    ok(path, &[&knn[..], &["train", "-o", "knn"]].concat());
    ok(path, &[&knn[..], &["other", "-o", "knn_other"]].concat());
    ok(path, &["calibrate", "knn", "--id", "train", "--force", "--alpha", "0.5", "-o", "sure"]);
    for (set, parts) in [
        ("other", ["network other.onnx (", "and not plain.onnx ("]),
        ("moved", ["transform {", "with the same network and transform"]),
    ] {
        let id = format!("x={set}");
        for command in [
            &["score", "knn", set][..],
            &["calibrate", "knn", "--id", set, "--alpha", "0.5", "-o", "no"],
            &["watch", "sure", set],
            &["eval", "--detectors", "knn", "--id", "train", "--ood", &id],
            &["eval", "--train", "train", "--scorers", "el", "--id", "train", "--ood", &id],
            &["compose", "knn", "el", "--train", set, "-o", "no"],
            &["compose", "knn", "knn_other", "--train", "train", "-o", "no"],
        ] {
            let parts =
                if command[1..3] == ["knn", "knn_other"] { &["network"][..] } else { &parts };
            let (code, error) = fails(path, command);
            assert_eq!(code, 1, "{command:?}: {error}");
            contains(&error, parts);
            contains(&error, &["`--force`"]);
            // Six rows are too few to watch.
            if command[0] != "watch" {
                ok(path, &[command, &["--force"]].concat());
            }
            let _ = fs::remove_file(path.join("no"));
        }
    }
    // A conversion keeps what it knows; a set that says nothing passes.
    ok(path, &["convert", "other", "-o", "converted.safetensors"]);
    contains(&fails(path, &["score", "knn", "converted.safetensors"]).1, &["network other.onnx"]);
    ok(path, &["convert", "other", "-o", "mute.npz"]);
    ok(path, &["score", "knn", "mute.npz"]);
    // Shards of two networks are no set.
    fs::create_dir(path.join("mixed")).unwrap();
    for (from, to) in [("train", "a"), ("other", "b")] {
        let to = path.join("mixed").join(to).with_extension("safetensors");
        fs::copy(path.join(from).join("shard-00000.safetensors"), to).unwrap();
    }
    contains(&fails(path, &["info", "mixed"]).1, &["no shards of one set"]);
    // The head of another network is said.
    let head = ["--head", "other_head.safetensors", "-o", "x"];
    let mut bytes = fs::read(path.join("train/head.safetensors")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x80;
    // One byte off its own digest it would be damaged; without one it is another head.
    fs::write(path.join("other_head.safetensors"), &bytes).unwrap();
    let (_, damaged) = fails(path, &[&["fit", "el", "--train", "train"][..], &head].concat());
    contains(&damaged, &["other_head.safetensors: is damaged"]);
    let digest = br#""digest":"#;
    let at = bytes.windows(digest.len()).position(|w| w == digest).expect("a digest");
    bytes[at + 1] = b'n';
    fs::write(path.join("other_head.safetensors"), bytes).unwrap();
    let said = ok(path, &[&["fit", "el", "--train", "train"][..], &head].concat()).stderr;
    contains(&text(&said), &["the head given is not that of the network"]);
}

/// The command line stands beside the manifest, which is compared, and so holds nothing of it.
fn how_it_was_made(path: &Path, plain: &str, extract: &[&str]) {
    let read = || -> serde_json::Value {
        serde_json::from_slice(&fs::read(path.join("train/run.json")).unwrap()).unwrap()
    };
    let first = read();
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(first["command"], format!("heat {}", extract.join(" ")));
    let sha = heat_ood::io::sha256(Path::new(plain)).unwrap();
    assert_eq!(first["sha256"]["backbone"], sha);
    let manifest = fs::read(path.join("train/extract.json")).unwrap();
    // What finds all of it there says nothing of itself; what mends it does.
    let threads = [extract, &["--threads", "1"]].concat();
    contains(&text(&ok(path, &threads).stderr), &["already exists"]);
    assert_eq!(read(), first);
    fs::remove_file(path.join("train/shard-00000.safetensors")).unwrap();
    ok(path, &threads);
    assert_eq!(read()["command"], format!("heat {}", threads.join(" ")));
    assert!(fs::read(path.join("train/extract.json")).unwrap() == manifest);
    // One that was lost is written again.
    fs::remove_file(path.join("train/run.json")).unwrap();
    ok(path, extract);
    assert_eq!(read(), first);
}

#[test]
fn from_images_to_scores() {
    if !runtime("from_images_to_scores") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    images(path);
    contains(&text(&ok(path, &["doctor"]).stdout), &["ONNX Runtime", "found by"]);
    let plain = model("plain");
    let extract = ["extract", "images", "--backbone", &plain, "--preset", "cifar10"];
    let out = ["--resize", "8x8", "-o", "train"];
    let said = text(&ok(path, &[&extract[..], &out].concat()).stderr);
    contains(&said, &["map: a map", "6 rows; 6 images", "of 6 labelled rows right"]);
    // One network alone, and four that share more threads than there are networks.
    for threads in ["1", "6"] {
        let more = ["--resize", "8x8", "--batch-size", "2", "--threads", threads, "-o", threads];
        ok(path, &[&extract[..], &more].concat());
    }
    let shard = |set: &str| fs::read(path.join(set).join("shard-00000.safetensors")).unwrap();
    assert!(shard("1") == shard("6"));
    contains(
        &text(&ok(path, &["info", "train"]).stdout),
        &["6 rows", "std    [6, 6]", "2 classes"],
    );
    how_it_was_made(path, &plain, &[&extract[..], &out].concat());
    // The network's head lies in the set's directory, and is taken from there.
    let head = "train/head.safetensors";
    ok(path, &["fit", "el", "--train", "train", "--head", head, "-o", "given"]);
    ok(path, &["fit", "el", "--train", "train", "-o", "el"]);
    let file = |name: &str| fs::read(path.join(name)).unwrap();
    assert!(file("given") == file("el"));
    assert_eq!(text(&ok(path, &["score", "el", "train"]).stdout).lines().count(), 7);
    other_networks_are_refused(path, &plain);
    // Images of another size than the graph's.
    let (code, error) = fails(path, &[&extract[..], &["-o", "large"]].concat());
    assert_eq!(code, 1);
    contains(&error, &["[?, 3, 8, 8]", "[1, 3, 32, 32]", "resizing"]);
}

/// A detector that reads maps asks for them when it is given images: scores are those of the features.
#[test]
fn from_maps_to_scores() {
    if !runtime("from_maps_to_scores") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    images(path);
    let plain = model("plain");
    let extract = ["extract", "images", "--backbone", &plain, "--preset", "cifar10"];
    let small = ["--resize", "8x8", "--tap", "c=c"];
    let kept = ["--for", "gram,rankfeat", "-o", "train"];
    let said = text(&ok(path, &[&extract[..], &small, &kept].concat()).stderr);
    contains(&said, &["maps      kept as gram, rankfeat"]);
    contains(&text(&ok(path, &["info", "train"]).stdout), &["gram", "c.gram", "rankfeat"]);
    for scorer in ["gram", "rankfeat"] {
        ok(path, &["fit", scorer, "--train", "train", "-o", scorer]);
        let of_set = text(&ok(path, &["score", scorer, "train"]).stdout);
        let of_images = ok(path, &["score", scorer, "images", "--backbone", &plain]);
        assert_eq!(of_set.lines().count(), 7);
        assert_eq!(of_set, text(&of_images.stdout), "{scorer}");
    }
    ok(path, &[&extract[..], &small, &["-o", "without"]].concat());
    let (_, error) = fails(path, &["fit", "gram", "--train", "without", "-o", "no"]);
    contains(&error, &["has no `gram`", "`heat extract --for gram` makes it"]);
    let (code, error) = fails(path, &[&extract[..], &["--for", "maps", "-o", "no"]].concat());
    assert_eq!(code, 2);
    contains(&error, &["gram, rankfeat"]);
}

/// Squeezed views are extracted where they are asked for, and where a detector that reads them is
/// given images: scores are those of the features.
#[test]
fn from_views_to_scores() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    images(path);
    let plain = model("plain");
    let extract = ["extract", "images", "--backbone", &plain, "--preset", "cifar10"];
    let small = ["--resize", "8x8"];
    let (code, error) = fails(path, &[&extract[..], &["--views", "bits0", "-o", "no"]].concat());
    assert_eq!(code, 2);
    contains(
        &error,
        &[
            "bits0",
            "expected mirror, bits1 to bits8, median2 to median15, nudged1 to nudged100, noise8x256",
            "or dropout2 to dropout1000 (passes)",
        ],
    );
    if !runtime("from_views_to_scores") {
        return;
    }
    ok(path, &[&extract[..], &small, &["--views", "median2,bits5,median2", "-o", "test"]].concat());
    // In another order, and once, they are the same views.
    ok(path, &[&extract[..], &small, &["--views", "bits5,median2", "-o", "test"]].concat());
    ok(path, &[&extract[..], &small, &["-o", "train"]].concat());
    contains(&text(&ok(path, &["info", "test"]).stdout), &["bits5.logits", "median2.logits"]);
    let fit = ["fit", "feature_squeezing", "--train", "train", "-o", "d"];
    ok(path, &fit);
    let of_set = text(&ok(path, &["score", "d", "test"]).stdout);
    assert_eq!(of_set.lines().count(), 7);
    let of_images = ok(path, &["score", "d", "images", "--backbone", &plain]);
    assert_eq!(of_set, text(&of_images.stdout));
    let (_, error) = fails(path, &["score", "d", "train"]);
    contains(&error, &["has no view `bits5`", "`heat extract --views bits5,median2` makes it"]);
    // The mean of noisy passes, the same of an image alone and among others.
    for set in ["noisy", "fitted"] {
        ok(path, &[&extract[..], &small, &["--views", "noise50x3", "-o", set]].concat());
    }
    let odds = "odds(epsilon=0.05,noise_samples=3)";
    ok(path, &["fit", odds, "--train", "fitted", "-o", "o"]);
    let of_set = text(&ok(path, &["score", "o", "noisy"]).stdout);
    let of_images = ok(path, &["score", "o", "images", "--backbone", &plain]);
    assert_eq!(of_set, text(&of_images.stdout));
    let (_, error) = fails(path, &["score", "o", "test"]);
    contains(&error, &["has no view `noise50x3`", "`heat extract --views noise50x3` makes it"]);
    // Passes with dropout, of a network that has it; the training set needs none.
    let (_, error) =
        fails(path, &[&extract[..], &small, &["--views", "dropout5", "-o", "no"]].concat());
    contains(&error, &["plain.onnx: no dropout is left in its graph", "`layer.train()`"]);
    let dropping = model("dropped");
    let backbone = ["extract", "images", "--backbone", &dropping, "--preset", "cifar10"];
    ok(path, &[&backbone[..], &small, &["--views", "dropout5", "-o", "passes"]].concat());
    ok(path, &[&backbone[..], &small, &["-o", "whole"]].concat());
    let fields = text(&ok(path, &["info", "passes"]).stdout);
    contains(&fields, &["dropout5.logits", "dropout5.probs", "dropout5.spread"]);
    ok(path, &["fit", "mcd(samples=5)", "--train", "whole", "-o", "m"]);
    let of_set = text(&ok(path, &["score", "m", "passes"]).stdout);
    let of_images = ok(path, &["score", "m", "images", "--backbone", &dropping]);
    assert_eq!(of_set, text(&of_images.stdout));
    // Another list of views is another feature set.
    let (_, error) =
        fails(path, &[&extract[..], &small, &["--views", "bits5", "-o", "test"]].concat());
    contains(&error, &["views", "median2"]);
    let (_, error) =
        fails(path, &[&extract[..], &small, &["--tap", "bits5=c", "-o", "no"]].concat());
    contains(&error, &["not that of a view"]);
}

#[test]
fn surrogates_of_images() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    images(path);
    let plain = model("plain");
    let extract = ["extract", "images", "--backbone", &plain, "--preset", "cifar10"];
    let refused = |more: &[&str], parts: &[&str]| {
        let (_, error) = fails(path, &[&extract[..], &["-o", "no"], more].concat());
        contains(&error, parts);
    };
    refused(&["--surrogates", "jigsaw3"], &["unknown kind of surrogates `jigsaw3`", "jigsaw2"]);
    refused(&["--surrogate-rows", "5"], &["--surrogates"]);
    refused(&["--surrogates", "all", "--perturb", "x", "--epsilon", "1"], &["cannot be used with"]);
    if !runtime("surrogates_of_images") {
        return;
    }
    let extract = [&extract[..], &["--resize", "8x8"]].concat();
    ok(path, &[&extract[..], &["-o", "plain"]].concat());
    let surrogates = ["--surrogates", "mixup,edges", "--surrogate-rows", "9", "--seed", "4"];
    let surrogates = [&extract[..], &surrogates, &["-o", "made"]].concat();
    let sheet = [&surrogates[..], &["--preview", "sheet.png"]].concat();
    let said = text(&ok(path, &sheet).stderr);
    let rows = ["made/mixup: 9 rows", "made/edges: 6 rows", "made/id: 6 images as they are"];
    contains(&said, &rows);
    contains(&said, &["note: made of the images given", "sheet.png", "21 images in"]);
    assert!(path.join("sheet.png").is_file());
    contains(&text(&ok(path, &surrogates).stderr), &["all of it already exists"]);
    // What was fitted on the images takes them.
    ok(path, &["fit", "knn(k=3)", "--train", "plain", "-o", "knn"]);
    assert_eq!(text(&ok(path, &["score", "knn", "made/mixup"]).stdout).lines().count(), 10);
    refused_set(path, &extract);
}

/// All images are in the set that is left out.
fn refused_set(path: &Path, extract: &[&str]) {
    let more = ["--surrogates", "blur", "--exclude", "plain", "-o", "none"];
    let (_, error) = fails(path, &[extract, &more].concat());
    contains(&error, &["no image left to make surrogates of", "`--exclude SET`"]);
}

/// A network whose run fails, with a node whose name would clear a terminal: one line of error, and
/// nothing else of it.
#[test]
fn the_runtime_itself_says_nothing() {
    if !runtime("the_runtime_itself_says_nothing") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    images(path);
    let (loud, plain) = (model("loud"), model("plain"));
    let rest = ["--preset", "cifar10", "--resize", "8x8", "-o", "out"];
    let extract = ["extract", "images", "--backbone"];
    let (code, error) = fails(path, &[&extract[..], &[&loud], &rest].concat());
    assert_eq!(code, 1);
    assert!(error.chars().all(|c| c == '\n' || !c.is_control()), "{error:?}");
    assert_eq!(error.matches("ConstantOfShape").count(), 1, "{error}");
    contains(&error, &["error: ", "loud.onnx: ONNX Runtime: ", "Name:'a\\u{1b}[2J"]);
    // Of an extraction that made nothing nothing is left, and if it was killed, the next one into
    // that place need not be the same.
    assert!(!path.join(".heat-out.tmp").exists());
    fs::create_dir(path.join(".heat-out.tmp")).unwrap();
    fs::write(path.join(".heat-out.tmp/extract.json"), "{").unwrap();
    fs::write(path.join(".heat-out.tmp/inputs-00000.txt"), "x").unwrap();
    ok(path, &[&extract[..], &[&plain], &rest].concat());
    contains(&text(&ok(path, &["info", "out"]).stdout), &["6 rows"]);
}

/// In a directory where others may write, the name of what is unfinished can be known before: links
/// under it are neither read nor written through.
#[cfg(unix)]
#[test]
fn links_in_an_unfinished_directory_are_refused() {
    if !runtime("links_in_an_unfinished_directory_are_refused") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    images(path);
    fs::write(path.join("precious"), "precious").unwrap();
    let plain = model("plain");
    let args =
        ["extract", "images", "--backbone", &plain, "--preset", "cifar10", "--resize", "8x8"];
    for name in ["extract.json", "shard-00000.safetensors", "inputs-00000.txt", "head.safetensors"]
    {
        let trap = path.join(".heat-out.tmp");
        fs::create_dir(&trap).unwrap();
        std::os::unix::fs::symlink(path.join("precious"), trap.join(name)).unwrap();
        let (code, error) = fails(path, &[&args[..], &["-o", "out"]].concat());
        assert_eq!(code, 1, "{name}");
        contains(&error, &[name, "is a link"]);
        assert_eq!(fs::read_to_string(path.join("precious")).unwrap(), "precious", "{name}");
        fs::remove_dir_all(trap).unwrap();
    }
}
