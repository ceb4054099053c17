//! One Markdown table: AUROC / FPR95 (ID+) / FPR95 (OOD+) in each cell.

use std::fmt::Write;

use heat_ood::evaluate::Results;

use super::columns::{SHOWN, columns, legend, seeds_title, shown, spread, spreads};
use super::comparison;

pub fn render(results: &Results) -> String {
    let mut out = String::new();
    for (i, (name, _)) in results.scorers.iter().enumerate() {
        let sets = columns(results, i);
        if i == 0 {
            let titles = SHOWN.map(|(t, _)| t).join(" / ");
            let names: Vec<String> = sets.iter().map(|c| c.set.to_owned()).collect();
            header(&mut out, &titles, &names);
        }
        let cell = |c| SHOWN.map(|(_, f)| shown(c, f)).join(" / ");
        row(&mut out, name, &sets.iter().map(cell).collect::<Vec<_>>());
    }
    for (name, seeds) in &results.seeds {
        let cell = |(_, s)| SHOWN.map(|(_, f)| spread(&s, f)).join(" / ");
        let cells: Vec<String> = spreads(seeds).into_iter().map(cell).collect();
        row(&mut out, &seeds_title(name, seeds), &cells);
    }
    if let Some(found) = &results.comparison {
        let _ = writeln!(out, "\n{}:\n", comparison::heading(found));
        let titles = comparison::titles();
        header(&mut out, &titles[0], &titles[1..]);
        for cells in comparison::rows(found) {
            row(&mut out, &cells[0], &cells[1..]);
        }
    }
    format!("{out}\n{}", legend(results))
}

/// Titles and the line below them.
pub(super) fn header(out: &mut String, first: &str, others: &[String]) {
    row(out, first, others);
    let _ = writeln!(out, "|---|{}", "---|".repeat(others.len()));
}

/// A row of a table; what would break it is escaped.
pub(super) fn row(out: &mut String, first: &str, others: &[String]) {
    let cells = std::iter::once(first).chain(others.iter().map(|c| &**c));
    let cells: Vec<String> =
        cells.map(|c| c.replace('|', "\\|").replace(['\n', '\r'], " ")).collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}
