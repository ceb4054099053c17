//! The statistics of `heat eval`: what its arguments ask for, and what it writes.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Result;
use heat_ood::Error;
use heat_ood::evaluate::{Baseline, Groups, Results, ScorerResults, Scores, Statistics};
use heat_ood::metrics::{BootstrapConfig, Metrics};
use serde_json::Value;

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

/// How results are written.
pub struct Writing<'a> {
    pub format: EvalFormat,
    pub output: Option<&'a Path>,
    /// Column by which scorers are sorted.
    pub sort: Option<&'a str>,
    /// The classifier's accuracy on the ID set.
    pub accuracy: Option<f64>,
    /// What is said in JSON of how they came about.
    pub made: &'a Value,
}

/// Write the results of these scores.
pub fn write(
    results: &Results,
    scores: &Scores,
    writing: &Writing<'_>,
    progress: &mut Progress,
) -> Result<()> {
    let Writing { output, accuracy, .. } = *writing;
    // The scores are in the order asked for; so their results are until here.
    let sorted = match writing.sort {
        Some(column) => &sort(results.clone(), column)?,
        None => results,
    };
    let format = match writing.format {
        EvalFormat::Table => Format::Table,
        EvalFormat::Json => Format::Json,
        EvalFormat::Csv => Format::Csv,
        EvalFormat::Markdown => Format::Markdown,
        EvalFormat::Openood => {
            let files = export::openood(results, scores, accuracy)?;
            return write_files(&files, output, progress);
        }
        EvalFormat::Leaderboard => {
            let text = export::leaderboard(results, scores, accuracy)?;
            let text = sorted_lines(&text, sorted);
            write_output(output, &text)?;
            if let Some(path) = output {
                wrote(progress, path);
            }
            return Ok(());
        }
    };
    let text = match (format, output) {
        (Format::Table, None) => shown(sorted),
        (Format::Json, _) => with_made(&export::results(sorted, format), writing.made),
        _ => export::results(sorted, format),
    };
    write_output(output, &text)?;
    if let Some(path) = output {
        wrote(progress, path);
    }
    Ok(())
}

/// The table as wide as the terminal, or whole where it goes elsewhere.
pub fn shown(results: &Results) -> String {
    let size = std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    match size {
        Some((terminal_size::Width(width), _)) => export::table_within(results, width.into()),
        None => export::results(results, Format::Table),
    }
}

/// A JSON object with `made` at its end.
pub fn with_made(json: &str, made: &Value) -> String {
    let Ok(Value::Object(mut object)) = serde_json::from_str(json) else {
        return json.to_owned();
    };
    object.insert("made".to_owned(), made.clone());
    format!("{:#}\n", Value::Object(object))
}

/// Sort the scorers: by name; by AUROC on a set or group; by the average of a metric, the best
/// first.
pub fn sort(mut results: Results, column: &str) -> Result<Results> {
    if ["name", "scorer"].contains(&column) {
        results.scorers.sort_by(|a, b| a.0.cmp(&b.0));
        return Ok(results);
    }
    let metric = Metrics::NAMES.iter().position(|name| *name == column);
    let key = |r: &ScorerResults| -> Option<f64> {
        let average = match (column, metric) {
            ("average", _) => Some(r.average.metrics.auroc),
            ("near", _) => r.near.as_ref().map(|a| a.metrics.auroc),
            ("far", _) => r.far.as_ref().map(|a| a.metrics.auroc),
            (_, Some(i)) => Some(r.average.metrics.to_array()[i]),
            _ => None,
        };
        let set = || r.ood.iter().find(|(name, _)| name == column).map(|(_, s)| s.metrics.auroc);
        average.or_else(set)
    };
    if let Some((_, first)) = results.scorers.first()
        && key(first).is_none()
    {
        let mut known = vec!["name", "average"];
        known.extend(first.near.iter().map(|_| "near").chain(first.far.iter().map(|_| "far")));
        known.extend(first.ood.iter().map(|(name, _)| &**name));
        known.extend(Metrics::NAMES);
        return Err(Error::unknown("column", column, known).into());
    }
    // Of rates of false alarms the lowest is best.
    let sign = if column.starts_with("fpr") { 1.0 } else { -1.0 };
    let value = |r: &ScorerResults| key(r).map_or(f64::INFINITY, |v| sign * v);
    results.scorers.sort_by(|a, b| value(&a.1).total_cmp(&value(&b.1)));
    Ok(results)
}

/// Lines that begin with a scorer's name, in the order of the results; others stay.
fn sorted_lines(text: &str, sorted: &Results) -> String {
    let (header, rest) = text.split_once('\n').unwrap_or((text, ""));
    let place = |line: &str| {
        let starts = |name: &str| {
            line.trim_start_matches('"')
                .strip_prefix(name)
                .is_some_and(|r| r.starts_with([',', '"']))
        };
        sorted.scorers.iter().position(|(name, _)| starts(name)).unwrap_or(usize::MAX)
    };
    let mut lines: Vec<&str> = rest.lines().collect();
    lines.sort_by_key(|line| place(line));
    std::iter::once(header).chain(lines).map(|line| format!("{line}\n")).collect()
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
