//! `heat compose`: several detectors, one score.

use std::path::Path;

use anyhow::Result;
use heat_ood::calibrate::{Fusion, FusionRule};
use heat_ood::compose::{CombinedConfig, Member, Part};
use heat_ood::features::FeatureSet;
use heat_ood::scorers::Scorer;
use heat_ood::{Error, Fit, Fitted, TrainingData};

use super::scorers;
use super::{
    NamedDetector, check_origin, detectors, named, open, open_options, refuse_overwriting,
    unless_forced, wrote,
};
use crate::args::{ComposeArgs, PValueRule};
use crate::progress::Progress;

pub fn run(args: &ComposeArgs, progress: &mut Progress) -> Result<()> {
    let paths: Vec<_> = args.detectors.iter().map(|d| named(d).1).collect();
    let mut inputs: Vec<&Path> = paths.iter().map(|p| &**p).collect();
    inputs.extend(args.train.as_deref());
    inputs.extend(args.standardise.as_deref());
    inputs.extend(args.against.iter().map(|path| &**path));
    refuse_overwriting(Some(&args.output), &inputs)?;
    let members = detectors(&args.detectors)?;
    unless_forced(same_origin(&members), args.force)?;
    let names: Vec<&str> = members.iter().map(|m| &*m.name).collect();
    let names = names.join(" ");
    say_what_is_left_out(args, &members, progress);
    let over = args.standardise.as_ref().or(args.train.as_ref());
    let (scorer, recipe): (Fitted<dyn Scorer>, _) = match (args.p_values, over) {
        (Some(rule), _) => {
            let word = format!("{rule:?}").to_lowercase();
            (fuse(rule, &members)?.into(), format!("compose {names} --p-values {word}"))
        }
        (None, Some(set)) => {
            let set = open(set, &open_options(args.dim, None), None, progress)?;
            for member in &members {
                check_origin(member.detector.provenance(), &set, args.force)?;
            }
            let scorer = standardise(&members, args, &set, progress)?;
            let weights: Vec<String> = args.weights.iter().map(f64::to_string).collect();
            let mut recipe = format!("compose {names} --beta {}", args.beta);
            if !weights.is_empty() {
                recipe.push_str(&format!(" --weights {}", weights.join(",")));
            }
            if args.standardise.is_some() {
                recipe.push_str(" --standardise");
            }
            if !args.against.is_empty() {
                recipe.push_str(" --against");
            }
            (scorer, recipe)
        }
        (None, None) => {
            let remedy = "give the training features with `--train`, or held-out ones with \
                          `--standardise`";
            return Err(Error::needs("a composition", "a training set", remedy).into());
        }
    };
    scorers::detector(scorer, &recipe).save(&args.output)?;
    wrote(progress, &args.output);
    Ok(())
}

/// Refuse members of different networks or transforms.
fn same_origin(members: &[NamedDetector]) -> heat_ood::Result<()> {
    let mut known =
        members.iter().filter_map(|m| Some((m, m.detector.provenance().origin.as_ref()?)));
    let Some((first, origin)) = known.next() else { return Ok(()) };
    for (member, other) in known {
        if let Some(difference) = origin.difference(other) {
            let problem = format!("fitted on features of {difference}, as `{}` was", first.name);
            return Err(Error::Foreign { place: member.name.clone(), problem });
        }
    }
    Ok(())
}

/// The composition with its members' statistics over that set.
fn standardise(
    members: &[NamedDetector],
    args: &ComposeArgs,
    set: &FeatureSet,
    progress: &mut Progress,
) -> Result<Fitted<dyn Scorer>> {
    if ![0, members.len()].contains(&args.weights.len()) {
        let problem = format!("give one for each of the {} detectors", members.len());
        return Err(Error::config("weights", format!("{:?}", args.weights), problem).into());
    }
    let weights = args.weights.iter().copied().chain(std::iter::repeat(1.0));
    let part = |(m, weight): (&NamedDetector, f64)| Part {
        weight,
        ..Part::new(&m.name, m.detector.fitted())
    };
    let config = CombinedConfig {
        members: members.iter().zip(weights).map(part).collect(),
        beta: args.beta,
    };
    if !args.against.is_empty() {
        return weighed(members, &config, args, set, progress);
    }
    Ok(match args.standardise {
        Some(_) => config.fit_held_out(set, args.force, progress)?.into(),
        None => config.fit(&TrainingData::new(set), progress)?.into(),
    })
}

/// The composition with the weights that tell these sets best from the held-out rows.
fn weighed(
    members: &[NamedDetector],
    config: &CombinedConfig,
    args: &ComposeArgs,
    held_out: &FeatureSet,
    progress: &mut Progress,
) -> Result<Fitted<dyn Scorer>> {
    let mut against = Vec::new();
    for path in &args.against {
        let set = open(path, &open_options(args.dim, None), None, progress)?;
        for member in members {
            check_origin(member.detector.provenance(), &set, args.force)?;
        }
        against.push(set);
    }
    let fitted = config.fit_against(held_out, &against, args.force, progress)?;
    let weight = |m: &Member| format!("{} {:.3}", m.name, m.weight);
    let weights: Vec<String> = fitted.scorer().members().iter().map(weight).collect();
    progress.say(&format!("weights: {}", weights.join(", ")));
    Ok(fitted.into())
}

/// Calibrations are of the members' own scores, and fused ones of all classes.
fn say_what_is_left_out(args: &ComposeArgs, members: &[NamedDetector], progress: &mut Progress) {
    let mut calibrations = members.iter().filter_map(|m| m.detector.calibration());
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

fn fuse(rule: PValueRule, members: &[NamedDetector]) -> Result<Fitted<Fusion>> {
    let rule = match rule {
        PValueRule::Fisher => FusionRule::Fisher,
        PValueRule::Stouffer => FusionRule::Stouffer,
        PValueRule::Cauchy => FusionRule::Cauchy,
        PValueRule::Simes => FusionRule::Simes,
    };
    let member = |NamedDetector { name, detector, .. }: &NamedDetector| {
        let Some(calibration) = detector.calibration().cloned() else {
            let remedy = "`heat calibrate` it first: p-values are combined";
            return Err(Error::missing(name, "calibration", remedy));
        };
        Ok((name.clone(), detector.fitted(), calibration))
    };
    let members = members.iter().map(member).collect::<Result<Vec<_>, _>>()?;
    Ok(Fusion::fit(rule, members)?)
}
