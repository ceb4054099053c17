//! Texts as TOML.

use toml::{Table, Value};

/// A value as TOML, or a bare word as text.
pub(crate) fn parse_value(text: &str) -> Value {
    // Python's words, as the published command takes them.
    match text {
        "True" => return Value::Boolean(true),
        "False" => return Value::Boolean(false),
        _ => {}
    }
    let parsed = parse_table(&format!("x = {text}")).ok();
    parsed
        .and_then(|mut t| (t.len() == 1).then(|| t.remove("x")).flatten())
        .unwrap_or_else(|| bare_words(text))
}

/// `[svhn,lsun]` as a list of words, else the text. Long ones stay texts: each
/// word takes many times its length.
fn bare_words(text: &str) -> Value {
    const LONGEST: usize = 1 << 12;
    let plain = |c: char| c.is_alphanumeric() || "_-., ".contains(c);
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(inner) if inner.len() <= LONGEST && inner.chars().all(plain) => {
            let words = inner.split(',').map(str::trim).filter(|w| !w.is_empty());
            Value::Array(words.map(|w| Value::String(w.to_owned())).collect())
        }
        _ => Value::String(text.to_owned()),
    }
}

/// A TOML text as a table; long ones and deeply dotted keys are refused: each
/// dot nests a table in another, and tables are dropped by recursion.
pub(crate) fn parse_table(text: &str) -> std::result::Result<Table, String> {
    const LONGEST: usize = 1 << 18;
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} bytes"));
    }
    let mut runs = text.split(['=', '\n', ',', '[', ']', '{', '}']);
    let deep = |run: &str| run.matches('.').count() > DEEPEST && !run.trim_start().starts_with('#');
    if runs.any(deep) {
        return Err(format!("a key of more than {DEEPEST} dots"));
    }
    text.parse().map_err(|e: toml::de::Error| e.to_string())
}

/// Most dots of a key: those that mean something have four.
pub(crate) const DEEPEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_are_texts_and_lists_of_them_lists() {
        assert_eq!(parse_value("7"), Value::Integer(7));
        assert_eq!(parse_value("True"), Value::Boolean(true));
        assert_eq!(parse_value("std"), Value::String("std".into()));
        let words = ["svhn", "lsun"].map(|w| Value::String(w.into()));
        assert_eq!(parse_value("[svhn, lsun]"), Value::Array(words.to_vec()));
        // What would be more than one value is one text.
        assert_eq!(parse_value("1\ny = 2"), Value::String("1\ny = 2".into()));
    }

    #[test]
    fn deep_keys_are_refused_before_they_are_parsed() {
        let deep = |dots: usize| format!("{}x = 1", "a.".repeat(dots));
        assert!(parse_table(&deep(DEEPEST)).is_ok());
        assert!(parse_table(&deep(DEEPEST + 1)).is_err());
        assert!(parse_table(&format!("# {}", deep(DEEPEST + 1))).is_ok());
    }
}
