//! Training curves of runs.

use heat_ood::EpochLog;
use heat_ood::Result;

use crate::report::data::Run;
use crate::report::html::{counted, details, figure};
use crate::report::ink::{Ink, SERIES};
use crate::report::plot::{Axis, Mark, Panel};
use crate::report::scale::Scale;

/// Runs whose energies are shown without being asked for.
const OPEN: usize = 4;

/// With more epochs, points are not marked.
const MARKED: usize = 30;

/// With fewer values, none of them is an exception.
const MANY: usize = 20;

const LOSS: &str = "\
Mean over each epoch. Contrastive divergence is the network’s mean energy of real rows less that of generated rows: near zero \
when the samples are taken for real, far below when the network tells them apart at once. The loss adds the penalty of large energies.";

const ENERGIES: &str = "\
Mean energies of real rows and of the samples that the chains end in. Network: over each epoch; when the two run away from each other, \
training diverges. Whole, prior and network together: on each epoch’s last batch; the higher the samples lie above the real rows, the \
further from the data the chains end.";

pub fn render(runs: &[Run]) -> Result<String> {
    let trained: Vec<&Run> = runs.iter().filter(|r| !r.epochs.is_empty()).collect();
    if trained.is_empty() {
        return Ok(String::new());
    }
    let loss = panel("loss", "loss", &of(&trained, |l| l.loss));
    let cd = panel("contrastive divergence", "energy", &of(&trained, |l| l.cd_loss));
    let inks = |n: usize| Ink::Series(n % SERIES);
    let legend: Vec<(String, Ink)> =
        trained.iter().enumerate().map(|(n, r)| (r.name.clone(), inks(n))).collect();
    let first = figure("fig-training", &legend, &(loss.html()? + &cd.html()?), LOSS);
    let pair = [("real".to_owned(), inks(0)), ("generated".to_owned(), inks(1))];
    let mut panels = Vec::new();
    for run in &trained {
        let lines = |values: [fn(&EpochLog) -> f64; 2]| values.map(|v| of(&[run], v).remove(0));
        let network = lines([|l| l.energy_nn_real, |l| l.energy_nn_generated]);
        let whole = lines([|l| l.energy_real, |l| l.energy_generated]);
        let network = panel(&format!("{}: network", run.name), "energy", &network);
        let whole = panel(&format!("{}: whole", run.name), "energy", &whole);
        panels.push(network.html()? + &whole.html()?);
    }
    let (open, rest) = panels.split_at(OPEN.min(panels.len()));
    let mut out = first + &figure("fig-training-energies", &pair, &open.concat(), ENERGIES);
    if !rest.is_empty() {
        let more = figure("fig-training-energies-more", &pair, &rest.concat(), ENERGIES);
        out.push_str(&details(&counted(rest.len(), "more run"), false, &more));
    }
    Ok(out)
}

/// A value of each epoch, of each run.
fn of(runs: &[&Run], value: fn(&EpochLog) -> f64) -> Vec<Vec<(f64, f64)>> {
    let one = |r: &&Run| r.epochs.iter().map(|l| (l.epoch as f64, value(l))).collect();
    runs.iter().map(one).collect()
}

fn panel(title: &str, label: &str, lines: &[Vec<(f64, f64)>]) -> Panel {
    let all = || lines.iter().flatten();
    let last = all().fold(1.0, |a: f64, p| a.max(p.0));
    let low = all().fold(f64::INFINITY, |a, p| a.min(p.1));
    let high = all().fold(f64::NEG_INFINITY, |a, p| a.max(p.1));
    // Of one value alone, something around it.
    let space = 0.06 * (high - low).max(1e-3 * high.abs()).max(1e-9);
    let first = all().fold(last, |a: f64, p| a.min(p.0));
    // Not more labels than whole epochs.
    let ticks = ((last - first) as usize + 1).min(6);
    let x = Axis { ticks, ..Axis::new("epoch", first - 0.5..last + 0.5) };
    let mut sorted: Vec<f32> = all().map(|p| p.1 as f32).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let mut y = Axis::new(label, low - space..high + space);
    // A first epoch far from the others would make a flat line of these.
    if sorted.len() >= MANY {
        y.scale = Scale::fitting(&[&sorted], &y.range);
    }
    let far = y.scale != Scale::Linear;
    let mut panel = Panel::new(title, x, y);
    if far {
        panel.note = "Axis logarithmic far out".into();
    }
    panel.left = 62;
    panel.alt = format!("{title} by epoch");
    for (n, line) in lines.iter().enumerate() {
        panel.marks.push(Mark::line(line.clone(), Ink::Series(n)));
        if line.len() <= MARKED {
            panel.marks.push(Mark::Dots {
                points: line.clone(),
                ink: Ink::Series(n),
                opacity: 1.0,
                radius: 2,
            });
        }
    }
    panel
}
