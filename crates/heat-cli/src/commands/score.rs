//! `heat score`: one score per row, and a verdict from calibrated detectors.

use std::io::Write;

use anyhow::Result;
use heat_ood::calibrate::{Ties, benjamini_hochberg};
use heat_ood::io::is_standard_output;
use heat_ood::{Detector, Error, Prediction};

use super::{check_origin, open, open_detector, open_options, refuse_overwriting, wrote};
use crate::args::{ScoreArgs, TiesRule};
use crate::export::{self, ScoreFormat};
use crate::progress::Progress;

pub fn run(args: &ScoreArgs, progress: &mut Progress) -> Result<()> {
    let format = format(args)?;
    refuse_overwriting(args.output.as_deref(), &[&args.detector, &args.features])?;
    let mut detector = open_detector(&args.detector)?;
    if let Some(alpha) = args.alpha {
        calibrated(&detector, "alpha")?;
        detector.set_alpha(alpha)?;
    }
    if args.fdr.is_some() {
        calibrated(&detector, "fdr")?;
    }
    let set = open(&args.features, &open_options(args.dim, None), None, progress)?;
    check_origin(detector.provenance(), &set, args.force)?;
    let detector = detector.of_any_origin();
    let ties = match (args.ties, args.ties_seed) {
        (Some(TiesRule::Randomized), Some(seed)) => {
            calibrated(&detector, "ties")?;
            Ties::Randomized { seed }
        }
        _ => Ties::Conservative,
    };
    let mut judged = detector.predict(&set, ties, progress)?;
    progress.clear();
    if let Some(rate) = args.fdr {
        select(&mut judged, rate)?;
    }
    if let Some(text) = summary(&detector, &judged, args.fdr) {
        progress.say(&text);
    }
    let write =
        |out: &mut dyn Write| export::scores(&judged, detector.scorer().components(), format, out);
    match &args.output {
        Some(path) => {
            heat_ood::io::write_atomically(path, |w| write(w))?;
            wrote(progress, path);
        }
        None => write(&mut std::io::stdout().lock())?,
    }
    Ok(())
}

/// By the output's ending, which must be able to hold what is asked for.
fn format(args: &ScoreArgs) -> Result<ScoreFormat> {
    let format = match &args.output {
        None => ScoreFormat::Csv,
        Some(path) if is_standard_output(path) => ScoreFormat::Csv,
        Some(path) => ScoreFormat::of(path).ok_or_else(|| {
            Error::config("output", path.display(), "the ending must be .csv, .jsonl or .npy")
        })?,
    };
    let judging = args.alpha.is_some() || args.fdr.is_some() || args.ties.is_some();
    if format == ScoreFormat::Npy && judging {
        let problem = "holds scores alone; write .csv or .jsonl for verdicts";
        return Err(Error::config("output", ".npy", problem).into());
    }
    Ok(format)
}

fn calibrated<'a>(
    detector: &'a Detector,
    option: &str,
) -> Result<&'a heat_ood::calibrate::Calibration, Error> {
    detector.calibration().map(|c| &**c).ok_or_else(|| {
        let problem = "the detector is not calibrated: `heat calibrate DETECTOR --id CAL -o OUT`";
        Error::config(option, "", problem)
    })
}

/// Let the false discovery rate decide the verdicts.
fn select(judged: &mut Prediction, rate: f64) -> Result<()> {
    let verdicts = judged.verdicts.as_deref_mut().unwrap_or_default();
    let p: Vec<f64> = verdicts.iter().map(|v| v.p_value).collect();
    let selected = benjamini_hochberg(&p, rate)?;
    verdicts.iter_mut().zip(selected).for_each(|(v, ood)| v.ood = ood);
    Ok(())
}

fn summary(detector: &Detector, judged: &Prediction, fdr: Option<f64>) -> Option<String> {
    let (calibration, verdicts) = (detector.calibration()?, judged.verdicts.as_ref()?);
    let flagged = verdicts.iter().filter(|v| v.ood).count();
    let promise = match fdr {
        Some(rate) if !calibration.forced => format!(
            "of those called so, at most {rate} are in-distribution on average (Benjamini-Hochberg)"
        ),
        _ => calibration.words(),
    };
    Some(format!("{flagged} of {} rows out-of-distribution; {promise}", verdicts.len()))
}
