//! Gradients of scorers with respect to what they read, by which images are
//! perturbed.

use crate::common;

use common::bytes::contains;
use common::{D, Golden};
use heat_ood::compose::{CombinedConfig, Part};
use heat_ood::features::{Batch, Field, Pooling};
use heat_ood::scorers::{Scorer, ScorerSpec};
use heat_ood::{Fit, Silent, TrainingData};

/// Differences of each scorer that images can be perturbed by.
#[test]
fn gradients_of_scorers_are_their_differences() {
    let golden = Golden::open();
    let (train, head) = (golden.train(), golden.head());
    let data = TrainingData::new(&train).with_head(&head);
    let values = golden.get("test.avg");
    let rows = 8;
    let field = Field::Features(Pooling::Avg);
    let batch = |values: &[f32]| Batch::of(rows, [(field, values[..rows * D].to_vec())]).unwrap();
    for spec in [
        "msp",
        "max_logit",
        "el",
        "odin(temperature=3)",
        "gmm",
        "ssd",
        "maha",
        "ssd(pca=8,whiten=true)",
        "gmm(react=0.9)",
        "el(react=0.9)",
        "el(normalize=true)",
        "msp(pca=6)",
    ] {
        let fitted = ScorerSpec::parse(spec).unwrap();
        let scorer = fitted.fit(&data, &mut Silent).unwrap();
        check_gradient(spec, &*scorer, &values, &batch);
    }
    for beta in [0.0, 1.5, f64::INFINITY, f64::NEG_INFINITY] {
        let member = |name: &str| {
            let spec = ScorerSpec::parse(name).unwrap();
            let scorer = spec.fit(&data, &mut Silent).unwrap();
            Part::new(name, scorer)
        };
        let config = CombinedConfig { members: vec![member("el"), member("ssd")], beta };
        let combined = config.fit(&data, &mut Silent).unwrap();
        check_gradient(&format!("combined {beta}"), &*combined, &values, &batch);
    }
    let knn = ScorerSpec::parse("knn(k=3)").unwrap().fit(&data, &mut Silent).unwrap();
    let mut out = batch(&values);
    let refused = knn.gradient_batch(&batch(&values), 1.0, &mut out).err().unwrap().to_string();
    contains(&refused, &["knn", "has no gradient", "odin"]);
}

fn check_gradient(
    name: &str,
    scorer: &dyn Scorer,
    values: &[f32],
    batch: &dyn Fn(&[f32]) -> Batch<'static>,
) {
    let field = Field::Features(Pooling::Avg);
    let here = batch(values);
    let rows = here.rows();
    let mut out = Batch::of(rows, []).unwrap();
    scorer.gradient_batch(&here, 1.0, &mut out).unwrap();
    let gradient = out.get(field);
    let size = (gradient.iter().map(|g| g * g).sum::<f32>() / gradient.len() as f32).sqrt();
    let scores = |values: &[f32]| {
        let mut scores = vec![0.0; rows];
        scorer.score_batch(&batch(values), &mut scores);
        scores
    };
    let (mut worst, step) = (0f32, 3e-3);
    let middle = scores(values);
    for d in 0..D {
        let moved = |by: f32| {
            let mut all = values.to_vec();
            all.iter_mut().skip(d).step_by(D).for_each(|v| *v += by);
            scores(&all)
        };
        for (i, (up, down)) in moved(step).into_iter().zip(moved(-step)).enumerate() {
            let (right, left) = ((up - middle[i]) / step, (middle[i] - down) / step);
            // Where a value is clipped the two differ, and either will do.
            let g = gradient[i * D + d];
            let beyond = (g - left.max(right)).max(left.min(right) - g).max(0.0);
            worst = worst.max(beyond / size);
        }
    }
    println!("{name}: {worst:.1e}");
    assert!(worst < 5e-3, "{name}: {worst}");
}
