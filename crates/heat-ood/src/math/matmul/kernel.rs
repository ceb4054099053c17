//! The register tiles and the loop around them: the only `unsafe` of the
//! arithmetic.

use super::*;
pub(super) use crate::math::isa::Isa;

/// Rows of a register tile.
fn tile_rows(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => MR_MAX,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => 6,
        Isa::Portable => 4,
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn run<E: Epilogue>(
    add: bool,
    a: View<'_>,
    m: usize,
    b: &Packed,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut Aligned,
    epilogue: &mut E,
) {
    if m == 0 || b.n == 0 {
        return;
    }
    assert!(ldc >= b.n && c.len() >= (m - 1) * ldc + b.n);
    scratch.reserve(m * KC.min(b.k));
    run_on(Isa::detect(), add, a, m, b, c, ldc, scratch, epilogue);
}

#[allow(clippy::too_many_arguments)]
pub(super) fn run_on<E: Epilogue>(
    isa: Isa,
    add: bool,
    a: View<'_>,
    m: usize,
    b: &Packed,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut [f32],
    epilogue: &mut E,
) {
    match isa {
        // SAFETY: `detect` has seen the feature; the loop itself is safe code.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { run_avx512(add, a, m, b, c, ldc, scratch, epilogue) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { run_avx2(add, a, m, b, c, ldc, scratch, epilogue) },
        Isa::Portable => product(isa, add, a, m, b, c, ldc, scratch, epilogue),
    }
}

// The whole loop is compiled once per instruction set, so that the packing
// and the epilogue are vectorised for it too.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
#[allow(clippy::too_many_arguments)]
fn run_avx512<E: Epilogue>(
    add: bool,
    a: View<'_>,
    m: usize,
    b: &Packed,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut [f32],
    epilogue: &mut E,
) {
    product(Isa::Avx512, add, a, m, b, c, ldc, scratch, epilogue);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(clippy::too_many_arguments)]
fn run_avx2<E: Epilogue>(
    add: bool,
    a: View<'_>,
    m: usize,
    b: &Packed,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut [f32],
    epilogue: &mut E,
) {
    product(Isa::Avx2, add, a, m, b, c, ldc, scratch, epilogue);
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn product<E: Epilogue>(
    isa: Isa,
    add: bool,
    a: View<'_>,
    m: usize,
    b: &Packed,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut [f32],
    epilogue: &mut E,
) {
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
                tile(isa, rows.len(), left, right, corner, ldc, width, first);
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

/// One register tile: `rows × width` elements of C, in place when whole,
/// through a buffer at the right edge.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn tile(
    isa: Isa,
    rows: usize,
    left: Left<'_>,
    right: &[f32],
    c: &mut [f32],
    ldc: usize,
    width: usize,
    first: bool,
) {
    if width == NR {
        assert!(c.len() >= (rows - 1) * ldc + NR);
        // SAFETY: `right` holds NR·kc floats, `c` the tile.
        unsafe { micro(isa, rows, left, right, c.as_mut_ptr(), ldc, width, first) };
        return;
    }
    let mut edge = [0.0; MR_MAX * NR];
    if !first {
        for i in 0..rows {
            edge[i * NR..][..width].copy_from_slice(&c[i * ldc..][..width]);
        }
    }
    // SAFETY: as above; `edge` holds MR_MAX rows of NR.
    unsafe { micro(isa, rows, left, right, edge.as_mut_ptr(), NR, width, first) };
    for i in 0..rows {
        c[i * ldc..][..width].copy_from_slice(&edge[i * NR..][..width]);
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn micro(
    isa: Isa,
    rows: usize,
    left: Left<'_>,
    right: &[f32],
    c: *mut f32,
    ldc: usize,
    width: usize,
    first: bool,
) {
    let kc = right.len() / NR;
    let row = if left.direct { left.row } else { kc };
    assert!(kc == 0 || left.data.len() >= (rows - 1) * row + kc);
    let (a, b) = (left.data.as_ptr(), right.as_ptr());
    macro_rules! by_rows {
        ($f:ident, $w:literal: $($r:literal)*) => {
            match (rows, left.direct) {
                $(($r, true) => unsafe { $f::<$r, true, $w>(kc, a, row, b, c, ldc, first) },
                ($r, false) => unsafe { $f::<$r, false, $w>(kc, a, 1, b, c, ldc, first) },)*
                _ => unreachable!("a tile has at most MR rows"),
            }
        };
    }
    match (isa, width > NR / 2) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, true) => by_rows!(avx512, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, false) => by_rows!(avx512, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, true) => by_rows!(avx2, 2: 1 2 3 4 5 6),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, false) => by_rows!(avx2, 1: 1 2 3 4 5 6),
        (Isa::Portable, true) => by_rows!(portable, 2: 1 2 3 4),
        (Isa::Portable, false) => by_rows!(portable, 1: 1 2 3 4),
    }
}

// The kernels: R rows of A, `row` floats apart where DIRECT, else packed so that
// the R values of one step lie together; W halves of a panel of B.

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
    // SAFETY: the caller's promise on lengths, as for the others.
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
        let out = unsafe { std::slice::from_raw_parts_mut(c.add(i * ldc), NR) };
        for (o, s) in out.iter_mut().zip(sum) {
            *o = if first { *s } else { *o + s };
        }
    }
}
