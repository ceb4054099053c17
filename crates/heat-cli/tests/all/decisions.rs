//! Choosing, calibrating, judging, watching: the command from end to end, on real features.

use crate::common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use common::{command, contains, data, fails, npy, ok, text};
use serde_json::Value;

/// A `knn` detector, and the same calibrated on the test rows.
fn calibrated(directory: &Path, more: &[&str]) -> Output {
    ok(directory, &["fit", "knn", "--train", &data("train"), "-o", "knn.safetensors"]);
    let id = data("test");
    let args = [&["calibrate", "knn.safetensors", "--id", &id, "-o", "cal.safetensors"], more];
    ok(directory, &args.concat())
}

fn lines(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|l| l.split(',').map(str::to_owned).collect()).collect()
}

/// numpy 2.4.6 from the scores of the command itself: p = (1 + #{c ≥ s})/1001,
/// here counted anew.
#[test]
fn scores_p_values_and_verdicts() {
    let directory = tempfile::tempdir().unwrap();
    let said = calibrated(directory.path(), &["--alpha", "0.1"]);
    contains(&text(&said.stderr), &["at most 0.1", "on average", "1000 calibration rows", "wrote"]);
    let score = |args: &[&str]| {
        let out = ok(directory.path(), &[&["score", "cal.safetensors"], args].concat());
        (lines(&text(&out.stdout)), text(&out.stderr))
    };
    let (id, ood) = (data("test"), data("ood_textures"));
    let (calibration, _) = score(&[&id]);
    let scores: Vec<f32> = calibration[1..].iter().map(|r| r[1].parse().unwrap()).collect();
    // Of the calibration rows themselves ⌊0.1·1001⌋ − 1 are above the threshold.
    let flagged = |rows: &[Vec<String>]| rows.iter().filter(|r| r[3] == "ood").count();
    assert_eq!(flagged(&calibration), 99);
    let (rows, stderr) = score(&[&ood]);
    assert_eq!(rows[0], ["row", "score", "p_value", "verdict"]);
    for row in &rows[1..] {
        let s: f32 = row[1].parse().unwrap();
        let want = (1 + scores.iter().filter(|c| **c >= s).count()) as f64 / 1001.0;
        assert_eq!(row[2].parse::<f64>().unwrap(), want);
        assert_eq!(row[3] == "ood", want <= 0.1);
    }
    contains(&stderr, &[&format!("{} of 500 rows out-of-distribution", flagged(&rows))]);
    // Another α, a false discovery rate, random ties, other forms.
    let (strict, _) = score(&[&ood, "--alpha", "0.01"]);
    assert!(flagged(&strict) < flagged(&rows));
    let (selected, stderr) = score(&[&ood, "--fdr", "0.05"]);
    assert!(flagged(&selected) > 0);
    contains(&stderr, &["at most 0.05 are in-distribution on average"]);
    let random = |seed| score(&[&ood, "--ties", "randomized", "--ties-seed", seed]).0;
    for more in [&["--ties", "randomized"][..], &["--fdr", "0.1", "--alpha", "0.1"]] {
        let args = [&["score", "cal.safetensors", &ood], more].concat();
        assert_eq!(fails(directory.path(), &args).0, 2);
    }
    let npy = ["score", "cal.safetensors", &ood, "--fdr", "0.1", "-o", "s.npy"];
    contains(&fails(directory.path(), &npy).1, &["scores alone"]);
    assert_eq!(random("1"), random("1"));
    assert_ne!(random("1"), random("2"));
    ok(directory.path(), &["score", "cal.safetensors", &ood, "-o", "s.jsonl"]);
    let first = fs::read_to_string(directory.path().join("s.jsonl")).unwrap();
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(first["p_value"].as_f64().unwrap(), rows[1][2].parse::<f64>().unwrap());
    assert_eq!(first["verdict"], rows[1][3].as_str());
    let info = text(&ok(directory.path(), &["info", "cal.safetensors"]).stdout);
    contains(&info, &["verdicts at most 0.1", "calibrated on test.safetensors sha256"]);
}

