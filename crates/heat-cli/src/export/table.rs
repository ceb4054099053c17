//! A table for the terminal: one line per scorer, one block per metric.

use comfy_table::{CellAlignment, Table, presets};
use heat_ood::evaluate::Results;

use super::{LEGEND, SHOWN, columns, percent};

pub fn render(results: &Results) -> String {
    let mut out = String::new();
    for (title, value) in SHOWN {
        let mut table = Table::new();
        table.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED);
        for (i, (name, _)) in results.scorers.iter().enumerate() {
            let sets = columns(results, i);
            if i == 0 {
                let names = sets.iter().map(|(n, _)| (*n).to_owned());
                table.set_header(std::iter::once(title.to_owned()).chain(names));
            }
            let cells = sets.iter().map(|(_, m)| percent(value(m)));
            table.add_row(std::iter::once(name.clone()).chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        out.push_str(&format!("{table}\n\n"));
    }
    out + LEGEND
}
