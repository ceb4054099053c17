//! Quantiles with linear interpolation, as numpy's default.

use crate::error::Result;

/// Quantile `q` in [0, 1] of `sorted` (ascending, not empty).
pub fn sorted(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let low = position.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    interpolate(sorted[low], sorted[high], position - low as f64)
}

/// numpy's `_lerp`: exact at both ends and monotone.
fn interpolate(a: f64, b: f64, t: f64) -> f64 {
    if t >= 0.5 { b - (b - a) * (1.0 - t) } else { a + (b - a) * t }
}

/// Order-preserving map of finite floats to integers.
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn unkey(k: u32) -> f32 {
    f32::from_bits(if k >> 31 == 1 { k & !(1 << 31) } else { !k })
}

/// Exact quantile of a stream of `n` values that is too long to keep.
///
/// `pass` must call its argument with every value, in any order; it is run
/// twice: once to find the upper half of the two neighbouring values' bits,
/// once for the lower half. Memory: three tables of 65,536 counts.
///
/// # Errors
/// Whatever `pass` returns.
pub fn streamed(
    n: u64,
    q: f64,
    mut pass: impl FnMut(&mut dyn FnMut(&[f32])) -> Result<()>,
) -> Result<f64> {
    let position = q * (n - 1) as f64;
    let ranks = [position.floor() as u64, (position.floor() as u64 + 1).min(n - 1)];
    let mut high = vec![0u64; 1 << 16];
    pass(&mut |values| {
        for &v in values {
            high[(key(v) >> 16) as usize] += 1;
        }
    })?;
    let found = ranks.map(|rank| locate(&high, rank));
    let mut low = [vec![0u64; 1 << 16], vec![0u64; 1 << 16]];
    pass(&mut |values| {
        for &v in values {
            for (table, (bin, _)) in low.iter_mut().zip(found) {
                if key(v) >> 16 == bin {
                    table[(key(v) & 0xffff) as usize] += 1;
                }
            }
        }
    })?;
    let value = |i: usize| {
        let (bin, rest) = found[i];
        f64::from(unkey(bin << 16 | locate(&low[i], rest).0))
    };
    Ok(interpolate(value(0), value(1), position - position.floor()))
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
    }

    #[test]
    fn streaming_equals_sorting() {
        let values: Vec<f32> = (0..5000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) % 10_007) as f32 / 100.0 - 30.0)
            .collect();
        let mut all: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        all.sort_by(f64::total_cmp);
        for q in [0.0, 0.001, 0.3, 0.95, 0.99, 1.0] {
            let got = streamed(values.len() as u64, q, |f| {
                values.chunks(777).for_each(f);
                Ok(())
            });
            assert_eq!(got.unwrap(), sorted(&all, q), "{q}");
        }
    }
}
