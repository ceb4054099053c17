//! What scoring a row costs.

use heat_ood::Result;

use super::brief;
use crate::report::data::ResultsTable;
use crate::report::evaluation::Evaluation;
use crate::report::html::{Cell, Table, figure};
use crate::report::ink::Ink;
use crate::report::plot::{Align, Axis, Mark, Panel};

const CAPTION: &str = "\
Microseconds to score a row in this evaluation, each line ten times the one before: a scorer's processor time divided by the number of \
threads, reading excluded. Further to the left is cheaper.";

pub fn render(e: &Evaluation, table: &ResultsTable) -> Result<String> {
    let rows = (e.id.rows + e.ood.iter().map(|s| s.rows).sum::<usize>()) as f64;
    let mut costs: Vec<(&str, f64, Option<f64>, f64)> = Vec::new();
    for row in &table.rows {
        if let Some((fit, score)) = row.seconds {
            costs.push((&row.name, 1e6 * score / rows, fit, score));
        }
    }
    if costs.is_empty() {
        return Ok(String::new());
    }
    costs.sort_by(|a, b| a.1.total_cmp(&b.1));
    let cells = costs.iter().map(|(name, row, fit, score)| {
        let fit = fit.map_or(Cell::text("–"), |s| Cell::number(format!("{s:.2}"), s));
        let row = Cell::number(format!("{row:.2}"), *row);
        vec![Cell::text(*name), row, Cell::number(format!("{score:.3}"), *score), fit]
    });
    let titles = ["scorer", "µs per row", "scoring, seconds", "fitting, seconds"];
    let list = Table {
        id: "cost-table".into(),
        caption: format!("Cost of {rows} rows; – where the detector was read from a file"),
        groups: Vec::new(),
        titles: titles.map(str::to_owned).to_vec(),
        rows: cells.collect(),
    };
    let figure = figure("fig-cost", &[], &panel(&costs).html()?, CAPTION);
    Ok(figure + &list.html())
}

fn panel(costs: &[(&str, f64, Option<f64>, f64)]) -> Panel {
    let log = |v: f64| v.max(1e-3).log10();
    let low = costs.iter().fold(f64::INFINITY, |a, c| a.min(log(c.1))).floor();
    let high = costs.iter().fold(low + 1.0, |a, c| a.max(log(c.1))).ceil();
    let n = costs.len() as f64;
    let names = 0.6 * (high - low);
    let mut panel = Panel::new(
        "",
        Axis::new("", low - names..high + 0.15 * (high - low)),
        Axis::new("", 0.0..n + 1.0),
    );
    panel.bare = true;
    panel.size = (640, 24 * (costs.len() as u32 + 1) + 14);
    panel.alt = "Microseconds per row of each scorer".into();
    for power in low as i32..=high as i32 {
        let x = f64::from(power);
        panel.marks.push(Mark::rule(vec![(x, 0.0), (x, n)], Ink::Grid));
        let text = format!("{} µs", 10f64.powi(power));
        panel.marks.push(Mark::Text { at: (x, n + 0.5), text, align: Align::Middle });
    }
    for (i, (name, micros, ..)) in costs.iter().enumerate() {
        let (x, y) = (log(*micros), n - 0.5 - i as f64);
        let name = brief(name, 29);
        panel.marks.push(Mark::Text {
            at: (low - 0.03 * names, y),
            text: name,
            align: Align::Right,
        });
        // At the first decade itself there is nothing to lead to the mark.
        if x > low + 0.012 * (high - low) {
            panel.marks.push(Mark::line(vec![(low, y), (x, y)], Ink::Grid));
        }
        panel.marks.push(Mark::Box {
            corners: [(x - 0.012 * (high - low), y - 0.22), (x + 0.012 * (high - low), y + 0.22)],
            ink: Ink::Series(0),
            opacity: 1.0,
        });
        let at = (x + 0.03 * (high - low), y);
        panel.marks.push(Mark::Text { at, text: format!("{micros:.2}"), align: Align::Left });
    }
    panel
}
