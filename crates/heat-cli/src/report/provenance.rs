//! What was run on what.

use heat_ood::Provenance;

use super::data::{ReportData, Run};
use super::evaluation::{Evaluation, Set};
use super::html::{Cell, Table, definitions, details, escape};
use super::places;

pub fn render(data: &ReportData) -> String {
    let made = &data.made;
    let mut out = definitions(&[
        ("command".into(), made.command.clone()),
        ("version".into(), format!("heat {}", env!("CARGO_PKG_VERSION"))),
        ("time".into(), utc(made.time)),
        ("threads".into(), made.threads.to_string()),
    ]);
    if let Some(e) = &data.evaluation {
        out.push_str("<h3>Feature sets</h3>\n");
        out.push_str(&sets(e).html());
        out.push_str("<h3>Scorers</h3>\n");
        out.push_str(&scorers(e));
    }
    if !data.runs.is_empty() {
        out.push_str("<h3>Training runs</h3>\n");
        out.extend(data.runs.iter().map(run));
    }
    out
}

fn sets(e: &Evaluation) -> Table {
    let train = e.train.iter().map(|s| ("training", s));
    let id = std::iter::once(("in-distribution", &e.id));
    let head = e.head.iter().map(|s| ("head: a row per class", s));
    let all = train.chain(head).chain(id).chain(e.ood.iter().map(|s| ("out-of-distribution", s)));
    let cells = all.map(|(role, set): (&str, &Set)| {
        let rows = Cell::number(set.rows.to_string(), set.rows as f64);
        vec![Cell::text(set.name.clone()), Cell::text(role), rows, Cell::text(hashes(&set.files))]
    });
    Table {
        id: "sets".into(),
        caption: "Feature sets of this evaluation, with SHA-256 of their files".into(),
        groups: Vec::new(),
        titles: ["set", "role", "rows", "files"].map(str::to_owned).to_vec(),
        rows: cells.collect(),
    }
}

fn hashes(files: &[(String, String)]) -> String {
    let one = |(name, sha): &(String, String)| format!("{name} {sha}");
    files.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// A row each, then the recipes and members of those that have some.
fn scorers(e: &Evaluation) -> String {
    let (mut rows, mut more) = (Vec::new(), String::new());
    for about in &e.scorers {
        let p = &about.provenance;
        let seed = p.seed.map_or(Cell::text("–"), |s| Cell::number(s.to_string(), s as f64));
        let trained = if p.train.is_empty() { "–".into() } else { hashes(&p.train) };
        let from = Cell::text(about.origin.clone());
        rows.push(vec![Cell::text(about.name.clone()), from, seed, Cell::text(trained)]);
        let mut text = String::new();
        for c in e.compositions.iter().filter(|c| c.name == about.name) {
            let members = c.members.iter().map(|m| {
                let text = format!("training mean {}, standard deviation {}", m.mean, m.std);
                (m.name.clone(), text)
            });
            let beta = [("β".to_owned(), c.beta.to_string())];
            text.push_str(&definitions(&beta.into_iter().chain(members).collect::<Vec<_>>()));
        }
        if let Some(promise) = &about.promise {
            let files = promise
                .files
                .iter()
                .map(|f| ("calibrated on".to_owned(), hashes(std::slice::from_ref(f))));
            text.push_str(&definitions(&files.collect::<Vec<_>>()));
        }
        if let Some(recipe) = &p.recipe {
            text.push_str(&definitions(&[made_by(p)]));
            text.push_str(&preformatted(recipe));
        }
        if !text.is_empty() {
            more.push_str(&details(&about.name, false, &text));
        }
    }
    let table = Table {
        id: "scorers".into(),
        caption: "Scorers: names have their settings; of detectors, what they were trained on"
            .into(),
        groups: Vec::new(),
        titles: ["scorer", "from", "seed", "trained on"].map(str::to_owned).to_vec(),
        rows,
    };
    table.html() + &more
}

fn run(run: &Run) -> String {
    let mut pairs = vec![("epochs".to_owned(), run.epochs.len().to_string())];
    match &run.provenance {
        Some(p) => pairs.extend(origin(p)),
        None => pairs.push(("state".into(), "unfinished: there is no detector".into())),
    }
    details(&run.name, false, &(definitions(&pairs) + &preformatted(&run.recipe)))
}

fn origin(p: &Provenance) -> Vec<(String, String)> {
    let mut pairs = vec![made_by(p)];
    if let Some(seed) = p.seed {
        pairs.push(("seed".into(), seed.to_string()));
    }
    pairs.extend(p.train.iter().map(|(n, sha)| ("trained on".to_owned(), format!("{n} {sha}"))));
    pairs
}

fn made_by(p: &Provenance) -> (String, String) {
    let version = if p.library_version.is_empty() { "(unknown)" } else { &p.library_version };
    ("made by".into(), format!("heat-ood {version}"))
}

fn preformatted(text: &str) -> String {
    format!("<pre tabindex=\"0\">{}</pre>\n", escape(&places::shortened(text.trim_end())))
}

/// Seconds since 1970 as a date of the Gregorian calendar, by counting from
/// 1 March 0000, so that leap days come last.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (400 * era + year + month / 10, (month + 2) % 12 + 1);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{of_month:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::utc;

    /// `date -u -d @N` of GNU coreutils.
    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(1_735_689_599), "2024-12-31 23:59:59 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }
}
