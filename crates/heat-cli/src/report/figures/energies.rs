//! What a HEAT's energy is made of: the prior's against the network's.

use anyhow::Result;

use super::{ascending, quantile};
use crate::report::data::{Evaluation, ResultsTable};
use crate::report::html::{details, figure};
use crate::report::plot::{Axis, Ink, Mark, Panel};

/// Most points of each set.
const POINTS: usize = 500;

const OPEN: usize = 2;

const CAPTION: &str = "\
Each point is a row: the prior's energy to the right, the network's correction upwards; the score is their sum. Grey: \
in-distribution, coloured: out-of-distribution, at most 500 rows of each set at equal distances in its order. Points on one of the falling lines \
have the same score. Where the network's axis spans much less than the prior's, the correction changes little. The \
outermost 0.5 % on each side lie outside.";

pub fn render(e: &Evaluation, table: &ResultsTable) -> Result<String> {
    let mut out = String::new();
    let order = table.ranking().into_iter();
    let heats = order.filter_map(|i| Some((i, parts(e.components[i])?)));
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
fn parts(names: &[&str]) -> Option<[usize; 3]> {
    let at = |name: &str| names.iter().position(|n| *n == name);
    Some([at("energy_prior")?, at("energy_nn")?, names.len()])
}

fn panel(e: &Evaluation, scorer: usize, parts: [usize; 3], set: usize) -> Panel {
    let id = points(&e.scores.id[scorer].components, parts);
    let ood = points(&e.scores.ood[set].1[scorer].components, parts);
    let range = |f: fn(&(f32, f32)) -> f32| {
        let values: Vec<f32> = id.iter().chain(&ood).map(f).collect();
        let sorted = ascending([&values[..]]);
        quantile(&sorted, 0.005)..quantile(&sorted, 0.995)
    };
    let (x, y) = (range(|p| p.0), range(|p| p.1));
    let inside = |list: &[(f32, f32)]| -> Vec<(f64, f64)> {
        let wide = list.iter().map(|p| (f64::from(p.0), f64::from(p.1)));
        wide.filter(|p| (x.start..=x.end).contains(&p.0) && (y.start..=y.end).contains(&p.1))
            .collect()
    };
    let marks = [
        Mark::Dots { points: inside(&id), ink: Ink::Muted, opacity: 0.5 },
        Mark::Dots { points: inside(&ood), ink: Ink::Series(set), opacity: 0.6 },
    ];
    let contours = contours(&x, &y);
    let mut x = Axis::new("E prior", x);
    x.ticks = 5;
    let mut panel = Panel::new(e.ood[set].name.clone(), x, Axis::new("E network", y));
    panel.alt = format!(
        "Energies of {}: prior against network, {}",
        e.scorers[scorer].name, e.ood[set].name
    );
    panel.marks.extend(contours);
    panel.marks.extend(marks);
    panel
}

fn points(components: &[f32], [prior, nn, width]: [usize; 3]) -> Vec<(f32, f32)> {
    let rows = components.len() / width;
    let every = rows.div_ceil(POINTS).max(1);
    components.chunks_exact(width).step_by(every).map(|c| (c[prior], c[nn])).collect()
}

/// Lines of equal sum across the panel.
fn contours(x: &std::ops::Range<f64>, y: &std::ops::Range<f64>) -> Vec<Mark> {
    let (low, high) = (x.start + y.start, x.end + y.end);
    let lines = (1..8).filter_map(|n| {
        let sum = low + (high - low) * f64::from(n) / 8.0;
        // From where it enters at the top or left to where it leaves.
        let (left, right) = ((sum - y.end).max(x.start), (sum - y.start).min(x.end));
        (right > left)
            .then(|| Mark::rule(vec![(left, sum - left), (right, sum - right)], Ink::Grid))
    });
    lines.collect()
}
