//! Scorers by name: `knn(k=50,normalize=true)`.

use std::time::Instant;

use toml::{Table, Value};

use super::Scorer;
use super::context::FitContext;
use super::fit::{Fitted, Recorder, TrainingData};
use super::method::{Entry, asked_for};
use super::methods::{self, NAMES};
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::settings::parse_value;

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
            let pair = setting.split_once('=').filter(|(key, _)| !key.trim().is_empty());
            let (key, value) = pair.ok_or_else(|| {
                let problem =
                    format!("settings of `{name}` are written `key=value`, without spaces");
                Error::config(setting, "", problem)
            })?;
            table.insert(key.trim().to_owned(), parse_value(value.trim()));
        }
        Ok(ScorerSpec { name: name.to_owned(), settings: table })
    }

    /// Fit it. (As [`Fit::fit`](super::Fit::fit), but that the type of the
    /// scorer is not known.)
    ///
    /// # Errors
    /// If a setting is unknown or wrong, or the data cannot be fitted.
    pub fn fit(
        &self,
        data: &TrainingData,
        observer: &mut dyn Observer,
    ) -> Result<Fitted<dyn Scorer>> {
        let mut context = FitContext::new(data, observer);
        let scorer = self.entry()?.prepare(&self.settings)?.fit_in(&mut context);
        Fitted::record(data, scorer.map_err(|e| asked_for(&self.name, e))?)
    }

    fn entry(&self) -> Result<&'static Entry> {
        methods::find(&self.name).ok_or_else(|| Error::unknown("scorer", &self.name, NAMES))
    }
}

/// Fit many scorers. The sums that they need are gathered in one pass over
/// the training set, each once, whichever scorers share it; what depends on
/// these takes passes of its own. Beside each scorer stand the wall-clock
/// seconds of its own fit, with its fraction of the common pass: an equal one of
/// all that asked for any.
///
/// # Errors
/// As [`ScorerSpec::fit`], of the first that fails.
pub fn fit_all(
    specs: &[ScorerSpec],
    data: &TrainingData,
    observer: &mut dyn Observer,
) -> Result<Vec<(Fitted<dyn Scorer>, f64)>> {
    let mut scorers = Vec::new();
    fit_many(specs, data, observer, &mut |fitted| {
        scorers.push(fitted?);
        Ok(())
    })?;
    Ok(scorers)
}

/// The same, but that a scorer which cannot be fitted does not keep the others from it.
pub fn fit_each(
    specs: &[ScorerSpec],
    data: &TrainingData,
    observer: &mut dyn Observer,
) -> Vec<Result<(Fitted<dyn Scorer>, f64)>> {
    let mut scorers = Vec::new();
    let ended = fit_many(specs, data, observer, &mut |fitted| {
        scorers.push(fitted);
        Ok(())
    });
    debug_assert!(ended.is_ok(), "nothing was refused");
    scorers
}

/// Fit many scorers, and give each, or why it could not be, to `take`, in their order; until
/// it refuses one.
fn fit_many(
    specs: &[ScorerSpec],
    data: &TrainingData,
    observer: &mut dyn Observer,
    take: &mut dyn FnMut(Result<(Fitted<dyn Scorer>, f64)>) -> Result<()>,
) -> Result<()> {
    let mut context = FitContext::new(data, observer);
    let start = Instant::now();
    let (mut prepared, mut requests) = (Vec::new(), Vec::new());
    for spec in specs {
        let prepare = || -> Result<_> {
            let one = spec.entry()?.prepare(&spec.settings)?;
            let its = one.requests(&mut context)?;
            let shares = !its.is_empty();
            requests.extend(its);
            Ok((one, shares))
        };
        prepared.push({ prepare }().map_err(|e| asked_for(&spec.name, e)));
    }
    context.gather_possible(requests);
    let sharing = prepared.iter().flatten().filter(|(_, shares)| *shares).count().max(1);
    let share = start.elapsed().as_secs_f64() / sharing as f64;
    let mut recorder = Recorder::new(data);
    for (spec, prepared) in specs.iter().zip(prepared) {
        let start = Instant::now();
        let fitted = prepared.and_then(|(one, shares)| {
            let scorer = one.fit_in(&mut context).map_err(|e| asked_for(&spec.name, e))?;
            let own = start.elapsed().as_secs_f64();
            Ok((recorder.record(scorer)?, own + if shares { share } else { 0.0 }))
        });
        take(fitted)?;
    }
    Ok(())
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
