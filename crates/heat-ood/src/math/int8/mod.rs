//! Rows in eight bits, and exact integer products with them.
//!
//! One instruction of AVX-512 VNNI or AVX-VNNI multiplies four times as many
//! eight-bit values as one of single precision does floats. What rounding to
//! eight bits takes away is measured ([`Eight::error`]), so that a product has
//! a bound on each side, and a search that needs exact products computes few.
//!
//! Layout of [`Panels`]: panels of [`WIDTH`] rows; within a panel four values
//! of each row, then the next four. Values there are x + 128, unsigned, as the
//! instruction wants one operand; the excess, 128·Σq, is known beforehand.
//! Products become values and are compared while they are in registers.

// Other processors have no such instruction here.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

#[cfg(target_arch = "x86_64")]
mod kernel;

use bytemuck::cast_slice_mut;

#[cfg(target_arch = "x86_64")]
use super::isa::{Avx2, Avx512};
use super::matmul::Aligned;

/// Rows of a panel.
pub const WIDTH: usize = 32;

/// Most columns: sums of 255·127 of them fit 32 bits.
const MOST: usize = 1 << 16;

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
    /// of it becomes zero.
    pub fn round(row: &[f32], centre: &[f32], out: &mut [i8]) -> Eight {
        crate::math::arch().dispatch(
            #[inline(always)]
            || Self::round_in(row, centre, out),
        )
    }

    #[inline(always)]
    fn round_in(row: &[f32], centre: &[f32], out: &mut [i8]) -> Eight {
        let mut most = [0.0f32; 16];
        let (rows, rest) = row.as_chunks::<16>();
        let (centres, centre_rest) = centre.as_chunks::<16>();
        for (x, c) in rows.iter().zip(centres) {
            for ((m, x), c) in most.iter_mut().zip(x).zip(c) {
                *m = m.max((x - c).abs());
            }
        }
        let most = most.iter().fold(0.0f32, |m, v| m.max(*v));
        let most = rest.iter().zip(centre_rest).fold(most, |m, (x, c)| m.max((x - c).abs()));
        let scale = most / 127.0;
        // Values all zero, too small or too large to be divided: the error is the whole row.
        let inverse = if scale.is_normal() { 1.0 / scale } else { 0.0 };
        let scale = if inverse.is_normal() { scale } else { 0.0 };
        let (mut norm, mut error) = ([0.0f64; 8], [0.0f64; 8]);
        let mut one = |i: usize, x: f32, c: f32, out: &mut i8| {
            let exact = f64::from(x) - f64::from(c);
            let value = ((x - c) * inverse).round_ties_even().clamp(-127.0, 127.0);
            let value = if scale == 0.0 { 0.0 } else { value };
            *out = value as i8;
            let rounded = f64::from(scale) * f64::from(value);
            norm[i] += rounded * rounded;
            error[i] += (exact - rounded) * (exact - rounded);
        };
        let (rows, rest) = row.as_chunks::<8>();
        let (centres, centre_rest) = centre.as_chunks::<8>();
        let (outs, out_rest) = out.as_chunks_mut::<8>();
        for ((x, c), out) in rows.iter().zip(centres).zip(outs.iter_mut()) {
            for i in 0..8 {
                one(i, x[i], c[i], &mut out[i]);
            }
        }
        let after = outs[rows.len()..].as_flattened_mut().iter_mut().chain(out_rest);
        let tail = rest.iter().zip(centre_rest).map(Some).chain(std::iter::repeat(None));
        for (i, (out, tail)) in after.zip(tail).enumerate() {
            match tail {
                Some((&x, &c)) => one(i % 8, x, c, out),
                None => *out = 0,
            }
        }
        let root = |sums: [f64; 8]| sums.iter().sum::<f64>().sqrt();
        Eight { scale, norm: root(norm), error: root(error) }
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

/// An instruction that multiplies eight-bit values and that this processor
/// has: one can only be had from [`Instruction::detect`].
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
    /// None: sums of integers one by one, to compare with.
    #[cfg(test)]
    Reference,
}

#[cfg(target_arch = "x86_64")]
fn has_avx512_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni") && Avx512::detect().is_some()
}

#[cfg(target_arch = "x86_64")]
fn has_avx_vnni() -> bool {
    is_x86_feature_detected!("avxvnni") && Avx2::detect().is_some() && !super::isa::lowered()
}

