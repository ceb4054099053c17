//! Quantiles with linear interpolation, as numpy's default.

use crate::error::Result;
use crate::math::parallel::{Pieces, Slices};

/// Quantile `q` in [0, 1] of `sorted` (ascending, not empty).
pub fn sorted(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let low = position.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    interpolate(sorted[low], sorted[high], position - low as f64)
}

/// numpy's `_lerp`: exact at both ends and monotone. Between infinities of one
/// sign it is that infinity, and beside one the nearer end.
pub(super) fn interpolate(a: f64, b: f64, t: f64) -> f64 {
    if a == b || (a - b).is_infinite() {
        return if t >= 0.5 { b } else { a };
    }
    if t >= 0.5 { b - (b - a) * (1.0 - t) } else { a + (b - a) * t }
}

/// Order-preserving map of finite floats to integers.
#[inline]
pub(crate) fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

pub(crate) fn unkey(k: u32) -> f32 {
    f32::from_bits(if k >> 31 == 1 { k & !(1 << 31) } else { !k })
}

/// Low bits of a value's key that the first pass over a stream leaves open.
/// Values that were f16 or bf16 have none, so that one pass is enough.
const OPEN: u32 = 13;

/// Counts of values by all but their lowest bits: 4 MiB.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    /// Whether every value had only zeros in its lowest bits.
    exact: bool,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; 1 << (32 - OPEN)], total: 0, exact: true }
    }
}

impl Histogram {
    /// Count finite values, on the current pool.
    pub fn update(&mut self, values: &[f32]) {
        const PIECE: usize = 1 << 20;
        if values.len() <= PIECE {
            return self.count(values);
        }
        let count = |values: &[f32]| {
            let mut part = Histogram::default();
            part.count(values);
            part
        };
        let parts: Vec<Histogram> = values.par_chunks(PIECE).map(count).collect();
        parts.iter().for_each(|p| self.merge(p));
    }

    fn count(&mut self, values: &[f32]) {
        let mut low = 0;
        for &v in values {
            self.counts[(key(v) >> OPEN) as usize] += 1;
            low |= v.to_bits() & ((1 << OPEN) - 1);
        }
        self.exact &= low == 0;
        self.total += values.len() as u64;
    }

    /// Add the counts of another.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.total += other.total;
        self.exact &= other.exact;
    }

    /// Quantile `q` in [0, 1] of the values, or `None` when the lowest bits
    /// decide it.
    pub fn finish(&self, q: f64) -> Option<f64> {
        if !self.exact || self.total == 0 {
            return None;
        }
        let (ranks, t) = ranks(self.total, q);
        let [low, high] = ranks.map(|rank| {
            let bin = locate(&self.counts, rank).0 << OPEN;
            // The keys of negative values are their bits inverted.
            let open = if bin >> 31 == 1 { 0 } else { (1 << OPEN) - 1 };
            f64::from(unkey(bin | open))
        });
        Some(interpolate(low, high, t))
    }
}

/// The two neighbouring ranks of quantile `q` among `n` values, and how far
/// it lies from the first to the second.
pub(super) fn ranks(n: u64, q: f64) -> ([u64; 2], f64) {
    let position = q * (n - 1) as f64;
    let low = position.floor();
    ([low as u64, (low as u64 + 1).min(n - 1)], position - low)
}

/// What the lowest bits of the values in two bins say: the second pass over a stream.
#[derive(Debug, Clone)]
pub struct LowBits {
    /// The bin of each of the two neighbouring ranks, and the rank within it.
    found: [(u32, u64); 2],
    t: f64,
    /// Counts by the lowest bits, of each bin.
    pub(crate) counts: [Vec<u64>; 2],
}

impl LowBits {
    /// Count finite values.
    pub fn update(&mut self, values: &[f32]) {
        for &v in values {
            for (table, (bin, _)) in self.counts.iter_mut().zip(self.found) {
                if key(v) >> OPEN == bin {
                    table[(key(v) & ((1 << OPEN) - 1)) as usize] += 1;
                }
            }
        }
    }

    /// The quantile.
    pub fn finish(&self) -> f64 {
        let value = |i: usize| {
            let (bin, rest) = self.found[i];
            f64::from(unkey(bin << OPEN | locate(&self.counts[i], rest).0))
        };
        interpolate(value(0), value(1), self.t)
    }
}

