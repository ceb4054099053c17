//! Rows that are in memory as a file of features.

use std::path::Path;

use super::FloatType;
use super::directory::single;
use super::encode::{Column, Source, round, stream};
use super::files::safetensors_header;
use super::underflow::Underflow;
use crate::error::{Error, Result};
use crate::features::{Batch, Origin};
use crate::io::Dtype;

/// Write all fields of `rows`, and their labels and origin, as one safetensors file,
/// whole or not at all: the bytes are those that [`convert`](super::convert)
/// would write of a set of these rows.
///
/// The result is the number of values that became 0 in that type.
///
/// # Errors
/// If a value is not finite or too large for `dtype`, all of a row or of a
/// column become 0 in it, there is not a label for each row, or the write
/// fails. (A column counts if a tenth of its rows are not 0: more may follow.)
pub fn write_rows(
    path: &Path,
    rows: &Batch<'_>,
    labels: Option<&[i64]>,
    dtype: FloatType,
    origin: Option<&Origin>,
) -> Result<u64> {
    let (n, place) = (rows.rows(), path.display().to_string());
    if let Some(labels) = labels.filter(|labels| labels.len() != n) {
        return Err(Error::Shape {
            place,
            tensor: "label".into(),
            expected: format!("[{n}]"),
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
    let (mut lost, few) = (0, u32::try_from(n / 10).unwrap_or(u32::MAX).max(1));
    single(path, |out| {
        out.write(&safetensors_header(&columns, n, &[], origin))?;
        for column in &columns {
            match column.source {
                Source::Field(field) => {
                    let seen = column.underflow();
                    let encode = |start: usize, out: &mut [u8]| {
                        let values = &rows.get(field)[start * column.cols()..];
                        encode(&place, column, start, values, out, &seen)
                    };
                    stream(column, 0..n, out, encode, |_| {})?;
                    lost += seen.finish(&place, few)?;
                }
                _ => out.write(bytemuck::cast_slice(labels.unwrap_or_default()))?,
            }
        }
        Ok(())
    })?;
    Ok(lost)
}

/// The rows from `start`, whose values come first, that fill `out`.
fn encode(
    place: &str,
    column: &Column<'_>,
    start: usize,
    values: &[f32],
    out: &mut [u8],
    seen: &Underflow,
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
    seen.see(start, &values);
    round(place, column, start, &values, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{ConvertConfig, FeatureSet, Field, Form, Pooling, convert};
    use crate::io::{Tensor, encode_tensors};
    use crate::observe::Silent;

    const ROWS: usize = 300;
    const AVG: Field = Field::Features(Pooling::Avg);
    const STD: Field = Field::Features(Pooling::Std);

    fn values(cols: usize, scale: f32) -> Vec<f32> {
        (0..ROWS * cols).map(|i| scale * ((i * 7919 % 10_007) as f32 / 3000.0 - 1.5)).collect()
    }

    fn batch(fields: Vec<(Field, Vec<f32>)>) -> Batch<'static> {
        Batch::of(ROWS, fields).unwrap()
    }

    #[test]
    fn the_bytes_are_those_of_a_converted_set() {
        let directory = tempfile::tempdir().unwrap();
        let all = [(AVG, 5), (STD, 5), (Field::Logits, 3)];
        let fields: Vec<_> = all.iter().map(|(f, cols)| (*f, values(*cols, 0.37))).collect();
        let labels: Vec<i64> = (0..ROWS as i64).map(|i| i % 3).collect();
        for labels in [None, Some(&labels[..])] {
            let mut tensors: Vec<_> = all
                .iter()
                .zip(&fields)
                .map(|((f, cols), (_, v))| (f.name().into(), Tensor::f32([ROWS, *cols], v.clone())))
                .collect();
            let labelled = labels.map(|l| ("label".into(), Tensor::i64([ROWS], l.to_vec())));
            tensors.extend(labelled);
            let set = encode_tensors(&tensors).unwrap();
            let set = FeatureSet::from_safetensors("set", set).unwrap();
            for dtype in [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F64] {
                let [ours, theirs] = ["ours", "theirs"].map(|name| directory.path().join(name));
                write_rows(&ours, &batch(fields.clone()), labels, dtype, None).unwrap();
                let (form, dtype) = (Some(Form::Safetensors), Some(dtype));
                let config = ConvertConfig { form, dtype, force: true, ..Default::default() };
                convert(&set, None, &theirs, &config, &mut Silent).unwrap();
                let read = |path| std::fs::read(path).unwrap();
                assert!(read(&ours) == read(&theirs), "{dtype:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.safetensors");
        let refused = |value: f32, labels: Option<&[i64]>| {
            let mut values = values(4, 1.0);
            values[4 * 270 + 1] = value;
            let rows = batch(vec![(AVG, values)]);
            let error = write_rows(&path, &rows, labels, FloatType::F16, None).unwrap_err();
            assert!(!path.exists());
            error.to_string()
        };
        for (value, part) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (65536.0, "65536")] {
            let said = refused(value, None);
            assert!(said.contains("x.safetensors") && said.contains(part), "{said}");
            assert!(said.contains("row 270, column 1"), "{said}");
        }
        let said = refused(0.0, Some(&[1, 2]));
        assert!(said.contains("`label` has shape [2], expected [300]"), "{said}");
    }
}
