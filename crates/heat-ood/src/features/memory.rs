//! Feature sets of arrays in memory.

use std::path::Path;
use std::sync::Arc;

use ndarray::{ArcArray2, Array2, ArrayView2};

use super::convert::FloatType;
use super::shard::{Shard, owned};
use super::{FeatureSet, Field, Pooling, names};
use crate::error::{Error, Result};
use crate::io::{Array, Bytes, Dtype, Texts};

/// Whoever keeps values alive that a [`Matrix`] shares.
///
/// `as_ref` must give the same values whenever it is called.
pub type Owner = Arc<dyn AsRef<[f32]> + Send + Sync>;

/// Whoever keeps the bytes of values of another type alive, as [`Owner`] does.
pub type ByteOwner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A row-major matrix in memory, `[rows, columns]`. A clone shares the values.
///
/// Made from an array of `ndarray`: an [`ArrayView2`] is copied, an [`Array2`]
/// taken over and an [`ArcArray2`] shared, these two without a copy where they
/// are in standard layout. [`Matrix::shared`] takes values of any other owner.
#[derive(Clone)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Values,
}

#[derive(Clone)]
enum Values {
    Single(Owner),
    Other(FloatType, ByteOwner),
}

impl Matrix {
    /// The values of an owner, such as `Arc<Vec<f32>>` or a buffer that belongs
    /// to another language, as `rows` rows. Nothing is copied.
    ///
    /// # Errors
    /// If there are no values, or they are not a whole number of rows.
    pub fn shared(rows: usize, values: Owner) -> Result<Self> {
        let columns = columns(rows, values.as_ref().as_ref().len())?;
        Ok(Matrix { rows, columns, values: Values::Single(values) })
    }

    /// The same of values of another type, given by their bytes (little-endian).
    ///
    /// # Errors
    /// As [`Matrix::shared`].
    pub fn shared_bytes(rows: usize, values: ByteOwner, kind: FloatType) -> Result<Self> {
        let (length, size) = (values.as_ref().as_ref().len(), Dtype::from(kind).size());
        // A value cut in two is no row.
        let whole = if length.is_multiple_of(size) { length / size } else { 0 };
        Ok(Matrix { rows, columns: columns(rows, whole)?, values: Values::Other(kind, values) })
    }

    fn array(self) -> Array {
        let (dtype, bytes) = match self.values {
            Values::Single(owner) => (Dtype::F32, Bytes::from(owner)),
            Values::Other(kind, owner) => (kind.into(), Bytes::from(owner)),
        };
        let shape = vec![self.rows, self.columns];
        Array { bytes: Arc::new(bytes), offset: 0, dtype, shape, names: None }
    }
}

/// D of so many values in so many rows.
fn columns(rows: usize, length: usize) -> Result<usize> {
    if rows == 0 || length == 0 || !length.is_multiple_of(rows) {
        return Err(Error::Shape {
            place: "memory".into(),
            tensor: "matrix".into(),
            expected: format!("[{rows}, D]"),
            got: format!("{length} values"),
        });
    }
    Ok(length / rows)
}

impl From<ArrayView2<'_, f32>> for Matrix {
    fn from(view: ArrayView2<'_, f32>) -> Self {
        let (rows, columns) = view.dim();
        let values: Vec<f32> = view.iter().copied().collect();
        Matrix { rows, columns, values: Values::Single(Arc::new(values)) }
    }
}

impl From<ArcArray2<f32>> for Matrix {
    fn from(array: ArcArray2<f32>) -> Self {
        if !array.is_standard_layout() {
            return array.view().into();
        }
        let (rows, columns) = array.dim();
        Matrix { rows, columns, values: Values::Single(Arc::new(Standard(array))) }
    }
}

impl From<Array2<f32>> for Matrix {
    fn from(array: Array2<f32>) -> Self {
        array.into_shared().into()
    }
}

/// An array in standard layout.
struct Standard(ArcArray2<f32>);

impl AsRef<[f32]> for Standard {
    fn as_ref(&self) -> &[f32] {
        self.0.as_slice().unwrap_or_default()
    }
}

/// Puts a feature set together from arrays: [`FeatureSet::in_memory`].
pub struct InMemory {
    name: String,
    arrays: Vec<(String, Array)>,
    names: Option<std::result::Result<Texts, String>>,
}

impl InMemory {
    /// Mean over the feature map, `[N, D]`.
    pub fn avg(self, matrix: impl Into<Matrix>) -> Self {
        self.field(Field::Features(Pooling::Avg), matrix)
    }

    /// Standard deviation over the feature map, `[N, D]`.
    pub fn std(self, matrix: impl Into<Matrix>) -> Self {
        self.field(Field::Features(Pooling::Std), matrix)
    }

