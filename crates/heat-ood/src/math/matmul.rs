//! Single-precision matrix products with a packed right operand.
//!
//! The network's weights, the whitening of a Gaussian and the index of a
//! nearest-neighbour search are multiplied thousands of times between two
//! changes, so the right operand is packed once ([`Packed`]). The product
//! itself runs on one thread over a block of rows; callers parallelise over
//! blocks. Every output element is accumulated with fused multiply-adds in the
//! same order whatever its place in the block, so a row's result does not
//! depend on its neighbours, on the number of threads, or on the instruction
//! set (AVX-512, AVX2 and the portable kernel give the same bits).
//!
//! Layout: the right operand `B [k, n]` is cut along `k` into slabs of [`KC`]
//! and along `n` into panels of [`NR`] columns; within a panel the `NR` values
//! of one `k` are contiguous. The left operand is packed per call into panels
//! of at most `MR` rows (Goto and van de Geijn, 2008).

use bytemuck::{Pod, Zeroable};

/// Columns of a panel of the packed operand: two AVX-512 registers.
pub const NR: usize = 32;
/// Depth of a slab: 512·32 floats of B stay in the second-level cache.
pub const KC: usize = 512;
/// Most rows of a register tile (14·2 accumulators of 32 registers).
const MR_MAX: usize = 14;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A vector of `f32` aligned to cache lines.
#[derive(Clone, Default)]
pub struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; 16]); len.div_ceil(16)], len }
    }

    /// Make it at least `len` long; keeps no values when it grows.
    pub fn reserve(&mut self, len: usize) {
        if len > self.len {
            *self = Self::zeros(len);
        }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// A strided read-only matrix: element (i, j) is `data[i·row + j·col]`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    row: usize,
    col: usize,
}

impl<'a> View<'a> {
    /// Rows of `ld` floats each.
    pub fn rows(data: &'a [f32], ld: usize) -> Self {
        View { data, row: ld, col: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        View { data: self.data, row: self.col, col: self.row }
    }

    /// Element (i, j).
    pub fn at(self, i: usize, j: usize) -> f32 {
        self.data[i * self.row + j * self.col]
    }

    /// The same matrix from row `i` on.
    pub fn from_row(self, i: usize) -> Self {
        View { data: &self.data[i * self.row..], ..self }
    }
}

/// The right operand of a product, `[k, n]`, packed.
#[derive(Clone, Default)]
pub struct Packed {
    k: usize,
    n: usize,
    data: Aligned,
}

impl Packed {
    /// Pack the `k × n` matrix `b`.
    pub fn new(b: View<'_>, k: usize, n: usize) -> Self {
        let mut packed = Self::default();
        packed.set(b, k, n);
        packed
    }

    /// Pack another matrix into the same memory.
    pub fn set(&mut self, b: View<'_>, k: usize, n: usize) {
        self.resize(k, n);
        for panel in 0..n.div_ceil(NR) {
            self.set_panel(b, panel);
        }
    }

    /// The same in parallel over panels, on the current pool.
    pub fn set_parallel(&mut self, b: View<'_>, k: usize, n: usize) {
        use rayon::prelude::*;
        self.resize(k, n);
        let panels = n.div_ceil(NR);
        // A panel's pieces lie in different slabs, so each slab is split by panel.
        let mut rest: &mut [f32] = &mut self.data;
        for slab in super::blocks(k, KC) {
            let (now, later) = rest.split_at_mut(slab.len() * panels * NR);
            now.par_chunks_mut(slab.len() * NR)
                .enumerate()
                .for_each(|(panel, out)| pack_panel(out, b, slab.clone(), panel, n));
            rest = later;
        }
    }

    fn resize(&mut self, k: usize, n: usize) {
        (self.k, self.n) = (k, n);
        let need = k * n.next_multiple_of(NR);
        self.data.reserve(need);
        self.data.len = need;
    }

