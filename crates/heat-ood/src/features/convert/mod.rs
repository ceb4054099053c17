//! Feature sets from any form into any other, by block: memory does not grow
//! with N.
//!
//! Labels are written as they are stored, and with them what they stand for: as
//! `classes` in the metadata of safetensors (a JSON list) and beside the arrays of
//! numpy's formats, as texts in tables. So are the names of the rows.
//!
//! Nothing half-written is ever taken for whole. A file is written beside its
//! place, flushed and renamed; a directory is filled under a temporary name,
//! which [`FeatureSet::open`] refuses, and renamed when it is complete. Equal
//! arguments give equal bytes.

mod directory;
mod encode;
mod files;
mod names;
mod numpy;
mod rows;
mod underflow;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use encode::{Column, Source, Writer};
use names::NameRows;
pub use rows::{RowsFile, encode_rows, write_rows};

use super::names::NAME;
use super::shard::CLASS_NAMES;
use super::{FeatureSet, Field, FileFormat, Head, Pooling, memmap};
use crate::error::{Error, Result};
use crate::io::Dtype;
use crate::math::blocks;
use crate::observe::{Event, Observer};

/// Bytes of a shard, unless its rows are given.
const SHARD_BYTES: usize = 1 << 30;

/// Forms of a feature set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A directory of `shard-00000.safetensors`, ….
    Shards,
    /// One `.safetensors` file.
    Safetensors,
    /// One `.npy` matrix.
    Npy,
    /// A directory of `avg.npy`, `std.npy`, `label.npy`, ….
    NpyDirectory,
    /// One `.npz` file.
    Npz,
    /// A directory of the published code's `feat.mmap`, `std.mmap`, `label.mmap`.
    Memmap,
    /// One table of text: `.csv`, or `.tsv` with tabs.
    Csv,
}

/// Types of the written features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// Half precision, up to 65504.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

impl From<FloatType> for Dtype {
    fn from(dtype: FloatType) -> Dtype {
        match dtype {
            FloatType::F16 => Dtype::F16,
            FloatType::Bf16 => Dtype::Bf16,
            FloatType::F32 => Dtype::F32,
            FloatType::F64 => Dtype::F64,
        }
    }
}

impl std::str::FromStr for FloatType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f16" => Ok(FloatType::F16),
            "bf16" => Ok(FloatType::Bf16),
            "f32" => Ok(FloatType::F32),
            "f64" => Ok(FloatType::F64),
            _ => Err(Error::unknown("dtype", text, ["f16", "bf16", "f32", "f64"])),
        }
    }
}

/// What to write, and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConvertConfig {
    /// Form of the output; by default as its name says: `.safetensors`,
    /// `.npy`, `.npz`, else a directory of shards.
    pub form: Option<Form>,
    /// Type of the features; by default f16 in safetensors, f32 in numpy's
    /// formats, f64 in memmaps.
    pub dtype: Option<FloatType>,
    /// Matrices to write, by name; by default all that the form can hold.
    /// Labels and names of rows are written wherever there are any; naming `label` or `name`
    /// demands them.
    pub fields: Option<Vec<String>>,
    /// Compute `logits` from `avg` with the head.
    pub logits: bool,
    /// Rows of a shard; by default as many as make about 1 GiB.
    pub shard_rows: Option<usize>,
    /// Replace what is there already.
    pub force: bool,
    /// Files and directories in use, besides those of the set, that the output
    /// must leave alone.
    pub inputs: Vec<PathBuf>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// Form of the output.
    pub form: Form,
    /// Number of rows.
    pub rows: usize,
    /// Number of files.
    pub files: usize,
    /// Names of what was written.
    pub written: Vec<&'static str>,
    /// Names of what the set has besides.
    pub left_out: Vec<&'static str>,
}

