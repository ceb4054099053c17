//! `heat score` of images and of standard input, `heat watch --verdicts`, and the names of rows.

use crate::common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{command, contains, fails, npy, ok, runtime, text};
use serde_json::Value;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-images/tests/golden");

fn plain() -> String {
    format!("{GOLDEN}/onnx/plain.onnx")
}

/// Different images in `images/cat` and `images/dog`, two in `more`, one beside them, some in a tar.
fn images(path: &Path) {
    let image = |i: u8| {
        let mut image = fs::read(format!("{GOLDEN}/images/rgb.bmp")).unwrap();
        image[54..]
            .iter_mut()
            .for_each(|v| *v = v.wrapping_mul(1 + i).wrapping_add(17u8.wrapping_mul(i)));
        image
    };
    for directory in ["images/cat", "images/dog", "more"] {
        fs::create_dir_all(path.join(directory)).unwrap();
    }
    for i in 0..12 {
        let class = ["cat", "dog"][usize::from(i % 2)];
        fs::write(path.join(format!("images/{class}/{i:02}, ä.bmp")), image(i)).unwrap();
    }
    fs::write(path.join("more/x.bmp"), image(20)).unwrap();
    fs::write(path.join("more/y.bmp"), image(21)).unwrap();
    fs::write(path.join("one.bmp"), image(22)).unwrap();
    let mut tar = Command::new("tar");
    let made = tar.args(["-cf", "p.tar", "more"]).current_dir(path).status().unwrap();
    assert!(made.success());
}

