//! Conversion between all forms of feature sets.

use crate::common;

use std::fs;
use std::path::{Path, PathBuf};

use common::bytes::{contains, f64s, i64s, npy};
use common::sets::*;
use half::{bf16, f16};
use heat_ood::Silent;
use heat_ood::features::{
    ConvertConfig, FeatureSet, Field, FloatType, Form, Head, OpenOptions, convert,
};
use ndarray::Array2;
use tempfile::TempDir;

const ROWS: usize = 700;
const DIM: usize = 5;

fn value(i: usize) -> f64 {
    ((i * 2_654_435_761 % 1_000_003) as f64 - 5e5) / 7.0
}

/// A labelled set of two fields in f64.
fn sample() -> (TempDir, FeatureSet) {
    let avg: Vec<f64> = (0..ROWS * DIM).map(|i| value(i) / 2.0).collect();
    let std: Vec<f64> = (0..ROWS * DIM).map(|i| value(i + 9).abs() / 3.0).collect();
    let labels: Vec<f64> = (0..ROWS).map(|i| (i % 7) as f64).collect();
    let directory = memmaps(&[("feat", f64s(&avg)), ("std", f64s(&std)), ("label", f64s(&labels))]);
    let set = FeatureSet::open(directory.path()).unwrap();
    (directory, set)
}

const FORMS: [(Form, &str); 6] = [
    (Form::Shards, "shards"),
    (Form::Safetensors, "x.safetensors"),
    (Form::Npy, "x.npy"),
    (Form::NpyDirectory, "arrays"),
    (Form::Npz, "x.npz"),
    (Form::Memmap, "memmaps"),
];

/// From every form into every form, and back: the same values and labels.
#[test]
fn every_form_into_every_form() {
    let (_source, set) = sample();
    let directory = tempfile::tempdir().unwrap();
    let want = all(&set, AVG);
    for (from, name) in FORMS {
        // f32 keeps what `read` gives; f64 all of it.
        let dtype = if from == Form::Memmap { FloatType::F64 } else { FloatType::F32 };
        let shard_rows = Some(256);
        let config = |form| ConvertConfig {
            form: Some(form),
            dtype: Some(dtype),
            shard_rows,
            ..ConvertConfig::default()
        };
        let first = directory.path().join(name);
        let done = run(&set, &first, &config(from)).unwrap();
        assert_eq!((done.form, done.rows), (from, ROWS));
        let middle = FeatureSet::open(&first).unwrap();
        for (to, name) in FORMS {
            let second = directory.path().join(format!("from-{name}"));
            let out = ConvertConfig { dtype: None, force: true, ..config(to) };
            let wide = matches!(to, Form::Shards | Form::Safetensors);
            let out = ConvertConfig { dtype: wide.then_some(FloatType::F64), ..out };
            run(&middle, &second, &out).unwrap();
            let single = from == Form::Npy || to == Form::Npy;
            let options = if single { dim(DIM) } else { OpenOptions::default() };
            let last = FeatureSet::open_with(&second, &options).unwrap();
            assert_eq!(all(&last, AVG), want, "{from:?} {to:?}");
            assert_eq!(last.labelled(), !single);
            if !single {
                assert_eq!(all(&last, STD), all(&set, STD), "{from:?} {to:?}");
                assert_eq!(last.labels(0..ROWS, 7).unwrap(), set.labels(0..ROWS, 7).unwrap());
            }
        }
    }
    // Nothing temporary is left.
    let names = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name());
    assert!(names.into_iter().all(|n| !n.to_string_lossy().starts_with('.')));
}

