//! ROC and precision–recall curves, a panel for each OOD set.

use heat_ood::Result;

use super::ascending;
use crate::report::data::ResultsTable;
use crate::report::evaluation::Evaluation;
use crate::report::html::figure;
use crate::report::ink::Ink;
use crate::report::plot::{Axis, Mark, Panel, thinned};
use crate::report::scale::Scale;

const ROC: &str = "\
Fraction of out-of-distribution rows detected against fraction of in-distribution rows flagged, as the threshold falls. Each \
line across is ten times the one before, so that curves do not hide each other where few rows are flagged; further up and to the left is \
better, the grey curve is guessing. FPR95 (OOD+) is where a curve crosses the upper line (95 % detected); FPR95 (ID+) is the \
distance from the top where it crosses the vertical line (5 % flagged). Point at a name above a figure, tap it, or go there with the Tab key, \
and its curves are seen alone.";

const PRECISION: &str = "\
Precision, the fraction of flagged rows that are out-of-distribution, against the fraction of out-of-distribution rows detected (recall). The area under a curve is \
AUPR (out). The horizontal line is guessing: the fraction of out-of-distribution rows among all, so that curves of sets \
of different size cannot be compared.";

/// A step of the eye: curves keep at most about 400 points.
const STEP: f64 = 1.0 / 200.0;

pub fn render(e: &Evaluation, table: &ResultsTable) -> Result<String> {
    let best = table.best();
    let legend: Vec<(String, Ink)> = best
        .iter()
        .enumerate()
        .map(|(n, &i)| (table.rows[i].name.clone(), Ink::Series(n)))
        .collect();
    let (mut roc, mut precision) = (String::new(), String::new());
    let least = least(e.id.rows);
    for (set, ood) in e.ood.iter().enumerate() {
        let flagged = Axis {
            range: least..1.0,
            scale: Scale::Log,
            format: Some(|v| format!("{}", (1e4 * v).round() / 100.0)),
            ..Axis::percent("in-distribution rows flagged (%)", 1.0)
        };
        let detected = || Axis::percent("out-of-distribution rows detected (%)", 1.0);
        let precise = Axis::percent("precision (%)", 1.0);
        let mut a = Panel::new(ood.name.clone(), flagged, detected());
        let mut b = Panel::new(ood.name.clone(), detected(), precise);
        a.alt = format!("ROC curves of {} scorers on {}", best.len(), ood.name);
        b.alt = format!("Precision–recall curves of {} scorers on {}", best.len(), ood.name);
        let guessing = (0..=60).map(|i| least.powf(f64::from(i) / 60.0)).map(|x| (x, x)).collect();
        let lines = [vec![(least, 0.95), (1.0, 0.95)], vec![(0.05, 0.0), (0.05, 1.0)], guessing];
        a.marks.extend(lines.map(|line| Mark::rule(line, Ink::Muted)));
        let fraction = ood.rows as f64 / (ood.rows + e.id.rows) as f64;
        b.marks.push(Mark::rule(vec![(0.0, fraction), (1.0, fraction)], Ink::Muted));
        // The best on top.
        for (n, &i) in best.iter().enumerate().rev() {
            let steps = steps(e.id_scores(i), e.ood_scores(set, i));
            let points = thinned(&on_log(&roc_points(&steps), least), STEP);
            let points = points.into_iter().map(|(x, y)| (least.powf(1.0 - x), y)).collect();
            a.marks.push(Mark::line(points, Ink::Series(n)));
            b.marks.push(Mark::line(thinned(&precision_points(&steps), STEP), Ink::Series(n)));
        }
        roc.push_str(&a.html()?);
        precision.push_str(&b.html()?);
    }
    let left_out = match table.rows.len() - best.len() {
        0 => String::new(),
        n => format!(
            " The {} best scorers by average AUROC; {n} others are in the table.",
            best.len()
        ),
    };
    let left = format!(" What is flagged at less than {} % stands at the left end.", 100.0 * least);
    let roc = figure("fig-roc", &legend, &roc, &format!("{ROC}{left}{left_out}"));
    let precision = figure("fig-precision", &legend, &precision, &format!("{PRECISION}{left_out}"));
    Ok(format!("<h3>ROC</h3>\n{roc}<h3>Precision–recall</h3>\n{precision}"))
}

/// Numbers of ID and OOD rows at or above each distinct score, from the
/// highest; then the totals.
fn steps(id: &[f32], ood: &[f32]) -> Vec<(usize, usize)> {
    let (id, ood) = (ascending([id]), ascending([ood]));
    let mut out = vec![(0, 0)];
    let (mut i, mut o) = (id.len(), ood.len());
    while i > 0 || o > 0 {
        let top = id[..i].last().copied().unwrap_or(f32::NEG_INFINITY);
        let top = top.max(ood[..o].last().copied().unwrap_or(f32::NEG_INFINITY));
        while i > 0 && id[i - 1] >= top {
            i -= 1;
        }
        while o > 0 && ood[o - 1] >= top {
            o -= 1;
        }
        out.push((id.len() - i, ood.len() - o));
    }
    out
}

fn roc_points(steps: &[(usize, usize)]) -> Vec<(f64, f64)> {
    let (n, m) = *steps.last().unwrap_or(&(1, 1));
    steps.iter().map(|&(i, o)| (i as f64 / n as f64, o as f64 / m as f64)).collect()
}

/// Where the axis begins: the power of ten at or below one row, and at most 1 %.
fn least(rows: usize) -> f64 {
    let power = (rows.max(1) as f64).log10().ceil();
    10f64.powi(-(power as i32).clamp(2, 4))
}

/// The abscissae as parts of a logarithmic axis that begins at `least`.
fn on_log(points: &[(f64, f64)], least: f64) -> Vec<(f64, f64)> {
    points.iter().map(|&(x, y)| (1.0 - x.max(least).ln() / least.ln(), y)).collect()
}

fn precision_points(steps: &[(usize, usize)]) -> Vec<(f64, f64)> {
    let m = steps.last().map_or(1, |s| s.1) as f64;
    let some = steps.iter().filter(|s| s.1 > 0);
    some.map(|&(i, o)| (o as f64 / m, o as f64 / (i + o) as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scikit-learn's `roc_curve` and `precision_recall_curve`, by hand for ID {1, 2}, OOD {2, 3}.
    #[test]
    fn curves_by_hand() {
        let steps = steps(&[1.0, 2.0], &[3.0, 2.0]);
        assert_eq!(steps, [(0, 0), (0, 1), (1, 2), (2, 2)]);
        assert_eq!(roc_points(&steps), [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]);
        assert_eq!(precision_points(&steps), [(0.5, 1.0), (1.0, 2.0 / 3.0), (1.0, 0.5)]);
        assert_eq!([5, 100, 101, 5000, 1 << 20].map(least), [0.01, 0.01, 0.001, 1e-4, 1e-4]);
        let parts = on_log(&[(0.0, 0.0), (0.01, 0.5), (0.1, 0.7), (1.0, 1.0)], 0.01);
        let at = |i: usize, x: f64| (parts[i].0 - x).abs() < 1e-12;
        assert!(at(0, 0.0) && at(1, 0.0) && at(2, 0.5) && at(3, 1.0), "{parts:?}");
    }
}
