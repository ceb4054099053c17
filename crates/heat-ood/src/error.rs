//! The one error type of the library.

use std::path::{Path, PathBuf};

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong. Every text names the place and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done ("open", "write").
        action: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// A file is not what its name or header says.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file concerned.
        path: PathBuf,
        /// What was wrong, and what to do.
        problem: String,
    },
    /// A tensor has another shape than needed.
    #[error("{place}: tensor `{tensor}` has shape {got}, expected {expected}")]
    Shape {
        /// File or object concerned.
        place: String,
        /// Name of the tensor.
        tensor: String,
        /// Shape that was expected.
        expected: String,
        /// Shape that was found.
        got: String,
    },
    /// A value is NaN or infinite.
    #[error(
        "{place}: tensor `{tensor}`, row {row}, column {column} is {value}; every value must be finite: remove or repair that row"
    )]
    NotFinite {
        /// File concerned.
        place: String,
        /// Name of the tensor.
        tensor: &'static str,
        /// Row within the file.
        row: usize,
        /// Column within the row.
        column: usize,
        /// The offending value.
        value: f32,
    },
    /// The user asked for an end before there was one.
    #[error("interrupted; what is finished is kept in {}: run the same command again to go on", place.display())]
    Interrupted {
        /// Where the finished part lies.
        place: PathBuf,
    },
    /// A class label is negative or not below the number of classes.
    #[error("{place}: row {row} has label {label}, but labels must lie in 0..{classes}")]
    Label {
        /// File concerned.
        place: String,
        /// Row within the file.
        row: usize,
        /// The label found.
        label: i64,
        /// Number of classes.
        classes: usize,
    },
    /// Features come from another network or transform than something was fitted on.
    #[error("{place}: {problem}")]
    Foreign {
        /// Set concerned.
        place: String,
        /// What differs, and what to do.
        problem: String,
    },
    /// Something needed is absent from the data.
    #[error("{place} has no {what}; {remedy}")]
    Missing {
        /// File or object concerned.
        place: String,
        /// What is absent.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// A setting has a value that cannot work.
    #[error("`{key}` = {value}: {problem}")]
    Config {
        /// Name of the setting.
        key: String,
        /// Its value.
        value: String,
        /// Why it cannot work, and what would.
        problem: String,
    },
    /// A setting, scorer or recipe of that name does not exist.
    #[error("unknown {kind} `{name}`{hint}")]
    Unknown {
        /// "key", "scorer", "recipe".
        kind: &'static str,
        /// The name as given.
        name: String,
        /// The closest existing name, or all of them when they are few.
        hint: String,
    },
    /// A score is NaN or infinite although the features are finite.
    #[error(
        "{place}: row {row} scores {value} with `{scorer}`: its features are too large for single precision; scale them, or use `normalize=true`"
    )]
    Score {
        /// Feature set concerned.
        place: String,
        /// Row within the set.
        row: usize,
        /// Name of the scorer.
        scorer: &'static str,
        /// The score.
        value: f32,
    },
    /// The data cannot be fitted.
    #[error("cannot fit {what}: {problem}")]
    Fit {
        /// What was being fitted.
        what: String,
        /// Why not, and what to do.
        problem: String,
    },
    /// Training produced values that are not finite.
    #[error(
        "training diverged at epoch {epoch}, step {step}: {what} is {value}; lower `ebm.optimizer.opt.lr` or `ebm.model.step_size_start`"
    )]
    Diverged {
        /// Epoch, from 1.
        epoch: usize,
        /// Step within the run, from 1.
        step: u64,
        /// Which quantity.
        what: &'static str,
        /// Its value.
        value: f32,
    },
}

/// Longest part of an unknown name that is compared and shown, in characters.
const LONGEST_NAME: usize = 200;

impl Error {
    /// For `map_err` on a system call.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// A file that is not what it should be.
    pub fn format(path: impl Into<PathBuf>, problem: impl Into<String>) -> Error {
        Error::Format { path: path.into(), problem: problem.into() }
    }

    /// A setting that cannot work.
    pub fn config(
        key: impl Into<String>,
        value: impl ToString,
        problem: impl Into<String>,
    ) -> Error {
        Error::Config { key: key.into(), value: value.to_string(), problem: problem.into() }
    }

    /// Something absent.
    pub fn missing(
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Error {
        Error::Missing { place: place.into(), what: what.into(), remedy: remedy.into() }
    }

    /// An unknown name, with the closest of `known` as a suggestion.
    pub fn unknown<'a>(
        kind: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Error {
        // Comparing takes time in proportion to the length.
        let cut = name.char_indices().nth(LONGEST_NAME).map_or(name.len(), |(at, _)| at);
        let name = &name[..cut];
        let last = |s: &str| s.rsplit('.').next().unwrap_or(s).to_owned();
        let score = |k: &str| {
            strsim::jaro_winkler(name, k).max(0.99 * strsim::jaro_winkler(&last(name), &last(k)))
        };
        let known: Vec<&str> = known.into_iter().collect();
        let scored = known.iter().map(|k| (score(k), *k)).filter(|(s, _)| *s > 0.75);
        let hint = match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((_, nearest)) => format!("; did you mean `{nearest}`?"),
            None if (1..=20).contains(&known.len()) => format!("; there are: {}", known.join(", ")),
            None => String::new(),
        };
        Error::Unknown { kind, name: name.to_owned(), hint }
    }
}
