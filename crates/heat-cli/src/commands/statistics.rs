//! The statistics of `heat eval`: what its arguments ask for, and what it writes.

use std::path::Path;

use anyhow::Result;
use heat_ood::Error;
use heat_ood::evaluate::{Baseline, Groups, Results, Scores, Statistics};
use heat_ood::metrics::BootstrapConfig;

use super::{is_directory_name, write_output, wrote};
use crate::args::{EvalFormat, StatisticsArgs};
use crate::export::{self, Format};
use crate::progress::Progress;

impl StatisticsArgs {
    /// What to find out on these OOD sets; refuses what cannot be.
    pub fn plan(&self, sets: &[&str], progress: &Progress) -> Result<Statistics> {
        let own = || Groups { near: self.near.clone(), far: self.far.clone() };
        let groups = match &self.groups {
            Some(benchmark) => Some(Groups::openood(benchmark, sets)?),
            None => (!self.near.is_empty()).then(own),
        };
        let usual = Statistics::default();
        let statistics = Statistics {
            groups,
            intervals: self.ci.is_some(),
            compare: self.compare.clone().map(|name| name.map_or(Baseline::Best, Baseline::Named)),
            level: self.ci.unwrap_or(usual.level),
            bootstrap: BootstrapConfig {
                resamples: self.resamples.unwrap_or(usual.bootstrap.resamples),
                seed: self.resample_seed.unwrap_or(usual.bootstrap.seed),
            },
        };
        if !statistics.intervals && statistics.compare.is_none() {
            let given = [
                ("resamples", self.resamples.map(|v| v.to_string())),
                ("resample-seed", self.resample_seed.map(|v| v.to_string())),
            ];
            if let Some((key, value)) = given.into_iter().find_map(|(k, v)| Some((k, v?))) {
                let problem = "rows are resampled for `--ci` and `--compare` only; give one";
                return Err(Error::config(key, value, problem).into());
            }
        }
        statistics.check_sets(sets)?;
        let others = statistics.groups.as_ref().map_or(Vec::new(), |groups| groups.others(sets));
        if !others.is_empty() {
            progress.say(&format!("note: neither near nor far: {}", others.join(", ")));
        }
        Ok(statistics)
    }
}

/// Refuse scorers that cannot be compared, or written in that form.
pub fn check_scorers(
    statistics: &Statistics,
    scorers: &[&str],
    format: EvalFormat,
    output: Option<&Path>,
    progress: &Progress,
) -> Result<()> {
    statistics.check_scorers(scorers)?;
    if statistics.compare.is_some() {
        let (resamples, others) = (statistics.bootstrap.resamples, scorers.len() - 1);
        let least = 2.0 / (1 + resamples) as f64 * others as f64;
        if least > 1.0 - statistics.level {
            progress.say(&format!(
                "note: with {resamples} resamples and {others} comparisons no p but AUROC's can \
                 fall below {least:.2}; give more `--resamples`"
            ));
        }
    }
    check_output(format, scorers.len(), output)
}

/// Write the results of these scores; `accuracy` is the classifier's on the ID set.
pub fn write(
    results: &Results,
    scores: &Scores,
    format: EvalFormat,
    output: Option<&Path>,
    accuracy: Option<f64>,
    progress: &mut Progress,
) -> Result<()> {
    let format = match format {
        EvalFormat::Table => Format::Table,
        EvalFormat::Json => Format::Json,
        EvalFormat::Csv => Format::Csv,
        EvalFormat::Markdown => Format::Markdown,
        EvalFormat::Openood => {
            let files = export::openood(results, scores, accuracy)?;
            return write_files(&files, output, progress);
        }
    };
    write_output(output, &export::results(results, format))?;
    if let Some(path) = output {
        wrote(progress, path);
    }
    Ok(())
}

/// Several files into a directory; one also to standard output or under a name.
fn write_files(
    files: &[(String, String)],
    output: Option<&Path>,
    progress: &mut Progress,
) -> Result<()> {
    match (output, files) {
        (Some(directory), files) if files.len() > 1 || is_directory_name(directory) => {
            std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
            for (name, text) in files {
                let path = directory.join(name);
                write_output(Some(&path), text)?;
                wrote(progress, &path);
            }
        }
        (output, [(_, text)]) => {
            write_output(output, text)?;
            if let Some(path) = output {
                wrote(progress, path);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Refuse several scorers in OpenOOD's form without a directory for their files.
fn check_output(format: EvalFormat, scorers: usize, output: Option<&Path>) -> Result<()> {
    if format == EvalFormat::Openood && scorers > 1 {
        let problem = match output {
            None => "OpenOOD's form is one file per scorer; give a directory with `-o DIR`",
            Some(path) if path.is_file() => {
                "OpenOOD's form is one file per scorer, and that is a file; give a directory"
            }
            Some(_) => return Ok(()),
        };
        let given = output.map_or(String::new(), |p| p.display().to_string());
        return Err(Error::config("output", given, problem).into());
    }
    Ok(())
}
