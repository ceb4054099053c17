//! Files as people write them, each with the right content: other shapes, names,
//! types and labels than ours, tables of text, and values that types cannot hold. Small inputs of
//! the forms that public reports describe lie in `golden/cases`; what is right of those was computed
//! with NumPy in f64 (the files named `expected`), or follows from how they were made.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::bytes::{contains, f32s, i64s, npy};
use heat_ood::evaluate::{Agreement, Candidate, evaluate};
use heat_ood::features::{
    ConvertConfig, FeatureSet, Field, FloatType, Form, Head, OpenOptions, Pooling, convert,
};
use heat_ood::io::{TensorFile, set_memory_limit};
use heat_ood::metrics;
use heat_ood::scorers::{Scorer, ScorerSpec};
use heat_ood::{Detector, Event, Observer, Silent, TrainingData, Warnings};
use ndarray::Array2;

const AVG: Field = Field::Features(Pooling::Avg);

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases").join(name)
}

fn open(name: &str) -> FeatureSet {
    FeatureSet::open(case(name)).unwrap()
}

fn golden(name: &str) -> PathBuf {
    case(&format!("{name}.safetensors"))
}

fn set_named(name: &str) -> FeatureSet {
    FeatureSet::open(golden(name)).unwrap()
}

fn fitted(text: &str, data: &TrainingData) -> heat_ood::Fitted<dyn Scorer> {
    ScorerSpec::parse(text).unwrap().fit(data, &mut Silent).unwrap()
}

fn values(set: &FeatureSet, field: Field) -> Vec<f32> {
    let mut out = vec![0.0; set.len() * set.dim(field).unwrap()];
    set.read(field, 0..set.len(), &mut out).unwrap();
    out
}

fn refused(path: &Path) -> String {
    FeatureSet::open(path).err().expect("refused").to_string()
}

/// Notes and warnings.
#[derive(Default)]
struct Told(Vec<String>);

impl Observer for Told {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Note(text) | Event::Warning(text) = event {
            self.0.push(text.to_owned());
        }
    }
}

