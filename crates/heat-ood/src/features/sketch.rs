//! A sample of a set's rows by hash, to tell whether another set shares some.
//!
//! Kept are the smallest hashes of all rows (a bottom-k sketch): of another
//! set's rows, those whose hash lies among them were in this set, and their
//! fraction is that of all its rows. Values are rounded before they are hashed, to
//! half precision and once more to bfloat16, so that rows are known again
//! whatever the form of the file and the one of these types it was written in.
//! The upper half of a wide row's hash is that of eight of its values: they tell of
//! most rows that they are not among the smallest, and the rest of these is not hashed.
//! The hash is XXH3: every fit takes it of every row, and SHA-256 took longer
//! than most fits. Nothing here is a secret that someone would forge.
//!
//! Reference: Broder, *On the Resemblance and Containment of Documents*, 1997.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Batch, FeatureSet, Field, FieldSet};
use crate::error::Result;
use crate::io::{Tensor, TensorFile};
use crate::math::parallel::{self, Pieces, SlicesMut};
use crate::math::{arch, blocks};

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

/// Values of a wide row that are hashed before all of them.
const KEY: usize = 8;

/// Rows of fewer values have no key.
const WIDE: usize = 64;

/// What stands behind the name of the tensors of hashes. (Files of earlier versions hold other
/// hashes as `f16`, `bf16`, `f16.xxh3` and `bf16.xxh3`; of these, training files are known, not
/// single rows.)
const KINDS: [&str; 2] = ["f16.keyed", "bf16.keyed"];

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

/// One of the two precisions.
trait Precision {
    /// The smallest normal number and the greatest one.
    const RANGE: std::ops::RangeInclusive<f32>;

    /// The nearest number, ties to even, of one within the range; 0 for −0.
    fn round(v: f32) -> f32;
}

impl Precision for f16 {
    const RANGE: std::ops::RangeInclusive<f32> =
        f16::MIN_POSITIVE.to_f32_const()..=f16::MAX.to_f32_const();

    fn round(v: f32) -> f32 {
        let bits = v.to_bits();
        let normal = f32::from_bits(bits.wrapping_add(0xfff + (bits >> 13 & 1)) & 0xffff_e000);
        // Numbers from 0.5 to 1 lie as far apart as the smallest of half precision.
        let small = ((v.abs() + 0.5) - 0.5).copysign(v);
        (if v.abs() < *Self::RANGE.start() { small } else { normal }) + 0.0
    }
}

impl Precision for bf16 {
    const RANGE: std::ops::RangeInclusive<f32> = f32::MIN_POSITIVE..=bf16::MAX.to_f32_const();

    fn round(v: f32) -> f32 {
        let bits = v.to_bits();
        f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000) + 0.0
    }
}

/// The largest magnitude of the values.
fn largest(row: &[f32]) -> f32 {
    // The bits of finite numbers are in their order.
    let largest = arch().dispatch(
        #[inline(always)]
        || row.iter().fold(0, |m, v| m.max(v.to_bits() & (u32::MAX >> 1))),
    );
    f32::from_bits(largest)
}

/// What is hashed, reused from row to row.
#[derive(Default)]
struct Rounded(Vec<f32>);

impl Rounded {
    /// The hash of a row in one precision, with its key in the upper half. Rows of few values, or
    /// of such as lie outside the precision's range, might then look like others: these are hashed
    /// as they are.
    fn hash<P: Precision>(&mut self, row: &[f32], largest: f32, key: Option<u64>) -> u64 {
        const FEW: usize = 8;
        let round = row.len() >= FEW && P::RANGE.contains(&largest);
        self.0.resize(row.len(), 0.0);
        arch().dispatch(
            #[inline(always)]
            || {
                let both = self.0.iter_mut().zip(row);
                match round {
                    true => both.for_each(|(out, v)| *out = P::round(*v)),
                    // −0 and 0 are the same value.
                    false => both.for_each(|(out, v)| *out = v + 0.0),
                }
            },
        );
        let hash = xxh3_64(bytemuck::cast_slice(&self.0));
        key.map_or(hash, |key| key << 32 | hash >> 32)
    }
}