    fn set_panel(&mut self, b: View<'_>, panel: usize) {
        let (k, n) = (self.k, self.n);
        for slab in super::blocks(k, KC) {
            let start = self.offset(slab.start, slab.len(), panel);
            let out = &mut self.data[start..start + slab.len() * NR];
            pack_panel(out, b, slab, panel, n);
        }
    }

    fn offset(&self, slab_start: usize, slab_len: usize, panel: usize) -> usize {
        slab_start * self.n.next_multiple_of(NR) + panel * slab_len * NR
    }

    /// Rows of the matrix (the summed dimension).
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the matrix.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Copy column `j` into `out` (`[k]`).
    pub fn column(&self, j: usize, out: &mut [f32]) {
        for slab in super::blocks(self.k, KC) {
            let start = self.offset(slab.start, slab.len(), j / NR) + j % NR;
            for (p, o) in slab.clone().zip(&mut out[slab.clone()]) {
                *o = self.data[start + (p - slab.start) * NR];
            }
        }
    }
}

fn pack_panel(out: &mut [f32], b: View<'_>, slab: std::ops::Range<usize>, panel: usize, n: usize) {
    let columns = panel * NR..((panel + 1) * NR).min(n);
    if b.col == 1 {
        for (p, row) in slab.zip(out.chunks_exact_mut(NR)) {
            let from = &b.data[p * b.row + columns.start..][..columns.len()];
            row[..columns.len()].copy_from_slice(from);
            row[columns.len()..].fill(0.0);
        }
    } else {
        for (p, row) in slab.zip(out.chunks_exact_mut(NR)) {
            for (x, j) in row.iter_mut().zip(columns.clone()) {
                *x = b.at(p, j);
            }
            row[columns.len()..].fill(0.0);
        }
    }
}

/// What happens to a piece of an output row as soon as its sum is complete.
pub trait Epilogue {
    /// `values` are the elements of row `row` from column `column` on.
    fn apply(&mut self, row: usize, column: usize, values: &mut [f32]);
}

/// Leave the product as it is.
pub struct Keep;

impl Epilogue for Keep {
    #[inline(always)]
    fn apply(&mut self, _: usize, _: usize, _: &mut [f32]) {}
}

/// `c = a·b`, then `epilogue`, for the `m` rows of `a` (`[m, k]`); row `i` of
/// the result goes to `c[i·ldc..][..n]`. `scratch` is grown when too small.
///
/// # Panics
/// If a slice is too short: a bug of the caller.
pub fn gemm<E: Epilogue>(
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
    kernel::run(false, a, m, b, c, ldc, scratch, epilogue);
}

/// `c += a·b`, otherwise as [`gemm`].
pub fn gemm_add(
    a: View<'_>,
    m: usize,
    b: &Packed,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut Aligned,
) {
    if m == 0 || b.n == 0 {
        return;
    }
    assert!(ldc >= b.n && c.len() >= (m - 1) * ldc + b.n);
    scratch.reserve(m * KC.min(b.k));
    kernel::run(true, a, m, b, c, ldc, scratch, &mut Keep);
}

/// The only `unsafe` of the arithmetic: register tiles.
mod kernel {
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
        scratch: &mut [f32],
        epilogue: &mut E,
    ) {
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
        for slab in super::super::blocks(b.k.max(1), KC) {
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
                    let value =
                        if first { value } else { _mm512_add_ps(_mm512_loadu_ps(out), value) };
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
        let (a, b) = unsafe {
            (std::slice::from_raw_parts(a, kc * R), std::slice::from_raw_parts(b, kc * NR))
        };
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The oracle: three loops in f64.
    fn naive(a: View<'_>, b: View<'_>, m: usize, k: usize, n: usize) -> Vec<f64> {
        let mut c = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                c[i * n + j] = (0..k).map(|p| f64::from(a.at(i, p)) * f64::from(b.at(p, j))).sum();
            }
        }
        c
    }

