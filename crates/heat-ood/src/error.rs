//! The one error type of the library.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::printable::{printable, printable_lines};

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong. Every text names the place and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write.
    #[error("{}", system_text(action, path, source))]
    Io {
        /// What was being done ("open", "write").
        action: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// A file is not what its name or header says.
    #[error("{}: {}", shown(path), printable_lines(problem))]
    Format {
        /// The file concerned.
        path: PathBuf,
        /// What was wrong, and what to do.
        problem: String,
    },
    /// A tensor has another shape than needed.
    #[error(
        "{}: tensor `{}` has shape {}, expected {}",
        printable(place),
        printable(tensor),
        printable(got),
        printable(expected)
    )]
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
        "{}: tensor `{tensor}`, row {row}, column {column} is {value}; every value must be finite: remove or repair that row",
        printable(place)
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
    /// Statistics of rows that are in parts are not all there yet.
    #[error(
        "another round over the rows is needed: gather it on each part, after these statistics, and merge \
         the parts again (what is missing: {})",
        printable(what)
    )]
    AnotherRound {
        /// What is missing.
        what: String,
    },
    /// The user asked for an end before there was one.
    #[error(
        "interrupted; what is finished is kept in {}: run the same command again to go on",
        shown(place)
    )]
    Interrupted {
        /// Where the finished part lies.
        place: PathBuf,
    },
    /// The user asked for an end, and nothing is kept.
    #[error("interrupted")]
    Stopped,
    /// A class label is negative or not below the number of classes.
    #[error(
        "{}: row {row} has label {label}, but labels must lie in 0..{classes}",
        printable(place)
    )]
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
    #[error("{}: {}", printable(place), printable_lines(problem))]
    Foreign {
        /// Set concerned.
        place: String,
        /// What differs, and what to do.
        problem: String,
    },
    /// Something needed is absent from the data.
    #[error("{} has no {}; {}", printable(place), printable(what), printable_lines(remedy))]
    Missing {
        /// File or object concerned.
        place: String,
        /// What is absent.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// What is to be done needs something that was not given.
    #[error("{} needs {}; {}", printable(who), printable(what), printable_lines(remedy))]
    Needs {
        /// What is to be done, or by what.
        who: String,
        /// What it needs.
        what: String,
        /// Where to get it.
        remedy: String,
    },
    /// A setting has a value that cannot work.
    #[error("{}: {}", setting_text(key, value), printable_lines(problem))]
    Config {
        /// Name of the setting.
        key: String,
        /// Its value.
        value: String,
        /// Why it cannot work, and what would.
        problem: String,
    },
    /// A setting, scorer or recipe of that name does not exist.
    #[error("unknown {kind} `{}`{}", printable(name), printable(hint))]
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
        "{}: row {row} scores {value} with `{scorer}`: its features are too large for single precision; scale them, or use `normalize=true`",
        printable(place)
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
    #[error("cannot fit {}: {}", printable(what), printable_lines(problem))]
    Fit {
        /// What was being fitted.
        what: String,
        /// Why not, and what to do.
        problem: String,
    },
    /// A device that was to compute did not.
    #[error("{}: {}", printable(device), printable_lines(problem))]
    Device {
        /// Its name, as `cuda:0`.
        device: String,
        /// What went wrong, and what to do.
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

/// Most characters of a list of what there is.
const LONGEST_LIST: usize = 500;

impl Error {
    /// For `map_err` on a system call. Where there is no such file, one of a name
    /// like it is looked for.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| {
            let source = match source.kind() {
                ErrorKind::NotFound if source.get_ref().is_none() => absent(&path),
                _ => source,
            };
            Error::Io { action, path, source }
        }
    }

    /// A file that is not what it should be.
    pub fn format(path: impl Into<PathBuf>, problem: impl Into<String>) -> Error {
        Error::Format { path: path.into(), problem: problem.into() }
    }

    /// A device that was to compute did not.
    pub fn device(device: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Device { device: device.into(), problem: problem.into() }
    }

    /// A setting that cannot work.
    pub fn config(
        key: impl Into<String>,
        value: impl ToString,
        problem: impl Into<String>,
    ) -> Error {
        Error::Config { key: key.into(), value: value.to_string(), problem: problem.into() }
    }

    /// Something absent from a file or object: "PLACE has no WHAT".
    pub fn missing(
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Error {
        Error::Missing { place: place.into(), what: what.into(), remedy: remedy.into() }
    }

    /// Something that was not given: "WHO needs WHAT".
    pub fn needs(
        who: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Error {
        Error::Needs { who: who.into(), what: what.into(), remedy: remedy.into() }
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
        let known: Vec<&str> = known.into_iter().collect();
        let hint = match nearest(name, known.iter().copied(), likeness_of_keys) {
            Some(nearest) => format!("; did you mean `{nearest}`?"),
            None if known.is_empty() => String::new(),
            None => {
                let all = known.join(", ");
                if all.len() <= LONGEST_LIST {
                    format!("; there are: {all}")
                } else {
                    String::new()
                }
            }
        };
        Error::Unknown { kind, name: name.to_owned(), hint }
    }
}

/// The name most like this one, if one is. Of equals the first.
fn nearest<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    likeness: fn(&str, &str) -> f64,
) -> Option<&'a str> {
    let name = name.to_lowercase();
    let scored = known.into_iter().map(|k| (likeness(&name, &k.to_lowercase()), k));
    let scored = scored.filter(|(likeness, _)| *likeness > 0.75);
    scored.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, k)| k)
}

