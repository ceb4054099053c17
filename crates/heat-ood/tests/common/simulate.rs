//! Simulations of what calibration promises, on scores of real rows. Used by
//! `tests/all/calibration.rs` and, at scale, by `examples/calibration.rs`.

use heat_ood::calibrate::drift::{Drift, DriftConfig};
use heat_ood::calibrate::{
    Calibration, CalibrationConfig, CalibrationScores, Guarantee, Ties, benjamini_hochberg,
};
use heat_ood::math::rng::{Purpose, Stream};

/// A random order of the scores, another for every `split`.
pub fn shuffled(scores: &[f32], split: u64) -> Vec<f32> {
    let order = Stream::new(split, Purpose::User, 1, 0).permutation(scores.len() as u32);
    order.into_iter().map(|i| scores[i as usize]).collect()
}

/// One randomized p-value for each split: that of a row left out of a random
/// calibration set of `n` rows. Exchangeable, so exactly uniform.
pub fn p_values(scores: &[f32], n: usize, splits: u64) -> Vec<f64> {
    let one = |split| {
        let x = shuffled(scores, split);
        let reference = CalibrationScores::new(x[..n].to_vec()).unwrap();
        let u = Stream::new(split, Purpose::User, 2, 0).uniform();
        reference.p_value_randomized(x[n], u)
    };
    (0..splits).map(one).collect()
}

/// Kolmogorov and Smirnov's distance from the uniform distribution, times √n:
/// above 1.63 in one of a hundred samples.
pub fn kolmogorov_smirnov(p: &[f64]) -> f64 {
    let mut p = p.to_vec();
    p.sort_by(f64::total_cmp);
    let n = p.len() as f64;
    let far = |(i, p): (usize, &f64)| (p - i as f64 / n).max((i + 1) as f64 / n - p);
    p.iter().enumerate().map(far).fold(0.0, f64::max) * n.sqrt()
}

fn calibration(config: &CalibrationConfig, scores: Vec<f32>) -> Calibration {
    Calibration::new(config.clone(), scores, None, "simulation").unwrap()
}

/// False-alarm rates over splits: `n` rows of a random order calibrate, the
/// others are judged.
pub fn held_out_rates(scores: &[f32], n: usize, alpha: f64, splits: u64) -> Vec<f64> {
    let config = CalibrationConfig { alpha, ..CalibrationConfig::default() };
    let rate = |split| {
        let x = shuffled(scores, split);
        let verdicts = calibration(&config, x[..n].to_vec())
            .verdicts(&x[n..], None, Ties::Conservative)
            .unwrap();
        verdicts.iter().filter(|v| v.ood).count() as f64 / verdicts.len() as f64
    };
    (0..splits).map(rate).collect()
}

/// True false-alarm rates: the scores are the whole population, from which `n`
/// calibration rows are drawn with replacement, so that the rate of each
/// threshold is known without error.
pub fn population_rates(
    scores: &[f32],
    n: usize,
    config: &CalibrationConfig,
    splits: u64,
) -> Vec<f64> {
    let rate = |split| {
        let mut stream = Stream::new(split, Purpose::User, 3, 0);
        let drawn = (0..n).map(|_| scores[stream.below(scores.len() as u32) as usize]).collect();
        let threshold = calibration(config, drawn).thresholds()[0];
        scores.iter().filter(|s| **s > threshold).count() as f64 / scores.len() as f64
    };
    (0..splits).map(rate).collect()
}

/// Mean false discovery proportion and mean fraction of the anomalous rows found, in
/// batches of `ordinary` ID and `odd` OOD rows, calibrated on the other ID rows.
pub fn discoveries(
    id: &[f32],
    ood: &[f32],
    (ordinary, odd): (usize, usize),
    rate: f64,
    splits: u64,
) -> (f64, f64) {
    let (mut false_share, mut found) = (0.0, 0.0);
    for split in 0..splits {
        let (x, y) = (shuffled(id, split), shuffled(ood, split));
        let reference = CalibrationScores::new(x[ordinary..].to_vec()).unwrap();
        let batch = x[..ordinary].iter().chain(&y[..odd]);
        let p: Vec<f64> = batch.map(|s| reference.p_value(*s)).collect();
        let selected = benjamini_hochberg(&p, rate).unwrap();
        let wrong = selected[..ordinary].iter().filter(|s| **s).count() as f64;
        let right = selected[ordinary..].iter().filter(|s| **s).count() as f64;
        false_share += wrong / (wrong + right).max(1.0);
        found += right / odd as f64;
    }
    (false_share / splits as f64, found / splits as f64)
}

/// OOD rows in a stream: with which probability a row is one, from which row on.
pub struct Change<'a> {
    pub ood: &'a [f32],
    pub admixture: f64,
    pub from: usize,
}

/// The row of the first alarm in a stream of ID rows after `n` rows of
/// calibration; `None` if there is none.
pub fn first_alarm(
    id: &[f32],
    change: &Change<'_>,
    n: usize,
    config: &DriftConfig,
    split: u64,
) -> Option<u64> {
    let (x, y) = (shuffled(id, split), shuffled(change.ood, split));
    let mut stream = Stream::new(split, Purpose::User, 4, 0);
    let mut drift = Drift::new(
        DriftConfig { seed: split, ..config.clone() },
        &CalibrationScores::new(x[..n].to_vec()).unwrap(),
    )
    .unwrap();
    let mut odd = y.iter().cycle();
    x[n..].iter().enumerate().find_map(|(row, &score)| {
        let is_odd = row >= change.from && stream.uniform() < change.admixture;
        let score = if is_odd { *odd.next().unwrap() } else { score };
        drift.push(score).unwrap().alarms.first().map(|a| a.row)
    })
}

/// Settings that hold with probability 1 − δ.
pub fn conditional(alpha: f64, delta: f64, guarantee: Guarantee) -> CalibrationConfig {
    CalibrationConfig { alpha, guarantee, delta, per_class: false }
}

/// Mean.
pub fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}
