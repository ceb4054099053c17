//! Detectors made of statistics of parts, beside those fitted on all rows at once.

use std::path::Path;

use crate::common::maps::with_maps;
use heat_ood::features::{FeatureSet, Field, Head, Part, Pooling};
use heat_ood::io::TensorFile;
use heat_ood::scorers::{NAMES, ScorerSpec};
use heat_ood::statistics::Statistics;
use heat_ood::{Detector, Error, Silent, TrainingData};
use ndarray::{Array2, ArrayView2};

fn file(name: &str) -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../heat-cli/data/cifar10-densenet").join(format!("{name}.safetensors"))
}

fn set(name: &str) -> FeatureSet {
    FeatureSet::open(file(name)).unwrap()
}

fn head() -> Head {
    Head::open(file("head")).unwrap()
}

fn data(train: &FeatureSet) -> TrainingData {
    TrainingData::new(train).with_head(&head())
}

fn spec(text: &str) -> ScorerSpec {
    ScorerSpec::parse(text).unwrap()
}

/// The training rows in so many parts of unequal lengths.
fn parts(train: &FeatureSet, count: u32) -> Vec<FeatureSet> {
    let n = train.len() as u32;
    let at = |i: u32| n * i * (i + 1) / (count * (count + 1));
    (0..count).map(|i| train.select((at(i)..at(i + 1)).collect(), None).unwrap()).collect()
}

/// Round after round, each part and each merged value through bytes.
fn by_parts(specs: &[ScorerSpec], parts: &[FeatureSet]) -> Result<(Vec<Detector>, usize), Error> {
    let mut after: Option<Statistics> = None;
    for round in 1.. {
        let mut merged: Option<Statistics> = None;
        for part in parts {
            let found = Statistics::of(specs, &data(part), after.as_ref(), &mut Silent)?;
            let bytes = found.to_bytes().unwrap();
            let found = Statistics::from_bytes("part", bytes.clone()).unwrap();
            assert_eq!(found.to_bytes().unwrap(), bytes);
            match &mut merged {
                None => merged = Some(found),
                Some(merged) => merged.merge(&found)?,
            }
        }
        let merged = merged.unwrap();
        assert_eq!(merged.round(), round);
        match merged.finish(&mut Silent) {
            Ok(detectors) => return Ok((detectors, round)),
            Err(Error::AnotherRound { .. }) if round < 6 => after = Some(merged),
            Err(error) => return Err(error),
        }
    }
    unreachable!()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    let spread = {
        let mean = a.iter().map(|v| f64::from(*v)).sum::<f64>() / a.len() as f64;
        (a.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
    };
    let apart = a.iter().zip(b).map(|(x, y)| f64::from((x - y).abs()));
    apart.fold(0.0, f64::max) / spread
}

/// Every scorer, and every step that is fitted: scores as by one fit of all rows; those that cannot be made of
/// statistics say so.
#[test]
fn every_scorer_is_the_same_made_of_parts() {
    let (train, test) = (with_maps(&set("train")), with_maps(&set("test")));
    let parts = parts(&train, 3);
    let more = [
        "gmm(shrinkage=ledoit_wolf)",
        "gmm(pooling=std,shrinkage=oas,diagonal=true)",
        "gmm(react=0.9,pca=20,whiten=true)",
        "el(react=0.95)",
        "ssd(shrinkage=0.1)",
        "mean(normalize_rows=true,reduce=logsumexp)",
        "vra(clip=true)",
        "knn(k=3,react=0.9)",
        "kpca(kernel=corp,features=256)",
        "vim(center=mean)",
        "nac(layer=mid)",
        "graduncertainty(parameters=all)",
        "gmm(kmeans=4)",
        "gmm(shrinkage=held_out_classes)",
    ];
    let mut refused = Vec::new();
    let mut rounds = std::collections::BTreeMap::new();
    for text in NAMES.iter().copied().chain(more) {
        let one = [spec(text)];
        let found = match by_parts(&one, &parts) {
            Ok((found, n)) => {
                rounds.entry(n).or_insert_with(Vec::new).push(text);
                found
            }
            Err(error) => {
                assert!(error.to_string().contains("fit it on one machine"), "{text}: {error}");
                refused.push(text);
                continue;
            }
        };
        let whole = Detector::new(one[0].fit(&data(&train), &mut Silent).unwrap());
        let (got, want) = (found[0].score(&test).unwrap(), whole.score(&test).unwrap());
        let apart = largest_difference(&want, &got);
        // Some roundings of a score to single precision, in units of the spread (measured: 7.5e-7).
        assert!(apart < 2e-6, "{text}: {apart}");
        assert_eq!(found[0].provenance().rows, whole.provenance().rows, "{text}");
        assert!(found[0].verify().unwrap().is_some(), "{text}");
        // A training row is known again.
        let seen = found[0].provenance().contamination(&parts[1]).unwrap();
        assert!(seen.is_some(), "{text}");
    }
    let of_rows = ["openmax", "cfood", "dknn", "trust", "jtla", "gram"];
    let all = [&of_rows[..], &["gmm(kmeans=4)", "gmm(shrinkage=held_out_classes)"]].concat();
    assert_eq!(refused, all);
    // By hand: one pass; scale, fourth powers, histograms or low bits after what they depend on.
    assert!(
        rounds[&1].contains(&"gmm") && rounds[&1].contains(&"knn") && rounds[&1].contains(&"el")
    );
    for text in [
        "vim",
        "weiper",
        "nac(layer=mid)",
        "gmm(shrinkage=ledoit_wolf)",
        "gmm(react=0.9,pca=20,whiten=true)",
    ] {
        let n = rounds.iter().find(|(_, all)| all.contains(&text)).map(|(n, _)| *n).unwrap();
        assert!(n >= 2, "{text}: {n} rounds");
    }
}

/// RᵀR of R, `[p, d]`.
fn projector(r: &[f64], d: usize) -> Vec<f64> {
    let r = ArrayView2::from_shape((r.len() / d, d), r).unwrap();
    r.t().dot(&r).iter().copied().collect()
}

/// The same parts in the same order give the same bytes; many scorers share a round.
#[test]
fn the_same_parts_give_the_same_bytes() {
    let parts = parts(&set("train"), 4);
    let specs = ["gmm", "vim", "knn", "dice", "react", "ssd"].map(spec);
    let once = by_parts(&specs, &parts).unwrap();
    let again = by_parts(&specs, &parts).unwrap();
    assert_eq!(once.0.len(), 6);
    for (a, b) in once.0.iter().zip(&again.0) {
        assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap());
    }
    // Their parameters beside those of one pass: within 1e-10 of the largest, rounded to single precision
    // where they are kept so.
    for (spec, made) in specs.iter().zip(&once.0) {
        let whole = Detector::new(spec.fit(&data(&set("train")), &mut Silent).unwrap());
        let file =
            |d: &Detector| TensorFile::from_memory("d".as_ref(), d.to_bytes().unwrap()).unwrap();
        let (got, want) = (file(made), file(&whole));
        let mut compared = 0;
        for (name, kind, shape) in want.list() {
            let rounding = f64::from(f32::EPSILON) / 2.0;
            let bound = match &*kind {
                "F64" => 1e-10,
                // Directions of nearly equal variance turn within the space that they span: that is
                // compared, RᵀR. An entry is Σ r·r' over columns of at most length 1; rounding both
                // factors moves it by 2ε at most, here as there.
                "F32" if name == "residual" => 4.0 * rounding,
                // Both may be rounded to neighbours.
                "F32" => 2.0 * rounding,
                _ => continue,
            };
            if name.starts_with("probe.") {
                continue;
            }
            let values = |file: &TensorFile| match &*kind {
                "F64" => file.f64(&name, &shape).unwrap(),
                _ => file.f32(&name, &shape).unwrap().into_iter().map(f64::from).collect(),
            };
            let (mut got, mut want) = (values(&got), values(&want));
            if name == "residual" {
                [&mut got, &mut want].into_iter().for_each(|r| *r = projector(r, shape[1]));
            }
            let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let apart = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
            assert!(apart <= bound * largest, "{spec} {name}: {apart} of {largest}");
            compared += 1;
        }
        assert!(compared > 0, "{spec}");
    }
}

