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
//! and along `n` into panels of `NR` columns, 32 for AVX-512 and 16 otherwise;
//! within a panel the `NR` values of one `k` are contiguous. The left operand is packed per call into panels
//! of at most `MR` rows (Goto and van de Geijn, 2008), unless B has one panel
//! only: then it is read where it lies.

mod kernel;

use bytemuck::{Pod, Zeroable};
use kernel::Product;
use memmap2::MmapMut;

use super::isa::Isa;

/// Most columns of a panel of the packed operand: two AVX-512 registers.
const NR_MAX: usize = 32;
/// Depth of a slab: its sums are complete before they are added to C, which
/// fixes the order of summation. A slab of A stays in the second-level cache.
const KC: usize = 512;
/// Depth of a part of a slab: 256·16 floats of B take half of a first-level
/// cache, and serve all rows of A before the next part is read. Sums of the
/// parts are kept and taken up again, so that their order is that of the slab.
const PART: usize = 256;
/// Rows of A packed at a time: their slab takes half of a small second-level cache.
const ROWS: usize = 128;
/// Most rows of a register tile (14·2 accumulators of 32 registers).
const MR_MAX: usize = 14;

/// Floats of scratch memory for a product with `m` rows and depth `k`: the
/// packed left operand, and sums of parts.
pub(crate) fn scratch_length(m: usize, k: usize) -> usize {
    m.min(ROWS) * (KC.min(k) + NR_MAX)
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Bytes from which memory is taken as pages of its own.
const HUGE: usize = 1 << 20;

/// A vector of `f32` aligned to cache lines.
///
/// Large ones ask the system for huge pages: walking page tables for the
/// weights costs the product several percent otherwise.
#[derive(Default)]
pub struct Aligned {
    memory: Memory,
    len: usize,
}

enum Memory {
    Lines(Vec<Line>),
    Pages(MmapMut),
}

impl Default for Memory {
    fn default() -> Self {
        Memory::Lines(Vec::new())
    }
}

impl Aligned {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let bytes = 4 * len;
        let pages = (bytes >= HUGE).then(|| MmapMut::map_anon(bytes).ok()).flatten();
        let memory = match pages {
            Some(map) => {
                // Only advice: without huge pages the memory is as good.
                #[cfg(target_os = "linux")]
                let _ = map.advise(memmap2::Advice::HugePage);
                Memory::Pages(map)
            }
            None => Memory::Lines(vec![Line([0.0; 16]); len.div_ceil(16)]),
        };
        Aligned { memory, len }
    }

    /// Make it at least `len` long; keeps no values when it grows.
    pub fn reserve(&mut self, len: usize) {
        if len > self.len {
            self.resize(len);
        }
    }

    /// Make it `len` long, in the memory that it has where that is enough; keeps no values.
    fn resize(&mut self, len: usize) {
        let capacity = match &self.memory {
            Memory::Lines(lines) => 16 * lines.len(),
            Memory::Pages(map) => map.len() / 4,
        };
        if len > capacity {
            *self = Self::zeros(len);
        }
        self.len = len;
    }
}

thread_local! {
    static SCRATCH: std::cell::RefCell<Aligned> = std::cell::RefCell::default();
}

/// Memory for one product on this thread, kept between calls.
pub(crate) fn with_scratch<R>(f: impl FnOnce(&mut Aligned) -> R) -> R {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => f(&mut scratch),
        Err(_) => f(&mut Aligned::default()),
    })
}

impl Clone for Aligned {
    fn clone(&self) -> Self {
        let mut copy = Aligned::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl std::ops::Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        let all = match &self.memory {
            Memory::Lines(lines) => bytemuck::cast_slice(lines),
            Memory::Pages(map) => bytemuck::cast_slice(&map[..4 * self.len]),
        };
        &all[..self.len]
    }
}

impl AsRef<[f32]> for Aligned {
    fn as_ref(&self) -> &[f32] {
        self
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        let all = match &mut self.memory {
            Memory::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Pages(map) => bytemuck::cast_slice_mut(&mut map[..4 * self.len]),
        };
        &mut all[..self.len]
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
    pub fn rows_from(self, i: usize) -> Self {
        View { data: &self.data[i * self.row..], ..self }
    }
}

/// The right operand of a product, `[k, n]`, packed.
#[derive(Clone, Default)]
pub struct Packed {
    k: usize,
    n: usize,
    /// Columns of a panel, as the kernels of this processor want them.
    nr: usize,
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
        self.set_for(Isa::detect(), b, k, n);
    }

