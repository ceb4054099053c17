//! Whether a promised false-alarm rate is kept, and what is detected at it.

use heat_ood::Result;

use heat_ood::calibrate::CalibrationScores;

use crate::report::conformal::{alarms, band, halves};
use crate::report::data::ResultsTable;
use crate::report::evaluation::{Evaluation, Promise};
use crate::report::html::{Cell, Table, counted, details, figure};
use crate::report::ink::Ink;
use crate::report::plot::{Axis, Mark, Panel};

/// Largest false-alarm rate asked for.
const MOST: f64 = 0.2;

const SEED: u64 = 0;

const OPEN: usize = 4;

const ALARMS: &str = "\
The in-distribution test rows are split at random (seed 0). One half sets the threshold for a promised (nominal) false-alarm rate, by \
conformal p-values; the other half shows the rate that is kept (observed). A scorer that keeps its promise stays within the band, \
which holds 95 % of such splits; above it, it alarms more often than promised. The band supposes that both halves are alike: \
data that drift after calibration will leave it.";

const DETECTED: &str = "\
Fraction of the rows of each out-of-distribution set that are detected, at each promised false-alarm rate.";

const PROMISES: &str = "\
Detectors that were calibrated, at their own thresholds: the promise that their file holds, and the fraction of the rows of each set, in \
percent, that they call out-of-distribution. Of the in-distribution set these are false alarms.";

/// What the detectors' own calibrations promise, and what comes of it here.
fn promises(e: &Evaluation) -> String {
    let found: Vec<_> =
        e.scorers.iter().filter_map(|s| s.promise.as_ref().map(|p| (&s.name, p))).collect();
    if found.is_empty() {
        return String::new();
    }
    let percent = |fraction: f64| Cell::number(format!("{:.2}", 100.0 * fraction), fraction);
    let row = |(name, p): &(&String, &Promise)| {
        let threshold = match p.thresholds[..] {
            [one] => Cell::number(one.to_string(), f64::from(one)),
            ref all => Cell::text(format!("{} classes", all.len())),
        };
        let flagged = p.flagged.iter().map(|fraction| percent(*fraction));
        let first = [Cell::text((*name).clone()), threshold].into_iter();
        first.chain(flagged).chain([Cell::text(p.words.clone())]).collect()
    };
    let sets = e.ood.iter().map(|s| s.name.clone());
    let titles = ["detector", "threshold", "false alarms"].map(str::to_owned).into_iter();
    let table = Table {
        id: "promises".into(),
        caption: PROMISES.into(),
        groups: Vec::new(),
        titles: titles.chain(sets).chain(["promise".to_owned()]).collect(),
        rows: found.iter().map(row).collect(),
    };
    table.html()
}

pub fn render(e: &Evaluation, table: &ResultsTable) -> Result<String> {
    let alphas: Vec<f64> = (0..=40).map(|i| MOST * f64::from(i) / 40.0).collect();
    let best = table.best();
    let mut panel = Panel::new(
        "",
        Axis { ticks: 5, ..Axis::percent("nominal false-alarm rate (%)", MOST) },
        Axis::percent("observed false-alarm rate (%)", 1.5 * MOST),
    );
    panel.alt = "Observed against nominal false-alarm rate".into();
    let n = e.id.rows / 2;
    let (low, high): (Vec<f64>, Vec<f64>) =
        alphas.iter().map(|&a| band(n, e.id.rows - n, a)).unzip();
    let points = |values: &[f64]| -> Vec<(f64, f64)> {
        alphas.iter().copied().zip(values.iter().copied()).collect()
    };
    let there = points(&high).into_iter();
    let outline = there.chain(points(&low).into_iter().rev()).collect();
    panel.marks.push(Mark::Area { points: outline, ink: Ink::Muted, opacity: 0.2 });
    panel.marks.push(Mark::rule(vec![(0.0, 0.0), (MOST, MOST)], Ink::Muted));
    let mut legend = Vec::new();
    for (n, &i) in best.iter().enumerate() {
        let (calibration, rest) = halves(e.id_scores(i), SEED)?;
        let line = Mark::line(points(&alarms(&calibration, &rest, &alphas)), Ink::Series(n));
        panel.marks.push(line);
        legend.push((table.rows[i].name.clone(), Ink::Series(n)));
    }
    let first = figure("fig-calibration", &legend, &panel.html()?, ALARMS);
    Ok(promises(e) + &first + &detection(e, table, &alphas)?)
}

fn detection(e: &Evaluation, table: &ResultsTable, alphas: &[f64]) -> Result<String> {
    let legend: Vec<(String, Ink)> =
        e.ood.iter().enumerate().map(|(i, s)| (s.name.clone(), Ink::Series(i))).collect();
    let order = table.ranking();
    let mut panels = Vec::new();
    for &i in &order {
        let (calibration, _) = halves(e.id_scores(i), SEED)?;
        panels.push(detected(e, i, &calibration, alphas).html()?);
    }
    let (open, rest) = panels.split_at(OPEN.min(panels.len()));
    let mut out = figure("fig-detection", &legend, &open.concat(), DETECTED);
    if !rest.is_empty() {
        let more = figure("fig-detection-more", &legend, &rest.concat(), DETECTED);
        out.push_str(&details(&counted(rest.len(), "more scorer"), false, &more));
    }
    Ok(out)
}

fn detected(
    e: &Evaluation,
    scorer: usize,
    calibration: &CalibrationScores,
    alphas: &[f64],
) -> Panel {
    let name = &e.scorers[scorer].name;
    let x = Axis { ticks: 5, ..Axis::percent("nominal false-alarm rate (%)", MOST) };
    let mut panel = Panel::new(name.clone(), x, Axis::percent("detected (%)", 1.0));
    panel.size = (320, 250);
    panel.alt = format!("Fraction of out-of-distribution rows that {name} detects");
    for set in 0..e.ood.len() {
        let fractions = alarms(calibration, e.ood_scores(set, scorer), alphas);
        let points = alphas.iter().copied().zip(fractions).collect();
        panel.marks.push(Mark::line(points, Ink::Series(set)));
    }
    panel
}
