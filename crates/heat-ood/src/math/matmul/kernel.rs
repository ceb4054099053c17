//! The register tiles and the loop around them: the only `unsafe` of the
//! arithmetic.

use super::*;
use crate::math::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::math::isa::{Avx2, Avx512};
#[cfg(target_arch = "aarch64")]
use neon::*;

/// Columns of a panel of B: two registers, so that a part of it stays in the
/// first-level cache.
pub(super) fn panel_columns(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) => NR_MAX,
        _ => 16,
    }
}

/// Rows of a register tile.
fn tile_rows(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) => MR_MAX,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) => 6,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(_) => 6,
        Isa::Portable => 4,
    }
}

/// A product: `c = a·b`, or `c += a·b`.
pub(super) struct Product<'a> {
    pub(super) add: bool,
    pub(super) a: View<'a>,
    /// Rows of `a`.
    pub(super) m: usize,
    pub(super) b: &'a Packed,
    pub(super) c: &'a mut [f32],
    /// From a row of `c` to the next.
    pub(super) ldc: usize,
}

impl Product<'_> {
    /// Compute it with the best instructions that there are.
    pub(super) fn run<E: Epilogue>(self, scratch: &mut Aligned, epilogue: &mut E) {
        let (m, b) = (self.m, self.b);
        if m == 0 || b.n == 0 {
            return;
        }
        assert!(self.ldc >= b.n && self.c.len() >= (m - 1) * self.ldc + b.n);
        scratch.reserve(scratch_length(m, b.k));
        self.run_on(Isa::detect(), scratch, epilogue);
    }

    pub(super) fn run_on<E: Epilogue>(self, isa: Isa, scratch: &mut [f32], epilogue: &mut E) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has the instructions, by the proof.
            Isa::Avx512(proof) => unsafe { run_avx512(proof, self, scratch, epilogue) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2(proof) => unsafe { run_avx2(proof, self, scratch, epilogue) },
            // What is compiled for aarch64 has NEON everywhere.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => blocked(isa, self, scratch, epilogue),
            Isa::Portable => blocked(isa, self, scratch, epilogue),
        }
    }
}

// The whole loop is compiled once per instruction set, so that the packing
// and the epilogue are vectorised for it too.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
fn run_avx512<E: Epilogue>(
    proof: Avx512,
    product: Product<'_>,
    scratch: &mut [f32],
    epilogue: &mut E,
) {
    blocked(Isa::Avx512(proof), product, scratch, epilogue);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<E: Epilogue>(proof: Avx2, product: Product<'_>, scratch: &mut [f32], epilogue: &mut E) {
    blocked(Isa::Avx2(proof), product, scratch, epilogue);
}

/// The loop over slabs and blocks of rows.
#[inline(always)]
fn blocked<E: Epilogue>(isa: Isa, product: Product<'_>, scratch: &mut [f32], epilogue: &mut E) {
    let Product { add, a, m, b, c, ldc } = product;
    for slab in crate::math::blocks(b.k.max(1), KC) {
        let depth = slab.start..slab.end.min(b.k);
        let (first, last) = (depth.start == 0 && !add, depth.end == b.k);
        for rows in crate::math::blocks(m, ROWS) {
            let c = &mut c[rows.start * ldc..];
            let block =
                Block { a: a.rows_from(rows.start), rows, depth: depth.clone(), first, last };
            block.run(isa, b, c, ldc, scratch, epilogue);
        }
    }
}

/// Some rows of C and a slab.
struct Block<'a> {
    a: View<'a>,
    rows: std::ops::Range<usize>,
    depth: std::ops::Range<usize>,
    /// Whether C holds nothing yet, and whether its sums are complete after this slab.
    first: bool,
    last: bool,
}

