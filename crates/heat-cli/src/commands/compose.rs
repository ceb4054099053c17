//! `heat compose`: several detectors, one score.

use std::path::Path;

use anyhow::Result;
use heat_ood::calibrate::{Fusion, FusionRule};
use heat_ood::features::{FeatureSet, OpenOptions};
use heat_ood::{Detector, Error, Provenance};

use super::scorers;
use super::{NamedDetector, detectors, named, refuse_overwriting, wrote};
use crate::args::{ComposeArgs, PValueRule};
use crate::progress::Progress;

pub fn run(args: &ComposeArgs, progress: &mut Progress) -> Result<()> {
    let paths: Vec<_> = args.detectors.iter().map(|d| named(d).1).collect();
    let mut inputs: Vec<&Path> = paths.iter().map(|p| &**p).collect();
    inputs.extend(args.train.as_deref());
    refuse_overwriting(Some(&args.output), &inputs)?;
    let members = detectors(&args.detectors)?;
    let names: Vec<&str> = members.iter().map(|m| &*m.name).collect();
    let names = names.join(" ");
    let seen: Vec<Provenance> = members.iter().map(|m| m.detector.provenance.clone()).collect();
    say_what_is_left_out(args, &members, progress);
    let (mut detector, recipe) = match (args.p_values, &args.train) {
        (Some(rule), _) => {
            let word = format!("{rule:?}").to_lowercase();
            (fuse(rule, &members)?, format!("compose {names} --p-values {word}"))
        }
        (None, Some(train)) => {
            let options = OpenOptions { dim: args.dim, ..OpenOptions::default() };
            let train = FeatureSet::open_with(train, &options)?;
            let detector = standardise(&members, args, &train, progress)?;
            let weights: Vec<String> = args.weights.iter().map(f64::to_string).collect();
            let mut recipe = format!("compose {names} --beta {}", args.beta);
            if !weights.is_empty() {
                recipe.push_str(&format!(" --weights {}", weights.join(",")));
            }
            (detector, recipe)
        }
        (None, None) => {
            let remedy = "give the training features with `--train`";
            return Err(Error::missing("compose", "training set", remedy).into());
        }
    };
    detector.provenance.recipe = Some(recipe);
    // What a member has seen, the whole has.
    seen.iter().for_each(|part| detector.provenance.include(part));
    detector.save(&args.output)?;
    wrote(progress, &args.output);
    Ok(())
}

fn standardise(
    members: &[NamedDetector],
    args: &ComposeArgs,
    train: &FeatureSet,
    progress: &mut Progress,
) -> Result<Detector> {
    if ![0, members.len()].contains(&args.weights.len()) {
        let problem = format!("give one for each of the {} detectors", members.len());
        return Err(Error::config("weights", format!("{:?}", args.weights), problem).into());
    }
    let weights = args.weights.iter().copied().chain(std::iter::repeat(1.0));
    let parts = members.iter().zip(weights).map(|(m, w)| (&*m.name, m.detector.scorer(), w));
    let combined = scorers::compose("composition", parts, args.beta, train, progress)?;
    scorers::detector(&combined.scorer, None, train)
}

/// Calibrations are of the members' own scores, and fused ones of all classes.
fn say_what_is_left_out(args: &ComposeArgs, members: &[NamedDetector], progress: &mut Progress) {
    let mut calibrations = members.iter().filter_map(|m| m.detector.calibration.as_ref());
    if args.p_values.is_some() && calibrations.clone().any(|c| c.config().per_class) {
        progress.say("note: p-values over all classes are combined, not those by class");
    }
    if args.p_values.is_some() && calibrations.clone().any(|c| c.forced) {
        progress.say(
            "warning: a detector was calibrated on rows that were in training: its p-values, and \
             what is made of them, are no better than a score",
        );
    }
    if args.p_values.is_none() && calibrations.next().is_some() {
        progress.say("note: the composition is another score: calibrate it with `heat calibrate`");
    }
}

fn fuse(rule: PValueRule, members: &[NamedDetector]) -> Result<Detector> {
    let rule = match rule {
        PValueRule::Fisher => FusionRule::Fisher,
        PValueRule::Stouffer => FusionRule::Stouffer,
        PValueRule::Cauchy => FusionRule::Cauchy,
        PValueRule::Simes => FusionRule::Simes,
    };
    let member = |NamedDetector { name, detector, .. }: &NamedDetector| {
        let Some(calibration) = detector.calibration.clone() else {
            let remedy = "`heat calibrate` it first: p-values are combined";
            return Err(Error::missing(name, "calibration", remedy));
        };
        Ok((name.clone(), detector.scorer().clone(), calibration))
    };
    let members = members.iter().map(member).collect::<Result<Vec<_>, _>>()?;
    let seen: Vec<_> = members.iter().map(|(_, _, calibration)| calibration.clone()).collect();
    let mut detector = Detector::new(Fusion::new(rule, members)?);
    // To the fused score the members' calibration rows are training rows.
    for calibration in seen {
        detector.provenance.train.extend(calibration.files.iter().cloned());
        detector.provenance.include_rows(&calibration.rows);
    }
    Ok(detector)
}
