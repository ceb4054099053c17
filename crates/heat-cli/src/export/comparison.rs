//! Every scorer against one, on the average over the OOD sets: a row of cells
//! each, for the table and the Markdown.

use heat_ood::evaluate::Comparison;

use super::columns::{SHOWN, level, percent};

/// What stands above the rows.
pub fn heading(comparison: &Comparison) -> String {
    format!(
        "Difference to {}, average over the OOD sets, with {} % interval; p corrected (Holm)",
        comparison.reference,
        level(comparison.of.level)
    )
}

/// Titles of the columns.
pub fn titles() -> Vec<String> {
    let pair = SHOWN.iter().flat_map(|(title, _)| [(*title).to_owned(), "p".to_owned()]);
    std::iter::once("scorer".to_owned()).chain(pair).collect()
}

/// The cells of each scorer.
pub fn rows(comparison: &Comparison) -> Vec<Vec<String>> {
    let row = |name: &String, t: &heat_ood::metrics::Tests| {
        let cells = SHOWN.iter().flat_map(|(_, value)| {
            let [difference, low, high] =
                [&t.difference, &t.ci.low, &t.ci.high].map(|m| percent(value(m)));
            let ends = match value(&t.ci.low).is_nan() {
                true => "[–]".to_owned(),
                false => format!("[{low}, {high}]"),
            };
            [format!("{difference} {ends}"), probability(value(&t.p_holm))]
        });
        std::iter::once(name.clone()).chain(cells).collect()
    };
    comparison.scorers.iter().map(|(name, c)| row(name, &c.average)).collect()
}

fn probability(p: f64) -> String {
    match p {
        p if p.is_nan() => "–".into(),
        p if p < 1e-4 => "< 0.0001".into(),
        p => format!("{p:.4}"),
    }
}
