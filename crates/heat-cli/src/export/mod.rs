//! Results and scores as text, for people and for programs.
//!
//! ```
//! use heat_cli::export::{Format, results};
//! use heat_ood::Silent;
//! use heat_ood::evaluate::evaluate;
//! # use heat_ood::{TrainingData, evaluate::Candidate, features::FeatureSet, scorers::ScorerSpec};
//! # fn main() -> heat_ood::Result<()> {
//! # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/data/cifar10-densenet");
//! # let open = |name: &str| FeatureSet::open(format!("{directory}/{name}.safetensors"));
//! # let scorer = ScorerSpec::parse("norm")?.fit(&TrainingData::new(&open("train")?), &mut Silent)?;
//! # let candidates = [Candidate { name: "norm".into(), scorer, fit_seconds: None }];
//! # let (id, ood) = (open("test")?, [("mnist".to_owned(), open("ood_mnist")?)]);
//! let found = evaluate(&id, &ood, &candidates, &mut Silent)?;
//! assert!(results(&found, Format::Csv).starts_with("scorer,ood,auroc,"));
//! # Ok(())
//! # }
//! ```

mod columns;
mod comparison;
mod csv;
mod format;
mod json;
mod markdown;
mod openood;
mod scores;
mod summary;
mod sweep;
mod table;

use heat_ood::evaluate::Results;

pub use format::Format;
pub use openood::{files as openood, leaderboard};
pub use scores::{ScoreFormat, ScoreWriter};
pub(crate) use scores::{class_name, word};
pub use summary::{Outcome, Summary};
pub use sweep::render as sweep;
pub(crate) use table::aligned;

/// The table of results for a terminal of so many columns: with its scorers beside each other
/// if it is too wide, else with as many columns as fit, and a word on what is not shown.
pub fn table_within(results: &Results, width: usize) -> String {
    table::render(results, Some(width))
}

/// Results as text.
pub fn results(results: &Results, format: Format) -> String {
    match format {
        Format::Table => table::render(results, None),
        Format::Json => json::render(results),
        Format::Csv => csv::render(results),
        Format::Markdown => markdown::render(results),
    }
}
