//! Feature sets, heads and fits that must be refused, one test per refusal,
//! and the formats that must all read alike.

use crate::common;

use std::fs;
use std::path::{Path, PathBuf};

use common::bytes::{contains, f32s, i64s, npy, unsealed};
use half::{bf16, f16};
use heat_ood::features::{FeatureSet, Field, Head, Pooling};
use heat_ood::scorers::{GmmConfig, Prior, Scorer, ScorerSpec};
use heat_ood::{Detector, Fit, Silent, TrainingData, Warnings};
use ndarray::Array2;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const AVG: Field = Field::Features(Pooling::Avg);

type Entry<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

fn safetensors(entries: &[Entry]) -> Vec<u8> {
    let view = |(name, dtype, shape, bytes): &'_ Entry| {
        (name.to_string(), *dtype, shape.clone(), bytes.clone())
    };
    let owned: Vec<_> = entries.iter().map(view).collect();
    let views = owned.iter().map(|(n, d, s, b)| (n, TensorView::new(*d, s.clone(), b).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn open(entries: &[Entry]) -> Result<FeatureSet, heat_ood::Error> {
    FeatureSet::from_safetensors("mine.safetensors", safetensors(entries))
}

fn refusal(entries: &[Entry]) -> String {
    open(entries).err().expect("refused").to_string()
}

fn avg(rows: usize, dim: usize) -> Entry<'static> {
    let values: Vec<f32> = (0..rows * dim).map(|i| (i * i % 17) as f32).collect();
    ("avg", Dtype::F32, vec![rows, dim], f32s(&values))
}

fn labels(values: &[i64]) -> Entry<'static> {
    ("label", Dtype::I64, vec![values.len()], i64s(values))
}

#[test]
fn nan_and_infinity_name_file_tensor_row_and_column() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![1.0; 12];
        values[7] = bad;
        let set = open(&[("avg", Dtype::F32, vec![4, 3], f32s(&values))]).unwrap();
        let error = set.read(AVG, 0..4, &mut [0.0; 12]).unwrap_err().to_string();
        contains(&error, &["mine.safetensors", "`avg`", "row 2", "column 1"]);
        assert!(set.read(AVG, 0..2, &mut [0.0; 6]).is_ok());
    }
}

#[test]
fn labels_out_of_range() {
    let set = open(&[avg(3, 2), labels(&[0, 5, 1])]).unwrap();
    // Three classes, unless a head has six.
    assert_eq!(set.labels(0..3, 3).unwrap(), [0, 2, 1]);
    let error = set.indexing(6).labels(0..3, 3).unwrap_err().to_string();
    contains(&error, &["row 1", "label 5", "0..3"]);
    let set = open(&[avg(2, 2), labels(&[-1, 0])]).unwrap();
    contains(&set.labels(0..2, 3).unwrap_err().to_string(), &["label -1"]);
    let set = open(&[avg(2, 2), labels(&[i64::MAX, 0])]).unwrap();
    assert!(set.classes().is_err());
}

#[test]
fn wrong_shapes_and_types() {
    contains(
        &refusal(&[("avg", Dtype::F32, vec![6], f32s(&[0.0; 6]))]),
        &["`avg`", "[6]", "[N, D]"],
    );
    contains(&refusal(&[("avg", Dtype::I64, vec![1, 2], i64s(&[1, 2]))]), &["I64", "f16"]);
    let std = ("std", Dtype::F32, vec![3, 2], f32s(&[0.0; 6]));
    contains(&refusal(&[avg(2, 2), std]), &["as many rows"]);
    let std = ("std", Dtype::F32, vec![2, 3], f32s(&[0.0; 6]));
    contains(&refusal(&[avg(2, 2), std]), &["the dimension of avg"]);
    contains(&refusal(&[avg(2, 2), labels(&[0])]), &["`label`", "[2]", "[1]"]);
    let float = ("label", Dtype::F32, vec![2], f32s(&[0.0, 1.5]));
    contains(&refusal(&[avg(2, 2), float]), &["row 1", "1.5", "whole numbers"]);
    contains(&refusal(&[labels(&[0])]), &["`avg`"]);
}

#[test]
fn no_rows() {
    contains(&refusal(&[("avg", Dtype::F32, vec![0, 4], vec![])]), &["no rows"]);
}

