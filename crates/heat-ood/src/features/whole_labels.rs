//! Labels of every type that is written for them.

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::{Array, Dtype};

/// Labels as whole numbers, one a row: integers as they are, True and False as
/// 1 and 0, floats that are whole, one-hot rows, and numbers written as texts.
pub(super) fn whole(path: &Path, label: Array, rows: usize) -> Result<Array> {
    let label = label.into_column();
    let wrong_shape = |label: &Array| Error::Shape {
        place: path.display().to_string(),
        tensor: "label".into(),
        expected: format!("[{rows}], one label a row"),
        got: format!("{:?}", label.shape),
    };
    let one_hot = label.shape.len() == 2 && label.shape[0] == rows && label.names.is_none();
    if label.shape != [rows] && !one_hot {
        return Err(wrong_shape(&label));
    }
    let values: Vec<i64> = if one_hot {
        let mut row = vec![0.0; label.cols()];
        let class = |i| {
            label.read_f32(i * row.len(), &mut row);
            let hot = row.iter().filter(|v| **v == 1.0).count();
            let cold = row.iter().filter(|v| **v == 0.0).count();
            (hot == 1 && cold + 1 == row.len())
                .then(|| row.iter().position(|v| *v == 1.0).map_or(0, |c| c as i64))
        };
        (0..rows).map(class).collect::<Option<_>>().ok_or_else(|| wrong_shape(&label))?
    } else if let Some(numbers) = label.names.as_ref().and_then(|names| numbers(names)) {
        (0..rows).map(|i| numbers[label.integer(i) as usize]).collect()
    } else if label.dtype.is_float() {
        let mut values = vec![0.0; rows];
        label.read_f64(0, &mut values);
        let whole = |v: &f64| v.fract() == 0.0 && v.abs() < (1u64 << 53) as f64;
        if let Some(row) = values.iter().position(|v| !whole(v)) {
            let problem = format!(
                "row {row} has label {}, and labels are whole numbers or texts: \
                 save them as `y.astype('int64')`",
                values[row]
            );
            return Err(Error::format(path, problem));
        }
        values.into_iter().map(|v| v as i64).collect()
    } else {
        return Ok(label);
    };
    let bytes = values.into_iter().flat_map(i64::to_le_bytes).collect();
    Ok(Array::owned(bytes, Dtype::I64, &[rows]))
}

/// Texts as the numbers that they write, if all do; an empty one is −1.
fn numbers(names: &[String]) -> Option<Vec<i64>> {
    let number = |name: &String| match name.trim() {
        "" => Some(-1),
        text => text.parse::<i64>().ok().or_else(|| {
            let value = text.parse::<f64>().ok()?;
            (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64)
        }),
    };
    names.iter().map(number).collect()
}
