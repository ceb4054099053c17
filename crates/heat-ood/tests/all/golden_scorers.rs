//! Scorers against the published implementation's values.

use crate::common;

use common::{C, D, Golden, close};
use heat_ood::Silent;
use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::features::{FeatureSet, Pooling};
use heat_ood::scorers::{GmmConfig, Prior, Scorer, ScorerSpec, Scratch, Shrinkage};
use heat_ood::{Fit, TrainingData};
use ndarray::ArrayView2;

/// Relative, as METHOD asks.
const TOLERANCE: f64 = 1e-4;

#[test]
fn scores_of_every_scorer() {
    let golden = Golden::open();
    let (train, head) = (golden.train(), golden.head());
    for (spec, name) in [
        ("max_logit", "max_logit"),
        ("el", "energy_logits"),
        ("el(react=0.9)", "energy_logits_react_p90"),
        ("knn(k=5)", "knn_k5_normalized"),
        ("knn(k=10,normalize=false)", "knn_k10_raw"),
        ("ssd", "ssd_normalized"),
        ("maha", "mahalanobis"),
        ("ssd(diagonal=true)", "ssd_diag"),
        ("ssd(pca=8)", "ssd_pca"),
        ("gmm", "ssd_normalized.gmm_energy"),
        ("gmm(normalize=false)", "mahalanobis.gmm_energy"),
        ("gmm(diagonal=true)", "ssd_diag.gmm_energy"),
        ("gmm(pca=8)", "ssd_pca.gmm_energy"),
        ("klm", "klm"),
        ("cosine", "cosine"),
        ("dice(percentile=70)", "dice_p70"),
        ("dice(percentile=10)", "dice_p10"),
        ("vim(principal_dim=8,center=mean)", "vim_d8"),
        ("mean", "mean_max"),
        ("mean(reduce=logsumexp)", "mean_logsumexp"),
        ("norm", "norm"),
    ] {
        let spec = ScorerSpec::parse(spec).unwrap();
        let scorer = spec.fit(&TrainingData::new(&train).with_head(&head), &mut Silent).unwrap();
        for probe in ["test", "ood"] {
            let got = scorer.score(&golden.set(&format!("{probe}.avg"))).unwrap();
            close(
                &format!("{spec} {probe}"),
                &got,
                &golden.get(&format!("{name}.{probe}")),
                TOLERANCE,
            );
        }
    }
}

/// The published score is −max softmax, one less than ours (METHOD §3).
#[test]
fn msp_is_one_more_than_published() {
    let golden = Golden::open();
    let spec = ScorerSpec::parse("msp").unwrap();
    let scorer = spec
        .fit(&TrainingData::new(&golden.train()).with_head(&golden.head()), &mut Silent)
        .unwrap();
    for probe in ["test", "ood"] {
        let got = scorer.score(&golden.set(&format!("{probe}.avg"))).unwrap();
        let published = golden.get(&format!("msp.{probe}"));
        assert_eq!(got.len(), published.len());
        for (got, published) in got.iter().zip(published) {
            // Published in single precision near −1, where numbers are spaced by 6e-8.
            assert!((got - (published + 1.0)).abs() <= 5e-7, "{probe}: {got} {published}");
        }
    }
}

#[test]
fn react_threshold() {
    let golden = Golden::open();
    let config = heat_ood::features::PreprocessingConfig { react: Some(0.9), ..Default::default() };
    let steps = config.fit(&golden.train(), Pooling::Avg).unwrap();
    close("threshold", &[steps.react.unwrap()], &golden.get("react_p90.threshold"), 1e-7);
}