#[test]
fn files_that_are_not_whole_or_not_features() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let error = |p: &Path| FeatureSet::open(p).err().expect("refused").to_string();
    let whole = safetensors(&[avg(5, 3), labels(&[0; 5])]);
    fs::write(path("cut.safetensors"), &whole[..whole.len() - 9]).unwrap();
    contains(&error(&path("cut.safetensors")), &["cut.safetensors", "truncated"]);
    fs::write(path("empty.safetensors"), b"").unwrap();
    contains(&error(&path("empty.safetensors")), &["empty"]);
    fs::write(path("cut.npy"), npy("<f4", false, "(4, 3)", &f32s(&[0.0; 11]))).unwrap();
    contains(&error(&path("cut.npy")), &["truncated", "[4, 3]"]);
    fs::write(path("huge.npy"), npy("<f8", false, "(18446744073709551615, 3)", &[])).unwrap();
    contains(&error(&path("huge.npy")), &["damaged"]);
    fs::write(path("f.npy"), npy("<f4", true, "(2, 3)", &f32s(&[0.0; 5]))).unwrap();
    contains(&error(&path("f.npy")), &["truncated", "[2, 3]"]);
    fs::write(path("t.npy"), npy("<f4", true, "(1, 2, 3)", &f32s(&[0.0; 6]))).unwrap();
    contains(&error(&path("t.npy")), &["[1, 2, 3]", "expected a matrix"]);
    fs::write(path("o.npy"), npy("|O", false, "(2,)", &[0; 40])).unwrap();
    contains(&error(&path("o.npy")), &["expected a float or integer array"]);
    fs::write(path("bad.npz"), b"PK\x03\x04 and nothing more").unwrap();
    contains(&error(&path("bad.npz")), &["zip"]);
    fs::write(path("x.txt"), b"1 2 3").unwrap();
    contains(&error(&path("x.txt")), &["expected a feature set"]);
    contains(&error(&path("absent.npy")), &["absent.npy does not exist"]);
    fs::create_dir(path("nothing")).unwrap();
    contains(&error(&path("nothing")), &["no .safetensors shards"]);
}

#[test]
fn shards_that_disagree() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, entries: &[Entry]| {
        fs::write(directory.path().join(name), safetensors(entries)).unwrap();
    };
    let error = || FeatureSet::open(directory.path()).err().expect("refused").to_string();
    write("0.safetensors", &[avg(3, 2), labels(&[0, 1, 2])]);
    write("1.safetensors", &[avg(3, 4), labels(&[0, 1, 2])]);
    contains(&error(), &["1.safetensors", "[N, 2]", "[N, 4]"]);
    write("1.safetensors", &[avg(3, 2)]);
    contains(&error(), &["`label` must be in every shard"]);
    write("1.safetensors", &[avg(3, 2), labels(&[0, 1, 9])]);
    let set = FeatureSet::open(directory.path()).unwrap();
    // The row is counted within the file that is named.
    let message = set.indexing(10).labels(0..6, 5).unwrap_err().to_string();
    contains(&message, &["1.safetensors", "row 2", "label 9"]);
}

