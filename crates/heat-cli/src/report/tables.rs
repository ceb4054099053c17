//! The tables of results.

use heat_ood::metrics::{Metrics, Spread};

use super::data::{Comparison, ReportData, ResultsTable, Row, Run, SetRow};
use super::html::{Cell, Table, counted, details, escape};
use super::seeds;

type Value = fn(&Metrics) -> f64;

/// Title, name, whether more is better, value.
const METRICS: [(&str, &str, bool, Value); 6] = [
    ("AUROC", "auroc", true, |m| m.auroc),
    ("FPR95 (ID+)", "fpr95_id_positive", false, |m| m.fpr95_id_positive),
    ("FPR95 (OOD+)", "fpr95_ood_positive", false, |m| m.fpr95_ood_positive),
    ("AUPR in", "aupr_in", true, |m| m.aupr_in),
    ("AUPR out", "aupr_out", true, |m| m.aupr_out),
    ("accuracy", "detection_accuracy", true, |m| m.detection_accuracy),
];

/// How many of them the first table shows.
const SHOWN: usize = 3;

const LEGEND: &str = "\
<ul class=\"legend-text\">
<li><b>AUROC</b>: probability that an out-of-distribution row scores above an in-distribution one; higher is better.</li>
<li><b>FPR95 (ID+)</b>: out-of-distribution rows accepted when 95 % of in-distribution rows are (the HEAT paper’s); lower is better.</li>
<li><b>FPR95 (OOD+)</b>: in-distribution rows flagged when 95 % of out-of-distribution rows are (OpenOOD v1.5’s); lower is better.</li>
<li>All in percent; <b class=\"best\">bold</b>: best of its column. A click on a title sorts.</li>
</ul>
";

/// One sentence on the whole.
pub fn summary(data: &ReportData) -> String {
    let Some(table) = data.tables.iter().find(|t| !t.rows.is_empty()) else {
        let unfinished = data.runs.iter().filter(|r| r.provenance.is_none()).count();
        let state =
            if unfinished > 0 { format!(", {unfinished} unfinished") } else { String::new() };
        return format!("{}{state}.", counted(data.runs.len(), "training run"));
    };
    let Some(best) = table.ranking().first().map(|&i| &table.rows[i]) else {
        return String::new();
    };
    format!(
        "{} on {}; in-distribution: {}. Highest average AUROC: {}, {:.2} %.",
        counted(table.rows.len(), "scorer"),
        counted(best.sets.len(), "out-of-distribution set"),
        table.id,
        best.name,
        100.0 * best.average.metrics.auroc
    )
}

/// Results, then every metric of every set.
pub fn render(n: usize, table: &ResultsTable, runs: &[Run]) -> String {
    let heading = if table.title.is_empty() {
        String::new()
    } else {
        format!("<h3>{}</h3>\n", escape(&table.title))
    };
    let legend = if n == 0 { LEGEND } else { "" };
    let all = details("Every metric of every set", false, &long(n, table).html());
    let compared = table.comparison.as_ref().map_or(String::new(), |c| {
        let title = format!("Compared with {}, on the same rows", c.reference);
        details(&title, false, &compared(n, c).html())
    });
    let warnings = table.warnings.iter();
    let warnings = warnings
        .map(|w| format!("<p class=\"warning\"><b>Warning:</b> {}.</p>\n", escape(w)))
        .collect::<String>();
    let left_out = table.skipped.iter().map(|(name, reason)| {
        format!("<p>Left out: <b>{}</b>: {}</p>\n", escape(name), escape(reason))
    });
    let left_out: String = left_out.collect();
    let groups = seeds::groups(&table.rows, runs);
    let seeds = match groups.is_empty() {
        true => String::new(),
        false => spreads(n, table, &groups).html(),
    };
    let wide = wide(n, table).html();
    format!("{heading}{warnings}{legend}{seeds}{wide}{left_out}{compared}{all}")
}