impl Histogram {
    /// What a second pass is to count, where [`Histogram::finish`] gives nothing.
    pub fn low_bits(&self, q: f64) -> LowBits {
        let (ranks, t) = ranks(self.total.max(1), q);
        let found = ranks.map(|rank| locate(&self.counts, rank));
        LowBits { found, t, counts: [vec![0; 1 << OPEN], vec![0; 1 << OPEN]] }
    }

    /// The bins that are not empty with their counts, and whether every value is told by its bin.
    pub(crate) fn parts(&self) -> (Vec<[u64; 2]>, bool) {
        let bins = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        (bins.map(|(bin, n)| [bin as u64, *n]).collect(), self.exact)
    }

    /// Of such parts; `None` if there is no such bin.
    pub(crate) fn of_parts(bins: &[[u64; 2]], exact: bool) -> Option<Self> {
        let mut out = Histogram { exact, ..Histogram::default() };
        for [bin, n] in bins {
            *out.counts.get_mut(usize::try_from(*bin).ok()?)? += n;
            out.total = out.total.checked_add(*n)?;
        }
        Some(out)
    }
}

/// Exact quantile of a stream of values that is too long to keep.
///
/// `pass` must call its argument with every value, in any order. It is run
/// once when the values were half-precision numbers, else twice: first to find
/// the bins of the two neighbouring values, then to look inside these.
///
/// # Errors
/// Whatever `pass` returns.
pub fn streamed(q: f64, mut pass: impl FnMut(&mut dyn FnMut(&[f32])) -> Result<()>) -> Result<f64> {
    let mut high = Histogram::default();
    pass(&mut |values| high.update(values))?;
    if let Some(exact) = high.finish(q) {
        return Ok(exact);
    }
    let mut low = high.low_bits(q);
    pass(&mut |values| low.update(values))?;
    Ok(low.finish())
}

/// The bin that holds the value of that rank, and its rank within the bin.
fn locate(counts: &[u64], mut rank: u64) -> (u32, u64) {
    for (bin, &count) in counts.iter().enumerate() {
        if rank < count {
            return (bin as u32, rank);
        }
        rank -= count;
    }
    (counts.len() as u32 - 1, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// numpy 2.4: np.quantile([1, 2, 4, 8], [0, .1, .5, .95, 1]).
    #[test]
    fn equals_numpy() {
        let x = [1.0, 2.0, 4.0, 8.0];
        for (q, want) in [(0.0, 1.0), (0.1, 1.3), (0.5, 3.0), (0.95, 7.4), (1.0, 8.0)] {
            assert!((sorted(&x, q) - want).abs() < 1e-12, "{q}");
        }
        assert_eq!(sorted(&[5.0], 0.3), 5.0);
        // Not a number in numpy.
        let inf = f64::INFINITY;
        assert_eq!(sorted(&[-inf, -inf, 1.0, inf, inf], 0.95), inf);
        assert_eq!(sorted(&[-inf, inf], 0.2), -inf);
        assert_eq!(sorted(&[1.0, inf], 0.2), 1.0);
    }

    #[test]
    fn streaming_equals_sorting() {
        let values: Vec<f32> = (0..5000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) % 10_007) as f32 / 100.0 - 30.0)
            .collect();
        let mut all: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        all.sort_by(f64::total_cmp);
        for q in [0.0, 0.001, 0.3, 0.95, 0.99, 1.0] {
            let got = streamed(q, |f| {
                values.chunks(777).for_each(f);
                Ok(())
            });
            assert_eq!(got.unwrap(), sorted(&all, q), "{q}");
        }
    }

    /// Half-precision values are done in one pass, merged or not.
    #[test]
    fn halves_take_one_pass() {
        let values: Vec<f32> =
            (0..4000u32).map(|i| (i.wrapping_mul(40_503) % 1021) as f32 / 64.0 - 5.0).collect();
        let mut all: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        all.sort_by(f64::total_cmp);
        let (left, right) = values.split_at(1234);
        let mut histogram = Histogram::default();
        histogram.update(left);
        let mut rest = Histogram::default();
        rest.update(right);
        histogram.merge(&rest);
        for q in [0.0, 0.2, 0.95, 1.0] {
            assert_eq!(histogram.finish(q), Some(sorted(&all, q)), "{q}");
        }
        histogram.update(&[0.1]);
        assert_eq!(histogram.finish(0.5), None);
    }
}