    fn set_for(&mut self, isa: Isa, b: View<'_>, k: usize, n: usize) {
        self.resize(isa, k, n);
        for panel in 0..n.div_ceil(self.nr) {
            self.set_panel(b, panel);
        }
    }

    /// The same in parallel over panels, on the current pool.
    pub fn set_parallel(&mut self, b: View<'_>, k: usize, n: usize) {
        use crate::math::parallel::{Pieces, SlicesMut};
        self.resize(Isa::detect(), k, n);
        let nr = self.nr;
        let panels = n.div_ceil(nr);
        // A panel's pieces lie in different slabs, so each slab is split by panel.
        let mut rest: &mut [f32] = &mut self.data;
        for slab in crate::math::blocks(k, KC) {
            let (now, later) = rest.split_at_mut(slab.len() * panels * nr);
            now.par_chunks_mut(slab.len() * nr)
                .enumerate()
                .for_each(|(panel, out)| pack_panel(out, nr, b, slab.clone(), panel, n));
            rest = later;
        }
    }

    fn resize(&mut self, isa: Isa, k: usize, n: usize) {
        (self.k, self.n, self.nr) = (k, n, kernel::panel_columns(isa));
        self.data.resize(k * n.next_multiple_of(self.nr));
    }

    fn set_panel(&mut self, b: View<'_>, panel: usize) {
        let (k, n) = (self.k, self.n);
        for slab in crate::math::blocks(k, KC) {
            let start = self.offset(slab.start, slab.len(), panel);
            let out = &mut self.data[start..start + slab.len() * self.nr];
            pack_panel(out, self.nr, b, slab, panel, n);
        }
    }

    fn offset(&self, slab_start: usize, slab_len: usize, panel: usize) -> usize {
        slab_start * self.n.next_multiple_of(self.nr) + panel * slab_len * self.nr
    }

    /// Rows of the matrix (the summed dimension).
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the matrix.
    pub fn n(&self) -> usize {
        self.n
    }

    /// All columns, one after the other: `[n, k]`.
    pub fn columns(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n * self.k];
        for (j, column) in out.chunks_exact_mut(self.k.max(1)).enumerate() {
            self.column(j, column);
        }
        out
    }

    /// Copy column `j` into `out` (`[k]`).
    pub fn column(&self, j: usize, out: &mut [f32]) {
        for slab in crate::math::blocks(self.k, KC) {
            let start = self.offset(slab.start, slab.len(), j / self.nr) + j % self.nr;
            for (p, o) in slab.clone().zip(&mut out[slab.clone()]) {
                *o = self.data[start + (p - slab.start) * self.nr];
            }
        }
    }
}

fn pack_panel(
    out: &mut [f32],
    nr: usize,
    b: View<'_>,
    slab: std::ops::Range<usize>,
    panel: usize,
    n: usize,
) {
    let columns = panel * nr..((panel + 1) * nr).min(n);
    for (p, row) in slab.zip(out.chunks_exact_mut(nr)) {
        if b.col == 1 {
            let from = &b.data[p * b.row + columns.start..][..columns.len()];
            row[..columns.len()].copy_from_slice(from);
        } else {
            for (x, j) in row.iter_mut().zip(columns.clone()) {
                *x = b.at(p, j);
            }
        }
        row[columns.len()..].fill(0.0);
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
    Product { add: false, a, m, b, c, ldc }.run(scratch, epilogue);
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
    Product { add: true, a, m, b, c, ldc }.run(scratch, &mut Keep);
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
        let shapes = [
            (1, 1, 1),
            (3, 5, 7),
            (14, 33, 32),
            (29, 513, 65),
            (128, 1030, 40),
            (31, 1030, 10),
            (2, 520, 20),
        ];
        for (m, k, n) in shapes {
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
        // The last two without packing, one of half a panel.
        for (m, k, n) in [(300, 900, 70), (37, 600, 25), (37, 600, 10), (5, 0, 3)] {
            agree(m, k, n);
        }
    }

    fn agree(m: usize, k: usize, n: usize) {
        let (a, b) = (values(m * k, 3), values(k * n, 4));
        let run = |isa| {
            let mut packed = Packed::default();
            packed.set_for(isa, View::rows(&b, n), k, n);
            let mut c = vec![0.0; m * n];
            let mut scratch = vec![0.0; scratch_length(m, k)];
            let a = View::rows(&a, k);
            let product = Product { add: false, a, m, b: &packed, c: &mut c, ldc: n };
            product.run_on(isa, &mut scratch, &mut Keep);
            c
        };
        let want = run(Isa::Portable);
        for isa in Isa::all() {
            assert_eq!(run(isa), want, "{isa:?}");
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
