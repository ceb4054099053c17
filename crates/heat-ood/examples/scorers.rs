//! Seconds to fit and to score, of every scorer alone and of all together, for
//! `bench/scorers.py`:
//!
//! ```sh
//! cargo run --release -p heat-ood --example scorers -- TRAIN HEAD ID OOD [SCORER …]
//! ```
//!
//! One JSON object a line: name, fit, score (wall-clock seconds), auroc.

use std::time::Instant;

use heat_ood::features::{FeatureSet, Head};
use heat_ood::scorers::{NAMES, Scorer, ScorerSpec, fit_all, score_together};
use heat_ood::{Result, Silent, TrainingData, metrics};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [train, head, id, ood] = [0, 1, 2, 3].map(|i| args.get(i).cloned().unwrap_or_default());
    let (train, head) = (FeatureSet::open(train)?, Head::open(head)?);
    let sets = [FeatureSet::open(id)?, FeatureSet::open(ood)?];
    let names: Vec<String> = match &args[4.min(args.len())..] {
        [] => NAMES.iter().map(|n| (*n).to_owned()).collect(),
        some => some.to_vec(),
    };
    let specs = names.iter().map(|n| ScorerSpec::parse(n)).collect::<Result<Vec<_>>>()?;
    // What is timed is computing: the files are in memory, and the pool runs.
    let warm = ScorerSpec::parse("norm")?.fit(&TrainingData::new(&train), &mut Silent)?;
    warm.score(&train)?;
    sets.iter().try_for_each(|s| warm.score(s).map(drop))?;
    for (name, spec) in names.iter().zip(&specs) {
        let start = Instant::now();
        let scorer = spec.fit(&TrainingData::new(&train).with_head(&head), &mut Silent)?;
        let fit = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let scores = [scorer.score(&sets[0])?, scorer.score(&sets[1])?];
        let score = start.elapsed().as_secs_f64();
        let auroc = metrics::auroc(&scores[0], &scores[1])?;
        println!(r#"{{"name":"{name}","fit":{fit},"score":{score},"auroc":{auroc}}}"#);
    }
    let start = Instant::now();
    let fitted = fit_all(&specs, &TrainingData::new(&train).with_head(&head), &mut Silent)?;
    let fit = start.elapsed().as_secs_f64();
    let scorers: Vec<&dyn Scorer> = fitted.iter().map(|(scorer, _)| &**scorer).collect();
    let start = Instant::now();
    for set in &sets {
        score_together(set, &scorers, false, &mut Silent)?;
    }
    let score = start.elapsed().as_secs_f64();
    println!(r#"{{"name":"together","fit":{fit},"score":{score},"auroc":null}}"#);
    Ok(())
}
