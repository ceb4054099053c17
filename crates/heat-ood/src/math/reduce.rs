//! Reductions along rows.

use super::{LINE, prefetch};

/// log Σ exp xᵢ, exact when one term dominates; −∞ for an empty slice.
pub fn logsumexp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = x.clone().fold(f64::NEG_INFINITY, f64::max);
    if !max.is_finite() {
        return max;
    }
    max + x.map(|v| (v - max).exp()).sum::<f64>().ln()
}

/// [`logsumexp`] of every row of `width` values, faster for many short ones.
pub fn logsumexp_rows(x: &[f32], width: usize) -> Vec<f64> {
    let exps = exp_below_largest(x, width);
    let rows = x.chunks_exact(width).zip(exps.chunks_exact(width));
    rows.map(|(row, exps)| {
        let max = f64::from(max(row));
        if max.is_finite() { max + exps.iter().sum::<f64>().ln() } else { max }
    })
    .collect()
}

/// 1 − max softmax of every row of `width` values, as the sum of the other
/// probabilities: exact where the largest is all but 1.
pub fn softmax_complement_rows(x: &[f32], width: usize) -> Vec<f64> {
    let exps = exp_below_largest(x, width);
    let rows = x.chunks_exact(width).zip(exps.chunks_exact(width));
    rows.map(|(row, exps)| {
        let top = argmax(row) as usize;
        let others = exps[..top].iter().sum::<f64>() + exps[top + 1..].iter().sum::<f64>();
        others / (1.0 + others)
    })
    .collect()
}

/// exp(xᵢ − max x) within every row of `width` values.
fn exp_below_largest(x: &[f32], width: usize) -> Vec<f64> {
    let mut off: Vec<f64> = vec![0.0; x.len()];
    crate::math::arch().dispatch(
        #[inline(always)]
        || {
            let rows = x.chunks_exact(width).zip(off.chunks_exact_mut(width));
            for (row, off) in rows {
                let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                off.iter_mut().zip(row).for_each(|(o, &v)| *o = f64::from(v) - max);
            }
            off.iter_mut().for_each(|v| *v = exp_of_negative(*v));
        },
    );
    off
}

/// Replace every x ≤ 0 by eˣ, within two units in the last place; by 0 below −708.
pub fn exp_of_negatives(x: &mut [f64]) {
    crate::math::arch().dispatch(
        #[inline(always)]
        || x.iter_mut().for_each(|v| *v = exp_of_negative(*v)),
    );
}

/// eˣ for x ≤ 0, within two units in the last place; 0 below −708. Written so
/// that a loop over it is vectorised: 2ⁿ·eʳ with |r| ≤ ln 2 / 2, eʳ from its series.
#[inline(always)]
fn exp_of_negative(x: f64) -> f64 {
    // Adding 1.5·2⁵² rounds to a whole number, which is left in the last bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // ln 2 in two parts, the first of few bits, so that n times it is exact.
    const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    // 1/k!
    const SERIES: [f64; 13] = [
        1.0,
        1.0,
        1.0 / 2.0,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5_040.0,
        1.0 / 40_320.0,
        1.0 / 362_880.0,
        1.0 / 3_628_800.0,
        1.0 / 39_916_800.0,
        1.0 / 479_001_600.0,
    ];
    let mut sum = SERIES[12];
    for term in SERIES[..12].iter().rev() {
        sum = sum * r + term;
    }
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    if x < -708.0 { 0.0 } else { sum * power }
}

/// Σ e^{βx}·xᵏ for every k below `N`, x the values less the largest; β ≥ 0.
pub fn exponential_sums<const N: usize>(values: &[f32], beta: f64) -> [f64; N] {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let largest = f64::from(max(values));
            let (eights, rest) = values.as_chunks::<8>();
            // In lanes: one sum would wait for each addition. Loops, because
            // what `array::map` calls is not compiled for these registers.
            let mut sums = [[0.0; 8]; N];
            for eight in eights {
                let (mut x, mut terms) = ([0.0; 8], [0.0; 8]);
                for ((x, term), &v) in x.iter_mut().zip(&mut terms).zip(eight) {
                    *x = f64::from(v) - largest;
                    *term = exp_of_negative(beta * *x);
                }
                for sums in &mut sums {
                    for ((sum, term), x) in sums.iter_mut().zip(&mut terms).zip(x) {
                        *sum += *term;
                        *term *= x;
                    }
                }
            }
            for (i, &v) in rest.iter().enumerate() {
                let x = f64::from(v) - largest;
                let mut term = exp_of_negative(beta * x);
                for sums in &mut sums {
                    sums[i] += term;
                    term *= x;
                }
            }
            let mut out = [0.0; N];
            out.iter_mut().zip(&sums).for_each(|(o, lanes)| *o = lanes.iter().sum());
            out
        },
    )
}

