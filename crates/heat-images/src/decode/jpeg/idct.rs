//! The accurate integer inverse transform: columns, then rows, in thirteen bits after the point,
//! of which two are kept between them.
//!
//! Reference: Loeffler, Ligtenberg and Moschytz, *Practical Fast 1-D DCT Algorithms with 11
//! Multiplications*, ICASSP 1989.

const BITS: u32 = 13;
const KEPT: u32 = 2;

/// Samples of a block from its coefficients.
pub(super) fn samples(block: &[i16; 64], quantisation: &[u16; 64]) -> [u8; 64] {
    if block[1..].iter().all(|v| *v == 0) {
        let first = i32::from(block[0]).wrapping_mul(quantisation[0].into());
        // Both roundings in one: the first is exact.
        let flat = (first.wrapping_add(4) >> 3).wrapping_add(128).clamp(0, 255);
        return [flat as u8; 64];
    }
    let mut between = [0i32; 64];
    for x in 0..8 {
        let column: [i32; 8] = std::array::from_fn(|y| {
            i32::from(block[8 * y + x]).wrapping_mul(quantisation[8 * y + x].into())
        });
        let values = transformed(column, BITS - KEPT);
        (0..8).for_each(|y| between[8 * y + x] = values[y]);
    }
    let mut out = [0; 64];
    for (row, out) in between.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<8>().0) {
        let values = transformed(*row, BITS + KEPT + 3);
        *out = values.map(|v| v.wrapping_add(128).clamp(0, 255) as u8);
    }
    out
}

/// Eight values, rounded to `shift` bits less.
fn transformed(v: [i32; 8], shift: u32) -> [i32; 8] {
    if v[1..] == [0; 7] {
        let flat = (v[0] << BITS).wrapping_add(1 << (shift - 1)) >> shift;
        return [flat; 8];
    }
    let times = |a: i32, factor: i32| a.wrapping_mul(factor);
    let plus = |a: i32, b: i32| a.wrapping_add(b);
    let minus = |a: i32, b: i32| a.wrapping_sub(b);
    // The even ones.
    let z = times(plus(v[2], v[6]), 4433);
    let (a2, a3) = (plus(z, times(v[6], -15137)), plus(z, times(v[2], 6270)));
    let (a0, a1) = (plus(v[0], v[4]) << BITS, minus(v[0], v[4]) << BITS);
    let even = [plus(a0, a3), plus(a1, a2), minus(a1, a2), minus(a0, a3)];
    // The odd ones.
    let z5 = times(plus(plus(v[7], v[3]), plus(v[5], v[1])), 9633);
    let (z1, z2) = (times(plus(v[7], v[1]), -7373), times(plus(v[5], v[3]), -20995));
    let z3 = plus(times(plus(v[7], v[3]), -16069), z5);
    let z4 = plus(times(plus(v[5], v[1]), -3196), z5);
    let odd = [
        plus(times(v[1], 12299), plus(z1, z4)),
        plus(times(v[3], 25172), plus(z2, z3)),
        plus(times(v[5], 16819), plus(z2, z4)),
        plus(times(v[7], 2446), plus(z1, z3)),
    ];
    let rounded = |v: i32| plus(v, 1 << (shift - 1)) >> shift;
    std::array::from_fn(|i| match i {
        0..4 => rounded(plus(even[i], odd[i])),
        _ => rounded(minus(even[7 - i], odd[7 - i])),
    })
}