/// Rounded once, to the nearest of the type.
#[test]
fn types_round_to_the_nearest() {
    let (_source, set) = sample();
    let directory = tempfile::tempdir().unwrap();
    let exact: Vec<f64> = (0..ROWS * DIM).map(|i| value(i) / 2.0).collect();
    // Values on either side of one in the type: none may be nearer.
    type Sides = fn(f32) -> [f64; 2];
    let types: [(FloatType, Sides); 3] = [
        (FloatType::F16, |v| {
            let bits = f16::from_f32(v).to_bits();
            [bits - 1, bits + 1].map(|b| f16::from_bits(b).to_f64())
        }),
        (FloatType::Bf16, |v| {
            let bits = bf16::from_f32(v).to_bits();
            [bits - 1, bits + 1].map(|b| bf16::from_bits(b).to_f64())
        }),
        (FloatType::F32, |v| {
            [v.to_bits() - 1, v.to_bits() + 1].map(|b| f64::from(f32::from_bits(b)))
        }),
    ];
    for (dtype, sides) in types {
        let out = directory.path().join(format!("{dtype:?}.safetensors"));
        run(&set, &out, &ConvertConfig { dtype: Some(dtype), ..ConvertConfig::default() }).unwrap();
        let got = all(&FeatureSet::open(&out).unwrap(), AVG);
        for (&g, e) in got.iter().zip(&exact) {
            let error = (f64::from(g) - e).abs();
            assert!(sides(g).iter().all(|s| (s - e).abs() >= error), "{dtype:?} {e} {g}");
        }
    }
    // The default of safetensors is half precision.
    let out = directory.path().join("default.safetensors");
    run(&set, &out, &ConvertConfig::default()).unwrap();
    let read = |name: &str| fs::read(directory.path().join(name)).unwrap();
    assert!(read("default.safetensors") == read("F16.safetensors"));
}

/// Memmap → f64 shards → memmap: byte for byte, and shards as they should be.
#[test]
fn there_and_back_is_the_same_to_the_byte() {
    let (source, set) = sample();
    let directory = tempfile::tempdir().unwrap();
    let shards = directory.path().join("shards");
    let config = ConvertConfig {
        dtype: Some(FloatType::F64),
        shard_rows: Some(300),
        ..ConvertConfig::default()
    };
    assert_eq!(run(&set, &shards, &config).unwrap().files, 3);
    let sizes = |name: &str| FeatureSet::open(shards.join(name)).unwrap().len();
    assert_eq!(sizes("shard-00000.safetensors"), 300);
    assert_eq!(sizes("shard-00002.safetensors"), 100);
    let back = directory.path().join("back");
    let memmap = ConvertConfig { form: Some(Form::Memmap), ..ConvertConfig::default() };
    run(&FeatureSet::open(&shards).unwrap(), &back, &memmap).unwrap();
    for name in ["feat.mmap", "std.mmap", "label.mmap"] {
        let read = |p: &Path| fs::read(p.join(name)).unwrap();
        assert!(read(&back) == read(source.path()), "{name}");
    }
    // And the same bytes when it is done again, on other threads.
    let again = directory.path().join("again");
    heat_ood::math::parallel::set_threads(3).unwrap();
    run(&set, &again, &config).unwrap();
    let names = fs::read_dir(&shards).unwrap().map(|e| e.unwrap().file_name());
    for name in names {
        let read = |p: &PathBuf| fs::read(p.join(&name)).unwrap();
        assert!(read(&shards) == read(&again));
    }
}