#[test]
fn heads_that_do_not_fit() {
    let head = Head::new(vec![0.0; 12], vec![0.0; 3]).unwrap();
    let set = open(&[avg(5, 7)]).unwrap();
    let error = set.check_head(&head).unwrap_err().to_string();
    contains(&error, &["D = 4", "[5, 7]"]);
    assert!(Head::new(vec![0.0; 11], vec![0.0; 3]).is_err());
    assert!(Head::new(vec![], vec![]).is_err());
    let nan = Head::new(vec![0.0, f32::NAN], vec![0.0]).err().unwrap().to_string();
    contains(&nan, &["weight", "column 1"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("head.safetensors");
    fs::write(&path, safetensors(&[avg(5, 7)])).unwrap();
    let error = Head::open(&path).err().unwrap().to_string();
    contains(&error, &["`weight`", "holds features, not a head"]);
}

#[test]
fn fits_that_cannot_be() {
    let fit = |entries: &[Entry], spec: &str| {
        let set = open(entries).unwrap();
        let spec = ScorerSpec::parse(spec)?;
        spec.fit(&TrainingData::new(&set), &mut Silent).map(|_| ())
    };
    let error = |entries: &[Entry], spec: &str| fit(entries, spec).unwrap_err().to_string();
    contains(&error(&[avg(4, 2)], "gmm"), &["`label`", "class indices"]);
    contains(
        &error(&[avg(4, 2), labels(&[0, 0, 0, 2])], "gmm"),
        &["class 1 has 1 row(s)", "at least 2"],
    );
    contains(&error(&[avg(4, 2), labels(&[0, 0, 0, 1])], "ssd"), &["class 1 has 1 row(s)"]);
    contains(&error(&[avg(4, 2)], "knn(k=5)"), &["`k` = 5", "4 rows", "1..=4"]);
    contains(&error(&[avg(4, 2)], "knn(k=0)"), &["1..=4"]);
    contains(&error(&[avg(4, 2)], "el"), &["last layer"]);
    contains(&error(&[avg(4, 2)], "knn(kk=3)"), &["unknown key `knn.kk`", "`knn.k`"]);
    contains(&error(&[avg(4, 2)], "knn(k=many)"), &["`knn.k`", "many"]);
    contains(&error(&[avg(4, 2)], "gmn"), &["unknown scorer `gmn`", "`gmm`"]);
    contains(&error(&[avg(4, 2)], "knn(k=3"), &["bracket"]);
    contains(&error(&[avg(4, 2), labels(&[0, 0, 1, 1])], "ssd(pca=3)"), &["between 1 and 2"]);
    contains(&error(&[avg(4, 2), labels(&[0, 0, 1, 1])], "ssd(react=7)"), &["between 0 and 1"]);
    contains(&error(&[avg(4, 2), labels(&[0, 0, 1, 1])], "ssd(whiten=true)"), &["pca"]);
    contains(&error(&[avg(4, 2)], "knn(k=2,pooling=std)"), &["`std`", "it has: avg"]);
}

/// A column that is a copy of another, one that never changes, fewer rows
/// than dimensions: the ridge is reported and the scores are finite.
#[test]
fn singular_covariances_get_a_reported_ridge() {
    let value = |i: usize, j: usize| ((i * 31 + j * 17) * 2_654_435 % 1009) as f32 / 100.0;
    let sets = [
        Array2::from_shape_fn((60, 4), |(i, j)| value(i, j.min(2))),
        Array2::from_shape_fn((60, 4), |(i, j)| if j == 3 { 2.0 } else { value(i, j) }),
        Array2::from_shape_fn((12, 40), |(i, j)| value(i, j)),
    ];
    for rows in sets {
        let labels: Vec<u32> = (0..rows.nrows() as u32).map(|i| i % 3).collect();
        let set = FeatureSet::from_arrays(rows.view(), Some(&labels)).unwrap();
        let mut warnings = Warnings::default();
        let config = GmmConfig { normalize: false, ..GmmConfig::default() };
        let gmm = config.fit(&TrainingData::new(&set), &mut warnings).unwrap();
        assert_eq!(warnings.0.len(), 1, "{warnings:?}");
        contains(&warnings.0[0], &["singular", "ridge"]);
        assert!(gmm.ridge() >= 1e-12);
        assert!(gmm.score(&set).unwrap().iter().all(|s| s.is_finite()));
        let mut grad = vec![0.0; rows.len()];
        gmm.add_gradient(rows.as_slice().unwrap(), 1.0, &mut grad, &mut Default::default());
        assert!(grad.iter().all(|g| g.is_finite()));
    }
}

#[test]
fn detectors_that_are_not_ours_newer_or_broken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.safetensors");
    let error = |p: &PathBuf| Detector::open(p).err().expect("refused").to_string();
    fs::write(&path, safetensors(&[avg(2, 2)])).unwrap();
    contains(&error(&path), &["not a detector"]);
    let set = open(&[avg(9, 2)]).unwrap();
    let knn =
        ScorerSpec::parse("knn(k=2)").unwrap().fit(&TrainingData::new(&set), &mut Silent).unwrap();
    Detector::new(knn).save(&path).unwrap();
    let whole = unsealed(fs::read(&path).unwrap());
    fs::write(&path, &whole).unwrap();
    Detector::open(&path).unwrap();
    let text = String::from_utf8_lossy(&whole).into_owned();
    let patch = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        let at = whole.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        fs::write(&path, bytes).unwrap();
        error(&path)
    };
    contains(&patch("\"version\":\"2\"", "\"version\":\"9\""), &["version 9", "update"]);
    contains(
        &patch("\\\"kind\\\":\\\"knn\\\"", "\\\"kind\\\":\\\"kmm\\\""),
        &["unknown scorer `kmm`"],
    );
    contains(&patch("\\\"input_dim\\\":2", "\\\"input_dim\\\":3"), &["contradict"]);
    // Those of the index, not of the record of training rows.
    let rows = |n: u8| format!("\\\"dim\\\":2,\\\"rows\\\":{n}");
    contains(&patch(&rows(9), &rows(8)), &["[9, 2]", "[8, 2]"]);
    for n in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..n]).unwrap();
        assert!(Detector::open(&path).is_err());
    }
}