/// The upper halves of the hashes of some rows in one precision; none of rows that are not wide, or
/// whose values in the middle do not tell them apart.
fn keys<P: Precision>(rows: &[f32], dim: usize) -> Vec<Option<u64>> {
    let middles = rows.chunks_exact(dim).filter(|row| row.len() >= WIDE);
    let mut rounded: Vec<[f32; KEY]> =
        middles.filter_map(|row| row[dim / 2..].first_chunk().copied()).collect();
    arch().dispatch(
        #[inline(always)]
        || rounded.as_flattened_mut().iter_mut().for_each(|v| *v = P::round(*v)),
    );
    let key = |rounded: &[f32; KEY]| {
        let differ = rounded.windows(2).filter(|pair| pair[0] != pair[1]).count();
        (differ >= KEY / 2).then(|| xxh3_64(bytemuck::cast_slice(rounded)) >> 32)
    };
    let mut keys: Vec<_> = rounded.iter().map(key).collect();
    keys.resize(rows.len() / dim, None);
    keys
}

/// The hash of a row in both precisions, with the keys that it has; [`u64::MAX`] where the key alone
/// tells that it lies above the bound.
fn hashes_below(
    rounded: &mut Rounded,
    row: &[f32],
    keys: [Option<u64>; 2],
    bounds: [u64; 2],
) -> [u64; 2] {
    let above = [0, 1].map(|i| keys[i].is_some_and(|key| key > bounds[i] >> 32));
    if above == [true; 2] {
        return [u64::MAX; 2];
    }
    let largest = largest(row);
    [
        if above[0] { u64::MAX } else { rounded.hash::<f16>(row, largest, keys[0]) },
        if above[1] { u64::MAX } else { rounded.hash::<bf16>(row, largest, keys[1]) },
    ]
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
        self.bound = self.candidates.get(KEPT - 1).copied().or(self.bound);
    }

    fn sorted(mut self) -> Vec<u64> {
        self.sort();
        self.candidates
    }
}

