//! A sample of a set's rows by hash, to tell whether another set shares some.
//!
//! Kept are the smallest hashes of all rows (a bottom-k sketch): of another
//! set's rows, those whose hash lies among them were in this set, and their
//! fraction is that of all its rows. Values are rounded before they are hashed, to
//! half precision and once more to bfloat16, so that rows are known again
//! whatever the form of the file and the one of these types it was written in.
//! The hash is XXH3: every fit takes it of every row, and SHA-256 took longer
//! than most fits. Nothing here is a secret that someone would forge.
//!
//! Reference: Broder, *On the Resemblance and Containment of Documents*, 1997.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{FeatureSet, Field, FieldSet};
use crate::error::Result;
use crate::io::{Tensor, TensorFile};
use crate::math::blocks;
use crate::math::parallel::{self, Pieces, SlicesMut};

/// Hashes kept of each kind: 64 KiB.
const KEPT: usize = 8192;

/// Rows read at a time.
const ROWS: usize = 4096;

/// Rows that a thread reads and hashes at a time.
const PIECE: usize = 32;

/// A sample of the rows of a set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RowSketch {
    /// Which field's rows: the first that the scorer reads.
    pub field: String,
    /// Rows of the set.
    pub rows: usize,
    /// The smallest hashes of rows in half precision and in bfloat16,
    /// ascending; all of them where the set has no more.
    #[serde(skip)]
    pub hashes: [Vec<u64>; 2],
}

/// What stands behind the name of the tensors of hashes. (Files of earlier versions hold other
/// hashes as `f16` and `bf16`; of these, training files are known, not single rows.)
const KINDS: [&str; 2] = ["f16.xxh3", "bf16.xxh3"];

/// How many rows of one set are in another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlap {
    /// Rows that could be compared: those whose hash falls into the sample.
    pub compared: usize,
    /// Rows found in the other set.
    pub shared: usize,
}

impl Overlap {
    /// Estimated fraction of the rows that are in the other set.
    pub fn fraction(self) -> f64 {
        self.shared as f64 / self.compared.max(1) as f64
    }
}

/// What is found in half precision and in bfloat16, with the rows.
type InBoth = ([Overlap; 2], [Vec<u32>; 2]);

/// What is hashed, reused from row to row.
#[derive(Default)]
struct Rounded {
    exact: Vec<f32>,
    half: Vec<f16>,
    bits: Vec<u16>,
}

/// The bits of a 16-bit number, of −0 those of 0.
fn unsigned_zero(bits: u16) -> u16 {
    if bits & 0x7fff == 0 { 0 } else { bits }
}

