//! Scorers that peers have against NumPy and SciPy in float64; see `golden/make_peer_scorers.py`.

use crate::common;

use common::{Golden, close, path};
use heat_ood::Silent;
use heat_ood::TrainingData;
use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::features::{FeatureSet, Field, View};
use heat_ood::io::TensorFile;
use heat_ood::scorers::{Fitted, Scorer, ScorerSpec};
use ndarray::Array2;

/// A scorer fitted on some rows scores those of both probes, as `set` makes them, as the golden file has it;
/// returns it, fitted.
fn fitted_as_numpy(
    (spec, name): (&str, &str),
    data: &TrainingData,
    set: impl Fn(&str) -> FeatureSet,
    compare: impl Fn(&str, &[f32], &[f32]),
) -> Fitted<dyn Scorer> {
    let file = TensorFile::open(&path("peer_scorers.safetensors")).unwrap();
    let scorer = ScorerSpec::parse(spec).unwrap().fit(data, &mut Silent).unwrap();
    for probe in ["test", "ood"] {
        let got = scorer.score(&set(&format!("{probe}.avg"))).unwrap();
        let name = format!("{name}.{probe}");
        let shape = file.shape(&name).unwrap().to_vec();
        let want = file.f64(&name, &shape).unwrap();
        let want: Vec<f32> = want.into_iter().map(|v| v as f32).collect();
        compare(&format!("{spec} {probe}"), &got, &want);
    }
    scorer
}

/// Within a fraction of the spread.
fn within(tolerance: f64) -> impl Fn(&str, &[f32], &[f32]) {
    move |name, got, want| close(name, got, want, tolerance)
}

/// What a scorer is refused with, as text or when it is fitted.
fn refusal(spec: &str, data: &TrainingData) -> String {
    match ScorerSpec::parse(spec) {
        Ok(spec) => spec.fit(data, &mut Silent).err().unwrap().to_string(),
        Err(error) => error.to_string(),
    }
}

fn refused_with<const N: usize>(data: &TrainingData, all: [(&str, &str); N]) {
    for (spec, part) in all {
        let said = refusal(spec, data);
        assert!(said.contains(part), "{spec}: {said}");
    }
}

#[test]
fn scores_equal_numpy() {
    let golden = Golden::open();
    let (train, head) = (golden.train(), golden.head());
    for (spec, name, tolerance) in [
        ("joint_energy", "joint_energy", 2e-6),
        ("lid", "lid", 2e-6),
        ("lid(k=7)", "lid_k7", 2e-6),
        ("dknn", "dknn", 0.0),
        ("dknn(k=10)", "dknn_k10", 0.0),
        ("trust", "trust", 1e-6),
        ("trust(alpha=0.2,k=5)", "trust_alpha", 1e-6),
        ("openmax", "openmax", 1e-5),
        ("openmax(euclid_weight=0.004975124378109453)", "openmax_authors", 1e-5),
        ("openmax(tailsize=25,correct=false)", "openmax_pytorch_ood", 1e-5),
        ("openmax(tailsize=15,alpha=3,euclid_weight=0.5,correct=false)", "openmax_mixed", 1e-5),
    ] {
        let data = TrainingData::new(&train).with_head(&head);
        fitted_as_numpy((spec, name), &data, |probe| golden.set(probe), within(tolerance));
    }
}

/// A set whose views are its rows times 0.9 (`bits5`) and plus 0.25 (`median2`).
fn with_views(golden: &Golden, name: &str) -> FeatureSet {
    let rows = golden.set(name);
    let avg = Field::named("avg").unwrap();
    let mut values = vec![0.0; rows.len() * rows.dim(avg).unwrap()];
    rows.read(avg, 0..rows.len(), &mut values).unwrap();
    let matrix = |f: fn(f32) -> f32| {
        let values = values.iter().map(|v| f(*v)).collect();
        Array2::from_shape_vec((rows.len(), rows.dim(avg).unwrap()), values).unwrap()
    };
    let set = FeatureSet::in_memory(name).avg(matrix(|v| v));
    let set = set.field(avg.within(View::Bits(5).part().unwrap()), matrix(|v| v * 0.9));
    set.field(avg.within(View::Median(2).part().unwrap()), matrix(|v| v + 0.25)).build().unwrap()
}

