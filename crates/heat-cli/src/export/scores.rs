//! Scores of single rows: CSV, JSON lines, `.npy`.

use std::io::{Result, Write};
use std::path::Path;

use heat_ood::Judged;
use heat_ood::calibrate::Verdict;
use npyz::WriterBuilder;

/// The score of each row, what is thought of it, and what it is made of.
pub struct Columns {
    pub judged: Judged,
    pub names: &'static [&'static str],
}

/// File formats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    Csv,
    Jsonl,
    Npy,
}

impl Ending {
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "csv" => Some(Ending::Csv),
            "jsonl" => Some(Ending::Jsonl),
            "npy" => Some(Ending::Npy),
            _ => None,
        }
    }
}

fn word(verdict: &Verdict) -> &'static str {
    if verdict.ood { "ood" } else { "id" }
}

impl Columns {
    pub fn write(&self, ending: Ending, out: &mut dyn Write) -> Result<()> {
        let mut out = std::io::BufWriter::new(out);
        match ending {
            Ending::Csv => self.csv(&mut out)?,
            Ending::Jsonl => self.jsonl(&mut out)?,
            Ending::Npy => self.npy(&mut out)?,
        }
        out.flush()
    }

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
