//! Scorers by name: `knn(k=50,normalize=true)`.

use std::sync::Arc;
use std::time::Instant;

use toml::{Table, Value};

use super::methods::{METHODS, Prepared};
use super::training::Training;
use super::{EnergyLogits, Gmm, Knn, Prior, Scorer, Stored, Vim};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Head};
use crate::observe::Observer;
use crate::settings::parse_value;

/// Names of all scorers that are fitted from features alone.
pub const NAMES: [&str; METHODS.len()] = {
    let mut names = [""; METHODS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = METHODS[i].name;
        i += 1;
    }
    names
};

/// A scorer's name with the settings that differ from its defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct ScorerSpec {
    /// Name of the method.
    pub name: String,
    /// Settings given.
    pub settings: Table,
}

impl ScorerSpec {
    /// Parse `name` or `name(key=value,…)`.
    ///
    /// # Errors
    /// If the name is unknown or a setting is not `key=value`.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, rest) = match text.split_once('(') {
            Some((name, rest)) => {
                let inner = rest.strip_suffix(')').ok_or_else(|| {
                    Error::config("scorers", text, "the bracket is not closed; write `knn(k=50)`")
                })?;
                (name, inner)
            }
            None => (text, ""),
        };
        let settings = rest.split(',').map(str::trim).filter(|s| !s.is_empty());
        Self::new(name.trim(), settings)
    }

    /// Parse a scorer with alternatives, `knn(k=1|10|50,normalize=true|false)`:
    /// one for each combination, the first key varying slowest.
    ///
    /// # Errors
    /// As [`ScorerSpec::parse`], or if there are more than 10,000.
    pub fn parse_alternatives(text: &str) -> Result<Vec<Self>> {
        const MOST: usize = 10_000;
        let mut all = vec![String::new()];
        for (i, part) in text.split_inclusive([',', '(', ')']).enumerate() {
            let (body, end) = match part.char_indices().last() {
                Some((at, c)) if ",()".contains(c) => part.split_at(at),
                _ => (part, ""),
            };
            let (key, values) = match body.split_once('=') {
                Some((key, values)) if i > 0 => (format!("{key}="), values),
                _ => (String::new(), body),
            };
            let options: Vec<&str> = values.split('|').collect();
            if all.len().saturating_mul(options.len()) > MOST {
                let problem = format!("more than {MOST} combinations");
                return Err(Error::config("scorers", text, problem));
            }
            let longer = |prefix: &String| {
                let end = |v: &&str| format!("{prefix}{key}{v}{end}");
                options.iter().map(end).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(longer).collect();
        }
        all.iter().map(|one| Self::parse(one)).collect()
    }

    /// A scorer by name with `key=value` settings.
    ///
    /// # Errors
    /// As [`ScorerSpec::parse`].
    pub fn new<'a>(name: &str, settings: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        if !NAMES.contains(&name) {
            return Err(Error::unknown("scorer", name, NAMES));
        }
        let mut table = Table::new();
        for setting in settings {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| Error::config(name, setting, "settings are written `key=value`"))?;
            table.insert(key.trim().to_owned(), parse_value(value.trim()));
        }
        Ok(ScorerSpec { name: name.to_owned(), settings: table })
    }

    /// Fit it.
    ///
    /// # Errors
    /// If a setting is unknown or wrong, or the data cannot be fitted.
    pub fn fit(
        &self,
        train: &FeatureSet,
        head: Option<&Head>,
        observer: &mut dyn Observer,
    ) -> Result<Arc<dyn Scorer>> {
        let mut training = Training::new(train, head, observer);
        METHODS[self.index()?].prepare(&self.settings)?.fit(&mut training)
    }

    fn index(&self) -> Result<usize> {
        let found = NAMES.iter().position(|n| *n == self.name);
        found.ok_or_else(|| Error::unknown("scorer", &self.name, NAMES))
    }
}