/// Write `set` as `config` says.
///
/// # Errors
/// If the output exists (without `force`), is or contains what is read or
/// lies inside it; if a field or dtype does not exist there; if a value is not
/// finite or too large for the dtype, or a label no i64; or on a failed write.
/// What was at `out` before is then unchanged.
pub fn convert(
    set: &FeatureSet,
    head: Option<&Head>,
    out: &Path,
    config: &ConvertConfig,
    observer: &mut dyn Observer,
) -> Result<Converted> {
    let form = config.form.map_or_else(|| form_of(out), Ok)?;
    directory::check_place(out, form.is_directory(), set, config)?;
    let columns = columns(set, head, form, config)?;
    let named = set.names().filter(|_| form.names_rows()).map(|_| NAME);
    let written: Vec<_> = columns.iter().map(|c| c.name).chain(named).collect();
    let total = set.len() * columns.len();
    observer.on(Event::Begin { task: &format!("convert {}", set.name()), total: total as u64 });
    let mut writer = Writer::new(set, observer);
    let result = match form {
        Form::Shards => shards(&mut writer, out, &columns, config),
        Form::NpyDirectory => directory::write(out, config.force, |place| {
            let mut each = columns.iter().map(|c| (FileFormat::Npy.file(c.name), c));
            each.try_for_each(|(n, c)| place.file(&n, |w| files::npy(&mut writer, c, w)))?;
            let names = set.stored_names();
            if !names.is_empty() && set.labelled() {
                place.file(&FileFormat::Npy.file(CLASS_NAMES), |w| files::texts(&names, w))?;
            }
            if let Some(names) = NameRows::of(set, 0..set.len()) {
                place.file(&FileFormat::Npy.file(NAME), |w| names.write_numpy(w))?;
            }
            writer.finish(&columns)
        }),
        Form::Memmap => directory::write(out, config.force, |place| {
            let mut each = columns.iter().map(|c| (memmap_name(c.name), c));
            each.try_for_each(|(n, c)| place.file(n, |w| writer.rows(c, 0..set.len(), w)))
        }),
        Form::Safetensors => directory::single(out, |w| {
            files::safetensors(&mut writer, &columns, 0..set.len(), w)?;
            writer.finish(&columns)
        }),
        Form::Npz => directory::single(out, |w| {
            files::npz(&mut writer, &columns, w)?;
            writer.finish(&columns)
        }),
        Form::Npy => directory::single(out, |w| {
            files::npy(&mut writer, &columns[0], w)?;
            writer.finish(&columns)
        }),
        Form::Csv => directory::single(out, |w| {
            let tabs = out.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv"));
            files::table(&mut writer, &columns, if tabs { b'\t' } else { b',' }, w)?;
            writer.finish(&columns)
        }),
    };
    let files = result?;
    observer.on(Event::End);
    let all = set.fields().map(Field::name);
    let all = all.chain(set.labelled().then_some("label")).chain(set.names().map(|_| NAME));
    let left_out = all.filter(|name| !written.contains(name)).collect();
    Ok(Converted { form, rows: set.len(), files, written, left_out })
}

fn shards(
    writer: &mut Writer<'_>,
    out: &Path,
    columns: &[Column<'_>],
    config: &ConvertConfig,
) -> Result<usize> {
    let row: usize = columns.iter().map(Column::row_bytes).sum();
    let rows = config.shard_rows.unwrap_or((SHARD_BYTES / row).max(1));
    if rows == 0 {
        return Err(Error::config("shard_rows", 0, "a shard has at least one row"));
    }
    directory::write(out, config.force, |place| {
        for (i, range) in blocks(writer.set.len(), rows).enumerate() {
            place.file(&FileFormat::Safetensors.file(&format!("shard-{i:05}")), |w| {
                files::safetensors(writer, columns, range, w)
            })?;
        }
        writer.finish(columns)
    })
}

impl Form {
    fn is_directory(self) -> bool {
        matches!(self, Form::Shards | Form::NpyDirectory | Form::Memmap)
    }

    fn default_dtype(self) -> FloatType {
        match self {
            Form::Shards | Form::Safetensors => FloatType::F16,
            Form::Npy | Form::NpyDirectory | Form::Npz | Form::Csv => FloatType::F32,
            Form::Memmap => FloatType::F64,
        }
    }

    fn dtype(self, asked: Option<FloatType>) -> Result<FloatType> {
        let dtype = asked.unwrap_or(self.default_dtype());
        let problem = match (self, dtype) {
            (Form::Memmap, FloatType::F16 | FloatType::Bf16 | FloatType::F32) => {
                "the published memmaps are f64; leave it out, or choose another form"
            }
            (Form::Npy | Form::NpyDirectory | Form::Npz, FloatType::Bf16) => {
                "numpy has no such type; write f16 or f32, or .safetensors"
            }
            (Form::Csv, FloatType::F16 | FloatType::Bf16) => {
                "text holds f32 or f64 to the last digit; write one of these"
            }
            _ => return Ok(dtype),
        };
        Err(Error::config("dtype", format!("{dtype:?}").to_lowercase(), problem))
    }

    /// Whether names of rows are written with them.
    fn names_rows(self) -> bool {
        !matches!(self, Form::Npy | Form::Memmap)
    }

    /// Names of matrices that can be written.
    fn holds(self, name: &str) -> bool {
        self != Form::Memmap || name == "avg" || name == "std"
    }
}

/// The form that a name asks for.
fn form_of(out: &Path) -> Result<Form> {
    if out.is_dir() {
        return Ok(Form::Shards);
    }
    match FileFormat::of(out) {
        Some(FileFormat::Safetensors) => Ok(Form::Safetensors),
        Some(FileFormat::Npy) => Ok(Form::Npy),
        Some(FileFormat::Npz) => Ok(Form::Npz),
        Some(FileFormat::Csv) if !out.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) => {
            Ok(Form::Csv)
        }
        None if out.extension().is_none_or(OsStr::is_empty) => Ok(Form::Shards),
        Some(FileFormat::Memmap | FileFormat::Csv) | None => {
            let ending = out.extension().unwrap_or_default().display();
            let problem = format!(
                "`.{ending}` is no known form: end it in .safetensors, .npy, .npz or .csv, \
                 name a directory, or say which form it is"
            );
            Err(Error::config("output", out.display(), problem))
        }
    }
}

