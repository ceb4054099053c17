//! `report.html`: one page that needs nothing else, for people.
//!
//! [`ReportData`] is what it shows; figures are inline SVG, so that the page
//! prints and needs no network. Its own content policy forbids any request.

mod conformal;
mod data;
mod figures;
mod html;
mod plot;
mod provenance;
mod runs;
mod tables;

use std::path::Path;

use anyhow::Result;
use heat_ood::math::parallel;

pub use data::{About, Evaluation, Made, Promise, ReportData, Set, with_members};
pub use runs::{Found, find};

use figures::{beta, calibration, correlation, cost, curves, energies, histograms, training};
use html::{escape, section};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");

impl Made {
    /// By this process, now.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let words = std::env::args().enumerate().map(|(i, word)| match i {
            0 => "heat".to_owned(),
            _ => quoted(&word),
        });
        Made {
            command: words.collect::<Vec<_>>().join(" "),
            time: since.map_or(0, |d| d.as_secs()),
            threads: parallel::threads(),
        }
    }
}

/// A word as a shell needs it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Write the page, whole or not at all.
pub fn write(path: &Path, data: &ReportData) -> Result<()> {
    let page = render(data)?;
    heat_ood::io::write_atomically(path, |w| w.write_all(page.as_bytes()))?;
    Ok(())
}

/// The page.
fn render(data: &ReportData) -> Result<String> {
    let mut sections: Vec<(&str, &str, String)> = Vec::new();
    let tables: String =
        data.tables.iter().enumerate().map(|(n, t)| tables::render(n, t)).collect();
    sections.push(("results", "Results", tables));
    if let (Some(e), Some(table)) = (&data.evaluation, data.tables.first()) {
        sections.push(("histograms", "Scores", histograms::render(e, table)?));
        sections.push(("curves", "Curves", curves::render(e, table)?));
        sections.push(("energies", "Prior and network", energies::render(e, table)?));
        sections.push(("beta", "Effect of β", beta::render(e)?));
        sections.push((
            "correlation",
            "Correlation between scorers",
            correlation::render(e, table)?,
        ));
        sections.push(("calibration", "Calibration", calibration::render(e, table)?));
        sections.push(("training", "Training", training::render(&data.runs)?));
        sections.push(("cost", "Cost", cost::render(e, table)?));
    } else {
        sections.push(("training", "Training", training::render(&data.runs)?));
    }
    sections.push(("provenance", "What was run on what", provenance::render(data)));
    sections.retain(|(_, _, body)| !body.is_empty());
    let links = sections.iter().map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>\n"));
    let links: String = links.collect();
    let body: String = sections.iter().map(|(id, title, body)| section(id, title, body)).collect();
    let summary = escape(&tables::summary(data));
    Ok(fill(PAGE, &|name| match name {
        "style" => STYLE,
        "script" => SCRIPT,
        "summary" => &summary,
        "links" => &links,
        "body" => &body,
        _ => "",
    }))
}

/// The template with `{{NAME}}` replaced; what is put in is not looked at again.
fn fill<'a>(template: &str, value: &dyn Fn(&str) -> &'a str) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(value(name));
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_not_a_template() {
        assert_eq!(fill("a{{x}}c{{y}}", &|n| if n == "x" { "{{y}}" } else { "d" }), "a{{y}}cd");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("--ood=a/b.npy"), "--ood=a/b.npy");
        assert_eq!(quoted("knn(k=50)"), "'knn(k=50)'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