#[test]
fn by_class_with_probability() {
    let directory = tempfile::tempdir().unwrap();
    let head = data("head");
    let more = ["--per-class", "--head", &head, "--alpha", "0.1", "--delta", "0.1"];
    let said = calibrated(directory.path(), &more);
    contains(&text(&said.stderr), &["probability 0.9", "Clopper-Pearson", "each predicted class"]);
    let out = ok(directory.path(), &["score", "cal.safetensors", &data("ood_mnist")]);
    let rows = lines(&text(&out.stdout));
    assert_eq!(rows[0], ["row", "score", "p_value", "verdict", "class"]);
    assert!(rows[1..].iter().all(|r| r[4].parse::<u32>().unwrap() < 10));
    assert!(rows[1..].iter().filter(|r| r[3] == "ood").count() > 450);
}

#[test]
fn calibration_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let (train, id) = (data("train"), data("test"));
    ok(directory.path(), &["fit", "el", "--train", &train, "--head", &data("head"), "-o", "d"]);
    let refused =
        |args: &[&str]| fails(directory.path(), &[&["calibrate", "d", "-o", "o"], args].concat());
    for alpha in ["0", "1", "-0.5", "nan", "inf"] {
        let (code, error) = refused(&["--id", &id, "--alpha", alpha]);
        assert_eq!(code, 2);
        contains(&error, &["`alpha`", "strictly between 0 and 1"]);
    }
    contains(&refused(&["--id", &id, "--alpha", "0.0001"]).1, &["at least 9999 are needed"]);
    let (_, error) =
        refused(&["--id", &id, "--alpha", "0.03", "--delta", "0.05", "--bound", "dkw"]);
    contains(&error, &["too few for alpha = 0.03 and delta = 0.05", "at least 1665"]);
    let (code, error) = refused(&["--id", &train]);
    assert_eq!(code, 1);
    contains(&error, &["3000 of 3000 rows", "training rows", "--force"]);
    ok(directory.path(), &["calibrate", "d", "--id", &train, "--force", "-o", "forced"]);
    let info = text(&ok(directory.path(), &["info", "forced"]).stdout);
    contains(&info, &["nothing is promised", "rows that the scorer has seen"]);
    let said = ok(directory.path(), &["score", "forced", &id, "--fdr", "0.1"]);
    contains(&text(&said.stderr), &["nothing is promised"]);
    contains(&refused(&["--id", &id, "--per-class"]).1, &["--head"]);
    assert!(!directory.path().join("o").exists());
    let (code, error) = fails(directory.path(), &["score", "d", &id, "--fdr", "0.1"]);
    assert_eq!(code, 2);
    contains(&error, &["not calibrated", "heat calibrate"]);
    let (_, error) = fails(directory.path(), &["watch", "d", &id]);
    contains(&error, &["calibration", "heat calibrate"]);
}

/// Run `heat watch` on lines.
fn watch(directory: &Path, args: &[&str], input: &str) -> (Output, Vec<Value>) {
    let mut command = command(directory, &[&["watch", "cal.safetensors"], args].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // It may end before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let events = text(&out.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    (out, events)
}

fn of<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["event"] == name).collect()
}