fn lines(out: &[u8]) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(out);
    reader.records().map(|r| r.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// With these bytes on standard input.
fn piped(path: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = command(path, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    out
}

const TRANSFORM: [&str; 4] = ["--preset", "cifar10", "--resize", "8x8"];

#[test]
fn images_have_the_scores_of_their_features() {
    if !runtime("images_have_the_scores_of_their_features") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    images(path);
    let plain = plain();
    let network = ["--backbone", &*plain];
    let extract = |images: &str, out: &str| {
        let args = ["extract", images, "-o", out];
        ok(path, &[&args[..], &network, &TRANSFORM].concat());
    };
    extract("images", "train");
    extract("more", "test");
    contains(
        &text(&ok(path, &["info", "train"]).stdout),
        &["cat/00, ä.bmp … dog/11, ä.bmp", "0 cat"],
    );
    ok(path, &["fit", "knn(k=2)", "--train", "train", "-o", "knn"]);
    ok(path, &["calibrate", "knn", "--id", "train", "--force", "--alpha", "0.2", "-o", "sure"]);
    for detector in ["knn", "sure"] {
        let want = lines(&ok(path, &["score", detector, "test"]).stdout);
        assert_eq!(want[0][..3], ["row", "file", "score"]);
        assert_eq!((&*want[1][1], &*want[2][1]), ("x.bmp", "y.bmp"));
        let got = ok(path, &[&["score", detector, "more"][..], &network].concat());
        contains(
            &text(&got.stderr),
            &["images are transformed as the detector's", "more: 2 images"],
        );
        assert_eq!(lines(&got.stdout), want, "{detector}");
        // In the order of the arguments, under the names given.
        let many = ["score", detector, "p.tar", "one.bmp", "more/", "more/y.bmp"];
        for threads in ["1", "3"] {
            let more = ["--batch-size", "2", "--threads", threads];
            let got = lines(&ok(path, &[&many[..], &network, &more].concat()).stdout);
            let files: Vec<&str> = got[1..].iter().map(|line| &*line[1]).collect();
            let names = [
                "p.tar/more/x.bmp",
                "p.tar/more/y.bmp",
                "one.bmp",
                "more/x.bmp",
                "more/y.bmp",
                "more/y.bmp",
            ];
            assert_eq!(files, names);
            for (line, test) in [(1, 1), (2, 2), (4, 1), (5, 2), (6, 2)] {
                assert_eq!(got[line][2..], want[test][2..]);
            }
        }
    }
    unreadable(path, &network);
    refused(path, &network);
    named_everywhere(path);
    // Nothing is left behind.
    let left = common::tree(path).into_keys().filter(|name| name.contains(".heat-"));
    assert_eq!(left.collect::<Vec<_>>(), [""; 0]);
}

/// An image that cannot be read has a row of its own.
fn unreadable(path: &Path, network: &[&str]) {
    fs::write(path.join("more/bad.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
    let score = [&["score", "sure", "more"][..], network].concat();
    let out = command(path, &score).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    contains(
        &text(&out.stderr),
        &["more/bad.png", "1 of 3 images could not be read", "--skip-unreadable"],
    );
    let got = lines(&out.stdout);
    assert_eq!(got[1][..3], ["0", "bad.png", ""]);
    assert_eq!((&*got[2][1], &*got[3][1]), ("x.bmp", "y.bmp"));
    let write = |name: &str, more: &[&str]| {
        let out = command(path, &[&score[..], &["-o", name], more].concat()).output().unwrap();
        (out.status.code(), fs::read(path.join(name)).unwrap())
    };
    let (code, jsonl) = write("s.jsonl", &[]);
    let first: Value = serde_json::from_str(text(&jsonl).lines().next().unwrap()).unwrap();
    assert_eq!((code, &first["score"], &first["file"]), (Some(1), &Value::Null, &"bad.png".into()));
    contains(first["error"].as_str().unwrap(), &["bad.png"]);
    let (code, npy) = write("s.npy", &[]);
    assert_eq!(code, Some(1));
    assert!(npy[npy.len() - 12..].starts_with(&f32::NAN.to_le_bytes()));
    let (code, skipped) = write("s.csv", &["--skip-unreadable"]);
    assert_eq!((code, lines(&skipped).len()), (Some(0), 3));
    // With a false discovery rate all rows are waited for.
    let (code, selected) = write("fdr.csv", &["--fdr", "0.1"]);
    assert_eq!((code, &*lines(&selected)[1][1]), (Some(1), "bad.png"));
    let (_, error) = fails(path, &[&["score", "sure", "more/bad.png"][..], network].concat());
    contains(&error, &["none of its images can be read"]);
    fs::remove_file(path.join("more/bad.png")).unwrap();
}

fn refused(path: &Path, network: &[&str]) {
    let copy = path.join("other.onnx");
    let mut bytes = fs::read(network[1]).unwrap();
    bytes.extend([0xfa, 0x3f, 0x01, b'x']);
    fs::write(&copy, bytes).unwrap();
    let refused = |args: &[&str], code: i32, parts: &[&str]| {
        let (got, error) = fails(path, &[&["score"][..], args].concat());
        assert_eq!(got, code, "{args:?}: {error}");
        contains(&error, parts);
    };
    let other = ["knn", "more", "--backbone", "other.onnx"];
    refused(&other, 1, &["network other.onnx (", "and not plain.onnx (", "`--force`"]);
    ok(path, &[&["score"][..], &other, &["--force"]].concat());
    let moved = [&["knn", "more"][..], network, &TRANSFORM, &["--crop", "8"]].concat();
    refused(&moved, 1, &["transform {", "`--force`"]);
    fs::copy(format!("{GOLDEN}/images/rgb.png"), path.join("one.png")).unwrap();
    refused(&["knn", "one.png"], 1, &["is an image", "`heat score DETECTOR IMAGES --backbone"]);
    refused(&["knn", "more", "test"], 2, &["one feature set at a time", "--backbone FILE"]);
    refused(&["knn", "test", "-"], 2, &["standard input comes alone"]);
    refused(&["knn", "test", "--from", "csv"], 2, &["named `-`"]);
    refused(&["knn", "test", "--tap", "x"], 2, &["--backbone FILE"]);
    refused(&["knn", "test", "--preset", "cifar10"], 2, &["--backbone"]);
    refused(&[&["knn", "-"][..], network].concat(), 2, &["images are files"]);
    refused(&[&["knn", "absent"][..], network].concat(), 1, &["absent"]);
    // Without an origin nothing says how images are transformed.
    ok(path, &["convert", "train", "-o", "mute.npz"]);
    ok(path, &["fit", "knn(k=2)", "--train", "mute.npz", "-o", "mute"]);
    let mute = [&["mute", "more"][..], network].concat();
    refused(&mute, 1, &["the normalisation"]);
    let said = ok(path, &[&["score"][..], &mute, &TRANSFORM].concat());
    contains(&text(&said.stderr), &["does not say which network"]);
    let want = ok(path, &["score", "knn", "test"]).stdout;
    let scores = |out: &[u8]| lines(out).into_iter().map(|l| l[2].clone()).collect::<Vec<_>>();
    assert_eq!(scores(&said.stdout), scores(&want));
}

/// Names go through conversions, subsets, tables, warnings and events.
fn named_everywhere(path: &Path) {
    let want = lines(&ok(path, &["score", "sure", "train"]).stdout);
    for out in ["a.npz", "b.csv", "c", "d.safetensors"] {
        ok(path, &["convert", "train", "-o", out, "--dtype", "f32", "--shard-rows", "5"]);
        assert_eq!(lines(&ok(path, &["score", "sure", out]).stdout), want, "{out}");
    }
    let (_, error) = fails(path, &["calibrate", "knn", "--id", "train", "-o", "no"]);
    contains(&error, &["row 0 (cat/00, ä.bmp), 1 (cat/02, ä.bmp)"]);
    let events = ok(path, &["watch", "sure", "test", "--verdicts"]).stdout;
    let rows: Vec<Value> =
        text(&events).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let rows: Vec<&Value> = rows.iter().filter(|event| event["event"] == "row").collect();
    let want = lines(&ok(path, &["score", "sure", "test"]).stdout);
    assert_eq!(rows.len(), want.len() - 1);
    for (row, want) in rows.iter().zip(&want[1..]) {
        assert_eq!(row["file"], want[1].as_str());
        assert_eq!(row["score"].as_f64().unwrap() as f32, want[2].parse::<f32>().unwrap());
        assert_eq!(row["p_value"].as_f64().unwrap(), want[3].parse::<f64>().unwrap());
        assert_eq!(row["verdict"], want[4].as_str());
    }
}

/// What stands on standard input has the scores that the same file has.
#[test]
fn standard_input_is_scored_as_files_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let rows: Vec<[f32; 3]> =
        (0..700).map(|i| [(i % 7) as f32, (i % 11) as f32 * 0.5, (i % 5) as f32 - 2.0]).collect();
    let slices: Vec<&[f32]> = rows.iter().map(|row| &row[..]).collect();
    npy(&path.join("train.npy"), &slices[..60]);
    npy(&path.join("cal.npy"), &slices[60..200]);
    npy(&path.join("x.npy"), &slices[..]);
    ok(path, &["fit", "norm", "--train", "train.npy", "-o", "norm"]);
    ok(path, &["calibrate", "norm", "--id", "cal.npy", "--force", "-o", "sure"]);
    let want = ok(path, &["score", "sure", "x.npy"]).stdout;
    let csv: String = rows.iter().map(|r| format!("{},{},{}\n", r[0], r[1], r[2])).collect();
    let jsonl: String = rows.iter().map(|r| format!("{r:?}\n")).collect();
    let random = ["--ties", "randomized", "--ties-seed", "3"];
    let randomly = ok(path, &[&["score", "sure", "x.npy"][..], &random].concat()).stdout;
    let selected = ok(path, &["score", "sure", "x.npy", "--fdr", "0.2"]).stdout;
    for input in [csv.as_bytes(), jsonl.as_bytes(), &fs::read(path.join("x.npy")).unwrap()] {
        let score = |more: &[&str]| {
            let out = piped(path, &[&["score", "sure", "-"][..], more].concat(), input);
            assert!(out.status.success(), "{}", text(&out.stderr));
            out.stdout
        };
        assert_eq!(score(&[]), want);
        assert_eq!(score(&random), randomly);
        assert_eq!(score(&["--fdr", "0.2"]), selected);
        score(&["-o", "out.csv"]);
        assert_eq!(fs::read(path.join("out.csv")).unwrap(), want);
    }
    let named = piped(path, &["score", "sure", "-"], b"path,a,b,c\n\"x,1\",1,2,3\ny,4,5,6\n");
    let named = lines(&named.stdout);
    assert_eq!((&*named[0][1], &*named[1][1], &*named[2][1]), ("file", "x,1", "y"));
    for (input, more, parts) in [
        (&b""[..], &[][..], &["standard input", "is empty"][..]),
        (b"1,2\n", &[], &["[1, 2]"]),
        (b"1,2,x\n", &[], &["standard input"]),
        (b"1,2,3\n4,5\n", &[], &["line 2 has 2 columns"]),
        (b"[1,2,3]\n[1,2]\n", &[], &["line 2", "first row"]),
        (b"1,2,3\n", &["--from", "jsonl"], &["line 1", "JSON"]),
        (b"{\"score\":1}\n", &[], &["line 1", "has no `avg`"]),
        (b"PK\x03\x04aaaaaaaaaaaaaaaaaa", &[], &["is a zip archive", "name the file"]),
    ] {
        let out = piped(path, &[&["score", "sure", "-"][..], more].concat(), input);
        assert_eq!(out.status.code(), Some(1), "{parts:?}");
        contains(&text(&out.stderr), parts);
        // A file that was there before stays.
        let kept = [&["score", "sure", "-", "-o", "out.csv"][..], more].concat();
        assert_eq!(piped(path, &kept, input).status.code(), Some(1));
        assert_eq!(fs::read(path.join("out.csv")).unwrap(), want);
    }
    watched(path, &csv, &want);
}

/// Verdicts of lines are those of the file; scores that were given keep their names.
fn watched(path: &Path, csv: &str, want: &[u8]) {
    let want = lines(want);
    for (input, named) in [(csv.as_bytes().to_vec(), false), (named(&want), true)] {
        let events = piped(path, &["watch", "sure", "--verdicts"], &input);
        assert!(events.status.success(), "{}", text(&events.stderr));
        let events: Vec<Value> =
            text(&events.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let rows: Vec<&Value> = events.iter().filter(|e| e["event"] == "row").collect();
        assert_eq!(rows.len(), want.len() - 1);
        for (i, (row, want)) in rows.iter().zip(&want[1..]).enumerate() {
            assert_eq!(row["p_value"].as_f64().unwrap(), want[2].parse::<f64>().unwrap());
            assert_eq!(row["verdict"], want[3].as_str());
            assert_eq!(row["file"], if named { format!("i{i}").into() } else { Value::Null });
        }
    }
}

/// The table of scores with a name for each row.
fn named(scores: &[Vec<String>]) -> Vec<u8> {
    let row = |(i, line): (usize, &Vec<String>)| match i {
        0 => "row,file,score\n".to_owned(),
        i => format!("{},i{},{}\n", i - 1, i - 1, line[1]),
    };
    scores.iter().enumerate().map(row).collect::<String>().into_bytes()
}

/// A row is answered before the next one comes.
#[test]
fn no_row_waits_for_the_next() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    npy(&path.join("train.npy"), &[&[1.0, 2.0], &[2.0, 1.0], &[0.0, 1.0]]);
    ok(path, &["fit", "norm", "--train", "train.npy", "-o", "norm"]);
    let mut child = command(path, &["score", "norm", "-", "--from", "jsonl"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    for i in 0..3 {
        writeln!(input, "[{i}, 16]").unwrap();
        if i == 0 {
            assert_eq!(line(), "row,score\n");
        }
        assert!(line().starts_with(&format!("{i},")));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}