/// Fitted on a set without views; what lacks them is refused when it is scored.
#[test]
fn views_are_compared_as_by_numpy() {
    let golden = Golden::open();
    let (train, head) = (golden.train(), golden.head());
    let data = TrainingData::new(&train).with_head(&head);
    for (spec, name) in [
        ("feature_squeezing", "feature_squeezing"),
        ("feature_squeezing(median=0,dist_norm=3)", "feature_squeezing_bits"),
        ("feature_squeezing(dist_norm=2)", "feature_squeezing_2"),
    ] {
        // Logits of up to 20 are known to 1e-6 in single precision, and so are probabilities.
        let close = |name: &str, got: &[f32], want: &[f32]| {
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() < 1e-6, "{name}: {got} {want}");
            }
        };
        let set = |probe: &str| with_views(&golden, probe);
        let scorer = fitted_as_numpy((spec, name), &data, set, close);
        let said = scorer.score(&golden.set("test.avg")).unwrap_err().to_string();
        assert!(said.contains("`heat extract --views bits5"), "{said}");
    }
    let all = [
        ("feature_squeezing(bits=0,median=0)", "nothing to compare with"),
        ("feature_squeezing(bits=9)", "expected 1 to 8, or 0 for none"),
        ("feature_squeezing(median=1)", "expected 2 to 15, or 0 for none"),
        ("feature_squeezing(dist_norm=0.5)", "the order of a norm is 1 or more"),
        ("feature_squeezing(dist_norm=nan)", "finite numbers alone"),
    ];
    refused_with(&data, all);
}

/// The rows of a set, and as one of its views or layers what `moved` makes of each value.
fn with_view(golden: &Golden, name: &str, view: &str, moved: fn(f32) -> f32) -> FeatureSet {
    let rows = golden.set(name);
    let avg = Field::named("avg").unwrap();
    let dim = rows.dim(avg).unwrap();
    let mut values = vec![0.0; rows.len() * dim];
    rows.read(avg, 0..rows.len(), &mut values).unwrap();
    let matrix = |values: Vec<f32>| Array2::from_shape_vec((rows.len(), dim), values).unwrap();
    let moved = values.iter().map(|v| moved(*v)).collect();
    let set = FeatureSet::in_memory(name).avg(matrix(values));
    let set = set.field(Field::named(&format!("{view}.avg")).unwrap(), matrix(moved));
    set.build().unwrap()
}

/// As view `nudged5` (v − 0.25)·0.9.
fn with_moved(golden: &Golden, name: &str) -> FeatureSet {
    with_view(golden, name, "nudged5", |v| (v - 0.25) * 0.9)
}

/// As view `noise8x256` 0.95·v + 0.1·v².
fn with_noise(golden: &Golden, name: &str) -> FeatureSet {
    with_view(golden, name, "noise8x256", |v| 0.95 * v + 0.1 * v * v)
}

#[test]
fn layers_are_tested_jointly_as_by_numpy() {
    let golden = Golden::open();
    let head = golden.head();
    let layered = |name: &str| with_view(&golden, name, "mid", |v| v * v);
    let rows = layered("train.avg");
    let n = rows.len();
    let train = {
        let values = |name: &str| {
            let field = Field::named(name).unwrap();
            let mut values = vec![0.0; n * rows.dim(field).unwrap()];
            rows.read(field, 0..n, &mut values).unwrap();
            values
        };
        let matrix = |values: Vec<f32>| Array2::from_shape_vec((n, values.len() / n), values);
        let set = FeatureSet::in_memory("train").avg(matrix(values("avg")).unwrap());
        let mid = Field::named("mid.avg").unwrap();
        let set = set.field(mid, matrix(values("mid.avg")).unwrap());
        set.labels(golden.train().labels(0..n, head.classes()).unwrap()).build().unwrap()
    };
    let data = TrainingData::new(&train).with_head(&head);
    for (spec, name) in [("jtla", "jtla"), ("jtla(k=5,pairs=false)", "jtla_k5")] {
        let scorer = fitted_as_numpy((spec, name), &data, layered, within(1e-5));
        let said = scorer.score(&golden.set("test.avg")).unwrap_err().to_string();
        assert!(said.contains("features of `mid`"), "{said}");
    }
    refused_with(&data, [(&format!("jtla(k={n})"), "so k must lie in")]);
}