/// What is asked of all rows need not be there in each part: fewer rows than components, neighbours or classes.
#[test]
fn parts_may_be_small() {
    let train = set("train");
    let n = train.len() as u32;
    let cut = |rows: std::ops::Range<u32>| train.select(rows.collect(), None).unwrap();
    let parts = [cut(0..7), cut(7..8), cut(8..n)];
    for text in [
        "gmm(pca=20)",
        "knn(k=50)",
        "vim",
        "gmm(react=0.9,pca=20,whiten=true)",
        "weiper(repeats=2)",
    ] {
        let (found, _) = by_parts(&[spec(text)], &parts).unwrap();
        let whole = spec(text).fit(&data(&train), &mut Silent).unwrap();
        let test = set("test");
        let apart =
            largest_difference(&whole.score(&test).unwrap(), &found[0].score(&test).unwrap());
        assert!(apart < 2e-6, "{text}: {apart}");
    }
    let too_many = by_parts(&[spec("gmm(pca=1000)")], &parts).err().unwrap().to_string();
    assert!(too_many.contains("between 1 and 342 components"), "{too_many}");
}

/// Scorers of two layers in one value: sums of each are kept apart.
#[test]
fn layers_have_statistics_of_their_own() {
    let values = |salt: f32| {
        Array2::from_shape_fn((60, 3), |(i, j)| {
            ((i * 7 + j * 11) % 13) as f32 * 0.3 + salt * i as f32
        })
    };
    let mid = |field: Field| field.within(Part::named("mid").unwrap());
    let set = FeatureSet::in_memory("x")
        .avg(values(0.0))
        .field(mid(Field::Features(Pooling::Avg)), values(0.05))
        .field(mid(Field::Nac), values(-0.05));
    let all = set.labels((0..60u32).map(|i| i % 2)).build().unwrap();
    let specs = ["gmm(layer=mid)", "gmm", "nac(layer=mid,sig_alpha=1)"].map(spec);
    let of = |rows: std::ops::Range<u32>| {
        let part = all.select(rows.collect(), None).unwrap();
        Statistics::of(&specs, &TrainingData::new(&part).with_classes(2), None, &mut Silent)
    };
    let mut merged = of(0..25).unwrap();
    merged.merge(&of(25..60).unwrap()).unwrap();
    for (spec, found) in specs.iter().zip(merged.finish(&mut Silent).unwrap()) {
        let whole = spec.fit(&TrainingData::new(&all).with_classes(2), &mut Silent).unwrap();
        let apart = largest_difference(&whole.score(&all).unwrap(), &found.score(&all).unwrap());
        assert!(apart < 2e-6, "{spec}: {apart}");
    }
}

