//! One battery of laws over every scorer, on real features.

use std::path::PathBuf;

use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::ebm::HeatConfig;
use heat_ood::features::{FeatureSet, Field, Head, Pooling};
use heat_ood::math::parallel;
use heat_ood::scorers::{NAMES, Scorer, ScorerSpec};
use heat_ood::{Detector, Fit, Fitted, Silent, TrainingData};
use ndarray::{Array2, ArrayView2};

fn data(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../heat-cli/data/cifar10-densenet").join(format!("{name}.safetensors"))
}

fn train() -> FeatureSet {
    FeatureSet::open(data("train")).unwrap()
}

fn heat(train: &FeatureSet, head: &Head, el: bool) -> Fitted<heat_ood::ebm::Heat> {
    let mut config = HeatConfig { batch_size: 200, n_epochs: 1, ..HeatConfig::default() };
    let model = &mut config.ebm.model;
    (model.hidden_dim, model.steps, model.train_max_iter) = (64, 2, Some(3));
    if el {
        config.ebm.prior = heat_ood::ebm::PriorKind::El;
        config.normalize = false;
        model.temperature_prior = 1.0;
        model.proposal_type = heat_ood::ebm::Proposal::RandomNormal;
    }
    config.fit(&TrainingData::new(train).with_head(head), &mut Silent).unwrap()
}

/// Steps that go before any scorer's formula.
const STEPS: [&str; 7] = [
    "",
    "react=0.95",
    "normalize=true",
    "pca=24",
    "pca=24,whiten=true",
    "react=0.9,normalize=true,pca=20",
    "react=0.9,normalize=true,pca=20,whiten=true",
];

/// Every scorer with every combination of steps, and with its own settings.
fn specs() -> Vec<String> {
    let mut all = Vec::new();
    for name in NAMES {
        for steps in STEPS {
            // The Gaussians, kNN and pNML normalise unless told otherwise; `maha` never does.
            let steps = match name {
                "maha" if steps.contains("normalize") => continue,
                // Nor does `rmds`; those of Mahalanobis++ always do.
                "rmds" if steps.contains("normalize") => continue,
                "cfood" if !steps.contains("normalize") => format!("normalize=false,{steps}"),
                // The default number of projections and Fourier features is for machines that
                // are not shared by tests.
                "weiper" => format!("repeats=8,{steps}"),
                "gmm" | "ssd" | "knn" | "pnml" if !steps.contains("normalize") => {
                    format!("normalize=false,{steps}")
                }
                _ => steps.to_owned(),
            };
            all.push(format!("{name}({steps})"));
        }
    }
    let own = [
        "gmm(pooling=std)",
        "gmm(kmeans=7)",
        "gmm(shrinkage=ledoit_wolf)",
        "gmm(shrinkage=held_out_classes)",
        "ssd(diagonal=true)",
        "ssd(shrinkage=oas,diagonal=true)",
        "ssd(shrinkage=1)",
        "maha(pooling=std)",
        "knn(k=5)",
        "knn(k=7,pooling=std,react=0.99,pca=16)",
        "vim(principal_dim=0)",
        "vim(principal_dim=341,pooling=std)",
        "dice(percentile=0)",
        "mean(reduce=logsumexp,normalize_rows=true)",
        "odin(temperature=2)",
        // Of the head.
        "ash_p(percentile=0)",
        "ash_b(percentile=99,pooling=std)",
        "ash_s(percentile=30)",
        "scale(percentile=99)",
        "lts(percentile=50)",
        "vra(low=0,high=1)",
        "vra(low=0.05,high=0.95,clip=true,pooling=std)",
        "gen(gamma=0.5,m=3)",
        "temperature(temperature=3)",
        "she(pooling=std)",
        "gradnorm(temperature=2)",
        "fdbd(normalizer=norm)",
        "fdbd(normalizer=none)",
        "nci(alpha=0)",
        "neco(dim=342,standardize=false)",
        "neco(dim=3,max_logit=false,pooling=std)",
        "rmds(pooling=std,shrinkage=1)",
        "rmds_pp(kmeans=60)",
        "rmds_pp(diagonal=true)",
        "mds_pp(shrinkage=oas)",
        "residual(principal_dim=0)",
        "residual(principal_dim=341,pooling=std)",
        "cadref(decoupled=false,pooling=std)",
        "cadref(confidence=msp)",
        "cadref(confidence=max_logit)",
        "cadref(confidence=gen)",
        "kpca(explained=0.99,pooling=std)",
        "kpca(kernel=corp,features=100)",
        "kpca(kernel=corp,features=33,gamma=0.1,explained=0.5,seed=3,pca=24)",
        "nnguide(k=1,pooling=std)",
        "cfood(alpha=1,k=0.2)",
        "cfood(alpha=0.5,seed=4,pooling=std)",
        "relation(threshold=0.3,power=4)",
        "weiper(repeats=3,distance=0.5,bins=20,lambda1=1,lambda2=1,smoothing=5,\
         smoothing_perturbed=1,seed=9)",
    ];
    all.extend(own.map(str::to_owned));
    all
}

