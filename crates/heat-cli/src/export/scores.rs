//! Scores of single rows: CSV, JSON lines, `.npy`.

use std::io::{BufWriter, Result, Write};
use std::path::Path;

use heat_ood::Prediction;
use heat_ood::calibrate::Verdict;
use npyz::WriterBuilder;

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
                    write!(out, ",{class}")?;
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
                    write!(out, ",\"class\":{class}")?;
                }
            }
            for (name, value) in self.names.iter().zip(self.row(i)) {
                write!(out, ",\"{name}\":{value}")?;
            }
            writeln!(out, "}}")?;
        }
        Ok(())
    }

    fn npy(&self, out: &mut impl Write) -> Result<()> {
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[self.judged.scores.len() as u64])
            .writer(out)
            .begin_nd()?;
        writer.extend(&self.judged.scores)?;
        writer.finish()
    }
}
