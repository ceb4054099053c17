//! Results and scores in the forms people and programs read.

mod csv;
mod json;
mod markdown;
pub mod scores;
pub mod sweep;
mod table;

use heat_ood::evaluate::Results;
use heat_ood::metrics::Metrics;

use crate::args::Format;

/// Results as text.
pub fn results(results: &Results, format: Format) -> String {
    match format {
        Format::Table => table::render(results),
        Format::Json => json::render(results),
        Format::Csv => csv::render(results),
        Format::Markdown => markdown::render(results),
    }
}

/// Takes one metric.
type Value = fn(&Metrics) -> f64;

/// What the table and the Markdown show of each set, in percent.
const SHOWN: [(&str, Value); 3] = [
    ("AUROC", |m| m.auroc),
    ("FPR95 (ID+)", |m| m.fpr95_id_positive),
    ("FPR95 (OOD+)", |m| m.fpr95_ood_positive),
];

/// Explains the columns.
const LEGEND: &str = "\
AUROC: OOD positive; higher is better. All values in percent.
FPR95 (ID+): OOD rows accepted when 95 % of ID rows are (the HEAT paper's); lower is better.
FPR95 (OOD+): ID rows flagged when 95 % of OOD rows are (OpenOOD v1.5's); lower is better.
";

fn percent(value: f64) -> String {
    format!("{:.2}", 100.0 * value)
}

/// The average, then each set: name and metrics.
fn columns(results: &Results, scorer: usize) -> Vec<(&str, Metrics)> {
    let entry = &results.scorers[scorer].1;
    let sets = entry.ood.iter().map(|(name, s)| (name.as_str(), s.metrics));
    std::iter::once(("average", entry.average)).chain(sets).collect()
}
