//! What fuzzing found: one test for each, with what the reader now says.

use std::fs;
use std::path::Path;

use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::ebm::checkpoint;
use heat_ood::features::{FeatureSet, Head};
use heat_ood::io::TensorFile;
use heat_ood::recipe::{Grid, Recipe};
use heat_ood::scorers::{Scorer, ScorerSpec};
use heat_ood::{Detector, Fit, Result, Silent, TrainingData};
use safetensors::Dtype;

use super::bytes::{npy, unsealed};
use super::readers::{C, D, N, head, train, training};
use super::seeds::{npz, safetensors, seeds};

/// A directory, and that this test is alone.
fn directory() -> (tempfile::TempDir, impl Drop) {
    (tempfile::tempdir().unwrap(), super::harness::alone())
}

fn refused<T>(result: Result<T>, part: &str) {
    let text = result.err().expect("refused").to_string();
    assert!(text.contains(part), "`{part}` not in: {text}");
}

/// A safetensors file with one place of its header replaced.
fn with_header(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    assert_eq!(header.matches(from).count(), 1, "{from} in {header}");
    let header = header.replace(from, to);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + length..]].concat()
}

fn resumed(directory: &Path, kind: usize, bytes: &[u8]) -> Result<()> {
    let path = directory.join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    checkpoint::resume(&path, &training(kind), &train(), "d").map(drop)
}

/// Panicked: the label chose a mean beyond the last.
#[test]
fn replayed_rows_have_a_class_of_the_prior() {
    let (directory, _alone) = directory();
    let seed = &seeds("checkpoint", directory.path())[1];
    resumed(directory.path(), 1, seed).unwrap();
    let file = safetensors::SafeTensors::deserialize(seed).unwrap();
    let labels = file.tensor("replay.labels").unwrap().data().as_ptr() as usize;
    let at = labels - seed.as_ptr() as usize;
    let mut other = seed.clone();
    other[at..at + 8].copy_from_slice(&(C as i64).to_le_bytes());
    refused(resumed(directory.path(), 1, &other), "replay buffer contradicts itself");
}