#[test]
fn logits_by_the_head() {
    let rows = Array2::from_shape_vec((2, 2), vec![1.0f32, 2.0, -3.0, 0.5]).unwrap();
    let set = FeatureSet::from_arrays(rows.view(), None).unwrap();
    let head = Head::new(vec![1.0, 0.0, 0.0, 2.0, 1.0, 1.0], vec![0.5, 0.0, -1.0]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("x.npz");
    let config = ConvertConfig { logits: true, ..ConvertConfig::default() };
    let done = convert(&set, Some(&head), &out, &config, &mut Silent).unwrap();
    assert_eq!(done.written, ["avg", "logits"]);
    let got = all(&FeatureSet::open(&out).unwrap(), Field::Logits);
    assert_eq!(got, [1.5, 4.0, 2.0, -2.5, 1.0, -3.5]);
    let error = run(&set, &directory.path().join("y.npz"), &config).unwrap_err().to_string();
    contains(&error, &["last layer"]);
    let narrow = Head::new(vec![1.0; 3], vec![0.0]).unwrap();
    let error = convert(&set, Some(&narrow), &directory.path().join("y.npz"), &config, &mut Silent);
    contains(&error.unwrap_err().to_string(), &["D = 3", "[2, 2]"]);
}

/// What `config` is refused for, with nothing written.
fn refused(set: &FeatureSet, name: &str, config: &ConvertConfig) -> String {
    let directory = tempfile::tempdir().unwrap();
    let error = run(set, &directory.path().join(name), config).unwrap_err().to_string();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{error}");
    error
}

#[test]
fn values_too_large_for_the_type() {
    let mut values = vec![1.0; 600];
    values[521] = -65505.0;
    let directory = memmaps(&[("feat", f64s(&values))]);
    let set = FeatureSet::open_with(directory.path(), &dim(2)).unwrap();
    for name in ["out", "out.safetensors"] {
        let error = refused(&set, name, &ConvertConfig::default());
        contains(&error, &["`avg`, row 260, column 1", "-65505", "f16", "bf16", "f32"]);
    }
    values[521] = 1e39;
    let directory = memmaps(&[("feat", f64s(&values))]);
    let set = FeatureSet::open_with(directory.path(), &dim(2)).unwrap();
    let error = refused(&set, "out.npz", &ConvertConfig::default());
    contains(&error, &["row 260", "f32", "write it as `f64`"]);
    let wide = ConvertConfig { dtype: Some(FloatType::F64), ..ConvertConfig::default() };
    run(&set, &directory.path().with_extension("npz"), &wide).unwrap();
    fs::remove_file(directory.path().with_extension("npz")).unwrap();
}

#[test]
fn values_that_are_not_finite() {
    for bad in [f64::NAN, f64::INFINITY] {
        let mut values = vec![1.0; 600];
        values[521] = bad;
        let directory = memmaps(&[("feat", f64s(&values))]);
        let set = FeatureSet::open_with(directory.path(), &dim(2)).unwrap();
        for (form, name) in FORMS {
            let config = ConvertConfig { form: Some(form), ..ConvertConfig::default() };
            contains(&refused(&set, name, &config), &["feat.mmap", "row 260, column 1"]);
        }
    }
}

#[test]
fn fields_and_types_that_cannot_be() {
    let (_source, set) = sample();
    let with = |form, fields: &[&str]| ConvertConfig {
        form: Some(form),
        fields: Some(fields.iter().map(|f| (*f).to_owned()).collect()),
        ..ConvertConfig::default()
    };
    let error = |form, fields: &[&str]| refused(&set, "out", &with(form, fields));
    contains(&error(Form::Npz, &["max"]), &["`max`", "it has: avg, std"]);
    contains(&error(Form::Npz, &["avgg"]), &["unknown field `avgg`", "`avg`"]);
    contains(&error(Form::Npz, &[]), &["at least one"]);
    contains(&error(Form::Npy, &["avg", "std"]), &["`fields` = avg,std", "one matrix"]);
    contains(&error(Form::Npy, &["label"]), &[".npz"]);
    contains(&error(Form::Memmap, &["std"]), &["need `avg`"]);
    let unlabelled = FeatureSet::from_arrays(Array2::zeros((2, 2)).view(), None).unwrap();
    let missing = refused(&unlabelled, "out", &with(Form::Npz, &["avg", "label"]));
    contains(&missing, &["`label`", "class indices"]);
    let logits = with(Form::Memmap, &["avg", "logits"]);
    let logits = ConvertConfig { logits: true, ..logits };
    let head = Head::new(vec![0.0; 10], vec![0.0; 2]).unwrap();
    let error = convert(&set, Some(&head), Path::new("never"), &logits, &mut Silent);
    contains(&error.unwrap_err().to_string(), &["avg, std and label"]);
    let typed = |form, dtype| ConvertConfig {
        form: Some(form),
        dtype: Some(dtype),
        ..ConvertConfig::default()
    };
    contains(
        &refused(&set, "out", &typed(Form::Npz, FloatType::Bf16)),
        &["`dtype` = bf16", "numpy"],
    );
    contains(&refused(&set, "out", &typed(Form::Memmap, FloatType::F32)), &["f64"]);
    let error = "f8".parse::<FloatType>().unwrap_err().to_string();
    contains(&error, &["unknown dtype `f8`"]);
    let empty = ConvertConfig { shard_rows: Some(0), ..ConvertConfig::default() };
    contains(&refused(&set, "out", &empty), &["at least one row"]);
    contains(&refused(&set, "out.h5", &ConvertConfig::default()), &["`.h5`", "which form"]);
}

#[test]
fn labels_beyond_i64() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("avg.npy"), npy("<f4", false, "(2, 1)", &[0; 8])).unwrap();
    let labels = [1u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
    fs::write(path("label.npy"), npy("<u8", false, "(2,)", &labels)).unwrap();
    let set = FeatureSet::open(directory.path()).unwrap();
    contains(&refused(&set, "out", &ConvertConfig::default()), &["row 1", "beyond i64"]);
    fs::write(path("label.npy"), npy("<i8", false, "(2,)", &i64s(&[1, 1 << 60]))).unwrap();
    let set = FeatureSet::open(directory.path()).unwrap();
    let memmap = ConvertConfig { form: Some(Form::Memmap), ..ConvertConfig::default() };
    contains(&refused(&set, "out", &memmap), &["row 1", "f64 cannot hold"]);
}