impl Block<'_> {
    /// The loop over panels of B, their parts, and tiles.
    #[inline(always)]
    fn run<E: Epilogue>(
        self,
        isa: Isa,
        b: &Packed,
        c: &mut [f32],
        ldc: usize,
        scratch: &mut [f32],
        epilogue: &mut E,
    ) {
        let Block { a, rows: block, depth, first, last } = self;
        let (nr, m, kc) = (b.nr, block.len(), depth.len());
        let tiles = m.div_ceil(tile_rows(isa));
        // Packing A pays from the second panel of B on.
        let direct = b.n <= nr && a.col == 1;
        let (packed, partial) = scratch.split_at_mut(m * kc);
        for rows in split(m, tiles).filter(|_| !direct) {
            let out = &mut packed[rows.start * kc..rows.end * kc];
            pack_left(out, a.rows_from(rows.start), rows.len(), depth.start);
        }
        for panel in 0..b.n.div_ceil(nr) {
            let column = panel * nr;
            let width = nr.min(b.n - column);
            let right = &b.data[b.offset(depth.start, kc, panel)..][..kc * nr];
            for part in crate::math::blocks(kc.max(1), PART) {
                let part = part.start..part.end.min(kc);
                for rows in split(m, tiles) {
                    let data = match direct {
                        true => &a.rows_from(rows.start).data[depth.start + part.start..],
                        false => &packed[rows.start * kc + part.start * rows.len()..],
                    };
                    let tile = Tile {
                        rows: rows.len(),
                        left: Left { data, row: a.row, direct },
                        right: &right[part.start * nr..part.end * nr],
                        nr,
                        width,
                        partial: &mut partial[rows.start * nr..rows.end * nr],
                        begins: part.start == 0,
                    };
                    if part.end < kc {
                        tile.run_part(isa);
                        continue;
                    }
                    let corner = &mut c[rows.start * ldc + column..];
                    tile.run(isa, corner, ldc, first);
                    if last {
                        for i in 0..rows.len() {
                            let values = &mut corner[i * ldc..][..width];
                            epilogue.apply(block.start + rows.start + i, column, values);
                        }
                    }
                }
            }
        }
    }
}

/// Some rows of A: where they lie, `row` floats apart, or packed.
#[derive(Clone, Copy)]
struct Left<'a> {
    data: &'a [f32],
    row: usize,
    direct: bool,
}

/// `m` rows in `panels` runs whose lengths differ by at most one.
#[inline(always)]
fn split(m: usize, panels: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let (base, extra) = (m / panels, m % panels);
    (0..panels).map(move |i| {
        let start = i * base + i.min(extra);
        start..start + base + usize::from(i < extra)
    })
}

#[inline(always)]
fn pack_left(out: &mut [f32], a: View<'_>, rows: usize, start: usize) {
    if a.row == 1 {
        for (p, o) in out.chunks_exact_mut(rows).enumerate() {
            o.copy_from_slice(&a.data[(start + p) * a.col..][..rows]);
        }
        return;
    }
    if a.col != 1 {
        for (p, o) in out.chunks_exact_mut(rows).enumerate() {
            for (i, o) in o.iter_mut().enumerate() {
                *o = a.at(i, start + p);
            }
        }
        return;
    }
    // Sixteen columns at a time, so that the stores of all rows fall into
    // the same few cache lines.
    const COLUMNS: usize = 16;
    for (c, out) in out.chunks_mut(rows * COLUMNS).enumerate() {
        for i in 0..rows {
            let from = &a.data[i * a.row + start + c * COLUMNS..];
            if out.len() == rows * COLUMNS {
                for (p, x) in from[..COLUMNS].iter().enumerate() {
                    out[p * rows + i] = *x;
                }
            } else {
                for (o, x) in out[i..].iter_mut().step_by(rows).zip(from) {
                    *o = *x;
                }
            }
        }
    }
}

/// A register tile: `rows × width` elements of C, from rows of A and a part of
/// a slab of a panel of B.
struct Tile<'a> {
    rows: usize,
    left: Left<'a>,
    right: &'a [f32],
    /// Columns of the panel.
    nr: usize,
    width: usize,
    /// Sums over the parts of the slab so far, `[rows, nr]`.
    partial: &'a mut [f32],
    /// Whether this is the slab's first part.
    begins: bool,
}