/// Every scorer in all variants, HEAT on both priors, a composition.
fn scorers() -> Vec<(String, Fitted<dyn Scorer>)> {
    let (train, head) = (train(), Head::open(data("head")).unwrap());
    let mut all: Vec<(String, Fitted<dyn Scorer>)> = specs()
        .into_iter()
        .map(|text| {
            let spec = ScorerSpec::parse(&text).unwrap();
            let scorer = spec.fit(&TrainingData::new(&train).with_head(&head), &mut Silent);
            (text.clone(), scorer.unwrap_or_else(|e| panic!("{text}: {e}")))
        })
        .collect();
    all.push(("heat gmm".into(), heat(&train, &head, false).into()));
    all.push(("heat el".into(), heat(&train, &head, true).into()));
    for beta in [0.0, f64::NEG_INFINITY, 1.5] {
        let members = ["el()", "gmm(pooling=std)", "heat gmm"].map(|name| {
            let scorer = all.iter().find(|(n, _)| n == name).unwrap().1.clone();
            Part::new(name, scorer)
        });
        let config = CombinedConfig { members: members.into(), beta };
        let combined = config.fit(&TrainingData::new(&train), &mut Silent).unwrap();
        all.push((format!("combined {beta}"), combined.into()));
    }
    all
}

/// Some rows of the test set, with avg and std, as a set in a file.
fn subset(rows: &[u32]) -> FeatureSet {
    let test = FeatureSet::open(data("test")).unwrap();
    let mut tensors = Vec::new();
    for pooling in [Pooling::Avg, Pooling::Std] {
        let field = Field::Features(pooling);
        let dim = test.dim(field).unwrap();
        let mut values = vec![0.0; rows.len() * dim];
        test.gather(field, rows, &mut values).unwrap();
        tensors.push((pooling.name(), values, dim));
    }
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, v, _)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, _, dim), b)| {
        let shape = vec![rows.len(), *dim];
        (*name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, b).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    FeatureSet::from_safetensors("subset", file).unwrap()
}

#[test]
fn laws() {
    let rows: Vec<u32> = (0..301).collect();
    let test = subset(&rows);
    let reversed: Vec<u32> = rows.iter().rev().copied().collect();
    let few = [5, 300, 77];
    let (backwards, few_set) = (subset(&reversed), subset(&few));
    let folder = tempfile::tempdir().unwrap();
    for (name, scorer) in scorers() {
        let scores = scorer.score(&test).unwrap();
        assert!(scores.iter().all(|s| s.is_finite()), "{name}: finite");

        let mut turned = scorer.score(&backwards).unwrap();
        turned.reverse();
        close(&name, "permutation-equivariant", &turned, &scores);

        let alone = scorer.score(&few_set).unwrap();
        let want = few.map(|i| scores[i as usize]);
        close(&name, "batch-size independent", &alone, &want);

        for threads in [1, 2, 4] {
            let again = parallel::with_threads(threads, || scorer.score(&test)).unwrap();
            assert_eq!(again.unwrap(), scores, "{name}: {threads} threads");
        }

        let path = folder.path().join("d.safetensors");
        Detector::new(scorer.clone()).save(&path).unwrap();
        let loaded = Detector::open(&path).unwrap();
        assert_eq!(loaded.score(&test).unwrap(), scores, "{name}: saved and loaded");
        let other = folder.path().join("e.safetensors");
        Detector::new(loaded.fitted()).save(&other).unwrap();
        let bytes = |p| std::fs::read(p).unwrap();
        assert_eq!(bytes(&path), bytes(&other), "{name}: saved again");

        // Composed parts add up.
        let parts = scorer.score_components(&test).unwrap();
        for (p, s) in parts.chunks(2).zip(&scores) {
            assert!((p[0] + p[1] - s).abs() <= 1e-5 * s.abs().max(1.0), "{name}: parts");
        }

        refuses_wrong_input(&name, &*scorer);
    }
}

/// To the bit but where f64 products of other shapes round otherwise.
fn close(name: &str, law: &str, got: &[f32], want: &[f32]) {
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= 2e-7 * w.abs().max(1.0), "{name}: {law}: {g} {w}");
    }
}

fn refuses_wrong_input(name: &str, scorer: &dyn Scorer) {
    let dim = 342;
    let mut rows = Array2::from_elem((3, dim), 0.5f32);
    rows[(1, 7)] = f32::NAN;
    let avg = FeatureSet::from_arrays(rows.view(), None).unwrap();
    let error = scorer.score(&avg).unwrap_err().to_string();
    let std = error.contains("has no `std`") || error.contains("`std`");
    assert!(std || error.contains("row 1, column 7 is NaN"), "{name}: {error}");
    let narrow = ArrayView2::from_shape((1, 3), &[0.0; 3]).unwrap();
    let narrow = FeatureSet::from_arrays(narrow, None).unwrap();
    let error = scorer.score(&narrow).unwrap_err().to_string();
    let says = error.contains("342") || error.contains("has no `std`");
    assert!(says, "{name}: {error}");
}

#[test]
fn fits_do_not_depend_on_threads() {
    let (train, head) = (train(), Head::open(data("head")).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.safetensors");
    for text in [
        "gmm",
        "ssd(pca=12)",
        "ssd(kmeans=5)",
        "gmm(shrinkage=held_out_classes)",
        "knn(k=9)",
        "el(react=0.9)",
        "klm",
        "vim",
        "dice",
        "mean",
        // Of the head.
        "react",
        "vra",
        "temperature",
        "she",
        "fdbd",
        "nci",
        "neco",
        "pnml",
        "rmds",
        "cadref",
        "kpca(kernel=corp,features=64)",
        "nnguide",
        "cfood(alpha=1)",
        "relation",
        "weiper(repeats=8)",
    ] {
        let spec = ScorerSpec::parse(text).unwrap();
        let files: Vec<Vec<u8>> = [1, 2, 4]
            .into_iter()
            .map(|threads| {
                let fit =
                    || spec.fit(&TrainingData::new(&train).with_head(&head), &mut Silent).unwrap();
                let scorer = parallel::with_threads(threads, fit).unwrap();
                Detector::new(scorer).save(&path).unwrap();
                std::fs::read(&path).unwrap()
            })
            .collect();
        assert!(files[0] == files[1] && files[0] == files[2], "{text}");
    }
}
