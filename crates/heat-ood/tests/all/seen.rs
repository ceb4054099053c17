//! Training rows among calibration rows, beyond the number that a detector remembers, and in
//! other precisions than those of training.

use heat_ood::calibrate::CalibrationConfig;
use heat_ood::features::{ConvertConfig, FeatureSet, FloatType, Form, convert};
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Detector, Silent, TrainingData};
use ndarray::Array2;

const DIM: usize = 16;
/// Kept of 8,192 hashes: of 10,000 rows some 1,800 are known through the training set alone.
const TRAIN: usize = 10_000;
const CALIBRATION: usize = 1500;
/// Fewer than one in a hundred: no reason to refuse the set.
const DUPLICATES: [usize; 9] = [0, 17, 120, 333, 512, 700, 701, 900, 999];

/// Rows that no other call with other numbers gives.
fn rows(n: usize, stream: u64) -> Vec<f32> {
    let mut values = vec![0.0; n * DIM];
    Stream::new(5, Purpose::User, stream, 0).fill_normal(&mut values);
    values
}

/// In memory, as if read from a file of that type.
fn set(values: &[f32], kind: FloatType) -> FeatureSet {
    let rows = Array2::from_shape_vec((values.len() / DIM, DIM), values.to_vec()).unwrap();
    let set = FeatureSet::from_arrays(rows.view(), None).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("set.safetensors");
    let config =
        ConvertConfig { form: Some(Form::Safetensors), dtype: Some(kind), ..Default::default() };
    convert(&set, None, &path, &config, &mut Silent).unwrap();
    FeatureSet::from_safetensors("set", std::fs::read(path).unwrap()).unwrap()
}

fn fitted(train: &FeatureSet) -> Detector {
    let spec = ScorerSpec::parse("norm").unwrap();
    Detector::new(spec.fit(&TrainingData::new(train), &mut Silent).unwrap())
}

/// Calibration rows, some of which are the last training rows.
fn calibration(train: &[f32]) -> Vec<f32> {
    let mut values = rows(CALIBRATION, 2);
    for (i, row) in DUPLICATES.iter().enumerate() {
        let from = (train.len() / DIM - DUPLICATES.len() + i) * DIM;
        values[row * DIM..][..DIM].copy_from_slice(&train[from..from + DIM]);
    }
    values
}

const KINDS: [FloatType; 3] = [FloatType::F32, FloatType::F16, FloatType::Bf16];

/// Whether one of these was rounded to half precision and another to bfloat16: neither can be
/// made of the other.
fn apart(kinds: &[FloatType]) -> bool {
    kinds.contains(&FloatType::F16) && kinds.contains(&FloatType::Bf16)
}

/// All duplicates are found through the training set, whatever it was fitted on, given in, and
/// compared with; those left are exactly the others.
#[test]
fn all_duplicates_are_left_out_of_large_sets() {
    let train = rows(TRAIN, 1);
    let calibration = calibration(&train);
    for fit in KINDS {
        let mut detector = fitted(&set(&train, fit));
        for given in KINDS.into_iter().filter(|given| !apart(&[fit, *given])) {
            let again = [set(&train, given)];
            for of in KINDS.into_iter().filter(|of| !apart(&[fit, given, *of])) {
                let id = set(&calibration, of);
                let (left, dropped) =
                    detector.provenance().without_seen(&id, &again).unwrap_or_else(|error| {
                        panic!("fitted on {fit:?}, given {given:?}, of {of:?}: {error}")
                    });
                assert_eq!(dropped, DUPLICATES.len(), "{fit:?} {given:?} {of:?}");
                assert_eq!(left.len(), CALIBRATION - DUPLICATES.len());
                detector
                    .calibrate(&CalibrationConfig::default(), &left, None, false, &mut Silent)
                    .unwrap();
                assert!(!detector.calibration().unwrap().forced);
            }
        }
        // The sample alone does not do.
        let id = set(&calibration, FloatType::F32);
        let error = detector.provenance().without_seen(&id, &[]).err().unwrap().to_string();
        assert!(error.contains("of its 10000 training rows the detector remembers a sample"));
        // Nor does another set of as many rows, nor one that lacks a row.
        for other in [rows(TRAIN, 3), train[DIM..].to_vec()] {
            let other = [set(&other, FloatType::F32)];
            let error = detector.provenance().without_seen(&id, &other).err().unwrap().to_string();
            assert!(error.contains("is not the set that it was fitted on"), "{error}");
        }
    }
}

/// Few enough to be remembered; duplicates of both precisions in one calibration set.
#[test]
fn duplicates_of_several_precisions_are_left_out() {
    let train = rows(3000, 1);
    let mut values = calibration(&train);
    let halves = set(&values, FloatType::F16);
    let brains = set(&values, FloatType::Bf16);
    let mut rounded = [vec![0.0; values.len()], vec![0.0; values.len()]];
    for (set, rounded) in [halves, brains].iter().zip(&mut rounded) {
        let field = set.fields().next().unwrap();
        set.read(field, 0..set.len(), rounded).unwrap();
    }
    for (i, row) in DUPLICATES.iter().enumerate() {
        values[row * DIM..][..DIM].copy_from_slice(&rounded[i % 2][row * DIM..][..DIM]);
    }
    let id = set(&values, FloatType::F32);
    let mut detector = fitted(&set(&train, FloatType::F32));
    let (left, dropped) = detector.provenance().without_seen(&id, &[]).unwrap();
    assert_eq!(dropped, DUPLICATES.len());
    detector.calibrate(&CalibrationConfig::default(), &left, None, false, &mut Silent).unwrap();
}

/// Ten thousand training rows of which few are different: all are remembered.
#[test]
fn repeated_rows_are_remembered_once() {
    let some = rows(3000, 1);
    let train = [&some[..], &some, &some, &some].concat();
    let detector = fitted(&set(&train, FloatType::F32));
    let id = set(&calibration(&train), FloatType::F32);
    assert_eq!(detector.provenance().without_seen(&id, &[]).unwrap().1, DUPLICATES.len());
}

/// Of a large training set, six duplicates in a thousand rows are no reason to refuse these; two
/// in a hundred are, and are named, as far as the sample knows them.
#[test]
fn a_natural_duplicate_of_a_large_set_blocks_nothing() {
    let train = rows(TRAIN, 1);
    let mut detector = fitted(&set(&train, FloatType::F32));
    let few = set(&calibration(&train), FloatType::F16);
    let config = CalibrationConfig::default();
    detector.calibrate(&config, &few, None, false, &mut Silent).unwrap();
    assert!(!detector.calibration().unwrap().forced);
    let mut values = rows(CALIBRATION, 2);
    values[..30 * DIM].copy_from_slice(&train[..30 * DIM]);
    let many = set(&values, FloatType::Bf16);
    let error = detector.calibrate(&config, &many, None, false, &mut Silent).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("rows that were compared are training rows (row "), "{error}");
}
