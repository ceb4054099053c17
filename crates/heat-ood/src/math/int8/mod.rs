//! Rows in eight bits, and exact integer products with them.
//!
//! One instruction of AVX-512 VNNI or AVX-VNNI multiplies four times as many
//! eight-bit values as one of single precision does floats; three of AVX2 four
//! times as many. What rounding to eight bits takes away is measured
//! ([`Eight::error`]), so that a product has a bound on each side, and a search
//! that needs exact products computes few.
//!
//! Layout of [`Panels`]: panels of [`WIDTH`] rows; within a panel four values
//! of each row, then the next four. Values there are x + 128, unsigned, as the
//! instruction wants one operand; the excess, 128·Σq, is known beforehand.
//! Products become values and are compared while they are in registers.

#[cfg(target_arch = "x86_64")]
mod kernel;

use bytemuck::{cast_slice, cast_slice_mut};

#[cfg(target_arch = "x86_64")]
use super::isa::{Avx2, Avx512};
use super::matmul::Aligned;

/// Rows of a panel.
pub const WIDTH: usize = 32;

/// So many products of 255 and 127 fit 32 bits.
const MOST: usize = 1 << 16;

/// How large rounded values may be.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// One of them.
    value: f32,
    /// The magnitudes of two neighbours together, one less than what they come
    /// to when both are rounded up.
    pair: f32,
}

impl Range {
    /// Of rows.
    pub const ROWS: Range = Range { value: 127.0, pair: 254.0 };
}

/// A row x in eight bits: x ≈ scale·values.
#[derive(Debug, Clone, Default)]
pub struct Eight {
    /// Step between two values.
    pub scale: f32,
    /// ‖scale·values‖.
    pub norm: f64,
    /// ‖x − scale·values‖.
    pub error: f64,
}

impl Eight {
    /// Round `row` − `centre` to `out`, which is at least as long; the rest
    /// of it becomes zero. Inlined, so that it is vectorised for the
    /// instruction set of the caller.
    #[inline(always)]
    pub fn round(row: &[f32], centre: &[f32], range: Range, out: &mut [i8]) -> Eight {
        let (mut value, mut pair) = ([0.0f32; 16], [0.0f32; 8]);
        for_each(row, centre, |_, x: &[f32; 16], c| {
            let off: [f32; 16] = std::array::from_fn(|i| (x[i] - c[i]).abs());
            value.iter_mut().zip(off).for_each(|(v, off)| *v = v.max(off));
            for (pair, off) in pair.iter_mut().zip(off.as_chunks::<2>().0) {
                *pair = pair.max(off[0] + off[1]);
            }
        });
        let max = |values: &[f32]| values.iter().fold(0.0f32, |m, v| m.max(*v));
        let scale = (max(&value) / range.value).max(max(&pair) / range.pair);
        // Values all zero, too small or too large to be divided: the error is the whole row.
        let inverse = if scale.is_normal() { 1.0 / scale } else { 0.0 };
        let scale = if inverse.is_normal() { scale } else { 0.0 };
        let (mut norm, mut error) = ([0.0f64; 8], [0.0f64; 8]);
        for_each(row, centre, |at, x: &[f32; 8], c| {
            let mut values = [0i8; 8];
            for i in 0..8 {
                let exact = f64::from(x[i]) - f64::from(c[i]);
                // No `clamp`, which has a panic in it.
                let value = ((x[i] - c[i]) * inverse).round_ties_even();
                let value = value.max(-range.value).min(range.value);
                let value = if scale == 0.0 { 0.0 } else { value };
                values[i] = value as i8;
                let rounded = f64::from(scale) * f64::from(value);
                norm[i] += rounded * rounded;
                error[i] += (exact - rounded) * (exact - rounded);
            }
            match out[at..].first_chunk_mut() {
                Some(out) => *out = values,
                None => out[at..].iter_mut().zip(values).for_each(|(o, v)| *o = v),
            }
        });
        if let Some(rest) = out.get_mut(row.len()..) {
            rest.fill(0);
        }
        let root = |sums: [f64; 8]| sums.iter().sum::<f64>().sqrt();
        Eight { scale, norm: root(norm), error: root(error) }
    }
}

