//! Scores of the ID set against those of each OOD set.

use heat_ood::Result;

use super::{ascending, quantile};
use crate::report::data::ResultsTable;
use crate::report::evaluation::Evaluation;
use crate::report::html::{details, figure};
use crate::report::ink::Ink;
use crate::report::plot::{Axis, Mark, Panel};
use crate::report::scale::Scale;

const BINS: usize = 50;

/// How many scorers are shown without being asked for.
const OPEN: usize = 3;

const CAPTION: &str = "\
Fractions of the rows with each score; higher = more out-of-distribution. Grey: in-distribution rows. Coloured: the \
out-of-distribution set. The vertical line is the 95th percentile of the in-distribution scores: the coloured area left of it \
is FPR95 (ID+). The less the two overlap, the better. Scores beyond the axis are counted in the first and the last \
bar; how many they are stands above. Where few scores lie far away, the axis is logarithmic at a distance from the bulk, so \
that the bulk is no spike.";

pub fn render(e: &Evaluation, table: &ResultsTable) -> Result<String> {
    let mut out = String::new();
    for (place, i) in table.ranking().into_iter().enumerate() {
        let row = &table.rows[i];
        let mut panels = String::new();
        for set in 0..e.ood.len() {
            panels.push_str(&panel(e, table, i, set).html()?);
        }
        let caption = match place {
            0 => CAPTION.to_owned(),
            _ => format!("Scores of {}, to be read as the first of these figures.", row.name),
        };
        let figure = figure(&format!("fig-histogram-{i}"), &[], &panels, &caption);
        let summary =
            format!("{} – average AUROC {:.2} %", row.name, 100.0 * row.average.metrics.auroc);
        out.push_str(&details(&summary, place < OPEN, &figure));
    }
    Ok(out)
}

fn panel(e: &Evaluation, table: &ResultsTable, scorer: usize, set: usize) -> Panel {
    let (id, ood) = (e.id_scores(scorer), e.ood_scores(set, scorer));
    let (sorted, others) = (ascending([id]), ascending([ood]));
    // An axis that every row fits on would show little of most.
    let mut low = quantile(&sorted, 0.002).min(quantile(&others, 0.01));
    let mut high = quantile(&sorted, 0.998).max(quantile(&others, 0.99));
    if high <= low {
        (low, high) = (low - 0.5, high + 0.5);
    }
    let scale = Scale::fitting(&[&sorted, &others], &(low..high));
    let (first, last) = (scale.place(low), scale.place(high));
    let place = |scores: &[f32]| -> Vec<f64> {
        scores.iter().map(|s| scale.place(f64::from(*s))).collect()
    };
    let ours = fractions(&place(id), first, last);
    let theirs = fractions(&place(ood), first, last);
    let top = ours.iter().chain(&theirs).fold(0.0, |a: f64, b| a.max(*b));
    let mut x = Axis::new("score", low..high);
    (x.ticks, x.scale) = (5, scale);
    let y = Axis::percent("fraction of rows (%)", 1.06 * top);
    let mut panel = Panel::new(e.ood[set].name.clone(), x, y);
    panel.size = (320, 230);
    panel.note = note(&sorted, &others, low, high, scale);
    let auroc = 100.0 * table.rows[scorer].sets[set].1.metrics.auroc;
    panel.alt = format!(
        "Histogram of {} scores: {} against {}, AUROC {auroc:.2} %",
        table.rows[scorer].name, e.id.name, e.ood[set].name
    );
    for (fractions, ink) in [(&ours, Ink::Muted), (&theirs, Ink::Series(set))] {
        let outline = outline(fractions, |part| scale.value(first + (last - first) * part));
        panel.marks.push(Mark::Area { points: outline.clone(), ink, opacity: 0.35 });
        panel.marks.push(Mark::rule(outline, ink));
    }
    let threshold = quantile(&sorted, 0.95);
    panel.marks.push(Mark::rule(vec![(threshold, 0.0), (threshold, top)], Ink::Text));
    panel
}

/// What the axis leaves out, and what is special about it.
fn note(id: &[f32], ood: &[f32], low: f64, high: f64, scale: Scale) -> String {
    let beyond = |ascending: &[f32]| {
        let below = ascending.partition_point(|s| f64::from(*s) < low);
        let within = ascending.partition_point(|s| f64::from(*s) <= high);
        let outside = below + ascending.len() - within;
        format!("{:.1} %", 100.0 * outside as f64 / ascending.len().max(1) as f64)
    };
    let kind = if scale == Scale::Linear { "" } else { "Axis logarithmic far out. " };
    let (ours, theirs) = (beyond(id), beyond(ood));
    format!("{kind}Beyond the axis: {ours} of ID, {theirs} of OOD rows")
}

/// The fraction of rows in each of [`BINS`] bars from `low` to `high`.
fn fractions(places: &[f64], low: f64, high: f64) -> Vec<f64> {
    let mut counts = vec![0.0; BINS];
    for place in places {
        let at = (place - low) / (high - low) * BINS as f64;
        counts[(at.max(0.0) as usize).min(BINS - 1)] += 1.0 / places.len() as f64;
    }
    counts
}

/// Bars as one outline that begins and ends on the axis.
fn outline(fractions: &[f64], at: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let edge = |i: usize| at(i as f64 / fractions.len() as f64);
    let mut out = vec![(edge(0), 0.0)];
    for (i, &y) in fractions.iter().enumerate() {
        out.extend([(edge(i), y), (edge(i + 1), y)]);
    }
    out.push((edge(fractions.len()), 0.0));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_counted_once() {
        let s = fractions(&[-9.0, 0.0, 0.5, 1.0, f64::INFINITY], 0.0, 1.0);
        assert!((s.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((s[0] - 0.4).abs() < 1e-12 && (s[BINS - 1] - 0.4).abs() < 1e-12);
        assert!((s[BINS / 2] - 0.2).abs() < 1e-12);
    }

    #[test]
    fn what_is_clipped_is_said() {
        let (id, ood) = ([0.0, 0.5, 1.0, 2.0], [-1.0, 0.0, 0.5, 3.0]);
        let said = note(&id, &ood, 0.0, 1.0, Scale::Linear);
        assert_eq!(said, "Beyond the axis: 25.0 % of ID, 50.0 % of OOD rows");
        let said = note(&id, &ood, -1.0, 3.0, Scale::Symlog { center: 0.0, width: 1.0 });
        let want = "Axis logarithmic far out. Beyond the axis: 0.0 % of ID, 0.0 % of OOD";
        assert!(said.starts_with(want), "{said}");
    }
}