/// Overflowed: the next step has no number.
#[test]
fn counters_are_those_of_a_run() {
    let (directory, _alone) = directory();
    let seed = &seeds("checkpoint", directory.path())[0];
    resumed(directory.path(), 0, seed).unwrap();
    // Three batches an epoch; stopped after four.
    for (from, to) in [
        (r#"\"batch\":1,\"step\":4,"#, r#"\"batch\":1,\"step\":18446744073709551615,"#),
        (r#"\"batch\":1,\"step\":4,"#, r#"\"batch\":9,\"step\":12,"#),
        (r#""adam_steps":"2""#, r#""adam_steps":"18446744073709551615""#),
    ] {
        let other = with_header(seed, from, to);
        refused(resumed(directory.path(), 0, &other), "counters contradict");
    }
}

/// Panicked when scored: a product of matrices of two dimensions.
#[test]
fn a_residual_energy_reads_what_its_prior_reads() {
    let (directory, _alone) = directory();
    let path = directory.path().join("x.safetensors");
    let config = training(2);
    let prior =
        config.fit_prior(&TrainingData::new(&train()).with_head(&head()), &mut Silent).unwrap();
    let heat = config.train(prior, &TrainingData::new(&train()), &mut Silent).unwrap();
    Detector::new(heat).save(&path).unwrap();
    let seed = unsealed(fs::read(&path).unwrap());
    let inner = r#"\"temperature_prior\":1000.0,\"input_dim\":6"#;
    let other = with_header(&seed, inner, &inner.replace("6", "7"));
    fs::write(&path, other).unwrap();
    refused(Detector::open(&path), "the prior reads features of dimension 6");
}

/// Asked for as much memory as k said: that of the settings was not the one that was checked.
#[test]
fn neighbours_are_as_many_as_were_checked() {
    let (directory, _alone) = directory();
    let path = directory.path().join("x.safetensors");
    for scorer in ["dknn(k=3)", "lid(k=3)"] {
        let data = TrainingData::new(&train()).with_head(&head());
        let fitted = ScorerSpec::parse(scorer).unwrap().fit(&data, &mut Silent).unwrap();
        Detector::new(fitted).save(&path).unwrap();
        Detector::open(&path).unwrap();
        let seed = unsealed(fs::read(&path).unwrap());
        let (from, to) = (r#"\"settings\":{\"k\":3,"#, r#"\"settings\":{\"k\":9000000000000,"#);
        fs::write(&path, with_header(&seed, from, to)).unwrap();
        refused(Detector::open(&path), "contradict");
    }
}

/// Overflowed in the reader crate: the first shape was checked, the last used.
#[test]
fn an_array_has_one_shape() {
    let (directory, _alone) = directory();
    let path = directory.path().join("x.npy");
    for shape in ["(1, 1), 'shape': (6, 9223372036854775807)", "(0xffffffffffffff, 0xffffffffff)"] {
        fs::write(&path, npy("<f4", false, shape, &[0; 4])).unwrap();
        refused(FeatureSet::open(&path), "its header is damaged");
    }
    let mut records = npy("f", false, "(1,)", &[0; 4]);
    let at = records.windows(3).position(|w| w == b"'f'").unwrap();
    let (before, after) = (records.len(), b"[('a', '<f4')]");
    records.splice(at..at + 3, after.iter().copied());
    records[8] += (records.len() - before) as u8;
    fs::write(&path, records).unwrap();
    refused(FeatureSet::open(&path), "a structured array");
}

/// Took a thousand times the file's size.
#[test]
fn archives_do_not_grow_without_bound() {
    let (directory, _alone) = directory();
    let path = directory.path().join("x.npz");
    let zeros =
        |rows: usize, fortran| npy("<f4", fortran, &format!("({rows}, 4)"), &vec![0; 16 * rows]);
    fs::write(&path, npz(&[("avg", &zeros(1 << 22, false))], true)).unwrap();
    refused(FeatureSet::open(&path), "`np.savez`");
    // In memory twice, where columns become rows.
    let columns = zeros(5 << 18, true);
    fs::write(&path, npz(&[("avg", &columns)], true)).unwrap();
    refused(FeatureSet::open(&path), "`np.savez`");
    fs::write(&path, npz(&[("avg", &columns)], false)).unwrap();
    assert_eq!(FeatureSet::open(&path).unwrap().len(), 5 << 18);
    fs::write(&path, npz(&[("avg", &zeros(5 << 18, false))], true)).unwrap();
    assert_eq!(FeatureSet::open(&path).unwrap().len(), 5 << 18);
}

/// Took twenty times the file's size; f16 matrices of a mixture, twelve times.
#[test]
fn headers_and_tensors_in_proportion_to_the_file() {
    let (directory, _alone) = directory();
    let many: Vec<String> = (0..200_000).map(|i| format!("\"{i}\":\"\"")).collect();
    let header = format!("{{\"__metadata__\":{{{}}}}}", many.join(","));
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    refused(FeatureSet::from_safetensors("x", bytes), "describes far more");
    let file = safetensors(&[("means", Dtype::F16, vec![2], vec![0; 4])]);
    let path = directory.path().join("x.safetensors");
    fs::write(&path, file).unwrap();
    refused(TensorFile::open(&path).unwrap().f64("means", &[2]), "type F16, expected F64");
    let dim = (1 << 18) + 1;
    refused(Head::new(vec![0.0; dim], vec![0.0]), "262144 are the most");
}

/// Ended the process: a table for each dot, dropped by recursion.
#[test]
fn keys_of_very_many_dots() {
    let (_folder, _alone) = directory();
    let deep = format!("{}x", "a.".repeat(100_000));
    refused(Recipe::resolve(&[format!("{deep}=1")], None), "so many dots");
    refused(Recipe::parse(&format!("{deep} = 1")), "more than 64 dots");
    refused(Recipe::parse(&format!("[{deep}]")), "more than 64 dots");
    refused(Recipe::parse(&format!("a = {{{deep} = 1}}")), "more than 64 dots");
    refused(Recipe::resolve(&[format!("seed={{{deep}=1}}")], None), "`seed`");
    refused(Recipe::parse(&"#".repeat(1 << 19)), "longer than 262144 bytes");
    // Not keys.
    Recipe::parse(&format!("# {deep}\nseed = 1")).unwrap();
}

/// Took minutes: every value compared with every other, every letter with
/// those of every key.
#[test]
fn long_lists_and_names() {
    let (_folder, _alone) = directory();
    let many: Vec<String> = (0..100_000).map(|i| i.to_string()).collect();
    refused(Grid::parse(&[format!("seed={}", many.join(","))]), "more than 10000 runs");
    let long = "é".repeat(1 << 19);
    let error = ScorerSpec::parse(&long).unwrap_err().to_string();
    assert!(error.contains("éé") && error.len() < 1000, "{}", error.len());
}

/// Was read as another matrix: three rows of two, for two rows of three.
#[test]
fn the_bias_of_an_archived_head() {
    let (directory, _alone) = directory();
    let path = directory.path().join("x.npz");
    let weight = npy("<f4", false, "(2, 3)", &[0; 24]);
    for (n, sound) in [(2, true), (3, false)] {
        let bias = npy("<f4", false, &format!("({n},)"), &vec![0; 4 * n]);
        fs::write(&path, npz(&[("weight", &weight), ("bias", &bias)], false)).unwrap();
        let head = Head::open(&path);
        assert_eq!(head.is_ok(), sound);
        head.err().into_iter().for_each(|e| refused::<()>(Err(e), "`bias`"));
    }
}

/// Steps before the head were passed over where another member of the
/// composition read stored logits.
#[test]
fn members_of_a_composition_keep_their_steps() {
    let (_folder, _alone) = directory();
    let (train, head) = (train(), head());
    let mut avg = vec![0.0; N * D];
    train.read(heat_ood::features::Field::Features(Default::default()), 0..N, &mut avg).unwrap();
    let mut logits = vec![0.0; N * C];
    head.logits(&avg, &mut logits, &mut Default::default());
    let bytes = |x: &[f32]| x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let file = safetensors(&[
        ("avg", Dtype::F32, vec![N, D], bytes(&avg)),
        ("logits", Dtype::F32, vec![N, C], bytes(&logits)),
    ]);
    let set = FeatureSet::from_safetensors("x", file).unwrap();
    let scorers = ["msp", "el(react=0.5)"].map(|text| {
        ScorerSpec::parse(text)
            .unwrap()
            .fit(&TrainingData::new(&set).with_head(&head), &mut Silent)
            .unwrap()
    });
    let mut want = vec![0.0; N];
    let members = scorers.map(|scorer| {
        let scores = scorer.score(&set).unwrap();
        let n = scores.len() as f64;
        let mean = scores.iter().map(|s| f64::from(*s)).sum::<f64>() / n;
        let square: f64 = scores.iter().map(|s| (f64::from(*s) - mean).powi(2)).sum();
        let std = (square / (n - 1.0)).sqrt();
        for (w, s) in want.iter_mut().zip(scores) {
            *w += (f64::from(s) - mean) / std;
        }
        Part::new("a", scorer)
    });
    let config = CombinedConfig { members: members.into(), beta: 0.0 };
    let got = config.fit(&TrainingData::new(&set), &mut Silent).unwrap().score(&set).unwrap();
    for (g, w) in got.iter().zip(want) {
        assert!((f64::from(*g) - w).abs() < 1e-5 * w.abs().max(1.0), "{g} {w}");
    }
}
