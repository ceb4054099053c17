//! Scores of rows far from zero: data that single precision holds exactly, with and without a
//! large number added, which the formula does not see.

use heat_ood::features::{FeatureSet, Head};
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Silent, TrainingData};
use safetensors::{Dtype, tensor::TensorView};

/// Single precision holds multiples of 1/8 up to it.
const FAR: f32 = (1 << 20) as f32;

/// Multiples of 1/8 in [0, 16), the same for every call.
fn eighths(n: usize) -> Vec<f32> {
    let next = |s: &mut u64| {
        *s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        Some((*s >> 57) as f32 / 8.0)
    };
    std::iter::repeat(()).scan(7, |s, ()| next(s)).take(n).collect()
}

fn set(field: &str, rows: &[f32], columns: usize, offset: f32) -> FeatureSet {
    let n = rows.len() / columns;
    let values: Vec<u8> = rows.iter().flat_map(|v| (v + offset).to_le_bytes()).collect();
    let labels: Vec<u8> = (0..n as i64).flat_map(|i| (i % 3).to_le_bytes()).collect();
    let values = TensorView::new(Dtype::F32, vec![n, columns], &values).unwrap();
    let labels = TensorView::new(Dtype::I64, vec![n], &labels).unwrap();
    let file = safetensors::serialize([(field, values), ("label", labels)], None).unwrap();
    FeatureSet::from_safetensors("rows", file).unwrap()
}

fn scores(text: &str, field: &str, rows: &[f32], columns: usize, offset: f32) -> Vec<f64> {
    let set = set(field, rows, columns, offset);
    let data = TrainingData::new(&set);
    let scorer = ScorerSpec::parse(text).unwrap().fit(&data, &mut Silent);
    let scorer = scorer.unwrap_or_else(|e| panic!("{text}: {e}"));
    scorer.score(&set).unwrap().into_iter().map(f64::from).collect()
}

/// The largest difference over the standard deviation.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    let mean = a.iter().sum::<f64>() / a.len() as f64;
    let std = (a.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / a.len() as f64).sqrt();
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / std
}

#[test]
fn logits_far_from_zero() {
    let logits = eighths(60 * 5);
    for name in ["msp", "odin", "klm", "gen", "entropy", "temperature(temperature=2)"] {
        let [near, far] = [0.0, FAR].map(|c| scores(name, "logits", &logits, 5, c));
        assert!(difference(&near, &far) < 1e-6, "{name}");
    }
    // The score itself is far from zero: single precision rounds it to 1/16 of one.
    for name in ["el", "max_logit"] {
        let [near, far] = [0.0, FAR].map(|c| scores(name, "logits", &logits, 5, c));
        for (near, far) in near.iter().zip(far) {
            assert!((near - (far + f64::from(FAR))).abs() <= 1.0 / 16.0, "{name}: {near} {far}");
        }
    }
}

/// `cfood` asks of how many reference rows a row is nearer than a neighbour of theirs. Two equal
/// distances are told apart by rounding alone, whatever is added: so it is with rows that are reference rows
/// themselves, and with multiples of 1/8 below 16, of which many are equally far apart. These
/// are others than the reference rows, and multiples below 1,024, whose distances differ: scores are the
/// same to the bit. (`FAR` and these together are less than twice `FAR`, so they are exact.)
#[test]
fn neighbours_are_counted_far_from_zero() {
    let rows: Vec<f32> = eighths(2 * 400 * 6).chunks_exact(2).map(|v| 64.0 * v[0] + v[1]).collect();
    let (reference, others) = rows.split_at(200 * 6);
    for text in ["cfood(normalize=false,alpha=1)", "cfood(normalize=false,alpha=0.5,k=0.05)"] {
        let [near, far] = [0.0, FAR].map(|c| {
            let train = set("avg", reference, 6, c);
            let spec = ScorerSpec::parse(text).unwrap();
            let scorer = spec.fit(&TrainingData::new(&train), &mut Silent).unwrap();
            scorer.score(&set("avg", others, 6, c)).unwrap()
        });
        let different = near.iter().zip(&far).filter(|(near, far)| near != far).count();
        assert_eq!(different, 0, "{text}: of {} rows", near.len());
        assert!(near.iter().any(|score| *score != near[0]), "{text}: a constant");
    }
}

/// (`cfood`: above.)
#[test]
fn features_far_from_zero() {
    let rows = eighths(200 * 6);
    for text in [
        "gmm(normalize=false)",
        "gmm(normalize=false,kmeans=1)",
        "gmm(normalize=false,pca=4,whiten=true)",
        "ssd(normalize=false)",
        "maha",
        "rmds",
        "knn(normalize=false,k=3)",
        "knn(normalize=false,k=3,pca=4)",
        "residual(center=mean,principal_dim=2)",
        "residual(center=mean,principal_dim=4)",
    ] {
        let [near, far] = [0.0, FAR].map(|c| scores(text, "avg", &rows, 6, c));
        let off = difference(&near, &far);
        assert!(off < 1e-5, "{text}: {off:e} of a standard deviation");
    }
}

/// A head's biases may be far from zero too; what that costs is said (`check_logits`).
#[test]
fn the_loss_is_said() {
    let rows = eighths(40 * 4);
    let set = set("avg", &rows, 4, 0.0);
    let head = |bias: f32| Head::new(eighths(12), vec![bias; 3]).unwrap();
    assert!(set.check_logits(Some(&head(1.0))).unwrap().is_empty());
    let said = set.check_logits(Some(&head(FAR))).unwrap().join(" ");
    assert!(said.contains("single precision") && said.contains("biases of the head"), "{said}");
}
