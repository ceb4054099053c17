//! `heat calibrate`: a detector learns when to say "out-of-distribution".

use std::path::PathBuf;

use anyhow::Result;
use heat_ood::Error;
use heat_ood::calibrate::{CalibrationConfig, Guarantee};
use heat_ood::features::Head;

use super::{check_origin, open, open_detector, open_options, refuse_overwriting, wrote};
use crate::args::{Bound, CalibrateArgs};
use crate::progress::Progress;

pub fn run(args: &CalibrateArgs, progress: &mut Progress) -> Result<()> {
    let mut inputs = vec![&*args.detector, &*args.id];
    inputs.extend(args.head.as_deref());
    inputs.extend(args.train.iter().map(|p| &**p));
    refuse_overwriting(Some(&args.output), &inputs)?;
    if args.head.is_some() && !args.per_class {
        let problem = "the head tells the predicted class: give `--per-class` with it";
        return Err(Error::config("head", "", problem).into());
    }
    let mut detector = open_detector(&args.detector)?;
    let head = args.head.as_ref().map(Head::open).transpose()?;
    let options = open_options(args.dim, head.as_ref());
    let mut id = open(&args.id, &options, head.as_ref(), progress)?;
    check_origin(detector.provenance(), &id, args.force)?;
    if args.drop_seen {
        let open = |path: &PathBuf| open(path, &options, head.as_ref(), progress);
        let train = args.train.iter().map(open).collect::<Result<Vec<_>>>()?;
        for text in detector.provenance().unrecorded(&train)? {
            progress.warn(&text);
        }
        let (left, dropped) = detector.provenance().without_seen(&id, &train)?;
        progress.say(&format!("{dropped} of {} rows were in training and are left out", id.len()));
        id = left;
    }
    let config = CalibrationConfig {
        alpha: args.alpha,
        guarantee: match (args.delta, args.bound) {
            (None, _) => Guarantee::Marginal,
            (Some(_), Bound::ClopperPearson) => Guarantee::ClopperPearson,
            (Some(_), Bound::Dkw) => Guarantee::Dkw,
        },
        delta: args.delta.unwrap_or(CalibrationConfig::default().delta),
        per_class: args.per_class,
    };
    detector.calibrate(&config, &id, head.as_ref(), args.force, progress)?;
    detector.save(&args.output)?;
    progress.clear();
    if let Some(calibration) = detector.calibration() {
        progress.say(&calibration.words());
    }
    wrote(progress, &args.output);
    Ok(())
}
