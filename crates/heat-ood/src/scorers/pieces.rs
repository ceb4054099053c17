//! What statistics are made of: sums and lists that can be put together, written and read.
//!
//! A [`Statistic`](super::context::Statistic) of a part of the rows shows its [`Slot`]s; of each a [`Piece`]
//! is taken, those of all parts are merged, and the whole is put back into the slots of a statistic that has seen no row.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::{Tensor, TensorFile};
use crate::math::columns::ColumnCounts;
use crate::math::moments::{ClassMeans, Moments};
use crate::math::quantile::Histogram;

/// A sum over rows, or a list of them.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Means(ClassMeans),
    Moments(Moments),
    /// Values by all but their lowest bits.
    Quantile(Histogram),
    /// Values of each column by their topmost bits.
    Columns(ColumnCounts),
    Sums(Vec<f64>),
    Counts(Vec<u64>),
    /// Smallest and largest values.
    Range([f32; 2]),
    /// Rows of so many columns, one after the other; a clone shares them.
    Rows(usize, Arc<Vec<f32>>),
}

/// Where a statistic holds a piece.
pub(crate) enum Slot<'a> {
    /// With the classes that are wanted where all are given.
    Means(&'a mut ClassMeans, Option<Vec<usize>>),
    Moments(&'a mut Moments, Option<Vec<usize>>),
    Quantile(&'a mut Histogram),
    Columns(&'a mut ColumnCounts),
    Sums(&'a mut [f64]),
    Counts(&'a mut [u64]),
    Counts32(&'a mut [u32]),
    Range(&'a mut [f32; 2]),
    Rows(usize, &'a mut Arc<Vec<f32>>),
}

impl Slot<'_> {
    /// What it holds.
    pub fn take(self) -> Piece {
        match self {
            Slot::Means(means, _) => Piece::Means(means.clone()),
            Slot::Moments(moments, _) => Piece::Moments(moments.clone()),
            Slot::Quantile(histogram) => Piece::Quantile(histogram.clone()),
            Slot::Columns(counts) => Piece::Columns(counts.clone()),
            Slot::Sums(sums) => Piece::Sums(sums.to_vec()),
            Slot::Counts(counts) => Piece::Counts(counts.to_vec()),
            Slot::Counts32(counts) => Piece::Counts(counts.iter().map(|n| u64::from(*n)).collect()),
            Slot::Range(range) => Piece::Range(*range),
            Slot::Rows(dim, rows) => Piece::Rows(dim, Arc::clone(rows)),
        }
    }

    /// Hold this; `None` if it is of another kind or size.
    pub fn put(self, piece: &Piece) -> Option<()> {
        match (self, piece) {
            (Slot::Means(slot, chosen), Piece::Means(means)) => {
                let chosen = chosen.filter(|c| c.len() != means.counts().len());
                let means = match chosen {
                    Some(chosen) => means.clone().of_classes(&chosen)?,
                    None => means.clone(),
                };
                *slot = Some(means).filter(|m| m.shape() == slot.shape())?;
            }
            (Slot::Moments(slot, chosen), Piece::Moments(moments)) => {
                let chosen = chosen.filter(|c| c.len() != moments.counts().len());
                let moments = match chosen {
                    Some(chosen) => moments.clone().of_classes(&chosen)?,
                    None => moments.clone(),
                };
                *slot = Some(moments).filter(|m| m.shape() == slot.shape())?;
            }
            (Slot::Quantile(slot), Piece::Quantile(histogram)) => slot.clone_from(histogram),
            (Slot::Columns(slot), Piece::Columns(counts)) => slot.clone_from(counts),
            (Slot::Sums(slot), Piece::Sums(sums)) if slot.len() == sums.len() => {
                slot.copy_from_slice(sums);
            }
            (Slot::Counts(slot), Piece::Counts(counts)) if slot.len() == counts.len() => {
                slot.copy_from_slice(counts);
            }
            (Slot::Counts32(slot), Piece::Counts(counts)) if slot.len() == counts.len() => {
                for (slot, n) in slot.iter_mut().zip(counts) {
                    *slot = u32::try_from(*n).ok()?;
                }
            }
            (Slot::Range(slot), Piece::Range(range)) => *slot = *range,
            (Slot::Rows(dim, slot), Piece::Rows(other, rows)) if dim == *other => {
                slot.clone_from(rows);
            }
            _ => return None,
        }
        Some(())
    }
}

impl Piece {
    /// Whether another is of the same kind and size.
    pub fn fits(&self, other: &Piece) -> bool {
        match (self, other) {
            (Piece::Means(a), Piece::Means(b)) => a.shape() == b.shape(),
            (Piece::Moments(a), Piece::Moments(b)) => a.shape() == b.shape(),
            (Piece::Columns(a), Piece::Columns(b)) => a.fits(b),
            (Piece::Sums(a), Piece::Sums(b)) => a.len() == b.len(),
            (Piece::Counts(a), Piece::Counts(b)) => a.len() == b.len(),
            (Piece::Rows(d, _), Piece::Rows(e, _)) => d == e,
            (Piece::Quantile(_), Piece::Quantile(_)) | (Piece::Range(_), Piece::Range(_)) => true,
            _ => false,
        }
    }

    /// Also what another holds that [fits](Piece::fits), whose rows follow.
    pub fn merge(&mut self, other: &Piece) {
        match (self, other) {
            (Piece::Means(a), Piece::Means(b)) => a.merge(b),
            (Piece::Moments(a), Piece::Moments(b)) => a.merge(b),
            (Piece::Quantile(a), Piece::Quantile(b)) => a.merge(b),
            (Piece::Columns(a), Piece::Columns(b)) => a.merge(b),
            (Piece::Sums(a), Piece::Sums(b)) => a.iter_mut().zip(b).for_each(|(a, b)| *a += b),
            (Piece::Counts(a), Piece::Counts(b)) => {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = a.saturating_add(*b));
            }
            (Piece::Range(a), Piece::Range(b)) => *a = [a[0].min(b[0]), a[1].max(b[1])],
            (Piece::Rows(_, a), Piece::Rows(_, b)) => Arc::make_mut(a).extend_from_slice(b),
            _ => {}
        }
    }

    /// Number of classes, or of counts, that it holds something of each.
    pub fn classes(&self) -> usize {
        match self {
            Piece::Means(means) => means.shape()[0],
            Piece::Moments(moments) => moments.shape()[0],
            Piece::Counts(counts) => counts.len(),
            _ => 0,
        }
    }

    /// The word for it in files, and the size that its tensors do not tell.
    pub fn kind(&self) -> (&'static str, usize) {
        match self {
            Piece::Means(_) => ("means", 0),
            Piece::Moments(_) => ("moments", 0),
            Piece::Quantile(_) => ("quantile", 0),
            Piece::Columns(_) => ("columns", 0),
            Piece::Sums(_) => ("sums", 0),
            Piece::Counts(_) => ("counts", 0),
            Piece::Range(_) => ("range", 0),
            Piece::Rows(dim, _) => ("rows", *dim),
        }
    }

    /// Its tensors, under names that begin with `name`.
    pub fn tensors(self, name: &str) -> Vec<(String, Tensor)> {
        let named = |part: &str| format!("{name}.{part}");
        let whole = |values: Vec<u64>| values.into_iter().map(|v| v as i64).collect::<Vec<_>>();
        let list = |values: Vec<u64>| Tensor::i64([values.len()], whole(values));
        let of_means = |means: ClassMeans| {
            let (d, counts, means) = means.into_parts();
            let shape = [counts.len(), d];
            vec![(named("counts"), list(counts)), (named("means"), Tensor::f64(shape, means))]
        };
        match self {
            Piece::Means(means) => of_means(means),
            Piece::Moments(moments) => {
                let (means, triangle) = moments.into_parts();
                let mut tensors = of_means(means);
                tensors.push((named("scatter"), Tensor::f64([triangle.len()], triangle)));
                tensors
            }
            Piece::Quantile(histogram) => {
                let (bins, exact) = histogram.parts();
                let exact = list(vec![u64::from(exact)]);
                let shape = [bins.len(), 2];
                let bins = Tensor::i64(shape, whole(bins.into_iter().flatten().collect()));
                vec![(named("bins"), bins), (named("exact"), exact)]
            }
            Piece::Columns(counts) => {
                let (about, counts) = counts.parts();
                // Most bins are empty.
                let full = counts.iter().enumerate().filter(|(_, n)| **n > 0);
                let full: Vec<u64> = full.flat_map(|(i, n)| [i as u64, u64::from(*n)]).collect();
                let shape = [full.len() / 2, 2];
                let bins = Tensor::i64(shape, whole(full));
                vec![
                    (named("bins"), bins),
                    (named("about"), list(about.to_vec())),
                    (named("tables"), list(vec![counts.len() as u64])),
                ]
            }
            Piece::Sums(sums) => vec![(named("sums"), Tensor::f64([sums.len()], sums))],
            Piece::Counts(counts) => vec![(named("counts"), list(counts))],
            Piece::Range(range) => vec![(named("range"), Tensor::f32([2], range.to_vec()))],
            Piece::Rows(dim, rows) => {
                let rows = Arc::unwrap_or_clone(rows);
                vec![(named("rows"), Tensor::f32([rows.len() / dim, dim], rows))]
            }
        }
    }

    /// Read one back.
    ///
    /// # Errors
    /// If the file lacks its tensors, or they contradict each other.
    pub fn read(kind: &str, size: usize, file: &TensorFile, name: &str) -> Result<Self> {
        let named = |part: &str| format!("{name}.{part}");
        let damaged = || Error::format(file.path(), format!("its statistic `{name}` is damaged"));
        let whole = |part: &str| -> Result<Vec<u64>> {
            let name = named(part);
            let values = file.i64(&name, file.shape(&name)?)?;
            values.into_iter().map(|v| u64::try_from(v).map_err(|_| damaged())).collect()
        };
        let means = || -> Result<ClassMeans> {
            let counts = whole("counts")?;
            let name = named("means");
            let shape = file.shape(&name)?;
            let [classes, d] = shape[..] else { return Err(damaged()) };
            let means = file.f64(&name, shape)?;
            let found = ClassMeans::of_parts(d, counts, means);
            found.filter(|m| m.counts().len() == classes).ok_or_else(damaged)
        };
        let pairs = || -> Result<Vec<[u64; 2]>> { Ok(whole("bins")?.as_chunks::<2>().0.to_vec()) };
        Ok(match kind {
            "means" => Piece::Means(means()?),
            "moments" => {
                let (means, name) = (means()?, named("scatter"));
                let triangle = file.f64(&name, file.shape(&name)?)?;
                Piece::Moments(Moments::of_parts(means, &triangle).ok_or_else(damaged)?)
            }
            "quantile" => {
                let [exact] = whole("exact")?[..] else { return Err(damaged()) };
                let found = Histogram::of_parts(&pairs()?, exact != 0);
                Piece::Quantile(found.ok_or_else(damaged)?)
            }
            "columns" => {
                let about = whole("about")?.try_into().map_err(|_| damaged())?;
                let [tables] = whole("tables")?[..] else { return Err(damaged()) };
                // As many as a fit of that many columns takes: nothing larger is believed.
                let empty =
                    ColumnCounts::of_columns(about).filter(|c| c.parts().1.len() as u64 == tables);
                let mut counts = empty.ok_or_else(damaged)?.parts().1.to_vec();
                for [at, n] in pairs()? {
                    let at = usize::try_from(at).ok().and_then(|at| counts.get_mut(at));
                    *at.ok_or_else(damaged)? = u32::try_from(n).map_err(|_| damaged())?;
                }
                Piece::Columns(ColumnCounts::of_parts(about, counts).ok_or_else(damaged)?)
            }
            "sums" => {
                let name = named("sums");
                Piece::Sums(file.f64(&name, file.shape(&name)?)?)
            }
            "counts" => Piece::Counts(whole("counts")?),
            "range" => {
                let range = file.f32(&named("range"), &[2])?;
                Piece::Range([range[0], range[1]])
            }
            "rows" => {
                let name = named("rows");
                let shape = file.shape(&name)?;
                if shape.len() != 2 || shape[1] != size || size == 0 {
                    return Err(damaged());
                }
                Piece::Rows(size, Arc::new(file.f32(&name, shape)?))
            }
            _ => {
                let problem =
                    format!("its statistic `{name}` is of a kind that is not known (`{kind}`)");
                return Err(Error::format(file.path(), problem));
            }
        })
    }
}
