//! What scoring a row costs.

use crate::report::data::ResultsTable;
use crate::report::evaluation::Evaluation;
use crate::report::html::{Cell, Table};

const CAPTION: &str = "\
Microseconds to score a row in this evaluation: a scorer's processor time divided by the number of threads, reading excluded.";

pub fn render(e: &Evaluation, table: &ResultsTable) -> String {
    let rows = (e.id.rows + e.ood.iter().map(|s| s.rows).sum::<usize>()) as f64;
    let mut costs: Vec<(&str, f64, Option<f64>, f64)> = Vec::new();
    for row in &table.rows {
        if let Some((fit, score)) = row.seconds {
            costs.push((&row.name, 1e6 * score / rows, fit, score));
        }
    }
    if costs.is_empty() {
        return String::new();
    }
    costs.sort_by(|a, b| a.1.total_cmp(&b.1));
    let log = |micros: f64| micros.max(1e-3).log10();
    let first = log(costs[0].1).floor();
    let last = log(costs[costs.len() - 1].1).ceil().max(first + 1.0);
    let cells = costs.iter().map(|(name, row, fit, score)| {
        let fit = fit.map_or(Cell::text("–"), |s| Cell::number(format!("{s:.2}"), s));
        let mut micros = Cell::number(format!("{row:.2}"), *row);
        // Something of the cheapest is seen too.
        micros.bar = Some(((log(*row) - first) / (last - first)).max(0.01));
        vec![Cell::text(*name), micros, Cell::number(format!("{score:.3}"), *score), fit]
    });
    let titles = ["scorer", "µs per row", "scoring, seconds", "fitting, seconds"];
    let list = Table {
        id: "cost-table".into(),
        caption: format!(
            "{CAPTION} A bar's length is its logarithm, from {} to {} µs. Seconds are of {rows} rows; – where the detector was \
             read from a file.",
            10f64.powf(first),
            10f64.powf(last)
        ),
        groups: Vec::new(),
        titles: titles.map(str::to_owned).to_vec(),
        rows: cells.collect(),
    };
    list.html()
}
