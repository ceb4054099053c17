//! Rows that are in memory as a file of features.

use std::path::Path;

use super::FloatType;
use super::directory::{in_memory, single};
use super::encode::{Column, Output, Source, round, stream};
use super::files::{Texts, safetensors_around};
use super::names::NameRows;
use super::underflow::Underflow;
use crate::error::{Error, Result};
use crate::features::{Batch, Origin};
use crate::io::{Dtype, LONGEST};

/// What goes with rows that are written.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowsFile<'a> {
    /// Labels, one a row.
    pub labels: Option<&'a [i64]>,
    /// Names of the classes, where there are labels.
    pub classes: &'a [String],
    /// Names, one a row: of at most 4096 bytes, without NUL.
    pub names: Option<&'a [String]>,
    /// Which network made them.
    pub origin: Option<&'a Origin>,
}

/// Write all fields of `rows`, and what goes with them, as one safetensors file,
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
    file: &RowsFile<'_>,
    dtype: FloatType,
) -> Result<u64> {
    let mut lost = 0;
    single(path, |out| {
        let few = u32::try_from(rows.rows() / 10).unwrap_or(u32::MAX).max(1);
        lost = write(&path.display().to_string(), rows, file, dtype, few, out)?;
        Ok(())
    })?;
    Ok(lost)
}

/// The same bytes in memory, of rows that need not be like others to come: a column may become 0.
/// `place` is used in messages.
///
/// # Errors
/// As [`write_rows`], but for columns.
pub fn encode_rows(
    place: &str,
    rows: &Batch<'_>,
    file: &RowsFile<'_>,
    dtype: FloatType,
) -> Result<Vec<u8>> {
    in_memory(Path::new(place), |out| write(place, rows, file, dtype, u32::MAX, out).map(drop))
}

fn write(
    place: &str,
    rows: &Batch<'_>,
    file: &RowsFile<'_>,
    dtype: FloatType,
    few: u32,
    out: &mut Output<'_>,
) -> Result<u64> {
    let n = rows.rows();
    let RowsFile { labels, classes, names, origin } = *file;
    let counts = [("label", labels.map(<[_]>::len)), ("name", names.map(<[_]>::len))];
    for (tensor, count) in counts {
        if let Some(count) = count.filter(|count| *count != n) {
            return Err(Error::Shape {
                place: place.into(),
                tensor: tensor.into(),
                expected: format!("[{n}]"),
                got: format!("[{count}]"),
            });
        }
    }
    let unfit = |name: &String| name.len() > LONGEST || name.contains('\0');
    if let Some(row) = names.into_iter().flatten().position(unfit) {
        let problem = format!("the name of row {row} is longer than {LONGEST} bytes, or holds NUL");
        return Err(Error::format(place, problem));
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
    let (mut lost, names) = (0, names.map(NameRows::listed));
    let texts = Texts { classes, origin };
    safetensors_around(&columns, n, &texts, names.as_ref(), out, |out| {
        for column in &columns {
            match column.source {
                Source::Field(field) => {
                    let seen = column.underflow();
                    let encode = |start: usize, out: &mut [u8]| {
                        let values = &rows.get(field)[start * column.cols()..];
                        encode(place, column, start, values, out, &seen)
                    };
                    stream(column, 0..n, out, encode, |_| {})?;
                    lost += seen.finish(place, few)?;
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
    use crate::io::{Tensor, Texts, save_tensors};
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
        let names: Vec<String> = (0..ROWS).map(|i| format!("{}/ä{i}.png", i % 3)).collect();
        let classes = ["cat".to_owned(), "dog".to_owned(), "eel".to_owned()];
        let given = RowsFile { classes: &classes, names: Some(&names), ..RowsFile::default() };
        for labels in [None, Some(&labels[..])] {
            let mut tensors: Vec<_> = all
                .iter()
                .zip(&fields)
                .map(|((f, cols), (_, v))| (f.name().into(), Tensor::f32([ROWS, *cols], v.clone())))
                .collect();
            let labelled = labels.map(|l| ("label".into(), Tensor::i64([ROWS], l.to_vec())));
            tensors.extend(labelled);
            let path = directory.path().join("set.safetensors");
            let text = serde_json::to_string(&classes).unwrap();
            save_tensors(&path, &tensors, &[("classes", text)]).unwrap();
            let mut set = FeatureSet::open(&path).unwrap();
            set.shards[0].names = Some(Texts::owned(&names).unwrap());
            for dtype in [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F64] {
                let [ours, theirs] = ["ours.safetensors", "theirs.safetensors"]
                    .map(|name| directory.path().join(name));
                let file = RowsFile { labels, ..given };
                write_rows(&ours, &batch(fields.clone()), &file, dtype).unwrap();
                let bytes = encode_rows("x", &batch(fields.clone()), &file, dtype).unwrap();
                let (form, dtype) = (Some(Form::Safetensors), Some(dtype));
                let config = ConvertConfig { form, dtype, force: true, ..Default::default() };
                convert(&set, None, &theirs, &config, &mut Silent).unwrap();
                let read = |path| std::fs::read(path).unwrap();
                assert!(read(&ours) == read(&theirs) && read(&ours) == bytes, "{dtype:?}");
                let back = FeatureSet::open(&ours).unwrap();
                assert_eq!(back.names().unwrap().get(299), "2/ä299.png");
                assert_eq!(back.class_names().len(), if labels.is_some() { 3 } else { 0 });
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
            let file = RowsFile { labels, ..RowsFile::default() };
            let error = write_rows(&path, &rows, &file, FloatType::F16).unwrap_err();
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
