//! The columns that results are shown in, and their words, for tables, Markdown and CSV.

use heat_ood::evaluate::{MetricsSpread, Results, SeedResults};
use heat_ood::metrics::{Intervals, Metrics};
use heat_ood::printable;

/// Takes one metric.
pub(super) type Value = fn(&Metrics) -> f64;

/// What the table and the Markdown show of each set, in percent.
pub(super) const SHOWN: [(&str, Value); 3] = [
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

pub(super) fn percent(value: f64) -> String {
    format!("{:.2}", 100.0 * value)
}

/// A level in percent, without the noise of its fraction: 0.58 is 58.
pub(super) fn level(level: f64) -> f64 {
    (1e10 * level).round() / 1e8
}

/// A scorer on one column: the average, near, far, or a set.
pub(super) struct Column<'a> {
    pub set: &'a str,
    pub metrics: Metrics,
    pub ci: Option<&'a Intervals>,
}

/// The average, near and far where there are groups, then each set.
pub(super) fn columns(results: &Results, scorer: usize) -> Vec<Column<'_>> {
    let entry = &results.scorers[scorer].1;
    let averages = [
        ("average", Some(&entry.average)),
        ("near", entry.near.as_ref()),
        ("far", entry.far.as_ref()),
    ];
    let averages = averages.into_iter().filter_map(|(set, found)| {
        found.map(|a| Column { set, metrics: a.metrics, ci: a.ci.as_ref() })
    });
    let sets = entry.ood.iter().map(|(name, s)| Column {
        set: name,
        metrics: s.metrics,
        ci: s.ci.as_ref(),
    });
    averages.chain(sets).collect()
}

/// The same columns over seeds.
pub(super) fn spreads(seeds: &SeedResults) -> Vec<(&str, MetricsSpread)> {
    let averages = [("average", Some(seeds.average)), ("near", seeds.near), ("far", seeds.far)];
    let averages = averages.into_iter().filter_map(|(set, found)| Some((set, found?)));
    averages.chain(seeds.ood.iter().map(|(name, s)| (&**name, *s))).collect()
}

pub(super) fn seeds_title(name: &str, seeds: &SeedResults) -> String {
    format!("{name} ({} seeds)", seeds.seeds.len())
}

/// `93.70`, or with its interval `93.70 [93.29, 94.10]`.
pub(super) fn shown(column: &Column<'_>, value: Value) -> String {
    let plain = percent(value(&column.metrics));
    let ends = |ci: &Intervals| [&ci.low, &ci.high].map(|m| percent(value(m))).join(", ");
    column.ci.map_or(plain.clone(), |ci| format!("{plain} [{}]", ends(ci)))
}

/// `93.70 ± 0.12`
pub(super) fn spread(spread: &MetricsSpread, value: Value) -> String {
    format!("{} ± {}", percent(value(&spread.mean)), percent(value(&spread.std)))
}

/// Explains what is shown.
pub(super) fn legend(results: &Results) -> String {
    let mut out = LEGEND.to_owned();
    if let Some(groups) = &results.groups {
        let (near, far) = (groups.near.join(", "), groups.far.join(", "));
        out.push_str(&format!("near: {near}. far: {far}.\n"));
    }
    if let Some(ci) = &results.ci {
        let (level, n) = (level(ci.level), ci.resamples);
        out.push_str(&format!("[low, high]: {level} % bootstrap interval, {n} resamples.\n"));
    }
    if !results.seeds.is_empty() {
        out.push_str("(seeds): mean ± standard deviation over the seeds.\n");
    }
    for (name, reason) in &results.skipped {
        let (name, reason) = (printable(name), printable(reason));
        out.push_str(&format!("left out: {name}: {reason}\n"));
    }
    if results.comparison.is_some() {
        out.push_str("p: of AUROC by DeLong's test, of others by the paired bootstrap.\n");
    }
    for warning in &results.warnings {
        out.push_str(&format!("WARNING: {warning}.\n"));
    }
    out
}
