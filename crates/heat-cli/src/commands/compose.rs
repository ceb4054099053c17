//! `heat compose`: several detectors, one score.

use std::path::Path;

use anyhow::Result;
use heat_ood::calibrate::{Fusion, FusionRule};
use heat_ood::compose::{Combined, Member};
use heat_ood::features::{FeatureSet, OpenOptions};
use heat_ood::{Detector, Error};

use super::{detectors, named, refuse_overwriting, wrote};
use crate::args::{ComposeArgs, PValueRule};
use crate::progress::Progress;

pub fn run(args: &ComposeArgs, progress: &mut Progress) -> Result<()> {
    let paths: Vec<_> = args.detectors.iter().map(|d| named(d).1).collect();
    let mut inputs: Vec<&Path> = paths.iter().map(|p| &**p).collect();
    inputs.extend(args.train.as_deref());
    refuse_overwriting(Some(&args.output), &inputs)?;
    let members = detectors(&args.detectors)?;
    let names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
    let names = names.join(" ");
    let trained: Vec<_> = members.iter().flat_map(|(_, d)| d.provenance.train.clone()).collect();
    let (mut detector, recipe) = match (args.p_values, &args.train) {
        (Some(rule), _) => {
            let word = format!("{rule:?}").to_lowercase();
            (fuse(rule, members)?, format!("compose {names} --p-values {word}"))
        }
        (None, Some(train)) => {
            let options = OpenOptions { dim: args.dim, ..OpenOptions::default() };
            let train = FeatureSet::open_with(train, &options)?;
            let detector = standardise(members, args, &train, progress)?;
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
    // What a member was fitted on, the whole was.
    detector.provenance.train.extend(trained);
    detector.provenance.train.sort();
    detector.provenance.train.dedup();
    detector.save(&args.output)?;
    wrote(progress, &args.output);
    Ok(())
}

fn standardise(
    detectors: Vec<(String, Detector)>,
    args: &ComposeArgs,
    train: &FeatureSet,
    progress: &mut Progress,
) -> Result<Detector> {
    if ![0, detectors.len()].contains(&args.weights.len()) {
        let problem = format!("give one for each of the {} detectors", detectors.len());
        return Err(Error::config("weights", format!("{:?}", args.weights), problem).into());
    }
    let (mut members, mut sketches) = (Vec::new(), Vec::new());
    for (i, (name, detector)) in detectors.into_iter().enumerate() {
        let member = Member::fit(&name, detector.scorer().clone(), train, progress)?;
        let weight = args.weights.get(i).copied().unwrap_or(1.0);
        members.push(Member { weight, ..member });
        sketches.extend(detector.provenance.rows);
    }
    let mut detector = Detector::new(Combined::new(members, args.beta)?);
    detector.provenance.trained_on(train)?;
    // Members may have been fitted on other rows.
    if let Some(rows) = &mut detector.provenance.rows {
        let own = rows.hashes.clone();
        for sketch in sketches.iter().filter(|s| s.hashes != own) {
            rows.merge(sketch);
        }
    }
    Ok(detector)
}

fn fuse(rule: PValueRule, detectors: Vec<(String, Detector)>) -> Result<Detector> {
    let rule = match rule {
        PValueRule::Fisher => FusionRule::Fisher,
        PValueRule::Stouffer => FusionRule::Stouffer,
        PValueRule::Cauchy => FusionRule::Cauchy,
        PValueRule::Simes => FusionRule::Simes,
    };
    let member = |(name, detector): (String, Detector)| {
        let Some(calibration) = detector.calibration.clone() else {
            let remedy = "`heat calibrate` it first: p-values are combined";
            return Err(Error::missing(name, "calibration", remedy));
        };
        Ok((name, detector.scorer().clone(), calibration))
    };
    let members = detectors.into_iter().map(member).collect::<Result<_, _>>()?;
    let fusion = Fusion::new(rule, members)?;
    // To the fused score the members' calibration rows are training rows.
    let files = fusion.calibration_files();
    let mut detector = Detector::new(fusion);
    detector.provenance.train = files;
    Ok(detector)
}
