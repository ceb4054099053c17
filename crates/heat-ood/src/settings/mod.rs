//! Settings as people write them: texts into values, tables into types.

mod reader;
mod text;
mod typed;

pub(crate) use text::{DEEPEST, parse_table, parse_value};
pub(crate) use typed::{keys_of, typed};
