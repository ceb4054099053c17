//! What calibration promises, simulated on the scores of real rows, and what
//! it refuses. Bounds are the promise plus four standard errors.

use std::path::PathBuf;
use std::sync::Arc;

use crate::common::simulate::*;
use heat_ood::calibrate::drift::DriftConfig;
use heat_ood::calibrate::{CalibrationConfig, Fusion, FusionRule, Guarantee, Ties};
use heat_ood::features::{FeatureSet, Head};
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Detector, Fitted, Provenance, Silent, TrainingData};

fn data(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../heat-cli/data/cifar10-densenet").join(format!("{name}.safetensors"))
}

fn set(name: &str) -> FeatureSet {
    FeatureSet::open(data(name)).unwrap()
}

fn detector(spec: &str) -> Detector {
    let head = Head::open(data("head")).unwrap();
    let scorer = ScorerSpec::parse(spec)
        .unwrap()
        .fit(&TrainingData::new(&set("train")).with_head(&head), &mut Silent);
    Detector::new(scorer.unwrap())
}

fn scores(spec: &str) -> (Vec<f32>, Vec<f32>) {
    let detector = detector(spec);
    (detector.score(&set("test")).unwrap(), detector.score(&set("ood_textures")).unwrap())
}

#[test]
fn p_values_are_uniform_and_rates_keep_their_promise() {
    let (id, _) = scores("knn");
    // 1 % point of Kolmogorov's distribution.
    let distance = kolmogorov_smirnov(&p_values(&id, 500, 1000));
    assert!(distance < 1.63, "{distance}");
    for alpha in [0.01, 0.05, 0.1] {
        let seen = held_out_rates(&id, 500, alpha, 1000);
        let m = mean(&seen);
        let error = (seen.iter().map(|r| (r - m).powi(2)).sum::<f64>() / 999.0 / 1000.0).sqrt();
        assert!(m <= alpha + 4.0 * error, "{alpha}: {m} ± {error}");
        // Not by flagging nothing: the exact expectation is ⌊501 α⌋/501.
        let want = (501.0 * alpha).floor() / 501.0;
        assert!((m - want).abs() <= 4.0 * error, "{alpha}: {m} ± {error}");
    }
    // At most δ = 0.05 of splits are above α: 50 of 1000, and 28 more.
    for (alpha, guarantee) in [
        (0.01, Guarantee::ClopperPearson),
        (0.05, Guarantee::ClopperPearson),
        (0.1, Guarantee::ClopperPearson),
        (0.1, Guarantee::Dkw),
    ] {
        let config = conditional(alpha, 0.05, guarantee);
        let seen = population_rates(&id, 800, &config, 1000);
        let above = seen.iter().filter(|r| **r > alpha).count();
        assert!(above <= 78, "{alpha} {guarantee:?}: {above}");
    }
    // The marginal promise is no such promise.
    let seen = population_rates(&id, 800, &conditional(0.05, 0.05, Guarantee::Marginal), 1000);
    assert!(seen.iter().filter(|r| **r > 0.05).count() > 200);
}

#[test]
fn false_discoveries_stay_below_the_rate() {
    let (id, ood) = scores("knn");
    for rate in [0.1, 0.2] {
        let (false_share, found) = discoveries(&id, &ood, (300, 100), rate, 300);
        assert!(false_share <= rate + 0.02, "{rate}: {false_share}");
        assert!(found > 0.3, "{rate}: {found}");
    }
}

#[test]
fn drift_is_found_and_unchanged_streams_are_not() {
    let (id, ood) = scores("knn");
    let config =
        DriftConfig { alpha: 0.05, horizon: 600, min_admixture: 0.0, ..DriftConfig::default() };
    // α = 0.05 of 400 streams, and four standard errors: 20 + 17.
    let count = |admixture: f64, splits: u64| {
        let change = Change { ood: &ood, admixture, from: 0 };
        (0..splits).filter_map(|s| first_alarm(&id, &change, 400, &config, s)).count()
    };
    let alarms = count(0.0, 400);
    assert!(alarms <= 37, "{alarms}");
    let found = count(0.3, 40);
    assert!(found >= 38, "{found}");
}

