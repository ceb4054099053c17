//! Scorers of maps, and of gradients, against pytorch-ood 0.4.0 and NumPy in float64; see `golden/make_map_scorers.py`.

use crate::common;

use common::{close, path};
use heat_ood::features::{FeatureSet, Field, Head, Part, gram_rows, mean_without_first};
use heat_ood::io::TensorFile;
use heat_ood::scorers::{Group, ScorerSpec};
use heat_ood::{Detector, Error, Silent, TrainingData};
use ndarray::Array2;

fn open() -> TensorFile {
    TensorFile::open(&path("map_scorers.safetensors")).unwrap()
}

fn f32s(file: &TensorFile, name: &str) -> (Vec<f32>, Vec<usize>) {
    let shape = file.shape(name).unwrap().to_vec();
    (file.f32(name, &shape).unwrap(), shape)
}

fn head(file: &TensorFile) -> Head {
    Head::new(f32s(file, "head.weight").0, f32s(file, "head.bias").0).unwrap()
}

/// What a map is reduced to: of the last layer all, of the other its Gram matrices.
fn set(file: &TensorFile, name: &str, mid: bool) -> FeatureSet {
    let (last, shape) = f32s(file, &format!("{name}.last"));
    let (n, channels) = (shape[0], shape[1]);
    let matrix = |values: Vec<f32>| Array2::from_shape_vec((n, values.len() / n), values).unwrap();
    let of = |values: &[f32], f: &dyn Fn(&[f32]) -> Vec<f32>| {
        matrix(values.chunks_exact(values.len() / n).flat_map(f).collect())
    };
    let cells = shape[2] * shape[3];
    let mean = |map: &[f32]| -> Vec<f32> {
        let sum = |row: &[f32]| row.iter().map(|v| f64::from(*v)).sum::<f64>();
        map.chunks_exact(cells).map(|row| (sum(row) / cells as f64) as f32).collect()
    };
    let mut set = FeatureSet::in_memory(name)
        .avg(of(&last, &mean))
        .field(Field::Gram, of(&last, &|map| gram_rows(map, channels)))
        .field(Field::Rankfeat, of(&last, &|map| mean_without_first(map, channels).unwrap()));
    if mid {
        // As if the last layer were a further one too.
        let field = Field::Nac.within(Part::named("deep").unwrap());
        set = set.field(field, matrix(f32s(file, &format!("{name}.nac")).0));
        let (mid, shape) = f32s(file, &format!("{name}.mid"));
        let field = Field::Gram.within(Part::named("mid").unwrap());
        set = set.field(field, of(&mid, &|map| gram_rows(map, shape[1])));
    }
    set.build().unwrap()
}

fn fit(spec: &str, train: &FeatureSet, head: &Head) -> heat_ood::Result<Detector> {
    let data = TrainingData::new(train).with_head(head);
    Ok(Detector::new(ScorerSpec::parse(spec)?.fit(&data, &mut Silent)?))
}

#[test]
fn scores_equal_pytorch_ood() {
    let file = open();
    let head = head(&file);
    for (spec, name, mid) in [
        ("gram(confidence=false)", "gram", true),
        ("gram(confidence=false,powers=3)", "gram_3", true),
        ("gram(confidence=false)", "gram_last", false),
        ("gram", "gram_authors", true),
        ("rankfeat", "rankfeat", false),
        ("graduncertainty", "graduncertainty", false),
        ("nac", "nac", false),
        ("nac(m=10,o=200,sig_alpha=3)", "nac_m10", false),
        ("nac(layer=deep,m=500,o=100,sig_alpha=1000)", "nac_stored", true),
    ] {
        let detector = fit(spec, &set(&file, "train", mid), &head).unwrap();
        for probe in ["test", "ood"] {
            let got = detector.score(&set(&file, probe, mid)).unwrap();
            let name = format!("{name}.{probe}");
            let want: Vec<f32> =
                file.f64(&name, &[got.len()]).unwrap().into_iter().map(|v| v as f32).collect();
            // Maps are in single precision here.
            close(&format!("{spec} {probe}"), &got, &want, 1e-5);
        }
    }
}