/// How alike two words are, from 0 to 1: letters exchanged, left out or added.
fn likeness(a: &str, b: &str) -> f64 {
    // Two exchanged letters of a short word are all that Jaro and Winkler look at.
    let longer = a.chars().count().max(b.chars().count()).max(1);
    let (slips, jaro_winkler) = (strsim::osa_distance(a, b), strsim::jaro_winkler(a, b));
    if slips * 3 > longer {
        return jaro_winkler;
    }
    // Of as many slips the later ones are likelier.
    let few = 1.0 - slips as f64 / (4 * longer) as f64;
    jaro_winkler.max(0.9 * few + 0.1 * jaro_winkler)
}

/// The same of dotted keys, of which the last part may stand for the whole.
fn likeness_of_keys(a: &str, b: &str) -> f64 {
    let last = |s: &str| s.rsplit('.').next().unwrap_or(s).to_owned();
    likeness(a, b).max(0.99 * likeness(&last(a), &last(b)))
}

/// The error of a file that is not there, with a name like it.
fn absent(path: &Path) -> std::io::Error {
    const MOST: usize = 10_000;
    if let Ok(target) = std::fs::read_link(path) {
        let text = format!("leads to {}, which does not exist", shown(&target));
        return std::io::Error::new(ErrorKind::NotFound, text);
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let text = match std::fs::read_dir(directory) {
        Err(_) => format!("there is no directory {}", shown(directory)),
        Ok(entries) => {
            let names =
                entries.take(MOST).flatten().filter_map(|e| e.file_name().into_string().ok());
            let mut names: Vec<String> = names.filter(|n| !n.starts_with('.')).collect();
            names.sort();
            let wanted = path.file_name().unwrap_or_default().to_string_lossy();
            // The same stem with an ending, or another one.
            let stem = |n: &str| n.split('.').next().unwrap_or_default().to_owned();
            let same = names.iter().map(String::as_str).find(|n| stem(n) == stem(&wanted));
            match same.or_else(|| nearest(&wanted, names.iter().map(String::as_str), likeness)) {
                Some(name) => {
                    format!("does not exist; did you mean `{}`?", shown(&path.with_file_name(name)))
                }
                None => "does not exist".to_owned(),
            }
        }
    };
    std::io::Error::new(ErrorKind::NotFound, text)
}

/// A path in a message.
fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

fn system_text(action: &str, path: &Path, source: &std::io::Error) -> String {
    let source_text = printable(&source.to_string());
    match source_text.starts_with("does not exist") || source_text.starts_with("leads to ") {
        true => format!("{} {source_text}", shown(path)),
        false => format!("{action} {}: {source_text}", shown(path)),
    }
}

/// A setting with its value, where it has one.
fn setting_text(key: &str, value: &str) -> String {
    match (key, value) {
        (key, "") => format!("`{}`", printable(key)),
        (key, value) => format!("`{}` = {}", printable(key), printable(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_like_it_are_suggested() {
        let scorers = ["gen", "knn", "gmm", "ssd", "ebm", "ebm.model.steps", "relation"];
        for (name, want) in [
            ("KNN", Some("knn")),
            ("gmn", Some("gmm")),
            ("emb", Some("ebm")),
            ("kn", Some("knn")),
            ("model.step", Some("ebm.model.steps")),
            ("relaiton", Some("relation")),
            ("zebra", None),
        ] {
            assert_eq!(nearest(name, scorers, likeness_of_keys), want, "{name}");
        }
        let error = Error::unknown("scorer", "zebra", scorers).to_string();
        assert!(
            error.ends_with("there are: gen, knn, gmm, ssd, ebm, ebm.model.steps, relation"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_not_there_does_not_exist() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["train.safetensors", "features.npy"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let text = |name: &str| {
            let path = directory.path().join(name);
            let error = std::fs::File::open(&path).map_err(Error::io("open", &path)).unwrap_err();
            error.to_string().replace(&directory.path().display().to_string(), "D")
        };
        assert_eq!(text("train"), "D/train does not exist; did you mean `D/train.safetensors`?");
        assert_eq!(
            text("fetures.npy"),
            "D/fetures.npy does not exist; did you mean `D/features.npy`?"
        );
        assert_eq!(text("zzz.npz"), "D/zzz.npz does not exist");
        assert_eq!(text("no/x.npy"), "open D/no/x.npy: there is no directory D/no");
    }

    #[test]
    fn texts_of_files_do_not_reach_the_terminal_as_they_are() {
        let error = Error::missing("a\x1b[31m", "x".repeat(1 << 20), "give\nit").to_string();
        assert!(error.starts_with("a\\u{1b}[31m has no xx") && error.ends_with("give\nit"));
        assert!(error.len() < 2000);
        assert_eq!(Error::config("ood", "", "no").to_string(), "`ood`: no");
    }
}