fn variants() -> [(&'static str, GmmConfig); 4] {
    let base = GmmConfig::default();
    [
        ("ssd_normalized", base.clone()),
        ("mahalanobis", GmmConfig { normalize: false, ..base.clone() }),
        ("ssd_diag", GmmConfig { diagonal: true, ..base.clone() }),
        ("ssd_pca", GmmConfig { pca: Some(8), ..base }),
    ]
}

#[test]
fn gaussian_parameters_and_gradients() {
    let golden = Golden::open();
    for (name, config) in variants() {
        let gmm =
            config.fit(&TrainingData::new(&golden.train()).with_classes(C), &mut Silent).unwrap();
        let d = gmm.dim();
        let get = |n: &str| golden.get(&format!("{name}.{n}"));
        let single = |x: &[f64]| x.iter().map(|&v| v as f32).collect::<Vec<_>>();
        close(name, &single(gmm.mixture_probs()), &get("mixture_probs"), TOLERANCE);
        // Principal components have no sign of their own: take the published ones'.
        let (ours, theirs) = (single(gmm.means()), get("means"));
        let sign: Vec<f32> = (0..d)
            .map(|j| (0..C).map(|k| ours[k * d + j] * theirs[k * d + j]).sum::<f32>().signum())
            .collect();
        assert!(name == "ssd_pca" || sign.iter().all(|s| *s == 1.0));
        let signed = |x: &[f32]| -> Vec<f32> {
            x.iter().enumerate().map(|(i, v)| v * sign[i % d]).collect()
        };
        close(name, &signed(&ours), &theirs, TOLERANCE);
        // L Lᵀ is what the sign leaves alone up to rows and columns.
        let square = |l: &[f32], s: &dyn Fn(usize) -> f32| -> Vec<f32> {
            let entry = |i: usize, j: usize| {
                (0..d).map(|p| f64::from(l[i * d + p]) * f64::from(l[j * d + p])).sum::<f64>()
                    as f32
            };
            (0..d * d).map(|x| entry(x / d, x % d) * s(x / d) * s(x % d)).collect()
        };
        let ours = square(&single(gmm.scale_tril()), &|i| sign[i]);
        close(name, &ours, &square(&get("scale_tril"), &|_| 1.0), TOLERANCE);
        if name != "ssd_pca" {
            close(name, &single(gmm.scale_tril()), &get("scale_tril"), TOLERANCE);
        }
        let z = gmm.steps().apply(&golden.get("test.avg"), D);
        let mut grad = vec![0.0; z.len()];
        gmm.add_gradient(&z, 1.0, &mut grad, &mut Scratch::default());
        close(name, &signed(&grad), &get("gmm_energy_grad.test"), TOLERANCE);
        // It adds, scaled.
        gmm.add_gradient(&z, -0.5, &mut grad, &mut Scratch::default());
        let half: Vec<f32> = get("gmm_energy_grad.test").iter().map(|v| v / 2.0).collect();
        close(name, &signed(&grad), &half, TOLERANCE);
    }
}

#[test]
fn energy_given_label() {
    let golden = Golden::open();
    let gmm = GmmConfig::default()
        .fit(&TrainingData::new(&golden.train()).with_classes(C), &mut Silent)
        .unwrap();
    let z = gmm.steps().apply(&golden.get("test.avg"), D);
    let labels = golden.integers("ssd_normalized.labels");
    let mut out = vec![0.0; labels.len()];
    gmm.energy_given_label(&z, &labels, &mut out);
    close(
        "given label",
        &out,
        &golden.get("ssd_normalized.gmm_energy_given_label.test"),
        TOLERANCE,
    );
}

#[test]
fn gaussian_samples_have_its_moments() {
    let golden = Golden::open();
    let gmm = GmmConfig::default()
        .fit(&TrainingData::new(&golden.train()).with_classes(C), &mut Silent)
        .unwrap();
    let n = 200_000;
    let labels = vec![2; n];
    let mut out = vec![0.0; n * D];
    let mut stream = heat_ood::math::rng::Stream::new(1, heat_ood::math::rng::Purpose::User, 0, 0);
    gmm.sample(&mut stream, Some(&labels), None, &mut out, &mut Scratch::default()).unwrap();
    let l = gmm.scale_tril();
    for (i, j) in [(0, 0), (3, 1), (23, 23), (20, 5)] {
        let mean = |i: usize| gmm.means()[2 * D + i];
        let cov: f64 = (0..D).map(|p| l[i * D + p] * l[j * D + p]).sum();
        let sd = |i: usize| (0..D).map(|p| l[i * D + p].powi(2)).sum::<f64>().sqrt();
        let got: f64 = out
            .chunks(D)
            .map(|r| (f64::from(r[i]) - mean(i)) * (f64::from(r[j]) - mean(j)))
            .sum::<f64>()
            / n as f64;
        assert!((got - cov).abs() < 6.0 * 2.0 * sd(i) * sd(j) / (n as f64).sqrt(), "{i} {j}");
    }
    // Without labels: components in the mixture's proportions.
    gmm.sample(&mut stream, None, None, &mut out, &mut Scratch::default()).unwrap();
    let got: f64 = out.chunks(D).map(|r| f64::from(r[0])).sum::<f64>() / n as f64;
    let want: f64 = (0..C).map(|k| gmm.mixture_probs()[k] * gmm.means()[k * D]).sum();
    assert!((got - want).abs() < 1e-3, "{got} {want}");
}

/// β = 0, +∞, −∞, −1.5 and 2, standardised over the whole training set.
#[test]
fn compositions() {
    let golden = Golden::open();
    let data = TrainingData::new(&golden.train()).with_head(&golden.head());
    let members = || {
        ["el", "ssd", "knn(k=5)"].map(|text| {
            let scorer = ScorerSpec::parse(text).unwrap().fit(&data, &mut Silent);
            Part::new(text, scorer.unwrap())
        })
    };
    for (beta, name) in [
        (0.0, "sum"),
        (f64::INFINITY, "max"),
        (f64::NEG_INFINITY, "min"),
        (-1.5, "lse_m1p5"),
        (2.0, "lse_2"),
    ] {
        let config = CombinedConfig { members: members().into(), beta };
        let combined = config.fit(&data, &mut Silent).unwrap();
        for probe in ["test", "ood"] {
            let got = combined.score(&golden.set(&format!("{probe}.avg"))).unwrap();
            let want = golden.get(&format!("combine_el_ssd_knn.{name}.{probe}"));
            close(&format!("{name} {probe}"), &got, &want, TOLERANCE);
        }
    }
}

/// Six score pairs with ties, constants and one-element sets.
#[test]
fn metrics() {
    let text = std::fs::read_to_string(common::path("metrics.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 6);
    for (i, case) in cases.iter().enumerate() {
        let scores = |key: &str| -> Vec<f32> {
            let all = case[key].as_array().unwrap();
            all.iter().map(|v| v.as_f64().unwrap() as f32).collect()
        };
        let m = heat_ood::metrics::evaluate(&scores("id"), &scores("ood")).unwrap();
        for (key, got) in [
            ("auroc", m.auroc),
            ("fpr95_id_positive", m.fpr95_id_positive),
            ("fpr95_ood_positive", m.fpr95_ood_positive),
            ("aupr_in", m.aupr_in),
            ("aupr_out", m.aupr_out),
            ("detection_accuracy", m.detection_accuracy),
        ] {
            let want = case[key].as_f64().unwrap();
            assert!((got - want).abs() < 1e-9, "case {i}, {key}: {got} {want}");
        }
    }
}

/// scikit-learn 1.9.1 on the normalised rows of `train.avg` less their class
/// means, in f64: `LedoitWolf(assume_centered=True).fit(Z).shrinkage_`, OAS likewise.
#[test]
fn shrinkage_as_scikit_learn() {
    let golden = Golden::open();
    let fit = |text: &str| {
        let spec = ScorerSpec::parse(&format!("gmm(shrinkage={text})")).unwrap();
        let config: GmmConfig = spec.settings.try_into().unwrap();
        config.fit(&TrainingData::new(&golden.train()).with_classes(C), &mut Silent).unwrap()
    };
    for (name, want) in [("ledoit_wolf", 0.08591694702068678), ("oas", 0.08977455839633953)] {
        let [keep, add] = fit(name).shrinkage_weights();
        assert!((add - want).abs() < 1e-6 && (keep + add - 1.0).abs() < 1e-12, "{name}: {add}");
    }
    assert_eq!(fit("none").shrinkage_weights(), [1.0, 0.0]);
    assert_eq!(fit("0.5").shrinkage_weights(), [1.0, 0.5]);
    // Σ + ρ·mean(diag Σ)·I, entry by entry.
    let square = |l: &[f64], i: usize, j: usize| -> f64 {
        (0..D).map(|p| l[i * D + p] * l[j * D + p]).sum()
    };
    let (plain, shrunk) = (fit("none"), fit("2"));
    // Both have the ridge of 1e-12 on their diagonals.
    let trace: f64 = (0..D).map(|i| square(plain.scale_tril(), i, i)).sum();
    let mean = trace / D as f64 - 1e-12;
    for (i, j) in [(0, 0), (5, 3), (23, 23)] {
        let want = square(plain.scale_tril(), i, j) + if i == j { 2.0 * mean } else { 0.0 };
        assert!((square(shrunk.scale_tril(), i, j) - want).abs() < 1e-12);
    }
}

/// NumPy 2.4.6 in f64: `golden/make_shrinkage.py`. The formulas of the full
/// matrix gave 0.915 and 0.893.
#[test]
fn shrinkage_of_variances_alone() {
    let golden = Golden::open();
    for (name, want) in [("ledoit_wolf", 0.07423944574147001), ("oas", 0.07437413610392361)] {
        let spec = ScorerSpec::parse(&format!("gmm(shrinkage={name},diagonal=true)")).unwrap();
        let config: GmmConfig = spec.settings.try_into().unwrap();
        let gmm =
            config.fit(&TrainingData::new(&golden.train()).with_classes(C), &mut Silent).unwrap();
        let [keep, add] = gmm.shrinkage_weights();
        assert!((add - want).abs() < 1e-8 && (keep + add - 1.0).abs() < 1e-12, "{name}: {add}");
    }
}

/// NumPy 2.4.6 in f64: `golden/make_shrinkage.py`. Of 40 rows one ratio is
/// best, of 60 and of all several share the AUROC of 1: the least of them.
#[test]
fn ratios_chosen_by_held_out_classes() {
    let golden = Golden::open();
    let (values, labels) = (golden.get("train.avg"), golden.integers("train.label"));
    for (rows, want) in [(40, 10.0), (60, 0.1), (labels.len(), 0.0)] {
        let view = ArrayView2::from_shape((rows, D), &values[..rows * D]).unwrap();
        let train = FeatureSet::from_arrays(view, Some(&labels[..rows])).unwrap();
        let config = GmmConfig { shrinkage: Shrinkage::HeldOutClasses, ..GmmConfig::default() };
        let gmm = config.fit(&TrainingData::new(&train).with_classes(C), &mut Silent).unwrap();
        assert_eq!(gmm.shrinkage_weights(), [1.0, want], "{rows} rows");
    }
}