#[test]
fn streams_are_watched() {
    let directory = tempfile::tempdir().unwrap();
    calibrated(directory.path(), &[]);
    let anomalous =
        text(&ok(directory.path(), &["score", "cal.safetensors", &data("ood_textures")]).stdout);
    let (_, events) = watch(directory.path(), &["--every", "200"], &anomalous);
    assert_eq!(of(&events, "start")[0]["calibration_rows"], 1000);
    let alarm = of(&events, "alarm")[0];
    assert!(alarm["row"].as_u64().unwrap() < 50, "{alarm}");
    assert!(alarm["evidence_log10"].as_f64() >= alarm["threshold_log10"].as_f64());
    assert_eq!(of(&events, "status").len(), 2);
    let end = of(&events, "end")[0];
    assert_eq!(end["rows"], 500);
    assert_eq!(end["alarms"].as_u64().unwrap() as usize, of(&events, "alarm").len());
    // The same from the features, and from plain numbers.
    let (_, same) = watch(directory.path(), &["--every", "200", &data("ood_textures")], "");
    let without_command = |events: &[Value]| -> Vec<Value> {
        let mut events = events.to_vec();
        events.iter_mut().filter_map(|e| e.as_object_mut()).for_each(|e| drop(e.remove("made")));
        events
    };
    assert_eq!(without_command(&same), without_command(&events));
    let scores: Vec<&str> =
        anomalous.lines().skip(1).map(|l| l.split(',').nth(1).unwrap()).collect();
    let (_, same) = watch(directory.path(), &["--every", "200"], &scores.join("\n"));
    assert_eq!(same, events);
    // Ordinary rows in random order raise none: these are the calibration's own.
    let id = text(&ok(directory.path(), &["score", "cal.safetensors", &data("test")]).stdout);
    let (_, events) = watch(directory.path(), &[], &id);
    assert!(of(&events, "alarm").is_empty());
    let (out, events) = watch(directory.path(), &["--fail"], &anomalous);
    assert_eq!(out.status.code(), Some(3));
    assert_eq!(of(&events, "alarm").len(), 1);
}

#[test]
fn rows_of_features_and_bad_lines() {
    let directory = tempfile::tempdir().unwrap();
    calibrated(directory.path(), &[]);
    let row = vec!["0.25"; 342].join(",");
    let input = format!("{row}\n[{row}]\n\n{{\"score\":0.25,\"row\":7}}\n");
    let (_, events) = watch(directory.path(), &[], &input);
    assert_eq!(of(&events, "end")[0]["rows"], 3);
    for (line, part) in [
        ("nan", "the score is NaN"),
        ("[1.0,2.0]", "342"),
        ("1.0,2.0", "342"),
        ("high", "\"high\" is not a number"),
        ("{\"row\":1}", "no number under `score`"),
        ("[1.0,", "EOF"),
        ("[\"a\"]", "not a number"),
        (&row.replacen("0.25", "nan", 1), "is NaN"),
    ] {
        let (out, _) = watch(directory.path(), &[], &format!("0.5\n{line}\n"));
        assert_eq!(out.status.code(), Some(1));
        contains(&text(&out.stderr), &["line 2", part]);
        let (out, events) =
            watch(directory.path(), &["--skip-invalid"], &format!("0.5\n{line}\n0.4\n"));
        assert!(out.status.success());
        assert_eq!(of(&events, "invalid")[0]["line"], 2);
        assert_eq!(of(&events, "end")[0]["rows"], 2);
    }
    // What spreadsheets write.
    for input in ["\u{feff}score\r\n0.5\r\n0.4\r\n", "\"row\",\"score\"\n\"0\",\"0.5\"\n1,0.4\n"] {
        let (_, events) = watch(directory.path(), &[], input);
        assert_eq!(of(&events, "end")[0]["rows"], 2, "{input:?}");
    }
    let long = format!("0.5\n{}\n0.4\n", "1,".repeat(3 << 20));
    let (_, events) = watch(directory.path(), &["--skip-invalid"], &long);
    contains(&of(&events, "invalid")[0]["problem"].to_string(), &["longer than 4194304 bytes"]);
    assert_eq!(of(&events, "end")[0]["rows"], 2);
    for (flag, value) in [("--alpha", "0"), ("--horizon", "0"), ("--min-admixture", "1")] {
        let (out, _) = watch(directory.path(), &[flag, value], "");
        assert_eq!(out.status.code(), Some(2), "{flag}");
    }
}

/// The training rows in another form.
fn converted(directory: &Path, name: &str, more: &[&str]) -> String {
    let train = data("train");
    ok(directory, &[&["convert", &train, "-o", name, "--fields", "avg"], more].concat());
    name.to_owned()
}

