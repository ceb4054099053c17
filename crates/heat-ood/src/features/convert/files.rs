//! One file in each format, its header first, then its columns in passes.

use std::io::Write;
use std::ops::Range;

use serde_json::{Map, json};
use zip::write::SimpleFileOptions;

use super::encode::{Column, Output, Writer};
use super::names::NameRows;
use super::numpy::header_of;
use crate::error::{Error, Result};
use crate::features::FileFormat;
use crate::features::names::{NAME, OFFSETS};
use crate::features::origin::{KEY, Origin};
use crate::features::shard::CLASS_NAMES;
use crate::io::{Dtype, digest};
use crate::math::blocks;

/// Rows of a table that are written together.
const TABLE_ROWS: usize = 1024;

/// A safetensors file of the rows of `range`.
pub(super) fn safetensors(
    writer: &mut Writer<'_>,
    columns: &[Column<'_>],
    range: Range<usize>,
    out: &mut Output<'_>,
) -> Result<()> {
    let set = writer.set;
    let names = NameRows::of(set, range.clone());
    let texts = Texts { classes: &set.stored_names(), origin: set.origin() };
    safetensors_around(columns, range.len(), &texts, names.as_ref(), out, |out| {
        columns.iter().try_for_each(|column| writer.rows(column, range.clone(), out))
    })
}

/// What stands among the texts of a header.
pub(super) struct Texts<'a> {
    /// Names of the classes, if they have some.
    pub classes: &'a [String],
    pub origin: Option<&'a Origin>,
}