/// Replace `x` by softmax(x).
pub fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in x.iter_mut() {
        *v = (*v - max).exp();
        sum += *v;
    }
    for v in x {
        *v /= sum;
    }
}

/// Σ xᵢ², in f64.
#[inline(always)]
pub fn norm2(x: &[f32]) -> f64 {
    paired(x, x, |v, _| v * v)
}

/// Σ f(aᵢ, bᵢ), in f64. Eight partial sums: one would serialise the additions. Inlined, so that it
/// is vectorised for the instruction set of the caller.
#[inline(always)]
fn paired<B: Copy>(a: &[f32], b: &[B], f: impl Fn(f64, B) -> f64) -> f64 {
    let mut sums = [0.0f64; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 =
        left.remainder().iter().zip(right.remainder()).map(|(&x, &y)| f(f64::from(x), y)).sum();
    for (x, y) in left.zip(right) {
        for ((s, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            *s += f(f64::from(x), y);
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// Σ aᵢbᵢ, in f64.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    paired(a, b, |x, y| x * f64::from(y))
}

/// Σ f(xᵢ), in f64.
pub fn sum_of(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    paired(x, x, |v, _| f(v))
}

/// Σ f(aᵢ, bᵢ) in single precision, in registers: the order of the sum depends
/// on the instruction set. `add` adds a term to the sum. Off by less than
/// [`single_error`] of Σ |f|.
#[inline(always)]
fn paired_single<S: pulp::Simd>(
    simd: S,
    a: &[f32],
    b: &[f32],
    add: impl Fn(S::f32s, S::f32s, S::f32s) -> S::f32s,
    last: impl Fn(f32, f32) -> f32,
) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let ((a4, a), (b4, b)) = (pulp::as_arrays::<4, _>(a), pulp::as_arrays::<4, _>(b));
    let mut sums = [simd.splat_f32s(0.0); 4];
    for (x, y) in a4.iter().zip(b4) {
        for i in 0..4 {
            sums[i] = add(x[i], y[i], sums[i]);
        }
    }
    for (&x, &y) in a.iter().zip(b) {
        sums[0] = add(x, y, sums[0]);
    }
    let pairs = [simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3])];
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&x, &y)| last(x, y)).sum();
    simd.reduce_sum_f32s(simd.add_f32s(pairs[0], pairs[1])) + rest
}

/// Σ aᵢbᵢ in single precision; see [`single_error`].
#[inline(always)]
pub fn dot_single<S: pulp::Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    paired_single(simd, a, b, |x, y, sum| simd.mul_add_e_f32s(x, y, sum), |x, y| x * y)
}

/// ‖a − b‖² in single precision; see [`single_error`].
#[inline(always)]
pub fn distance2_single<S: pulp::Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let add = |x, y, sum| {
        let off = simd.sub_f32s(x, y);
        simd.mul_add_e_f32s(off, off, sum)
    };
    paired_single(simd, a, b, add, |x, y| (x - y) * (x - y))
}

/// What a sum of n terms in single precision may be off by, relative to the
/// sum of their magnitudes: one rounding for each addition to the longest of
/// at least four partial sums, and those of a term (Higham, *Accuracy and
/// Stability of Numerical Algorithms*, 2002, §3.1).
pub fn single_error(n: usize) -> f64 {
    (n as f64 / 4.0 + 40.0) * f64::from(f32::EPSILON)
}

/// Σ |xᵢ|, in f64.
pub fn norm1(x: &[f32]) -> f64 {
    sum_of(x, f64::abs)
}