impl Instruction {
    /// The best that this processor has for rows of `dim` columns.
    pub fn detect(dim: usize) -> Option<Self> {
        if dim > MOST {
            return None;
        }
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx512_vnni() {
                return Some(Instruction(Kind::Avx512Vnni));
            }
            if has_avx_vnni() {
                return Some(Instruction(Kind::AvxVnni));
            }
        }
        None
    }

    /// All that can be run here.
    #[cfg(test)]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Instruction(Kind::Reference)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(has_avx512_vnni().then_some(Instruction(Kind::Avx512Vnni)));
            all.extend(has_avx_vnni().then_some(Instruction(Kind::AvxVnni)));
        }
        all
    }
}

/// Compare the values of all queries (`[m, depth]`) with all rows, panel by panel.
///
/// # Panics
/// If the queries are not of the panels' depth: a bug of the caller.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
pub fn values(with: Instruction, queries: &[i8], panels: &Panels, sink: &mut impl PanelSink) {
    assert!(queries.len().is_multiple_of(panels.depth) && panels.depth <= MOST);
    match with.0 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction was detected, or there would be no `with`.
        Kind::Avx512Vnni => unsafe { kernel::run_avx512(queries, panels, sink) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Kind::AvxVnni => unsafe { kernel::run_avx(queries, panels, sink) },
        #[cfg(test)]
        Kind::Reference => tests::reference(queries, panels, sink),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernels do, from the packed bytes, one value at a time.
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    pub(super) fn reference(queries: &[i8], panels: &Panels, sink: &mut impl PanelSink) {
        let bytes = bytemuck::cast_slice::<f32, u8>(&panels.data);
        for (panel, bytes) in bytes.chunks_exact(WIDTH * panels.depth).enumerate() {
            for (query, q) in queries.chunks_exact(panels.depth).enumerate() {
                let (mut values, mut mask) = ([0.0; WIDTH], 0);
                for (i, value) in values.iter_mut().enumerate() {
                    let x = |k: usize| i32::from(bytes[k / 4 * 4 * WIDTH + 4 * i + k % 4]) - 128;
                    let sum: i32 = q.iter().enumerate().map(|(k, v)| x(k) * i32::from(*v)).sum();
                    let row = panel * WIDTH + i;
                    let scale = sink.scale(query) * panels.scale[row];
                    *value = (-(sum as f32)).mul_add(scale, panels.own[row]);
                    mask |= u32::from(!(*value >= sink.limit(query, panel))) << i;
                }
                if mask != 0 {
                    sink.found(query, panel, mask, &values);
                }
            }
        }
    }

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

    #[test]
    fn values_equal_the_sums_of_integers() {
        for (m, n, depth) in [(1, 1, 4), (17, 70, 36), (29, 64, 512)] {
            let (queries, rows) = (bytes(m * depth, 1), bytes(n * depth, 99));
            let own: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let scale: Vec<f32> = (0..n).map(|i| [4.0, 0.25][i % 2]).collect();
            let panels = Panels::new(&rows, depth, own.clone(), scale.clone());
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
            for with in Instruction::all() {
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
        let row = vec![127i8; MOST];
        let panels = Panels::new(&row, MOST, vec![0.0], vec![1.0]);
        for with in Instruction::all() {
            let got = collect(with, &row, &panels, 1, f32::NAN);
            assert_eq!(got.values, [-127.0 * 127.0 * MOST as f32]);
        }
        assert!(Instruction::detect(MOST + 1).is_none());
    }

    /// By hand: steps of 2/127 about the centre.
    #[test]
    fn rounding_measures_its_error() {
        let (row, centre) = ([3.0f32, 1.0, -0.5], [1.0f32, 1.0, 1.0]);
        let mut out = [9i8; 4];
        let eight = Eight::round(&row, &centre, &mut out);
        assert_eq!(out, [127, 0, -95, 0]);
        let step = f64::from(2.0f32 / 127.0);
        let off = [2.0 - step * 127.0, -1.5 + step * 95.0];
        assert!((eight.error - off[0].hypot(off[1])).abs() < 1e-12);
        assert!((eight.norm - step * 127f64.hypot(95.0)).abs() < 1e-12);
        for row in [[0.0f32; 3], [1e-44, 0.0, 0.0], [f32::MAX, f32::MIN, 0.0]] {
            let eight = Eight::round(&row, &[0.0; 3], &mut out);
            let exact = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            assert!(eight.error <= exact && eight.norm <= exact * 1.01, "{row:?}");
        }
    }
}