/// The bits of the nearest bfloat16, ties to even, of a finite number.
fn brain(v: f32) -> u16 {
    let bits = v.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

impl Rounded {
    /// The hashes of a row's values in half precision and in bfloat16. Rows of
    /// few values, or of such as lie outside that precision's range, might then
    /// look like others: these are hashed as they are. (Loops are written so
    /// that the compiler finds vector code.)
    fn hashes(&mut self, row: &[f32]) -> (u64, u64) {
        const FEW: usize = 8;
        // The bits of finite numbers are in their order.
        let largest = row.iter().fold(0, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(largest);
        // −0 and 0 are the same value.
        self.exact.clear();
        self.exact.extend(row.iter().map(|v| v + 0.0));
        let within = |smallest: f32, greatest: f32| {
            row.len() >= FEW && (smallest..=greatest).contains(&largest)
        };
        let half = within(f16::MIN_POSITIVE.to_f32(), f16::MAX.to_f32());
        let half = half.then(|| {
            self.half.resize(row.len(), f16::ZERO);
            self.half.convert_from_f32_slice(&self.exact);
            self.bits.clear();
            self.bits.extend(self.half.iter().map(|v| unsigned_zero(v.to_bits())));
            xxh3_64(bytemuck::cast_slice(&self.bits))
        });
        let brain = within(f32::MIN_POSITIVE, bf16::MAX.to_f32()).then(|| {
            self.bits.clear();
            self.bits.extend(self.exact.iter().map(|v| unsigned_zero(brain(*v))));
            xxh3_64(bytemuck::cast_slice(&self.bits))
        });
        match (half, brain) {
            (Some(half), Some(brain)) => (half, brain),
            (half, brain) => {
                let exact = xxh3_64(bytemuck::cast_slice(&self.exact));
                (half.unwrap_or(exact), brain.unwrap_or(exact))
            }
        }
    }
}

/// The smallest distinct hashes of those added.
#[derive(Default)]
struct Smallest {
    /// No others than these can be among the smallest.
    candidates: Vec<u64>,
    /// The greatest of the smallest when they were last sorted.
    bound: Option<u64>,
}

impl Smallest {
    fn add(&mut self, found: &[u64]) {
        let bound = self.bound.unwrap_or(u64::MAX);
        self.candidates.extend(found.iter().filter(|h| **h < bound));
        if self.candidates.len() > 2 * KEPT {
            self.sort();
        }
    }

    fn sort(&mut self) {
        self.candidates.sort_unstable();
        self.candidates.dedup();
        self.candidates.truncate(KEPT);
        self.bound = self.candidates.get(KEPT - 1).copied();
    }

    fn sorted(mut self) -> Vec<u64> {
        self.sort();
        self.candidates
    }
}

/// Both hashes of every row, some rows at a time.
fn hashes(set: &FeatureSet, field: Field, mut take: impl FnMut([&[u64]; 2])) -> Result<()> {
    let dim = set.require(field)?;
    let mut found = vec![(0, 0); ROWS.min(set.len())];
    for range in blocks(set.len(), ROWS) {
        let found = &mut found[..range.len()];
        // Rows are read where they are hashed, few enough for the cache.
        parallel::run_all(found.par_chunks_mut(PIECE).enumerate().map(|(i, found)| {
            let start = range.start + i * PIECE;
            let mut rows = vec![0.0; found.len() * dim];
            set.read(field, start..start + found.len(), &mut rows)?;
            let mut rounded = Rounded::default();
            for (found, row) in found.iter_mut().zip(rows.chunks_exact(dim)) {
                *found = rounded.hashes(row);
            }
            Ok(())
        }))?;
        let (half, brain): (Vec<u64>, Vec<u64>) = found.iter().copied().unzip();
        take([&half, &brain]);
    }
    Ok(())
}

impl RowSketch {
    /// Sample a set: rows of the first field that is needed.
    ///
    /// # Errors
    /// If a row holds NaN or infinity.
    pub fn of(set: &FeatureSet, needs: &FieldSet) -> Result<Self> {
        let Some(field) = needs.stored().fields().next() else {
            return Ok(RowSketch::default());
        };
        let mut smallest: [Smallest; 2] = Default::default();
        hashes(set, field, |found| {
            for (smallest, found) in smallest.iter_mut().zip(found) {
                smallest.add(found);
            }
        })?;
        let hashes = smallest.map(Smallest::sorted);
        Ok(RowSketch { field: field.name().into(), rows: set.len(), hashes })
    }

    /// Also the rows of another sample of the same field.
    pub(crate) fn merge(&mut self, other: &RowSketch) {
        self.rows += other.rows;
        for (own, other) in self.hashes.iter_mut().zip(&other.hashes) {
            let mut smallest = Smallest { candidates: std::mem::take(own), bound: None };
            smallest.add(other);
            *own = smallest.sorted();
        }
    }

    /// The hashes with their names, for a file.
    pub(crate) fn tensors(&self, name: &str) -> Vec<(String, Tensor)> {
        let tensor = |hashes: &Vec<u64>| {
            Tensor::i64([hashes.len()], hashes.iter().map(|h| *h as i64).collect())
        };
        let kinds = KINDS.iter().zip(&self.hashes).filter(|(_, hashes)| !hashes.is_empty());
        kinds.map(|(kind, hashes)| (format!("{name}.{kind}"), tensor(hashes))).collect()
    }

    /// Read the hashes back, if the file has them.
    ///
    /// # Errors
    /// If they are of another type.
    pub(crate) fn read(&mut self, file: &TensorFile, name: &str) -> Result<()> {
        for (kind, hashes) in KINDS.iter().zip(&mut self.hashes) {
            let name = format!("{name}.{kind}");
            if file.has(&name) {
                let shape = file.shape(&name)?.to_vec();
                *hashes = file.i64(&name, &shape)?.into_iter().map(|h| h as u64).collect();
                hashes.sort_unstable();
            }
        }
        Ok(())
    }

    /// Look for rows of another set; `None` where it lacks the field, or nothing
    /// was kept. Of both precisions, that in which more is found.
    ///
    /// # Errors
    /// If a row holds NaN or infinity.
    pub fn overlap(&self, other: &FeatureSet) -> Result<Option<Overlap>> {
        Ok(self.shared(other)?.map(|(overlap, _)| overlap))
    }

    /// The rows of `other` that are in `set`, ascending, all of which are compared: whatever the
    /// size of `set`, of which this must be the sample, else `None`. (A set that differs in a few
    /// rows beyond the sample passes for it, as does the same set rounded to one of the two
    /// precisions.) Memory goes with the rows of `other`.
    ///
    /// # Errors
    /// If a row holds NaN or infinity.
    pub fn shared_through(&self, set: &FeatureSet, other: &FeatureSet) -> Result<Option<Vec<u32>>> {
        let field = Field::named(&self.field);
        let has = |f: &Field| set.dim(*f).is_some() && set.dim(*f) == other.dim(*f);
        let Some(field) = field.filter(has).filter(|_| set.len() == self.rows) else {
            return Ok(None);
        };
        let mut wanted: [Vec<(u64, u32)>; 2] = Default::default();
        hashes(other, field, |found| {
            for (wanted, found) in wanted.iter_mut().zip(found) {
                let start = wanted.len();
                wanted.extend(found.iter().enumerate().map(|(i, h)| (*h, (start + i) as u32)));
            }
        })?;
        wanted.iter_mut().for_each(|wanted| wanted.sort_unstable());
        let mut seen = [vec![false; other.len()], vec![false; other.len()]];
        let mut smallest: [Smallest; 2] = Default::default();
        hashes(set, field, |found| {
            let kinds = found.iter().zip(&wanted).zip(seen.iter_mut().zip(&mut smallest));
            for ((found, wanted), (seen, smallest)) in kinds {
                smallest.add(found);
                for h in found.iter() {
                    let first = wanted.partition_point(|(other, _)| other < h);
                    let same = wanted[first..].iter().take_while(|(other, _)| other == h);
                    same.for_each(|(_, row)| seen[*row as usize] = true);
                }
            }
        })?;
        // Rounded to one precision, a set has other hashes in the other.
        let mut kinds = smallest.map(Smallest::sorted).into_iter().zip(&self.hashes);
        if !kinds.any(|(found, kept)| found == *kept) {
            return Ok(None);
        }
        let [half, brain] = seen;
        let rows = (0..).zip(half.into_iter().zip(brain));
        Ok(Some(rows.filter(|(_, (half, brain))| *half || *brain).map(|(row, _)| row).collect()))
    }

    /// Whether every row of the set is known, not a sample of them.
    pub fn is_whole(&self) -> bool {
        !self.hashes[0].is_empty() && self.hashes.iter().all(|hashes| hashes.len() < KEPT)
    }

    /// The rows of another set that are known, ascending, in whichever precision; `None` where it
    /// lacks the field, or nothing was kept.
    ///
    /// # Errors
    /// As [`RowSketch::overlap`].
    pub(crate) fn known_rows(&self, other: &FeatureSet) -> Result<Option<Vec<u32>>> {
        Ok(self.compare(other)?.map(|(_, [half, brain])| {
            let mut rows = [half, brain].concat();
            rows.sort_unstable();
            rows.dedup();
            rows
        }))
    }

    /// The same as [`RowSketch::overlap`], with the rows that were found, ascending.
    ///
    /// # Errors
    /// As [`RowSketch::overlap`].
    pub fn shared(&self, other: &FeatureSet) -> Result<Option<(Overlap, Vec<u32>)>> {
        Ok(self.compare(other)?.map(|([half, brain], [in_half, in_brain])| {
            let brain_is_more = brain.fraction() > half.fraction();
            if brain_is_more { (brain, in_brain) } else { (half, in_half) }
        }))
    }

    /// What is found in each precision.
    fn compare(&self, other: &FeatureSet) -> Result<Option<InBoth>> {
        let field = Field::named(&self.field);
        let Some(field) = field.filter(|f| other.dim(*f).is_some()) else {
            return Ok(None);
        };
        if self.hashes[0].is_empty() {
            return Ok(None);
        }
        let mut overlaps = [Overlap { compared: 0, shared: 0 }; 2];
        let mut rows: [Vec<u32>; 2] = Default::default();
        let mut start = 0;
        hashes(other, field, |found| {
            let kinds = self.hashes.iter().zip(found).zip(overlaps.iter_mut().zip(&mut rows));
            for ((kept, found), (overlap, rows)) in kinds {
                let bound = kept.get(KEPT - 1).copied().unwrap_or(u64::MAX);
                for (i, h) in found.iter().enumerate().filter(|(_, h)| **h <= bound) {
                    overlap.compared += 1;
                    if kept.binary_search(h).is_ok() {
                        overlap.shared += 1;
                        rows.push((start + i) as u32);
                    }
                }
            }
            start += found[0].len();
        })?;
        Ok(Some((overlaps, rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::rng::{Purpose, Stream};
    use ndarray::Array2;

    fn set(rows: std::ops::Range<usize>) -> FeatureSet {
        let first = rows.start;
        let rows = Array2::from_shape_fn((rows.len(), 3), |(i, j)| ((first + i) * 3 + j) as f32);
        FeatureSet::from_arrays(rows.view(), None).unwrap()
    }

    fn sketch(set: &FeatureSet) -> RowSketch {
        RowSketch::of(set, &FieldSet::of(Field::Features(crate::features::Pooling::Avg))).unwrap()
    }

    #[test]
    fn small_sets_are_compared_whole() {
        let sketch = sketch(&set(0..100));
        let overlap = sketch.overlap(&set(60..160)).unwrap().unwrap();
        assert_eq!(overlap, Overlap { compared: 100, shared: 40 });
        assert_eq!(sketch.overlap(&set(100..120)).unwrap().unwrap().shared, 0);
        assert_eq!(sketch.field, "avg");
    }

    /// 8192 of 40,000 hashes are kept, so about a fifth of 3,000 rows are
    /// compared (binomial, 5σ), and a third of these are shared.
    #[test]
    fn large_sets_are_sampled() {
        let sketch = sketch(&set(0..40_000));
        assert_eq!(sketch.hashes.each_ref().map(Vec::len), [KEPT; 2]);
        let overlap = sketch.overlap(&set(39_000..42_000)).unwrap().unwrap();
        let rate = KEPT as f64 / 40_000.0;
        let sigma = (3000.0 * rate * (1.0 - rate)).sqrt();
        assert!((overlap.compared as f64 - 3000.0 * rate).abs() < 5.0 * sigma, "{overlap:?}");
        assert!((overlap.fraction() - 1.0 / 3.0).abs() < 0.1, "{overlap:?}");
    }

    /// Of 20,000 rows the sample knows two in five; with the set itself all are known.
    #[test]
    fn all_rows_are_known_through_the_set() {
        let whole = set(0..20_000);
        let sketch = sketch(&whole);
        let other = set(19_990..20_300);
        let found = sketch.shared_through(&whole, &other).unwrap().unwrap();
        assert_eq!(found, (0..10).collect::<Vec<u32>>());
        assert!(sketch.shared(&other).unwrap().unwrap().1.len() < 10);
        // Another set of as many rows is not what was sampled.
        assert_eq!(sketch.shared_through(&set(100..20_100), &other).unwrap(), None);
    }

    #[test]
    fn nearest_bfloat16_as_the_half_crate_has_it() {
        let mut values = vec![0.0; 4096];
        Stream::new(4, Purpose::User, 0, 0).fill_normal(&mut values);
        values.extend([0.0, -0.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1e-45, 3e38]);
        for v in values {
            assert_eq!(brain(v), bf16::from_f32(v).to_bits(), "{v}");
        }
    }

    /// Rows written in 16 bits are known again, and other rows are not.
    #[test]
    fn rounded_rows_are_the_same_rows() {
        let mut values = vec![0.0; 400 * 12];
        Stream::new(3, Purpose::User, 0, 0).fill_normal(&mut values);
        let with = |from: usize, round: fn(f32) -> f32| {
            let value = |(i, j)| round(values[(from + i) * 12 + j]);
            let rows = Array2::from_shape_fn((200, 12), value);
            FeatureSet::from_arrays(rows.view(), None).unwrap()
        };
        let rounds: [fn(f32) -> f32; 3] =
            [|v| v, |v| f16::from_f32(v).to_f32(), |v| bf16::from_f32(v).to_f32()];
        let share =
            |a: &FeatureSet, b: &FeatureSet| sketch(a).overlap(b).unwrap().unwrap().fraction();
        for round in rounds {
            assert_eq!(share(&with(0, |v| v), &with(0, round)), 1.0);
            assert_eq!(share(&with(0, round), &with(0, |v| v)), 1.0);
            assert_eq!(share(&with(0, round), &with(200, round)), 0.0);
        }
        // All would be zero in half precision.
        let tiny = |v: f32| v * 1e-9;
        assert_eq!(share(&with(0, tiny), &with(200, tiny)), 0.0);
        assert_eq!(share(&with(0, tiny), &with(0, tiny)), 1.0);
    }
}
