//! `heat watch`: has a stream stopped looking like the calibration set?

use std::io::{BufRead, Read, Write};

use anyhow::{Context, Result};
use heat_ood::calibrate::drift::{Alarm, Drift, DriftConfig, Tests};
use heat_ood::calibrate::{Ties, Verdict};
use heat_ood::features::FeatureSet;
use heat_ood::io::sha256;
use heat_ood::{Detector, Error, Prediction, Silent, printable};
use serde_json::{Map, Value, json};

use super::outputs::{hashes, made};
use super::{check_origin, detector_file, open, open_detector, open_options};
use crate::args::{LineForm, TestChoice, WatchArgs};
use crate::export::{class_name, word};
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
    let out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut watch = Watch { args, detector: &detector, drift, alarms: 0, out };
    watch.event(json!({
        "event": "start",
        "calibration_rows": calibration.scores().len(),
        "forced": calibration.forced,
        "settings": config,
        "made": made(read_hashes(args, set.as_ref())?),
    }))?;
    match set {
        Some(set) => watch.set(&set, progress)?,
        None => watch.lines(std::io::stdin().lock())?,
    }
    let ended =
        watch.event(json!({"event": "end", "rows": watch.drift.rows(), "alarms": watch.alarms}));
    if watch.alarms > 0 && args.fail {
        return Err(Alarmed { rows: watch.drift.rows() }.into());
    }
    ended
}

/// Of the detector, and of the rows where they are no stream.
fn read_hashes(args: &WatchArgs, set: Option<&FeatureSet>) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    all.insert("detector".into(), sha256(&detector_file(&args.detector)?)?.into());
    if let Some(set) = set {
        all.insert("rows".into(), hashes(set)?);
    }
    Ok(all)
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
    detector: &'a Detector,
    drift: Drift,
    alarms: u64,
    out: W,
}