/// A scorer fitted beside others.
pub struct Fitted {
    /// The scorer.
    pub scorer: Arc<dyn Scorer>,
    /// Wall-clock seconds of its own fit, and its share of the pass that
    /// gathered what several need: an equal one of all that asked for any.
    pub seconds: f64,
}

/// Fit many scorers. The sums that they need are gathered in one pass over
/// the training set, each once, whichever scorers share it; what depends on
/// these takes passes of its own.
///
/// # Errors
/// As [`ScorerSpec::fit`], of the first that fails.
pub fn fit_all(
    specs: &[ScorerSpec],
    train: &FeatureSet,
    head: Option<&Head>,
    observer: &mut dyn Observer,
) -> Result<Vec<Fitted>> {
    let mut training = Training::new(train, head, observer);
    let start = Instant::now();
    let (mut prepared, mut wants) = (Vec::new(), Vec::new());
    for spec in specs {
        let one = METHODS[spec.index()?].prepare(&spec.settings)?;
        let its = one.wants(&mut training)?;
        prepared.push((one, !its.is_empty()));
        wants.extend(its);
    }
    training.gather(wants)?;
    let sharing = prepared.iter().filter(|(_, shares)| *shares).count().max(1);
    let share = start.elapsed().as_secs_f64() / sharing as f64;
    let fit = |(one, shares): (Box<dyn Prepared>, bool)| {
        let start = Instant::now();
        let scorer = one.fit(&mut training)?;
        let own = start.elapsed().as_secs_f64();
        Ok(Fitted { scorer, seconds: own + if shares { share } else { 0.0 } })
    };
    prepared.into_iter().map(fit).collect()
}

impl std::fmt::Display for ScorerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if self.settings.is_empty() {
            return Ok(());
        }
        let text = |(k, v): (&String, &Value)| match v {
            Value::String(s) => format!("{k}={s}"),
            v => format!("{k}={v}"),
        };
        let settings: Vec<_> = self.settings.iter().map(text).collect();
        write!(f, "({})", settings.join(","))
    }
}

/// Read back a scorer of [`NAMES`].
///
/// # Errors
/// If its kind is unknown or its tensors are not what they should be.
pub fn load(stored: &Stored<'_>) -> Result<Arc<dyn Scorer>> {
    let found = METHODS.iter().find(|m| m.name == stored.kind());
    (found.ok_or_else(|| Error::unknown("scorer", stored.kind(), NAMES))?.load)(stored)
}

/// Names of the scorers that a residual energy can be trained on.
pub const PRIORS: [&str; 4] = ["gmm", "el", "vim", "knn"];

/// Read back a prior of [`PRIORS`].
///
/// # Errors
/// As [`load`].
pub fn load_prior(stored: &Stored<'_>) -> Result<Arc<dyn Prior>> {
    match stored.kind() {
        "gmm" => Ok(Arc::new(Gmm::load(stored)?)),
        "vim" => Ok(Arc::new(Vim::load(stored)?)),
        "knn" => Ok(Arc::new(Knn::load(stored)?)),
        "el" => {
            let el = EnergyLogits::load(stored)?;
            if !el.has_head() {
                let problem = "its `el` prior has no head";
                return Err(Error::format(stored.file.path(), problem));
            }
            Ok(Arc::new(el))
        }
        other => Err(Error::unknown("prior", other, PRIORS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_multiplied_out() {
        let names = |text: &str| -> Vec<String> {
            let all = ScorerSpec::parse_alternatives(text).unwrap();
            all.iter().map(ScorerSpec::to_string).collect()
        };
        assert_eq!(
            names("knn(k=1|10,normalize=true|false)"),
            [
                "knn(k=1,normalize=true)",
                "knn(k=1,normalize=false)",
                "knn(k=10,normalize=true)",
                "knn(k=10,normalize=false)",
            ]
        );
        assert_eq!(names("el"), ["el"]);
        assert!(ScorerSpec::parse_alternatives("knn(k=1|").is_err());
        let many = format!("knn(k=1{0},pca=1{0},react=1{0})", "|2".repeat(30));
        assert!(ScorerSpec::parse_alternatives(&many).is_err());
    }
}
