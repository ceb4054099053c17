//! Every option of a scorer that must be refused, with its error.

use heat_ood::features::{FeatureSet, Head};
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Silent, Warnings};
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
    let fitted =
        ScorerSpec::parse(text).and_then(|spec| spec.fit(&train(Some(labels)), head, &mut Silent));
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
        ("gmm(shrinkage=nan)", "a ratio is a number ≥ 0"),
        ("gmm(shrinkage=lots)", "expected none, ledoit_wolf, oas, held_out_classes, or a ratio"),
        ("maha(normalize=true)", "use `ssd`"),
        ("knn(k=0)", "k must lie in 1..=60"),
        ("vim(principal_dim=6)", "must be below the dimension 6"),
        ("vim(pca=4,principal_dim=4)", "must be below the dimension 4"),
        ("dice(percentile=100)", "a percentile lies between 0 and 100"),
        ("dice(percentile=-1)", "a percentile lies between 0 and 100"),
        ("odin(temperature=0)", "must be a positive number"),
        ("odin(epsilon=0.0014)", "perturbing pictures needs the network"),
        ("mean(reduce=median)", "reduce"),
        ("norm(k=3)", "unknown key `norm.k`"),
        ("klm(percentile=3)", "unknown key `klm.percentile`"),
        ("mena", "did you mean `mean`?"),
        ("mds_pp(normalize=false)", "use `maha`"),
        ("rmds(normalize=true)", "use `rmds_pp`"),
        ("rmds_pp(normalize=false)", "use `rmds`"),
        ("rmds(shrinkage=-1)", "a ratio is a number ≥ 0"),
        ("residual(principal_dim=6)", "must be below the dimension 6"),
        ("cadref(confidence=entropy)", "confidence"),
        ("cadref(decoupled=false,confidence=msp)", "leave it out"),
        ("kpca(explained=1)", "a share of the variance lies between 0 and 1"),
        ("kpca(explained=0.999999999)", "choose a smaller `explained`"),
        ("kpca(gamma=1)", "goes with `kernel=corp`"),
        ("kpca(seed=1)", "goes with `kernel=corp`"),
        ("kpca(kernel=corp,gamma=0)", "must be a positive number"),
        ("kpca(kernel=corp,features=1)", "between 2 and 16384 Fourier features"),
        ("kpca(kernel=rbf)", "kernel"),
        ("nnguide(k=0)", "k must lie in 1..=60"),
        ("nnguide(k=61)", "k must lie in 1..=60"),
        ("cfood(alpha=0)", "a share is above 0 and at most 1"),
        ("cfood(alpha=0.02)", "two are the fewest"),
        ("cfood(k=1.5)", "a share is above 0 and at most 1"),
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
        assert!(error.contains("head") && error.contains("--head"), "{name}: {error}");
    }
    let set = train(None);
    for name in ["gmm", "ssd", "maha", "mean", "mds_pp", "rmds", "rmds_pp"] {
        let error = ScorerSpec::parse(name).unwrap().fit(&set, None, &mut Silent).err().unwrap();
        assert!(error.to_string().contains("--labels"), "{name}: {error}");
    }
    // K-means needs none.
    let spec = ScorerSpec::parse("gmm(kmeans=4)").unwrap();
    assert!(spec.fit(&set, None, &mut Silent).is_ok());
}

#[test]
fn classes_that_cannot_be_fitted() {
    let gap: Vec<u32> = (0..60).map(|i| if i % 2 == 0 { 0 } else { 2 }).collect();
    assert!(refusal("mean", &gap, None).contains("class 1 has no rows"));
    assert!(refusal("gmm", &gap, None).contains("class 1 has 0 row(s)"));
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
    let klm = ScorerSpec::parse("klm").unwrap().fit(&set, Some(&head), &mut warnings).unwrap();
    assert_eq!(warnings.0.len(), 1);
    let want = "1 of 3 classes are never predicted on memory and have no template (2)";
    assert_eq!(warnings.0[0], want);
    assert!(klm.score(&set).unwrap().iter().all(|s| s.is_finite() && *s >= -1e-6));
}
