//! Reductions along rows.

/// log Σ exp xᵢ, exact when one term dominates; −∞ for an empty slice.
pub fn logsumexp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = x.clone().fold(f64::NEG_INFINITY, f64::max);
    if !max.is_finite() {
        return max;
    }
    max + x.map(|v| (v - max).exp()).sum::<f64>().ln()
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
pub fn norm2(x: &[f32]) -> f64 {
    // Eight partial sums: one would serialise the additions.
    let mut sums = [0.0f64; 8];
    let chunks = x.chunks_exact(8);
    let tail: f64 = chunks.remainder().iter().map(|&v| f64::from(v).powi(2)).sum();
    for c in chunks {
        for (s, &v) in sums.iter_mut().zip(c) {
            *s += f64::from(v) * f64::from(v);
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// Σ f(aᵢ, bᵢ), in f64; eight partial sums, as in [`norm2`]. Inlined, so that it
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

/// Divide by the L2 norm, floored at 1e-12 (METHOD §2).
pub fn normalize(x: &mut [f32]) {
    let norm = norm2(x).sqrt().max(1e-12) as f32;
    for v in x {
        *v /= norm;
    }
}

/// Whether there is neither NaN nor infinity.
pub fn all_finite(x: &[f32]) -> bool {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            // The magnitudes' bits are ordered as they are; infinity and NaN come last.
            let magnitude = |v: &f32| v.to_bits() & (u32::MAX >> 1);
            let most = |x: &[f32]| x.iter().fold(0, |most, v| magnitude(v).max(most));
            x.chunks(4096).all(|x| most(x) < f32::INFINITY.to_bits())
        },
    )
}

/// The largest value.
pub fn max(x: &[f32]) -> f32 {
    x.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Index of the first largest value.
pub fn argmax(x: &[f32]) -> u32 {
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

    #[test]
    fn logsumexp_is_stable() {
        let lse = |x: &[f64]| logsumexp(x.iter().copied());
        assert!((lse(&[0.0, 0.0]) - 2f64.ln()).abs() < 1e-15);
        assert_eq!(lse(&[1e4]), 1e4);
        assert_eq!(lse(&[-1e4, -1e4 - 800.0]), -1e4);
        assert_eq!(lse(&[]), f64::NEG_INFINITY);
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