/// A detector of `std` is not calibrated on the training rows' `std` alone.
#[test]
fn training_rows_are_noticed_in_the_field_that_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let train = data("train");
    ok(directory.path(), &["fit", "knn", "pooling=std", "--train", &train, "-o", "std"]);
    ok(directory.path(), &["convert", &train, "-o", "std.npz", "--fields", "std"]);
    let calibrate = ["calibrate", "std", "--id", "std.npz", "-o", "x"];
    contains(&fails(directory.path(), &calibrate).1, &["training rows"]);
    let forced = ok(directory.path(), &[&calibrate[..], &["--force"]].concat());
    contains(&text(&forced.stderr), &["nothing is promised"]);
    // Nor does a watch hide it.
    let mut child = command(directory.path(), &["watch", "x"]);
    let out = child.stdin(Stdio::null()).output().unwrap();
    contains(&text(&out.stdout), &["\"forced\":true"]);
    contains(&text(&out.stderr), &["nothing is promised"]);
}

/// A row that one member cannot score is no ordinary row.
#[test]
fn p_values_of_rows_beyond_all_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let (train, id) = (data("train"), data("test"));
    for scorer in ["vim", "knn"] {
        let head = data("head");
        let file = format!("{scorer}.fit");
        ok(directory.path(), &["fit", scorer, "--train", &train, "--head", &head, "-o", &file]);
        ok(directory.path(), &["calibrate", &file, "--id", &id, "-o", scorer]);
    }
    ok(directory.path(), &["compose", "vim", "knn", "--p-values", "stouffer", "-o", "both"]);
    npy(&directory.path().join("huge.npy"), &[&[3e38; 342]]);
    for detector in ["vim", "both"] {
        let (_, error) = fails(directory.path(), &["score", detector, "huge.npy"]);
        contains(&error, &["huge.npy", "row 0", "too large"]);
    }
}

#[test]
fn p_values_are_composed() {
    let directory = tempfile::tempdir().unwrap();
    calibrated(directory.path(), &[]);
    let (train, head, id) = (data("train"), data("head"), data("test"));
    ok(directory.path(), &["fit", "el", "--train", &train, "--head", &head, "-o", "el"]);
    ok(directory.path(), &["calibrate", "el", "--id", &id, "-o", "el.cal"]);
    // In half precision too: what `heat convert` writes by default.
    let (_, trained) = fails(
        directory.path(),
        &[
            "calibrate",
            "knn.safetensors",
            "--id",
            &converted(directory.path(), "half", &[]),
            "-o",
            "x",
        ],
    );
    contains(&trained, &["training rows"]);
    let brain = converted(directory.path(), "brain", &["--dtype", "bf16"]);
    contains(
        &fails(directory.path(), &["calibrate", "el", "--id", &brain, "-o", "x"]).1,
        &["rows"],
    );
    let fused = ["compose", "a=cal.safetensors", "b=el.cal", "--p-values", "cauchy", "-o", "both"];
    ok(directory.path(), &fused);
    // The rows its members were calibrated on are training rows to it.
    let (_, error) = fails(directory.path(), &["calibrate", "both", "--id", &id, "-o", "x"]);
    contains(&error, &["1000 of 1000 rows", "test.safetensors"]);
    // In another file too.
    ok(directory.path(), &["convert", &id, "-o", "again.npz", "--fields", "avg"]);
    let (_, error) =
        fails(directory.path(), &["calibrate", "both", "--id", "again.npz", "-o", "x"]);
    contains(&error, &["1000 of 1000 rows"]);
    ok(directory.path(), &["calibrate", "both", "--id", &data("ood_mnist"), "-o", "x"]);
    let (_, error) =
        fails(directory.path(), &["compose", "a=el", "b=el.cal", "--p-values", "simes", "-o", "y"]);
    contains(&error, &["a", "calibration", "heat calibrate"]);
    let weighted = ["compose", "a=el", "b=knn.safetensors", "--train", &train, "--weights", "1,2"];
    ok(directory.path(), &[&weighted[..], &["-o", "w"]].concat());
    let info = text(&ok(directory.path(), &["info", "w"]).stdout);
    contains(&info, &["\"weight\":[1.0,2.0]", "--weights 1,2"]);
    let (code, _) = fails(
        directory.path(),
        &["compose", "a=el", "--train", &train, "--weights", "1,2", "-o", "z"],
    );
    assert_eq!(code, 2);
}