/// A principal space as large as the whole, or larger.
#[test]
fn a_detector_without_residual_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.safetensors");
    let head = Head::new(vec![1.0, 0.0, 0.5, -1.0], vec![0.0]).unwrap();
    for name in ["vim(principal_dim=2)", "residual(principal_dim=2)"] {
        let spec = ScorerSpec::parse(name).unwrap();
        let scorer = spec
            .fit(&TrainingData::new(&open(&[avg(9, 4)]).unwrap()).with_head(&head), &mut Silent)
            .unwrap();
        Detector::new(scorer).save(&path).unwrap();
        let whole = unsealed(fs::read(&path).unwrap());
        let from = b"\\\"principal_dim\\\":2";
        for digit in [b'4', b'9'] {
            let mut bytes = whole.clone();
            for at in (0..whole.len() - from.len()).filter(|&i| whole[i..].starts_with(from)) {
                bytes[at + from.len() - 1] = digit;
            }
            assert_ne!(bytes, whole);
            fs::write(&path, bytes).unwrap();
            let error = Detector::open(&path).err().expect("refused").to_string();
            contains(&error, &["contradict"]);
        }
    }
}

/// Headers that the parser would take hours or gigabytes over.
#[test]
fn hostile_npy_headers_are_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.npy");
    let nested = npy(&"[".repeat(60), false, "(1, 1)", &[0; 4]);
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    for bytes in [nested, long, b"\x93NUMPY\x01\x00".to_vec(), b"hello".to_vec()] {
        fs::write(&path, bytes).unwrap();
        let error = FeatureSet::open(&path).err().unwrap().to_string();
        contains(&error, &["x.npy"]);
        assert!(error.contains("damaged") || error.contains("not an .npy array"), "{error}");
    }
}

