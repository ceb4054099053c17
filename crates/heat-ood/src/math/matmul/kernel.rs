//! The register tiles and the loop around them: the only `unsafe` of the
//! arithmetic.

use super::*;
use crate::math::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::math::isa::{Avx2, Avx512};

/// Rows of a register tile.
fn tile_rows(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) => MR_MAX,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) => 6,
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
        scratch.reserve(m * KC.min(b.k));
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

/// The loop over slabs, panels and tiles.
#[inline(always)]
fn blocked<E: Epilogue>(isa: Isa, product: Product<'_>, scratch: &mut [f32], epilogue: &mut E) {
    let Product { add, a, m, b, c, ldc } = product;
    let panels = m.div_ceil(tile_rows(isa));
    // Packing A pays from the second panel of B on.
    let direct = b.n <= NR && a.col == 1;
    for slab in crate::math::blocks(b.k.max(1), KC) {
        let kc = slab.len().min(b.k);
        let (first, last) = (slab.start == 0 && !add, slab.end >= b.k);
        for rows in split(m, panels).filter(|_| !direct) {
            let out = &mut scratch[rows.start * kc..rows.end * kc];
            pack_left(out, a.from_row(rows.start), rows.len(), slab.start);
        }
        for panel in 0..b.n.div_ceil(NR) {
            let column = panel * NR;
            let width = NR.min(b.n - column);
            let right = &b.data[b.offset(slab.start, kc, panel)..][..kc * NR];
            for rows in split(m, panels) {
                let data = match direct {
                    true => &a.from_row(rows.start).data[slab.start..],
                    false => &scratch[rows.start * kc..rows.end * kc],
                };
                let left = Left { data, row: a.row, direct };
                let corner = &mut c[rows.start * ldc + column..];
                Tile { rows: rows.len(), left, right, width, first }.run(isa, corner, ldc);
                if last {
                    for i in 0..rows.len() {
                        let values = &mut corner[i * ldc..][..width];
                        epilogue.apply(rows.start + i, column, values);
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

/// A register tile: `rows × width` elements of C, from rows of A and a slab of
/// a panel of B.
struct Tile<'a> {
    rows: usize,
    left: Left<'a>,
    right: &'a [f32],
    width: usize,
    /// Whether C holds nothing yet.
    first: bool,
}

impl Tile<'_> {
    /// In place when whole, through a buffer at the right edge.
    #[inline(always)]
    fn run(self, isa: Isa, c: &mut [f32], ldc: usize) {
        let (rows, width) = (self.rows, self.width);
        assert!(rows <= MR_MAX);
        if width == NR {
            assert!(c.len() >= (rows - 1) * ldc + NR);
            // SAFETY: `c` holds the tile.
            unsafe { self.micro(isa, c.as_mut_ptr(), ldc) };
            return;
        }
        let mut edge = [0.0; MR_MAX * NR];
        if !self.first {
            for i in 0..rows {
                edge[i * NR..][..width].copy_from_slice(&c[i * ldc..][..width]);
            }
        }
        // SAFETY: `edge` holds MR_MAX rows of NR.
        unsafe { self.micro(isa, edge.as_mut_ptr(), NR) };
        for i in 0..rows {
            c[i * ldc..][..width].copy_from_slice(&edge[i * NR..][..width]);
        }
    }

    /// # Safety
    /// From `c` on there are `rows` rows of NR floats, `ldc` apart.
    #[inline(always)]
    unsafe fn micro(self, isa: Isa, c: *mut f32, ldc: usize) {
        let Tile { rows, left, right, width, first } = self;
        let kc = right.len() / NR;
        let row = if left.direct { left.row } else { kc };
        assert!(kc == 0 || left.data.len() >= (rows - 1) * row + kc);
        let (a, b) = (left.data.as_ptr(), right.as_ptr());
        macro_rules! by_rows {
            ($f:ident, $w:literal: $($r:literal)*) => {
                match (rows, left.direct) {
                    $(
                        // SAFETY: `a` and `b` are as long as the assertion and `kc` say, `c`
                        // as the caller promises, and `isa` proves the instructions.
                        ($r, true) => unsafe { $f::<$r, true, $w>(kc, a, row, b, c, ldc, first) },
                        // SAFETY: as above; packed, all rows lie together.
                        ($r, false) => unsafe { $f::<$r, false, $w>(kc, a, 1, b, c, ldc, first) },
                    )*
                    _ => unreachable!("a tile has at most MR rows"),
                }
            };
        }
        match (isa, width > NR / 2) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512(_), true) => by_rows!(avx512, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512(_), false) => by_rows!(avx512, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2(_), true) => by_rows!(avx2, 2: 1 2 3 4 5 6),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2(_), false) => by_rows!(avx2, 1: 1 2 3 4 5 6),
            (Isa::Portable, true) => by_rows!(portable, 2: 1 2 3 4),
            (Isa::Portable, false) => by_rows!(portable, 1: 1 2 3 4),
        }
    }
}

// The kernels: R rows of A, `row` floats apart where DIRECT, else packed so that
// the R values of one step lie together; W halves of a panel of B.
//
// Their callers promise that from `a` on there are R rows of `kc` floats so
// placed, from `b` on `kc` rows of NR, and from `c` on R rows of NR, `ldc` apart.

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const R: usize, const DIRECT: bool, const W: usize>(
    kc: usize,
    mut a: *const f32,
    row: usize,
    mut b: *const f32,
    c: *mut f32,
    ldc: usize,
    first: bool,
) {
    use std::arch::x86_64::*;
    // Far enough ahead that a line of B arrives before it is used.
    const AHEAD: usize = 8 * NR;
    let (row, next) = if DIRECT { (row, 1) } else { (1, R) };
    // SAFETY: what is read and written lies within what the caller promises;
    // what is prefetched may lie anywhere.
    unsafe {
        let mut sum = [[_mm512_setzero_ps(); W]; R];
        for i in 0..R {
            for h in 0..W {
                _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(i * ldc + 16 * h).cast());
            }
        }
        let mut step = |a: *const f32, b: *const f32| {
            let b: [__m512; W] = std::array::from_fn(|h| {
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD + 16 * h).cast());
                _mm512_loadu_ps(b.add(16 * h))
            });
            for (i, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i * row));
                for (sum, b) in sum.iter_mut().zip(b) {
                    *sum = _mm512_fmadd_ps(x, b, *sum);
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
                let out = c.add(i * ldc + 16 * h);
                let value = if first { value } else { _mm512_add_ps(_mm512_loadu_ps(out), value) };
                _mm512_storeu_ps(out, value);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize, const DIRECT: bool, const W: usize>(
    kc: usize,
    a: *const f32,
    row: usize,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    first: bool,
) {
    use std::arch::x86_64::*;
    let (row, next) = if DIRECT { (row, 1) } else { (1, R) };
    // Sixteen registers hold a tile of 6·16: the panel is done in halves.
    for half in 0..W {
        // SAFETY: within what the caller promises; a half is 16 of NR floats.
        unsafe {
            let (mut a, mut b, c) = (a, b.add(16 * half), c.add(16 * half));
            let mut sum = [[_mm256_setzero_ps(); 2]; R];
            for _ in 0..kc {
                let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                for (i, sum) in sum.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*a.add(i * row));
                    sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                    sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
                }
                a = a.wrapping_add(next);
                b = b.wrapping_add(NR);
            }
            for (i, sum) in sum.iter().enumerate() {
                for (h, &value) in sum.iter().enumerate() {
                    let out = c.add(i * ldc + 8 * h);
                    let value =
                        if first { value } else { _mm256_add_ps(_mm256_loadu_ps(out), value) };
                    _mm256_storeu_ps(out, value);
                }
            }
        }
    }
}

unsafe fn portable<const R: usize, const DIRECT: bool, const W: usize>(
    kc: usize,
    a: *const f32,
    row: usize,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    first: bool,
) {
    let (row, next) = if DIRECT { (row, 1) } else { (1, R) };
    // SAFETY: the caller's promise; `length` ends with the last value of the last row.
    let (a, b) = unsafe {
        let length = if kc == 0 { 0 } else { (R - 1) * row + (kc - 1) * next + 1 };
        (std::slice::from_raw_parts(a, length), std::slice::from_raw_parts(b, kc * NR))
    };
    let mut sum = [[0.0f32; NR]; R];
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
        let out = unsafe { std::slice::from_raw_parts_mut(c.add(i * ldc), NR) };
        for (o, s) in out.iter_mut().zip(sum) {
            *o = if first { *s } else { *o + s };
        }
    }
}
