//! Scorers by name: `knn(k=50,normalize=true)`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use toml::{Table, Value};

use super::Scorer;
use super::context::{FitContext, Gathered, Rounds};
use super::elsewhere::Place;
use super::fit::{Fitted, Recorder, TrainingData};
use super::method::{Entry, asked_for};
use super::methods::{self, NAMES};
use crate::error::{Error, Result};
use crate::features::{Field, Part};
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
        let (mut fitted, mut failed) = (None, None);
        fit_many(std::slice::from_ref(self), data, observer, &mut |one| {
            match one {
                Ok((one, _)) => fitted = Some(one),
                Err(error) => failed = Some(error),
            }
            Ok(())
        })?;
        let nothing = || Error::Fit { what: self.to_string(), problem: "was not fitted".into() };
        fitted.ok_or_else(|| failed.unwrap_or_else(nothing))
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
) -> Vec<Result<Timed>> {
    let mut scorers = Vec::new();
    let ended = fit_many(specs, data, observer, &mut |fitted| {
        scorers.push(fitted);
        Ok(())
    });
    debug_assert!(ended.is_ok(), "nothing was refused");
    scorers
}

/// A fitted scorer, and the seconds that it took.
type Timed = (Fitted<dyn Scorer>, f64);

/// Fit many scorers, and give each, or why it could not be, to `take`, in their order; until
/// it refuses one.
fn fit_many(
    specs: &[ScorerSpec],
    data: &TrainingData,
    observer: &mut dyn Observer,
    take: &mut dyn FnMut(Result<Timed>) -> Result<()>,
) -> Result<()> {
    let mut found: Vec<Option<Result<Timed>>> = Vec::new();
    let mut groups: Vec<(Option<Part>, Vec<usize>, Vec<Placed>)> = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        match Placed::of(spec) {
            Err(error) => found.push(Some(Err(error))),
            Ok(placed) => {
                found.push(None);
                let layer = placed.place.layer;
                let group = groups.iter().position(|(other, ..)| *other == layer);
                let group = group.unwrap_or_else(|| {
                    groups.push((layer, Vec::new(), Vec::new()));
                    groups.len() - 1
                });
                groups[group].1.push(i);
                groups[group].2.push(placed);
            }
        }
    }
    // What one pass finds is given as it is found.
    if let [(_, _, all)] = &groups[..]
        && all.len() == specs.len()
    {
        return fit_there(all, data, observer, take);
    }
    for (_, at, all) in groups {
        let mut at = at.into_iter();
        fit_there(&all, data, observer, &mut |one| {
            if let Some(at) = at.next() {
                found[at] = Some(one);
            }
            Ok(())
        })?;
    }
    found.into_iter().flatten().try_for_each(take)
}

/// Statistics of rows that are in parts, by the layer that they are of.
pub(crate) type ByLayer = BTreeMap<String, Gathered>;

/// What the fits of these scorers ask of a part of the rows, where `known` are the statistics merged so far,
/// of so many rows in all; and the fields that they read.
///
/// # Errors
/// If a scorer cannot be fitted from statistics, or a row cannot be read.
pub(crate) fn gather_round(
    specs: &[ScorerSpec],
    data: &TrainingData,
    known: &ByLayer,
    rows: Option<usize>,
    observer: &mut dyn Observer,
) -> Result<(ByLayer, Vec<Field>)> {
    let (mut found, mut read) = (ByLayer::new(), Vec::new());
    for (layer, of_layer) in by_layer(specs)? {
        let here = of_layer[0].place.data(data)?;
        let known = known.get(&layer).unwrap_or(NOTHING);
        let rounds = Rounds { known, part: Some(Gathered::new()), rows };
        let mut context = FitContext::in_rounds(&here, rounds, observer);
        let (mut prepared, mut requests) = (Vec::new(), Vec::new());
        for one in &of_layer {
            let method = entry(&one.name)?.prepare(&one.settings)?;
            match method.requests(&mut context) {
                Ok(its) => requests.extend(its),
                Err(Error::AnotherRound { .. }) => {}
                Err(error) => return Err(asked_for(&one.name, error)),
            }
            prepared.push(method);
        }
        context.gather_possible(requests);
        for (one, method) in of_layer.iter().zip(prepared) {
            match method.fit_in(&mut context) {
                Ok(_) | Err(Error::AnotherRound { .. }) => {}
                Err(error) => return Err(asked_for(&one.name, error)),
            }
        }
        let (gathered, fields) = context.into_part();
        found.insert(layer, gathered);
        let part = of_layer[0].place.layer;
        read.extend(fields.into_iter().map(|field| part.map_or(field, |part| field.within(part))));
    }
    Ok((found, read))
}