#[test]
fn noisy_images_are_compared_as_by_numpy() {
    let golden = Golden::open();
    let head = golden.head();
    let train = with_noise(&golden, "train.avg");
    let data = TrainingData::new(&train).with_head(&head);
    let set = |probe: &str| with_noise(&golden, probe);
    let scorer = fitted_as_numpy(("odds", "odds"), &data, set, within(1e-5));
    let all = [
        ("odds(epsilon=0.0085)", "in thousandths, from 0.001 to 1"),
        ("odds(epsilon=0)", "in thousandths, from 0.001 to 1"),
        ("odds(noise_samples=0)", "a number from 1 to 1000"),
        ("odds(noise_samples=16)", "`heat extract --views noise8x16` makes it"),
    ];
    refused_with(&data, all);
    let plain = golden.set("test.avg");
    let unfitted = refusal("odds", &TrainingData::new(&plain).with_head(&head));
    for said in [unfitted, scorer.score(&plain).unwrap_err().to_string()] {
        assert!(said.contains("`heat extract --views noise8x256` makes it"), "{said}");
    }
}

/// Kept in single precision, from which the scores are made again; fitted on a set that has no such view.
#[test]
fn passes_with_dropout_are_compared_as_by_numpy() {
    let golden = Golden::open();
    let train = golden.train();
    let data = TrainingData::new(&train);
    let file = TensorFile::open(&path("peer_scorers.safetensors")).unwrap();
    let set = |probe: &str| {
        let probe = probe.strip_suffix(".avg").unwrap();
        let view = ["logits", "probs", "spread"].map(|field| {
            let name = format!("passes.{probe}.{field}");
            let shape = file.shape(&name).unwrap().to_vec();
            let values = file.f32(&name, &shape).unwrap();
            let field = Field::named(&format!("dropout30.{field}")).unwrap();
            (field, Array2::from_shape_vec((shape[0], shape[1]), values).unwrap())
        });
        let set = FeatureSet::in_memory(probe);
        view.into_iter().fold(set, |set, (field, values)| set.field(field, values)).build().unwrap()
    };
    for mode in ["var", "mean", "logits"] {
        let spec = format!("mcd(mode={mode})");
        let scorer = fitted_as_numpy((&spec, &format!("mcd_{mode}")), &data, set, within(1e-6));
        let said = scorer.score(&golden.set("test.avg")).unwrap_err().to_string();
        assert!(said.contains("`heat extract --views dropout30` makes it"), "{said}");
    }
    let all = [
        ("mcd(samples=1)", "a number from 2 to 1000"),
        ("mcd(samples=1001)", "a number from 2 to 1000"),
        ("mcd(mode=most)", "mode"),
    ];
    refused_with(&data, all);
    let spread = Field::named("dropout30.spread").unwrap();
    let one = FeatureSet::in_memory("one").field(spread, Array2::<f32>::ones((4, 1)));
    let scorer = ScorerSpec::parse("mcd").unwrap().fit(&data, &mut Silent).unwrap();
    let said = scorer.score(&one.build().unwrap()).unwrap_err().to_string();
    assert!(said.contains("of one class all passes say the same"), "{said}");
}

