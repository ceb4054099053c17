//! Views: some rows of a set, perhaps of some classes only.
//!
//! Nothing is copied: reads go through to the mapped shards, runs of
//! consecutive rows together. Where classes were chosen, labels become
//! positions in the choice, and stored logits lose the other columns.

use std::borrow::Cow;
use std::ops::Range;

use super::super::shard::Shard;
use super::FeatureSet;
use crate::error::{Error, Result};
use crate::features::{Field, Pooling};
use crate::io::sha256_of;
use crate::math::parallel::{Pieces, Slices};
use crate::math::{blocks, parallel};

/// Which rows and classes of the stored ones a set shows.
#[derive(Clone, Default)]
pub(in crate::features) struct View {
    /// Stored row of each row shown; `None`: all.
    rows: Option<Vec<u32>>,
    /// Labels shown, ascending; `None`: all.
    classes: Option<Vec<u32>>,
    /// Fraction of the rows that were to choose from; `None`: all.
    proportion: Option<f64>,
}

impl View {
    pub(in crate::features) fn is_whole(&self) -> bool {
        self.rows.is_none() && self.classes.is_none()
    }

    /// The classes that were chosen, if some were.
    pub(in crate::features) fn chosen(&self) -> Option<&[u32]> {
        self.classes.as_deref()
    }

    pub(in crate::features) fn stored_row(&self, row: usize) -> usize {
        self.rows.as_ref().map_or(row, |rows| rows[row] as usize)
    }

    pub(in crate::features) fn relabelled(&self, label: i64) -> i64 {
        let Some(classes) = &self.classes else {
            return label;
        };
        let place = u32::try_from(label).ok().and_then(|l| classes.binary_search(&l).ok());
        place.map_or(-1, |i| i as i64)
    }

    /// A name and digest of the choice, if there is one.
    pub(in crate::features) fn digest(&self, shown: usize) -> Option<(String, String)> {
        if self.is_whole() {
            return None;
        }
        // Each list after its length, so that different choices differ.
        let lists = [&self.rows, &self.classes].into_iter();
        let words = lists.flat_map(|list| {
            let length = list.as_ref().map_or(u32::MAX, |l| l.len() as u32);
            std::iter::once(length).chain(list.iter().flatten().copied())
        });
        let classes =
            self.classes.as_ref().map_or(String::new(), |c| format!(" of {} classes", c.len()));
        Some((format!("subset: {shown} rows{classes}"), sha256_of(words.map(u32::to_le_bytes))))
    }

    /// The longest ranges of consecutive stored rows that make up `range`.
    fn runs(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let left = at..range.end;
            if left.is_empty() {
                return None;
            }
            let (start, n) = match self.rows.as_ref().map(|rows| &rows[left.clone()]) {
                None => (at, left.len()),
                Some(rows) => {
                    let next = |w: &&[u32]| w[0].checked_add(1) == Some(w[1]);
                    (rows[0] as usize, 1 + rows.windows(2).take_while(next).count())
                }
            };
            at += n;
            Some(start..start + n)
        })
    }
}

impl FeatureSet {
    /// A view of the given rows, in their order. With `classes` (ascending)
    /// only these are left: a label becomes its position among them, and
    /// stored logits keep their columns. No feature is copied.
    ///
    /// # Errors
    /// If a row does not exist or none is given, `classes` are not ascending,
    /// or a row has another label than these.
    pub fn select(&self, rows: Vec<u32>, classes: Option<Vec<u32>>) -> Result<Self> {
        if let Some(row) = rows.iter().find(|r| **r as usize >= self.rows) {
            let problem = format!("{} has {} rows, from 0", self.name, self.rows);
            return Err(Error::config("rows", row, problem));
        }
        if rows.is_empty() {
            return Err(Error::config("rows", "[]", "choose at least one row"));
        }
        let mut out = self.clone();
        out.rows = rows.len();
        let stored = rows.into_iter().map(|r| self.view.stored_row(r as usize) as u32);
        out.view.rows = Some(stored.collect());
        if let Some(classes) = classes {
            out.choose(classes)?;
            let classes = out.view.classes.as_ref().map_or(0, Vec::len);
            for range in blocks(out.rows, 1 << 16) {
                out.labels(range, classes)?;
            }
        }
        let chosen =
            out.view.classes.as_ref().map_or(String::new(), |c| format!(", {} classes", c.len()));
        out.name = format!("{} (subset: {} rows{chosen})", self.base_name(), out.rows);
        Ok(out)
    }

