//! The register tiles and the loop around them: the only `unsafe` of the
//! arithmetic.

use super::*;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The best that this processor has.
    pub(super) fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            // Cached by the standard library after the first call.
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("fma")
            {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    fn rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => MR_MAX,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => 6,
            Isa::Portable => 4,
        }
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
    let panels = m.div_ceil(isa.rows());
    for slab in crate::math::blocks(b.k.max(1), KC) {
        let kc = slab.len().min(b.k);
        let (first, last) = (slab.start == 0 && !add, slab.end >= b.k);
        for rows in split(m, panels) {
            let out = &mut scratch[rows.start * kc..rows.end * kc];
            pack_left(out, a.from_row(rows.start), rows.len(), slab.start);
        }
        for panel in 0..b.n.div_ceil(NR) {
            let column = panel * NR;
            let width = NR.min(b.n - column);
            let right = &b.data[b.offset(slab.start, kc, panel)..][..kc * NR];
            for rows in split(m, panels) {
                let left = &scratch[rows.start * kc..rows.end * kc];
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
    left: &[f32],
    right: &[f32],
    c: &mut [f32],
    ldc: usize,
    width: usize,
    first: bool,
) {
    if width == NR {
        assert!(c.len() >= (rows - 1) * ldc + NR);
        // SAFETY: `left` holds rows·kc floats, `right` NR·kc, `c` the tile.
        unsafe { micro(isa, rows, left, right, c.as_mut_ptr(), ldc, first) };
        return;
    }
    let mut edge = [0.0; MR_MAX * NR];
    if !first {
        for i in 0..rows {
            edge[i * NR..][..width].copy_from_slice(&c[i * ldc..][..width]);
        }
    }
    // SAFETY: as above; `edge` holds MR_MAX rows of NR.
    unsafe { micro(isa, rows, left, right, edge.as_mut_ptr(), NR, first) };
    for i in 0..rows {
        c[i * ldc..][..width].copy_from_slice(&edge[i * NR..][..width]);
    }
}

#[inline(always)]
unsafe fn micro(
    isa: Isa,
    rows: usize,
    left: &[f32],
    right: &[f32],
    c: *mut f32,
    ldc: usize,
    first: bool,
) {
    let kc = right.len() / NR;
    debug_assert_eq!(left.len(), rows * kc);
    let (a, b) = (left.as_ptr(), right.as_ptr());
    macro_rules! by_rows {
        ($f:ident: $($r:literal)*) => {
            match rows {
                $($r => unsafe { $f::<$r>(kc, a, b, c, ldc, first) },)*
                _ => unreachable!("a tile has at most MR rows"),
            }
        };
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => by_rows!(avx512: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => by_rows!(avx2: 1 2 3 4 5 6),
        Isa::Portable => by_rows!(portable: 1 2 3 4),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const R: usize>(
    kc: usize,
    mut a: *const f32,
    mut b: *const f32,
    c: *mut f32,
    ldc: usize,
    first: bool,
) {
    use std::arch::x86_64::*;
    // Far enough ahead that a line of B arrives before it is used.
    const AHEAD: usize = 8 * NR;
    unsafe {
        let mut sum = [[_mm512_setzero_ps(); 2]; R];
        for i in 0..R {
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(i * ldc).cast());
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(i * ldc + 16).cast());
        }
        let mut step = |a: *const f32, b: *const f32| {
            let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD + 16).cast());
            for (i, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i));
                sum[0] = _mm512_fmadd_ps(x, b0, sum[0]);
                sum[1] = _mm512_fmadd_ps(x, b1, sum[1]);
            }
        };
        for _ in 0..kc / 4 {
            for u in 0..4 {
                step(a.add(u * R), b.add(u * NR));
            }
            a = a.add(4 * R);
            b = b.add(4 * NR);
        }
        for _ in 0..kc % 4 {
            step(a, b);
            a = a.add(R);
            b = b.add(NR);
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
unsafe fn avx2<const R: usize>(
    kc: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    first: bool,
) {
    use std::arch::x86_64::*;
    // Sixteen registers hold a tile of 6·16: the panel is done in halves.
    for half in 0..2 {
        unsafe {
            let (mut a, mut b, c) = (a, b.add(16 * half), c.add(16 * half));
            let mut sum = [[_mm256_setzero_ps(); 2]; R];
            for _ in 0..kc {
                let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                for (i, sum) in sum.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*a.add(i));
                    sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                    sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
                }
                a = a.add(R);
                b = b.add(NR);
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

unsafe fn portable<const R: usize>(
    kc: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    first: bool,
) {
    // SAFETY: the caller's promise on lengths, as for the others.
    let (a, b) =
        unsafe { (std::slice::from_raw_parts(a, kc * R), std::slice::from_raw_parts(b, kc * NR)) };
    let mut sum = [[0.0f32; NR]; R];
    for (a, b) in a.chunks_exact(R).zip(b.chunks_exact(NR)) {
        for (sum, &x) in sum.iter_mut().zip(a) {
            for (s, &y) in sum.iter_mut().zip(b) {
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
