//! Tables as typed settings, with errors that name the key.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use toml::{Table, Value};

use super::fields::fields_at;
use crate::error::{Error, Result};

/// A table as a `T`; `place` stands before the keys in messages.
///
/// # Errors
/// If a key is unknown, at any depth, or a value has a wrong type.
pub(crate) fn typed<T: DeserializeOwned>(table: &Table, place: &str) -> Result<T> {
    check_keys::<T>(table, place, &mut Vec::new())?;
    let value = Value::Table(table.clone());
    serde_path_to_error::deserialize(value).map_err(|e| {
        let value = at(table, e.path()).map_or(String::new(), Value::to_string);
        let inside = e.path().to_string();
        let key =
            if e.path().iter().len() == 0 { place.to_owned() } else { dotted(place, &inside) };
        Error::config(key, value, e.inner().message())
    })
}

/// The keys that a `T` accepts, with those of the groups within it.
pub(crate) fn keys_of<T: DeserializeOwned>() -> Vec<String> {
    let mut keys = Vec::new();
    collect::<T>(&mut Vec::new(), &mut keys);
    keys
}

fn collect<T: DeserializeOwned>(path: &mut Vec<&str>, keys: &mut Vec<String>) {
    for field in fields_at::<T>(path).into_iter().flatten() {
        path.push(field);
        keys.push(path.join("."));
        collect::<T>(path, keys);
        path.pop();
    }
}

/// Refuse keys that the struct at `path` within a `T` does not have.
fn check_keys<'t, T: DeserializeOwned>(
    table: &'t Table,
    place: &str,
    path: &mut Vec<&'t str>,
) -> Result<()> {
    let fields = fields_at::<T>(path).unwrap_or_default();
    for (key, value) in table {
        path.push(key);
        let name = || dotted(place, &path.join("."));
        if !fields.contains(&key.as_str()) {
            let known: Vec<String> = keys_of::<T>().iter().map(|k| dotted(place, k)).collect();
            return Err(Error::unknown("key", &name(), known.iter().map(String::as_str)));
        }
        if fields_at::<T>(path).is_some() {
            let Value::Table(group) = value else {
                return Err(Error::config(name(), value, "expected a group of keys"));
            };
            check_keys::<T>(group, place, path)?;
        }
        path.pop();
    }
    Ok(())
}

/// `place.key`, or the key alone at the top.
fn dotted(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

/// The value at a path, if it leads anywhere.
fn at<'t>(table: &'t Table, path: &Path) -> Option<&'t Value> {
    let mut segments = path.iter();
    let Segment::Map { key } = segments.next()? else {
        return None;
    };
    segments.try_fold(table.get(key)?, |value, segment| match segment {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(*index),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Outer {
        name: String,
        inner: Option<Inner>,
        sizes: Vec<usize>,
    }

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        rate: f64,
    }

    fn read(text: &str) -> Result<Outer> {
        typed(&text.parse().unwrap(), "top")
    }

    #[test]
    fn keys_are_those_of_all_groups() {
        assert_eq!(keys_of::<Outer>(), ["name", "inner", "inner.rate", "sizes"]);
    }

    #[test]
    fn values_are_read_at_every_depth() {
        let outer = read("name = 'x'\ninner.rate = 0.5\nsizes = [1, 2]").unwrap();
        let want = Outer { name: "x".into(), inner: Some(Inner { rate: 0.5 }), sizes: vec![1, 2] };
        assert_eq!(outer, want);
    }

    #[test]
    fn errors_name_the_place() {
        let error = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(
            error("inner.rat = 1.0"),
            "unknown key `top.inner.rat`; did you mean `top.inner.rate`?"
        );
        assert_eq!(error("inner = 3"), "`top.inner` = 3: expected a group of keys");
        let wrong = error("inner.rate = 'fast'");
        assert!(wrong.starts_with("`top.inner.rate` = \"fast\": invalid type: string"), "{wrong}");
        let wrong = error("sizes = [1, -1]");
        assert!(wrong.starts_with("`top.sizes[1]` = -1: "), "{wrong}");
    }
}
