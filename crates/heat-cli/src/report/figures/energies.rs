//! What a HEAT's energy is made of: the prior's against the network's.

use std::borrow::Cow;
use std::ops::Range;

use heat_ood::Result;

use super::{ascending, quantile};
use crate::report::data::ResultsTable;
use crate::report::evaluation::Evaluation;
use crate::report::html::{details, figure};
use crate::report::ink::Ink;
use crate::report::plot::{Axis, Mark, Panel};
use crate::report::scale::Scale;

/// Most points of each set.
const POINTS: usize = 500;

const OPEN: usize = 2;

const CAPTION: &str = "\
Each point is a row: the prior’s energy to the right, the network’s correction upwards; the score is their sum. Grey: \
in-distribution, coloured: out-of-distribution, at most 500 rows of each set at equal distances in its order. The line is the score that \
accepts 95 % of the in-distribution rows: what lies above and to the right of it is flagged. Where it is nearly vertical, the network changes \
little. Up to 5 % of a set’s rows lie outside on each side; how many points that are stands above. Where few energies lie far away, an \
axis is logarithmic at a distance from the bulk, and the line is bent.";

pub fn render(e: &Evaluation, table: &ResultsTable) -> Result<String> {
    let mut out = String::new();
    let order = table.ranking().into_iter();
    let heats = order.filter_map(|i| Some((i, parts(&e.components[i])?)));
    for (place, (i, parts)) in heats.enumerate() {
        let mut panels = String::new();
        for set in 0..e.ood.len() {
            panels.push_str(&panel(e, i, parts, set).html()?);
        }
        let figure = figure(&format!("fig-energies-{i}"), &[], &panels, CAPTION);
        out.push_str(&details(&table.rows[i].name, place < OPEN, &figure));
    }
    Ok(out)
}

/// Places of the prior's and the network's energy, and how many there are.
fn parts(names: &[Cow<'static, str>]) -> Option<[usize; 3]> {
    let at = |name: &str| names.iter().position(|n| n == name);
    Some([at("energy_prior")?, at("energy_nn")?, names.len()])
}

fn panel(e: &Evaluation, scorer: usize, parts: [usize; 3], set: usize) -> Panel {
    let id = points(&e.scores.id[scorer].components, parts);
    let ood = points(&e.scores.ood[set].1[scorer].components, parts);
    let axis = |label: &str, f: fn(&(f32, f32)) -> f32| {
        let sorted = |list: &[(f32, f32)]| {
            let values: Vec<f32> = list.iter().map(f).collect();
            ascending([&values[..]])
        };
        let (ours, theirs) = (sorted(&id), sorted(&ood));
        let range = quantile(&ours, 0.005).min(quantile(&theirs, 0.05))
            ..quantile(&ours, 0.995).max(quantile(&theirs, 0.95));
        let scale = Scale::fitting(&[&ours, &theirs], &range);
        Axis { scale, ticks: 5, ..Axis::new(label, range) }
    };
    let (x, y) = (axis("E prior", |p| p.0), axis("E network", |p| p.1));
    let inside = |list: &[(f32, f32)]| -> Vec<(f64, f64)> {
        let wide = list.iter().map(|p| (f64::from(p.0), f64::from(p.1)));
        let (x, y) = (&x.range, &y.range);
        wide.filter(|p| (x.start..=x.end).contains(&p.0) && (y.start..=y.end).contains(&p.1))
            .collect()
    };
    let (ours, theirs) = (inside(&id), inside(&ood));
    let outside = id.len() + ood.len() - ours.len() - theirs.len();
    let share = 100.0 * outside as f64 / (id.len() + ood.len()).max(1) as f64;
    let far = [&x, &y].iter().any(|axis| axis.scale != Scale::Linear);
    let kind = if far { "Axes logarithmic far out. " } else { "" };
    let marks = [
        Mark::Dots { points: ours, ink: Ink::Muted, opacity: 0.5, radius: 2 },
        Mark::Dots { points: theirs, ink: Ink::Series(set), opacity: 0.6, radius: 2 },
    ];
    let threshold = quantile(&ascending([e.id_scores(scorer)]), 0.95);
    let line = level(threshold, &x.range, &y.range, x.scale);
    let mut panel = Panel::new(e.ood[set].name.clone(), x, y);
    panel.note = format!("{kind}Outside: {share:.1} % of the points");
    panel.alt = format!(
        "Energies of {}: prior against network, {}",
        e.scorers[scorer].name, e.ood[set].name
    );
    panel.marks.extend(marks);
    panel.marks.extend(line);
    panel.left = 66;
    panel
}

fn points(components: &[f32], [prior, nn, width]: [usize; 3]) -> Vec<(f32, f32)> {
    let rows = components.len() / width;
    let every = rows.div_ceil(POINTS).max(1);
    components.chunks_exact(width).step_by(every).map(|c| (c[prior], c[nn])).collect()
}

/// The part of the line x + y = `sum` within the panel.
fn level(sum: f64, x: &Range<f64>, y: &Range<f64>, scale: Scale) -> Option<Mark> {
    const PARTS: u32 = 64;
    let (left, right) = ((sum - y.end).max(x.start), (sum - y.start).min(x.end));
    let (first, last) = (scale.place(left), scale.place(right));
    let at = |i: u32| match i {
        0 => left,
        PARTS => right,
        i => scale.value(first + (last - first) * f64::from(i) / f64::from(PARTS)),
    };
    let points = (0..=PARTS).map(at).map(|x| (x, (sum - x).clamp(y.start, y.end))).collect();
    (right > left).then(|| Mark::rule(points, Ink::Text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_ends_at_the_edges() {
        let ends = |sum| match level(sum, &(0.0..2.0), &(0.0..1.0), Scale::Linear) {
            Some(Mark::Line { points, .. }) => vec![points[0], points[points.len() - 1]],
            _ => Vec::new(),
        };
        assert_eq!(ends(2.0), [(1.0, 1.0), (2.0, 0.0)]);
        assert_eq!(ends(0.5), [(0.0, 0.5), (0.5, 0.0)]);
        assert!(ends(3.5).is_empty());
    }

    #[test]
    fn points_are_taken_at_equal_distances() {
        let components: Vec<f32> = (0..4000).map(|v| v as f32).collect();
        let points = points(&components, [1, 0, 2]);
        assert_eq!(points.len(), 500);
        assert_eq!((points[0], points[499]), ((1.0, 0.0), (3993.0, 3992.0)));
    }
}