/// Weights by sets that play OOD, which are no sets to report results on any more.
#[test]
fn weights_are_found_against_sets() {
    let directory = tempfile::tempdir().unwrap();
    let (train, head, id) = (data("train"), data("head"), data("test"));
    for scorer in ["el", "norm", "fdbd"] {
        ok(directory.path(), &["fit", scorer, "--train", &train, "--head", &head, "-o", scorer]);
    }
    let base =
        ["compose", "el", "norm", "fdbd", "--against", &data("ood_textures"), &data("ood_mnist")];
    let held = ["--standardise", &id, "-o", "w"];
    let out = ok(directory.path(), &[&base[..], &held[..]].concat());
    contains(&text(&out.stderr), &["weights: ", "fdbd 0."]);
    let info = text(&ok(directory.path(), &["info", "w"]).stdout);
    contains(&info, &["compose el norm fdbd --beta 0 --standardise --against"]);
    let set = format!("textures={}", data("ood_textures"));
    let eval = ["eval", "--id", &id, "--ood", &set, "--detectors", "w"];
    contains(&text(&ok(directory.path(), &eval).stderr), &["settings were chosen on them"]);
    let refused = |more: &[&str]| fails(directory.path(), &[&base[..], more].concat()).1;
    contains(&refused(&["--train", &train, "-o", "x"]), &["--against", "--train"]);
    contains(&refused(&["-o", "x"]), &["--standardise"]);
    contains(&refused(&["--standardise", &id, "--weights", "1,1,1", "-o", "x"]), &["--weights"]);
    contains(
        &refused(&["--standardise", &id, "--beta", "1", "-o", "x"]),
        &["for the sum of scores"],
    );
    contains(&refused(&["--standardise", &train, "-o", "x"]), &["held out of training"]);
    let (_, error) = fails(
        directory.path(),
        &["compose", "el", "--against", &train, "--standardise", &id, "-o", "x"],
    );
    contains(&error, &["is to play OOD", "training rows"]);
}