/// Call `f` with the place of every N columns, the last of them filled up with zeros.
#[inline(always)]
fn for_each<const N: usize>(
    row: &[f32],
    centre: &[f32],
    mut f: impl FnMut(usize, &[f32; N], &[f32; N]),
) {
    let padded = |rest: &[f32]| std::array::from_fn(|i| rest.get(i).copied().unwrap_or(0.0));
    let ((rows, row), (centres, centre)) = (row.as_chunks(), centre.as_chunks());
    let last = [(&padded(row), &padded(centre))];
    let last = last.into_iter().filter(|_| !row.is_empty());
    let all = rows.iter().zip(centres).chain(last);
    // One call, or the compiler makes a function of it, for any processor.
    for (i, (x, c)) in all.enumerate() {
        f(i * N, x, c);
    }
}

/// Columns as stored: a multiple of four.
pub fn depth(dim: usize) -> usize {
    dim.next_multiple_of(4)
}

/// Rows in eight bits, packed, and what makes a value of a product: that of
/// query q with row x is own − q.scale·x.scale·product.
pub struct Panels {
    depth: usize,
    data: Aligned,
    own: Vec<f32>,
    scale: Vec<f32>,
}

impl Panels {
    /// Pack rows of [`depth`] values each, with `own` and `scale` of each row.
    pub fn new(rows: &[i8], depth: usize, mut own: Vec<f32>, mut scale: Vec<f32>) -> Self {
        let places = own.len().next_multiple_of(WIDTH);
        own.resize(places, 0.0);
        scale.resize(places, 0.0);
        let mut data = Aligned::zeros(places * depth / 4);
        let bytes: &mut [u8] = cast_slice_mut(&mut data);
        for (i, row) in rows.chunks_exact(depth).enumerate() {
            let panel = &mut bytes[i / WIDTH * WIDTH * depth..][..WIDTH * depth];
            let places = panel.chunks_exact_mut(4 * WIDTH);
            for (four, place) in row.chunks_exact(4).zip(places) {
                for (v, to) in four.iter().zip(&mut place[i % WIDTH * 4..]) {
                    *to = v.wrapping_add(-128) as u8;
                }
            }
        }
        Panels { depth, data, own, scale }
    }
}

/// What asks for values below a limit.
pub trait PanelSink {
    /// Scale of a query.
    fn scale(&self, query: usize) -> f32;

    /// Limit for a query and a panel.
    fn limit(&self, query: usize, panel: usize) -> f32;

    /// Values of a query with a panel; the bits of `mask` are set where one is
    /// not at or above the limit, for one row at least. Values beyond the last
    /// row are of no meaning.
    fn found(&mut self, query: usize, panel: usize, mask: u32, values: &[f32; WIDTH]);
}

/// How eight-bit values are multiplied: with what this processor has, since one
/// can only be had from [`Instruction::detect`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Instruction(Kind);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// `vpdpbusd` on 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// `vpdpbusd` on 256 bits.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// `vpmaddubsw` and `vpmaddwd` on 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the compiler makes of a loop.
    Portable,
}

impl Kind {
    /// All that there are here, the best first.
    fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let all = {
            let avx512_vnni = Avx512::detect().is_some() && is_x86_feature_detected!("avx512vnni");
            let avx2 = Avx2::detect().is_some();
            let avx_vnni = avx2 && is_x86_feature_detected!("avxvnni") && !super::isa::lowered();
            [
                avx512_vnni.then_some(Kind::Avx512Vnni),
                avx_vnni.then_some(Kind::AvxVnni),
                avx2.then_some(Kind::Avx2),
                Some(Kind::Portable),
            ]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let all = [Some(Kind::Portable)];
        all.into_iter().flatten()
    }
}

impl Instruction {
    /// The best that this processor has.
    pub fn detect() -> Self {
        Instruction(Kind::all().next().unwrap_or(Kind::Portable))
    }

    /// All that can be run here.
    #[cfg(test)]
    pub fn all() -> Vec<Self> {
        Kind::all().map(Instruction).collect()
    }

    /// How large the values of a query of `dim` columns may be.
    pub fn queries(self, dim: usize) -> Range {
        let value = (127 * MOST / dim.max(MOST)) as f32;
        let pair = match self.0 {
            // Two products with 255 are added in 16 bits: 255·(127 + 1) fits.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 127.0,
            _ => 254.0,
        };
        Range { value, pair }
    }
}

