//! What people get wrong, and what the command answers: one line a mistake.

use crate::common;

use std::fs;
use std::path::Path;

use common::{contains, data, fails, npy, ok};

/// Files of many kinds, under names that people give them.
fn files(directory: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(directory.join(name), bytes).unwrap();
    let padded = |start: &[u8]| [start, &[0xa5; 700][..]].concat();
    let tar = [&[b'a'; 257][..], b"ustar\x0000", &[0; 700]].concat();
    write("model.onnx", &padded(b"\x08\x08\x12\x07pytorch\x1a\x03"));
    write("model.pt", &padded(b"PK\x03\x04\x00\x00 model/data.pkl"));
    write("script.pt", &padded(b"PK\x03\x04\x00\x00 m/data.pkl m/constants.pkl"));
    write("old.ckpt", &padded(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."));
    write("features.pkl", &padded(b"\x80\x04\x95"));
    write("photo.jpg", &padded(b"\xff\xd8\xff\xe0"));
    write("features.h5", &padded(b"\x89HDF\r\n\x1a\n"));
    write("features.mat", &padded(b"MATLAB 5.0 MAT-file"));
    write("features.feather", &padded(b"ARROW1\0\0"));
    write("images.tar", &tar);
    write("images.zip", &padded(b"PK\x03\x04\x00\x00 a/1.png"));
    write("features.npy.gz", &padded(b"\x1f\x8b\x08"));
    write("results.json", b"{\"scorers\": {}}\n");
    write("page.safetensors", b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n");
    write("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    write("cut.safetensors", &fs::read(data("test")).unwrap()[..5000]);
    write("empty.npy", b"");
    npy(&directory.join("flat.npy"), &[&[0.0, 0.0], &[0.0, 0.0], &[0.0, 0.0]]);
    npy(&directory.join("array.npy"), &[&[1.0, 2.0], &[3.0, 4.0]]);
    fs::copy(directory.join("array.npy"), directory.join("misnamed.safetensors")).unwrap();
    fs::copy(directory.join("model.pt"), directory.join("misnamed.npy")).unwrap();
    fs::copy(data("test"), directory.join("misnamed.npz")).unwrap();
    fs::copy(data("train"), directory.join("train.safetensors")).unwrap();
    fs::copy(data("head"), directory.join("head.safetensors")).unwrap();
    fs::copy(data("test"), directory.join("test.safetensors")).unwrap();
    let fit = ["fit", "norm", "--train", "train.safetensors", "-o", "norm.safetensors"];
    ok(directory, &fit);
}

/// The words of a command line, the answer's exit code, and what it says.
type Line = (&'static str, i32, &'static [&'static str]);

const FEATURES: &[Line] = &[
    ("fit knn --train model.onnx -o d", 1, &["model.onnx: is an ONNX network", "heat extract"]),
    ("fit knn --train model.pt -o d", 1, &["is a PyTorch checkpoint", "heat import", "np.save"]),
    ("fit knn --train script.pt -o d", 1, &["is a TorchScript program", "ONNX"]),
    ("fit knn --train old.ckpt -o d", 1, &["is a PyTorch checkpoint", "np.save"]),
    ("fit knn --train features.pkl -o d", 1, &["is a Python pickle", "run code", "np.save"]),
    ("fit knn --train photo.jpg -o d", 1, &["is an image", "heat extract"]),
    ("fit knn --train features.h5 -o d", 1, &["is an HDF5 file", "h5py"]),
    ("fit knn --train features.mat -o d", 1, &["is a MATLAB file", "scipy.io"]),
    ("fit knn --train features.feather -o d", 1, &["is a Feather", "read_feather"]),
    ("fit knn --train images.tar -o d", 1, &["is a tar archive", "heat extract"]),
    ("fit knn --train images.zip -o d", 1, &["is a zip archive", "heat extract"]),
    ("fit knn --train features.npy.gz -o d", 1, &["is a gzip file", "gunzip"]),
    ("fit knn --train results.json -o d", 1, &["is a JSON text", "heat report"]),
    ("fit knn --train page.safetensors -o d", 1, &["is an HTML page", "download it again"]),
    ("fit knn --train pointer.safetensors -o d", 1, &["is a Git LFS pointer", "git lfs pull"]),
    ("fit knn --train cut.safetensors -o d", 1, &["not a whole safetensors file", "truncated"]),
    ("fit knn --train empty.npy -o d", 1, &["empty.npy: the file is empty"]),
    (
        "fit knn --train misnamed.safetensors -o d",
        1,
        &["is an .npy array, not a safetensors", "ending .npy"],
    ),
    ("fit knn --train misnamed.npy -o d", 1, &["is a PyTorch checkpoint, not an .npy array"]),
    (
        "fit knn --train misnamed.npz -o d",
        1,
        &["is a safetensors file, not an .npz", "ending .safetensors"],
    ),
    (
        "fit knn --train norm.safetensors -o d",
        1,
        &["holds a detector, not features", "order of the arguments"],
    ),
    ("fit knn --train head.safetensors -o d", 1, &["holds a head, not features"]),
    (
        "score train.safetensors test.safetensors",
        1,
        &["holds features, not a detector", "heat fit"],
    ),
    ("score model.onnx test.safetensors", 1, &["is an ONNX network", "heat extract"]),
    ("score array.npy test.safetensors", 1, &["is an .npy array, not a safetensors file"]),
    ("calibrate results.json --id test.safetensors -o d", 1, &["is a JSON text"]),
    ("calibrate features.pkl --id test.safetensors -o d", 1, &["is a Python pickle", "run code"]),
    ("info photo.jpg", 1, &["is an image"]),
    ("info images.zip", 1, &["is a zip archive", "heat extract"]),
    ("train --out r --train model.onnx", 1, &["is an ONNX network", "heat extract"]),
    (
        "eval --scorers norm --id photo.jpg --ood x=test.safetensors --train train.safetensors",
        1,
        &["photo.jpg: is an image"],
    ),
    (
        "eval --id test.safetensors --ood x=test.safetensors --detectors model.onnx",
        1,
        &["is an ONNX network, not a safetensors file", "heat extract"],
    ),
    (
        "eval --id test.safetensors --ood x=test.safetensors --detectors array.npy",
        1,
        &["is an .npy array", "heat fit"],
    ),
    ("compose a=photo.jpg b=norm.safetensors --train train.safetensors -o d", 1, &["is an image"]),
    (
        "compose a=head.safetensors b=norm.safetensors --train train.safetensors -o d",
        1,
        &["holds a head, not a detector"],
    ),
    ("convert results.json -o d.npz", 1, &["is a JSON text", "heat report"]),
    ("convert norm.safetensors -o d.npz", 1, &["holds a detector, not features"]),
    ("import model.onnx --train train.safetensors -o d", 1, &["model.onnx: is an ONNX network"]),
    (
        "import test.safetensors --train train.safetensors -o d",
        1,
        &["test.safetensors: is a safetensors file"],
    ),
    ("export photo.jpg -o d.pt", 1, &["is an image"]),
];

/// Where results, images and networks are expected.
const OTHERS: &[Line] = &[
    ("report model.onnx", 1, &["is an ONNX network, not the results", "heat eval --format json"]),
    ("report array.npy", 1, &["is an .npy array, not the results", "heat eval --format json"]),
    ("report test.safetensors", 1, &["is a safetensors file, not the results"]),
    ("report features.pkl", 1, &["is a Python pickle, not the results"]),
    ("report photo.jpg", 1, &["is an image, not the results"]),
    ("report zzz", 1, &["zzz", "does not exist"]),
    (
        "extract model.onnx --backbone model.onnx --preset cifar10 -o o",
        1,
        &["model.onnx: an ONNX network; expected a directory of images", "`--backbone FILE`"],
    ),
    (
        "extract test.safetensors --backbone model.onnx --preset cifar10 -o o",
        1,
        &["a safetensors file; expected a directory of images", "heat info FILE"],
    ),
    (
        "extract results.json --backbone model.onnx --preset cifar10 -o o",
        1,
        &["a JSON text; expected a directory of images"],
    ),
    (
        "extract features.pkl --backbone model.onnx --preset cifar10 -o o",
        1,
        &["a pickle; expected a directory of images"],
    ),
    (
        "extract nowhere --backbone model.onnx --preset cifar10 -o o",
        1,
        &["nowhere", "does not exist"],
    ),
    ("backbone inspect array.npy", 1, &["array.npy: is an .npy array, not a network in ONNX"]),
    ("backbone inspect photo.jpg", 1, &["photo.jpg: is an image, not a network in ONNX"]),
    ("backbone inspect results.json", 1, &["is a JSON text, not a network in ONNX"]),
    ("backbone inspect nowhere.onnx", 1, &["nowhere.onnx does not exist"]),
];

const PATHS: &[Line] = &[
    (
        "fit knn --train trian.safetensors -o d",
        1,
        &["trian.safetensors does not exist; did you mean `train.safetensors`?"],
    ),
    ("fit knn --train train -o d", 1, &["train does not exist; did you mean `train.safetensors`?"]),
    (
        "fit knn --train train.npz -o d",
        1,
        &["train.npz does not exist; did you mean `train.safetensors`?"],
    ),
    ("fit knn --train no/train.npy -o d", 1, &["there is no directory no"]),
    (
        "score nrom.safetensors test.safetensors",
        1,
        &["does not exist; did you mean `norm.safetensors`?"],
    ),
    ("info zzz", 1, &["zzz does not exist"]),
    (
        "fit el --train train.safetensors --head haed.safetensors -o d",
        1,
        &["haed.safetensors does not exist; did you mean `head.safetensors`?"],
    ),
    ("serve d.safetensors --listen 0.0.0.0:80", 2, &["--features", "serve"]),
    ("token me", 2, &["this build has no server"]),
    ("fit knn --train train.safetensors -o no/d", 2, &["that directory does not exist"]),
];

const HEADS: &[Line] = &[
    (
        "fit el --train train.safetensors --head array.npy -o d",
        1,
        &["array.npy: one array, and a head has two", "np.savez"],
    ),
    ("fit el --train train.safetensors --head model.pt -o d", 1, &["is a PyTorch checkpoint"]),
    (
        "fit el --train train.safetensors --head train.safetensors -o d",
        1,
        &["holds features, not a head"],
    ),
    (
        "fit el --train train.safetensors --head norm.safetensors -o d",
        1,
        &["holds a detector, not a head"],
    ),
    ("fit react --train train.safetensors -o d", 1, &["`react` needs a head", "--head FILE"]),
];

const SETTINGS: &[Line] = &[
    ("fit KNN --train train.safetensors -o d", 2, &["unknown scorer `KNN`; did you mean `knn`?"]),
    ("fit knnn --train train.safetensors -o d", 2, &["did you mean `knn`?"]),
    (
        "fit mahalanobis --train train.safetensors -o d",
        2,
        &["unknown scorer `mahalanobis`", "maha"],
    ),
    ("fit zebra --train train.safetensors -o d", 2, &["there are: msp, max_logit"]),
    ("fit k=50 knn --train train.safetensors -o d", 2, &["`k=50`: the scorer's name comes first"]),
    (
        "fit knn 50 --train train.safetensors -o d",
        2,
        &["`50`: settings of `knn` are written `key=value`"],
    ),
    ("fit knn =50 --train train.safetensors -o d", 2, &["`=50`: settings of `knn` are written"]),
    (
        "fit knn k=abc --train train.safetensors -o d",
        2,
        &["`knn.k` = \"abc\": expected a whole number, 0 or more"],
    ),
    ("fit knn k=-1 --train train.safetensors -o d", 2, &["`knn.k` = -1"]),
    (
        "fit knn k=2.5 --train train.safetensors -o d",
        2,
        &["`knn.k` = 2.5: expected a whole number"],
    ),
    ("fit knn normalize=yes --train train.safetensors -o d", 2, &["expected `true` or `false`"]),
    (
        "fit knn K=5 --train train.safetensors -o d",
        2,
        &["unknown key `knn.K`; did you mean `knn.k`?"],
    ),
    ("fit knn --k 50 --train train.safetensors -o d", 2, &["'--k'", "heat fit SCORER k=VALUE"]),
    ("eval --scorers knn --k 50 --id a --ood b=c", 2, &["'--k'", "--scorers 'SCORER(k=VALUE)'"]),
    ("train --n_epochs 5 --train train.safetensors", 2, &["heat train n_epochs=VALUE"]),
    ("train --lr 0.1 --train train.safetensors", 2, &["heat train ebm.optimizer.opt.lr=VALUE"]),
    (
        "train emb=heat_gmm_c10 --train train.safetensors --out r",
        2,
        &["unknown key `emb`; did you mean `ebm`?"],
    ),
    (
        "train ebm=heat_gmm_c11 --train train.safetensors --out r",
        2,
        &["did you mean `ebm=heat_gmm_c10`?"],
    ),
    (
        "train heat_gmm_c10 --train train.safetensors --out r",
        2,
        &["`heat_gmm_c10`: settings are written `key=value`"],
    ),
    (
        "train batch_size=many --train train.safetensors --out r",
        2,
        &["`batch_size` = \"many\": expected a whole number"],
    ),
    ("select --train train.safetensors --ood x=y", 2, &["`ood`: test sets are not looked at"]),
    ("fit ssd kmeans=1 --train flat.npy -o d", 1, &["cannot fit ssd"]),
    (
        "eval --id test.safetensors --ood x=test.safetensors --scorers knn",
        1,
        &["`--scorers` needs a training set", "--train"],
    ),
];

const PUBLISHED: &[Line] = &[
    (
        "train_ebm ebm=heat_gmm_c10",
        2,
        &["`train_ebm` is a word of the published code", "heat train"],
    ),
    ("heat/train_ebm.py ebm=heat_gmm_c10", 2, &["`train_ebm` is a word of the published code"]),
    ("train-ebm", 2, &["heat train"]),
    ("eval_scorers --scorers x", 2, &["heat eval"]),
    ("compute_features --data_dir x", 2, &["heat extract"]),
    ("eval --ckpts a.ckpt --id a --ood b=c", 2, &["--detectors", "heat import"]),
    ("eval --config_file c.yaml --id a --ood b=c", 2, &["a detector file holds its recipe"]),
    ("extract x --data_dir y", 2, &["the directory of images itself"]),
    ("extract x --model_id y", 2, &["--backbone FILE"]),
    ("train -m ebm=a,b", 2, &["heat sweep"]),
    ("train -sc install=bash", 2, &["completions"]),
];

#[test]
fn every_mistake_has_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    files(path);
    let mut wrong = Vec::new();
    for (line, code, parts) in [FEATURES, OTHERS, PATHS, HEADS, SETTINGS, PUBLISHED].concat() {
        let words: Vec<&str> = line.split(' ').collect();
        let (got, text) = fails(path, &words);
        let bad = ["` = :", "has no the", "a a ", "os error", "panicked", "usize", "invalid type"];
        let missing: Vec<&&str> = parts.iter().filter(|p| !text.contains(**p)).collect();
        let odd: Vec<&&str> = bad.iter().filter(|p| text.contains(**p)).collect();
        if got != code || !missing.is_empty() || !odd.is_empty() {
            wrong.push(format!("heat {line}\n  code {got}, wants {code}; without {missing:?}, with {odd:?}\n  {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Text of files is shown as it stands, never obeyed, and never at length.
#[test]
fn names_and_headers_do_not_reach_the_terminal_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let header = format!("{{\"a\x1b]0;x\x07{}", "y".repeat(2_000_000));
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 64]].concat();
    fs::write(path.join("d\x1b[2J.safetensors"), bytes).unwrap();
    for args in [
        &["info", "d\x1b[2J.safetensors"][..],
        &["score", "d\x1b[2J.safetensors", "x.npy"],
        &["fit", "knn", "--train", "d\x1b[2J.safetensors", "-o", "d"],
    ] {
        let (code, text) = fails(path, args);
        assert_eq!(code, 1);
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
        assert!(text.len() < 4000, "{} bytes", text.len());
        contains(&text, &["d\\u{1b}[2J.safetensors"]);
    }
}

/// Of the command line too, whose words a shell may have made of names of files.
#[test]
fn words_of_the_command_line_do_not_reach_the_terminal_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let long = "x".repeat(100_000);
    for word in ["a\rb", "a\u{202e}b", &long] {
        for args in [
            &[word][..],
            &["scorers", word],
            &["completions", word],
            &["--memory", word, "doctor"],
            &["--threads", word, "doctor"],
            &["fit", "norm", &format!("--{word}")],
        ] {
            let (code, error) = fails(directory.path(), args);
            assert_eq!(code, 2, "{error}");
            let lines = || error.chars().filter(|c| *c != '\n');
            assert!(lines().all(|c| !c.is_control() && c != '\u{202e}'), "{error:?}");
            assert!(error.len() < 4000, "{} bytes: {}", error.len(), &error[..200]);
        }
    }
}
