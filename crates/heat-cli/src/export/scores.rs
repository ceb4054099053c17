//! Scores of single rows: CSV, JSON lines, `.npy`.

use std::borrow::Cow;
use std::io::{BufWriter, Result, Write};
use std::path::Path;

use heat_ood::calibrate::Verdict;
use heat_ood::{Prediction, printable};
use serde_json::Value;

/// File formats of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreFormat {
    /// A header, then a line per row.
    Csv,
    /// A JSON object per row.
    Jsonl,
    /// The scores alone, as a numpy array.
    Npy,
}

impl ScoreFormat {
    /// By a file's ending: `.csv`, `.jsonl` or `.npy`.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "csv" => Some(ScoreFormat::Csv),
            "jsonl" => Some(ScoreFormat::Jsonl),
            "npy" => Some(ScoreFormat::Npy),
            _ => None,
        }
    }
}

/// Writes rows with their scores: the names of the rows, their verdicts, the classes predicted, and
/// what scores are made of, where there are any. What columns there are is decided by the first
/// row that has a score.
pub struct ScoreWriter<'a, W: Write> {
    out: BufWriter<W>,
    format: ScoreFormat,
    /// Names of what scores are made of.
    components: &'a [Cow<'static, str>],
    /// What rows have, once one was written.
    form: Option<Columns>,
    /// Rows without a score that came before.
    early: Vec<(String, String)>,
    /// Number of the next row.
    row: usize,
    /// Of `.npy`, whose header says how many there are.
    scores: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Columns {
    names: bool,
    verdicts: bool,
    classes: bool,
}

impl<'a, W: Write> ScoreWriter<'a, W> {
    /// Write to `out`; `components` are the names that
    /// [`Scorer::components`](heat_ood::scorers::Scorer::components) gives.
    pub fn new(out: W, format: ScoreFormat, components: &'a [Cow<'static, str>]) -> Self {
        let (out, early, scores) = (BufWriter::new(out), Vec::new(), Vec::new());
        ScoreWriter { out, format, components, form: None, early, row: 0, scores }
    }

    /// Write some rows; `name` gives the name of each, if they have one.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn rows(
        &mut self,
        judged: &Prediction,
        name: Option<&dyn Fn(usize) -> String>,
    ) -> Result<()> {
        for i in 0..judged.scores.len() {
            self.row(judged, i, name.map(|name| name(i)))?;
        }
        Ok(())
    }

    /// Write row `i` of these.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn row(&mut self, judged: &Prediction, i: usize, name: Option<String>) -> Result<()> {
        let form = match self.form {
            Some(form) => form,
            None => self.begin(judged, name.is_some())?,
        };
        let (row, score) = (self.row, judged.scores[i]);
        self.row += 1;
        let name = form.names.then(|| printable(&name.unwrap_or_default()));
        let verdict = judged.verdicts.as_ref().map(|v| &v[i]);
        let class = judged.classes.as_ref().map(|c| c[i]).filter(|_| form.classes);
        let width = self.components.len();
        let values = &judged.components[i * width..][..width];
        let out = &mut self.out;
        match self.format {
            ScoreFormat::Npy => self.scores.push(score),
            ScoreFormat::Csv => {
                write!(out, "{row}")?;
                if let Some(name) = name {
                    write!(out, ",{}", quoted(&name))?;
                }
                write!(out, ",{score}")?;
                if let Some(v) = verdict {
                    write!(out, ",{},{}", v.p_value, word(v))?;
                }
                if let Some(class) = class {
                    let class = class_name(judged, class).map_or(class.to_string(), printable);
                    write!(out, ",{}", quoted(&class))?;
                }
                for value in values {
                    write!(out, ",{value}")?;
                }
                writeln!(out)?;
            }
            ScoreFormat::Jsonl => {
                write!(out, "{{\"row\":{row}")?;
                if let Some(name) = name {
                    write!(out, ",\"file\":{}", Value::from(name))?;
                }
                write!(out, ",\"score\":{score}")?;
                if let Some(v) = verdict {
                    write!(out, ",\"p_value\":{},\"verdict\":\"{}\"", v.p_value, word(v))?;
                }
                if let Some(class) = class {
                    let name = class_name(judged, class).map(|name| Value::from(printable(name)));
                    write!(out, ",\"class\":{}", name.unwrap_or(class.into()))?;
                }
                for (name, value) in self.components.iter().zip(values) {
                    write!(out, ",{}:{value}", Value::from(printable(name)))?;
                }
                writeln!(out, "}}")?;
            }
        }
        Ok(())
    }

    /// Write a row without a score: an empty field, `null`, or NaN.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn missing(&mut self, name: &str, reason: &str) -> Result<()> {
        let Some(form) = self.form else {
            self.early.push((name.to_owned(), reason.to_owned()));
            return Ok(());
        };
        let row = self.row;
        self.row += 1;
        let (name, reason) = (printable(name), printable(reason));
        match self.format {
            ScoreFormat::Npy => self.scores.push(f32::NAN),
            ScoreFormat::Csv => {
                write!(self.out, "{row}")?;
                if form.names {
                    write!(self.out, ",{}", quoted(&name))?;
                }
                let empty = 1 + self.components.len();
                let empty = empty + 2 * usize::from(form.verdicts) + usize::from(form.classes);
                writeln!(self.out, "{}", ",".repeat(empty))?;
            }
            ScoreFormat::Jsonl => {
                let (name, reason) = (Value::from(name), Value::from(reason));
                let out = &mut self.out;
                writeln!(
                    out,
                    "{{\"row\":{row},\"file\":{name},\"score\":null,\"error\":{reason}}}"
                )?;
            }
        }
        Ok(())
    }

    /// The header, and what came before it was known.
    fn begin(&mut self, judged: &Prediction, names: bool) -> Result<Columns> {
        let verdicts = judged.verdicts.is_some();
        let form = Columns { names, verdicts, classes: judged.classes.is_some() };
        self.form = Some(form);
        if self.format == ScoreFormat::Csv {
            let columns = [
                ("row", true),
                ("file", form.names),
                ("score", true),
                ("p_value", form.verdicts),
                ("verdict", form.verdicts),
                ("class", form.classes),
            ];
            let columns = columns.iter().filter(|(_, there)| *there);
            let columns = columns.map(|(name, _)| (*name).to_owned());
            let components =
                self.components.iter().map(|name| quoted(&printable(name)).into_owned());
            let columns: Vec<String> = columns.chain(components).collect();
            writeln!(self.out, "{}", columns.join(","))?;
        }
        for (name, reason) in std::mem::take(&mut self.early) {
            self.missing(&name, &reason)?;
        }
        Ok(form)
    }

    /// Hand over what was written so far.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush()
    }

    /// After the last row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<()> {
        if self.format == ScoreFormat::Npy {
            self.npy()?;
        }
        self.out.flush()
    }

    /// Version 1 of the format: values at a multiple of 64, after blanks.
    fn npy(&mut self) -> Result<()> {
        let (out, scores) = (&mut self.out, &self.scores);
        let shape = scores.len();
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape},), }}");
        let size = (10 + header.len() + 1).next_multiple_of(64) - 10;
        out.write_all(b"\x93NUMPY\x01\0")?;
        out.write_all(&(size as u16).to_le_bytes())?;
        writeln!(out, "{header:<width$}", width = size - 1)?;
        scores.iter().try_for_each(|score| out.write_all(&score.to_le_bytes()))
    }
}

