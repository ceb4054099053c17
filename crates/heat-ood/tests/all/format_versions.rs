//! Detector files of earlier format versions go on giving what they gave.
//!
//! `golden/format_1` was written with format version 1, whose `msp` was
//! −max softmax: `heat fit msp`, and `heat compose` of `el` and `msp`, both
//! calibrated; `expected.safetensors` holds the rows that `heat score` was
//! given, and the scores and p-values that it printed.

use crate::common;

use heat_ood::calibrate::Ties;
use heat_ood::features::FeatureSet;
use heat_ood::io::TensorFile;
use heat_ood::scorers::{MspConfig, Scorer};
use heat_ood::{Detector, Fit, Silent, TrainingData};
use ndarray::ArrayView2;

fn open(name: &str) -> TensorFile {
    TensorFile::open(&common::path(&format!("format_1/{name}.safetensors"))).unwrap()
}

fn get(file: &TensorFile, name: &str) -> Vec<f32> {
    file.f32(name, file.shape(name).unwrap()).unwrap()
}

/// The rows that were scored.
fn rows(expected: &TensorFile) -> FeatureSet {
    let values = get(expected, "avg");
    FeatureSet::from_arrays(ArrayView2::from_shape((values.len() / 4, 4), &values).unwrap(), None)
        .unwrap()
}

/// Scores and p-values as they were, before and after the file is written
/// again, which makes it one of the present version.
#[test]
fn version_1_keeps_its_msp() {
    let expected = open("expected");
    let rows = rows(&expected);
    let directory = tempfile::tempdir().unwrap();
    for (name, key) in [("msp", "msp"), ("el_msp", "both")] {
        let file = open(name);
        assert_eq!(file.metadata("version"), Some("1"), "{name}");
        let old = Detector::from_file(&file).unwrap();
        let path = directory.path().join(name);
        old.save(&path).unwrap();
        let again = TensorFile::open(&path).unwrap();
        assert_eq!(again.metadata("version"), Some("3"), "{name}");
        for detector in [old, Detector::from_file(&again).unwrap()] {
            let found = detector.predict(&rows, Ties::Conservative, &mut Silent).unwrap();
            let want = get(&expected, &format!("{key}.score"));
            common::close(name, &found.scores, &want, 2e-7);
            let p = found.verdicts.unwrap().iter().map(|v| v.p_value as f32).collect::<Vec<_>>();
            assert_eq!(p, get(&expected, &format!("{key}.p_value")), "{name}");
        }
    }
}

/// Files of `vim` and `residual` that were written before there was a `center` hold the mean's.
#[test]
fn without_a_center_it_is_the_mean() {
    let golden = common::Golden::open();
    let (train, head, test) = (golden.train(), golden.head(), golden.set("test.avg"));
    let data = TrainingData::new(&train).with_head(&head);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.safetensors");
    for name in ["vim", "residual"] {
        let text = format!("{name}(principal_dim=8,center=mean)");
        let spec = heat_ood::scorers::ScorerSpec::parse(&text).unwrap();
        let scorer = spec.fit(&data, &mut Silent).unwrap();
        Detector::new(scorer.clone()).save(&path).unwrap();
        // As version 2 had it: without the key, which is blanked out so that no offset moves, and
        // without a digest.
        let mut bytes = std::fs::read(&path).unwrap();
        for (old, new) in [
            (r#"\"center\":\"mean\","#, ""),
            (r#""version":"3""#, r#""version":"2""#),
            (r#""digest":"#, r#""nothin":"#),
        ] {
            let at = bytes.windows(old.len()).position(|w| w == old.as_bytes()).expect(old);
            bytes[at..at + old.len()].fill(b' ');
            bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
        }
        std::fs::write(&path, bytes).unwrap();
        let old = Detector::open(&path).unwrap();
        assert_eq!(old.score(&test).unwrap(), scorer.score(&test).unwrap(), "{name}");
    }
}

/// One more than it was, and no ties where the old form had eleven.
#[test]
fn a_new_msp_is_one_more() {
    let expected = open("expected");
    let rows = rows(&expected);
    let file = open("msp");
    let head = heat_ood::features::Head::new(get(&file, "head.weight"), get(&file, "head.bias"));
    let data = TrainingData::new(&rows).with_head(&head.unwrap());
    let msp = MspConfig::default().fit(&data, &mut Silent).unwrap();
    let new = msp.score(&rows).unwrap();
    let old = get(&expected, "msp.score");
    for (new, old) in new.iter().zip(&old) {
        assert!((new - (old + 1.0)).abs() < 1.2e-7, "{new} {old}");
    }
    let distinct = |scores: &[f32]| {
        let mut bits: Vec<u32> = scores.iter().map(|s| s.to_bits()).collect();
        bits.sort_unstable();
        bits.dedup();
        bits.len()
    };
    assert_eq!((distinct(&old), distinct(&new)), (11, 20));
}