static NOTHING: &Gathered = &Gathered::new();

/// Fit these scorers by the statistics of all rows; `data` has none itself.
///
/// # Errors
/// [`Error::AnotherRound`] if they are not enough; else as [`ScorerSpec::fit`].
pub(crate) fn fit_statistics(
    specs: &[ScorerSpec],
    data: &TrainingData,
    known: &ByLayer,
    observer: &mut dyn Observer,
) -> Result<Vec<Arc<dyn Scorer>>> {
    let one = |spec: &ScorerSpec| {
        let one = Placed::of(spec)?;
        let here = one.place.data(data)?;
        let layer = one.place.layer.map_or("", Part::name);
        let known = known.get(layer).unwrap_or(NOTHING);
        let rounds = Rounds { known, part: None, rows: None };
        let mut context = FitContext::in_rounds(&here, rounds, &mut *observer);
        let fitted = entry(&one.name)?.prepare(&one.settings)?.fit_in(&mut context);
        let fitted = fitted.map_err(|e| asked_for(&one.name, e))?;
        one.place.over_views(one.place.at_layer(fitted))
    };
    specs.iter().map(one).collect()
}

/// Scorers by the layer that they read.
fn by_layer(specs: &[ScorerSpec]) -> Result<BTreeMap<String, Vec<Placed>>> {
    let mut all: BTreeMap<String, Vec<Placed>> = BTreeMap::new();
    for spec in specs {
        let one = Placed::of(spec)?;
        let layer = one.place.layer.map_or("", Part::name).to_owned();
        all.entry(layer).or_default().push(one);
    }
    Ok(all)
}

fn entry(name: &str) -> Result<&'static Entry> {
    methods::find(name).ok_or_else(|| Error::unknown("scorer", name, NAMES))
}

/// A scorer with where it reads.
struct Placed {
    name: String,
    settings: Table,
    place: Place,
}

impl Placed {
    fn of(spec: &ScorerSpec) -> Result<Self> {
        let mut settings = spec.settings.clone();
        let place = Place::take(&mut settings)?;
        Ok(Placed { name: spec.name.clone(), settings, place })
    }
}

/// Fit scorers that all read one layer.
fn fit_there(
    all: &[Placed],
    data: &TrainingData,
    observer: &mut dyn Observer,
    take: &mut dyn FnMut(Result<Timed>) -> Result<()>,
) -> Result<()> {
    let here = match all.first().map(|one| one.place.data(data)) {
        None => return Ok(()),
        Some(Ok(here)) => here,
        Some(Err(_)) => {
            return all.iter().try_for_each(|one| match one.place.data(data) {
                Err(error) => take(Err(error)),
                Ok(_) => Ok(()),
            });
        }
    };
    let mut context = FitContext::new(&here, observer);
    let start = Instant::now();
    let (mut prepared, mut requests) = (Vec::new(), Vec::new());
    for one in all {
        let prepare = || -> Result<_> {
            let prepared = entry(&one.name)?.prepare(&one.settings)?;
            let its = prepared.requests(&mut context)?;
            let shares = !its.is_empty();
            requests.extend(its);
            Ok((prepared, shares))
        };
        prepared.push({ prepare }().map_err(|e| asked_for(&one.name, e)));
    }
    context.gather_possible(requests);
    let sharing = prepared.iter().flatten().filter(|(_, shares)| *shares).count().max(1);
    let share = start.elapsed().as_secs_f64() / sharing as f64;
    let mut recorder = Recorder::new(data);
    for (one, prepared) in all.iter().zip(prepared) {
        let start = Instant::now();
        let fitted = prepared.and_then(|(method, shares)| {
            let scorer = method.fit_in(&mut context).map_err(|e| asked_for(&one.name, e))?;
            let own = start.elapsed().as_secs_f64();
            let scorer = one.place.over_views(one.place.at_layer(scorer))?;
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
