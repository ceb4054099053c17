//! `report.html`: one page that needs nothing else, for people.
//!
//! [`ReportData`] is what it shows; figures are inline SVG, so that the page
//! prints and needs no network. Its own content policy forbids any request.
//!
//! ```
//! use heat_cli::report::{Evaluation, ReportData, render};
//! use heat_ood::Silent;
//! # use heat_ood::{TrainingData, evaluate::Candidate, features::FeatureSet, scorers::ScorerSpec};
//! # fn main() -> heat_ood::Result<()> {
//! # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/data/cifar10-densenet");
//! # let open = |name: &str| FeatureSet::open(format!("{directory}/{name}.safetensors"));
//! # let train = open("train")?;
//! # let scorer = ScorerSpec::parse("norm")?.fit(&TrainingData::new(&train), &mut Silent)?;
//! # let candidates = [Candidate { name: "norm".into(), scorer, fit_seconds: None }];
//! # let (id, ood) = (open("test")?, [("mnist".to_owned(), open("ood_mnist")?)]);
//! let (results, evaluation) = Evaluation::of(&id, &ood, &candidates, &mut Silent)?;
//! let evaluation = evaluation.with_training(&train, None)?;
//! let data = ReportData::new("my_script.py", Vec::new()).with_results(&results, evaluation);
//! assert!(render(&data)?.contains("my_script.py"));
//! # Ok(())
//! # }
//! ```

mod conformal;
mod data;
mod evaluation;
mod figures;
mod html;
mod ink;
mod places;
mod plot;
mod provenance;
mod runs;
mod scale;
mod seeds;
mod tables;

use std::path::Path;

use heat_ood::Result;

pub use data::{ReportData, Run};
pub use evaluation::Evaluation;
pub(crate) use runs::{Found, find};

use figures::{beta, calibration, correlation, cost, curves, energies, histograms, training};
use html::{escape, section};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");

/// Write the page to a file, whole or not at all.
///
/// # Errors
/// As [`render`]; if the file cannot be written.
pub fn write(path: &Path, data: &ReportData) -> Result<()> {
    let page = render(data)?;
    heat_ood::io::write_atomically(path, |w| w.write_all(page.as_bytes()))
}

/// The page as text.
///
/// # Errors
/// If a figure cannot be drawn.
pub fn render(data: &ReportData) -> Result<String> {
    let mut sections: Vec<(&str, &str, String)> = Vec::new();
    let tables: String =
        data.tables.iter().enumerate().map(|(n, t)| tables::render(n, t, &data.runs)).collect();
    sections.push(("results", "Results", tables));
    if let (Some(e), Some(table)) = (&data.evaluation, data.tables.first()) {
        sections.push(("histograms", "Scores", histograms::render(e, table)?));
        sections.push(("curves", "Curves", curves::render(e, table)?));
        sections.push(("energies", "Prior and network", energies::render(e, table)?));
        sections.push(("beta", "Effect of β", beta::render(e)?));
        sections.push((
            "correlation",
            "Correlation between scorers",
            correlation::render(e, table),
        ));
        sections.push(("calibration", "Calibration", calibration::render(e, table)?));
        sections.push(("training", "Training", training::render(&data.runs)?));
        sections.push(("cost", "Cost", cost::render(e, table)));
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
}