pub(crate) fn word(verdict: &Verdict) -> &'static str {
    if verdict.ood { "ood" } else { "id" }
}

/// A class by its name, where it has one.
pub(crate) fn class_name(judged: &Prediction, class: u32) -> Option<&str> {
    judged.class_names.get(class as usize).map(String::as_str)
}

/// A field of a table.
fn quoted(text: &str) -> Cow<'_, str> {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")).into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged() -> Prediction {
        let verdict = |score, p_value, ood| Verdict { score, p_value, class: None, ood };
        Prediction {
            scores: vec![0.5, 2.0],
            components: vec![1.0, 3.0],
            verdicts: Some(vec![verdict(0.5, 0.5, false), verdict(2.0, 0.01, true)]),
            classes: Some(vec![1, 0]),
            class_names: vec!["cat".into(), "a, \"b\"".into()],
        }
    }

    fn written(format: ScoreFormat, names: bool) -> Vec<u8> {
        let components = [Cow::Borrowed("score.gmm(pooling=std,shrinkage=1)")];
        let mut out = Vec::new();
        let mut writer = ScoreWriter::new(&mut out, format, &components);
        if names {
            writer.missing("bad.png", "no image").unwrap();
        }
        let name = |i: usize| ["a.png", "b\x1b[2J,c.png"][i].to_owned();
        writer.rows(&judged(), names.then_some(&name)).unwrap();
        writer.finish().unwrap();
        out
    }

    #[test]
    fn columns_are_those_that_rows_have() {
        let text = |format, names| String::from_utf8(written(format, names)).unwrap();
        assert_eq!(
            text(ScoreFormat::Csv, true),
            "row,file,score,p_value,verdict,class,\"score.gmm(pooling=std,shrinkage=1)\"\n0,bad.png,,,,,\n\
             1,a.png,0.5,0.5,id,\"a, \"\"b\"\"\",1\n2,\"b\\u{1b}[2J,c.png\",2,0.01,ood,cat,3\n"
        );
        assert!(text(ScoreFormat::Csv, false).starts_with(
            "row,score,p_value,verdict,class,\"score.gmm(pooling=std,shrinkage=1)\"\n0,0.5"
        ));
        let lines = text(ScoreFormat::Jsonl, true);
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((&lines[0]["score"], &lines[0]["error"]), (&Value::Null, &"no image".into()));
        assert_eq!(lines[2]["file"], "b\\u{1b}[2J,c.png");
        assert_eq!(
            (&lines[1]["class"], lines[2]["score.gmm(pooling=std,shrinkage=1)"].as_f64()),
            (&"a, \"b\"".into(), Some(3.0))
        );
        let npy = written(ScoreFormat::Npy, true);
        assert!(npy.len().is_multiple_of(4) && npy.ends_with(&2f32.to_le_bytes()));
        assert!(npy[npy.len() - 12..].starts_with(&f32::NAN.to_le_bytes()));
    }
}