#[test]
fn choosing_without_and_with_validation_sets() {
    let directory = tempfile::tempdir().unwrap();
    let (train, head, id) = (data("train"), data("head"), data("test"));
    let base = ["select", "--train", &train, "--head", &head];
    let run = |more: &[&str]| ok(directory.path(), &[&base[..], more].concat());
    let few = ["--scorers", "knn,el,maha,norm", "--rows", "1500", "--folds", "3"];
    let json = run(&[&few[..], &["--format", "json", "-o", "chosen"]].concat());
    let json: Value = serde_json::from_str(&text(&json.stdout)).unwrap();
    let ranking = json["ranking"].as_array().unwrap();
    assert_eq!(ranking.len(), 4);
    // On the real OOD sets too: knn 94, norm 19 (docs/methods.md).
    assert_eq!(ranking[0]["name"], "knn");
    assert_eq!(ranking[3]["name"], "norm");
    ok(directory.path(), &["score", "chosen", &id]);
    contains(&text(&run(&few).stdout), &["agreement", "composition", "held_out_classes"]);

    let validation = format!("textures={}", data("ood_textures"));
    let more = ["--scorers", "knn(k=1|50|2000)", "--id-val", &id, "--tune-on", &validation];
    let said = run(&[&more[..], &["-o", "tuned", "--format", "json"]].concat());
    let json: Value = serde_json::from_str(&text(&said.stdout)).unwrap();
    let candidates = json["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 3);
    let hashes: std::collections::BTreeSet<&str> =
        candidates.iter().map(|c| c["sha256"].as_str().unwrap()).collect();
    assert_eq!(hashes.len(), 3);
    // A choice made on rows is no promise for them, and the sets are remembered.
    let (_, error) = fails(directory.path(), &["calibrate", "tuned", "--id", &id, "-o", "x"]);
    contains(&error, &["1000 of 1000 rows"]);
    ok(directory.path(), &["fit", "norm", "--train", &train, "-o", "norm"]);
    let both = ["compose", "tuned", "norm", "--train", &train, "-o", "composed"];
    ok(directory.path(), &both);
    // Whatever file they lie in; and the ID rows too.
    ok(directory.path(), &["convert", &data("ood_textures"), "-o", "again"]);
    for set in [&*validation, "other=again"] {
        let eval = ["eval", "--id", &id, "--ood", set, "--detectors", "composed"];
        let said = text(&ok(directory.path(), &eval).stderr);
        contains(&said, &["were chosen on", "1000 of 1000 rows", "(of composed)"]);
    }
    // Without the committee the best scorer stays, unless others are shown to add to it.
    let one = run(&["--scorers", "knn(k=1),norm", "--rows", "1500", "--format", "json"]);
    let one: Value = serde_json::from_str(&text(&one.stdout)).unwrap();
    assert_eq!(one["fallback"], serde_json::json!([["knn(k=1)", 1.0]]));
    let [alone, kept] = [&one["ranking"][0]["auroc"], &one["fallback_auroc"]];
    assert!((alone.as_f64().unwrap() - kept.as_f64().unwrap()).abs() < 1e-9, "{one}");
    assert_eq!(one["kinds"][0], "held_out_classes");
    let same = ["--scorers", "knn(k=9,whiten=false),knn(k=9)", "--id-val", &id];
    let said = run(&[&same[..], &["--tune-on", &validation]].concat());
    contains(&text(&said.stderr), &["no effect"]);

    let (code, error) = fails(directory.path(), &[&base[..], &["--ood", &validation]].concat());
    assert_eq!(code, 2);
    contains(&error, &["test sets are not looked at", "--tune-on"]);
    let (_, error) = fails(directory.path(), &[&base[..], &["--folds", "1"]].concat());
    contains(&error, &["`folds`"]);
    // Without a head those that need one are left out, or end it.
    let headless = ["select", "--train", &train, "--scorers", "el,knn,norm", "--rows", "1500"];
    let said = text(&ok(directory.path(), &headless).stdout);
    contains(&said, &["left out: el: ", "`--head FILE`"]);
    contains(&fails(directory.path(), &[&headless[..], &["--strict"]].concat()).1, &["--head"]);
    let twice = ["--scorers", "norm,norm"];
    contains(&fails(directory.path(), &[&base[..], &twice].concat()).1, &["named twice"]);
}

/// Sets that play OOD in a directory, ID rows among them or not.
#[test]
fn choosing_by_surrogates() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (train, head, id) = (data("train"), data("head"), data("test"));
    let sets = path.join("sets");
    fs::create_dir(&sets).unwrap();
    let base = ["select", "--train", &train, "--head", &head, "--rows", "1500"];
    let run = |more: &[&str]| ok(path, &[&base[..], &["--surrogates", "sets"], more].concat());
    let refused =
        |more: &[&str]| fails(path, &[&base[..], &["--surrogates", "sets"], more].concat()).1;
    contains(&refused(&[]), &["sets", "holds no feature set", "one feature set a kind"]);
    let copy = |set: &str, name: &str| {
        fs::copy(data(set), sets.join(format!("{name}.safetensors"))).unwrap();
    };
    copy("test", "id");
    contains(&refused(&[]), &["holds `id` alone"]);
    for (set, name) in [
        ("ood_textures", "blur"),
        ("ood_mnist", "noise"),
        ("ood_cifar100", "jigsaw2"),
        ("ood_cifar100", "mixup"),
    ] {
        copy(set, name);
    }
    let few = ["--scorers", "committee,el,norm"];
    let said = run(&[&few[..], &["-o", "chosen"]].concat());
    let table = text(&said.stdout);
    contains(
        &table,
        &["parts", "textures", "two groups count alike", "committee: 0.20 cadref", "composition: "],
    );
    assert!(table.lines().all(|line| !line.contains('%')), "{table}");
    let json = text(&run(&[&few[..], &["--format", "json"]].concat()).stdout);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["kinds"], serde_json::json!(["blur", "jigsaw2", "mixup", "noise"]));
    assert_eq!(json["ranking"].as_array().unwrap().len(), 7);
    assert_eq!(json["made"]["sha256"]["surrogates"]["blur"].as_object().unwrap().len(), 1);
    assert_eq!(json["id"], "held_out");
    // Its ID rows are no rows to calibrate on, and the sets none to report results on.
    let (_, error) = fails(path, &["calibrate", "chosen", "--id", &id, "-o", "x"]);
    contains(&error, &["1000 of 1000 rows"]);
    let set = format!("textures={}", data("ood_textures"));
    let eval = ["eval", "--id", &id, "--ood", &set, "--detectors", "chosen"];
    contains(&text(&ok(path, &eval).stderr), &["were chosen on"]);
    // Training rows alone in the place of ID rows, and none.
    let of_training = refused(&[&few[..], &["--id-val", &train]].concat());
    contains(&of_training, &["every training row is among the ID rows"]);
    fs::remove_file(sets.join("id.safetensors")).unwrap();
    contains(&text(&run(&few).stderr), &["a fifth of the training rows"]);
    contains(&refused(&["--tune-on", &set]), &["--surrogates"]);
    let (code, error) = fails(path, &[&base[..], &["--id-val", &id]].concat());
    assert_eq!(code, 2);
    contains(&error, &["`--tune-on` or `--surrogates`"]);
    fs::write(sets.join("short.csv"), "1,2\n").unwrap();
    contains(&refused(&few), &["short"]);
}