/// Compare the values of all queries (`[m, depth]`) with all rows, panel by panel.
/// The queries are in their [range](Instruction::queries).
///
/// # Panics
/// If the queries are not of the panels' depth: a bug of the caller.
pub fn values(with: Instruction, queries: &[i8], panels: &Panels, sink: &mut impl PanelSink) {
    assert!(queries.len().is_multiple_of(panels.depth));
    match with.0 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instructions were detected, or there would be no `with`.
        Kind::Avx512Vnni => unsafe { kernel::run_avx512(queries, panels, sink) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Kind::AvxVnni => unsafe { kernel::run_avx_vnni(queries, panels, sink) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Kind::Avx2 => unsafe { kernel::run_avx2(queries, panels, sink) },
        Kind::Portable => portable(queries, panels, sink),
    }
}

/// Panel by panel, with each column's values side by side.
#[allow(clippy::neg_cmp_op_on_partial_ord)]
fn portable(queries: &[i8], panels: &Panels, sink: &mut impl PanelSink) {
    let depth = panels.depth;
    let mut columns = vec![[0i16; WIDTH]; depth];
    let bytes = cast_slice::<f32, u8>(&panels.data);
    for (panel, bytes) in bytes.chunks_exact(WIDTH * depth).enumerate() {
        for (columns, fours) in columns.chunks_exact_mut(4).zip(bytes.chunks_exact(4 * WIDTH)) {
            for (i, four) in fours.as_chunks::<4>().0.iter().enumerate() {
                for (column, v) in columns.iter_mut().zip(four) {
                    column[i] = i16::from(*v) - 128;
                }
            }
        }
        for (query, q) in queries.chunks_exact(depth).enumerate() {
            let mut sums = [0i32; WIDTH];
            for (column, q) in columns.iter().zip(q) {
                let q = i16::from(*q);
                sums.iter_mut().zip(column).for_each(|(s, x)| *s += i32::from(*x) * i32::from(q));
            }
            let (own, scales) = (&panels.own[panel * WIDTH..], &panels.scale[panel * WIDTH..]);
            let (scale, limit) = (sink.scale(query), sink.limit(query, panel));
            let (mut values, mut mask) = ([0.0; WIDTH], 0);
            for (i, (value, sum)) in values.iter_mut().zip(sums).enumerate() {
                *value = own[i] - sum as f32 * (scale * scales[i]);
                mask |= u32::from(!(*value >= limit)) << i;
            }
            if mask != 0 {
                sink.found(query, panel, mask, &values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: usize, salt: u32) -> Vec<i8> {
        let value = |i: u32| (i + salt).wrapping_mul(2_654_435_761) >> 24;
        (0..n as u32).map(|i| (value(i) as u8 as i8).max(-127)).collect()
    }

    /// All values, and the masks of a limit.
    struct Collect {
        values: Vec<f32>,
        below: Vec<bool>,
        limit: f32,
        rows: usize,
    }

    impl PanelSink for Collect {
        fn scale(&self, query: usize) -> f32 {
            [1.0, 0.5, 2.0][query % 3]
        }

        fn limit(&self, _: usize, _: usize) -> f32 {
            self.limit
        }

        fn found(&mut self, query: usize, panel: usize, mask: u32, values: &[f32; WIDTH]) {
            for (i, value) in values.iter().enumerate().take(self.rows - panel * WIDTH) {
                let at = query * self.rows + panel * WIDTH + i;
                self.values[at] = *value;
                self.below[at] = mask >> i & 1 == 1;
            }
        }
    }

    fn collect(
        with: Instruction,
        queries: &[i8],
        panels: &Panels,
        n: usize,
        limit: f32,
    ) -> Collect {
        let all = n * queries.len() / panels.depth;
        let (values, below) = (vec![f32::NAN; all], vec![false; all]);
        let mut collect = Collect { values, below, limit, rows: n };
        super::values(with, queries, panels, &mut collect);
        collect
    }

    /// Queries of whole numbers, rounded to themselves where their range allows it.
    fn rounded(with: Instruction, queries: &[i8], dim: usize) -> Vec<i8> {
        let mut out = vec![0; queries.len()];
        for (query, out) in queries.chunks(dim).zip(out.chunks_mut(dim)) {
            let row: Vec<f32> = query.iter().map(|v| f32::from(*v)).collect();
            Eight::round(&row, &vec![0.0; dim], with.queries(dim), out);
        }
        out
    }

    #[test]
    fn values_equal_the_sums_of_integers() {
        for (m, n, depth) in [(1, 1, 4), (17, 70, 36), (29, 64, 512)] {
            let rows = bytes(n * depth, 99);
            let own: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let scale: Vec<f32> = (0..n).map(|i| [4.0, 0.25][i % 2]).collect();
            let panels = Panels::new(&rows, depth, own.clone(), scale.clone());
            for with in Instruction::all() {
                let queries = rounded(with, &bytes(m * depth, 1), depth);
                let mut want = Vec::new();
                for (j, q) in queries.chunks(depth).enumerate() {
                    for (i, x) in rows.chunks(depth).enumerate() {
                        let pairs = q.iter().zip(x);
                        let dot: i32 = pairs.map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
                        // Powers of two: one rounding in all, as in a fused operation.
                        let scaled = [1.0, 0.5, 2.0][j % 3] * f64::from(scale[i]) * f64::from(dot);
                        want.push((f64::from(own[i]) - scaled) as f32);
                    }
                }
                let all = collect(with, &queries, &panels, n, f32::NAN);
                assert_eq!(all.values, want, "{with:?}");
                assert!(all.below.iter().all(|b| *b));
                let some = collect(with, &queries, &panels, n, 0.0);
                let negative: Vec<bool> = want.iter().map(|v| *v < 0.0).collect();
                assert_eq!(some.below, negative);
                let none = collect(with, &queries, &panels, n, f32::NEG_INFINITY);
                assert!(none.values.iter().all(|v| v.is_nan()));
            }
        }
    }

    #[test]
    fn the_largest_values_do_not_overflow() {
        for dim in [MOST, 4 * MOST] {
            for sign in [127, -127] {
                let row = vec![sign; dim];
                let panels = Panels::new(&row, dim, vec![0.0], vec![1.0]);
                for with in Instruction::all() {
                    let query = rounded(with, &vec![127; dim], dim);
                    let got = collect(with, &query, &panels, 1, f32::NAN);
                    let want = -i64::from(sign) * i64::from(query[0]) * dim as i64;
                    assert_eq!(got.values, [want as f32], "{with:?}");
                }
            }
        }
    }

    /// By hand: 127 and 127 may stand beside each other, or come to 128 together.
    #[test]
    fn neighbours_stay_within_their_range() {
        let (row, mut out) = ([1.0f32, -1.0, 0.0, 0.5, 0.0], [0i8; 8]);
        let mut round = |pair| {
            Eight::round(&row, &[0.0; 5], Range { value: 127.0, pair }, &mut out);
            out
        };
        assert_eq!(round(254.0), [127, -127, 0, 64, 0, 0, 0, 0]);
        assert_eq!(round(127.0), [64, -64, 0, 32, 0, 0, 0, 0]);
    }

    /// By hand: steps of 2/127 about the centre.
    #[test]
    fn rounding_measures_its_error() {
        let (row, centre) = ([3.0f32, 1.0, -0.5], [1.0f32, 1.0, 1.0]);
        let mut out = [9i8; 4];
        let eight = Eight::round(&row, &centre, Range::ROWS, &mut out);
        assert_eq!(out, [127, 0, -95, 0]);
        let step = f64::from(2.0f32 / 127.0);
        let off = [2.0 - step * 127.0, -1.5 + step * 95.0];
        assert!((eight.error - off[0].hypot(off[1])).abs() < 1e-12);
        assert!((eight.norm - step * 127f64.hypot(95.0)).abs() < 1e-12);
        for row in [[0.0f32; 3], [1e-44, 0.0, 0.0], [f32::MAX, f32::MIN, 0.0]] {
            let eight = Eight::round(&row, &[0.0; 3], Range::ROWS, &mut out);
            let exact = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            assert!(eight.error <= exact && eight.norm <= exact * 1.01, "{row:?}");
        }
    }
}
