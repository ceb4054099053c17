//! Rows that are in memory as a file of features.

use std::path::Path;

use super::FloatType;
use super::encode::{Column, Source, round, stream};
use super::files::safetensors_header;
use super::folder::single;
use crate::error::{Error, Result};
use crate::features::Batch;
use crate::io::Dtype;

/// Write all fields of `rows`, and their labels, as one safetensors file,
/// whole or not at all: the bytes are those that [`convert`](super::convert)
/// would write of a set of these rows.
///
/// # Errors
/// If a value is not finite or too large for `dtype`, there is not a label for
/// each row, or the write fails.
pub fn write_rows(
    path: &Path,
    rows: &Batch<'_>,
    labels: Option<&[i64]>,
    dtype: FloatType,
) -> Result<()> {
    let (n, place) = (rows.rows(), path.display().to_string());
    if let Some(labels) = labels.filter(|labels| labels.len() != n) {
        return Err(Error::Shape {
            place,
            tensor: "label".into(),
            expected: format!("[{n}], one for each row"),
            got: format!("[{}]", labels.len()),
        });
    }
    let label = labels.map(|_| Column {
        name: "label",
        source: Source::Label,
        width: None,
        dtype: Dtype::I64,
    });
    let matrices = rows.fields().map(|field| Column {
        name: field.name(),
        source: Source::Field(field),
        width: Some(rows.dim(field)),
        dtype: dtype.into(),
    });
    let columns: Vec<Column<'_>> = label.into_iter().chain(matrices).collect();
    single(path, |out| {
        out.write(&safetensors_header(&columns, n))?;
        for column in &columns {
            match column.source {
                Source::Field(field) => {
                    let encode = |start: usize, out: &mut [u8]| {
                        let values = &rows.get(field)[start * column.cols()..];
                        encode(&place, column, start, values, out)
                    };
                    stream(column, 0..n, out, encode, |_| {})?;
                }
                _ => out.write(bytemuck::cast_slice(labels.unwrap_or_default()))?,
            }
        }
        Ok(())
    })
    .map(drop)
}

/// The rows from `start`, whose values come first, that fill `out`.
fn encode(
    place: &str,
    column: &Column<'_>,
    start: usize,
    values: &[f32],
    out: &mut [u8],
) -> Result<()> {
    let values = &values[..out.len() / column.dtype.size()];
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        return Err(Error::NotFinite {
            place: place.into(),
            tensor: column.name,
            row: start + i / column.cols(),
            column: i % column.cols(),
            value: values[i],
        });
    }
    let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    round(place, column, start, &values, out)
}