impl Tile<'_> {
    /// A part that is not the last: the sums stay in `partial`.
    #[inline(always)]
    fn run_part(self, isa: Isa) {
        let (out, nr) = (self.partial.as_mut_ptr(), self.nr);
        // SAFETY: `partial` holds the tile.
        unsafe { self.micro(isa, out, nr, false) };
    }

    /// The last part: the sums are, or are added to, what is in C. In place
    /// when whole, through a buffer at the right edge.
    #[inline(always)]
    fn run(self, isa: Isa, c: &mut [f32], ldc: usize, first: bool) {
        let (rows, width, nr) = (self.rows, self.width, self.nr);
        assert!(rows <= MR_MAX && nr <= NR_MAX);
        if width == nr {
            assert!(c.len() >= (rows - 1) * ldc + nr);
            // SAFETY: `c` holds the tile.
            unsafe { self.micro(isa, c.as_mut_ptr(), ldc, !first) };
            return;
        }
        let mut edge = [0.0; MR_MAX * NR_MAX];
        if !first {
            for i in 0..rows {
                edge[i * nr..][..width].copy_from_slice(&c[i * ldc..][..width]);
            }
        }
        // SAFETY: `edge` holds MR_MAX rows of NR_MAX.
        unsafe { self.micro(isa, edge.as_mut_ptr(), nr, !first) };
        for i in 0..rows {
            c[i * ldc..][..width].copy_from_slice(&edge[i * nr..][..width]);
        }
    }

    /// # Safety
    /// From `out` on there are `rows` rows of `nr` floats, `ld` apart.
    #[inline(always)]
    unsafe fn micro(self, isa: Isa, out: *mut f32, ld: usize, add: bool) {
        let Tile { rows, left, right, nr, width, partial, begins } = self;
        let kc = right.len() / nr;
        let row = if left.direct { left.row } else { kc };
        assert!(kc == 0 || left.data.len() >= (rows - 1) * row + kc);
        assert!(nr == panel_columns(isa) && partial.len() >= rows * nr);
        let sums =
            Sums { start: if begins { std::ptr::null() } else { partial.as_ptr() }, out, ld, add };
        let (a, b) = (left.data.as_ptr(), right.as_ptr());
        macro_rules! by_rows {
            ($f:ident, $w:literal: $($r:literal)*) => {
                match (rows, left.direct) {
                    $(
                        // SAFETY: `a`, `b` and the sums so far are as long as the assertions
                        // say, `out` as the caller promises, and `isa` proves the instructions.
                        ($r, true) => unsafe { $f::<$r, true, $w>(kc, a, row, b, sums) },
                        // SAFETY: as above; packed, all rows lie together.
                        ($r, false) => unsafe { $f::<$r, false, $w>(kc, a, 1, b, sums) },
                    )*
                    _ => unreachable!("a tile has at most MR rows"),
                }
            };
        }
        match (isa, width > nr / 2) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512(_), true) => by_rows!(avx512, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512(_), false) => by_rows!(avx512, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2(_), true) => by_rows!(avx2, 2: 1 2 3 4 5 6),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2(_), false) => by_rows!(avx2, 1: 1 2 3 4 5 6),
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon(_), true) => by_rows!(neon, 2: 1 2 3 4 5 6),
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon(_), false) => by_rows!(neon, 1: 1 2 3 4 5 6),
            (Isa::Portable, true) => by_rows!(portable, 2: 1 2 3 4),
            (Isa::Portable, false) => by_rows!(portable, 1: 1 2 3 4),
        }
    }
}

/// Where a tile's sums begin and where they go.
#[derive(Clone, Copy)]
struct Sums {
    /// The sums so far, in rows of a panel's columns; null for zeros.
    start: *const f32,
    out: *mut f32,
    /// From a row of `out` to the next.
    ld: usize,
    /// Whether they are added to what is there.
    add: bool,
}

// The kernels: R rows of A, `row` floats apart where DIRECT, else packed so that
// the R values of one step lie together; W halves of a panel of B.
//
// Their callers promise that from `a` on there are R rows of `kc` floats so
// placed, from `b` on `kc` rows of a panel's columns, from `sums.start` on R
// such rows unless it is null, and from `sums.out` on R, `sums.ld` apart.

