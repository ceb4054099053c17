//! `heat watch`: has a stream stopped looking like the calibration set?

use std::io::{BufRead, Read, Write};

use anyhow::{Context, Result};
use heat_ood::calibrate::drift::{Alarm, Drift, DriftConfig, Tests};
use heat_ood::features::FeatureSet;
use heat_ood::{Detector, Error};
use serde_json::{Value, json};

use super::outputs::made;
use super::{check_origin, open, open_detector, open_options};
use crate::args::{LineForm, TestChoice, WatchArgs};
use crate::progress::Progress;

pub fn run(args: &WatchArgs, progress: &mut Progress) -> Result<()> {
    let detector = open_detector(&args.detector)?;
    let Some(calibration) = detector.calibration() else {
        let remedy = "`heat calibrate DETECTOR --id CAL -o OUT` makes one that is";
        let place = args.detector.display().to_string();
        return Err(Error::missing(place, "calibration", remedy).into());
    };
    let source = args.source.as_deref().filter(|s| s.as_os_str() != "-");
    let options = open_options(args.dim, None);
    let set = source.map(|path| open(path, &options, None, progress)).transpose()?;
    if let Some(set) = &set {
        check_origin(detector.provenance(), set, args.force)?;
    }
    let config = config(args);
    let drift = Drift::new(config.clone(), calibration.scores())?;
    if args.source.is_none() && args.dim.is_some() {
        let problem = "is for raw memmaps; rows on standard input have their own";
        return Err(Error::config("dim", "", problem).into());
    }
    if calibration.forced {
        progress.say(
            "warning: the detector was calibrated on rows that were in training: nothing is \
             promised, and ordinary rows may raise alarms",
        );
    }
    let mut watch = Watch { args, drift, alarms: 0, out: std::io::stdout().lock() };
    watch.event(json!({
        "event": "start",
        "calibration_rows": calibration.scores().len(),
        "forced": calibration.forced,
        "settings": config,
        "made": made(Default::default()),
    }))?;
    match set {
        Some(set) => {
            for score in detector.scorer().score_observed(&set, progress)? {
                if !watch.take(score)? {
                    break;
                }
            }
        }
        None => watch.lines(&detector, std::io::stdin().lock())?,
    }
    let ended =
        watch.event(json!({"event": "end", "rows": watch.drift.rows(), "alarms": watch.alarms}));
    if watch.alarms > 0 && args.fail {
        return Err(Alarmed { rows: watch.drift.rows() }.into());
    }
    ended
}

fn config(args: &WatchArgs) -> DriftConfig {
    DriftConfig {
        alpha: args.alpha,
        horizon: args.horizon,
        min_admixture: args.min_admixture,
        tests: match args.test {
            TestChoice::Both => Tests::Both,
            TestChoice::Martingale => Tests::Martingale,
            TestChoice::Cusum => Tests::Cusum,
        },
        two_sided: args.two_sided,
        seed: args.seed,
    }
}

/// An alarm that ends the command, with an exit code of its own.
#[derive(Debug)]
pub struct Alarmed {
    rows: u64,
}

impl std::fmt::Display for Alarmed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an alarm after {} rows", self.rows)
    }
}

impl std::error::Error for Alarmed {}

/// Longest line read: a row of a hundred thousand features in full.
const LONGEST: u64 = 1 << 22;

struct Watch<'a, W: Write> {
    args: &'a WatchArgs,
    drift: Drift,
    alarms: u64,
    out: W,
}

impl<W: Write> Watch<'_, W> {
    /// Events are told as they happen.
    fn event(&mut self, event: Value) -> Result<()> {
        writeln!(self.out, "{event}").and_then(|()| self.out.flush()).context("write events")
    }

    /// One row; whether to go on.
    fn take(&mut self, score: f32) -> Result<bool> {
        let seen = self.drift.push(score)?;
        for alarm in &seen.alarms {
            self.alarms += 1;
            let told = self.event(alarm_event(alarm));
            // With nobody left to hear it, the exit code still tells.
            if !self.args.fail {
                told?;
            }
        }
        if self.args.every.is_some_and(|n| (seen.row + 1).is_multiple_of(n)) {
            self.event(json!({
                "event": "status",
                "rows": seen.row + 1,
                "martingale_log10": seen.martingale,
                "cusum_log10": seen.cusum,
            }))?;
        }
        Ok(!(self.args.fail && self.alarms > 0))
    }

    fn lines(&mut self, detector: &Detector, mut input: impl BufRead) -> Result<()> {
        let mut form = Form { lines: self.args.lines, ..Form::default() };
        let (mut bytes, mut number) = (Vec::new(), 0u64);
        loop {
            bytes.clear();
            let mut limited = input.by_ref().take(LONGEST);
            if limited.read_until(b'\n', &mut bytes).context("read standard input")? == 0 {
                return Ok(());
            }
            number += 1;
            let too_long = bytes.len() as u64 == LONGEST && bytes.last() != Some(&b'\n');
            if too_long {
                input.skip_until(b'\n').context("read standard input")?;
            }
            let score = match std::str::from_utf8(&bytes) {
                _ if too_long => Err(format!("is longer than {LONGEST} bytes")),
                Ok(line) => form.score(unmarked(line, number).trim(), detector),
                Err(_) => Err("is not UTF-8 text".into()),
            };
            match score {
                Ok(None) => {}
                Ok(Some(score)) => {
                    if !self.take(score)? {
                        return Ok(());
                    }
                }
                Err(problem) if self.args.skip_invalid => {
                    self.event(json!({"event": "invalid", "line": number, "problem": problem}))?;
                }
                Err(problem) => {
                    return Err(Error::format(format!("line {number}"), problem).into());
                }
            }
        }
    }
}

