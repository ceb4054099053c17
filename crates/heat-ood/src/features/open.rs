//! How feature sets are opened.

/// What is known of a feature set besides its files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Feature dimension D: needed for raw memmaps without labels, checked
    /// for all others.
    pub dim: Option<usize>,
    /// D of raw memmaps where neither `dim` nor their labels tell it, for
    /// example that of the classifier's head.
    pub fallback_dim: Option<usize>,
    /// The column of labels of a table, by its name or its number from 1;
    /// otherwise one named `label`, `class` or `target`.
    pub label_column: Option<String>,
    /// Read the files into memory, within [`memory_limit`](crate::io::memory_limit), instead of
    /// mapping them: where another program may cut them short meanwhile, by which the
    /// system would end this one.
    pub in_memory: bool,
}