    fn values(n: usize, salt: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| ((i.wrapping_mul(2_654_435_761) ^ salt) % 2001) as f32 / 1000.0 - 1.0)
            .collect()
    }

    fn close(got: &[f32], ldc: usize, want: &[f64], n: usize, k: usize) {
        for (i, row) in want.chunks(n).enumerate() {
            for (j, w) in row.iter().enumerate() {
                let g = f64::from(got[i * ldc + j]);
                assert!((g - w).abs() <= 1e-6 * (k as f64).max(1.0), "({i},{j}): {g} {w}");
            }
        }
    }

    #[test]
    fn equals_the_naive_product_in_every_layout() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (14, 33, 32), (29, 513, 65), (128, 1030, 40)] {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            let a_views = [View::rows(&a, k), View::rows(&a, m).t()];
            let b_views = [View::rows(&b, n), View::rows(&b, k).t()];
            for a in a_views {
                for b in b_views {
                    let packed = Packed::new(b, k, n);
                    let ldc = n + 3;
                    let mut c = vec![9.0; m * ldc];
                    gemm(a, m, &packed, &mut c, ldc, &mut Aligned::default(), &mut Keep);
                    close(&c, ldc, &naive(a, b, m, k, n), n, k);
                    assert!(c.chunks(ldc).all(|row| row[n..] == [9.0; 3]));
                }
            }
        }
    }

    #[test]
    fn instruction_sets_agree_to_the_bit() {
        let (m, k, n) = (37, 600, 70);
        let (a, b) = (values(m * k, 3), values(k * n, 4));
        let packed = Packed::new(View::rows(&b, n), k, n);
        let run = |isa| {
            let mut c = vec![0.0; m * n];
            let mut scratch = vec![0.0; m * KC];
            kernel::run_on(
                isa,
                false,
                View::rows(&a, k),
                m,
                &packed,
                &mut c,
                n,
                &mut scratch,
                &mut Keep,
            );
            c
        };
        let want = run(kernel::Isa::Portable);
        assert_eq!(run(kernel::Isa::detect()), want);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            assert_eq!(run(kernel::Isa::Avx2), want);
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let (m, k, n) = (50, 700, 90);
        let (a, b) = (values(m * k, 5), values(k * n, 6));
        let packed = Packed::new(View::rows(&b, n), k, n);
        let run = |rows: &[f32]| {
            let m = rows.len() / k;
            let mut c = vec![0.0; m * n];
            gemm(View::rows(rows, k), m, &packed, &mut c, n, &mut Aligned::default(), &mut Keep);
            c
        };
        let all = run(&a);
        for i in [0, 13, 49] {
            assert_eq!(run(&a[i * k..][..k]), all[i * n..][..n]);
        }
    }

    #[test]
    fn adding_adds() {
        let (m, k, n) = (20, 600, 40);
        let (a, b) = (values(m * k, 8), values(k * n, 9));
        let (av, bv) = (View::rows(&a, k), View::rows(&b, n));
        let mut c = vec![2.0; m * n];
        gemm_add(av, m, &Packed::new(bv, k, n), &mut c, n, &mut Aligned::default());
        let want: Vec<f64> = naive(av, bv, m, k, n).iter().map(|v| v + 2.0).collect();
        close(&c, n, &want, n, k);
    }

    #[test]
    fn packing_in_parallel_is_the_same_and_columns_come_back() {
        let (k, n) = (1100, 77);
        let b = values(k * n, 7);
        let one = Packed::new(View::rows(&b, k).t(), k, n);
        let mut two = Packed::default();
        two.set_parallel(View::rows(&b, k).t(), k, n);
        assert_eq!(&one.data[..], &two.data[..]);
        let mut column = vec![0.0; k];
        one.column(70, &mut column);
        assert_eq!(column, b[70 * k..][..k]);
    }
}