#[test]
fn outputs_that_touch_the_input() {
    let (source, set) = sample();
    let error = |out: &Path, force: bool, inputs: &[PathBuf]| {
        let inputs = inputs.to_vec();
        let config = ConvertConfig { force, inputs, ..ConvertConfig::default() };
        run(&set, out, &config).unwrap_err().to_string()
    };
    let input = source.path();
    for out in [input.to_owned(), input.join("new"), input.join("x.npz"), input.join("../")] {
        contains(&error(&out, true, &[]), &["is read by this command"]);
    }
    contains(&error(input.parent().unwrap(), true, &[]), &["is read by this command"]);
    let other = tempfile::tempdir().unwrap();
    let head = other.path().join("head.npz");
    fs::write(&head, b"head").unwrap();
    contains(&error(&head, true, std::slice::from_ref(&head)), &["head.npz is read"]);
    contains(&error(other.path(), true, &[head]), &["head.npz is read"]);
    contains(&error(&other.path().join("no/out"), false, &[]), &["does not exist"]);
    assert_eq!(fs::read_dir(input).unwrap().count(), 3);
}

#[test]
fn outputs_that_exist() {
    let (_source, set) = sample();
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let plain = ConvertConfig::default();
    let force = ConvertConfig { force: true, shard_rows: Some(100), ..plain.clone() };
    fs::create_dir(&out).unwrap();
    run(&set, &out, &plain).unwrap();
    contains(
        &run(&set, &out, &plain).unwrap_err().to_string(),
        &["not empty", "allow replacing it"],
    );
    // Replaced as a whole: no old shard is left among the new.
    run(&set, &out, &force).unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 7);
    run(&set, &out, &ConvertConfig { shard_rows: Some(400), ..force.clone() }).unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2);
    // A directory of anything else is never replaced.
    fs::write(out.join("thesis.txt"), b"years of work").unwrap();
    contains(
        &run(&set, &out, &force).unwrap_err().to_string(),
        &["thesis.txt", "another directory"],
    );
    assert_eq!(fs::read_dir(&out).unwrap().count(), 3);
    let file = directory.path().join("x.npz");
    run(&set, &file, &plain).unwrap();
    contains(&run(&set, &file, &plain).unwrap_err().to_string(), &["exists", "allow replacing it"]);
    run(&set, &file, &force).unwrap();
    let npz = ConvertConfig { form: Some(Form::Npz), ..force.clone() };
    contains(&run(&set, &out, &npz).unwrap_err().to_string(), &["this form is a file"]);
    let shards = ConvertConfig { form: Some(Form::Shards), ..force };
    contains(&run(&set, &file, &shards).unwrap_err().to_string(), &["this form is a directory"]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

/// The temporary directory of another conversion into `out`.
fn unfinished(directory: &Path) -> PathBuf {
    let hash = heat_ood::io::sha256_of(["out"]);
    directory.join(format!(".heat-convert-{}-dEad01.tmp", &hash[..16]))
}

/// What a killed conversion leaves is refused by name, and cleared by the next.
#[test]
fn unfinished_folders() {
    let (_source, set) = sample();
    let directory = tempfile::tempdir().unwrap();
    let left = unfinished(directory.path());
    fs::create_dir(&left).unwrap();
    fs::File::create(left.join(".lock")).unwrap();
    let shard = left.join("shard-00000.safetensors");
    run(&set, &shard, &ConvertConfig::default()).unwrap();
    let error = FeatureSet::open(&left).err().unwrap().to_string();
    contains(&error, &["did not finish", "run it again"]);
    fs::rename(&shard, left.join("shard-00077.safetensors")).unwrap();
    fs::write(left.join(".heat-x.tmp"), b"half").unwrap();
    let out = directory.path().join("out");
    run(&set, &out, &ConvertConfig::default()).unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn two_at_a_time_are_refused() {
    let (_source, set) = sample();
    let directory = tempfile::tempdir().unwrap();
    let busy = unfinished(directory.path());
    fs::create_dir(&busy).unwrap();
    let lock = fs::File::create(busy.join(".lock")).unwrap();
    lock.lock().unwrap();
    let out = directory.path().join("out");
    let error = run(&set, &out, &ConvertConfig::default()).unwrap_err().to_string();
    contains(&error, &["process", "is writing that directory"]);
    assert!(busy.join(".lock").exists());
}

/// Views read through: any order, repeated rows, several shards, views of views.
#[test]
fn views_read_the_rows_they_show() {
    let (_source, set) = sample();
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("shards");
    let config = ConvertConfig {
        shard_rows: Some(64),
        dtype: Some(FloatType::F32),
        ..ConvertConfig::default()
    };
    run(&set, &out, &config).unwrap();
    let set = FeatureSet::open(&out).unwrap();
    let whole = all(&set, AVG);
    let rows: Vec<u32> = vec![5, 6, 7, 62, 63, 64, 65, 699, 3, 3, 128, 127];
    let view = set.select(rows.clone(), None).unwrap();
    let want: Vec<f32> =
        rows.iter().flat_map(|&r| whole[r as usize * DIM..][..DIM].to_vec()).collect();
    assert_eq!((view.len(), all(&view, AVG)), (12, want.clone()));
    let mut parallel = vec![0.0; want.len()];
    view.read_parallel(AVG, 0..12, &mut parallel).unwrap();
    assert_eq!(parallel, want);
    let mut two = vec![0.0; 2 * DIM];
    view.gather(AVG, &[7, 0], &mut two).unwrap();
    assert_eq!(two, [&want[7 * DIM..8 * DIM], &want[..DIM]].concat());
    let labels: Vec<u32> = rows.iter().map(|r| r % 7).collect();
    assert_eq!(view.labels(0..12, 7).unwrap(), labels);
    // A view of the view, of classes 0 and 6 alone: rows 6, 7, 62 (6 mod 7), 63.
    let inner = view.select(vec![1, 2, 3, 4], Some(vec![0, 6])).unwrap();
    assert_eq!(inner.labels(0..4, 2).unwrap(), [1, 0, 1, 0]);
    assert_eq!(all(&inner, AVG), want[DIM..5 * DIM]);
    contains(inner.name(), &["shards (subset: 4 rows, 2 classes)"]);
    let names: Vec<String> = inner.digests().unwrap().into_iter().map(|(n, _)| n).collect();
    assert_eq!(names.last().unwrap(), "subset: 4 rows of 2 classes");
    assert_eq!(names.len(), set.files().len() + 1);
    // Converting a view writes what it shows.
    let small = directory.path().join("small.npz");
    run(&inner, &small, &ConvertConfig::default()).unwrap();
    let small = FeatureSet::open(&small).unwrap();
    assert_eq!(
        (all(&small, AVG), small.labels(0..4, 2).unwrap()),
        (all(&inner, AVG), vec![1, 0, 1, 0])
    );
    let error = |rows: Vec<u32>, classes: Option<Vec<u32>>| {
        set.select(rows, classes).err().expect("refused").to_string()
    };
    contains(&error(vec![700], None), &["`rows` = 700", "700 rows"]);
    contains(&error(vec![], None), &["at least one row"]);
    contains(&error(vec![0, 1], Some(vec![0, 2])), &["row 1 has label 1"]);
    contains(&error(vec![0], Some(vec![1, 0])), &["ascending"]);
    contains(&error(vec![0], Some(vec![])), &["at least one"]);
    let error = view.with_labels("y.npy").err().unwrap().to_string();
    contains(&error, &["then choose rows"]);
}

/// Stored logits lose the columns of the classes left out.
#[test]
fn logits_of_chosen_classes() {
    let directory = tempfile::tempdir().unwrap();
    let logits: Vec<u8> = (0..12).flat_map(|i| (i as f32).to_le_bytes()).collect();
    fs::write(directory.path().join("logits.npy"), npy("<f4", false, "(3, 4)", &logits)).unwrap();
    fs::write(directory.path().join("label.npy"), npy("|u1", false, "(3,)", &[1, 3, 0])).unwrap();
    let set = FeatureSet::open(directory.path()).unwrap();
    let view = set.select(vec![1, 0], Some(vec![1, 3])).unwrap();
    assert_eq!(view.dim(Field::Logits), Some(2));
    assert_eq!(all(&view, Field::Logits), [5.0, 7.0, 1.0, 3.0]);
    let other = set.with_logits_of(&[0, 2]).unwrap();
    assert_eq!(
        (all(&other, Field::Logits), other.labelled()),
        (vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0], false)
    );
    contains(&set.with_logits_of(&[4]).err().unwrap().to_string(), &["`classes` = 4", "4 classes"]);
}
