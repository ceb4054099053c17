//! Groups, intervals, tests and seeds on scores written by hand.

use super::*;
use crate::metrics::BootstrapConfig;
use crate::observe::Silent;
use crate::scorers::ScorerSpec;

/// Candidates of these names; their scorer is not used.
fn candidates(names: &[&str]) -> Vec<Candidate> {
    let rows = ndarray::array![[1.0f32, 2.0], [3.0, 4.0]];
    let set = FeatureSet::from_arrays(rows.view(), None).unwrap();
    let scorer = ScorerSpec::parse("norm")
        .unwrap()
        .fit(&crate::scorers::TrainingData::new(&set), &mut Silent)
        .unwrap();
    let one = |name: &&str| Candidate {
        name: (*name).to_owned(),
        scorer: scorer.clone(),
        fit_seconds: None,
    };
    names.iter().map(one).collect()
}

fn found(scores: &[f32]) -> ScoredSet {
    ScoredSet { scores: scores.to_vec(), ..ScoredSet::default() }
}

/// AUROC of `a`: 1 on x, 3/4 on y, 1/2 on z; of `b`: 0, 3/4, 1/2.
fn two() -> Scores {
    let both = |a: &[f32], b: &[f32]| vec![found(a), found(b)];
    Scores {
        id: both(&[0.0, 1.0], &[0.0, 1.0]),
        ood: vec![
            ("x".into(), both(&[2.0, 3.0], &[-1.0, -2.0])),
            ("y".into(), both(&[0.5, 2.0], &[2.0, 0.5])),
            ("z".into(), both(&[0.5, 0.5, 0.5], &[0.5, 0.5, 0.5])),
        ],
    }
}

fn groups() -> Groups {
    Groups { near: vec!["z".into(), "y".into()], far: vec!["x".into()] }
}

fn with(statistics: &Statistics, names: &[&str]) -> Result<Results> {
    let mut results = measure("id", &candidates(names), &two())?;
    statistics.add_to(&mut results, &two(), &mut Silent)?;
    Ok(results)
}

#[test]
fn nothing_asked_adds_nothing() {
    let results = with(&Statistics::default(), &["a", "b"]).unwrap();
    let json = serde_json::to_value(&results).unwrap();
    let keys = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&json), ["id", "scorers"]);
    assert_eq!(keys(&json["scorers"]["a"]), ["ood", "average", "seconds"]);
    assert_eq!(keys(&json["scorers"]["a"]["average"]), Metrics::NAMES);
    assert_eq!(json["scorers"]["a"]["average"]["auroc"], 0.75);
}

#[test]
fn near_and_far_are_plain_averages() {
    let statistics = Statistics { groups: Some(groups()), ..Statistics::default() };
    let json = serde_json::to_value(with(&statistics, &["a", "b"]).unwrap()).unwrap();
    assert_eq!(json["groups"]["near"], serde_json::json!(["z", "y"]));
    assert_eq!(json["scorers"]["a"]["near"]["auroc"], 0.625);
    assert_eq!(json["scorers"]["a"]["far"]["auroc"], 1.0);
    assert_eq!(json["scorers"]["b"]["far"]["auroc"], 0.0);
}

#[test]
fn intervals_hold_their_values_in_every_column() {
    let statistics =
        Statistics { groups: Some(groups()), intervals: true, ..Statistics::default() };
    let results = with(&statistics, &["a", "b"]).unwrap();
    let json = serde_json::to_value(&results).unwrap();
    assert_eq!(json["ci"], serde_json::json!({"level": 0.95, "resamples": 1000, "seed": 0}));
    let a = &json["scorers"]["a"];
    assert_eq!(a["ood"]["x"]["ci"]["auroc"], serde_json::json!([1.0, 1.0]));
    assert_eq!(a["far"]["ci"], a["ood"]["x"]["ci"]);
    // ID {0, 1} drawn as {0, 0} or {1, 1} puts all of z above or below.
    assert_eq!(a["ood"]["z"]["ci"]["auroc"], serde_json::json!([0.0, 1.0]));
    // x is always 1, y and z move together: (1 + 0 + 0)/3 to (1 + 1 + 1)/3.
    let average = results.scorers[0].1.average.ci.unwrap();
    assert!((average.low.auroc - 1.0 / 3.0).abs() < 1e-15);
    assert_eq!(average.high.auroc, 1.0);
}