    /// Maximum over the feature map, `[N, D]`.
    pub fn max(self, matrix: impl Into<Matrix>) -> Self {
        self.field(Field::Features(Pooling::Max), matrix)
    }

    /// The classifier's outputs, `[N, C]`.
    pub fn logits(self, matrix: impl Into<Matrix>) -> Self {
        self.field(Field::Logits, matrix)
    }

    /// The classifier's probabilities, `[N, C]`.
    pub fn probabilities(self, matrix: impl Into<Matrix>) -> Self {
        self.field(Field::Probabilities, matrix)
    }

    /// Any of these by name; the last of equal ones counts.
    pub fn field(mut self, field: Field, matrix: impl Into<Matrix>) -> Self {
        self.arrays.push((field.name().to_owned(), matrix.into().array()));
        self
    }

    /// Class indices, one a row.
    pub fn labels<L: Into<i64>>(mut self, labels: impl IntoIterator<Item = L>) -> Self {
        let labels: Vec<i64> = labels.into_iter().map(Into::into).collect();
        let bytes = labels.iter().flat_map(|l| l.to_le_bytes()).collect();
        self.arrays.push(("label".into(), owned(bytes, Dtype::I64, &[labels.len()])));
        self
    }

    /// Names of the classes by the numbers of the labels, which must have been given.
    ///
    /// # Errors
    /// If there are no labels.
    pub fn class_names(mut self, names: Vec<String>) -> Result<Self> {
        let label = self.arrays.iter_mut().rfind(|(name, _)| name == "label");
        let (_, label) = label.ok_or_else(|| {
            Error::missing(&self.name, "`label`", "give the labels before their names")
        })?;
        label.names = Some(Arc::new(names));
        Ok(self)
    }

    /// Names of the rows, one each: of images, their files.
    pub fn names<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Self {
        InMemory { names: Some(Texts::owned(names)), ..self }
    }

    /// The set. Values are checked when they are read, as those of files are.
    ///
    /// # Errors
    /// If there is no matrix, one is empty, numbers of rows or the dimensions of pooled features
    /// disagree, or a name is longer than 4096 bytes or holds NUL.
    pub fn build(self) -> Result<FeatureSet> {
        let path = Path::new(&self.name);
        let names = self.names.transpose().map_err(|problem| names::wrong(path, &problem))?;
        FeatureSet::assemble(path, Vec::new(), vec![Shard::new(path, self.arrays)?.named(names)?])
    }
}

impl FeatureSet {
    /// Begin a set of arrays in memory; `name` is used in messages.
    ///
    /// ```
    /// use heat_ood::features::FeatureSet;
    /// use heat_ood::ndarray::{ArcArray2, array};
    ///
    /// # fn main() -> heat_ood::Result<()> {
    /// let avg: ArcArray2<f32> = array![[0.5, 1.0], [2.0, 0.0], [1.5, 0.5]].into_shared();
    /// // Shared, not copied.
    /// let set = FeatureSet::in_memory("train").avg(avg.clone()).labels([0u8, 1, 0]).build()?;
    /// assert_eq!((set.len(), set.classes()?), (3, 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn in_memory(name: impl Into<String>) -> InMemory {
        InMemory { name: name.into(), arrays: Vec::new(), names: None }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::*;

    const AVG: Field = Field::Features(Pooling::Avg);

