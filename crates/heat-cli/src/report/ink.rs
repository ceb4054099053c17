//! The page's colours.

/// A colour of the page.
#[derive(Clone, Copy, PartialEq)]
pub enum Ink {
    /// As the text.
    Text,
    /// As less important text.
    Muted,
    /// Of lines to read values at.
    Grid,
    /// The n-th of the series; they repeat.
    Series(usize),
}

/// How many series have colours of their own.
pub const SERIES: usize = 8;

impl Ink {
    /// As CSS.
    pub fn css(self) -> String {
        match self {
            Ink::Text => "currentColor".into(),
            Ink::Muted => "var(--muted)".into(),
            Ink::Grid => "var(--grid)".into(),
            Ink::Series(n) => format!("var(--s{})", n % SERIES),
        }
    }
}