/// A part without rows of some classes, or with all rows of one.
#[test]
fn parts_may_lack_classes() {
    let train = set("train");
    let labels = train.labels(0..train.len(), 10).unwrap();
    let of = |keep: &dyn Fn(u32) -> bool| {
        let rows = (0..).zip(&labels).filter(|(_, l)| keep(**l)).map(|(i, _)| i);
        train.select(rows.collect(), None).unwrap()
    };
    let (low, high) = (of(&|l| l < 3), of(&|l| (3..9).contains(&l)));
    let both = of(&|l| l < 9);
    for text in ["gmm", "mean", "maha"] {
        let (found, _) = by_parts(&[spec(text)], &[low.clone(), high.clone()]).unwrap();
        let whole = spec(text).fit(&data(&both), &mut Silent).unwrap();
        let test = set("test");
        let apart =
            largest_difference(&whole.score(&test).unwrap(), &found[0].score(&test).unwrap());
        assert!(apart < 2e-6, "{text}: {apart}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let train = set("train");
    let parts = parts(&train, 2);
    let gmm = [spec("gmm")];
    let of = |specs: &[ScorerSpec], part: &FeatureSet, after: Option<&Statistics>| {
        Statistics::of(specs, &data(part), after, &mut Silent)
    };
    let says = |result: Result<Statistics, Error>, words: &[&str]| {
        let said = result.err().expect("refused").to_string();
        assert!(words.iter().all(|w| said.contains(w)), "{said}");
    };
    let merged = |a: &Statistics, b: &Statistics| {
        let mut all = a.clone();
        all.merge(b).map(|()| all)
    };
    let [first, second] = [0, 1].map(|i| of(&gmm, &parts[i], None).unwrap());
    says(merged(&first, &first), &["rows of", "in both"]);
    says(merged(&first, &of(&[spec("ssd")], &parts[1], None).unwrap()), &["`ssd` and not `gmm`"]);
    let alone = Statistics::of(&gmm, &TrainingData::new(&parts[0]), None, &mut Silent);
    says(alone, &["the number of classes", "head"]);
    says(of(&[], &parts[0], None), &["name at least one"]);
    let whole = merged(&first, &second).unwrap();
    says(of(&gmm, &parts[0], Some(&whole)), &["nothing more is needed"]);
    let other = TrainingData::new(&parts[1]).with_classes(10);
    let headless = Statistics::of(&gmm, &other, None, &mut Silent).unwrap();
    says(merged(&first, &headless), &["another head"]);
    // A second round on some of the parts alone.
    let vim = [spec("vim")];
    let rounds = merged(&of(&vim, &parts[0], None).unwrap(), &of(&vim, &parts[1], None).unwrap());
    let rounds = rounds.unwrap();
    assert!(!rounds.is_complete(&mut Silent).unwrap());
    let half = of(&vim, &parts[0], Some(&rounds)).unwrap();
    let said = half.finish(&mut Silent).err().unwrap().to_string();
    assert!(said.contains("the round before") && said.contains("same parts"), "{said}");
    says(merged(&half, &of(&vim, &parts[1], None).unwrap()), &["round 2", "round 1"]);
    let many = TrainingData::new(&parts[0]).with_classes(1 << 50);
    says(Statistics::of(&gmm, &many, None, &mut Silent), &["of memory"]);
    // Unlabelled rows.
    let plain = FeatureSet::from_arrays(Array2::<f32>::zeros((20, 3)).view(), None).unwrap();
    says(Statistics::of(&gmm, &TrainingData::new(&plain), None, &mut Silent), &["`label`"]);
    // Damage.
    let mut bytes = first.to_bytes().unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    says(Statistics::from_bytes("x", bytes), &["damaged"]);
    let detector = Detector::new(gmm[0].fit(&data(&train), &mut Silent).unwrap());
    says(Statistics::from_bytes("x", detector.to_bytes().unwrap()), &["a detector", "statistics"]);
}
