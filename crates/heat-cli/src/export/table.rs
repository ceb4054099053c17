//! A table for the terminal: one line per scorer, one block per metric.

use comfy_table::{CellAlignment, Table, presets};
use heat_ood::evaluate::Results;

use super::columns::{SHOWN, columns, legend, seeds_title, shown, spread, spreads};
use super::comparison;

pub fn render(results: &Results) -> String {
    let mut out = String::new();
    for (title, value) in SHOWN {
        let mut rows = Vec::new();
        let mut titles = vec![title.to_owned()];
        for (i, (name, _)) in results.scorers.iter().enumerate() {
            let sets = columns(results, i);
            if i == 0 {
                titles.extend(sets.iter().map(|c| c.set.to_owned()));
            }
            let cells = sets.iter().map(|c| shown(c, value));
            rows.push(std::iter::once(name.clone()).chain(cells).collect());
        }
        for (name, seeds) in &results.seeds {
            let cells = spreads(seeds).into_iter().map(|(_, s)| spread(&s, value));
            rows.push(std::iter::once(seeds_title(name, seeds)).chain(cells).collect());
        }
        out.push_str(&block(titles, rows));
    }
    if let Some(found) = &results.comparison {
        out.push_str(&format!("{}:\n", comparison::heading(found)));
        out.push_str(&block(comparison::titles(), comparison::rows(found)));
    }
    out + &legend(results)
}

fn block(titles: Vec<String>, rows: Vec<Vec<String>>) -> String {
    format!("{}\n\n", aligned(titles, rows, 1))
}

/// A plain table whose columns are aligned to the right but for the first `left`.
pub(crate) fn aligned(titles: Vec<String>, rows: Vec<Vec<String>>, left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED);
    table.set_header(titles);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