fn alarm_event(alarm: &Alarm) -> Value {
    json!({
        "event": "alarm",
        "test": alarm.test,
        "row": alarm.row,
        "since": alarm.since,
        "evidence_log10": alarm.evidence,
        "threshold_log10": alarm.threshold,
        "admixture": alarm.admixture,
    })
}

/// What lines hold, told by the first one that says so.
#[derive(Default)]
struct Form {
    /// Column of the score, after a header.
    column: Option<usize>,
    /// What a line of one number is; told, or found out by the first.
    lines: Option<LineForm>,
}

impl Form {
    /// The score of a line: a number, an object with `score`, fields under a
    /// header with `score`, or a row of features.
    fn score(&mut self, line: &str, detector: &Detector) -> Result<Option<f32>, String> {
        if line.is_empty() {
            return Ok(None);
        }
        if line.starts_with(['{', '[']) {
            let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
            return match value {
                Value::Array(row) => {
                    let row = row.iter().map(|v| v.as_f64().map(|v| v as f32).ok_or(v.clone()));
                    let row = row.collect::<Result<_, Value>>();
                    features(row.map_err(|v| format!("{v} is not a number"))?, detector).map(Some)
                }
                object => {
                    let score = object["score"].as_f64();
                    let score = score.ok_or("no number under `score`")?;
                    finite(score as f32).map(Some)
                }
            };
        }
        let quoted;
        let cells: Vec<&str> = if line.contains('"') {
            quoted = fields(line)?;
            quoted.iter().map(str::trim).collect()
        } else {
            line.split(',').map(str::trim).collect()
        };
        if let Some(at) = cells.iter().position(|c| *c == "score") {
            self.column = Some(at);
            return Ok(None);
        }
        let number =
            |cell: &str| cell.parse::<f32>().map_err(|_| format!("{cell:?} is not a number"));
        match (self.column, cells.len()) {
            (Some(at), n) => {
                let cell = cells.get(at).ok_or(format!("{n} fields, the header has more"))?;
                finite(number(cell)?).map(Some)
            }
            (None, 1) => {
                let value = finite(number(cells[0])?)?;
                let lines = match self.lines {
                    Some(told) => told,
                    None => *self.lines.insert(told_by(value, detector)?),
                };
                match lines {
                    LineForm::Scores => Ok(Some(value)),
                    LineForm::Features => features(vec![value], detector).map(Some),
                }
            }
            (None, _) => {
                let row = cells.into_iter().map(number).collect::<Result<_, _>>()?;
                features(row, detector).map(Some)
            }
        }
    }
}

/// The fields of a line with quotes.
fn fields(line: &str) -> Result<csv::StringRecord, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(true) => Ok(record),
        Ok(false) => Err("has no fields".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// What one number is: a score, unless it could be a row too.
fn told_by(value: f32, detector: &Detector) -> Result<LineForm, String> {
    match features(vec![value], detector) {
        Err(_) => Ok(LineForm::Scores),
        Ok(_) => {
            Err("one number is a score or, since the detector reads rows of one feature, such \
                      a row: say which with `--lines scores` or `--lines features`"
                .into())
        }
    }
}

/// The first line without the mark that some programs put before UTF-8 text.
fn unmarked(line: &str, number: u64) -> &str {
    if number == 1 { line.trim_start_matches('\u{feff}') } else { line }
}

fn finite(score: f32) -> Result<f32, String> {
    if score.is_finite() {
        Ok(score)
    } else {
        Err(format!("the score is {score}, not a finite number"))
    }
}

fn features(row: Vec<f32>, detector: &Detector) -> Result<f32, String> {
    let set = FeatureSet::from_row(&row).and_then(|set| detector.score(&set));
    set.map(|scores| scores[0]).map_err(|e| e.to_string())
}