/// A kernel of one instruction set: `$lanes` floats a `$vector`, two of them a row of a panel.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernel {
    ($name:ident, $features:literal, $lanes:literal, $vector:ident, $zero:ident, $load:ident,
     $store:ident, $broadcast:ident, $fma:ident, $add:ident) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const DIRECT: bool, const W: usize>(
            kc: usize,
            mut a: *const f32,
            row: usize,
            mut b: *const f32,
            sums: Sums,
        ) {
            #[cfg(target_arch = "x86_64")]
            use std::arch::x86_64::*;
            const NR: usize = 2 * $lanes;
            // Far enough ahead that a line of B arrives before it is used.
            const AHEAD: usize = 8 * NR;
            let (row, next) = if DIRECT { (row, 1) } else { (1, R) };
            let Sums { start, out, ld, add } = sums;
            // SAFETY: what is read and written lies within what the caller promises;
            // what is prefetched may lie anywhere.
            unsafe {
                let mut sum = [[$zero(); W]; R];
                for i in 0..R {
                    for h in 0..W {
                        crate::math::prefetch_line(out.wrapping_add(i * ld + $lanes * h));
                    }
                }
                if !start.is_null() {
                    for (i, sum) in sum.iter_mut().enumerate() {
                        for (h, sum) in sum.iter_mut().enumerate() {
                            *sum = $load(start.add(i * NR + $lanes * h));
                        }
                    }
                }
                let mut step = |a: *const f32, b: *const f32| {
                    let b: [$vector; W] = std::array::from_fn(|h| {
                        crate::math::prefetch_line(b.wrapping_add(AHEAD + $lanes * h));
                        $load(b.add($lanes * h))
                    });
                    for (i, sum) in sum.iter_mut().enumerate() {
                        let x = $broadcast(*a.add(i * row));
                        for (sum, b) in sum.iter_mut().zip(b) {
                            *sum = $fma(x, b, *sum);
                        }
                    }
                };
                for _ in 0..kc / 4 {
                    for u in 0..4 {
                        step(a.add(u * next), b.add(u * NR));
                    }
                    a = a.wrapping_add(4 * next);
                    b = b.wrapping_add(4 * NR);
                }
                for _ in 0..kc % 4 {
                    step(a, b);
                    a = a.wrapping_add(next);
                    b = b.wrapping_add(NR);
                }
                for (i, sum) in sum.iter().enumerate() {
                    for (h, &value) in sum.iter().enumerate() {
                        let out = out.add(i * ld + $lanes * h);
                        let value = if add { $add($load(out), value) } else { value };
                        $store(out, value);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(
    avx512,
    "avx512f",
    16,
    __m512,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps
);

#[cfg(target_arch = "x86_64")]
kernel!(
    avx2,
    "avx2,fma",
    8,
    __m256,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps
);

#[cfg(target_arch = "aarch64")]
kernel!(neon, "neon", 8, Pair, zero, load, store, broadcast, fma, add);

/// Two NEON registers as one of eight floats: 6·2·2 sums of 32 registers.
#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    pub(super) type Pair = float32x4x2_t;

    #[target_feature(enable = "neon")]
    #[inline]
    pub(super) fn zero() -> Pair {
        broadcast(0.0)
    }

    /// # Safety
    /// There are eight floats at `from`.
    #[target_feature(enable = "neon")]
    #[inline]
    pub(super) unsafe fn load(from: *const f32) -> Pair {
        // SAFETY: the caller's promise.
        unsafe { float32x4x2_t(vld1q_f32(from), vld1q_f32(from.add(4))) }
    }

    /// # Safety
    /// There is room for eight floats at `to`.
    #[target_feature(enable = "neon")]
    #[inline]
    pub(super) unsafe fn store(to: *mut f32, value: Pair) {
        // SAFETY: the caller's promise.
        unsafe {
            vst1q_f32(to, value.0);
            vst1q_f32(to.add(4), value.1);
        }
    }

    #[target_feature(enable = "neon")]
    #[inline]
    pub(super) fn broadcast(x: f32) -> Pair {
        float32x4x2_t(vdupq_n_f32(x), vdupq_n_f32(x))
    }

    /// x·y + sum.
    #[target_feature(enable = "neon")]
    #[inline]
    pub(super) fn fma(x: Pair, y: Pair, sum: Pair) -> Pair {
        float32x4x2_t(vfmaq_f32(sum.0, x.0, y.0), vfmaq_f32(sum.1, x.1, y.1))
    }

    #[target_feature(enable = "neon")]
    #[inline]
    pub(super) fn add(x: Pair, y: Pair) -> Pair {
        float32x4x2_t(vaddq_f32(x.0, y.0), vaddq_f32(x.1, y.1))
    }
}

unsafe fn portable<const R: usize, const DIRECT: bool, const W: usize>(
    kc: usize,
    a: *const f32,
    row: usize,
    b: *const f32,
    sums: Sums,
) {
    const NR: usize = 16;
    let (row, next) = if DIRECT { (row, 1) } else { (1, R) };
    // SAFETY: the caller's promise; `length` ends with the last value of the last row.
    let (a, b) = unsafe {
        let length = if kc == 0 { 0 } else { (R - 1) * row + (kc - 1) * next + 1 };
        (std::slice::from_raw_parts(a, length), std::slice::from_raw_parts(b, kc * NR))
    };
    let mut sum = [[0.0f32; NR]; R];
    if !sums.start.is_null() {
        // SAFETY: the caller's promise: R rows of NR floats.
        let start = unsafe { std::slice::from_raw_parts(sums.start, R * NR) };
        sum.as_flattened_mut().copy_from_slice(start);
    }
    for (p, b) in b.chunks_exact(NR).enumerate() {
        for (i, sum) in sum.iter_mut().enumerate() {
            let x = a[i * row + p * next];
            for (s, &y) in sum.iter_mut().zip(&b[..W * NR / 2]) {
                *s = x.mul_add(y, *s);
            }
        }
    }
    for (i, sum) in sum.iter().enumerate() {
        // SAFETY: the caller's promise: NR floats in each of R rows.
        let out = unsafe { std::slice::from_raw_parts_mut(sums.out.add(i * sums.ld), NR) };
        for (o, s) in out.iter_mut().zip(sum) {
            *o = if sums.add { *o + s } else { *s };
        }
    }
}
