//! One battery of laws over every scorer, on real features: a test a scorer,
//! so that `cargo test --test laws knn` runs those of one method.

mod common;

use std::path::PathBuf;
use std::sync::LazyLock;

use common::maps::{GRADIENTS, OF_MAPS, VIEWS, moved, of_maps, with_maps};

use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::ebm::HeatConfig;
use heat_ood::features::{FeatureSet, Field, Head, Pooling};
use heat_ood::math::parallel;
use heat_ood::scorers::{NAMES, Scorer, ScorerSpec};
use heat_ood::{Detector, Fit, Fitted, Silent, TrainingData};
use libtest_mimic::{Arguments, Trial};
use ndarray::Array2;

fn data(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../heat-cli/data/cifar10-densenet").join(format!("{name}.safetensors"))
}

static TRAIN: LazyLock<FeatureSet> = LazyLock::new(|| FeatureSet::open(data("train")).unwrap());
/// With what is made of maps.
static TRAIN_MAPS: LazyLock<FeatureSet> = LazyLock::new(|| with_maps(&TRAIN));
static HEAD: LazyLock<Head> = LazyLock::new(|| Head::open(data("head")).unwrap());

fn training() -> TrainingData {
    TrainingData::new(&TRAIN).with_head(&*HEAD)
}

/// The training set that a scorer is fitted on.
fn training_of(text: &str) -> &'static FeatureSet {
    let of_maps = OF_MAPS.iter().any(|name| text.starts_with(name));
    let of_maps = of_maps || text.contains("layer=mid") || text.contains("parameters=all");
    if of_maps { &TRAIN_MAPS } else { &TRAIN }
}