    /// A view whose stored logits have the columns of these classes alone;
    /// its labels, which may be others, are left out.
    ///
    /// # Errors
    /// If `classes` are not ascending, or the logits have fewer.
    pub fn with_logits_of(&self, classes: &[u32]) -> Result<Self> {
        let mut out = self.clone();
        out.labelled = false;
        out.choose(classes.to_vec())?;
        Ok(out)
    }

    /// The fraction α of the rows of its classes that a training subset holds; 1
    /// for a whole set. [`crate::scorers::KnnConfig`] scales its k with it.
    pub fn proportion(&self) -> f64 {
        self.view.proportion.unwrap_or(1.0)
    }

    /// Set the fraction α.
    pub(in crate::features) fn set_proportion(&mut self, proportion: f64) {
        self.view.proportion = Some(self.proportion() * proportion);
    }

    fn base_name(&self) -> &str {
        self.name.split(" (subset: ").next().unwrap_or_default()
    }

    /// Choose among the classes shown so far.
    fn choose(&mut self, classes: Vec<u32>) -> Result<()> {
        if classes.is_empty() || !classes.is_sorted_by(|a, b| a < b) {
            let problem = "name each class once, in ascending order, at least one";
            return Err(Error::config("classes", format!("{classes:?}"), problem));
        }
        let last = classes[classes.len() - 1] as usize;
        let known = self.view.classes.as_ref().map(Vec::len).or(self.dim(Field::Logits));
        if let Some(known) = known.filter(|known| last >= *known) {
            let problem = format!("{} has {known} classes, from 0", self.name);
            return Err(Error::config("classes", last, problem));
        }
        // Probabilities of some classes alone do not sum to 1.
        self.dims.retain(|(field, _)| field.base() != Field::Probabilities);
        let logits = self.dims.iter_mut().filter(|(field, _)| field.base() == Field::Logits);
        logits.for_each(|(_, dim)| *dim = classes.len());
        self.view.classes = Some(match &self.view.classes {
            Some(old) => classes.iter().map(|&c| old[c as usize]).collect(),
            None => classes,
        });
        Ok(())
    }

    /// A label as it is, whatever the number of classes.
    ///
    /// # Errors
    /// If it is no i64.
    pub(in crate::features) fn raw_label(&self, row: usize) -> Result<i64> {
        self.check_rows()?;
        let row = self.view.stored_row(row);
        let shard = self.shard_of(row);
        let label = shard.label.as_ref().map_or(i64::MAX, |l| l.integer(row - shard.start));
        if label == i64::MAX {
            let problem = format!("row {} has a label beyond i64", row - shard.start);
            return Err(Error::format(&shard.label_place, problem));
        }
        match self.view.classes {
            Some(_) => Ok(self.view.relabelled(self.classes.class(label))),
            None => Ok(label),
        }
    }

    /// Rows of a field as they lie in memory, checked as by
    /// [`FeatureSet::read`]; `None` where they must be converted or put
    /// together.
    pub(crate) fn borrow_rows(&self, field: Field, range: Range<usize>) -> Result<Option<&[f32]>> {
        let Some((shard, start, rows)) = self.stored(field, range) else {
            return Ok(None);
        };
        shard.check(field, start, self.require(field)?, rows)?;
        Ok(Some(rows))
    }

