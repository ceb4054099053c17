//! Scores of single rows: CSV, JSON lines, `.npy`.

use std::io::{Result, Write};
use std::path::Path;

use npyz::WriterBuilder;

/// The score of each row and what it is made of.
pub struct Columns {
    pub scores: Vec<f32>,
    pub names: &'static [&'static str],
    /// `[rows, names]`.
    pub components: Vec<f32>,
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
        &self.components[i * self.names.len()..][..self.names.len()]
    }

    fn csv(&self, out: &mut impl Write) -> Result<()> {
        write!(out, "row,score")?;
        for name in self.names {
            write!(out, ",{name}")?;
        }
        writeln!(out)?;
        for (i, score) in self.scores.iter().enumerate() {
            write!(out, "{i},{score}")?;
            for value in self.row(i) {
                write!(out, ",{value}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn jsonl(&self, out: &mut impl Write) -> Result<()> {
        for (i, score) in self.scores.iter().enumerate() {
            write!(out, "{{\"row\":{i},\"score\":{score}")?;
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
            .shape(&[self.scores.len() as u64])
            .writer(out)
            .begin_nd()?;
        writer.extend(&self.scores)?;
        writer.finish()
    }
}
