//! The forms that results are written in.

/// Forms of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// Everything, values as fractions.
    Json,
    /// One line per scorer and set.
    Csv,
    /// For documents.
    Markdown,
}
