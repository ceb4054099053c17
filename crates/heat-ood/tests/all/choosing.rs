//! Choosing by sets that play OOD, the committee, and statistics over held-out rows.

use std::path::PathBuf;

use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::features::{FeatureSet, Head, Origin};
use heat_ood::math::parallel;
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::{Scorer, ScorerSpec};
use heat_ood::select::{
    IdRows, SelectConfig, Selection, Standardise, Surrogates, fit_committee, fit_composition,
};
use heat_ood::{Detector, Result, Silent, TrainingData};
use ndarray::Array2;

fn set(name: &str) -> FeatureSet {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    FeatureSet::open(root.join(format!("../heat-cli/data/cifar10-densenet/{name}.safetensors")))
        .unwrap()
}

fn data() -> TrainingData {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let head = root.join("../heat-cli/data/cifar10-densenet/head.safetensors");
    TrainingData::new(&set("train")).with_head(&Head::open(head).unwrap())
}

fn specs(list: &[&str]) -> Vec<ScorerSpec> {
    list.iter().map(|text| ScorerSpec::parse(text).unwrap()).collect()
}

/// Rows of one value each, as `avg`.
fn values(values: &[f32]) -> FeatureSet {
    let rows = Array2::from_shape_vec((values.len(), 1), values.to_vec()).unwrap();
    FeatureSet::in_memory("values").avg(rows).build().unwrap()
}

fn surrogates(kinds: &[(&str, FeatureSet)], id: Option<FeatureSet>) -> Surrogates {
    let kinds = kinds.iter().map(|(name, set)| ((*name).to_owned(), set.clone())).collect();
    Surrogates { kinds, id }
}

fn choose(list: &[&str], train: &FeatureSet, by: &Surrogates) -> Result<Selection> {
    SelectConfig::default().run_on(&specs(list), &TrainingData::new(train), by, &mut Silent)
}

fn counted(from: f32) -> Vec<f32> {
    (0..10).map(|i| from + i as f32).collect()
}

/// ID scores 1 to 10. Of 5.5 to 14.5 lie 5, 6, 7, 8, 9 and five times 10 of them below: 85 of
/// 100 pairs. Below all is 0. The groups count alike, however many kinds each has.
#[test]
fn values_are_means_over_groups_of_kinds() {
    let train = values(&counted(100.0));
    let id = Some(values(&counted(1.0)));
    let (high, low) = (values(&counted(5.5)), values(&[0.5; 10]));
    let kinds = [("jigsaw2", high.clone()), ("blur", low.clone()), ("noise", low.clone())];
    let found = choose(&["norm"], &train, &surrogates(&kinds, id.clone())).unwrap();
    let norm = &found.ranking[0];
    assert_eq!(norm.by_kind, [0.85, 0.0, 0.0]);
    assert_eq!(norm.by_group, [0.85, 0.0]);
    assert!((norm.auroc - 0.425).abs() < 1e-12, "{norm:?}");
    assert_eq!((found.groups, found.id), (vec!["parts", "textures"], IdRows::HeldOut));
    assert_eq!(found.composition, [("norm".to_owned(), 1.0)]);
    // Kinds of one's own are one group.
    let kinds = [("shuffled words", high), ("blur", low.clone()), ("noise", low)];
    let found = choose(&["norm"], &train, &surrogates(&kinds, id)).unwrap();
    assert!((found.ranking[0].auroc - 0.85 / 3.0).abs() < 1e-12);
    assert!(found.ranking[0].by_group.is_empty());
}

/// Normal rows of two fields of one column each, around these means.
fn normal(seed: u64, rows: usize, avg: f32, std: f32) -> FeatureSet {
    let column = |stream, mean| {
        let mut values = vec![0.0; rows];
        Stream::new(seed, Purpose::User, stream, 0).fill_normal(&mut values);
        Array2::from_shape_fn((rows, 1), |(i, _)| 20.0 + mean + values[i])
    };
    FeatureSet::in_memory("normal").avg(column(0, avg)).std(column(1, std)).build().unwrap()
}

