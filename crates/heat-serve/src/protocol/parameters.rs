//! Parameters of requests, tensors and outputs, of either protocol.

use std::fmt;

use serde_json::Number;

use crate::refusal::{Refusal, Result};

/// Longest value that is looked at, in bytes.
pub const LONGEST_SETTING: usize = 64;

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(Number),
    /// A short text.
    Text(String),
    /// Something else, or too long to be any of these.
    Other,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Flag(value) => value.fmt(f),
            Setting::Number(value) => value.fmt(f),
            Setting::Text(text) => write!(f, "{text:?}"),
            Setting::Other => f.write_str("no such value"),
        }
    }
}

impl Setting {
    /// A whole number that is not negative.
    pub fn whole(&self) -> Option<u64> {
        match self {
            Setting::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Setting::Number(number) => number.as_f64(),
            _ => None,
        }
    }
}

const SHARED_MEMORY: &str = "shared_memory";

/// The parameters that mean something here.
const KNOWN: [&str; 9] = [
    "alpha",
    "timeout",
    "binary_data",
    "binary_data_output",
    "binary_data_size",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "classification",
];

/// Those parameters of an object that mean something here.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Given(Vec<(&'static str, Setting)>);

/// What a request says besides its tensors.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Parameters {
    /// The rate that verdicts are decided at.
    pub alpha: Option<f64>,
    /// How long the answer may take, in microseconds.
    pub timeout: Option<u64>,
    /// Whether outputs are bytes, where they do not say so themselves.
    pub binary: bool,
}

fn unsupported(what: &str) -> Refusal {
    Refusal::invalid(format!("`{what}` is not supported"))
}

impl Given {
    /// A key that means something here.
    pub fn known(key: &str) -> Option<&'static str> {
        if key.starts_with(SHARED_MEMORY) {
            return Some(SHARED_MEMORY);
        }
        KNOWN.into_iter().find(|known| *known == key)
    }

    /// Set a key, which may be set once.
    ///
    /// # Errors
    /// If it is set.
    pub fn set(&mut self, key: &'static str, value: Setting) -> std::result::Result<(), String> {
        // A region of shared memory has several.
        if key != SHARED_MEMORY && self.get(key).is_some() {
            return Err(format!("the parameter `{key}` is given twice"));
        }
        self.0.push((key, value));
        Ok(())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// Refuse what asks for something that is not done here.
    ///
    /// # Errors
    /// If it does.
    pub fn refuse_unsupported(&self) -> Result<()> {
        if self.get(SHARED_MEMORY).is_some() {
            return Err(unsupported("shared memory"));
        }
        for (key, value) in &self.0 {
            // 0, "" and false say that there is no sequence, as some clients send.
            let none = match value {
                Setting::Number(number) => number.as_u64() == Some(0),
                Setting::Text(text) => text.is_empty(),
                Setting::Flag(set) => !set,
                Setting::Other => false,
            };
            if *key == "classification" || (key.starts_with("sequence_") && !none) {
                return Err(unsupported(key));
            }
        }
        Ok(())
    }

    /// Yes or no.
    ///
    /// # Errors
    /// If it is neither.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Setting::Flag(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong(key, other, "a boolean")),
        }
    }
}

fn wrong(key: &str, value: &Setting, expected: &str) -> Refusal {
    Refusal::invalid(format!("the parameter `{key}` is {value}, expected {expected}"))
}

/// What a request says besides its tensors.
///
/// # Errors
/// If a value is none, or asks for what is not supported.
pub fn parameters(given: &Given) -> Result<Parameters> {
    given.refuse_unsupported()?;
    let alpha = given.get("alpha").map(|value| {
        let alpha = value.number().filter(|alpha| *alpha > 0.0 && *alpha < 1.0);
        alpha.ok_or_else(|| wrong("alpha", value, "a number between 0 and 1"))
    });
    let timeout = given.get("timeout").map(|value| {
        let timeout = value.whole().filter(|timeout| *timeout > 0);
        timeout.ok_or_else(|| wrong("timeout", value, "a whole number of microseconds above 0"))
    });
    Ok(Parameters {
        alpha: alpha.transpose()?,
        timeout: timeout.transpose()?,
        binary: given.flag("binary_data_output")?.unwrap_or(false),
    })
}