fn fit(text: &str) -> Fitted<dyn Scorer> {
    let spec = ScorerSpec::parse(text).unwrap();
    let training = TrainingData::new(training_of(text)).with_head(&*HEAD);
    spec.fit(&training, &mut Silent).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn heat(el: bool) -> Fitted<dyn Scorer> {
    let mut config = HeatConfig { batch_size: 200, n_epochs: 1, ..HeatConfig::default() };
    let model = &mut config.ebm.model;
    (model.hidden_dim, model.steps, model.train_max_iter) = (64, 2, Some(3));
    if el {
        config.ebm.prior = heat_ood::ebm::PriorKind::El;
        config.normalize = false;
        model.temperature_prior = 1.0;
        model.proposal_type = heat_ood::ebm::Proposal::RandomNormal;
    }
    config.fit(&training(), &mut Silent).unwrap().into()
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
        // No steps are taken before the scorers of maps.
        let steps = if OF_MAPS.contains(&name) { &STEPS[..1] } else { &STEPS[..] };
        for &steps in steps {
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
        "lid(k=5,pooling=std)",
        "dknn(k=5,pooling=std)",
        "trust(alpha=0.3,k=4,pooling=std)",
        "gram(powers=3,validation=0.3,confidence=false)",
        "rankfeat(temperature=2)",
        "feature_squeezing(bits=0,median=3,dist_norm=2)",
        "feature_squeezing(bits=5,median=0,dist_norm=1.5)",
        "mcd(mode=logits)",
        "nac(m=10,o=300,sig_alpha=1,pooling=std)",
        "nac(layer=mid)",
        "graduncertainty(parameters=all)",
        "openmax(tailsize=7,alpha=3,euclid_weight=0.3,correct=false)",
        "weiper(repeats=3,distance=0.5,bins=20,lambda1=1,lambda2=1,smoothing=5,\
         smoothing_perturbed=1,seed=9)",
    ];
    all.extend(own.map(str::to_owned));
    all
}

fn members() -> [(&'static str, Fitted<dyn Scorer>); 3] {
    [("el", fit("el")), ("gmm(pooling=std)", fit("gmm(pooling=std)")), ("heat gmm", heat(false))]
}

fn combined(beta: f64) -> Fitted<dyn Scorer> {
    let members = members().map(|(name, scorer)| Part::new(name, scorer)).into();
    CombinedConfig { members, beta }.fit(&training(), &mut Silent).unwrap().into()
}

/// The parts of a composition are what each member scores alone.
fn members_are_told() {
    let scorer = combined(1.5);
    assert_eq!(scorer.components(), ["score.el", "score.gmm(pooling=std)", "score.heat gmm"]);
    let parts = scorer.score_components(&PROBES.rows).unwrap();
    for (m, (name, member)) in members().into_iter().enumerate() {
        let own: Vec<f32> = parts.iter().skip(m).step_by(3).copied().collect();
        assert_eq!(own, member.score(&PROBES.rows).unwrap(), "{name}");
    }
}

/// Every scorer in all variants, HEAT on both priors, compositions; then the
/// fits on several numbers of threads.
fn main() {
    let law = |name: String, scorer: Box<dyn Fn() -> Fitted<dyn Scorer> + Send>| {
        Trial::test(name.clone(), move || {
            let scorer = scorer();
            laws(&name, &*scorer);
            saved_and_loaded(&name, &scorer);
            Ok(())
        })
    };
    let mut trials: Vec<Trial> =
        specs().into_iter().map(|text| law(text.clone(), Box::new(move || fit(&text)))).collect();
    trials.push(law("heat gmm".into(), Box::new(|| heat(false))));
    trials.push(law("heat el".into(), Box::new(|| heat(true))));
    for beta in [0.0, f64::NEG_INFINITY, 1.5] {
        trials.push(law(format!("combined {beta}"), Box::new(move || combined(beta))));
    }
    trials.push(Trial::test("combined: members are told", || {
        members_are_told();
        Ok(())
    }));
    trials.extend(FITTED_ON_THREADS.map(|text| {
        Trial::test(format!("fit on threads: {text}"), move || {
            fit_does_not_depend_on_threads(text);
            Ok(())
        })
    }));
    for name in NAMES.iter().filter(|name| !OF_A_UNIT.contains(name)) {
        for scale in [2f32.powi(-50), 2f32.powi(17)] {
            trials.push(Trial::test(format!("units: {name} × {scale:.0e}"), move || {
                units_do_not_matter(name, scale);
                Ok(())
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

const DIM: usize = 342;

/// Some rows of the test set, with avg and std.
fn subset(rows: &[u32]) -> FeatureSet {
    let test = FeatureSet::open(data("test")).unwrap();
    let values = [Pooling::Avg, Pooling::Std].map(|pooling| {
        let mut values = vec![0.0; rows.len() * DIM];
        test.gather(Field::Features(pooling), rows, &mut values).unwrap();
        values
    });
    let [gram, rankfeat] = of_maps(&values[0], &values[1]);
    let more = VIEWS.into_iter().chain(GRADIENTS);
    let more: Vec<_> = more.map(|(name, by)| (name, moved(&values[0], &values[1], by))).collect();
    let mut fields: Vec<(&str, &[f32])> =
        vec![("avg", &values[0]), ("std", &values[1]), ("gram", &gram), ("rankfeat", &rankfeat)];
    fields.extend(more.iter().map(|(name, values)| (*name, &values[..])));
    set(&fields, rows.len())
}

/// A set in a file, of these fields.
fn set(fields: &[(&str, &[f32])], rows: usize) -> FeatureSet {
    let bytes: Vec<Vec<u8>> =
        fields.iter().map(|(_, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = fields.iter().zip(&bytes).map(|((name, values), bytes)| {
        let shape = vec![rows, values.len() / rows];
        (
            *name,
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes).unwrap(),
        )
    });
    let file = safetensors::serialize(views, None).unwrap();
    FeatureSet::from_safetensors("subset", file).unwrap()
}

/// The test rows that every scorer is tried on.
struct Probes {
    rows: FeatureSet,
    backwards: FeatureSet,
    few: FeatureSet,
    /// Not finite in row 1, column 7 of every field.
    nan: FeatureSet,
    /// Three columns.
    narrow: FeatureSet,
}

const FEW: [u32; 3] = [5, 300, 77];

/// These fields beside the others, which are all the same.
fn with_views<'a>(some: &[(&'a str, &'a [f32])], all: &'a [f32]) -> Vec<(&'a str, &'a [f32])> {
    let names = ["avg", "std", "rankfeat"].into_iter().chain(VIEWS.map(|(name, _)| name));
    let names = names.chain(GRADIENTS.map(|(name, _)| name));
    some.iter().copied().chain(names.map(|name| (name, all))).collect()
}

static PROBES: LazyLock<Probes> = LazyLock::new(|| {
    let rows: Vec<u32> = (0..301).collect();
    let reversed: Vec<u32> = rows.iter().rev().copied().collect();
    let nan = |dim: usize| {
        let mut nan = vec![0.5f32; 3 * dim];
        nan[dim + 7] = f32::NAN;
        nan
    };
    let (plain, gram) = (nan(DIM), nan(10 * DIM));
    Probes {
        rows: subset(&rows),
        backwards: subset(&reversed),
        few: subset(&FEW),
        nan: set(&with_views(&[("gram", &gram)], &plain), 3),
        narrow: set(&with_views(&[("gram", &[0.0; 30])], &[0.0; 3]), 1),
    }
});

fn laws(name: &str, scorer: &dyn Scorer) {
    let scores = scorer.score(&PROBES.rows).unwrap();
    assert!(scores.iter().all(|s| s.is_finite()), "{name}: finite");

    let mut turned = scorer.score(&PROBES.backwards).unwrap();
    turned.reverse();
    close(name, "permutation-equivariant", &turned, &scores);

    let alone = scorer.score(&PROBES.few).unwrap();
    let want = FEW.map(|i| scores[i as usize]);
    close(name, "batch-size independent", &alone, &want);

    for threads in [1, 2, 4] {
        let again = parallel::with_threads(threads, || scorer.score(&PROBES.rows)).unwrap();
        assert_eq!(again.unwrap(), scores, "{name}: {threads} threads");
    }

    // A residual energy and its prior add up.
    let parts = scorer.score_components(&PROBES.rows).unwrap();
    assert_eq!(parts.len(), scorer.components().len() * scores.len(), "{name}: parts");
    if scorer.components() == ["energy_nn", "energy_prior"] {
        for (p, s) in parts.chunks(2).zip(&scores) {
            assert!((p[0] + p[1] - s).abs() <= 1e-5 * s.abs().max(1.0), "{name}: parts");
        }
    }

    let error = scorer.score(&PROBES.nan).unwrap_err().to_string();
    assert!(error.contains("row 1, column 7 is NaN"), "{name}: {error}");
    let error = scorer.score(&PROBES.narrow).unwrap_err().to_string();
    assert!(error.contains("342"), "{name}: {error}");
}

/// A scorer is read back as it was written.
fn saved_and_loaded(name: &str, scorer: &Fitted<dyn Scorer>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.safetensors");
    Detector::new(scorer.clone()).save(&path).unwrap();
    let loaded = Detector::open(&path).unwrap();
    let scores = scorer.score(&PROBES.rows).unwrap();
    assert_eq!(loaded.score(&PROBES.rows).unwrap(), scores, "{name}: saved and loaded");
    let proof = loaded.verify().unwrap().unwrap();
    assert_eq!((proof.rows, proof.difference), (16, 0.0), "{name}: proof");
    let spread = scores.iter().fold(f32::MIN, |m, s| m.max(*s))
        - scores.iter().fold(f32::MAX, |m, s| m.min(*s));
    // Where all rows score the same but for rounding, nothing can be told apart.
    let size = scores.iter().fold(0f32, |m, s| m.max(s.abs()));
    let tells = spread > 1e-5 * size;
    assert!(!tells || proof.tolerance < 0.02 * f64::from(spread), "{name}: {proof:?}, {spread}");
    let other = directory.path().join("e.safetensors");
    Detector::new(loaded.fitted()).save(&other).unwrap();
    let bytes = |p| std::fs::read(p).unwrap();
    assert_eq!(bytes(&path), bytes(&other), "{name}: saved again");
}

/// To the bit but where f64 products of other shapes round otherwise.
fn close(name: &str, law: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}: {law}");
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= 2e-7 * w.abs().max(1.0), "{name}: {law}: {g} {w}");
    }
}

/// Scorers whose formula adds a length to what has no unit, or clips at 1e5 (METHOD §3), or adds 10⁻⁶ or 1
/// to a length.
const OF_A_UNIT: [&str; 4] = ["nci", "dice", "gram", "graduncertainty"];

/// A set times a power of two, in which nothing is rounded.
fn in_units(features: &FeatureSet, scale: f32) -> FeatureSet {
    let n = features.len();
    let mut set = FeatureSet::in_memory("in units");
    for field in features.fields().filter(|field| *field != Field::Logits) {
        let dim = features.dim(field).unwrap();
        let mut values = vec![0.0; n * dim];
        features.read_parallel(field, 0..n, &mut values).unwrap();
        values.iter_mut().for_each(|v| *v *= scale);
        set = set.field(field, Array2::from_shape_vec((n, dim), values).unwrap());
    }
    set.labels(features.labels(0..n, 10).unwrap()).build().unwrap()
}

/// The same rows in other units, with the head in the inverse unit, so that logits stay: scores
/// are the same but for a factor and a constant (METHOD §2, §3).
fn units_do_not_matter(name: &str, scale: f32) {
    let mut test = FeatureSet::open(data("test")).unwrap();
    if OF_MAPS.contains(&name) {
        test = with_maps(&test);
    }
    let scores = |scale: f32| {
        let weight = HEAD.weight().iter().map(|w| w / scale).collect();
        let head = Head::new(weight, HEAD.bias().to_vec()).unwrap();
        let train = in_units(training_of(name), scale);
        // pNML normalises by default, but the head stays in its unit.
        let text = match name {
            "weiper" => "weiper(repeats=8)",
            "pnml" => "pnml(normalize=false)",
            name => name,
        };
        let data = TrainingData::new(&train).with_head(&head);
        let scorer = ScorerSpec::parse(text).unwrap().fit(&data, &mut Silent).unwrap();
        scorer.score(&in_units(&test, scale)).unwrap()
    };
    let (one, other) = (scores(1.0), scores(scale));
    let n = one.len() as f64;
    let standard = |scores: &[f32]| -> Vec<f64> {
        let mean = scores.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let off: Vec<f64> = scores.iter().map(|v| f64::from(*v) - mean).collect();
        let std = (off.iter().map(|v| v * v).sum::<f64>() / n).sqrt();
        off.iter().map(|v| v / std).collect()
    };
    for (row, (a, b)) in standard(&one).into_iter().zip(standard(&other)).enumerate() {
        assert!((a - b).abs() < 1e-4, "{name} × {scale:e}: row {row}: {a} {b} (standardised)");
    }
}

const FITTED_ON_THREADS: [&str; 30] = [
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
    "dknn",
    "trust(alpha=0.3)",
    "openmax",
    "gram",
    "nac",
    "weiper(repeats=8)",
];

fn fit_does_not_depend_on_threads(text: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.safetensors");
    let files: Vec<Vec<u8>> = [1, 2, 4]
        .into_iter()
        .map(|threads| {
            let scorer = parallel::with_threads(threads, || fit(text)).unwrap();
            Detector::new(scorer).save(&path).unwrap();
            std::fs::read(&path).unwrap()
        })
        .collect();
    assert!(files[0] == files[1] && files[0] == files[2], "{text}");
}