/// Two scorers that see different fields. Where both fields show every kind, their sum is better
/// on kinds that it was not chosen by; where one shows nothing, it is not.
#[test]
fn the_fallback_stays_unless_kinds_left_out_gain() {
    let (train, id) = (normal(1, 300, 0.0, 0.0), normal(2, 1000, 0.0, 0.0));
    let list = ["norm", "norm(pooling=std)"];
    let by = |std: f32| {
        let names = ["a", "b", "c", "d", "e"];
        let kind = |(i, name): (usize, &&'static str)| (*name, normal(3 + i as u64, 400, 1.0, std));
        let kinds: Vec<_> = names.iter().enumerate().map(kind).collect();
        choose(&list, &train, &surrogates(&kinds, Some(id.clone()))).unwrap()
    };
    let both = by(1.0);
    let evidence = both.evidence.as_ref().unwrap();
    assert!(both.replaced() && evidence.gains.iter().all(|g| *g > 0.02), "{evidence:?}");
    assert_eq!(both.composition, both.found);
    // Normals one and √2 deviations apart: Φ(1/√2) = 0.760 and Φ(1) = 0.841, of equal weights.
    assert!((both.fallback_auroc - 0.760).abs() < 0.02, "{both:?}");
    assert!(both.composed_auroc > 0.8 && both.composed_auroc < 0.86, "{both:?}");
    let one = by(0.0);
    assert!(!one.replaced(), "{:?}", one.evidence);
    assert_eq!(one.composition, one.fallback);
    assert_eq!(one.composition, [("norm".to_owned(), 1.0)]);
    assert!(!one.found.is_empty());
    // Two kinds show nothing about a third.
    let kinds = [("a", normal(3, 400, 1.0, 1.0)), ("b", normal(4, 400, 1.0, 1.0))];
    let few = choose(&list, &train, &surrogates(&kinds, Some(id))).unwrap();
    assert!(few.evidence.is_none() && few.composition == few.fallback);
}

/// To the bit; and a committee that is there as a whole is what is fallen back on.
#[test]
fn threads_do_not_matter() {
    let kinds = [("textures", set("ood_textures")), ("mnist", set("ood_mnist"))];
    let more = [("halves", set("test").select((0..200).collect(), None).unwrap())];
    let kinds = [&kinds[..], &more[..]].concat();
    let list = ["cadref", "fdbd", "lts", "nnguide", "gmm(pooling=std,shrinkage=1)", "el", "vim"];
    let by = surrogates(&kinds, Some(set("test").select((200..1000).collect(), None).unwrap()));
    let run = |threads| {
        let config = SelectConfig { rows: 1000, ..SelectConfig::default() };
        let chosen = parallel::with_threads(threads, || {
            config.run_on(&specs(&list), &data(), &by, &mut Silent)
        });
        chosen.unwrap().unwrap()
    };
    let (one, four) = (run(1), run(4));
    assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&four).unwrap());
    assert_eq!(one.scale, four.scale);
    let members: Vec<&str> = one.fallback.iter().map(|(name, _)| &**name).collect();
    assert_eq!(members, list[..5]);
    assert!(one.fallback.iter().all(|(_, weight)| *weight == 0.2));
    assert_eq!(one.ranking.len(), 7);
}

/// A part of the rows gives nearly the same AUROCs: with 100 rows a kind, they scatter by some 0.02.
#[test]
fn few_rows_of_a_kind_are_enough_where_asked_for() {
    let kinds = [("textures", set("ood_textures")), ("mnist", set("ood_mnist"))];
    let by = surrogates(&kinds, Some(set("test")));
    let run = |kind_rows| {
        let config = SelectConfig { kind_rows, ..SelectConfig::default() };
        config.run_on(&specs(&["el", "norm"]), &data(), &by, &mut Silent)
    };
    let value = |kind_rows| {
        let found = run(kind_rows).unwrap();
        found.ranking.iter().map(|r| r.auroc).collect::<Vec<_>>()
    };
    let all = value(None);
    assert_eq!(value(Some(1_000_000)), all);
    let some = value(Some(100));
    assert_ne!(some, all);
    assert!(some.iter().zip(&all).all(|(s, a)| (s - a).abs() < 0.06), "{some:?} {all:?}");
    let error = run(Some(9)).unwrap_err().to_string();
    assert!(error.contains("`kind_rows`") && error.contains("at least 10"), "{error}");
}

