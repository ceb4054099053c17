//! One file (or one group of arrays) of a feature set, checked.

use std::path::Path;
use std::sync::Arc;

use super::names::NAME;
use super::whole_labels::whole;
use super::{Field, Part};
use crate::error::{Error, Result};
use crate::io::{Array, Dtype, Names, TensorFile, Texts};
use crate::math::reduce;

/// Arrays with the same number of rows. A clone shares their bytes.
#[derive(Clone)]
pub(super) struct Shard {
    pub(super) place: String,
    /// Where the labels come from: the same, unless given apart.
    pub(super) label_place: String,
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) fields: Vec<(Field, Array)>,
    pub(super) label: Option<Array>,
    /// Whether the labels were texts.
    pub(super) texts: bool,
    pub(super) names: Option<Texts>,
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
        let mut fields: Vec<(Field, Array)> = Vec::new();
        let (mut label, mut names) = (None, None);
        let mut rows = None;
        for (name, array) in arrays {
            let Some(field) = Field::named(&name) else {
                match &*name {
                    "label" => label = Some(array),
                    "avg_std" => {
                        let problem = "`avg_std` is made of `avg` and `std`: give these two";
                        return Err(Error::format(path, problem));
                    }
                    CLASS_NAMES => names = Some(listed_names(path, &array)?),
                    _ => {}
                }
                continue;
            };
            let array = array.squeezed();
            if array.shape.len() != 2 || array.shape[1] == 0 {
                let maps = array.shape.len() == 4;
                let pool = if maps { ": pool the maps first, as `x.mean((2, 3))`" } else { "" };
                return Err(shape_error(&name, format!("[N, D]{pool}"), &array));
            }
            let n = *rows.get_or_insert(array.rows());
            if n != array.rows() {
                return Err(shape_error(
                    &name,
                    format!("[{n}, D], as many rows as the other fields"),
                    &array,
                ));
            }
            if !array.dtype.is_float() || array.names.is_some() {
                return Err(Error::format(
                    path,
                    format!(
                        "`{name}` has type {:?}, expected f16, bf16, f32 or f64: save it as `x.astype('float32')`",
                        array.dtype
                    ),
                ));
            }
            // The last of equal ones counts.
            fields.retain(|(other, _)| *other != field);
            fields.push((field, array));
        }
        let Some(rows) = rows else {
            return Err(Error::missing(
                place,
                "`avg`, `std`, `max`, `logits` or `probs`",
                "name the matrix so",
            ));
        };
        fields.sort_by_key(|(field, _)| field.order());
        let mut pooled: Option<&(Field, Array)> = None;
        for own in fields.iter().filter(|(f, _)| matches!(f.base(), Field::Features(_))) {
            match pooled.filter(|(first, _)| first.part() == own.0.part()) {
                Some((first, a)) if own.1.cols() != a.cols() => {
                    let expected = format!("[N, {}], the dimension of {}", a.cols(), first.name());
                    return Err(shape_error(own.0.name(), expected, &own.1));
                }
                Some(_) => {}
                None => pooled = Some(own),
            }
        }
        let mut shard = Shard {
            label_place: place.clone(),
            place,
            start: 0,
            rows,
            fields,
            label: None,
            texts: false,
            names: None,
        };
        if let Some(mut label) = label {
            if label.names.is_none() {
                label.names = names;
            } else if names.is_none() {
                shard.texts = true;
            }
            shard.set_label(path, label)?;
        }
        Ok(shard)
    }

    /// Give it these names, if there are some.
    pub(super) fn named(mut self, names: Option<Texts>) -> Result<Self> {
        if let Some(names) = names.as_ref().filter(|names| names.len() != self.rows) {
            return Err(Error::Shape {
                place: self.place,
                tensor: NAME.into(),
                expected: format!("[{}], one name a row", self.rows),
                got: format!("[{}]", names.len()),
            });
        }
        self.names = names;
        Ok(self)
    }

    /// Of a known network labels are numbers of its classes, whatever these are called.
    pub(super) fn of_network(mut self, known: bool) -> Self {
        self.texts &= !known;
        self
    }

    /// Give it these labels.
    pub(super) fn set_label(&mut self, path: &Path, label: Array) -> Result<()> {
        let listed = label.names.clone().filter(|_| !self.texts);
        let mut label = Array { names: label.names.filter(|_| self.texts), ..label };
        label = whole(path, label, self.rows)?;
        self.texts = self.texts && label.names.is_some();
        if let Some(listed) = listed {
            label.names = Some(listed);
        }
        self.label = Some(label);
        Ok(())
    }

    /// The array of a field.
    pub(super) fn array(&self, field: Field) -> Option<&Array> {
        self.fields.iter().find(|(f, _)| *f == field).map(|(_, array)| array)
    }

    /// The same rows with the fields of a part alone.
    pub(super) fn part(&self, part: Part) -> Self {
        let inside = |(field, array): &(Field, Array)| Some((field.inside(part)?, array.clone()));
        let mut fields: Vec<_> = self.fields.iter().filter_map(inside).collect();
        fields.sort_by_key(|(field, _)| field.order());
        Shard { fields, ..self.clone() }
    }

    pub(super) fn read(
        &self,
        field: Field,
        start: usize,
        dim: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let Some(array) = self.array(field) else {
            return Ok(());
        };
        array.read_f32(start * dim, out);
        self.check(field, start, dim, out)
    }

    /// Refuse values of rows `start..` that are not finite.
    pub(super) fn check(&self, field: Field, start: usize, dim: usize, rows: &[f32]) -> Result<()> {
        if reduce::all_finite(rows) {
            return if field.base() == Field::Probabilities {
                self.sums(start, dim, rows)
            } else {
                Ok(())
            };
        }
        self.finite(field, start, dim, rows, f32::is_finite)
    }

    /// Refuse rows that are no probabilities.
    fn sums(&self, start: usize, dim: usize, rows: &[f32]) -> Result<()> {
        for (i, row) in rows.chunks_exact(dim).enumerate() {
            let sum: f64 = row.iter().map(|v| f64::from(*v)).sum();
            let within = row.iter().all(|v| (0.0..=1.001).contains(v));
            if !within || (sum - 1.0).abs() > 0.02 {
                let problem = format!(
                    "row {} of `probs` sums to {sum:.4}, or leaves 0..1: probabilities are expected;                      name logits `logits`",
                    start + i
                );
                return Err(Error::format(&self.place, problem));
            }
        }
        Ok(())
    }

    /// The same in double precision.
    pub(super) fn read_f64(
        &self,
        field: Field,
        start: usize,
        dim: usize,
        out: &mut [f64],
    ) -> Result<()> {
        let Some(array) = self.array(field) else {
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

/// Names of arrays that a set may have.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    Field::ALL.into_iter().map(Field::name).chain(["label", CLASS_NAMES])
}

/// The array of class names in files of numpy's.
pub(super) const CLASS_NAMES: &str = "classes";

/// The texts of an array in its order.
fn listed_names(path: &Path, array: &Array) -> Result<Names> {
    let Some(names) = &array.names else {
        let problem = "`classes` holds no texts: the names of the classes are expected there";
        return Err(Error::format(path, problem));
    };
    let count = array.shape.iter().product();
    Ok(Arc::new((0..count).map(|i| names[array.integer(i) as usize].clone()).collect()))
}

pub(super) fn owned(bytes: Vec<u8>, dtype: Dtype, shape: &[usize]) -> Array {
    Array::owned(bytes, dtype, shape)
}

/// Names of arrays that are fields of parts: matrices with as many rows as the set's own fields have.
/// (Other programs keep `input.std`, three numbers, beside features.)
pub(super) fn of_parts<'a>(
    listed: impl Iterator<Item = (&'a str, &'a [usize])> + Clone,
) -> Vec<String> {
    let own = |name: &str| Field::ALL.iter().any(|field| field.name() == name);
    let rows = listed.clone().find(|(name, _)| own(name)).and_then(|(_, shape)| shape.first());
    let fits = |shape: &[usize]| match shape {
        [n, _] => rows.is_none_or(|rows| rows == n),
        _ => false,
    };
    let parts = listed.filter(|(name, shape)| name.contains('.') && fits(shape));
    parts.filter(|(name, _)| Field::named(name).is_some()).map(|(name, _)| name.into()).collect()
}

pub(super) fn safetensors_arrays(file: &TensorFile) -> Result<Vec<(String, Array)>> {
    let content = file.content();
    if !["features", "labels", "other tensors"].contains(&content) {
        return Err(Error::format(file.path(), format!("holds {content}, not features")));
    }
    let own = Field::ALL.map(|field| field.name().to_owned()).into_iter();
    let listed = file.list();
    let shapes = listed.iter().map(|(name, _, shape)| (&**name, &**shape));
    let names = own.chain(["label".to_owned()]).chain(of_parts(shapes));
    let arrays = names.filter_map(|n| file.array(&n).map(|a| a.map(|a| (n, a))));
    let mut arrays: Vec<_> = arrays.collect::<Result<_>>()?;
    let label = arrays.iter_mut().find(|(name, _)| name == "label");
    if let (Some((_, label)), Some(names)) = (label, file.class_names()?) {
        label.names = Some(Arc::new(names));
    }
    Ok(arrays)
}
