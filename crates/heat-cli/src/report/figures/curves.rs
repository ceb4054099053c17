//! ROC and precision–recall curves, a panel for each OOD set.

use heat_ood::Result;

use super::ascending;
use crate::report::data::ResultsTable;
use crate::report::evaluation::Evaluation;
use crate::report::html::figure;
use crate::report::ink::Ink;
use crate::report::plot::{Axis, Mark, Panel, thinned};

const ROC: &str = "\
Fraction of out-of-distribution rows detected against fraction of in-distribution rows flagged, as the threshold falls. The area \
under a curve is the AUROC; the diagonal is guessing. FPR95 (OOD+) is where a curve crosses the upper line (95 % detected); \
FPR95 (ID+) is the distance from the top where it crosses the left line (5 % flagged).";

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
    for (set, ood) in e.ood.iter().enumerate() {
        let flagged = Axis::percent("in-distribution rows flagged (%)", 1.0);
        let detected = || Axis::percent("out-of-distribution rows detected (%)", 1.0);
        let precise = Axis::percent("precision (%)", 1.0);
        let mut a = Panel::new(ood.name.clone(), flagged, detected());
        let mut b = Panel::new(ood.name.clone(), detected(), precise);
        a.alt = format!("ROC curves of {} scorers on {}", best.len(), ood.name);
        b.alt = format!("Precision–recall curves of {} scorers on {}", best.len(), ood.name);
        for diagonal in
            [[(0.0, 0.0), (1.0, 1.0)], [(0.0, 0.95), (1.0, 0.95)], [(0.05, 0.0), (0.05, 1.0)]]
        {
            a.marks.push(Mark::rule(diagonal.to_vec(), Ink::Muted));
        }
        let fraction = ood.rows as f64 / (ood.rows + e.id.rows) as f64;
        b.marks.push(Mark::rule(vec![(0.0, fraction), (1.0, fraction)], Ink::Muted));
        // The best on top.
        for (n, &i) in best.iter().enumerate().rev() {
            let steps = steps(e.id_scores(i), e.ood_scores(set, i));
            a.marks.push(Mark::line(thinned(&roc_points(&steps), STEP), Ink::Series(n)));
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
    let roc = figure("fig-roc", &legend, &roc, &format!("{ROC}{left_out}"));
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
    }
}
