//! The summary of a sweep: one line per setting, mean ± deviation over seeds.

use std::fmt::Write;

use super::csv::quoted;
use super::format::Format;
use super::markdown;
use super::summary::Summary;
use super::table::aligned;
use heat_ood::metrics::Spread;

/// Columns of the table and the Markdown after the varied keys and the seeds:
/// title, where the value is, factor, digits.
const SHOWN: [(&str, &str, &str, f64, usize); 7] = [
    ("loss", "", "loss", 1.0, 5),
    ("cd", "", "cd_loss", 1.0, 5),
    ("E real", "", "energy_real", 1.0, 4),
    ("E generated", "", "energy_generated", 1.0, 4),
    ("AUROC", "average", "auroc", 100.0, 2),
    ("FPR95 (ID+)", "average", "fpr95_id_positive", 100.0, 2),
    ("seconds", "", "seconds", 1.0, 1),
];

const LEGEND: &str = "\
Mean ± standard deviation over seeds. loss, cd, mean energies: last epoch.
";

const LEGEND_EVALUATED: &str = "\
AUROC, FPR95 (ID+): average over the OOD sets, in percent.
";

/// The summary as text.
pub fn render(summary: &Summary, format: Format) -> String {
    match format {
        Format::Table => table(summary),
        Format::Json => format!("{:#}\n", summary.json()),
        Format::Csv => csv(summary),
        Format::Markdown => markdown(summary),
    }
}

/// Titles and rows of cells.
fn cells(summary: &Summary) -> (Vec<String>, Vec<Vec<String>>) {
    let shown: Vec<_> = SHOWN.iter().filter(|s| evaluated(summary) || s.1.is_empty()).collect();
    let mut titles = summary.keys.clone();
    titles.push("runs".into());
    titles.extend(shown.iter().map(|s| s.0.to_owned()));
    let rows = summary.rows.iter().map(|row| {
        let mut cells: Vec<String> = row.setting.iter().map(|(_, v)| v.clone()).collect();
        cells.push(match row.failed {
            0 => row.finished.to_string(),
            n => format!("{} ({n} failed)", row.finished),
        });
        cells.extend(shown.iter().map(|(_, set, name, factor, digits)| {
            let found = if set.is_empty() { row.training(name) } else { row.metric(set, name) };
            found.map_or("–".to_owned(), |s| spread(s, *factor, *digits))
        }));
        cells
    });
    (titles, rows.collect())
}

fn evaluated(summary: &Summary) -> bool {
    summary.rows.iter().any(|r| !r.metrics.is_empty())
}

fn legend(summary: &Summary) -> String {
    let more = if evaluated(summary) { LEGEND_EVALUATED } else { "" };
    format!("{LEGEND}{more}")
}

fn spread(s: Spread, factor: f64, digits: usize) -> String {
    let mean = format!("{:.digits$}", factor * s.mean);
    s.std.map_or(mean.clone(), |std| format!("{mean} ± {:.digits$}", factor * std))
}

fn table(summary: &Summary) -> String {
    let (titles, rows) = cells(summary);
    format!("{}\n\n{}", aligned(titles, rows, summary.keys.len()), legend(summary))
}

fn markdown(summary: &Summary) -> String {
    let (titles, rows) = cells(summary);
    let mut out = String::new();
    markdown::header(&mut out, &titles[0], &titles[1..]);
    rows.iter().for_each(|cells| markdown::row(&mut out, &cells[0], &cells[1..]));
    format!("{out}\n{}", legend(summary))
}

/// Everything of the settings, values as fractions.
fn csv(summary: &Summary) -> String {
    let pair = |name: &str| {
        format!(",{},{}", quoted(&format!("{name}_mean")), quoted(&format!("{name}_std")))
    };
    let training = ["loss", "cd_loss", "energy_real", "energy_generated", "seconds"];
    let longest = summary.rows.iter().max_by_key(|r| r.metrics.len());
    let metrics: Vec<(&str, &str)> = longest
        .into_iter()
        .flat_map(|r| &r.metrics)
        .flat_map(|(set, list)| list.iter().map(move |(name, _)| (&**set, &**name)))
        .collect();
    let mut out: String = summary.keys.iter().map(|k| format!("{},", quoted(k))).collect();
    out.push_str("finished,failed");
    out.extend(training.iter().map(|n| pair(n)));
    out.extend(metrics.iter().map(|(set, name)| pair(&format!("{set}.{name}"))));
    out.push('\n');
    let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
    for row in &summary.rows {
        out.extend(row.setting.iter().map(|(_, v)| format!("{},", quoted(v))));
        let _ = write!(out, "{},{}", row.finished, row.failed);
        let values = training.iter().map(|n| row.training(n));
        for s in values.chain(metrics.iter().map(|(set, name)| row.metric(set, name))) {
            let _ = write!(out, ",{},{}", number(s.map(|s| s.mean)), number(s.and_then(|s| s.std)));
        }
        out.push('\n');
    }
    out
}
