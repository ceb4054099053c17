//! `heat score`: one score per row.

use anyhow::Result;
use heat_ood::features::{FeatureSet, OpenOptions};
use heat_ood::{Detector, Error};

use super::{refuse_overwriting, wrote};
use crate::args::ScoreArgs;
use crate::export::scores::{Columns, Ending};
use crate::progress::Progress;

pub fn run(args: &ScoreArgs, progress: &mut Progress) -> Result<()> {
    let ending = match &args.output {
        None => Ending::Csv,
        Some(path) => Ending::of(path).ok_or_else(|| {
            Error::config("output", path.display(), "the ending must be .csv, .jsonl or .npy")
        })?,
    };
    refuse_overwriting(args.output.as_deref(), &[&args.detector, &args.features])?;
    let detector = Detector::open(&args.detector)?;
    let options = OpenOptions { dim: args.dim, ..OpenOptions::default() };
    let set = FeatureSet::open_with(&args.features, &options)?;
    let scorer = detector.scorer();
    let columns = Columns {
        scores: scorer.score_observed(&set, progress)?,
        names: scorer.components(),
        components: scorer.score_components(&set)?,
    };
    match &args.output {
        Some(path) => {
            heat_ood::features::write_atomically(path, |w| columns.write(ending, w))?;
            wrote(progress, path);
        }
        None => columns.write(ending, &mut std::io::stdout().lock())?,
    }
    Ok(())
}