#[test]
fn a_calibrated_detector_keeps_its_bits() {
    let directory = tempfile::tempdir().unwrap();
    let head = Head::open(data("head")).unwrap();
    let test = set("test");
    for (per_class, guarantee) in [
        (false, Guarantee::Marginal),
        (true, Guarantee::Marginal),
        (false, Guarantee::Dkw),
        (true, Guarantee::ClopperPearson),
    ] {
        let alpha = if guarantee == Guarantee::Dkw { 0.1 } else { 0.05 };
        let config = CalibrationConfig { per_class, guarantee, alpha, delta: 0.1 };
        let mut detector = detector("gmm");
        detector.calibrate(&config, &test, Some(&head), false, &mut Silent).unwrap();
        let (one, two) = (directory.path().join("1"), directory.path().join("2"));
        detector.save(&one).unwrap();
        let loaded = Detector::open(&one).unwrap();
        loaded.save(&two).unwrap();
        assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
        let ood = set("ood_cifar100");
        for ties in [Ties::Conservative, Ties::Randomized { seed: 3, first: 0 }] {
            let [a, b] = [&detector, &loaded].map(|d| d.predict(&ood, ties, &mut Silent).unwrap());
            assert_eq!(a.verdicts, b.verdicts);
            let flagged = a.verdicts.unwrap().iter().filter(|v| v.ood).count();
            // More than of ordinary rows.
            assert!(flagged as f64 > alpha * ood.len() as f64, "{flagged}");
        }
        assert_eq!(loaded.provenance(), detector.provenance());
        let calibration = loaded.calibration().unwrap();
        assert_eq!(calibration.thresholds().len(), if per_class { 10 } else { 1 });
        assert_eq!(calibration.files.len(), 1);
    }
}

/// Within each predicted class the rate is that of the class: the fraction of
/// calibration rows above its own threshold is exactly (k − 1)/n.
#[test]
fn thresholds_by_class_are_those_of_the_class() {
    let head = Head::open(data("head")).unwrap();
    let config = CalibrationConfig { per_class: true, alpha: 0.1, ..CalibrationConfig::default() };
    let mut detector = detector("el");
    detector.calibrate(&config, &set("test"), Some(&head), false, &mut Silent).unwrap();
    let calibration = detector.calibration().unwrap().clone();
    let judged = detector.predict(&set("test"), Ties::Conservative, &mut Silent).unwrap();
    let verdicts = judged.verdicts.unwrap();
    for (k, group) in calibration.by_class().unwrap().iter().enumerate() {
        let of_class = verdicts.iter().filter(|v| v.class == Some(k as u32));
        let flagged = of_class.clone().filter(|v| v.ood).count();
        assert_eq!(of_class.count(), group.len());
        let rank = (0.1 * (group.len() + 1) as f64).floor() as usize;
        // Energies have no ties here.
        assert_eq!(flagged, rank - 1, "class {k}");
    }
}

#[test]
fn fused_p_values_are_a_detector() {
    let directory = tempfile::tempdir().unwrap();
    let halves = [0..500u32, 500..1000].map(|r| set("test").select(r.collect(), None).unwrap());
    let members = ["el", "knn", "gmm(pooling=std)"].map(|spec| {
        let mut d = detector(spec);
        d.calibrate(&CalibrationConfig::default(), &halves[0], None, false, &mut Silent).unwrap();
        (spec.to_owned(), d.fitted(), d.calibration().unwrap().clone())
    });
    for rule in [FusionRule::Fisher, FusionRule::Stouffer, FusionRule::Cauchy, FusionRule::Simes] {
        let mut fused = Detector::new(Fusion::fit(rule, members.to_vec()).unwrap());
        fused
            .calibrate(&CalibrationConfig::default(), &halves[1], None, false, &mut Silent)
            .unwrap();
        let ood = set("ood_textures");
        let path = directory.path().join("fused");
        fused.save(&path).unwrap();
        let loaded = Detector::open(&path).unwrap();
        let scores = fused.score(&ood).unwrap();
        assert_eq!(scores, loaded.score(&ood).unwrap());
        let id = fused.score(&halves[1]).unwrap();
        let auroc = heat_ood::metrics::auroc(&id, &scores).unwrap();
        assert!(auroc > 0.93, "{rule:?}: {auroc}");
    }
    assert!(Fusion::fit(FusionRule::Fisher, members[..1].to_vec()).is_err());
}