/// A file, and its directory, which goes with it.
struct Written(#[allow(dead_code)] tempfile::TempDir, PathBuf);

fn written(name: &str, bytes: impl AsRef<[u8]>) -> Written {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    Written(directory, path)
}

fn zip(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Two rows a class, [0, 0], [1, 1], … with this array of labels.
fn labelled(kind: &str, shape: &str, bytes: &[u8], rows: usize) -> FeatureSet {
    let avg: Vec<f32> = (0..2 * rows).map(|i| (i / 2) as f32).collect();
    let file = zip(&[
        ("avg.npy", npy("<f4", false, &format!("({rows}, 2)"), &f32s(&avg))),
        ("label.npy", npy(kind, false, shape, bytes)),
    ]);
    FeatureSet::open(&written("x.npz", file).1).unwrap()
}

fn all_labels(set: &FeatureSet) -> Vec<u32> {
    set.labels(0..set.len(), set.classes().unwrap()).unwrap()
}

#[test]
fn matrices_of_more_dimensions() {
    let set = open("28_n_d_1_1.npz");
    assert_eq!((set.len(), set.dim(AVG)), (20, Some(8)));
    // NumPy: np.load(...)["avg"][0, :3, 0, 0].
    assert_eq!(values(&set, AVG)[..3], [-1.402_533, 1.534_487_8, -1.182_103_6]);
    let data = f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    for shape in ["(2, 1, 3)", "(2, 3, 1, 1)", "(2, 1, 3, 1)", "(2, 3)"] {
        let set = FeatureSet::open(&written("x.npy", npy("<f4", false, shape, &data)).1).unwrap();
        assert_eq!(
            (set.len(), values(&set, AVG)),
            (2, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
            "{shape}"
        );
    }
    // Column by column.
    let set =
        FeatureSet::open(&written("x.npy", npy("<f4", true, "(2, 3, 1, 1)", &data)).1).unwrap();
    assert_eq!(values(&set, AVG), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
    let maps = refused(&written("x.npy", npy("<f4", false, "(1, 2, 3, 1)", &data)).1);
    contains(&maps, &["[1, 2, 3]", "[N, D]"]);
    let maps = refused(&written("x.npy", npy("<f4", false, "(1, 1, 2, 3)", &data)).1);
    contains(&maps, &["[N, D]"]);
}

#[test]
fn arrays_without_names_of_ours() {
    let set = open("28_arr_0.npz");
    assert_eq!((set.len(), set.dim(AVG), set.labelled()), (20, Some(8), false));
    contains(&set.notices()[0], &["`arr_0`", "only matrix", "`avg`"]);
    let matrix = npy("<f4", false, "(2, 3)", &f32s(&[0.0; 6]));
    let y = npy("<i8", false, "(2,)", &i64s(&[1, 0]));
    let file = zip(&[("features.npy", matrix.clone()), ("targets.npy", y.clone())]);
    let set = FeatureSet::open(&written("x.npz", file).1).unwrap();
    assert_eq!(all_labels(&set), [1, 0]);
    contains(&set.notices()[0], &["`features`", "`targets` as `label`"]);
    let file = zip(&[("a.npy", matrix.clone()), ("b.npy", matrix), ("y.npy", y)]);
    let error = refused(&written("x.npz", file).1);
    contains(&error, &["`a` [2, 3]", "`b` [2, 3]", "`y` [2]", "np.savez(path, avg=x, label=y)"]);
}

#[test]
fn minus_one_is_no_label() {
    let set = open("28_ood_labels_minus_one.safetensors");
    assert_eq!((set.len(), set.labelled()), (20, false));
    let set = labelled("<i8", "(4,)", &i64s(&[0, -1, 1, -1]), 4);
    assert!(set.labelled());
    contains(&set.label_notices()[0], &["2 of 4 rows have no label"]);
    contains(&set.labels(0..4, 2).unwrap_err().to_string(), &["row 1", "label -1"]);
}

/// 41 MB in 52 KB: within the limit of memory, and beyond it. (The limit is that of the
/// process: it is what the other tests here need and more.)
#[test]
fn compressed_beyond_four_times() {
    set_memory_limit(64 << 20);
    let set = open("20_sparse_compressed.npz");
    assert_eq!((set.len(), set.dim(AVG)), (40_000, Some(256)));
    let all = values(&set, AVG);
    assert_eq!(all.iter().filter(|v| **v == 1.5).count(), 4000);
    assert!(all.iter().all(|v| *v == 0.0 || *v == 1.5));
    set_memory_limit(16 << 20);
    let error = refused(&case("20_sparse_compressed.npz"));
    set_memory_limit(1 << 30);
    contains(&error, &["39.1 MiB", "memory limit of 16.0 MiB", "np.savez"]);
}

#[test]
fn values_too_small_for_half_precision() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out.safetensors");
    let set = open("19_small_values.npz");
    let run = |set: &FeatureSet, dtype, observer: &mut dyn Observer| {
        let form = Some(Form::Safetensors);
        let config = ConvertConfig { dtype, form, force: true, ..ConvertConfig::default() };
        convert(set, None, &out, &config, observer)
    };
    let error = run(&set, None, &mut Silent).unwrap_err().to_string();
    contains(&error, &["400 of 400 values", "`avg`", "f16", "write it as `f32`"]);
    assert!(!out.exists());
    // bf16 has f32's range.
    for dtype in [FloatType::Bf16, FloatType::F32] {
        run(&set, Some(dtype), &mut Silent).unwrap();
    }
    assert_eq!(values(&FeatureSet::open(&out).unwrap(), AVG), values(&set, AVG));
    // A few: said with their number. All of a row: refused.
    let rows = |v: [f32; 4]| {
        let array = Array2::from_shape_vec((2, 2), v.to_vec()).unwrap();
        FeatureSet::from_arrays(array.view(), None).unwrap()
    };
    let mut told = Warnings::default();
    run(&rows([1.0, 2.0, 1e-9, 3.0]), None, &mut told).unwrap();
    contains(&told.0[0], &["1 values of `avg`", "became 0 as f16"]);
    let error = run(&rows([1.0, 2.0, 1e-9, 0.0]), None, &mut Silent).unwrap_err().to_string();
    contains(&error, &["all of row 1"]);
    let error = run(&rows([1.0, 1e-9, 1.0, 0.0]), None, &mut Silent).unwrap_err().to_string();
    contains(&error, &["1 of 3 values", "all of column 1"]);
    let error = run(&rows([1.0, 7e4, 1.0, 0.0]), None, &mut Silent).unwrap_err().to_string();
    contains(&error, &["beyond", "`bf16` or `f32`"]);
}

#[test]
fn logits_of_another_network_are_noticed() {
    let head = Head::open(case("29_head.safetensors")).unwrap();
    for name in ["29_logits_of_another_network.safetensors", "29_ood.safetensors"] {
        let set = open(name);
        let said = set.check_logits(Some(&head)).unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        contains(&said[0], &[name, "not those that the head gives", "differ by up to"]);
        // NumPy: the largest |avg @ weight.T + bias - logits|.
        let (avg, logits) = (values(&set, AVG), values(&set, Field::Logits));
        let mut computed = vec![0.0; logits.len()];
        head.logits(&avg, &mut computed, &mut Default::default());
        let largest = logits.iter().zip(&computed).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        contains(&said[0], &[&format!("{largest:.3}")]);
        assert!(set.check_logits(None).unwrap().is_empty());
    }
    // The head's own, rounded to half precision, are sound; so are shards of them.
    let set = open("29_ood.safetensors");
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("own.safetensors");
    let config = ConvertConfig { logits: true, ..ConvertConfig::default() };
    convert(&set, Some(&head), &out, &config, &mut Silent).unwrap();
    assert!(FeatureSet::open(&out).unwrap().check_logits(Some(&head)).unwrap().is_empty());
}

fn softmax(logits: &[f32], classes: usize) -> Vec<f32> {
    let mut out = logits.to_vec();
    for row in out.chunks_exact_mut(classes) {
        let top = row.iter().copied().fold(f32::MIN, f32::max);
        row.iter_mut().for_each(|l| *l = (*l - top).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|p| *p /= sum);
    }
    out
}

fn fit(set: &FeatureSet, head: Option<&Head>, spec: &str) -> heat_ood::Result<Vec<f32>> {
    let data = TrainingData::new(set).with_head(head);
    ScorerSpec::parse(spec)?.fit(&data, &mut Silent)?.score(set)
}

#[test]
fn probabilities_are_a_field_of_their_own() {
    let set = open("29_ood.safetensors");
    let logits = values(&set, Field::Logits);
    let matrix = |v: Vec<f32>| Array2::from_shape_vec((60, 3), v).unwrap();
    let probabilities = softmax(&logits, 3);
    // As logits they are noticed, and their logarithms too.
    let odd = |v: Vec<f32>| {
        let set = FeatureSet::in_memory("x").logits(matrix(v)).build().unwrap();
        set.check_logits(None).unwrap().join(" ")
    };
    contains(&odd(probabilities.clone()), &["are probabilities", "`probs`"]);
    contains(
        &odd(probabilities.iter().map(|p| p.ln()).collect()),
        &["logarithms of probabilities"],
    );
    assert_eq!(odd(logits.clone()), "");
    let plain = FeatureSet::in_memory("x").logits(matrix(logits)).build().unwrap();
    let probs = FeatureSet::in_memory("x").probabilities(matrix(probabilities)).build().unwrap();
    for spec in ["msp", "entropy", "gen", "klm", "odin", "temperature(temperature=2)"] {
        let (want, got) = (fit(&plain, None, spec).unwrap(), fit(&probs, None, spec).unwrap());
        for (want, got) in want.iter().zip(&got) {
            assert!((want - got).abs() < 1e-5 * want.abs().max(1.0), "{spec}: {want} {got}");
        }
    }
    for spec in ["el", "max_logit"] {
        contains(&fit(&probs, None, spec).unwrap_err().to_string(), &[spec, "`probs`", "msp"]);
    }
    // A detector fitted on logits scores probabilities, and the other way round.
    let msp = ScorerSpec::parse("msp").unwrap();
    let msp = Detector::new(msp.fit(&TrainingData::new(&plain), &mut Silent).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("msp.safetensors");
    msp.save(&path).unwrap();
    let (a, b) =
        (msp.score(&probs).unwrap(), Detector::open(&path).unwrap().score(&probs).unwrap());
    assert_eq!(a, b);
    let wrong = Array2::from_elem((2, 3), 0.5f32);
    let wrong = FeatureSet::in_memory("x").probabilities(wrong).build().unwrap();
    contains(&fit(&wrong, None, "msp").unwrap_err().to_string(), &["row 0", "sums to 1.5"]);
}

#[test]
fn one_logit_is_not_enough_for_scorers_that_compare() {
    let rows = Array2::from_shape_fn((30, 4), |(i, j)| ((i * 7 + j * 5) % 11) as f32 / 11.0);
    let head = Head::new(vec![0.5, -1.0, 0.25, 2.0], vec![0.1]).unwrap();
    let logits = Array2::from_shape_fn((30, 1), |(i, _)| i as f32 / 10.0);
    let set = FeatureSet::in_memory("x").avg(rows.clone()).logits(logits).build().unwrap();
    let bare = FeatureSet::in_memory("x").avg(rows.clone()).build().unwrap();
    for spec in ["msp", "odin", "klm", "gen", "entropy", "temperature(temperature=2)"] {
        contains(&fit(&set, None, spec).unwrap_err().to_string(), &["one logit", "`el`"]);
    }
    for spec in ["msp", "gradnorm", "fdbd", "pnml"] {
        contains(&fit(&bare, Some(&head), spec).unwrap_err().to_string(), &["one logit"]);
    }
    let labels = FeatureSet::in_memory("x").avg(rows).labels([0; 30]).build().unwrap();
    for spec in ["dknn(k=3)", "jtla(k=3)"] {
        contains(&fit(&labels, Some(&head), spec).unwrap_err().to_string(), &["one logit"]);
    }
    for spec in ["el", "max_logit"] {
        assert!(fit(&set, None, spec).unwrap().windows(2).any(|w| w[0] != w[1]), "{spec}");
    }
}

/// Labels of every type, as NumPy writes them, and what they mean.
#[test]
fn labels_of_every_type() {
    let wide = |texts: &[&str], width: usize| -> Vec<u8> {
        let points = |t: &&str| {
            let all = t.chars().map(u32::from).chain(std::iter::repeat(0));
            all.take(width).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
        };
        texts.iter().flat_map(points).collect()
    };
    // (type, shape, bytes, classes by row, names)
    type Case<'a> = (&'a str, &'a str, Vec<u8>, [u32; 4], Vec<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        ("<i8", "(4,)", i64s(&[0, 2, 1, 2]), [0, 2, 1, 2], vec![]),
        ("<i8", "(4, 1)", i64s(&[1, 3, 2, 3]), [0, 2, 1, 2], vec!["1", "2", "3"]),
        ("<i8", "(1, 4)", i64s(&[10, 30, 999_999, 30]), [0, 1, 2, 1], vec!["10", "30", "999999"]),
        ("|u1", "(4,)", vec![5, 7, 5, 7], [0, 1, 0, 1], vec!["5", "7"]),
        ("<u8", "(4,)", i64s(&[0, 1, 2, 1]), [0, 1, 2, 1], vec![]),
        ("|b1", "(4,)", vec![1, 0, 1, 0], [1, 0, 1, 0], vec![]),
        ("<f4", "(4,)", f32s(&[0.0, 2.0, 1.0, 2.0]), [0, 2, 1, 2], vec![]),
        (
            "<f4",
            "(4, 3)",
            f32s(&[1., 0., 0., 0., 0., 1., 0., 1., 0., 0., 0., 1.]),
            [0, 2, 1, 2],
            vec![],
        ),
        (
            "<U3",
            "(4,)",
            wide(&["bee", "ant", "dog", "ant"], 3),
            [1, 0, 2, 0],
            vec!["ant", "bee", "dog"],
        ),
        ("|S3", "(4,)", b"bee\0\0\0beeox\0".to_vec(), [1, 0, 1, 2], vec!["", "bee", "ox"]),
        // Numbers written as texts keep their order.
        ("<U2", "(4,)", wide(&["10", "9", "10", "2"], 2), [2, 1, 2, 0], vec!["2", "9", "10"]),
    ];
    for (kind, shape, bytes, want, names) in cases {
        let set = labelled(kind, shape, &bytes, 4);
        assert_eq!(all_labels(&set), want, "{kind} {shape}");
        assert_eq!(set.class_names(), names, "{kind} {shape}");
        // Texts in their order are numbered from 0 as they are read.
        let said = !names.is_empty() && !kind.contains(['U', 'S']) || kind == "<U2";
        assert_eq!(!set.label_notices().is_empty(), said, "{kind} {shape}");
    }
    let half = labelled_error("<f4", &f32s(&[0.0, 0.5, 1.0, 2.0]));
    contains(&half, &["row 1 has label 0.5", "whole numbers"]);
}

fn labelled_error(kind: &str, bytes: &[u8]) -> String {
    let avg = npy("<f4", false, "(4, 2)", &f32s(&[0.0; 8]));
    let file = zip(&[("avg.npy", avg), ("label.npy", npy(kind, false, "(4,)", bytes))]);
    refused(&written("x.npz", file).1)
}

/// Names travel: through every form, and into detectors.
#[test]
fn class_names_travel() {
    let points: Vec<u8> = ["cat", "ant", "cat", "dog", "ant", "dog"]
        .iter()
        .flat_map(|t| t.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect::<Vec<_>>())
        .collect();
    let set = labelled("<U3", "(6,)", &points, 6);
    let directory = tempfile::tempdir().unwrap();
    let forms = [
        ("a.safetensors", Form::Safetensors),
        ("a.npz", Form::Npz),
        ("a.csv", Form::Csv),
        ("a.tsv", Form::Csv),
        ("shards", Form::Shards),
        ("npy", Form::NpyDirectory),
    ];
    for (name, form) in forms {
        let out = directory.path().join(name);
        let config = ConvertConfig {
            form: Some(form),
            shard_rows: (form == Form::Shards).then_some(2),
            ..ConvertConfig::default()
        };
        convert(&set, None, &out, &config, &mut Silent).unwrap();
        let back = FeatureSet::open(&out).unwrap();
        assert_eq!(back.class_names(), ["ant", "cat", "dog"], "{name}");
        assert_eq!(all_labels(&back), [1, 0, 1, 2, 0, 2], "{name}");
        assert_eq!(values(&back, AVG), values(&set, AVG), "{name}");
    }
    let spec = ScorerSpec::parse("gmm").unwrap();
    let stored = FeatureSet::open(directory.path().join("a.npz")).unwrap();
    let detector = Detector::new(spec.fit(&TrainingData::new(&stored), &mut Silent).unwrap());
    let path = directory.path().join("gmm");
    detector.save(&path).unwrap();
    assert_eq!(Detector::open(&path).unwrap().provenance().classes, ["ant", "cat", "dog"]);
    // A test set that lacks a class is numbered as the training set.
    let test = labelled("<U3", "(2,)", &points[36..60], 2);
    assert_eq!(all_labels(&test), [1, 0]);
    assert_eq!(all_labels(&test.numbered_as(&set)), [2, 0]);
}

/// Rows of a head's classes: labels that index it are not numbered anew, and classes without
/// rows take no part.
#[test]
fn labels_beside_a_head() {
    let rows = Array2::from_shape_fn((12, 3), |(i, j)| ((i * 31 + j * 17 + i * j) % 23) as f32);
    let labels: Vec<u32> = (0..12).map(|i| [1, 3, 4][i % 3]).collect();
    let set = FeatureSet::from_arrays(rows.view(), Some(&labels)).unwrap();
    assert_eq!(set.labels(0..3, 3).unwrap(), [0, 1, 2]);
    let head = Head::new((0..18).map(|i| (i % 5) as f32 - 2.0).collect(), vec![0.0; 6]).unwrap();
    let data = TrainingData::new(&set).with_head(&head);
    assert_eq!(data.features.labels(0..3, 6).unwrap(), [1, 3, 4]);
    for spec in ["gmm", "mean", "ssd", "rmds"] {
        let spec = ScorerSpec::parse(spec).unwrap();
        let mut told = Told::default();
        let with = spec.fit(&data, &mut told).unwrap().score(&set).unwrap();
        contains(&told.0.join(" "), &["3 of 6 classes have no row", "(0, 2, 5)"]);
        let without = spec.fit(&TrainingData::new(&set), &mut Silent).unwrap();
        assert_eq!(with, without.score(&set).unwrap(), "{}", spec.name);
    }
    let four = Head::new(vec![1.0; 12], vec![0.0; 4]).unwrap();
    let error = set.check_classes(four.classes()).unwrap_err().to_string();
    contains(&error, &["labels in 0..4", "1, 3, 4"]);
    // From 1, all there: rows of the head in their order.
    let from_one: Vec<u32> = (0..12).map(|i| i % 3 + 1).collect();
    let set = FeatureSet::from_arrays(rows.view(), Some(&from_one)).unwrap();
    let three = set.indexing(3);
    assert!(set.check_classes(3).is_ok());
    assert_eq!(three.labels(0..3, 3).unwrap(), [0, 1, 2]);
}

fn table(name: &str, text: impl AsRef<[u8]>) -> heat_ood::Result<FeatureSet> {
    FeatureSet::open(&written(name, text).1)
}

/// One table in many spellings: two rows [0.5, -2] and [1e-3, 4], labels 3 and 7.
#[test]
fn tables_of_text() {
    let gz = {
        use std::io::Write;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(b"a,b,label\n0.5,-2,3\n1e-3,4,7\n").unwrap();
        gz.finish().unwrap()
    };
    let spellings: Vec<(&str, Vec<u8>)> = vec![
        ("x.csv", b"a,b,label\n0.5,-2,3\n1e-3,4,7\n".to_vec()),
        ("x.csv", b"\xef\xbb\xbfa,Label,b\r\n0.5,3,-2\r\n1e-3,7,4".to_vec()),
        ("x.csv", b"\"a,1\";\"b\";\"target\"\n\"0,5\";-2;3\n0,001;4;7\n".to_vec()),
        ("x.tsv", b"class\ta\tb\n3\t0.5\t-2\n7\t0.001\t4\n".to_vec()),
        ("x.csv", b",0,1,label\n0,0.5,-2,3\n1,1e-3,4,7\n".to_vec()),
        ("x.csv", b"avg_1,avg_0,label\n-2, 0.5 ,3\n4,1e-3,7.0\n".to_vec()),
        ("x.csv", b"file,a,b,label\nx.png,0.5,-2,3\ny.png,1e-3,4,7\n\n".to_vec()),
        ("x.csv.gz", gz),
    ];
    for (name, text) in spellings {
        let set = table(name, &text).unwrap();
        let shown = String::from_utf8_lossy(&text);
        assert_eq!((set.len(), set.dim(AVG)), (2, Some(2)), "{shown}");
        assert_eq!(values(&set, AVG), [0.5, -2.0, 1e-3, 4.0], "{shown}");
        assert_eq!(set.class_names(), ["3", "7"], "{shown}");
    }
    // One column of text names the rows, others are left out.
    let left = table("x.csv", "note,file,a,label\nq,x.png,0.5,cat\nr,y.png,1,ant\n").unwrap();
    contains(&left.notices()[0], &["left out 1 column(s)", "`note`"]);
    assert_eq!(left.names().unwrap().get(1), "y.png");
    assert_eq!(
        (left.class_names(), all_labels(&left)),
        (vec!["ant".into(), "cat".into()], vec![1, 0])
    );
    // Without a header all columns are features, unless told.
    for text in ["0.5,-2\n1e-3,4\n", "0,1\n0.5,-2\n1e-3,4\n", "0.5 -2\n0.001 4\n"] {
        let set = table("x.csv", text).unwrap();
        assert_eq!(
            (values(&set, AVG), set.labelled()),
            (vec![0.5, -2.0, 1e-3, 4.0], false),
            "{text}"
        );
    }
    let told = |text: &str, column: &str| {
        let options = OpenOptions { label_column: Some(column.into()), ..OpenOptions::default() };
        FeatureSet::open_with(&written("x.csv", text).1, &options)
    };
    let set = told("3,0.5,-2\n7,1e-3,4\n", "1").unwrap();
    assert_eq!(
        (values(&set, AVG), set.class_names()),
        (vec![0.5, -2.0, 1e-3, 4.0], vec!["3".to_owned(), "7".into()])
    );
    let set = told("a,b,Kind\n0.5,-2,cat\n1,4,ant\n", "kind").unwrap();
    assert_eq!(all_labels(&set), [1, 0]);
    let error = told("a,b\n1,2\n", "kind").err().unwrap().to_string();
    contains(&error, &["`label_column` = kind", "a, b", "number from 1"]);
    let fields =
        table("x.csv", "avg_0,avg_1,logits_0,probs_0,label\n1,2,3,1,-1\n4,5,6,1,-1\n").unwrap();
    assert_eq!(values(&fields, Field::Logits), [3.0, 6.0]);
    assert!(!fields.labelled());
}

#[test]
fn tables_that_must_be_refused_name_line_and_column() {
    let refused = |text: &str, parts: &[&str]| {
        let error = match table("x.csv", text) {
            Ok(_) => panic!("read: {text}"),
            Err(error) => error.to_string(),
        };
        contains(&error, &["x.csv"]);
        contains(&error, parts);
    };
    refused("a,b\n1,2\n3,x\n", &["line 3", "column `b`", "`x`"]);
    refused("a,b\n1,2\n3,\n", &["line 3", "column `b`", "empty"]);
    refused("1,2\n3,NaN\n", &["line 2", "column `2`", "`NaN`"]);
    refused("a,b\n1,2\n3,inf\n", &["line 3", "`inf`"]);
    refused("a,b\n1,2\n3,1e300\n", &["line 3", "`1e300`"]);
    refused("a,b\n\n1,2\n3,4,5\n", &["line 4 has 3 columns", "2"]);
    refused("a,b\n", &["no rows"]);
    refused("avg_0,avg_0\n1,2\n", &["`avg`"]);
    refused("\u{feff}", &["no lines"]);
    contains(&table("x.csv", b"\xff\xfea\0").err().unwrap().to_string(), &["UTF-8"]);
    let label = b"a,label\n1,\xff\n2,b\n";
    contains(&table("x.csv", label).err().unwrap().to_string(), &["line 2", "`label`", "UTF-8"]);
}

#[test]
fn files_of_other_kinds_are_answered_with_what_to_do() {
    for name in ["x.parquet", "x.feather", "x.h5", "x.pkl", "x.joblib", "x.mat"] {
        contains(&refused(&written(name, "x").1), &["numpy.savez", "avg=", "Python"]);
    }
}

#[test]
fn labels_of_a_table_of_their_own() {
    let avg = npy("<f4", false, "(3, 1)", &f32s(&[0.0, 1.0, 2.0]));
    let avg = written("x.npy", avg);
    for text in ["label\n4\n9\n4\n", "4\n9\n4\n", "id,label\n1,4\n2,9\n3,4\n"] {
        let labels = written("y.csv", text);
        let set = FeatureSet::open(&avg.1).unwrap().with_labels(&labels.1).unwrap();
        assert_eq!(
            (all_labels(&set), set.class_names()),
            (vec![0, 1, 0], vec!["4".into(), "9".into()])
        );
    }
}

/// OOD rows that tie with the threshold are accepted: 59 % for scores that keep the order of the
/// logits; a score of f32 probabilities, which ties, would give 60 %.
#[test]
fn case_01_ties_at_the_threshold() {
    let head = Head::open(golden("01_fpr95_ties_head")).unwrap();
    let train = set_named("01_fpr95_ties_train");
    let data = TrainingData::new(&train).with_head(&head);
    let [id, ood] = ["01_fpr95_ties_id", "01_fpr95_ties_ood"].map(set_named);
    for name in ["msp", "max_logit", "el"] {
        let scorer = fitted(name, &data);
        let [id, ood] = [&id, &ood].map(|set| scorer.score(set).unwrap());
        let found = metrics::evaluate(&id, &ood).unwrap().fpr95_id_positive;
        assert!((found - 0.59).abs() < 1e-12, "{name}: {found}");
        if name == "msp" {
            let rounded = |scores: &[f32]| scores.iter().map(|s| s - 1.0).collect::<Vec<_>>();
            let found = metrics::evaluate(&rounded(&id), &rounded(&ood)).unwrap();
            assert!((found.fpr95_id_positive - 0.60).abs() < 1e-12, "in f32 probabilities");
        }
    }
}

/// Squared Mahalanobis distances to the nearest class mean do not depend on the unit.
#[test]
fn case_22_units() {
    let expected = TensorFile::open(&golden("22_expected")).unwrap();
    for name in ["22_units_1", "22_units_1e-5"] {
        let set = set_named(name);
        let got = fitted("maha", &TrainingData::new(&set)).score(&set).unwrap();
        let want = expected.f32(&format!("{name}.mahalanobis"), &[set.len()]).unwrap();
        for (row, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!((got / want - 1.0).abs() < 1e-4, "{name}, row {row}: {got} {want}");
        }
    }
}

/// A head whose numbers were written in column order gets 2 % of 180 rows right, chance is 17 %;
/// the head that was meant, 96 %.
#[test]
fn case_32_scrambled_head() {
    let train = set_named("32_train");
    let scrambled = Head::open(golden("32_scrambled_head")).unwrap();
    let found = Agreement::of(&train, Some(&scrambled)).unwrap().unwrap();
    assert_eq!((found.rows, (100.0 * found.right as f64 / 180.0).round()), (180, 2.0));
    assert!((found.chance - 0.17).abs() < 0.02 && found.near_chance(), "{found:?}");
    // The numbers in the file are those of W in column order.
    let (classes, dim) = (scrambled.classes(), scrambled.dim());
    let meant = (0..classes * dim).map(|i| scrambled.weight()[i % dim * classes + i / dim]);
    let meant = Head::new(meant.collect(), scrambled.bias().to_vec()).unwrap();
    let found = Agreement::of(&train, Some(&meant)).unwrap().unwrap();
    assert_eq!((100.0 * found.right as f64 / 180.0).round(), 96.0);
    assert!(!found.near_chance());
}

/// What was seen is noticed whatever it is called: training rows among ID and OOD rows, ID rows
/// among OOD rows; and a score with few values is said.
#[test]
fn evaluation_says_what_was_seen() {
    let train = set_named("32_train");
    let candidates = ["knn(k=3)", "gmm(normalize=false)"].map(|text| Candidate {
        name: text.to_owned(),
        scorer: fitted(text, &TrainingData::new(&train)),
        fit_seconds: None,
    });
    let other = set_named("29_ood");
    let warnings = |id: &FeatureSet, ood: &FeatureSet| {
        evaluate(id, &[("x".to_owned(), ood.clone())], &candidates, &mut Silent).unwrap().warnings
    };
    let seen = warnings(&train, &other);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(
        seen[0].contains("the ID set")
            && seen[0].contains("180 of 180 rows")
            && seen[0].contains("(of knn(k=3), gmm(normalize=false))"),
        "{seen:?}"
    );
    let seen = warnings(&other, &train);
    assert!(seen.len() == 1 && seen[0].starts_with("the OOD set `x`: 180 of 180"), "{seen:?}");
    let seen = warnings(&other, &other);
    assert!(seen.len() == 1 && seen[0].contains("60 of 60 rows"), "{seen:?}");
    assert!(seen[0].contains("rows of the ID set"), "{seen:?}");
    let rows = ndarray::Array2::from_shape_fn((50, 8), |(i, j)| (i * 8 + j) as f32);
    let fresh = FeatureSet::from_arrays(rows.view(), None).unwrap();
    assert_eq!(warnings(&other, &fresh), [""; 0]);
}