fn memmap_name(column: &str) -> &'static str {
    match column {
        "avg" => memmap::FEATURES,
        "std" => memmap::DEVIATIONS,
        _ => memmap::LABELS,
    }
}

/// What will be written, in the order of its offsets: labels first.
fn columns<'a>(
    set: &FeatureSet,
    head: Option<&'a Head>,
    form: Form,
    config: &ConvertConfig,
) -> Result<Vec<Column<'a>>> {
    let dtype = form.dtype(config.dtype)?.into();
    let head = computed(set, head, config)?;
    let mut out = Vec::new();
    if set.labelled() && form != Form::Npy {
        let dtype = if form == Form::Memmap { Dtype::F64 } else { Dtype::I64 };
        out.push(Column { name: "label", source: Source::Label, width: None, dtype });
    }
    for field in fields(set, head.is_some(), form, config)? {
        let (source, width) = match head {
            Some(head) if field == Field::Logits => (Source::Head(head), head.classes()),
            _ => (Source::Field(field), set.require(field)?),
        };
        out.push(Column { name: field.name(), source, width: Some(width), dtype });
    }
    Ok(out)
}

/// The head, if logits are to be computed.
fn computed<'a>(
    set: &FeatureSet,
    head: Option<&'a Head>,
    config: &ConvertConfig,
) -> Result<Option<&'a Head>> {
    if !config.logits {
        return Ok(None);
    }
    let Some(head) = head else {
        return Err(Error::needs("computing logits", "a head", "give the classifier's last layer"));
    };
    let dim = set.require(Field::Features(Pooling::Avg))?;
    if dim != head.dim() {
        return Err(Error::Shape {
            place: set.name().to_owned(),
            tensor: "avg".to_owned(),
            expected: format!("[N, {}], because the head's weight has D = {0}", head.dim()),
            got: format!("[{}, {dim}]", set.len()),
        });
    }
    Ok(Some(head))
}

/// The matrices to write: those asked for, or all that there are.
fn fields(
    set: &FeatureSet,
    logits: bool,
    form: Form,
    config: &ConvertConfig,
) -> Result<Vec<Field>> {
    let there = |f: &Field| set.dim(*f).is_some() || (logits && *f == Field::Logits);
    let chosen: Vec<Field> = match &config.fields {
        None if form == Form::Npy => vec![Field::Features(Pooling::Avg)],
        None => {
            let logits = Some(Field::Logits).filter(|f| set.dim(*f).is_none() && there(f));
            let mut all: Vec<_> = set.fields().chain(logits).collect();
            all.retain(|f| form.holds(f.name()));
            all.sort_by_key(|f| f.order());
            all
        }
        Some(names) => {
            let mut chosen = Vec::new();
            for name in names {
                if name == "label" && set.labelled() && form != Form::Npy {
                    continue;
                }
                if name == NAME {
                    if set.names().is_some() && form.names_rows() {
                        continue;
                    }
                    let remedy = "leave it out, or choose a set and a form that have names";
                    return Err(Error::missing(set.name(), "`name` that could be written", remedy));
                }
                let field = Field::named(name);
                chosen.push(match field {
                    None if name != "label" => {
                        let known = Field::ALL.map(Field::name).into_iter().chain(["label", NAME]);
                        return Err(Error::unknown("field", name, known));
                    }
                    None if form == Form::Npy => {
                        let problem = "labels in an .npy of their own are not written; use .npz";
                        return Err(Error::config("fields", name, problem));
                    }
                    None => {
                        return Err(Error::missing(
                            set.name(),
                            "`label`",
                            "give the class indices apart",
                        ));
                    }
                    Some(field) => field,
                });
            }
            // Each once, in the usual order.
            chosen.sort_by_key(|f| f.order());
            chosen.dedup();
            chosen
        }
    };
    for field in &chosen {
        if !there(field) {
            set.require(*field)?;
        }
        if !form.holds(field.name()) {
            let problem = "the published memmaps hold avg, std and label";
            return Err(Error::config("fields", field.name(), problem));
        }
    }
    let avg = chosen.contains(&Field::Features(Pooling::Avg));
    let problem = match form {
        Form::Npy if chosen.len() != 1 => "an .npy holds one matrix; name one, or write .npz",
        Form::Memmap if !avg => "the published memmaps need `avg`",
        _ if chosen.is_empty() => "name at least one matrix",
        _ => return Ok(chosen),
    };
    let names: Vec<_> = chosen.iter().map(|f| f.name()).collect();
    Err(Error::config("fields", names.join(","), problem))
}
