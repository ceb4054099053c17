//! `heat compose`: several detectors, one score.

use std::path::Path;

use anyhow::Result;
use heat_ood::Detector;
use heat_ood::compose::{Combined, Member};
use heat_ood::features::{FeatureSet, OpenOptions};

use super::{detectors, named, refuse_overwriting, wrote};
use crate::args::ComposeArgs;
use crate::progress::Progress;

pub fn run(args: &ComposeArgs, progress: &mut Progress) -> Result<()> {
    let paths: Vec<_> = args.detectors.iter().map(|d| named(d).1).collect();
    let mut inputs: Vec<&Path> = paths.iter().map(|p| &**p).collect();
    inputs.push(&args.train);
    refuse_overwriting(Some(&args.output), &inputs)?;
    let options = OpenOptions { dim: args.dim, ..OpenOptions::default() };
    let train = FeatureSet::open_with(&args.train, &options)?;
    let mut members = Vec::new();
    let mut names = Vec::new();
    for (name, detector) in detectors(&args.detectors)? {
        members.push(Member::fit(&name, detector.scorer().clone(), &train, progress)?);
        names.push(name);
    }
    let mut detector = Detector::new(Combined::new(members, args.beta)?);
    detector.provenance.recipe = Some(format!("compose {} --beta {}", names.join(" "), args.beta));
    detector.provenance.train = train.digests()?;
    detector.save(&args.output)?;
    wrote(progress, &args.output);
    Ok(())
}