    fn values(rows: usize, columns: usize, salt: f32) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(i, j)| salt + (10 * i + j) as f32)
    }

    fn address(set: &FeatureSet, field: Field) -> *const f32 {
        set.rows(field, 0..set.len()).unwrap().as_ptr()
    }

    #[test]
    fn what_is_shared_is_not_copied() {
        let array = values(4, 3, 0.0).into_shared();
        let set = FeatureSet::in_memory("x").avg(array.clone()).build().unwrap();
        assert_eq!(address(&set, AVG), array.as_ptr());
        let own = values(4, 3, 0.0);
        let before = own.as_ptr();
        let set = FeatureSet::in_memory("x").std(own).build().unwrap();
        assert_eq!(address(&set, Field::Features(Pooling::Std)), before);
        let other = Arc::new(vec![1.0f32; 12]);
        let matrix = Matrix::shared(4, other.clone()).unwrap();
        let set = FeatureSet::in_memory("x").logits(matrix).build().unwrap();
        assert_eq!(address(&set, Field::Logits), other.as_ptr());
        assert_eq!(set.dim(Field::Logits), Some(3));
    }

    /// The set keeps the values alive.
    #[test]
    fn the_owner_may_go() {
        let set = {
            let array = values(2, 2, 5.0).into_shared();
            FeatureSet::in_memory("x").avg(array).build().unwrap()
        };
        assert_eq!(&*set.rows(AVG, 0..2).unwrap(), [5.0, 6.0, 15.0, 16.0]);
    }

    #[test]
    fn other_strides_are_copied_right() {
        let whole = values(4, 6, 0.0);
        let want = [0.0, 2.0, 4.0, 20.0, 22.0, 24.0];
        let view = whole.slice(s![..;2, ..;2]);
        let strided = whole.clone().into_shared().slice_move(s![..;2, ..;2]);
        for matrix in [Matrix::from(view), Matrix::from(strided)] {
            let set = FeatureSet::in_memory("x").avg(matrix).build().unwrap();
            assert_eq!(&*set.rows(AVG, 0..2).unwrap(), want);
        }
        let columns = whole.slice(s![..2, ..3]).reversed_axes().to_owned().reversed_axes();
        assert!(!columns.is_standard_layout());
        let set = FeatureSet::in_memory("x").avg(columns).build().unwrap();
        assert_eq!(&*set.rows(AVG, 0..2).unwrap(), [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]);
    }

    #[test]
    fn all_fields_and_labels_come_back() {
        let matrices: Vec<_> = (0..4).map(|i| values(2, 2 + i / 3, i as f32)).collect();
        let [avg, std, max, logits] = &matrices[..] else { unreachable!() };
        let set = FeatureSet::in_memory("all").avg(avg.view()).std(std.view()).max(max.view());
        let set = set.logits(logits.view()).labels([2i64, 0]).build().unwrap();
        for (field, want) in Field::ALL.into_iter().zip(&matrices) {
            assert_eq!(&*set.rows(field, 0..2).unwrap(), want.as_slice().unwrap());
        }
        assert_eq!(set.labels(0..2, 3).unwrap(), [2, 0]);
        assert_eq!((set.name(), set.len(), set.files().len()), ("all", 2, 0));
    }

    /// The half crate's encodings of 1.5 and -2, NumPy's of the same in f64.
    #[test]
    fn other_types_are_read_as_they_are() {
        let bytes = |values: &[&[u8]]| -> ByteOwner { Arc::new(values.concat()) };
        let half: ByteOwner = bytes(&[&[0x00, 0x3e], &[0x00, 0xc0]]);
        let brain = bytes(&[&[0xc0, 0x3f], &[0x00, 0xc0]]);
        let double = bytes(&[&1.5f64.to_le_bytes(), &(-2f64).to_le_bytes()]);
        for (kind, owner) in
            [(FloatType::F16, half), (FloatType::Bf16, brain), (FloatType::F64, double)]
        {
            let matrix = Matrix::shared_bytes(1, owner.clone(), kind).unwrap();
            let set = FeatureSet::in_memory("x").avg(matrix).build().unwrap();
            assert_eq!(&*set.rows(AVG, 0..1).unwrap(), [1.5, -2.0], "{kind:?}");
            assert!(Matrix::shared_bytes(3, owner, kind).is_err());
        }
        let odd = Arc::new(vec![0u8; 6]);
        assert!(Matrix::shared_bytes(1, odd, FloatType::F32).is_err());
    }

    #[test]
    fn names_of_classes_go_with_labels() {
        let set = || FeatureSet::in_memory("mine").avg(values(2, 2, 0.0));
        let names = vec!["cat".to_owned(), "dog".to_owned()];
        let named = set().labels([1u8, 0]).class_names(names.clone()).unwrap().build().unwrap();
        assert_eq!(named.class_names(), names);
        assert!(set().class_names(names).is_err());
    }

    #[test]
    fn what_cannot_be_a_set_is_refused() {
        let error = |set: InMemory| set.build().err().unwrap().to_string();
        let set = || FeatureSet::in_memory("mine").avg(values(3, 2, 0.0));
        let wrong = error(set().std(values(2, 2, 0.0)));
        assert!(wrong.contains("mine") && wrong.contains("expected [3, D]"), "{wrong}");
        let wrong = error(set().max(values(3, 4, 0.0)));
        assert!(wrong.contains("the dimension of avg"), "{wrong}");
        assert!(error(set().labels([0u8, 1])).contains("one label a row"));
        assert!(error(FeatureSet::in_memory("mine").labels([0u8])).contains("mine has no `avg`"));
        assert!(error(FeatureSet::in_memory("mine").avg(values(0, 2, 0.0))).contains("no rows"));
        let owner = || Arc::new(vec![0.0f32; 5]);
        assert!(Matrix::shared(2, owner()).is_err() && Matrix::shared(0, owner()).is_err());
        let label = set().labels([0i64, -1, 1]).build().unwrap().classes();
        assert!(label.unwrap_err().to_string().contains("row 1 has label -1"));
        let mut bad = values(3, 2, 0.0);
        bad[[2, 1]] = f32::NAN;
        let set = FeatureSet::in_memory("mine").avg(bad).build().unwrap();
        let wrong = set.rows(AVG, 0..3).unwrap_err().to_string();
        assert!(wrong.contains("row 2, column 1 is NaN"), "{wrong}");
    }
}