/// Other arrays may lie in the same archive, of types we cannot read.
#[test]
fn foreign_arrays_in_an_npz_are_left_alone() {
    use std::io::Write;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.npz");
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for (name, bytes) in [
        ("paths.npy", npy("<U1", false, "(2,)", &[0; 8])),
        ("avg.npy", npy("<f4", false, "(2, 1)", &f32s(&[1.0, 2.0]))),
    ] {
        zip.start_file(name, options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap();
    assert_eq!(FeatureSet::open(&path).unwrap().len(), 2);
}

/// Squares of 1e20 overflow single precision: an error, not a panic or NaN.
#[test]
fn features_too_large_for_single_precision() {
    let rows = Array2::from_shape_fn((20, 3), |(i, j)| 1e20 * (i + j) as f32);
    let set = FeatureSet::from_arrays(rows.view(), None).unwrap();
    let spec = ScorerSpec::parse("knn(k=3,normalize=false)").unwrap();
    let knn = spec.fit(&TrainingData::new(&set), &mut Silent).unwrap();
    contains(&knn.score(&set).unwrap_err().to_string(), &["row ", "`knn`", "too large"]);
    // Components beyond it, and the energy of a training row, on which nothing can be said.
    let rows = ndarray::array![[3e38f32, 3e38], [-3e38, -3e38], [0.0, 0.0]];
    let set = FeatureSet::from_arrays(rows.view(), None).unwrap();
    let spec = ScorerSpec::parse("knn(k=1,pca=1,normalize=false)").unwrap();
    let scores = spec.fit(&TrainingData::new(&set), &mut Silent).and_then(|knn| knn.score(&set));
    contains(&scores.unwrap_err().to_string(), &["`knn`"]);
    let head = Head::new(vec![1e10, 1e10], vec![0.0]).unwrap();
    let one = FeatureSet::from_row(&[1e30, 1e30]).unwrap();
    let spec = ScorerSpec::parse("nnguide(k=1)").unwrap();
    let nnguide = spec.fit(&TrainingData::new(&one).with_head(&head), &mut Silent).unwrap();
    let scores = nnguide.score(&FeatureSet::from_row(&[1.0, 2.0]).unwrap());
    contains(&scores.unwrap_err().to_string(), &["`nnguide`"]);
}

/// A class with a logit of −∞ has no probability, and the others theirs: as if
/// it were not there.
#[test]
fn a_logit_beyond_single_precision_has_no_share() {
    let rows = ndarray::array![[1.0f32, 1e20], [2.0, 1e20], [0.5, 1e20]];
    let set = FeatureSet::from_arrays(rows.view(), None).unwrap();
    let spec = ScorerSpec::parse("klm").unwrap();
    let score = |weight: Vec<f32>, classes| {
        let head = Head::new(weight, vec![0.0; classes]).unwrap();
        spec.fit(&TrainingData::new(&set).with_head(&head), &mut Silent)
            .unwrap()
            .score(&set)
            .unwrap()
    };
    let two = score(vec![1.0, 0.0, -1.0, 0.0], 2);
    let three = score(vec![1.0, 0.0, -1.0, 0.0, 0.0, -1e20], 3);
    assert_eq!(two, three);
}

#[test]
fn constant_features_and_impossible_networks() {
    let rows = Array2::from_elem((6, 2), 1.0f32);
    let set = FeatureSet::from_arrays(rows.view(), Some(&[0, 0, 0, 1, 1, 1])).unwrap();
    let error =
        GmmConfig::default().fit(&TrainingData::new(&set), &mut Silent).err().unwrap().to_string();
    contains(&error, &["constant"]);
    // Memory is for the classes that have rows, however many there are said to be.
    let error = GmmConfig::default()
        .fit(&TrainingData::new(&set).with_classes(usize::MAX), &mut Silent)
        .err()
        .unwrap();
    contains(&error.to_string(), &["constant"]);
    let model = |hidden_dim, n_hidden_layers| {
        let model =
            heat_ood::ebm::ModelConfig { hidden_dim, n_hidden_layers, ..Default::default() };
        heat_ood::ebm::mlp::Mlp::new(model.architecture(4), 0).err().unwrap().to_string()
    };
    contains(&model(usize::MAX, 2), &["at most"]);
    contains(&model(8, 1 << 40), &["at most"]);
    contains(&model(0, 1), &["at least 1"]);
}

#[test]
fn every_format_reads_the_same_values() {
    // Exact in every type.
    let values: Vec<f32> = (0..12).map(|i| i as f32 / 4.0 - 1.0).collect();
    let read = |set: &FeatureSet| {
        let mut out = vec![0.0; 12];
        set.read(AVG, 0..4, &mut out).unwrap();
        out
    };
    let as_f64: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
    let as_f16: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    let as_bf16: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
    for (dtype, bytes) in [
        (Dtype::F32, f32s(&values)),
        (Dtype::F64, as_f64.clone()),
        (Dtype::F16, as_f16.clone()),
        (Dtype::BF16, as_bf16),
    ] {
        assert_eq!(read(&open(&[("avg", dtype, vec![4, 3], bytes)]).unwrap()), values);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (descr, bytes) in [("<f4", f32s(&values)), ("<f8", as_f64), ("<f2", as_f16)] {
        fs::write(path("avg.npy"), npy(descr, false, "(4, 3)", &bytes)).unwrap();
        assert_eq!(read(&FeatureSet::open(path("avg.npy")).unwrap()), values);
    }
    // Labels beside an .npy, of any integer type; a directory of named arrays.
    fs::write(path("label.npy"), npy("|u1", false, "(4,)", &[0, 1, 1, 2])).unwrap();
    let set = FeatureSet::open(path("avg.npy")).unwrap().with_labels(path("label.npy")).unwrap();
    assert_eq!(set.labels(0..4, 3).unwrap(), [0, 1, 1, 2]);
    let set = FeatureSet::open(directory.path()).unwrap();
    assert_eq!((read(&set), set.classes().unwrap()), (values.clone(), 3));
    // Both kinds of .npz: stored and compressed.
    for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
        use std::io::Write;
        let mut zip = zip::ZipWriter::new(fs::File::create(path("x.npz")).unwrap());
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        for (name, bytes) in [
            ("avg.npy", npy("<f4", false, "(4, 3)", &f32s(&values))),
            ("label.npy", npy("<i8", false, "(4,)", &i64s(&[0, 1, 1, 2]))),
        ] {
            zip.start_file(name, options).unwrap();
            zip.write_all(&bytes).unwrap();
        }
        zip.finish().unwrap();
        let set = FeatureSet::open(path("x.npz")).unwrap();
        assert_eq!((read(&set), set.labels(0..4, 3).unwrap()), (values.clone(), vec![0, 1, 1, 2]));
    }
    // Shards, split across a read.
    let shards = directory.path().join("shards");
    fs::create_dir(&shards).unwrap();
    for (i, rows) in values.chunks(6).enumerate() {
        let bytes = safetensors(&[("avg", Dtype::F32, vec![2, 3], f32s(rows))]);
        fs::write(shards.join(format!("part-{i}.safetensors")), bytes).unwrap();
    }
    let set = FeatureSet::open(&shards).unwrap();
    assert_eq!(read(&set), values);
    let mut middle = vec![0.0; 6];
    set.read(AVG, 1..3, &mut middle).unwrap();
    assert_eq!(middle, values[3..9]);
    let mut two = vec![0.0; 6];
    set.gather(AVG, &[3, 0], &mut two).unwrap();
    assert_eq!(two, [&values[9..], &values[..3]].concat());
}
