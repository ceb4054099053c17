//! A sample of a set's rows by hash, to tell whether another set shares some.
//!
//! Kept are the smallest hashes of all rows (a bottom-k sketch): of another
//! set's rows, those whose hash lies among them were in this set, and their
//! share is that of all its rows. A hash is of the values in single precision,
//! so it does not depend on the form of the file.
//!
//! Reference: Broder, *On the Resemblance and Containment of Documents*, 1997.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FeatureSet, Field, Tensor, TensorFile};
use crate::error::Result;
use crate::math::{blocks, parallel};

/// Hashes kept: 64 KiB.
const KEPT: usize = 8192;

/// Rows read at a time.
const ROWS: usize = 4096;

/// A sample of the rows of a set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RowSketch {
    /// Which field's rows: `avg`, or another where there is none.
    pub field: String,
    /// Rows of the set.
    pub rows: usize,
    /// The smallest hashes, ascending; all of them where the set has no more.
    #[serde(skip)]
    pub hashes: Vec<u64>,
}

/// How many rows of one set are in another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlap {
    /// Rows that could be compared: those whose hash falls into the sample.
    pub compared: usize,
    /// Rows found in the other set.
    pub shared: usize,
}

impl Overlap {
    /// Estimated share of the rows that are in the other set.
    pub fn share(self) -> f64 {
        self.shared as f64 / self.compared.max(1) as f64
    }
}

fn hashes(set: &FeatureSet, field: Field, mut take: impl FnMut(&[u64])) -> Result<()> {
    let dim = set.require(field)?;
    let mut rows = Vec::new();
    for range in blocks(set.len(), ROWS) {
        rows.resize(range.len() * dim, 0.0f32);
        set.read_parallel(field, range, &mut rows)?;
        let hash = |row: &[f32]| {
            // −0 and 0 are the same value.
            let row: Vec<f32> = row.iter().map(|v| v + 0.0).collect();
            let digest = Sha256::digest(bytemuck::cast_slice::<f32, u8>(&row));
            u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
        };
        let found: Vec<u64> = parallel::run(|| rows.par_chunks(dim).map(hash).collect());
        take(&found);
    }
    Ok(())
}

impl RowSketch {
    /// Sample a set.
    ///
    /// # Errors
    /// If a row holds NaN or infinity.
    pub fn of(set: &FeatureSet) -> Result<Self> {
        let Some(field) = Field::ALL.into_iter().find(|f| set.dim(*f).is_some()) else {
            return Ok(RowSketch::default());
        };
        let mut kept: Vec<u64> = Vec::new();
        hashes(set, field, |found| {
            let bound = if kept.len() < KEPT { u64::MAX } else { kept[KEPT - 1] };
            kept.extend(found.iter().filter(|h| **h <= bound));
            kept.sort_unstable();
            kept.dedup();
            kept.truncate(KEPT);
        })?;
        Ok(RowSketch { field: field.name().into(), rows: set.len(), hashes: kept })
    }

    /// The hashes, for a file.
    pub(crate) fn tensor(&self) -> Tensor {
        let hashes: Vec<i64> = self.hashes.iter().map(|h| *h as i64).collect();
        Tensor::i64([hashes.len()], hashes)
    }

    /// Read the hashes back, if the file has them.
    ///
    /// # Errors
    /// If they are of another type.
    pub(crate) fn read(&mut self, file: &TensorFile, name: &str) -> Result<()> {
        if file.has(name) {
            let shape = file.shape(name)?.to_vec();
            self.hashes = file.i64(name, &shape)?.into_iter().map(|h| h as u64).collect();
            self.hashes.sort_unstable();
        }
        Ok(())
    }

    /// Look for rows of another set; `None` where it lacks the field.
    ///
    /// # Errors
    /// If a row holds NaN or infinity.
    pub fn overlap(&self, other: &FeatureSet) -> Result<Option<Overlap>> {
        let field = Field::ALL.into_iter().find(|f| f.name() == self.field);
        let Some(field) = field.filter(|f| other.dim(*f).is_some()) else {
            return Ok(None);
        };
        let bound = self.hashes.get(KEPT - 1).copied().unwrap_or(u64::MAX);
        let mut overlap = Overlap { compared: 0, shared: 0 };
        hashes(other, field, |found| {
            for h in found.iter().filter(|h| **h <= bound) {
                overlap.compared += 1;
                overlap.shared += usize::from(self.hashes.binary_search(h).is_ok());
            }
        })?;
        Ok(Some(overlap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    fn set(rows: std::ops::Range<usize>) -> FeatureSet {
        let first = rows.start;
        let rows = Array2::from_shape_fn((rows.len(), 3), |(i, j)| ((first + i) * 3 + j) as f32);
        FeatureSet::from_arrays(rows.view(), None).unwrap()
    }

    #[test]
    fn small_sets_are_compared_whole() {
        let sketch = RowSketch::of(&set(0..100)).unwrap();
        let overlap = sketch.overlap(&set(60..160)).unwrap().unwrap();
        assert_eq!(overlap, Overlap { compared: 100, shared: 40 });
        assert_eq!(sketch.overlap(&set(100..120)).unwrap().unwrap().shared, 0);
        assert_eq!(sketch.field, "avg");
    }

    /// 8192 of 40,000 hashes are kept, so about a fifth of 3,000 rows are
    /// compared (binomial, 5σ), and a third of these are shared.
    #[test]
    fn large_sets_are_sampled() {
        let sketch = RowSketch::of(&set(0..40_000)).unwrap();
        assert_eq!(sketch.hashes.len(), KEPT);
        let overlap = sketch.overlap(&set(39_000..42_000)).unwrap().unwrap();
        let rate = KEPT as f64 / 40_000.0;
        let sigma = (3000.0 * rate * (1.0 - rate)).sqrt();
        assert!((overlap.compared as f64 - 3000.0 * rate).abs() < 5.0 * sigma, "{overlap:?}");
        assert!((overlap.share() - 1.0 / 3.0).abs() < 0.1, "{overlap:?}");
    }
}