impl<W: Write> Watch<'_, W> {
    /// Events are told as they happen.
    fn event(&mut self, event: Value) -> Result<()> {
        writeln!(self.out, "{event}").and_then(|()| self.out.flush()).context("write events")
    }

    /// The rows of a set, until there is enough.
    fn set(&mut self, set: &FeatureSet, progress: &mut Progress) -> Result<()> {
        // A set of another origin was let pass before.
        let detector = self.detector.clone().of_any_origin();
        let judged = match self.args.verdicts {
            true => detector.predict(set, Ties::Conservative, progress)?,
            false => {
                let scores = detector.scorer().score_observed(set, progress)?;
                Prediction { scores, ..Prediction::default() }
            }
        };
        for i in 0..judged.scores.len() {
            let name = || set.names().map(|names| names.get(i).into_owned());
            if !self.take(Found::of(&judged, i), name)? {
                break;
            }
        }
        Ok(())
    }

    /// One row, and what it is called; whether to go on.
    fn take(&mut self, found: Found, name: impl Fn() -> Option<String>) -> Result<bool> {
        let seen = self.drift.push(found.score)?;
        let named = |mut event: Value| {
            if let Some(name) = name() {
                event["file"] = printable(&name).into();
            }
            event
        };
        if let Some(verdict) = found.verdict {
            let mut event = named(json!({
                "event": "row",
                "row": seen.row,
                "score": found.score,
                "p_value": verdict.p_value,
                "verdict": word(&verdict),
            }));
            if let Some(class) = found.class {
                event["class"] = class;
            }
            // Told with what follows, or before the next line is waited for.
            writeln!(self.out, "{event}").context("write events")?;
        }
        for alarm in &seen.alarms {
            self.alarms += 1;
            let told = self.event(named(alarm_event(alarm)));
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

    fn lines(&mut self, mut input: impl BufRead) -> Result<()> {
        let mut form =
            Form { lines: self.args.lines, verdicts: self.args.verdicts, ..Form::default() };
        let detector = self.detector;
        let (mut bytes, mut number) = (Vec::new(), 0u64);
        loop {
            bytes.clear();
            if self.args.verdicts {
                self.out.flush().context("write events")?;
            }
            let mut limited = input.by_ref().take(LONGEST);
            if limited.read_until(b'\n', &mut bytes).context("read standard input")? == 0 {
                return Ok(());
            }
            number += 1;
            let too_long = bytes.len() as u64 == LONGEST && bytes.last() != Some(&b'\n');
            if too_long {
                input.skip_until(b'\n').context("read standard input")?;
            }
            let found = match std::str::from_utf8(&bytes) {
                _ if too_long => Err(format!("is longer than {LONGEST} bytes")),
                Ok(line) => form.read(unmarked(line, number).trim(), detector),
                Err(_) => Err("is not UTF-8 text".into()),
            };
            match found {
                Ok(None) => {}
                Ok(Some((found, name))) => {
                    if !self.take(found, || name.clone())? {
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

/// What was found of one row.
struct Found {
    score: f32,
    /// If it was asked for.
    verdict: Option<Verdict>,
    /// Name or number of the class that the classifier predicts, with the verdict.
    class: Option<Value>,
}

impl Found {
    fn of(judged: &Prediction, i: usize) -> Self {
        let class = judged.classes.as_ref().map(|classes| classes[i]);
        let class = class.map(|class| match class_name(judged, class) {
            Some(name) => printable(name).into(),
            None => class.into(),
        });
        let verdict = judged.verdicts.as_ref().map(|verdicts| verdicts[i]);
        Found { score: judged.scores[i], verdict, class }
    }
}

/// What lines hold, told by the first one that says so.
#[derive(Default)]
struct Form {
    /// Column of the score, after a header, and that of the row's name.
    column: Option<usize>,
    named: Option<usize>,
    /// What a line of one number is; told, or found out by the first.
    lines: Option<LineForm>,
    /// Whether verdicts are asked for.
    verdicts: bool,
}

/// A row and what it is called.
type Line = Option<(Found, Option<String>)>;

impl Form {
    /// What a line says: a number, an object with `score`, fields under a header with `score`, or
    /// a row of features.
    fn read(&mut self, line: &str, detector: &Detector) -> Result<Line, String> {
        if line.is_empty() {
            return Ok(None);
        }
        if line.starts_with(['{', '[']) {
            let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
            return match value {
                Value::Array(row) => {
                    let row = row.iter().map(|v| v.as_f64().map(|v| v as f32).ok_or(v.clone()));
                    let row = row.collect::<Result<_, Value>>();
                    let row = row.map_err(|v| format!("{v} is not a number"))?;
                    self.features(row, detector)
                }
                object => {
                    let score = object["score"].as_f64();
                    let score = score.ok_or("no number under `score`")?;
                    let name = object["file"].as_str().map(str::to_owned);
                    self.score(finite(score as f32)?, name, detector)
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
            self.named = cells.iter().position(|c| *c == "file");
            return Ok(None);
        }
        let number =
            |cell: &str| cell.parse::<f32>().map_err(|_| format!("{cell:?} is not a number"));
        match (self.column, cells.len()) {
            (Some(at), n) => {
                let cell = cells.get(at).ok_or(format!("{n} fields, the header has more"))?;
                let name = self.named.and_then(|at| cells.get(at)).map(|name| (*name).to_owned());
                self.score(finite(number(cell)?)?, name, detector)
            }
            (None, 1) => {
                let value = finite(number(cells[0])?)?;
                let lines = match self.lines {
                    Some(told) => told,
                    None => *self.lines.insert(told_by(value, detector)?),
                };
                match lines {
                    LineForm::Scores => self.score(value, None, detector),
                    LineForm::Features => self.features(vec![value], detector),
                }
            }
            (None, _) => {
                let row = cells.into_iter().map(number).collect::<Result<_, _>>()?;
                self.features(row, detector)
            }
        }
    }

    /// A score that was given.
    fn score(&self, score: f32, name: Option<String>, detector: &Detector) -> Result<Line, String> {
        let judge = detector.calibration().filter(|_| self.verdicts);
        let verdict = judge.map(|c| c.verdicts(&[score], None, Ties::Conservative)).transpose();
        let verdict = verdict.map_err(
            |_| "is a score, and the detector is calibrated by class: verdicts need the features",
        )?;
        let verdict = verdict.and_then(|all| all.first().copied());
        Ok(Some((Found { score, verdict, class: None }, name)))
    }

    /// A row of features.
    fn features(&self, row: Vec<f32>, detector: &Detector) -> Result<Line, String> {
        if !self.verdicts {
            let score = features(row, detector)?;
            return Ok(Some((Found { score, verdict: None, class: None }, None)));
        }
        let judged = FeatureSet::from_row(&row)
            .and_then(|set| detector.predict(&set, Ties::Conservative, &mut Silent));
        judged.map(|judged| Some((Found::of(&judged, 0), None))).map_err(|e| e.to_string())
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
