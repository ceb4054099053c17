//! Forms that results are written in.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::export::Format;

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Format::Table, Format::Json, Format::Csv, Format::Markdown]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Format::Table => PossibleValue::new("table").help("For people"),
            Format::Json => PossibleValue::new("json").help("Everything, values as fractions"),
            Format::Csv => PossibleValue::new("csv").help("One line per scorer and set"),
            Format::Markdown => PossibleValue::new("markdown").help("For documents"),
        })
    }
}

/// Forms of the results of `heat eval`.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum EvalFormat {
    /// For people
    Table,
    /// Everything, values as fractions
    Json,
    /// One line per scorer and set
    Csv,
    /// For documents
    Markdown,
    /// OpenOOD v1.5's CSV; of several scorers, one file each in the directory -o
    Openood,
    /// OpenOOD's values of all scorers in one CSV, a line each
    Leaderboard,
}

/// For people, or for programs.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Form {
    /// For people
    Table,
    /// Everything
    Json,
}
