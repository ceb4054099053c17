//! What calibration promises and what is seen, on a directory of real features:
//!
//! ```sh
//! cargo run --release -p heat-ood --example calibration -- DIRECTORY [SCORER]
//! ```
//!
//! DIRECTORY holds `train`, `head`, `test` and `ood_*.safetensors`.

#[path = "../tests/common/simulate.rs"]
mod simulate;

use std::path::Path;

use heat_ood::calibrate::drift::{Drift, DriftConfig, Tests};
use heat_ood::calibrate::{CalibrationScores, Guarantee};
use heat_ood::features::{FeatureSet, Head};
use heat_ood::math::parallel::{Indices, Pieces};
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Result, Silent, TrainingData};
use simulate::*;

const SPLITS: u64 = 1000;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let directory = args.next().unwrap_or("crates/heat-cli/data/cifar10-densenet".into());
    let spec = ScorerSpec::parse(&args.next().unwrap_or("knn".into()))?;
    let open = |name: &str| FeatureSet::open(format!("{directory}/{name}.safetensors"));
    let head = Head::open(format!("{directory}/head.safetensors"))?;
    let scorer = spec.fit(&TrainingData::new(&open("train")?).with_head(&head), &mut Silent)?;
    let id = scorer.score(&open("test")?)?;
    let mut ood = Vec::new();
    for name in names(Path::new(&directory)) {
        ood.push((name.clone(), scorer.score(&open(&format!("ood_{name}"))?)?));
    }
    println!("{spec}: {} ID rows, {SPLITS} splits", id.len());
    uniform(&id);
    rates(&id);
    selection(&id, &ood);
    drift(&id, &ood);
    long(&id, &ood);
    Ok(())
}

