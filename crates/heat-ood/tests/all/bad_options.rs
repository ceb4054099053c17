//! Every option of a scorer that must be refused, with its error.

use heat_ood::features::{FeatureSet, Head};
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Fit, Silent, TrainingData, Warnings};
use ndarray::Array2;

const DIM: usize = 6;

fn train(labels: Option<&[u32]>) -> FeatureSet {
    let rows = Array2::from_shape_fn((60, DIM), |(i, j)| {
        ((i * DIM + j) as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32
    });
    FeatureSet::from_arrays(rows.view(), labels).unwrap()
}

fn head() -> Head {
    let weight = (0..3 * DIM).map(|i| ((i * 7) % 5) as f32 - 2.0).collect();
    Head::new(weight, vec![0.1, 0.2, 0.3]).unwrap()
}

fn refusal(text: &str, labels: &[u32], head: Option<&Head>) -> String {
    let fitted = ScorerSpec::parse(text).and_then(|spec| {
        spec.fit(&TrainingData::new(&train(Some(labels))).with_head(head), &mut Silent)
    });
    fitted.err().unwrap_or_else(|| panic!("{text} was fitted")).to_string()
}

#[test]
fn each_option_has_its_error() {
    let labels: Vec<u32> = (0..60).map(|i| i % 3).collect();
    for (text, part) in [
        ("gmm(react=1.5)", "`react` = 1.5: a quantile lies between 0 and 1"),
        ("gmm(pca=0)", "`pca` = 0: between 1 and 6 components"),
        ("knn(pca=7)", "`pca` = 7: between 1 and 6 components"),
        ("vim(whiten=true)", "whitening needs `pca=<n>`"),
        ("el(whiten=true)", "whitening needs `pca=<n>`"),
        ("gmm(pooling=max)", "has no `max`"),
        ("gmm(pooling=median)", "pooling"),
        ("gmm(kmeans=0)", "`kmeans` = 0: must lie in 1..=60"),
        ("ssd(kmeans=61)", "`kmeans` = 61: must lie in 1..=60"),
        ("gmm(shrinkage=-1)", "a ratio is a number ≥ 0"),
        ("gmm(shrinkage=nan)", "takes finite numbers alone"),
        ("gmm(shrinkage=lots)", "expected none, ledoit_wolf, oas, held_out_classes, or a ratio"),
        ("maha(normalize=true)", "use `ssd`"),
        ("knn(k=0)", "k must lie in 1..=60"),
        ("vim(principal_dim=6)", "must be below the dimension 6"),
        ("vim(pca=4,principal_dim=4)", "must be below the dimension 4"),
        ("dice(percentile=100)", "a percentile lies between 0 and 100"),
        ("dice(percentile=-1)", "a percentile lies between 0 and 100"),
        ("odin(temperature=0)", "must be a positive number"),
        ("odin(epsilon=0.0014)", "needs the network"),
        ("mean(reduce=median)", "reduce"),
        ("norm(k=3)", "unknown key `norm.k`"),
        ("klm(percentile=3)", "unknown key `klm.percentile`"),
        ("mena", "did you mean `mean`?"),
        // Of the head.
        ("react(react=1.2)", "`react` = 1.2: a quantile lies between 0 and 1"),
        ("react(percentile=90)", "unknown key `react.percentile`"),
        ("ash_p(percentile=100)", "a percentile lies between 0 and 100"),
        ("ash_b(percentile=-1)", "a percentile lies between 0 and 100"),
        ("ash_s(percentile=nan)", "takes finite numbers alone"),
        ("scale(percentile=95)", "`percentile` = 95: keeps none of 6 activations"),
        ("lts(pca=2,percentile=80)", "`percentile` = 80: keeps none of 2 activations"),
        ("vra(low=-0.1)", "`low` = -0.1: a quantile lies between 0 and 1"),
        ("vra(high=95)", "`high` = 95: a quantile lies between 0 and 1"),
        ("vra(low=0.99)", "`low` = 0.99: must not exceed `high`, which is 0.9"),
        ("gen(gamma=0)", "`gamma` = 0: must be a positive number"),
        ("gen(m=0)", "`m` = 0: must be at least 1"),
        ("temperature(temperature=-2)", "`temperature` = -2: must be a positive number"),
        ("gradnorm(temperature=inf)", "takes finite numbers alone"),
        ("fdbd(normalizer=mean)", "normalizer"),
        ("nci(alpha=-1)", "`alpha` = -1: must be a number ≥ 0"),
        ("neco(dim=0)", "`dim` = 0: must lie in 1..=6"),
        ("neco(pca=4,dim=5)", "`dim` = 5: must lie in 1..=4"),
        ("mds_pp(normalize=false)", "use `maha`"),
        ("rmds(normalize=true)", "use `rmds_pp`"),
        ("rmds_pp(normalize=false)", "use `rmds`"),
        ("rmds(shrinkage=-1)", "a ratio is a number ≥ 0"),
        ("residual(principal_dim=6)", "must be below the dimension 6"),
        ("cadref(confidence=entropy)", "confidence"),
        ("cadref(decoupled=false,confidence=msp)", "leave it out"),
        ("kpca(explained=1)", "a fraction of the variance lies between 0 and 1"),
        ("kpca(explained=0.999999999)", "choose a smaller `explained`"),
        ("kpca(gamma=1)", "goes with `kernel=corp`"),
        ("kpca(seed=1)", "goes with `kernel=corp`"),
        ("kpca(kernel=corp,gamma=0)", "must be a positive number"),
        ("kpca(kernel=corp,features=1)", "between 2 and 16384 Fourier features"),
        ("kpca(kernel=rbf)", "kernel"),
        ("nnguide(k=0)", "k must lie in 1..=60"),
        ("nnguide(k=61)", "k must lie in 1..=60"),
        ("cfood(alpha=0)", "a fraction is above 0 and at most 1"),
        ("cfood(alpha=0.02)", "two are the fewest"),
        ("cfood(k=1.5)", "a fraction is above 0 and at most 1"),
        ("relation(threshold=1)", "relations lie between 0 and 1"),
        ("relation(power=0)", "must be a positive number"),
        ("weiper(repeats=0)", "copies of 3 classes in 6 dimensions"),
        ("weiper(bins=1)", "between 2 and 65536 bins"),
        ("weiper(distance=-1)", "must be a number ≥ 0"),
        ("weiper(smoothing=101)", "between 1 and all 100 bins"),
    ] {
        let error = refusal(text, &labels, Some(&head()));
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let labels: Vec<u32> = (0..60).map(|i| i % 3).collect();
    for name in [
        "vim",
        "dice",
        "cosine",
        "el",
        "klm",
        "odin",
        "msp",
        "max_logit",
        "residual",
        "cadref",
        "nnguide",
        "relation",
        "weiper",
    ] {
        let error = refusal(name, &labels, None);
        assert!(error.contains("head") && error.contains("last layer"), "{name}: {error}");
    }
    for name in [
        "react",
        "ash_p",
        "ash_b",
        "ash_s",
        "scale",
        "lts",
        "vra",
        "gen",
        "entropy",
        "temperature",
        "she",
        "gradnorm",
        "fdbd",
        "nci",
        "neco",
        "pnml",
    ] {
        let error = refusal(name, &labels, None);
        assert!(error.contains("head") && error.contains("last layer"), "{name}: {error}");
    }
    let set = train(None);
    for name in ["gmm", "ssd", "maha", "mean", "mds_pp", "rmds", "rmds_pp"] {
        let error = ScorerSpec::parse(name)
            .unwrap()
            .fit(&TrainingData::new(&set), &mut Silent)
            .err()
            .unwrap();
        assert!(error.to_string().contains("class indices"), "{name}: {error}");
    }
    for name in ["temperature", "she"] {
        let spec = ScorerSpec::parse(name).unwrap();
        let error =
            spec.fit(&TrainingData::new(&set).with_head(&head()), &mut Silent).err().unwrap();
        assert!(error.to_string().contains("class indices"), "{name}: {error}");
    }
    // A temperature that is given needs none, nor does K-means.
    let spec = ScorerSpec::parse("temperature(temperature=2)").unwrap();
    assert!(spec.fit(&TrainingData::new(&set).with_head(&head()), &mut Silent).is_ok());
    let spec = ScorerSpec::parse("gmm(kmeans=4)").unwrap();
    assert!(spec.fit(&TrainingData::new(&set), &mut Silent).is_ok());
}

#[test]
fn classes_that_cannot_be_fitted() {
    let gap: Vec<u32> = (0..60).map(|i| if i % 2 == 0 { 0 } else { 2 }).collect();
    // Classes without rows take no part.
    for name in ["mean", "gmm"] {
        let data = TrainingData::new(&train(Some(&gap))).with_classes(3);
        assert!(ScorerSpec::parse(name).unwrap().fit(&data, &mut Silent).is_ok(), "{name}");
    }
    let one = vec![0; 60];
    let error = refusal("gmm(shrinkage=held_out_classes)", &one, None);
    assert!(error.contains("at least two classes"), "{error}");
    let zero = Head::new(vec![0.0; 3 * DIM], vec![0.0; 3]).unwrap();
    assert!(refusal("cosine", &one, Some(&zero)).contains("row 0 of the head's weight is zero"));
}

/// A head that never predicts class 2 leaves `klm` two templates, and says so.
#[test]
fn a_class_never_predicted_is_told() {
    let mut weight = vec![1.0; 3 * DIM];
    weight[..DIM].iter_mut().enumerate().for_each(|(i, w)| *w = i as f32 / 2.5);
    weight[2 * DIM..].fill(-5.0);
    let head = Head::new(weight, vec![0.0; 3]).unwrap();
    let mut warnings = Warnings::default();
    let set = train(None);
    let klm = ScorerSpec::parse("klm")
        .unwrap()
        .fit(&TrainingData::new(&set).with_head(&head), &mut warnings)
        .unwrap();
    assert_eq!(warnings.0.len(), 1);
    let want = "1 of 3 classes are never predicted on memory and have no template (2)";
    assert_eq!(warnings.0[0], want);
    assert!(klm.score(&set).unwrap().iter().all(|s| s.is_finite() && *s >= -1e-6));
}

/// Labels that are the head's own predictions leave no best temperature;
/// labels that it never predicts, no pattern.
#[test]
fn fits_that_have_no_answer() {
    let mut weight = vec![0.0; 3 * DIM];
    (0..3).for_each(|k| weight[k * DIM + k] = 1.0);
    let head = Head::new(weight, vec![0.0; 3]).unwrap();
    let rows = Array2::from_shape_fn((60, DIM), |(i, j)| f32::from(u8::from(i % 3 == j)));
    let own: Vec<u32> = (0..60).map(|i| i % 3).collect();
    let set = FeatureSet::from_arrays(rows.view(), Some(&own)).unwrap();
    let mut warnings = Warnings::default();
    let config = heat_ood::scorers::TemperatureConfig::default();
    let fitted = config.fit(&TrainingData::new(&set).with_head(&head), &mut warnings).unwrap();
    assert_eq!(fitted.temperature(), 1.0);
    let want = "no temperature is best on memory, where every row is predicted correctly";
    assert!(warnings.0.len() == 1 && warnings.0[0].starts_with(want), "{:?}", warnings.0);

    let others: Vec<u32> = (0..60).map(|i| (i + 1) % 3).collect();
    let set = FeatureSet::from_arrays(rows.view(), Some(&others)).unwrap();
    let mut warnings = Warnings::default();
    let fitted = config.fit(&TrainingData::new(&set).with_head(&head), &mut warnings).unwrap();
    assert_eq!(fitted.temperature(), 1.0);
    assert!(warnings.0[0].contains("no better than chance"), "{:?}", warnings.0);
    let she = ScorerSpec::parse("she")
        .unwrap()
        .fit(&TrainingData::new(&set).with_head(&head), &mut Silent);
    let error = she.err().unwrap().to_string();
    assert!(error.contains("no row of memory is predicted correctly"), "{error}");

    let zeros = Array2::zeros((4, DIM));
    let set = FeatureSet::from_arrays(zeros.view(), None).unwrap();
    let pnml = ScorerSpec::parse("pnml")
        .unwrap()
        .fit(&TrainingData::new(&set).with_head(&head), &mut Silent);
    let error = pnml.err().unwrap().to_string();
    assert!(error.contains("all training features are zero"), "{error}");
}