/// `all` has the scorers that follow gradients where a set has what these leave, and only there.
#[test]
fn all_has_those_of_gradients_where_they_are() {
    let file = open();
    let of = |set: &FeatureSet| -> Vec<String> {
        let all = Group::All.scorers_for(&TrainingData::new(set).with_head(&head(&file)));
        let all = all.iter().map(ScorerSpec::to_string);
        all.filter(|s| s.starts_with("nac") || s.starts_with("graduncertainty")).collect()
    };
    assert_eq!(of(&set(&file, "train", false)), ["graduncertainty", "nac"]);
    let with = set(&file, "train", true);
    assert_eq!(of(&with), ["graduncertainty", "nac", "nac(layer=deep)"]);
    let norms = FeatureSet::in_memory("norms").avg(Array2::<f32>::ones((4, 12)));
    let norms = norms.field(Field::Graduncertainty, Array2::<f32>::ones((4, 3))).build().unwrap();
    let all = ["graduncertainty", "nac", "graduncertainty(parameters=all)"];
    assert_eq!(of(&norms), all);
}

/// Two classes that the logits tell, of which rows 0 and 1 are the bounds: by hand.
#[test]
fn a_class_that_is_never_predicted_has_the_bounds_of_all() {
    let gram = |values: &[f32]| {
        let rows = values.iter().flat_map(|v| [*v; 10]).collect();
        Array2::from_shape_vec((values.len(), 10), rows).unwrap()
    };
    let logits = |classes: &[usize]| {
        Array2::from_shape_fn(
            (classes.len(), 3),
            |(i, c)| if classes[i] == c { 0.0 } else { -99.0 },
        )
    };
    let set = |values: &[f32], classes: &[usize]| {
        let set = FeatureSet::in_memory("x").field(Field::Gram, gram(values));
        set.logits(logits(classes)).build().unwrap()
    };
    let train = set(&[1.0, 2.0, 3.0, 4.0], &[0, 0, 1, 1]);
    let spec = ScorerSpec::parse("gram(powers=1)").unwrap();
    let scorer = spec.fit(&TrainingData::new(&train), &mut Silent).unwrap();
    // Kept are roots: g is 9 and 25 beyond bounds of 4, 9 to 16 and 1 to 16.
    let got = scorer.score(&set(&[3.0, 5.0, 5.0, 2.0], &[0, 1, 2, 2])).unwrap();
    let want = [5.0 / 4.000_001, 9.0 / 16.000_001, 9.0 / 16.000_001, 0.0];
    for (got, want) in got.iter().zip(want) {
        assert!((f64::from(*got) - want).abs() < 1e-6, "{got} {want}");
    }
}

#[test]
fn what_is_missing_is_said() {
    let file = open();
    let (train, head) = (set(&file, "train", true), head(&file));
    let error = |spec: &str, train: &FeatureSet| fit(spec, train, &head).err().unwrap().to_string();
    let plain = FeatureSet::in_memory("plain").avg(Array2::<f32>::zeros((4, 12))).build().unwrap();
    assert!(error("gram", &plain).contains("`heat extract --for gram` makes it"));
    assert!(error("rankfeat", &plain).contains("`heat extract --for rankfeat` makes it"));
    assert!(error("gram(powers=11)", &train).contains("from 1 to 10"));
    assert!(error("gram(validation=1)", &train).contains("below 1"));
    assert!(error("nac(m=7)", &train).contains("an even number"));
    assert!(error("nac(o=0)", &train).contains("positive"));
    assert!(error("nac(layer=deep,normalize=true)", &train).contains("leave it out"));
    assert!(error("nac(layer=mid)", &train).contains("`heat extract --for nac` makes `nac`"));
    assert!(error("rankfeat(temperature=0)", &train).contains("positive"));
    let narrow = FeatureSet::in_memory("narrow").avg(Array2::<f32>::zeros((4, 12)));
    let narrow = narrow.field(Field::Gram, Array2::<f32>::zeros((4, 12))).build().unwrap();
    assert!(error("gram", &narrow).contains("[N, 10 · channels]"));
    let narrow = FeatureSet::in_memory("narrow").avg(Array2::<f32>::zeros((4, 12)));
    let narrow = narrow.field(Field::Rankfeat, Array2::<f32>::zeros((4, 11))).build().unwrap();
    assert!(error("rankfeat", &narrow).contains("[C, 11], the channels of the map"));
    // One row, of one class: nothing is held out, and it does not deviate from itself.
    let one = train.select(vec![0], None).unwrap();
    assert_eq!(fit("gram", &one, &head).unwrap().score(&one).unwrap(), [0.0]);
    // A set without the other layer.
    let detector = fit("gram", &train, &head).unwrap();
    let said = detector.score(&set(&file, "test", false)).unwrap_err();
    assert!(matches!(said, Error::Missing { .. }), "{said}");
    assert!(said.to_string().contains("`mid.gram`"), "{said}");
}