/// Header and names of a safetensors file; `write_columns` writes what is between, one after the other.
pub(super) fn safetensors_around(
    columns: &[Column<'_>],
    rows: usize,
    texts: &Texts<'_>,
    names: Option<&NameRows<'_>>,
    out: &mut Output<'_>,
    write_columns: impl FnOnce(&mut Output<'_>) -> Result<()>,
) -> Result<()> {
    out.write(&safetensors_header(columns, rows, texts, names))?;
    names.map_or(Ok(()), |names| names.write_offsets(out))?;
    write_columns(out)?;
    names.map_or(Ok(()), |names| names.write_joined(out))
}

fn safetensors_header(
    columns: &[Column<'_>],
    rows: usize,
    given: &Texts<'_>,
    names: Option<&NameRows<'_>>,
) -> Vec<u8> {
    let mut header = Map::new();
    let mut texts = Map::from_iter([(digest::KEY.to_owned(), digest::UNKNOWN.into())]);
    texts.extend(given.origin.map(|origin| (KEY.to_owned(), origin.text().into())));
    if !given.classes.is_empty() && columns.iter().any(|c| c.name == "label") {
        texts.insert(CLASS_NAMES.into(), json!(given.classes).to_string().into());
    }
    header.insert("__metadata__".into(), texts.into());
    let mut end = 0;
    let mut add = |name: &str, dtype: &str, shape: Vec<usize>, bytes: usize| {
        let start = end;
        end += bytes;
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert(name.to_owned(), info);
    };
    // The widest types first, bytes last: the format asks for offsets without gaps, and so all
    // are aligned.
    if names.is_some() {
        add(OFFSETS, "I64", vec![rows + 1], 8 * (rows + 1));
    }
    for column in columns {
        let dtype = safetensors_name(column.dtype);
        add(column.name, dtype, column.shape(rows), rows * column.row_bytes());
    }
    if let Some(names) = names {
        let bytes = names.bytes();
        add(NAME, "U8", vec![bytes], bytes);
    }
    let mut text = serde_json::Value::Object(header).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn safetensors_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
        Dtype::F32 => "F32",
        Dtype::F64 => "F64",
        _ => "I64",
    }
}

/// An `.npy` file of one column.
pub(super) fn npy(
    writer: &mut Writer<'_>,
    column: &Column<'_>,
    out: &mut Output<'_>,
) -> Result<()> {
    let rows = writer.set.len();
    out.write(&npy_header(column, rows))?;
    writer.rows(column, 0..rows, out)
}

/// An `.npy` file of texts, of equal width.
pub(super) fn texts(texts: &[String], out: &mut Output<'_>) -> Result<()> {
    NameRows::listed(texts).write_numpy(out)
}

/// A table of text: labels, names, then the columns of each matrix, by number.
pub(super) fn table(
    writer: &mut Writer<'_>,
    columns: &[Column<'_>],
    delimiter: u8,
    out: &mut Output<'_>,
) -> Result<()> {
    let place = out.place;
    let set = writer.set;
    let classes = set.stored_names();
    let called = NameRows::of(set, 0..set.len());
    let mut table = csv::WriterBuilder::new().delimiter(delimiter).from_writer(&mut *out.to);
    let failed = |e: csv::Error| Error::io("write", place)(e.into());
    let (labels, matrices): (Vec<_>, Vec<_>) = columns.iter().partition(|c| c.width.is_none());
    let heads = labels.iter().map(|label| label.name.to_owned());
    let heads = heads.chain(called.iter().map(|_| NAME.to_owned()));
    let heads = heads.chain(
        matrices
            .iter()
            .flat_map(|column| (0..column.cols()).map(|i| format!("{}_{i}", column.name))),
    );
    table.write_record(heads).map_err(failed)?;
    for range in blocks(set.len(), TABLE_ROWS) {
        let mut values = Vec::new();
        for column in matrices.iter().copied() {
            values.push((column, writer.values(column, range.clone())?));
        }
        for (i, row) in range.enumerate() {
            if !labels.is_empty() {
                let label = set.raw_label(row)?;
                let name = usize::try_from(label).ok().and_then(|l| classes.get(l));
                table
                    .write_field(name.cloned().unwrap_or_else(|| label.to_string()))
                    .map_err(failed)?;
            }
            if let Some(called) = &called {
                table.write_field(&*called.get(row)).map_err(failed)?;
            }
            for (column, values) in &values {
                for v in &values[i * column.cols()..][..column.cols()] {
                    let text = match column.dtype {
                        Dtype::F64 => format!("{v:?}"),
                        _ => format!("{:?}", *v as f32),
                    };
                    table.write_field(text).map_err(failed)?;
                }
            }
            table.write_record(None::<&[u8]>).map_err(failed)?;
        }
    }
    table.flush().map_err(Error::io("write", place))
}

/// numpy's header, version 1.0: 64 bytes or a multiple.
fn npy_header(column: &Column<'_>, rows: usize) -> Vec<u8> {
    let descr = match column.dtype {
        Dtype::F16 => "<f2",
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
        _ => "<i8",
    };
    let shape = column.width.map_or(format!("({rows},)"), |width| format!("({rows}, {width})"));
    header_of(descr, &shape)
}

/// An `.npz` file, stored without compression so that it can be mapped.
pub(super) fn npz(
    writer: &mut Writer<'_>,
    columns: &[Column<'_>],
    out: &mut Output<'_>,
) -> Result<()> {
    let place = out.place;
    let failed = |e: zip::result::ZipError| Error::io("write", place)(e.into());
    let rows = writer.set.len();
    let mut zip = zip::ZipWriter::new_stream(&mut *out.to);
    for column in columns {
        let options = stored(rows * column.row_bytes());
        zip.start_file(FileFormat::Npy.file(column.name), options).map_err(failed)?;
        npy(writer, column, &mut Output { to: &mut zip, place })?;
    }
    let classes = writer.set.stored_names();
    let classes = columns.iter().any(|c| c.name == "label").then_some(&classes[..]);
    let classes = classes.filter(|names| !names.is_empty()).map(NameRows::listed);
    let names = NameRows::of(writer.set, 0..rows);
    for (name, texts) in [(CLASS_NAMES, classes), (NAME, names)] {
        let Some(texts) = texts else { continue };
        let options = stored(4 * texts.width() * texts.len());
        zip.start_file(FileFormat::Npy.file(name), options).map_err(failed)?;
        texts.write_numpy(&mut Output { to: &mut zip, place })?;
    }
    zip.finish().map_err(failed)?.flush().map_err(Error::io("write", place))
}

/// How an entry of so many bytes is written.
fn stored(bytes: usize) -> SimpleFileOptions {
    // From 4 GiB on, sizes need the format's extension.
    let large = bytes > u32::MAX as usize - 4096;
    SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .large_file(large)
}
