//! Scores of single rows: CSV, JSON lines, `.npy`.

use std::io::{BufWriter, Result, Write};
use std::path::Path;

use heat_ood::Prediction;
use heat_ood::calibrate::Verdict;
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

/// Write the score of each row, its verdict, and what the score is made of, under the names that
/// [`Scorer::components`](heat_ood::scorers::Scorer::components) gives.
///
/// # Errors
/// If `out` cannot be written to.
pub fn write(
    judged: &Prediction,
    components: &[&str],
    format: ScoreFormat,
    out: &mut dyn Write,
) -> Result<()> {
    let columns = Columns { judged, names: components };
    let mut out = BufWriter::new(out);
    match format {
        ScoreFormat::Csv => columns.csv(&mut out)?,
        ScoreFormat::Jsonl => columns.jsonl(&mut out)?,
        ScoreFormat::Npy => columns.npy(&mut out)?,
    }
    out.flush()
}

struct Columns<'a> {
    judged: &'a Prediction,
    names: &'a [&'a str],
}

fn word(verdict: &Verdict) -> &'static str {
    if verdict.ood { "ood" } else { "id" }
}

impl Columns<'_> {
    fn row(&self, i: usize) -> &[f32] {
        &self.judged.components[i * self.names.len()..][..self.names.len()]
    }

    fn verdict(&self, i: usize) -> Option<&Verdict> {
        self.judged.verdicts.as_ref().map(|v| &v[i])
    }

    /// A class by its name, where it has one.
    fn class(&self, class: u32) -> String {
        let name = self.judged.class_names.get(class as usize);
        name.cloned().unwrap_or_else(|| class.to_string())
    }

    fn csv(&self, out: &mut impl Write) -> Result<()> {
        write!(out, "row,score")?;
        if let Some(first) = self.verdict(0) {
            let class = if first.class.is_some() { ",class" } else { "" };
            write!(out, ",p_value,verdict{class}")?;
        }
        for name in self.names {
            write!(out, ",{name}")?;
        }
        writeln!(out)?;
        for (i, score) in self.judged.scores.iter().enumerate() {
            write!(out, "{i},{score}")?;
            if let Some(v) = self.verdict(i) {
                write!(out, ",{},{}", v.p_value, word(v))?;
                if let Some(class) = v.class {
                    let name = self.class(class);
                    match name.contains([',', '"', '\n', '\r']) {
                        true => write!(out, ",\"{}\"", name.replace('"', "\"\""))?,
                        false => write!(out, ",{name}")?,
                    }
                }
            }
            for value in self.row(i) {
                write!(out, ",{value}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn jsonl(&self, out: &mut impl Write) -> Result<()> {
        for (i, score) in self.judged.scores.iter().enumerate() {
            write!(out, "{{\"row\":{i},\"score\":{score}")?;
            if let Some(v) = self.verdict(i) {
                write!(out, ",\"p_value\":{},\"verdict\":\"{}\"", v.p_value, word(v))?;
                if let Some(class) = v.class {
                    match self.judged.class_names.is_empty() {
                        true => write!(out, ",\"class\":{class}")?,
                        false => write!(out, ",\"class\":{}", Value::from(self.class(class)))?,
                    }
                }
            }
            for (name, value) in self.names.iter().zip(self.row(i)) {
                write!(out, ",\"{name}\":{value}")?;
            }
            writeln!(out, "}}")?;
        }
        Ok(())
    }

    /// Version 1 of the format: values at a multiple of 64, after blanks.
    fn npy(&self, out: &mut impl Write) -> Result<()> {
        let scores = &self.judged.scores;
        let shape = scores.len();
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape},), }}");
        let size = (10 + header.len() + 1).next_multiple_of(64) - 10;
        out.write_all(b"\x93NUMPY\x01\0")?;
        out.write_all(&(size as u16).to_le_bytes())?;
        writeln!(out, "{header:<width$}", width = size - 1)?;
        scores.iter().try_for_each(|score| out.write_all(&score.to_le_bytes()))
    }
}