/// Σ (xᵢ − cᵢ)², in f64.
pub fn square_about(x: &[f32], centre: &[f64]) -> f64 {
    paired(x, centre, |v, c| (v - c) * (v - c))
}

/// Σ wᵢ(xᵢ − cᵢ) and Σ (xᵢ − cᵢ)², in f64.
pub fn projected_about(x: &[f32], w: &[f32], centre: &[f64]) -> (f64, f64) {
    let mut sums = [[0.0f64; 4]; 2];
    let mut tail = [0.0; 2];
    let rows = x.chunks_exact(4).zip(w.chunks_exact(4)).zip(centre.chunks_exact(4));
    for ((x, w), c) in rows {
        for i in 0..4 {
            let off = f64::from(x[i]) - c[i];
            sums[0][i] += f64::from(w[i]) * off;
            sums[1][i] += off * off;
        }
    }
    for i in x.len() / 4 * 4..x.len() {
        let off = f64::from(x[i]) - centre[i];
        tail[0] += f64::from(w[i]) * off;
        tail[1] += off * off;
    }
    (sums[0].iter().sum::<f64>() + tail[0], sums[1].iter().sum::<f64>() + tail[1])
}

/// ‖a − b‖², in f64.
#[inline(always)]
pub fn distance2(a: &[f32], b: &[f32]) -> f64 {
    paired(a, b, |x, y| {
        let off = x - f64::from(y);
        off * off
    })
}

/// In single precision, beyond its range the largest number: for quotients whose divisor can be
/// as small as a row.
#[inline(always)]
pub fn finite(x: f64) -> f32 {
    (x as f32).clamp(f32::MIN, f32::MAX)
}

/// Divide by the L2 norm; a row of norm 0 stays 0 (METHOD §2).
#[inline(always)]
pub fn normalize(x: &mut [f32]) {
    let norm = norm2(x).sqrt();
    if norm == 0.0 {
        return;
    }
    if !(f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&norm) {
        // Values near the largest or smallest: their norm is none in single precision.
        x.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
        return;
    }
    let norm = norm as f32;
    for v in x {
        *v /= norm;
    }
}

/// Whether there is neither NaN nor infinity.
pub fn all_finite(x: &[f32]) -> bool {
    // Two pages ahead: rows are mostly read in order, with more after these.
    const AHEAD: usize = 2048;
    crate::math::arch().dispatch(
        #[inline(always)]
        || {
            // The magnitudes' bits are ordered as they are; infinity and NaN come last.
            let magnitude = |v: &f32| v.to_bits() & (u32::MAX >> 1);
            let finite = |x: &[f32]| {
                (0..x.len()).step_by(LINE).for_each(|at| prefetch(x, AHEAD + at));
                x.iter().fold(0, |most, v| magnitude(v).max(most)) < f32::INFINITY.to_bits()
            };
            x.chunks(32 * LINE).all(finite)
        },
    )
}

/// The largest value.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    // Eight at a time: one would wait for each comparison.
    let (eights, rest) = x.as_chunks::<8>();
    let mut most = [f32::NEG_INFINITY; 8];
    for eight in eights {
        most.iter_mut().zip(eight).for_each(|(m, v)| *m = m.max(*v));
    }
    most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Index of the first largest value.
