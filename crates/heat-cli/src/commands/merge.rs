//! `heat fit --partial` and `heat merge`: a fit whose rows are in parts.

use std::path::Path;

use anyhow::Result;
use heat_ood::Error;
use heat_ood::scorers::ScorerSpec;
use heat_ood::statistics::Statistics;

use super::{Data, refuse_overwriting, wrote};
use crate::args::{FitArgs, MergeArgs};
use crate::progress::Progress;

/// The statistics of a part.
pub fn partial(
    args: &FitArgs,
    spec: &ScorerSpec,
    data: &Data,
    progress: &mut Progress,
) -> Result<()> {
    let after = args.after.as_ref().map(Statistics::open).transpose()?;
    let part = data.training();
    let part = match args.classes {
        Some(classes) => part.with_classes(classes),
        None => part,
    };
    let found = Statistics::of(std::slice::from_ref(spec), &part, after.as_ref(), progress)?;
    found.save(&args.output)?;
    wrote(progress, &args.output);
    Ok(())
}

pub fn run(args: &MergeArgs, progress: &mut Progress) -> Result<()> {
    let inputs: Vec<&Path> = args.parts.iter().map(|p| &**p).collect();
    refuse_overwriting(Some(&args.output), &inputs)?;
    // One after the other: two are in memory at a time.
    let mut merged = Statistics::open(&args.parts[0])?;
    for path in &args.parts[1..] {
        merged.merge(&Statistics::open(path)?)?;
    }
    let rows = merged.rows();
    if args.only {
        merged.save(&args.output)?;
        wrote(progress, &args.output);
        return Ok(());
    }
    match merged.finish(progress) {
        Ok(detectors) => {
            progress.clear();
            let [detector] = &detectors[..] else {
                let problem = format!(
                    "these statistics are of {} scorers, and a file holds one: gather them one by one, or \
                     make the detectors from Python or Rust",
                    detectors.len()
                );
                return Err(Error::config("parts", args.parts[0].display(), problem).into());
            };
            detector.save(&args.output)?;
            progress.say(&format!("{rows} rows of {} files", args.parts.len()));
        }
        Err(Error::AnotherRound { .. }) => {
            progress.clear();
            merged.save(&args.output)?;
            progress.say(&format!(
                "another round is needed: run `heat fit … --partial --after {}` on each part, then merge \
                 what that writes",
                args.output.display()
            ));
        }
        Err(error) => return Err(error.into()),
    }
    wrote(progress, &args.output);
    Ok(())
}