/// ID rows that are training rows are held out of the fits by which scorers are judged.
#[test]
fn id_rows_of_the_training_set_are_noticed() {
    let (train, kinds) = (set("train"), [("mnist", set("ood_mnist"))]);
    let part = |rows: std::ops::Range<u32>| train.select(rows.collect(), None).unwrap();
    let found = choose(&["knn(k=1)"], &train, &surrogates(&kinds, Some(part(0..500)))).unwrap();
    assert_eq!(found.id, IdRows::OfTraining { rows: 500 });
    // A row's nearest neighbour would else be itself, and all scores 0.
    assert!(found.scale[0].0 > 0.0 && found.ranking[0].auroc < 1.0);
    let none_left = choose(&["norm"], &train, &surrogates(&kinds, Some(train.clone())));
    let error = none_left.unwrap_err().to_string();
    assert!(error.contains("every training row is among the ID rows"), "{error}");
    let fifth = choose(&["norm", "knn"], &train, &surrogates(&kinds, None)).unwrap();
    assert_eq!(fifth.id, IdRows::Fifth);
    // Chosen by training rows, standardised by what these gave.
    let weights = [("knn".to_owned(), 0.5), ("norm".to_owned(), 0.5)];
    let scale = [(1.0, 2.0), (3.0, 4.0)];
    let data = TrainingData::new(&train);
    let known = Standardise::Known(&scale);
    let whole = fit_composition(&weights, known, &data, &mut Silent).unwrap();
    let score = |text: &str| {
        ScorerSpec::parse(text)
            .unwrap()
            .fit(&data, &mut Silent)
            .unwrap()
            .score(&kinds[0].1)
            .unwrap()
    };
    let (knn, norm) = (score("knn"), score("norm"));
    for (i, got) in whole.score(&kinds[0].1).unwrap().iter().enumerate() {
        let want = 0.5 * (knn[i] - 1.0) / 2.0 + 0.5 * (norm[i] - 3.0) / 4.0;
        assert!((got - want).abs() < 1e-4 * want.abs().max(1.0), "{got} {want}");
    }
}

/// Scorers without a unit or that fail keep no other from its place.
#[test]
fn flat_and_failing_scorers() {
    let train = normal(1, 100, 0.0, 0.0);
    let id = normal(2, 100, 0.0, 0.0);
    let kinds: Vec<_> = ["a", "b", "c"]
        .iter()
        .enumerate()
        .map(|(i, name)| (*name, normal(3 + i as u64, 50, 1.0, 0.0)))
        .collect();
    let by = surrogates(&kinds, Some(id));
    // Normalised, one column is 1 in every row.
    let found = choose(&["norm(normalize=true)", "norm", "el"], &train, &by).unwrap();
    assert_eq!(found.skipped.len(), 1);
    assert_eq!(found.skipped[0].0, "el");
    assert_eq!(found.ranking[0].name, "norm");
    assert_eq!(found.ranking[1].auroc, 0.5);
    assert!(found.found.iter().all(|(name, _)| name == "norm"), "{:?}", found.found);
    let strict = SelectConfig { strict: true, ..SelectConfig::default() };
    let data = TrainingData::new(&train);
    let error = strict.run_on(&specs(&["norm", "el"]), &data, &by, &mut Silent).unwrap_err();
    assert!(error.to_string().contains("no `logits`"), "{error}");
    assert!(choose(&["el"], &train, &by).is_err());
}

