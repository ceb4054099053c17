//! One line per scorer and set, values as fractions. Intervals, deviations over
//! seeds and differences to a reference follow the metrics where there are any.

use std::fmt::Write;

use heat_ood::evaluate::{Compared, Results};
use heat_ood::metrics::{Intervals, Metrics, Tests};

use super::columns::{columns, spreads};

pub fn render(results: &Results) -> String {
    let mut out = format!("scorer,ood,{}", Metrics::NAMES.join(","));
    let (ci, seeds) = (results.ci.is_some(), !results.seeds.is_empty());
    let reference = results.comparison.as_ref().map(|c| &c.reference);
    let suffixes: [(bool, &[&str]); 3] = [
        (ci, &["lo", "hi"]),
        (seeds, &["std"]),
        (reference.is_some(), &["difference", "difference_lo", "difference_hi", "p", "p_holm"]),
    ];
    for (_, list) in suffixes.iter().filter(|s| s.0) {
        for name in Metrics::NAMES {
            list.iter().for_each(|suffix| out.push_str(&format!(",{name}_{suffix}")));
        }
    }
    out.push_str(if reference.is_some() { ",reference\n" } else { "\n" });
    let width = out.trim_end().split(',').count();
    let mut line = |name: &str, set: &str, metrics: &Metrics, more: [Option<Vec<f64>>; 3]| {
        let _ = write!(out, "{},{}", quoted(name), quoted(set));
        metrics.to_array().iter().for_each(|&v| out.push_str(&cell(v)));
        for ((shown, list), values) in suffixes.iter().zip(more) {
            match values {
                _ if !shown => {}
                Some(values) => values.iter().for_each(|&v| out.push_str(&cell(v))),
                None => out.push_str(&",".repeat(list.len() * Metrics::COUNT)),
            }
        }
        out.push_str(&reference.map_or(String::new(), |r| format!(",{}", quoted(r))));
        out.push('\n');
    };
    for (i, (name, _)) in results.scorers.iter().enumerate() {
        let compared = results.comparison.as_ref().map(|c| &c.scorers);
        let compared = compared.and_then(|all| all.iter().find(|(n, _)| n == name));
        for (k, c) in columns(results, i).iter().enumerate() {
            let tests = compared.and_then(|(_, compared)| tests(compared).nth(k));
            line(name, c.set, &c.metrics, [c.ci.map(ends), None, tests.map(test)]);
        }
    }
    for (name, seeds) in &results.seeds {
        for (set, spread) in spreads(seeds) {
            let std = spread.std.to_array().to_vec();
            line(name, set, &spread.mean, [None, Some(std), None]);
        }
    }
    // With the reason where the set would be, and no values.
    for (name, reason) in &results.skipped {
        let reason = format!("left out: {}", heat_ood::printable(reason));
        let _ = writeln!(out, "{},{}{}", quoted(name), quoted(&reason), ",".repeat(width - 2));
    }
    out
}

/// Empty where there is no number; p-values may be very small.
fn cell(value: f64) -> String {
    match value.abs() {
        a if a.is_nan() => ",".into(),
        a if a > 0.0 && a < 1e-4 => format!(",{value:e}"),
        _ => format!(",{value}"),
    }
}

fn ends(ci: &Intervals) -> Vec<f64> {
    let pairs = ci.low.to_array().into_iter().zip(ci.high.to_array());
    pairs.flat_map(|(low, high)| [low, high]).collect()
}

fn test(t: &Tests) -> Vec<f64> {
    let parts = [t.difference, t.ci.low, t.ci.high, t.p, t.p_holm].map(|m| m.to_array());
    (0..Metrics::COUNT).flat_map(|i| parts.map(|values| values[i])).collect()
}

/// In the order of the columns.
fn tests(compared: &Compared) -> impl Iterator<Item = &Tests> {
    let averages = std::iter::once(&compared.average).chain(&compared.near).chain(&compared.far);
    averages.chain(compared.ood.iter().map(|(_, tests)| tests))
}

/// RFC 4180: names with settings contain commas.
pub(super) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
