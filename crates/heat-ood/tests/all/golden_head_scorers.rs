//! Scorers of features and head against other implementations:
//! `golden/make_head_scorers.py` says which.

use crate::common;

use common::{Golden, close, path};
use heat_ood::Silent;
use heat_ood::io::TensorFile;
use heat_ood::scorers::{Scorer, ScorerSpec, TemperatureConfig};
use heat_ood::{Fit, TrainingData};

fn wanted(name: &str) -> Vec<f32> {
    let file = TensorFile::open(&path("head_scorers.safetensors")).unwrap();
    let shape = file.shape(name).unwrap().to_vec();
    file.f64(name, &shape).unwrap().into_iter().map(|v| v as f32).collect()
}

fn compare(spec: &str, name: &str, tolerance: f64) {
    let golden = Golden::open();
    let parsed = ScorerSpec::parse(spec).unwrap();
    let scorer = parsed
        .fit(&TrainingData::new(&golden.train()).with_head(&golden.head()), &mut Silent)
        .unwrap();
    for probe in ["test", "ood"] {
        let got = scorer.score(&golden.set(&format!("{probe}.avg"))).unwrap();
        close(&format!("{spec} {probe}"), &got, &wanted(&format!("{name}.{probe}")), tolerance);
    }
}

#[test]
fn scores() {
    for (spec, name) in [
        ("react(react=0.8)", "react.80"),
        ("ash_p", "ash_p.90"),
        ("ash_p(percentile=65)", "ash_p.65"),
        ("ash_b", "ash_b.90"),
        ("ash_b(percentile=65)", "ash_b.65"),
        ("ash_s", "ash_s.90"),
        ("ash_s(percentile=65)", "ash_s.65"),
        ("scale(percentile=65)", "scale.65"),
        ("scale", "scale.85"),
        ("lts(percentile=70)", "lts.70"),
        ("lts", "lts.95"),
        ("vra", "vra"),
        ("vra(low=0.05,high=0.9,clip=true)", "vra_clip"),
        ("gen", "gen"),
        ("gen(gamma=0.5,m=2)", "gen.g05_m2"),
        ("entropy", "entropy"),
        ("temperature", "temperature"),
        ("gradnorm", "gradnorm"),
        ("gradnorm(temperature=3)", "gradnorm.t3"),
        ("fdbd(normalizer=norm)", "fdbd.norm"),
        ("fdbd(normalizer=none)", "fdbd.none"),
        ("neco", "neco"),
        ("neco(dim=7,standardize=false,max_logit=false)", "neco.ratio"),
    ] {
        compare(spec, name, 1e-5);
    }
    // Computed in f32 there.
    for (spec, name) in
        [("she", "she"), ("fdbd", "fdbd"), ("nci(alpha=0.01)", "nci"), ("pnml", "pnml")]
    {
        compare(spec, name, 1e-4);
    }
}

/// `react` is `el` with the step, to the bit.
#[test]
fn react_is_a_step_of_el() {
    let golden = Golden::open();
    let (train, head, test) = (golden.train(), golden.head(), golden.set("test.avg"));
    let score = |spec: &str| {
        let spec = ScorerSpec::parse(spec).unwrap();
        spec.fit(&TrainingData::new(&train).with_head(&head), &mut Silent)
            .unwrap()
            .score(&test)
            .unwrap()
    };
    assert_eq!(score("react"), score("el(react=0.9)"));
    assert_eq!(score("react(pca=8)"), score("el(react=0.9,pca=8)"));
}

/// The minimum is found to far more digits than scores need.
#[test]
fn temperature_is_that_of_the_likeliest() {
    let golden = Golden::open();
    let fit = |config: TemperatureConfig| {
        config
            .fit(&TrainingData::new(&golden.train()).with_head(&golden.head()), &mut Silent)
            .unwrap()
    };
    let got = fit(TemperatureConfig::default());
    let want = f64::from(wanted("temperature.t")[0]);
    assert!((got.temperature() / want - 1.0).abs() < 1e-6, "{} {want}", got.temperature());
    let given = fit(TemperatureConfig { temperature: Some(2.5), ..Default::default() });
    assert_eq!(given.temperature(), 2.5);
    assert_eq!(given.name(), "temperature");
}