    /// Rows of a field, on all threads: lent, or else read.
    pub(crate) fn rows(&self, field: Field, range: Range<usize>) -> Result<Cow<'_, [f32]>> {
        let dim = self.require(field)?;
        if let Some((shard, start, rows)) = self.stored(field, range.clone()) {
            const ROWS: usize = 256;
            let check = |(i, rows)| shard.check(field, start + i * ROWS, dim, rows);
            parallel::run_all(rows.par_chunks(ROWS * dim).enumerate().map(check))?;
            return Ok(Cow::Borrowed(rows));
        }
        let mut rows = vec![0.0; range.len() * dim];
        self.read_parallel(field, range, &mut rows)?;
        Ok(Cow::Owned(rows))
    }

    /// Rows that lie in one shard, one after the other, in single precision:
    /// with the shard and the number of the first there.
    fn stored(&self, field: Field, range: Range<usize>) -> Option<(&Shard, usize, &[f32])> {
        if self.view.classes.is_some() && field.base() == Field::Logits {
            return None;
        }
        self.check_rows().ok()?;
        let run = self.view.runs(range.clone()).next().filter(|run| run.len() == range.len())?;
        let shard = self.shard_of(run.start);
        let start = run.start - shard.start;
        let array = shard.array(field).filter(|_| start + run.len() <= shard.rows)?;
        let dim = array.cols();
        Some((shard, start, array.as_f32(start * dim, run.len() * dim)?))
    }

    /// Copy rows of a field into `out`, whatever type it has.
    pub(in crate::features) fn read_through<T: Copy + Default>(
        &self,
        field: Field,
        range: Range<usize>,
        out: &mut [T],
        read: fn(&Shard, Field, usize, usize, &mut [T]) -> Result<()>,
    ) -> Result<()> {
        let dim = self.require(field)?;
        self.check_rows()?;
        let out = &mut out[..range.len() * dim];
        if field.base() == Field::Features(Pooling::AvgStd) {
            return self.read_side_by_side(field, range, out, read);
        }
        let classes = self.view.classes.as_ref().filter(|_| field.base() == Field::Logits);
        let Some(classes) = classes else {
            return self.read_stored(field, range, dim, out, read);
        };
        let stored = self.shards[0].array(field).map_or(dim, |a| a.cols());
        let mut whole = vec![T::default(); range.len() * stored];
        self.read_stored(field, range, stored, &mut whole, read)?;
        for (out, whole) in out.chunks_exact_mut(dim).zip(whole.chunks_exact(stored)) {
            for (o, &c) in out.iter_mut().zip(classes) {
                *o = whole[c as usize];
            }
        }
        Ok(())
    }

    /// Rows of `avg` and `std`, `[n, 2D]`.
    fn read_side_by_side<T: Copy + Default>(
        &self,
        field: Field,
        range: Range<usize>,
        out: &mut [T],
        read: fn(&Shard, Field, usize, usize, &mut [T]) -> Result<()>,
    ) -> Result<()> {
        let mut half = vec![T::default(); out.len() / 2];
        let dim = half.len() / range.len().max(1);
        for (i, own) in field.sides().into_iter().enumerate() {
            self.read_stored(own, range.clone(), dim, &mut half, read)?;
            let rows = out.chunks_exact_mut(2 * dim).zip(half.chunks_exact(dim));
            rows.for_each(|(out, half)| out[i * dim..][..dim].copy_from_slice(half));
        }
        Ok(())
    }

    /// Rows of `dim` stored columns, run by run and shard by shard.
    fn read_stored<T>(
        &self,
        field: Field,
        range: Range<usize>,
        dim: usize,
        mut out: &mut [T],
        read: fn(&Shard, Field, usize, usize, &mut [T]) -> Result<()>,
    ) -> Result<()> {
        for run in self.view.runs(range) {
            let mut at = run.start;
            while at < run.end {
                let shard = self.shard_of(at);
                let local = at - shard.start;
                let n = (run.end - at).min(shard.rows - local);
                let (now, later) = out.split_at_mut(n * dim);
                read(shard, field, local, dim, now)?;
                (at, out) = (at + n, later);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Part;

    const BOTH: Field = Field::Features(Pooling::AvgStd);

    fn matrix(rows: usize, columns: usize, salt: f32) -> ndarray::Array2<f32> {
        ndarray::Array2::from_shape_fn((rows, columns), |(i, j)| salt + (10 * i + j) as f32)
    }

    #[test]
    fn mean_and_deviation_side_by_side() {
        let set = FeatureSet::in_memory("x").avg(matrix(3, 2, 0.0)).std(matrix(3, 2, 100.0));
        let set = set.build().unwrap();
        assert_eq!(set.dim(BOTH), Some(4));
        let want = [20.0, 21.0, 120.0, 121.0, 0.0, 1.0, 100.0, 101.0];
        let view = set.select(vec![2, 0], None).unwrap();
        assert_eq!(view.rows(BOTH, 0..2).unwrap(), &want[..]);
        let mut gathered = [0.0; 4];
        set.gather(BOTH, &[1], &mut gathered).unwrap();
        assert_eq!(gathered, [10.0, 11.0, 110.0, 111.0]);
        let alone = FeatureSet::in_memory("x").avg(matrix(3, 2, 0.0)).build().unwrap();
        let said = alone.require(BOTH).unwrap_err().to_string();
        assert!(said.contains("`avg_std`") && said.contains("it has: avg"), "{said}");
    }

    #[test]
    fn a_part_is_a_set_of_the_same_rows() {
        let [mirror, mid] = ["mirror", "mid"].map(|name| Part::named(name).unwrap());
        let logits = Field::Logits.within(mirror);
        let inner = Field::Features(Pooling::Avg).within(mid).within(mirror);
        let set = FeatureSet::in_memory("x")
            .avg(matrix(3, 2, 0.0))
            .field(inner, matrix(3, 4, 50.0))
            .field(logits, matrix(3, 3, 7.0))
            .labels([0u8, 1, 2])
            .build()
            .unwrap();
        assert_eq!(set.parts().len(), 2);
        let view = set.select(vec![2, 1], None).unwrap().part(mirror).unwrap();
        assert_eq!((view.len(), view.labels(0..2, 3).unwrap()), (2, vec![2, 1]));
        assert_eq!(view.dim(Field::Features(Pooling::Avg)), None);
        assert_eq!(view.rows(Field::Logits, 0..1).unwrap(), &[27.0, 28.0, 29.0][..]);
        let deep = view.part(mid).unwrap();
        assert_eq!(deep.rows(Field::Features(Pooling::Avg), 0..1).unwrap()[0], 70.0);
        // Logits of some classes alone, in the part too.
        let some = set.select(vec![0, 2], Some(vec![0, 2])).unwrap();
        assert_eq!(some.rows(logits, 1..2).unwrap(), &[27.0, 29.0][..]);
        let said = set.part(mid).err().unwrap().to_string();
        assert!(said.contains("has no features of `mid`") && said.contains("mirror"), "{said}");
    }

    /// Files hold parts, in every form that has names; what another program keeps under such a name
    /// and is no matrix of these rows is none.
    #[test]
    fn files_hold_parts() {
        use crate::features::{ConvertConfig, Form, convert};
        use crate::io::{Tensor, save_tensors};
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let tensors = [
            ("avg".to_owned(), Tensor::f32([2, 3], (0..6u8).map(f32::from).collect::<Vec<f32>>())),
            ("mid.avg".to_owned(), Tensor::f32([2, 1], vec![7.0, 8.0])),
            ("input.std".to_owned(), Tensor::f32([3], vec![0.2; 3])),
            ("other.avg".to_owned(), Tensor::f32([5, 3], vec![0.0; 15])),
        ];
        save_tensors(&path("a.safetensors"), &tensors, &[]).unwrap();
        let set = FeatureSet::open(path("a.safetensors")).unwrap();
        let names: Vec<&str> = set.fields().map(Field::name).collect();
        assert_eq!(names, ["avg", "mid.avg"]);
        for (name, form) in [("b.npz", Form::Npz), ("c.safetensors", Form::Safetensors)] {
            let config = ConvertConfig { form: Some(form), ..ConvertConfig::default() };
            convert(&set, None, &path(name), &config, &mut crate::observe::Silent).unwrap();
            let back = FeatureSet::open(path(name)).unwrap();
            let mid = back.part(Part::named("mid").unwrap()).unwrap();
            assert_eq!(mid.rows(Field::Features(Pooling::Avg), 0..2).unwrap(), &[7.0, 8.0][..]);
        }
    }
}
