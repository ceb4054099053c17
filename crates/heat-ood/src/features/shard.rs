//! One file (or one group of arrays) of a feature set, checked.

use std::path::Path;
use std::sync::Arc;

use super::Field;
use crate::error::{Error, Result};
use crate::io::{Array, Dtype, TensorFile};
use crate::math::reduce;

/// Arrays with the same number of rows. A clone shares their bytes.
#[derive(Clone)]
pub(super) struct Shard {
    pub(super) place: String,
    /// Where the labels come from: the same, unless given apart.
    pub(super) label_place: String,
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) fields: [Option<Array>; 4],
    pub(super) label: Option<Array>,
}

impl Shard {
    pub(super) fn new(path: &Path, arrays: Vec<(String, Array)>) -> Result<Self> {
        let place = path.display().to_string();
        let shape_error = |name: &str, expected: String, array: &Array| Error::Shape {
            place: place.clone(),
            tensor: name.into(),
            expected,
            got: format!("{:?}", array.shape),
        };
        let mut fields: [Option<Array>; 4] = [None, None, None, None];
        let mut label = None;
        let mut rows = None;
        for (name, array) in arrays {
            let Some(field) = Field::ALL.into_iter().find(|f| f.name() == name) else {
                if name == "label" {
                    label = Some(array.into_column());
                }
                continue;
            };
            if array.shape.len() != 2 || array.shape[1] == 0 {
                return Err(shape_error(&name, "[N, D]".into(), &array));
            }
            let n = *rows.get_or_insert(array.rows());
            if n != array.rows() {
                return Err(shape_error(
                    &name,
                    format!("[{n}, D], as many rows as the other fields"),
                    &array,
                ));
            }
            if !array.dtype.is_float() {
                return Err(Error::format(
                    path,
                    format!(
                        "`{name}` has type {:?}, expected f16, bf16, f32 or f64: save it as `x.astype('float32')`",
                        array.dtype
                    ),
                ));
            }
            fields[field.index()] = Some(array);
        }
        let Some(rows) = rows else {
            return Err(Error::missing(
                place,
                "`avg`, `std`, `max` or `logits`",
                "name the matrix so",
            ));
        };
        let mut pooled =
            Field::ALL[..3].iter().filter_map(|f| Some((f, fields[f.index()].as_ref()?)));
        if let Some((first, a)) = pooled.next()
            && let Some((other, b)) = pooled.find(|(_, b)| b.cols() != a.cols())
        {
            let expected = format!("[N, {}], the dimension of {}", a.cols(), first.name());
            return Err(shape_error(other.name(), expected, b));
        }
        if let Some(label) = &label {
            check_labels(path, label, rows)?;
        }
        Ok(Shard { label_place: place.clone(), place, start: 0, rows, fields, label })
    }

    pub(super) fn read(
        &self,
        field: Field,
        start: usize,
        dim: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let Some(array) = &self.fields[field.index()] else {
            return Ok(());
        };
        array.read_f32(start * dim, out);
        self.check(field, start, dim, out)
    }

    /// Refuse values of rows `start..` that are not finite.
    pub(super) fn check(&self, field: Field, start: usize, dim: usize, rows: &[f32]) -> Result<()> {
        if reduce::all_finite(rows) {
            return Ok(());
        }
        self.finite(field, start, dim, rows, f32::is_finite)
    }

    /// The same in double precision.
    pub(super) fn read_f64(
        &self,
        field: Field,
        start: usize,
        dim: usize,
        out: &mut [f64],
    ) -> Result<()> {
        let Some(array) = &self.fields[field.index()] else {
            return Ok(());
        };
        array.read_f64(start * dim, out);
        self.finite(field, start, dim, out, f64::is_finite)
    }

    fn finite<T: Copy + Into<f64>>(
        &self,
        field: Field,
        start: usize,
        dim: usize,
        values: &[T],
        is_finite: impl Fn(T) -> bool,
    ) -> Result<()> {
        if values.iter().all(|v| is_finite(*v)) {
            return Ok(());
        }
        let i = values.iter().position(|v| !is_finite(*v)).unwrap_or(0);
        Err(Error::NotFinite {
            place: self.place.clone(),
            tensor: field.name(),
            row: start + i / dim,
            column: i % dim,
            value: values[i].into() as f32,
        })
    }
}

pub(super) fn check_labels(path: &Path, label: &Array, rows: usize) -> Result<()> {
    if label.dtype.is_float() {
        let problem = format!(
            "`label` has type {:?}, expected an integer type: save it as `y.astype('int64')`",
            label.dtype
        );
        return Err(Error::format(path, problem));
    }
    if label.shape != [rows] {
        return Err(Error::Shape {
            place: path.display().to_string(),
            tensor: "label".into(),
            expected: format!("[{rows}], one label a row"),
            got: format!("{:?}", label.shape),
        });
    }
    Ok(())
}

pub(super) fn owned(bytes: Vec<u8>, dtype: Dtype, shape: &[usize]) -> Array {
    Array { bytes: Arc::new(bytes.into()), offset: 0, dtype, shape: shape.to_vec() }
}

pub(super) fn safetensors_arrays(file: &TensorFile) -> Result<Vec<(String, Array)>> {
    let content = file.content();
    if !["features", "labels", "other tensors"].contains(&content) {
        return Err(Error::format(file.path(), format!("holds {content}, not features")));
    }
    let names = Field::ALL.map(Field::name).into_iter().chain(["label"]);
    names.filter_map(|n| file.array(n).map(|a| a.map(|a| (n.to_owned(), a)))).collect()
}