#[test]
fn sets_that_say_nothing_are_refused() {
    let train = values(&counted(0.0));
    let refused = |by: &Surrogates| choose(&["norm"], &train, by).unwrap_err().to_string();
    let ten = values(&counted(1.0));
    let few = surrogates(&[("blur", values(&[1.0]))], Some(ten.clone()));
    assert!(refused(&few).contains("has 1 rows; at least 10"), "{}", refused(&few));
    let few = surrogates(&[("blur", ten.clone())], Some(values(&[1.0, 2.0])));
    assert!(refused(&few).contains("has 2 rows"));
    assert!(refused(&surrogates(&[], Some(ten.clone()))).contains("at least one set"));
    let wide = FeatureSet::in_memory("wide").avg(Array2::<f32>::ones((10, 3))).build().unwrap();
    let other = surrogates(&[("blur", wide)], Some(ten.clone()));
    assert!(refused(&other).contains("wide"), "{}", refused(&other));
    let origin = |network: &str| Origin {
        network: format!("{network}.onnx"),
        network_sha256: network.repeat(12),
        tap: "flatten".into(),
        transform: "{}".into(),
        head_sha256: None,
        layers: Default::default(),
        device: None,
    };
    let foreign = surrogates(&[("blur", ten.clone().with_origin(Some(origin("b"))))], Some(ten));
    let error = foreign.check_origin(&origin("a")).unwrap_err().to_string();
    assert!(error.contains("network b.onnx"), "{error}");
    foreign.check_origin(&origin("b")).unwrap();
}

/// Means and deviations are those of the held-out rows; rows of training are refused; and the
/// detector remembers both.
#[test]
fn members_are_standardised_over_held_out_rows() {
    let (data, held_out) = (data(), set("test"));
    let fit = |text: &str| ScorerSpec::parse(text).unwrap().fit(&data, &mut Silent).unwrap();
    let members = vec![Part::new("knn", fit("knn")), Part::new("el", fit("el"))];
    let config = CombinedConfig { members, beta: 0.0 };
    let combined = config.fit_held_out(&held_out, false, &mut Silent).unwrap();
    let scores = combined.score(&held_out).unwrap();
    // The sum of standardised scores has mean 0 over these rows.
    let n = scores.len() as f64;
    let mean = scores.iter().map(|s| f64::from(*s)).sum::<f64>() / n;
    assert!(mean.abs() < 1e-5, "{mean}");
    for member in combined.members() {
        let own = member.scorer.score(&held_out).unwrap();
        let mean = own.iter().map(|s| f64::from(*s)).sum::<f64>() / n;
        let square: f64 = own.iter().map(|s| (f64::from(*s) - mean).powi(2)).sum();
        assert!(
            (member.mean - mean).abs() < 1e-9
                && (member.std - (square / (n - 1.0)).sqrt()).abs() < 1e-9
        );
    }
    let provenance = combined.provenance();
    assert_eq!(provenance.standardised_on, held_out.digests().unwrap());
    assert_eq!(provenance.train, data.features.digests().unwrap());
    let whole = Detector::new(combined);
    let opened = Detector::from_bytes("memory", whole.to_bytes().unwrap()).unwrap();
    assert_eq!(opened.provenance().standardised_on.len(), 1);
    assert!(opened.provenance().contamination(&held_out).unwrap().is_some());
    let error = config.fit_held_out(&data.features, false, &mut Silent).err().unwrap().to_string();
    assert!(
        error.contains("3000 of 3000 rows") && error.contains("held out of training"),
        "{error}"
    );
    config.fit_held_out(&data.features, true, &mut Silent).unwrap();
}

/// Five members that count alike; without a head what can be fitted.
#[test]
fn the_committee_is_one_detector() {
    let data = data();
    let held_out = set("test");
    let found = fit_committee(Standardise::HeldOut(&held_out), &data, &mut Silent).unwrap();
    let members = ["cadref", "fdbd", "lts", "nnguide", "gmm(pooling=std,shrinkage=1)"];
    assert_eq!((&found.members[..], found.skipped.len()), (&members.map(str::to_owned)[..], 0));
    let sum: f32 = found.scorer.score(&held_out).unwrap().iter().sum();
    assert!(sum.abs() < 0.5, "{sum}");
    let bare = TrainingData::new(&set("train"));
    let found = fit_committee(Standardise::Fifth(0), &bare, &mut Silent).unwrap();
    assert_eq!(found.members, ["knn(k=5)", "gmm(shrinkage=1)", "gmm(pooling=std,shrinkage=1)"]);
    // Fitted on all, on one scale by a fifth: the ID test rows lie around 0, training rows below.
    let mean = |set: &FeatureSet| {
        let scores = found.scorer.score(set).unwrap();
        scores.iter().sum::<f32>() / scores.len() as f32
    };
    assert!(mean(&held_out).abs() < 0.5 && mean(&bare.features) < mean(&held_out));
}
