//! JSON lines: a row as an array, several as arrays in one, or an object of fields.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Piece;
use crate::error::{Error, Result};
use crate::features::Field;
use crate::features::names::wrong;
use crate::io::{Array, Dtype, Joined};

/// Keys that the name of a row goes by.
const NAMES: [&str; 4] = ["name", "file", "filename", "path"];

/// Lines that are read one after the other.
pub(super) struct JsonLines<'r> {
    path: PathBuf,
    reader: BufReader<Box<dyn Read + 'r>>,
    line: u64,
    text: Vec<u8>,
    /// Of every row: the fields with their columns, and whether it has a name.
    form: Option<(Vec<(Field, usize)>, bool)>,
}

/// What is read of some rows.
#[derive(Default)]
struct Gathered {
    values: Vec<Vec<f32>>,
    names: Joined,
    rows: usize,
}

impl<'r> JsonLines<'r> {
    pub fn new(path: &Path, reader: Box<dyn Read + 'r>) -> Self {
        let (path, reader) = (path.to_owned(), BufReader::with_capacity(1 << 16, reader));
        JsonLines { path, reader, line: 0, text: Vec::new(), form: None }
    }

    /// The next rows: of at most so many lines, and until their values have so many bytes.
    pub fn read(&mut self, most: usize, bytes: usize, more: &dyn Fn() -> bool) -> Result<Piece> {
        let mut all = Gathered::default();
        let mut held = 0;
        while all.rows < most && held < bytes {
            // Lines that were read already need not be waited for.
            let there = self.reader.buffer().contains(&b'\n');
            if all.rows > 0 && !there && !more() {
                break;
            }
            self.text.clear();
            let read = self.reader.read_until(b'\n', &mut self.text);
            if read.map_err(Error::io("read", &self.path))? == 0 {
                break;
            }
            self.line += 1;
            let text = self.text.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let value = serde_json::from_slice(text).map_err(|e| {
                let what = "expected a JSON value a line: an array of numbers, or an object";
                self.wrong(&format!("{what} ({e})"))
            })?;
            self.take(value, &mut all)?;
            held = all.values.iter().map(|values| 4 * values.len()).sum();
        }
        let Some((fields, named)) = self.form.as_ref().filter(|_| all.rows > 0) else {
            return Ok(Piece::default());
        };
        let arrays = fields.iter().zip(all.values).map(|((field, width), values)| {
            let bytes = bytemuck::cast_slice(&values).to_vec();
            (field.name().to_owned(), Array::owned(bytes, Dtype::F32, &[all.rows, *width]))
        });
        let arrays = arrays.collect();
        let names = named.then(|| all.names.finish()).transpose();
        Ok(Piece { arrays, names: names.map_err(|problem| wrong(&self.path, &problem))? })
    }

    /// Add a line's rows.
    fn take(&mut self, value: Value, all: &mut Gathered) -> Result<()> {
        match value {
            Value::Array(rows) if rows.iter().any(Value::is_array) => {
                rows.into_iter().try_for_each(|row| match row {
                    Value::Array(_) => self.take(row, all),
                    _ => Err(self.wrong("an array of rows holds something else")),
                })
            }
            Value::Array(row) => self.row(vec![(Field::ALL[0], row)], None, all),
            Value::Object(object) => {
                let (fields, name) = self.parts(object)?;
                self.row(fields, name, all)
            }
            _ => Err(self.wrong("is neither an array of numbers nor an object")),
        }
    }

    /// The fields and the name in an object.
    #[allow(clippy::type_complexity)]
    fn parts(
        &self,
        mut object: Map<String, Value>,
    ) -> Result<(Vec<(Field, Vec<Value>)>, Option<String>)> {
        let mut fields = Vec::new();
        for field in Field::ALL {
            match object.remove(field.name()) {
                None => {}
                Some(Value::Array(row)) => fields.push((field, row)),
                Some(_) => return Err(self.wrong(&format!("`{}` is no array", field.name()))),
            }
        }
        if fields.is_empty() {
            let keys: Vec<&str> = object.keys().take(5).map(String::as_str).collect();
            let problem = format!(
                "has no `avg`, `std`, `max`, `logits` or `probs`; its keys are: {}",
                keys.join(", ")
            );
            return Err(self.wrong(&problem));
        }
        let name = NAMES.iter().find_map(|key| Some(object.get(*key)?.as_str()?.to_owned()));
        Ok((fields, name))
    }

    fn row(
        &mut self,
        fields: Vec<(Field, Vec<Value>)>,
        name: Option<String>,
        all: &mut Gathered,
    ) -> Result<()> {
        let form: Vec<(Field, usize)> = fields.iter().map(|(f, row)| (*f, row.len())).collect();
        let (expected, named) = self.form.get_or_insert_with(|| (form.clone(), name.is_some()));
        let named = *named;
        if *expected != form || named != name.is_some() {
            let text = |form: &[(Field, usize)], named: bool| {
                let fields = form.iter().map(|(f, n)| format!("{} of {n} numbers", f.name()));
                let parts = fields.chain(named.then(|| "a name".to_owned()));
                parts.collect::<Vec<_>>().join(", ")
            };
            let problem = format!(
                "has {}, and the first row {}",
                text(&form, name.is_some()),
                text(expected, named)
            );
            return Err(self.wrong(&problem));
        }
        all.values.resize(form.len(), Vec::new());
        for ((field, row), values) in fields.into_iter().zip(&mut all.values) {
            for (i, value) in row.iter().enumerate() {
                let number = value.as_f64().map(|v| v as f32).filter(|v| v.is_finite());
                let number = number.ok_or_else(|| {
                    self.wrong(&format!(
                        "`{}`, column {i} is {value}, and every value must be a finite number of \
                         single precision",
                        field.name()
                    ))
                })?;
                values.push(number);
            }
        }
        name.iter().for_each(|name| all.names.push(name.as_bytes()));
        all.rows += 1;
        Ok(())
    }

    fn wrong(&self, problem: &str) -> Error {
        Error::format(&self.path, format!("line {}: {problem}", self.line))
    }
}