#[test]
fn refusals_say_what_to_do() {
    let mut detector = detector("el");
    let head = Head::open(data("head")).unwrap();
    let test = set("test");
    let mut refusal = |config: CalibrationConfig, set: &FeatureSet, head: Option<&Head>| {
        detector.calibrate(&config, set, head, false, &mut Silent).unwrap_err().to_string()
    };
    let base = CalibrationConfig::default();
    for alpha in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
        let error = refusal(CalibrationConfig { alpha, ..base.clone() }, &test, None);
        assert!(error.starts_with("`alpha` = ") && error.contains("strictly between"), "{error}");
    }
    let strict = CalibrationConfig { delta: 0.0, guarantee: Guarantee::Dkw, ..base.clone() };
    assert!(refusal(strict, &test, None).starts_with("`delta` = 0"));
    // 1/0.0005 − 1.
    let error = refusal(CalibrationConfig { alpha: 0.0005, ..base.clone() }, &test, None);
    assert!(error.contains("1000 calibration rows") && error.contains("at least 1999"), "{error}");
    let by_class = CalibrationConfig { alpha: 0.005, per_class: true, ..base.clone() };
    let error = refusal(by_class.clone(), &test, Some(&head));
    assert!(error.contains("predicted as class 0") && error.contains("at least 199"), "{error}");
    let error = refusal(by_class, &test, None);
    assert!(error.contains("last layer"), "{error}");
    // The training file itself, and half of its rows under another name.
    let error = refusal(base.clone(), &set("train"), None);
    assert!(error.contains("3000 of 3000 rows") && error.contains("or insist"), "{error}");
    let some = set("train").select((0..1500).collect(), None).unwrap();
    let error = refusal(base.clone(), &some, None);
    assert!(error.contains("1500 of 1500") && error.contains("are training rows"), "{error}");
    // Without a sample of its rows, by file.
    let provenance = Provenance { train: set("train").digests().unwrap(), ..Provenance::default() };
    let mut bare = Detector::new(Fitted::from_parts(detector.scorer().clone(), provenance));
    let error = bare.calibrate(&base, &set("train"), None, false, &mut Silent).unwrap_err();
    assert!(error.to_string().contains("is the training file"), "{error}");
    // Other rows of the file that was trained on are no training rows.
    let (first, rest) =
        [0..2000u32, 2000..3000].map(|r| set("train").select(r.collect(), None).unwrap()).into();
    let spec = ScorerSpec::parse("el").unwrap();
    let data = TrainingData::new(&first).with_head(&head);
    let mut detector = Detector::new(spec.fit(&data, &mut Silent).unwrap());
    detector.calibrate(&base, &rest, None, false, &mut Silent).unwrap();
    detector.calibrate(&base, &some, None, true, &mut Silent).unwrap();
    let calibration = detector.calibration().unwrap();
    assert!(calibration.with_alpha(0.0).is_err());
    assert!(calibration.with_alpha(1e-5).err().unwrap().to_string().contains("99999"));
    assert!(Arc::clone(calibration).with_alpha(0.2).is_ok());
}

/// Scores with the classes that the logits say: by scorers that read these, by one that does not,
/// and on rows whose logits are no numbers, which only the latter takes.
#[test]
fn named_classes_come_with_the_scores() {
    let names = ["ant", "bee", "cat"].map(str::to_owned).to_vec();
    let (n, dim) = (700, 4);
    let avg = |i: usize, j: usize| ((i * 7 + j * 3) % 11) as f32;
    let logits = |i: usize, j: usize| ((i * 5 + j * 4) % 7) as f32;
    let matrix = |columns, value: &dyn Fn(usize, usize) -> f32| {
        ndarray::Array2::from_shape_fn((n, columns), |(i, j)| value(i, j))
    };
    let set = |logits: &dyn Fn(usize, usize) -> f32| {
        let set = FeatureSet::in_memory("rows")
            .avg(matrix(dim, &avg))
            .logits(matrix(3, logits))
            .labels((0..n).map(|i| (i % 3) as i64));
        set.class_names(names.clone()).unwrap().build().unwrap()
    };
    let train = set(&logits);
    // The first of equal ones.
    let largest = |i: usize| (1..3).fold(0, |k, j| if logits(i, j) > logits(i, k) { j } else { k });
    let want: Vec<u32> = (0..n).map(|i| largest(i) as u32).collect();
    let broken = set(&|i, j| if i == 400 { f32::NAN } else { logits(i, j) });
    for (text, of_logits) in [("el", true), ("msp", true), ("norm", false)] {
        let spec = ScorerSpec::parse(text).unwrap();
        let mut detector =
            Detector::new(spec.fit(&TrainingData::new(&train), &mut Silent).unwrap());
        for calibrated in [false, true] {
            if calibrated {
                let config = CalibrationConfig::default();
                detector.calibrate(&config, &train, None, true, &mut Silent).unwrap();
            }
            let found = detector.predict(&train, Ties::Conservative, &mut Silent).unwrap();
            assert_eq!(found.classes.as_ref(), Some(&want), "{text}");
            assert_eq!(found.class_names, names);
            assert_eq!(found.scores, detector.score(&train).unwrap(), "{text}");
            assert_eq!(found.verdicts.is_some(), calibrated);
            let broken = detector.predict(&broken, Ties::Conservative, &mut Silent);
            match of_logits {
                true => assert!(broken.unwrap_err().to_string().contains("row 400, column 0")),
                false => assert_eq!(broken.unwrap().classes, None),
            }
        }
    }
}