#[test]
fn moved_images_are_compared_as_by_numpy() {
    let golden = Golden::open();
    let head = golden.head();
    let train = with_moved(&golden, "train.avg");
    let data = TrainingData::new(&train).with_head(&head);
    for (spec, name) in [
        ("adascale_a", "adascale_a"),
        (
            "adascale_a(min_percentile=60,max_percentile=95,k1=50,k2=20,lmbda=0.5)",
            "adascale_a_wide",
        ),
        ("adascale_l", "adascale_l"),
    ] {
        let set = |probe: &str| with_moved(&golden, probe);
        let scorer = fitted_as_numpy((spec, name), &data, set, within(1e-5));
        let said = scorer.score(&golden.set("test.avg")).unwrap_err().to_string();
        assert!(said.contains("`heat extract --views nudged5` makes it"), "{said}");
    }
    let all = [
        ("adascale_a(o=0.055)", "in hundredths, from 0.01 to 1"),
        ("adascale_a(o=0)", "in hundredths, from 0.01 to 1"),
        ("adascale_l(min_percentile=90)", "larger than max_percentile, 85"),
        ("adascale_l(max_percentile=100)", "between 0 and 100"),
        ("adascale_a(k1=0)", "a percentage of the columns"),
        ("adascale_a(k2=101)", "a percentage of the columns"),
        ("adascale_a(lmbda=-1)", "0 or more"),
        ("adascale_a(num_samples=0)", "at least one row"),
    ];
    refused_with(&data, all);
    let plain = golden.set("train.avg");
    let said = refusal("adascale_a", &TrainingData::new(&plain).with_head(&head));
    assert!(said.contains("`heat extract --views nudged5` makes it"), "{said}");
}

/// SciPy's L-BFGS-B on the same sum, with scores of NumPy: half of the OOD rows, and the others times 1.5.
#[test]
fn weights_against_sets_as_by_scipy() {
    let golden = Golden::open();
    let (train, head) = (golden.train(), golden.head());
    let data = TrainingData::new(&train).with_head(&head);
    let members = ["el", "lid", "norm"].map(|text| {
        Part::new(text, ScorerSpec::parse(text).unwrap().fit(&data, &mut Silent).unwrap())
    });
    let config = CombinedConfig { members: members.into(), beta: 0.0 };
    let ood = golden.set("ood.avg");
    let half = |from: usize, to: usize, by: f32| {
        let mut values = vec![0.0; (to - from) * head.dim()];
        ood.read(Field::named("avg").unwrap(), from..to, &mut values).unwrap();
        let values = values.iter().map(|v| v * by).collect();
        let rows = Array2::from_shape_vec((to - from, head.dim()), values).unwrap();
        FeatureSet::in_memory("half").avg(rows).build().unwrap()
    };
    let middle = ood.len() / 2;
    let against = [half(0, middle, 1.0), half(middle, ood.len(), 1.5)];
    let held_out = golden.set("test.avg");
    let fitted = config.fit_against(&held_out, &against, false, &mut Silent).unwrap();
    let file = TensorFile::open(&path("peer_scorers.safetensors")).unwrap();
    let want = file.f64("against", &[3]).unwrap();
    let found = |name: &str| {
        let member = fitted.scorer().members().iter().find(|m| m.name == name);
        member.map_or(0.0, |m| m.weight)
    };
    for (name, want) in ["el", "lid", "norm"].into_iter().zip(want) {
        assert!((found(name) - want).abs() < 1e-3, "{name}: {} {want}", found(name));
    }
    assert!(fitted.provenance().was_tuned_on(&against[1]).unwrap());
    // What it cannot be weighed against.
    let said = |config: &CombinedConfig, against: &[FeatureSet]| {
        config.fit_against(&held_out, against, false, &mut Silent).err().unwrap().to_string()
    };
    let seen = said(&config, &[against[0].clone(), train.clone()]);
    assert!(seen.contains("is to play OOD") && seen.contains("training rows"), "{seen}");
    let seen = said(&config, std::slice::from_ref(&held_out));
    assert!(seen.contains("is to play OOD"), "{seen}");
    let max = CombinedConfig { beta: 1.0, ..config.clone() };
    assert!(said(&max, &against).contains("for the sum of scores"));
    let alone = CombinedConfig { members: vec![config.members[0].clone()], ..config };
    let ordinary = half(0, middle, 10.0);
    let none = said(&alone, &[ordinary]);
    assert!(none.contains("no member scores the rows"), "{none}");
}

/// Two classes of points on a line, whose logits say on which side of 0 a point lies.
fn line(points: &[(f32, u32)], logits: impl Fn(f32) -> [f32; 2]) -> FeatureSet {
    let avg = Array2::from_shape_fn((points.len(), 1), |(i, _)| points[i].0);
    let logits = Array2::from_shape_fn((points.len(), 2), |(i, c)| logits(points[i].0)[c]);
    let labels: Vec<u32> = points.iter().map(|(_, label)| *label).collect();
    FeatureSet::in_memory("line").avg(avg).logits(logits).labels(labels).build().unwrap()
}

