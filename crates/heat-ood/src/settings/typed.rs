//! Tables as typed settings, with errors that name the key.

use std::cell::Cell;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::reader::{Fields, Reader, Wrong};
use crate::error::{Error, Result};

/// A table as a `T`; `place` stands before the keys in messages.
///
/// # Errors
/// If a key is unknown, at any depth, or a value has a wrong type.
pub(crate) fn typed<T: DeserializeOwned>(table: &Table, place: &str) -> Result<T> {
    check_keys(table, place, read::<T>, &mut Vec::new())?;
    let value = Value::Table(table.clone());
    T::deserialize(Reader::Value(&value)).map_err(|wrong| refused(&wrong, &value, place))
}

/// The keys that a `T` accepts, with those of the groups within it.
pub(crate) fn keys_of<T: DeserializeOwned>() -> Vec<String> {
    let mut keys = Vec::new();
    collect(read::<T>, &mut Vec::new(), &mut keys);
    keys
}

/// Reads a type, only to be asked for its fields.
type Read = fn(Reader<'_>);

fn read<T: DeserializeOwned>(reader: Reader<'_>) {
    let _ = T::deserialize(reader);
}

/// The fields of the struct at `path` within what `read` reads; `None` where
/// there is something else, such as a number or a list.
fn fields_at(read: Read, path: &[&str]) -> Option<Fields> {
    let found = Cell::new(None);
    read(Reader::Fields(path, &found));
    found.get()
}

fn collect(read: Read, path: &mut Vec<&str>, keys: &mut Vec<String>) {
    for field in fields_at(read, path).into_iter().flatten() {
        path.push(field);
        keys.push(path.join("."));
        collect(read, path, keys);
        path.pop();
    }
}

/// Refuse keys that the struct at `path` does not have.
fn check_keys<'t>(
    table: &'t Table,
    place: &str,
    read: Read,
    path: &mut Vec<&'t str>,
) -> Result<()> {
    let fields = fields_at(read, path).unwrap_or_default();
    for (key, value) in table {
        path.push(key);
        let name = dotted(place, &path.join("."));
        if !fields.contains(&key.as_str()) {
            let mut known = Vec::new();
            collect(read, &mut Vec::new(), &mut known);
            let known: Vec<String> = known.iter().map(|k| dotted(place, k)).collect();
            return Err(Error::unknown("key", &name, known.iter().map(String::as_str)));
        }
        if fields_at(read, path).is_some() {
            let Value::Table(group) = value else {
                return Err(Error::config(name, value, "expected a group of keys"));
            };
            check_keys(group, place, read, path)?;
        }
        path.pop();
    }
    Ok(())
}

fn refused(wrong: &Wrong, table: &Value, place: &str) -> Error {
    let path = wrong.path();
    let value = match path.is_empty() {
        true => String::new(),
        false => wrong.value(table).map_or(String::new(), Value::to_string),
    };
    let key = if path.is_empty() { place.to_owned() } else { dotted(place, &path) };
    Error::config(key, value, plain(&wrong.message))
}

/// What was expected, in words of people who do not write Rust; serde's own words where
/// these say more.
fn plain(message: &str) -> String {
    let expected = message.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
    let words = match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "expected a whole number, 0 or more",
        "isize" | "i64" | "i32" | "i16" | "i8" => "expected a whole number",
        "f64" | "f32" => "expected a number",
        "a string" | "path string" => "expected a word or text",
        "a boolean" => "expected `true` or `false`",
        "a sequence" => "expected a list, such as `[1, 2]`",
        _ => message,
    };
    words.to_owned()
}

/// `place.key`, or the key alone at the top.
fn dotted(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
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
        sides: [usize; 2],
        on: bool,
        colour: Option<Colour>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        Green,
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
        assert_eq!(
            keys_of::<Outer>(),
            ["name", "inner", "inner.rate", "sizes", "sides", "on", "colour"]
        );
    }

    #[test]
    fn values_are_read_at_every_depth() {
        let text = "name = 'x'\ninner.rate = 1\nsizes = [1, 2]\nsides = [3, 4]\non = true\ncolour = 'green'";
        let outer = read(text).unwrap();
        let want = Outer {
            name: "x".into(),
            inner: Some(Inner { rate: 1.0 }),
            sizes: vec![1, 2],
            sides: [3, 4],
            on: true,
            colour: Some(Colour::Green),
        };
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
        assert_eq!(wrong, "`top.inner.rate` = \"fast\": expected a number");
        assert_eq!(read("sizes = [1e3, 2.0]").unwrap(), read("sizes = [1000, 2]").unwrap());
        assert!(error("sizes = [1e30]").starts_with("`top.sizes[0]` = 1"));
        let wrong = error("sizes = [1, -1]");
        assert!(wrong.starts_with("`top.sizes[1]` = -1: "), "{wrong}");
        // For every kind of value; serde's own words where they say more.
        for (text, want) in [
            ("name = 3", "`top.name` = 3: expected a word or text"),
            ("name = [3]", "`top.name` = [3]: expected a word or text"),
            ("sizes = 0.5", "`top.sizes` = 0.5: expected a list, such as `[1, 2]`"),
            ("sizes = [0.5]", "`top.sizes[0]` = 0.5: expected a whole number, 0 or more"),
            ("sides = [1]", "`top.sides` = [1]: invalid length 1, expected an array of length 2"),
            (
                "sides = [1, 2, 3]",
                "`top.sides` = [1, 2, 3]: invalid length 3, expected an array of length 2",
            ),
            ("on = 'yes'", "`top.on` = \"yes\": expected `true` or `false`"),
            ("on = 2026-01-01", "`top.on` = 2026-01-01: expected `true` or `false`"),
            (
                "colour = 'blue'",
                "`top.colour` = \"blue\": unknown variant `blue`, expected `red` or `green`",
            ),
            (
                "colour.red = 1",
                "`top.colour` = { red = 1 }: invalid type: map, expected enum Colour",
            ),
        ] {
            assert_eq!(error(text), want);
        }
    }
}