/// Both hashes of every row, some rows at a time; [`u64::MAX`] in place of some that lie above the
/// bounds.
fn hashes(
    set: &FeatureSet,
    field: Field,
    bounds: [u64; 2],
    mut take: impl FnMut([&[u64]; 2]),
) -> Result<()> {
    let (dim, needs) = (set.require(field)?, FieldSet::of(field));
    let mut found = vec![[0; 2]; ROWS.min(set.len())];
    for range in blocks(set.len(), ROWS) {
        let found = &mut found[..range.len()];
        // Rows are read where they are hashed, few enough for the cache.
        parallel::run_all(found.par_chunks_mut(PIECE).enumerate().map(|(i, found)| {
            let start = range.start + i * PIECE;
            let mut batch = Batch::default();
            set.batch(&needs, start..start + found.len(), &mut batch)?;
            let rows = batch.get(field);
            let keys = keys::<f16>(rows, dim).into_iter().zip(keys::<bf16>(rows, dim));
            let mut rounded = Rounded::default();
            for (found, (row, (half, brain))) in
                found.iter_mut().zip(rows.chunks_exact(dim).zip(keys))
            {
                *found = hashes_below(&mut rounded, row, [half, brain], bounds);
            }
            Ok(())
        }))?;
        let (half, brain): (Vec<u64>, Vec<u64>) =
            found.iter().map(|[half, brain]| (*half, *brain)).unzip();
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
        let below = |bound: u64| -> Result<[Vec<u64>; 2]> {
            let bounds = [bound; 2];
            let mut smallest = bounds.map(|b| Smallest { bound: Some(b), ..Smallest::default() });
            hashes(set, field, bounds, |found| {
                for (smallest, found) in smallest.iter_mut().zip(found) {
                    smallest.add(found);
                }
            })?;
            Ok(smallest.map(Smallest::sorted))
        };
        // Hashes are spread evenly: below this bound lie more than are kept (by ten standard
        // deviations), unless many rows are alike.
        let bound = (KEPT as f64 * 1.11 / set.len().max(1) as f64 * u64::MAX as f64) as u64;
        let mut hashes = below(bound)?;
        if bound < u64::MAX && hashes.iter().any(|hashes| hashes.len() < KEPT) {
            hashes = below(u64::MAX)?;
        }
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
        hashes(other, field, [u64::MAX; 2], |found| {
            for (wanted, found) in wanted.iter_mut().zip(found) {
                let start = wanted.len();
                wanted.extend(found.iter().enumerate().map(|(i, h)| (*h, (start + i) as u32)));
            }
        })?;
        wanted.iter_mut().for_each(|wanted| wanted.sort_unstable());
        let mut seen = [vec![false; other.len()], vec![false; other.len()]];
        let mut smallest: [Smallest; 2] = Default::default();
        hashes(set, field, [u64::MAX; 2], |found| {
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
        let bounds = [0, 1].map(|i| self.hashes[i].get(KEPT - 1).copied().unwrap_or(u64::MAX));
        hashes(other, field, bounds, |found| {
            let kinds = self.hashes.iter().zip(found).zip(overlaps.iter_mut().zip(&mut rows));
            for (((kept, found), (overlap, rows)), bound) in kinds.zip(bounds) {
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
    fn nearest_numbers_as_the_half_crate_has_them() {
        let mut values = vec![0.0; 4096];
        Stream::new(4, Purpose::User, 0, 0).fill_normal(&mut values);
        values.extend([0.0, -0.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1e-45, 3e38]);
        values.extend([6.2e-5, 5.9e-8, 2.9e-8, -2.9e-8, 3.1e-8, 65504.0, 8191.5, 1e-6, 6.1e-5]);
        for v in values {
            // -0 is 0, in the bits as well.
            let brain = bf16::from_f32(v).to_f32() + 0.0;
            assert_eq!(bf16::round(v).to_bits(), brain.to_bits(), "{v}");
            if v <= 65504.0 {
                let half = f16::from_f32(v).to_f32() + 0.0;
                assert_eq!(f16::round(v).to_bits(), half.to_bits(), "{v}");
            }
        }
    }

    /// Rows written in 16 bits are known again, and other rows are not: whether they have a key or
    /// not, and where many have the same.
    #[test]
    fn rounded_rows_are_the_same_rows() {
        for (dim, alike) in [(12, 0), (WIDE, 0), (100, 0), (100, 40), (100, 90)] {
            let mut values = vec![0.0; 400 * dim];
            Stream::new(3, Purpose::User, 0, 0).fill_normal(&mut values);
            // The same values in every row, but in the last columns.
            let value =
                |i: usize, j: usize| values[if j + 100 < alike + dim { j } else { i * dim + j }];
            let with = |from: usize, round: fn(f32) -> f32| {
                let value = |(i, j)| round(value(from + i, j));
                let rows = Array2::from_shape_fn((200, dim), value);
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

    /// Of 40,000 wide rows a fifth is kept, whether they lie one after the other or not, and
    /// though a quarter of them is one row.
    #[test]
    fn wide_rows_are_sampled_by_their_keys() {
        let (rows, dim) = (40_000, WIDE);
        let mut values = vec![0.0; rows * dim];
        Stream::new(5, Purpose::User, 0, 0).fill_normal(&mut values);
        let first = values[..dim].to_vec();
        values[..rows / 4 * dim].chunks_exact_mut(dim).for_each(|row| row.copy_from_slice(&first));
        let wide = Array2::from_shape_vec((rows, dim), values).unwrap();
        let of = |from: usize, to: usize| {
            let part = wide.slice(ndarray::s![from..to, ..]);
            FeatureSet::from_arrays(part, None).unwrap()
        };
        let sketch = sketch(&of(0, rows));
        assert_eq!(sketch.hashes.each_ref().map(Vec::len), [KEPT; 2]);
        let reversed = of(0, rows).select((0..rows as u32).rev().collect(), None).unwrap();
        assert_eq!(self::sketch(&reversed), sketch);
        // 30,001 different rows, of which 8192 are kept.
        let overlap = sketch.overlap(&of(rows - 3000, rows)).unwrap().unwrap();
        let rate = KEPT as f64 / 30_001.0;
        let sigma = (3000.0 * rate * (1.0 - rate)).sqrt();
        assert!((overlap.shared as f64 - 3000.0 * rate).abs() < 5.0 * sigma, "{overlap:?}");
        assert_eq!(overlap.shared, overlap.compared);
        let found = sketch.shared_through(&of(0, rows), &of(rows / 4 - 1, rows / 4 + 2)).unwrap();
        assert_eq!(found, Some(vec![0, 1, 2]));
        // Many of the same row: fewer different ones than are kept.
        let few = self::sketch(&of(0, rows / 4 + 7));
        assert_eq!(few.hashes.each_ref().map(Vec::len), [8; 2]);
    }

    /// Values of all rows are checked, of those as well that are not hashed whole.
    #[test]
    fn values_that_are_not_finite_are_named() {
        let needs = FieldSet::of(Field::Features(crate::features::Pooling::Avg));
        for (row, column) in (0..40).map(|i| (i * 999, i % WIDE)) {
            let mut rows = Array2::from_shape_fn((40_000, WIDE), |(i, j)| (i * WIDE + j) as f32);
            rows[[row, column]] = f32::NAN;
            let set = FeatureSet::in_memory("x").avg(rows).build().unwrap();
            let error = RowSketch::of(&set, &needs).unwrap_err().to_string();
            assert!(error.contains(&format!("row {row}, column {column} is NaN")), "{error}");
        }
    }
}