/// A row per scorer: how far it is from the reference, and whether by chance.
fn compared(n: usize, comparison: &Comparison) -> Table {
    let points = |v: f64| format!("{:+.2}", 100.0 * v);
    let rows = comparison.rows.iter().map(|c| {
        let interval = format!("[{}, {}]", points(c.interval.0), points(c.interval.1));
        let p = if c.p < 0.001 { "< 0.001".to_owned() } else { format!("{:.3}", c.p) };
        vec![
            Cell::text(c.name.clone()),
            Cell::number(points(c.difference), c.difference),
            Cell::number(interval, c.interval.0),
            Cell::number(p, c.p),
        ]
    });
    Table {
        id: format!("comparison-{n}"),
        caption: format!(
            "Average AUROC less that of {}, in points, on the same rows; p after Holm’s correction",
            comparison.reference
        ),
        groups: Vec::new(),
        titles: ["scorer", "difference", "interval", "p"].map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

/// The sets that any row has, in their order.
fn sets(table: &ResultsTable) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in table.rows.iter().flat_map(|r| &r.sets) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// A row per scorer, three metrics of the average and of each set.
fn wide(n: usize, table: &ResultsTable) -> Table {
    let sets = sets(table);
    let mut groups = vec![(String::new(), 1), ("average".to_owned(), SHOWN)];
    let kinds: Vec<&str> =
        table.rows.first().map_or(Vec::new(), |r| r.groups.iter().map(|(n, _)| &**n).collect());
    groups.extend(kinds.iter().map(|k| (format!("average of {k}"), SHOWN)));
    groups.extend(sets.iter().map(|s| ((*s).to_owned(), SHOWN)));
    let mut titles = vec!["scorer".to_owned()];
    for _ in 0..=kinds.len() + sets.len() {
        titles.extend(METRICS[..SHOWN].iter().map(|m| m.0.to_owned()));
    }
    let cells = |row: &super::data::Row| -> Vec<Cell> {
        let among = |list: &'_ [(String, SetRow)], name: &str| -> Option<usize> {
            list.iter().position(|(n, _)| n == name)
        };
        let of = |set: &&str| among(&row.sets, set).map(|i| &row.sets[i].1);
        let kind = |kind: &&str| among(&row.groups, kind).map(|i| &row.groups[i].1);
        let all = std::iter::once(Some(&row.average));
        let all = all.chain(kinds.iter().map(kind)).chain(sets.iter().map(of));
        let metrics = all.flat_map(|s| METRICS[..SHOWN].iter().map(move |m| cell(s, m)));
        std::iter::once(Cell::text(row.name.clone())).chain(metrics).collect()
    };
    let mut rows: Vec<Vec<Cell>> = table.rows.iter().map(cells).collect();
    for column in 1..titles.len() {
        mark_best(&mut rows, column, METRICS[(column - 1) % SHOWN].2);
    }
    Table {
        id: format!("results-{n}"),
        caption: format!("Results in percent; in-distribution set: {}", table.id),
        groups,
        titles,
        rows,
    }
}

/// A value with its interval below, where that is known.
fn cell(set: Option<&SetRow>, (_, name, _, value): &(&str, &str, bool, Value)) -> Cell {
    set.map_or(Cell::text("–"), |s| {
        let v = 100.0 * value(&s.metrics);
        let detail = s.intervals.get(*name).map(interval).unwrap_or_default();
        Cell { detail, ..Cell::number(format!("{v:.2}"), v) }
    })
}

fn interval((low, high): &(f64, f64)) -> String {
    format!("[{:.2}, {:.2}]", 100.0 * low, 100.0 * high)
}

/// Mean and deviation over the seeds of each setting.
fn spreads(n: usize, table: &ResultsTable, groups: &[(String, Vec<usize>)]) -> Table {
    let sets = sets(table);
    let spread = |rows: &[usize], set: Option<&str>, value: Value| -> Cell {
        let of = |row: &Row| match set {
            None => Some(value(&row.average.metrics)),
            Some(set) => {
                let found = row.sets.iter().find(|(name, _)| name == set);
                found.map(|(_, s)| value(&s.metrics))
            }
        };
        let values: Option<Vec<f64>> = rows.iter().map(|&i| of(&table.rows[i])).collect();
        let Some(spread) = values.and_then(|v| Spread::of(&v)) else { return Cell::text("–") };
        let mean = 100.0 * spread.mean;
        let std = spread.std.map_or(String::new(), |s| format!(" ± {:.2}", 100.0 * s));
        Cell::number(format!("{mean:.2}{std}"), mean)
    };
    let columns = || std::iter::once(None).chain(sets.iter().copied().map(Some));
    let mut titles = vec!["setting".to_owned(), "seeds".to_owned()];
    for _ in columns() {
        titles.extend(METRICS[..SHOWN].iter().map(|m| m.0.to_owned()));
    }
    let cells = |(name, rows): &(String, Vec<usize>)| -> Vec<Cell> {
        let count = Cell::number(rows.len().to_string(), rows.len() as f64);
        let values = columns()
            .flat_map(|set| METRICS[..SHOWN].iter().map(move |m| (set, m.3)))
            .map(|(set, value)| spread(rows, set, value));
        [Cell::text(name.clone()), count].into_iter().chain(values).collect()
    };
    let mut rows: Vec<Vec<Cell>> = groups.iter().map(cells).collect();
    for column in 2..titles.len() {
        mark_best(&mut rows, column, METRICS[(column - 2) % SHOWN].2);
    }
    let named = columns().map(|set| (set.unwrap_or("average").to_owned(), SHOWN));
    Table {
        id: format!("seeds-{n}"),
        caption: "Mean ± standard deviation over seeds, in percent; each run is below".into(),
        groups: std::iter::once((String::new(), 2)).chain(named).collect(),
        titles,
        rows,
    }
}

fn mark_best(rows: &mut [Vec<Cell>], column: usize, more: bool) {
    let sign = if more { 1.0 } else { -1.0 };
    // What looks equal is equal.
    let shown = |c: &Cell| c.value.map(|v| sign * (100.0 * v).round());
    let best = rows.iter().filter_map(|r| shown(&r[column])).fold(f64::NEG_INFINITY, f64::max);
    for row in rows {
        row[column].best = shown(&row[column]) == Some(best);
    }
}

/// A row per scorer and set, every metric, with intervals where known.
fn long(n: usize, table: &ResultsTable) -> Table {
    let mut rows = Vec::new();
    for row in &table.rows {
        let average = std::iter::once(("average", &row.average));
        let others = row.groups.iter().chain(&row.sets).map(|(n, s)| (n.as_str(), s));
        for (set, s) in average.chain(others) {
            let mut cells = vec![Cell::text(row.name.clone()), Cell::text(set)];
            cells.push(match s.n {
                0 => Cell::text("–"),
                n => Cell::number(n.to_string(), n as f64),
            });
            cells.extend(METRICS.iter().map(|(_, name, _, value)| {
                let v = 100.0 * value(&s.metrics);
                let range = s.intervals.get(*name).map(|i| format!(" {}", interval(i)));
                Cell::number(format!("{v:.2}{}", range.unwrap_or_default()), v)
            }));
            rows.push(cells);
        }
    }
    let mut titles = vec!["scorer".to_owned(), "set".to_owned(), "rows".to_owned()];
    titles.extend(METRICS.iter().map(|m| m.0.to_owned()));
    Table {
        id: format!("metrics-{n}"),
        caption: "Every metric in percent; in brackets, where known, confidence intervals".into(),
        groups: Vec::new(),
        titles,
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_a_column_is_by_its_direction_and_ties_count() {
        let rows = || -> Vec<Vec<Cell>> {
            [1.001, 2.0, 1.0].into_iter().map(|v| vec![Cell::number("", v)]).collect()
        };
        let mut up = rows();
        mark_best(&mut up, 0, true);
        assert_eq!(up.iter().map(|r| r[0].best).collect::<Vec<_>>(), [false, true, false]);
        let mut down = rows();
        mark_best(&mut down, 0, false);
        assert_eq!(down.iter().map(|r| r[0].best).collect::<Vec<_>>(), [true, false, true]);
    }
}
