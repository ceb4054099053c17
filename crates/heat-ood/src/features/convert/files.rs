//! One file in each format, its header first, then its columns in passes.

use std::io::Write;
use std::ops::Range;

use serde_json::{Map, json};
use zip::write::SimpleFileOptions;

use super::encode::{Column, Output, Writer};
use crate::error::{Error, Result};
use crate::features::FileFormat;
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
    let (names, origin) = (writer.set.stored_names(), writer.set.origin());
    out.write(&safetensors_header(columns, range.len(), &names, origin))?;
    columns.iter().try_for_each(|column| writer.rows(column, range.clone(), out))
}

/// What stands before the columns, one after the other; `names` are those of
/// the classes, if they have some.
pub(super) fn safetensors_header(
    columns: &[Column<'_>],
    rows: usize,
    names: &[String],
    origin: Option<&Origin>,
) -> Vec<u8> {
    let mut header = Map::new();
    let mut texts = Map::from_iter([(digest::KEY.to_owned(), digest::UNKNOWN.into())]);
    texts.extend(origin.map(|origin| (KEY.to_owned(), origin.text().into())));
    if !names.is_empty() && columns.iter().any(|c| c.name == "label") {
        texts.insert(CLASS_NAMES.into(), json!(names).to_string().into());
    }
    header.insert("__metadata__".into(), texts.into());
    let mut end = 0;
    // Labels first: the format asks for offsets without gaps, and they are
    // of the widest type, so that all are aligned.
    for column in columns {
        let start = end;
        end += rows * column.row_bytes();
        let info = json!({
            "dtype": safetensors_name(column.dtype),
            "shape": column.shape(rows),
            "data_offsets": [start, end],
        });
        header.insert(column.name.to_owned(), info);
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
    let width = texts.iter().map(|t| t.chars().count()).max().unwrap_or(0).max(1);
    out.write(&header_of(&format!("<U{width}"), &format!("({},)", texts.len())))?;
    let points = texts
        .iter()
        .flat_map(|text| text.chars().map(u32::from).chain(std::iter::repeat(0)).take(width));
    out.write(&points.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
}

/// A table of text: labels, then the columns of each matrix, by number.
pub(super) fn table(
    writer: &mut Writer<'_>,
    columns: &[Column<'_>],
    delimiter: u8,
    out: &mut Output<'_>,
) -> Result<()> {
    let place = out.place;
    let set = writer.set;
    let names = set.stored_names();
    let mut table = csv::WriterBuilder::new().delimiter(delimiter).from_writer(&mut *out.to);
    let failed = |e: csv::Error| Error::io("write", place)(e.into());
    let heads = columns.iter().flat_map(|column| {
        (0..column.cols()).map(|i| match column.width {
            Some(_) => format!("{}_{i}", column.name),
            None => column.name.to_owned(),
        })
    });
    table.write_record(heads).map_err(failed)?;
    for range in blocks(set.len(), TABLE_ROWS) {
        let mut values = Vec::new();
        for column in columns.iter().filter(|c| c.width.is_some()) {
            values.push((column, writer.values(column, range.clone())?));
        }
        for (i, row) in range.enumerate() {
            if columns.iter().any(|c| c.width.is_none()) {
                let label = set.raw_label(row)?;
                let name = usize::try_from(label).ok().and_then(|l| names.get(l));
                table
                    .write_field(name.cloned().unwrap_or_else(|| label.to_string()))
                    .map_err(failed)?;
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

fn header_of(descr: &str, shape: &str) -> Vec<u8> {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while !(text.len() + 11).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
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
        // From 4 GiB on, sizes need the format's extension.
        let large = rows * column.row_bytes() > u32::MAX as usize - 4096;
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .large_file(large);
        zip.start_file(FileFormat::Npy.file(column.name), options).map_err(failed)?;
        npy(writer, column, &mut Output { to: &mut zip, place })?;
    }
    let names = writer.set.stored_names();
    if !names.is_empty() && columns.iter().any(|c| c.name == "label") {
        let options =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(FileFormat::Npy.file(CLASS_NAMES), options).map_err(failed)?;
        texts(&names, &mut Output { to: &mut zip, place })?;
    }
    zip.finish().map_err(failed)?.flush().map_err(Error::io("write", place))
}