/// One file of several scorers, in `heat fit` and `heat eval`, and on which rows they stand on one
/// scale.
#[test]
fn the_committee_and_held_out_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (train, head, id) = (data("train"), data("head"), data("test"));
    let fit = ["fit", "committee", "--train", &train, "--head", &head, "-o", "c"];
    contains(&text(&ok(path, &fit).stderr), &["committee: cadref + fdbd + lts + nnguide + gmm("]);
    ok(path, &[&fit[..], &["--standardise", &id]].concat());
    let info = text(&ok(path, &["info", "c"]).stdout);
    contains(&info, &["standardised on test.safetensors sha256", "train    train.safetensors"]);
    let (_, error) = fails(path, &["calibrate", "c", "--id", &id, "-o", "x"]);
    contains(&error, &["1000 of 1000 rows"]);
    let (code, error) = fails(path, &[&fit[..], &["k=3"]].concat());
    assert_eq!(code, 2);
    contains(&error, &["the committee has no settings"]);
    // Without a head the others, with a word on it.
    let bare = ["fit", "committee", "--train", &train, "-o", "bare"];
    contains(&text(&ok(path, &bare).stderr), &["committee: knn(k=5) + gmm(shrinkage=1)"]);
    let one = ["fit", "norm", "--train", &train, "--standardise", &id, "-o", "norm"];
    contains(&fails(path, &one).1, &["members of a composition are standardised"]);

    let ood = format!("mnist={}", data("ood_mnist"));
    let eval = ["eval", "--train", &train, "--head", &head, "--id", &id, "--ood", &ood];
    let json = ["--scorers", "committee", "--format", "json"];
    let json = text(&ok(path, &[&eval[..], &json].concat()).stdout);
    let json: Value = serde_json::from_str(&json).unwrap();
    let names: Vec<&String> = json["scorers"].as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 6);
    assert!(names.contains(&&"committee".to_owned()));

    ok(path, &["fit", "el", "--train", &train, "--head", &head, "-o", "el"]);
    ok(path, &["fit", "norm", "--train", &train, "-o", "norm"]);
    let compose = ["compose", "el", "norm", "-o", "both", "--standardise"];
    ok(path, &[&compose[..], &[&id]].concat());
    contains(&text(&ok(path, &["info", "both"]).stdout), &["standardised on test.safetensors"]);
    let (_, error) = fails(path, &[&compose[..], &[&train]].concat());
    contains(&error, &["3000 of 3000 rows", "held out of training", "`--force`"]);
    assert!(!error.contains("--drop-seen"), "{error}");
    ok(path, &[&compose[..], &[&train, "--force"]].concat());
    let both = [&compose[..], &[&id, "--train", &train]].concat();
    assert_eq!(fails(path, &both).0, 2);
}
