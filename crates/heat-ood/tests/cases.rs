//! Small inputs of the forms that public reports describe, in `golden/cases`. What is right was
//! computed with NumPy in f64 (the files named `expected`), or follows from how they were made.

mod common;

use heat_ood::evaluate::{Agreement, Candidate, evaluate};
use heat_ood::features::{FeatureSet, Head};
use heat_ood::io::TensorFile;
use heat_ood::metrics;
use heat_ood::scorers::{Scorer, ScorerSpec};
use heat_ood::{Silent, TrainingData};

fn path(name: &str) -> std::path::PathBuf {
    common::path(&format!("cases/{name}.safetensors"))
}

fn set(name: &str) -> FeatureSet {
    FeatureSet::open(path(name)).unwrap()
}

fn fit(text: &str, data: &TrainingData) -> heat_ood::Fitted<dyn Scorer> {
    ScorerSpec::parse(text).unwrap().fit(data, &mut Silent).unwrap()
}

/// OOD rows that tie with the threshold are accepted: 59 % for scores that keep the order of the
/// logits; a score of f32 probabilities, which ties, would give 60 %.
#[test]
fn case_01_ties_at_the_threshold() {
    let head = Head::open(path("01_fpr95_ties_head")).unwrap();
    let train = set("01_fpr95_ties_train");
    let data = TrainingData::new(&train).with_head(&head);
    let [id, ood] = ["01_fpr95_ties_id", "01_fpr95_ties_ood"].map(set);
    for name in ["msp", "max_logit", "el"] {
        let scorer = fit(name, &data);
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
    let expected = TensorFile::open(&path("22_expected")).unwrap();
    for name in ["22_units_1", "22_units_1e-5"] {
        let set = set(name);
        let got = fit("maha", &TrainingData::new(&set)).score(&set).unwrap();
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
    let train = set("32_train");
    let scrambled = Head::open(path("32_scrambled_head")).unwrap();
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
    let train = set("32_train");
    let candidates = ["knn(k=3)", "gmm(normalize=false)"].map(|text| Candidate {
        name: text.to_owned(),
        scorer: fit(text, &TrainingData::new(&train)),
        fit_seconds: None,
    });
    let other = set("29_ood");
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