fn scores(spec: &str, train: &FeatureSet, test: &FeatureSet) -> Result<Vec<f32>, String> {
    let fitted = ScorerSpec::parse(spec).unwrap().fit(&TrainingData::new(train), &mut Silent);
    fitted.map_err(|e| e.to_string())?.score(test).map_err(|e| e.to_string())
}

/// By hand, from stored logits without a head: training rows at −3, −2, −1 (class 0) and 1, 2, 3.
#[test]
fn by_hand_from_stored_logits() {
    let side = |x: f32| [-x, x];
    let train = line(&[(-3.0, 0), (-2.0, 0), (-1.0, 0), (1.0, 1), (2.0, 1), (3.0, 1)], side);
    let test = line(&[(2.0, 1), (0.5, 1), (-5.0, 0)], side);
    // Nearest of the own class ÷ nearest of the other.
    assert_eq!(scores("trust", &train, &test).unwrap(), [0.0, 0.5 / 1.5, 2.0 / 6.0]);
    // The farthest of each class left out (±3 and ±1 are equally far from their second neighbour: the first
    // of them goes).
    let without = scores("trust(alpha=0.34,k=2)", &train, &test).unwrap();
    assert_eq!(without, [0.0, 1.5 / 1.5, 3.0 / 7.0]);
    // Of the three nearest: 1, 2, 3; −1, 1, 2; −3, −2, −1.
    assert_eq!(scores("dknn(k=3)", &train, &test).unwrap(), [0.0, 1.0, 0.0]);
    // Distances of −5: 2, 3, 4.
    let want = 3.0 / (4f64 / 2.0).ln().mul_add(1.0, (4f64 / 3.0).ln());
    let got = scores("lid(k=3)", &train, &test).unwrap();
    assert!(got[0] == 0.0 && (f64::from(got[2]) - want).abs() < 1e-6, "{got:?} {want}");
}

#[test]
fn what_cannot_be_fitted_says_why() {
    let side = |x: f32| [-x, x];
    let train = line(&[(-3.0, 0), (-2.0, 0), (-1.0, 0), (1.0, 1), (2.0, 1), (3.0, 1)], side);
    let one_class = line(&[(1.0, 1), (2.0, 1), (3.0, 1)], side);
    for (spec, set, part) in [
        ("lid(k=1)", &train, "two neighbours"),
        ("lid(k=7)", &train, "the index holds 6 rows"),
        ("dknn(k=0)", &train, "k must lie in 1..=6"),
        ("trust(alpha=1)", &train, "below 1"),
        ("trust(alpha=0.5,k=3)", &train, "class 0 has 3 rows, so k must lie in 1..3"),
        ("trust", &one_class, "one alone has rows"),
        ("openmax(tailsize=0)", &train, "at least 1"),
        ("openmax(alpha=0)", &train, "at least 1"),
        ("openmax(euclid_weight=1.5)", &train, "between 0 and 1"),
    ] {
        let error = scores(spec, set, set).unwrap_err();
        assert!(error.contains(part), "{spec}: {error}");
    }
    // Every row is predicted wrongly.
    let wrong = line(&[(-1.0, 1), (1.0, 0)], side);
    let error = scores("openmax", &wrong, &wrong).unwrap_err();
    assert!(error.contains("no class has a correctly predicted row"), "{error}");
    // Classes of one row each and of two: a step, and finite scores.
    let few = line(&[(-2.0, 0), (1.0, 1), (2.0, 1)], side);
    let got = scores("openmax", &few, &few).unwrap();
    assert!(got.iter().all(|v| v.is_finite()), "{got:?}");
    // Without logits or a head nobody knows what is predicted.
    let bare = FeatureSet::from_arrays(Array2::from_elem((3, 1), 1.0f32).view(), None).unwrap();
    for spec in ["dknn", "trust", "openmax", "joint_energy"] {
        let error = scores(spec, &bare, &bare).unwrap_err();
        assert!(error.contains("head") && error.contains("last layer"), "{spec}: {error}");
    }
}
