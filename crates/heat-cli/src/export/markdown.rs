//! One Markdown table: AUROC / FPR95 (ID+) / FPR95 (OOD+) in each cell.

use std::fmt::Write;

use heat_ood::evaluate::Results;

use super::{LEGEND, SHOWN, columns, percent};

pub fn render(results: &Results) -> String {
    let mut out = String::new();
    for (i, (name, _)) in results.scorers.iter().enumerate() {
        let sets = columns(results, i);
        if i == 0 {
            let titles = SHOWN.map(|(t, _)| t).join(" / ");
            let names: Vec<String> = sets.iter().map(|(n, _)| n.replace('|', "\\|")).collect();
            let _ = writeln!(out, "| {titles} | {} |", names.join(" | "));
            let _ = writeln!(out, "|---|{}", "---|".repeat(names.len()));
        }
        let cell = |m| SHOWN.map(|(_, f)| percent(f(m))).join(" / ");
        let cells: Vec<String> = sets.iter().map(|(_, m)| cell(m)).collect();
        let _ = writeln!(out, "| {} | {} |", name.replace('|', "\\|"), cells.join(" | "));
    }
    format!("{out}\n{LEGEND}")
}