fn names(directory: &Path) -> Vec<String> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = files
        .filter_map(|f| {
            let name = f.file_name().into_string().ok()?;
            Some(name.strip_prefix("ood_")?.strip_suffix(".safetensors")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

fn uniform(id: &[f32]) {
    let p = p_values(id, id.len() / 2, SPLITS);
    println!("\nuniformity: sqrt(n)·KS = {:.3} (1.63 is the 1 % point)", kolmogorov_smirnov(&p));
}

fn rates(id: &[f32]) {
    println!("\nfalse-alarm rate, calibrated on half of the rows, seen on the other half");
    println!("alpha  mean    marginal promise kept");
    for alpha in [0.01, 0.05, 0.1] {
        let seen = held_out_rates(id, id.len() / 2, alpha, SPLITS);
        let m = mean(&seen);
        let variance = seen.iter().map(|r| (r - m).powi(2)).sum::<f64>() / (SPLITS - 1) as f64;
        let error = (variance / SPLITS as f64).sqrt();
        println!("{alpha:<6} {m:.5} ± {error:.5}  {}", m <= alpha + 3.0 * error);
    }
    println!("\ntraining-conditional, delta = 0.05, 2,000 rows drawn from the ID rows");
    println!("alpha  bound            splits above alpha");
    for alpha in [0.01, 0.05, 0.1] {
        for guarantee in [Guarantee::Marginal, Guarantee::ClopperPearson, Guarantee::Dkw] {
            let config = conditional(alpha, 0.05, guarantee);
            if guarantee.rows_needed(alpha, 0.05) > 2000 {
                println!(
                    "{alpha:<6} {guarantee:<16?} needs {} rows",
                    guarantee.rows_needed(alpha, 0.05)
                );
                continue;
            }
            let seen = population_rates(id, 2000, &config, SPLITS);
            let above = seen.iter().filter(|r| **r > alpha).count();
            println!("{alpha:<6} {guarantee:<16?} {:.3}", above as f64 / SPLITS as f64);
        }
    }
}

fn selection(id: &[f32], ood: &[(String, Vec<f32>)]) {
    println!("\nfalse discovery rate, batches of 900 ID and 100 OOD rows");
    println!("set        rate  FDR seen  anomalous rows found");
    for (name, scores) in ood {
        for rate in [0.05, 0.1, 0.2] {
            let (false_share, found) = discoveries(id, scores, (900, 100), rate, SPLITS);
            println!("{name:<10} {rate:<5} {false_share:.4}    {found:.3}");
        }
    }
}

fn drift(id: &[f32], ood: &[(String, Vec<f32>)]) {
    let n = id.len() * 2 / 5;
    let rows = id.len() - n;
    println!("\ndrift: {n} calibration rows, streams of {rows} rows, horizon {rows}");
    println!("test        alpha  unchanged streams with an alarm");
    let alarms = |config: &DriftConfig, change: &Change<'_>, splits: u64| -> Vec<u64> {
        let splits = (0..splits as usize).into_par_iter();
        let alarms = splits.map(|s| first_alarm(id, change, n, config, s as u64)).collect();
        alarms.into_iter().flatten().collect()
    };
    for tests in [Tests::Martingale, Tests::Cusum, Tests::Both] {
        for alpha in [0.01, 0.05, 0.1] {
            // The effect is left out: the evidence alone must keep the promise.
            let config = DriftConfig {
                alpha,
                tests,
                horizon: rows as u64,
                min_admixture: 0.0,
                ..DriftConfig::default()
            };
            let none = Change { ood: id, admixture: 0.0, from: 0 };
            let alarms = alarms(&config, &none, SPLITS).len();
            println!("{:<11} {alpha:<6} {alarms} of {SPLITS}", format!("{tests:?}"));
        }
    }
    for from in [0, rows / 3] {
        println!("\n10 % of the rows OOD from row {from} on, alpha = 0.01, 200 streams");
        println!("set        early  found  median delay  90th percentile");
        for (name, scores) in ood {
            let config = DriftConfig { horizon: rows as u64, ..DriftConfig::default() };
            let change = Change { ood: scores, admixture: 0.1, from };
            let (early, late): (Vec<u64>, Vec<u64>) =
                alarms(&config, &change, 200).iter().partition(|&&row| row < from as u64);
            let mut delays: Vec<u64> = late.iter().map(|row| row + 1 - from as u64).collect();
            delays.sort_unstable();
            let at = |q: usize| delays.get(delays.len() * q / 100).copied().unwrap_or(0);
            let (early, found) = (early.len(), delays.len());
            println!("{name:<10} {early:<6} {found:<6} {:<13} {}", at(50), at(90));
        }
    }
}

/// Streams that are longer than any set: fresh uniform numbers for ID rows, and for OOD rows 1 − p with
/// their real p-values, in bounded memory as `heat serve` watches them.
fn long(id: &[f32], ood: &[(String, Vec<f32>)]) {
    const ROWS: u64 = 1_000_000;
    println!(
        "\n{ROWS} rows after those of calibration, horizon {ROWS}, alpha = 0.01, bounded memory"
    );
    println!("set        OOD    calibration  streams  alarm  median row  90th percentile");
    let reference = CalibrationScores::new(id.to_vec()).unwrap();
    let first = |odd: &[f32], admixture: f64, known: usize, split: u64| -> Option<u64> {
        let mut x = Stream::new(split, Purpose::User, 5, 0);
        let calibration = (0..known).map(|_| x.uniform() as f32).collect();
        // So small an effect that the evidence alone must keep the promise.
        let min_admixture = 0.002;
        let config =
            DriftConfig { seed: split, horizon: ROWS, min_admixture, ..DriftConfig::default() };
        let drift = Drift::new(config, &CalibrationScores::new(calibration).unwrap()).unwrap();
        let mut drift = drift.in_bounded_memory();
        (0..ROWS).find_map(|_| {
            let score = match x.uniform() < admixture {
                true => odd[(x.uniform() * odd.len() as f64) as usize],
                false => x.uniform() as f32,
            };
            drift.push(score).unwrap().alarms.first().map(|a| a.row)
        })
    };
    let tell = |name: &str, odd: &[f32], admixture: f64, known: usize, streams: u64| {
        let all = (0..streams as usize).into_par_iter();
        let all: Vec<Option<u64>> =
            all.map(|s| first(odd, admixture, known, 7_000 + s as u64)).collect();
        let mut rows: Vec<u64> = all.into_iter().flatten().collect();
        rows.sort_unstable();
        let at = |q: usize| rows.get(rows.len() * q / 100).copied().unwrap_or(0);
        let found = rows.len();
        let (median, late) = (at(50), at(90));
        println!(
            "{name:<10} {admixture:<6} {known:<12} {streams:<8} {found:<6} {median:<11} {late}"
        );
    };
    tell("none", &[0.5], 0.0, 1000, 200);
    for (name, scores) in ood {
        let odd: Vec<f32> = scores.iter().map(|s| 1.0 - reference.p_value(*s) as f32).collect();
        // Of a hundredth among 1000 there is hardly any evidence: 0.99^1000 is all that says that the rows of
        // calibration have none of them.
        for (admixture, known) in [(0.1, 1000), (0.01, 1000), (0.01, 10_000)] {
            tell(name, &odd, admixture, known, 50);
        }
    }
}