pub fn argmax<T: PartialOrd>(x: &[T]) -> u32 {
    let mut best = 0;
    for (i, v) in x.iter().enumerate() {
        if *v > x[best] {
            best = i;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A direction has no length.
    #[test]
    fn rows_of_any_size_are_normalised() {
        for scale in [1e-3f32, 1.0, 1e20, 1e38] {
            let mut row = [3.0 * scale, -1.5 * scale, 0.0, 2.0 * scale];
            normalize(&mut row);
            // 9 + 2.25 + 4 = 15.25.
            let want = [3.0f64, -1.5, 0.0, 2.0].map(|v| v / 15.25f64.sqrt());
            for (got, want) in row.iter().zip(want) {
                assert!((f64::from(*got) - want).abs() < 1e-6, "{scale}: {row:?}");
            }
        }
    }

    #[test]
    fn logsumexp_is_stable() {
        let lse = |x: &[f64]| logsumexp(x.iter().copied());
        assert!((lse(&[0.0, 0.0]) - 2f64.ln()).abs() < 1e-15);
        assert_eq!(lse(&[1e4]), 1e4);
        assert_eq!(lse(&[-1e4, -1e4 - 800.0]), -1e4);
        assert_eq!(lse(&[]), f64::NEG_INFINITY);
    }

    /// Against the standard library's.
    #[test]
    fn exponentials_of_negative_numbers() {
        for i in 0..200_000 {
            let x = -f64::from(i) * 0.003_541_7;
            let (got, want) = (exp_of_negative(x), x.exp());
            if x < -708.0 {
                assert_eq!(got, 0.0);
            } else {
                assert!((got / want - 1.0).abs() < 4.5e-16, "{x}: {got} {want}");
            }
        }
        assert_eq!((exp_of_negative(0.0), exp_of_negative(f64::NEG_INFINITY)), (1.0, 0.0));
        assert!(exp_of_negative(f64::NAN).is_nan());
    }

    /// (0, −1, −3) with weights 2⁰, 2⁻¹ and 2⁻³, by hand; padded with terms too small to count.
    #[test]
    fn exponential_sums_by_hand() {
        let mut values = vec![4.0f32, 3.0, 1.0];
        for length in [3, 8, 19] {
            values.resize(length, -1e6);
            let got = exponential_sums::<3>(&values, 2f64.ln());
            let want = [1.625, -0.875, 1.625];
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-15), "{got:?}");
        }
        assert_eq!(exponential_sums::<2>(&[2.0, 5.0, 5.0], 0.0), [3.0, -3.0]);
    }

    #[test]
    fn logsumexp_by_rows_is_that_of_each() {
        let value = |i: u32| i.wrapping_mul(2_654_435_761) as f32 / 1e8 - 20.0;
        let x: Vec<f32> = (0..70).map(value).collect();
        for (row, got) in x.chunks(7).zip(logsumexp_rows(&x, 7)) {
            let want = logsumexp(row.iter().map(|&v| f64::from(v)));
            assert!((got - want).abs() < 1e-14, "{got} {want}");
        }
        let odd = [f32::INFINITY, 0.0, f32::NEG_INFINITY, 1.0, f32::NAN, 0.0];
        let got = logsumexp_rows(&odd, 2);
        assert!(got[0] == f64::INFINITY && got[1] == 1.0 && got[2].is_nan());
        assert_eq!(logsumexp_rows(&[f32::NEG_INFINITY; 2], 2), [f64::NEG_INFINITY]);
    }

    #[test]
    fn rows_of_length_zero_stay_finite() {
        let mut x = [0.0; 3];
        normalize(&mut x);
        assert_eq!(x, [0.0; 3]);
        let mut x = [3.0, 4.0];
        normalize(&mut x);
        assert_eq!(x, [0.6, 0.8]);
    }

    #[test]
    fn softmax_sums_to_one() {
        let mut x = [1000.0, 1000.0, 0.0];
        softmax(&mut x);
        assert_eq!(x, [0.5, 0.5, 0.0]);
    }

    #[test]
    fn infinity_and_nan_are_not_finite() {
        let mut x = vec![f32::MAX; 5000];
        x[17] = f32::MIN;
        assert!(all_finite(&x) && all_finite(&[]));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 4100, 4999] {
                let mut x = x.clone();
                x[at] = bad;
                assert!(!all_finite(&x));
            }
        }
    }

    #[test]
    fn norm_uses_every_element() {
        let x: Vec<f32> = (1..=11).map(|v| v as f32).collect();
        assert_eq!(norm2(&x), 506.0);
        assert_eq!(distance2(&x, &[0.0; 11]), 506.0);
        let signed: Vec<f32> = x.iter().map(|v| if v % 2.0 == 0.0 { -v } else { *v }).collect();
        assert_eq!(dot(&x, &x), 506.0);
        assert_eq!(norm1(&signed), 66.0);
        assert_eq!(sum_of(&signed, |v| v.max(0.0)), 36.0);
        assert_eq!(square_about(&x, &[1.0; 11]), 385.0);
        assert_eq!(projected_about(&x, &[2.0; 11], &[1.0; 11]), (110.0, 385.0));
    }
}