#[test]
fn comparisons_are_with_the_best_or_the_named() {
    let mut statistics = Statistics { compare: Some(Baseline::Best), ..Statistics::default() };
    let best = with(&statistics, &["a", "b"]).unwrap().comparison.unwrap();
    assert_eq!((&*best.reference, &*best.scorers[0].0), ("a", "b"));
    let tests = &best.scorers[0].1;
    assert!((tests.average.difference.auroc + 1.0 / 3.0).abs() < 1e-15);
    // Separated one way and the other: the few rows show no variance to test with.
    assert_eq!(tests.ood[0].1.difference.auroc, -1.0);
    assert!(tests.ood[0].1.p.auroc.is_nan());
    assert_eq!(tests.ood[2].1.p.to_array(), [1.0; 6]);
    assert_eq!(tests.near, None);
    statistics.compare = Some(Baseline::Named("b".into()));
    statistics.groups = Some(groups());
    let json = serde_json::to_value(with(&statistics, &["a", "b"]).unwrap()).unwrap();
    assert_eq!(json["comparison"]["reference"], "b");
    let far = &json["comparison"]["scorers"]["a"]["far"]["auroc"];
    assert_eq!(far["difference"], 1.0);
    assert_eq!(far["ci"], serde_json::json!([1.0, 1.0]));
}

/// Average AUROCs 0.75 and 5/12: mean 7/12, deviation (1/3)/√2.
#[test]
fn seeds_are_summed_up() {
    let statistics = Statistics { groups: Some(groups()), ..Statistics::default() };
    let results = with(&statistics, &["heat@0", "heat@7"]).unwrap();
    let (name, seeds) = &results.seeds[0];
    assert_eq!((&**name, &seeds.seeds[..]), ("heat", &[0, 7][..]));
    assert!((seeds.average.mean.auroc - 7.0 / 12.0).abs() < 1e-15);
    assert!((seeds.average.std.auroc - 1.0 / (3.0 * 2f64.sqrt())).abs() < 1e-15);
    assert_eq!(seeds.ood[1].1.std.auroc, 0.0);
    assert_eq!(seeds.far.unwrap().mean.auroc, 0.5);
    for names in [["heat@0", "gmm@1"], ["heat@0", "heat@a"], ["@0", "@1"]] {
        assert!(with(&statistics, &names).unwrap().seeds.is_empty(), "{names:?}");
    }
    let text = seeds::groups(&["h@0", "h@1", "h"]).unwrap_err().to_string();
    assert!(text.contains("summary over its seeds"), "{text}");
}

#[test]
fn refusals() {
    let refused =
        |statistics: Statistics, names: &[&str]| with(&statistics, names).unwrap_err().to_string();
    let usual = Statistics::default;
    for level in [0.0, 1.0, -0.5, f64::NAN] {
        let text = refused(Statistics { level, ..usual() }, &["a", "b"]);
        assert!(text.contains("between 0 and 1"), "{text}");
    }
    let bootstrap = BootstrapConfig { resamples: 0, seed: 0 };
    assert!(refused(Statistics { bootstrap, ..usual() }, &["a", "b"]).contains("resamples"));
    let compare = Some(Baseline::Named("aa".into()));
    assert!(refused(Statistics { compare, ..usual() }, &["a", "b"]).contains("unknown scorer"));
    let mut scores = two();
    scores.ood[1].1[0].scores.clear();
    let text = measure("id", &candidates(&["a", "b"]), &scores).unwrap_err().to_string();
    assert!(text.contains("y has no scores"), "{text}");
    scores.ood[1].1[0].scores.push(f32::NAN);
    let text = measure("id", &candidates(&["a", "b"]), &scores).unwrap_err().to_string();
    assert!(text.contains("y: tensor `score`, row 0"), "{text}");
}

/// Two of three rows: logits by hand, or by a head that swaps the features.
#[test]
fn accuracy_is_of_the_labels() {
    let rows = ndarray::array![[1.0f32, 2.0], [4.0, 3.0], [5.0, 6.0]];
    let set = FeatureSet::from_arrays(rows.view(), Some(&[0, 1, 1])).unwrap();
    let head = crate::features::Head::new(vec![0.0, 1.0, 1.0, 0.0], vec![0.0, 0.0]).unwrap();
    assert_eq!(accuracy(&set, Some(&head)).unwrap(), Some(2.0 / 3.0));
    assert_eq!(accuracy(&set, None).unwrap(), None);
    let unlabelled = FeatureSet::from_arrays(rows.view(), None).unwrap();
    assert_eq!(accuracy(&unlabelled, Some(&head)).unwrap(), None);
    let wrong = FeatureSet::from_arrays(rows.view(), Some(&[0, 1, 2])).unwrap();
    assert!(accuracy(&wrong, Some(&head)).is_err());
}
