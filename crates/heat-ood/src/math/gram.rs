//! XᵀX in f64, the sums behind every covariance.
//!
//! X is kept by panels of [`WIDTH`] columns: within a panel the values of one
//! row lie together. Both sides of the product are panels of the same matrix,
//! so it is packed once. Every sum is taken over the rows in order, with fused
//! multiply-adds, 256 rows at a time: it depends neither on the number of
//! threads nor on the instruction set.

use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};

use super::isa::Isa;
use crate::math::parallel::{Indices, Pieces, SlicesMut};

/// Columns of a panel: one AVX-512 register.
pub const WIDTH: usize = 8;

/// Columns that one task packs, and rows of the result that one task sums.
pub const GROUP: usize = 64;

/// Rows that are packed at a time.
pub const ROWS: usize = 1024;

/// Rows summed in registers: three panels of so many stay in the cache.
const DEPTH: usize = 256;

/// Panels that are right operands of a register tile.
const RIGHT: usize = 3;

/// Sums of a register tile.
type Tile = [[f64; RIGHT * WIDTH]; WIDTH];

/// The values of a row in a panel: a cache line, so that no load needs two.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f64; WIDTH]);

/// Some rows of X, by panels.
#[derive(Default)]
pub struct Panels {
    rows: usize,
    data: Vec<Line>,
}

impl Panels {
    /// Take in `rows` rows of `d` columns: `fill` writes a group of columns,
    /// `[GROUP/WIDTH, rows, WIDTH]`, zero beyond the last column. It is given
    /// its item of `beside`, one for each group.
    pub fn fill<I: Pieces>(
        &mut self,
        rows: usize,
        d: usize,
        beside: I,
        fill: impl Fn(std::ops::Range<usize>, &mut [f64], I::Item) + Sync,
    ) {
        self.rows = rows;
        let lines = d.next_multiple_of(GROUP) / WIDTH * rows;
        self.data.resize(lines, Line([0.0; WIDTH]));
        let data: &mut [f64] = cast_slice_mut(&mut self.data);
        let groups = data.par_chunks_mut(GROUP * rows).zip(beside).enumerate();
        groups.for_each(|(g, (out, item))| {
            fill(g * GROUP..((g + 1) * GROUP).min(d), out, item);
        });
    }

    fn panel(&self, panel: usize, rows: std::ops::Range<usize>) -> &[f64] {
        let start = panel * self.rows;
        cast_slice(&self.data[start + rows.start..start + rows.end])
    }

    /// Add `scale`·XᵀX to the lower triangle of `acc` (`[d, d]`); the upper one
    /// is of no meaning then.
    pub fn add_gram(&self, acc: &mut [f64], d: usize, scale: f64) {
        // A row of groups of the result is a contiguous piece of `acc`, with
        // i + 1 groups to sum. Long and short rows alternate, so that halves of
        // the list, which the pool deals out, are halves of the work.
        let mut left: std::collections::VecDeque<_> =
            acc.chunks_mut(GROUP * d).enumerate().collect();
        let mut pieces = Vec::with_capacity(left.len());
        while let Some(longest) = left.pop_back() {
            pieces.push(longest);
            pieces.extend(left.pop_front());
        }
        let isa = Isa::detect();
        pieces
            .par_iter_mut()
            .for_each_singly(|(i, piece)| self.add_group(isa, *i, piece, d, scale));
    }

    /// Rows `i`·GROUP.. of the result.
    fn add_group(&self, isa: Isa, group: usize, out: &mut [f64], d: usize, scale: f64) {
        let first = group * GROUP / WIDTH;
        let panels = (out.len() / d).div_ceil(WIDTH);
        for rows in super::blocks(self.rows, DEPTH) {
            for j in (0..first + panels).step_by(RIGHT) {
                for i in j.max(first)..first + panels {
                    let count = RIGHT.min(i + 1 - j);
                    let right = |h: usize| self.panel(j + h.min(count - 1), rows.clone());
                    let left = self.panel(i, rows.clone());
                    let tile = tile(isa, left, [right(0), right(1), right(2)], count);
                    let out = &mut out[(i - first) * WIDTH * d..];
                    let columns = j * WIDTH..((j + count) * WIDTH).min(d);
                    for (out, sums) in out.chunks_mut(d).zip(&tile) {
                        for (o, s) in out[columns.clone()].iter_mut().zip(sums) {
                            *o += scale * s;
                        }
                    }
                }
            }
        }
    }
}

thread_local! {
    static PANELS: std::cell::RefCell<Panels> = std::cell::RefCell::default();
}

/// Memory for panels, kept between calls on this thread.
pub fn with_panels<R>(f: impl FnOnce(&mut Panels) -> R) -> R {
    PANELS.with(|panels| match panels.try_borrow_mut() {
        Ok(mut panels) => f(&mut panels),
        Err(_) => f(&mut Panels::default()),
    })
}

/// Add `scale`·XᵀX to the lower triangle of `acc` (`[d, d]`), X being `rows`
/// (`[n, d]`); the upper one is of no meaning then.
pub fn add_gram(acc: &mut [f64], rows: &[f64], d: usize, scale: f64) {
    let mut panels = Panels::default();
    for rows in rows.chunks(ROWS * d) {
        let (n, groups) = (rows.len() / d, d.div_ceil(GROUP));
        panels.fill(n, d, (0..groups).into_par_iter(), |columns, out, _| {
            for (r, row) in rows.chunks_exact(d).enumerate() {
                for (j, v) in row[columns.clone()].iter().enumerate() {
                    out[(j / WIDTH * n + r) * WIDTH + j % WIDTH] = *v;
                }
                for j in columns.len()..GROUP {
                    out[(j / WIDTH * n + r) * WIDTH + j % WIDTH] = 0.0;
                }
            }
        });
        panels.add_gram(acc, d, scale);
    }
}

/// Sums over the rows of left·right, for `count` panels on the right.
fn tile(isa: Isa, left: &[f64], right: [&[f64]; RIGHT], count: usize) -> Tile {
    assert!(right.iter().all(|r| r.len() == left.len()) && left.len().is_multiple_of(WIDTH));
    let mut out = [[0.0; RIGHT * WIDTH]; WIDTH];
    match (isa, count) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `isa` proves the instructions, and the panels are of one length.
        (Isa::Avx512(_), 1) => unsafe { avx512::<1>(left, right, &mut out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Avx512(_), 2) => unsafe { avx512::<2>(left, right, &mut out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Avx512(_), _) => unsafe { avx512::<3>(left, right, &mut out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Avx2(_), _) => unsafe { avx2(left, right, count, &mut out) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        (Isa::Neon(_), _) => unsafe { neon(left, right, count, &mut out) },
        (Isa::Portable, _) => portable(left, right, count, &mut out),
    }
    out
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const P: usize>(left: &[f64], right: [&[f64]; RIGHT], out: &mut Tile) {
    use std::arch::x86_64::*;
    let (a, b) = (left.as_ptr(), right.map(<[f64]>::as_ptr));
    let mut sums = [[_mm512_setzero_pd(); P]; WIDTH];
    for at in (0..left.len()).step_by(WIDTH) {
        // SAFETY: `at` is the first of WIDTH values of a row.
        unsafe {
            let b: [__m512d; P] = std::array::from_fn(|h| _mm512_loadu_pd(b[h].add(at)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_pd(*a.add(at + i));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_fmadd_pd(x, b, *sum);
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.as_chunks_mut::<WIDTH>().0.iter_mut().zip(sums) {
            // SAFETY: eight doubles.
            unsafe { _mm512_storeu_pd(out.as_mut_ptr(), sum) };
        }
    }
}

/// Rows that the passes of an AVX2 tile read again: half of a first-level cache.
#[cfg(target_arch = "x86_64")]
const PART: usize = 64 * WIDTH;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(left: &[f64], right: [&[f64]; RIGHT], count: usize, out: &mut Tile) {
    // The tile's transpose: a register holds four of its rows.
    let mut sums = [[0.0; WIDTH]; RIGHT * WIDTH];
    for start in (0..left.len()).step_by(PART) {
        let part = start..(start + PART).min(left.len());
        let left = &left[part.clone()];
        let column = |c: usize| right[c / WIDTH][part.start + c % WIDTH..].as_ptr();
        // Sixteen registers hold sums of 8·6. The last panels, of the diagonal, have fewer.
        let columns = count * WIDTH;
        // SAFETY: panels of one length, `part` within it.
        unsafe {
            if count == RIGHT {
                for c in (0..columns).step_by(6) {
                    avx2_pass::<6>(left, std::array::from_fn(|i| column(c + i)), &mut sums[c..]);
                }
            } else {
                for c in (0..columns).step_by(4) {
                    avx2_pass::<4>(left, std::array::from_fn(|i| column(c + i)), &mut sums[c..]);
                }
            }
        }
    }
    for (j, sums) in sums.iter().enumerate() {
        for (out, sum) in out.iter_mut().zip(sums) {
            out[j] = *sum;
        }
    }
}

/// Products with C columns, added to the sums of each.
///
/// # Safety
/// From each of `right` on there is a double in every eighth place of `left`'s
/// length; `sums` has C elements.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_pass<const C: usize>(
    left: &[f64],
    right: [*const f64; C],
    sums: &mut [[f64; WIDTH]],
) {
    use std::arch::x86_64::*;
    let (a, rows) = (left.as_ptr(), left.len() / WIDTH);
    let out = sums[..C].as_mut_ptr().cast::<f64>();
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums: [[__m256d; 2]; C] = std::array::from_fn(|i| {
            [_mm256_loadu_pd(out.add(i * WIDTH)), _mm256_loadu_pd(out.add(i * WIDTH + 4))]
        });
        for at in (0..rows * WIDTH).step_by(WIDTH) {
            let (a0, a1) = (_mm256_loadu_pd(a.add(at)), _mm256_loadu_pd(a.add(at + 4)));
            for (sum, right) in sums.iter_mut().zip(right) {
                let x = _mm256_set1_pd(*right.add(at));
                sum[0] = _mm256_fmadd_pd(a0, x, sum[0]);
                sum[1] = _mm256_fmadd_pd(a1, x, sum[1]);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            _mm256_storeu_pd(out.add(i * WIDTH), sum[0]);
            _mm256_storeu_pd(out.add(i * WIDTH + 4), sum[1]);
        }
    }
}

/// The same on registers of two doubles: 24 of 32 hold sums of 8·6, four a row of the left panel.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon(left: &[f64], right: [&[f64]; RIGHT], count: usize, out: &mut Tile) {
    use std::arch::aarch64::*;
    const PAIRS: usize = WIDTH / 2;
    let column = |c: usize| right[c / WIDTH][c % WIDTH..].as_ptr();
    // Six columns at a time; the last six begin among those that are done, with the same sums.
    for c in (0..count * WIDTH).step_by(6).map(|c| c.min(count * WIDTH - 6)) {
        let right: [*const f64; 6] = std::array::from_fn(|i| column(c + i));
        let mut sums = [[vdupq_n_f64(0.0); PAIRS]; 6];
        for at in (0..left.len()).step_by(WIDTH) {
            // SAFETY: `at` is the first of WIDTH values of a row; of the right panels the last
            // column's value lies within the row too.
            unsafe {
                let a: [float64x2_t; PAIRS] =
                    std::array::from_fn(|h| vld1q_f64(left.as_ptr().add(at + 2 * h)));
                for (sums, right) in sums.iter_mut().zip(right) {
                    let x = vdupq_n_f64(*right.add(at));
                    for (sum, a) in sums.iter_mut().zip(a) {
                        *sum = vfmaq_f64(*sum, a, x);
                    }
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (h, sum) in sums.into_iter().enumerate() {
                out[2 * h][c + i] = vgetq_lane_f64::<0>(sum);
                out[2 * h + 1][c + i] = vgetq_lane_f64::<1>(sum);
            }
        }
    }
}

fn portable(left: &[f64], right: [&[f64]; RIGHT], count: usize, out: &mut Tile) {
    for (h, right) in right.into_iter().enumerate().take(count) {
        let rows = left.chunks_exact(WIDTH).zip(right.chunks_exact(WIDTH));
        for (a, b) in rows {
            for (out, &x) in out.iter_mut().zip(a) {
                for (o, &y) in out[h * WIDTH..].iter_mut().zip(b) {
                    *o = x.mul_add(y, *o);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::parallel::with_threads;

    fn values(n: usize) -> Vec<f64> {
        (0..n as u32)
            .map(|i| f64::from(i.wrapping_mul(2_654_435_761) % 2003) / 1000.0 - 1.0)
            .collect()
    }

    #[test]
    fn equals_the_naive_sum_on_any_number_of_threads() {
        for (n, d) in [(1, 1), (40, 300), (1500, 67), (300, 128)] {
            let x = values(n * d);
            let gram = |threads| {
                let mut acc = vec![1.0; d * d];
                with_threads(threads, || add_gram(&mut acc, &x, d, -2.0)).unwrap();
                acc
            };
            let (one, three) = (gram(1), gram(3));
            for i in 0..d {
                assert_eq!(one[i * d..][..=i], three[i * d..][..=i]);
                for j in 0..=i {
                    let want = 1.0 - 2.0 * (0..n).map(|r| x[r * d + i] * x[r * d + j]).sum::<f64>();
                    assert!((one[i * d + j] - want).abs() < 1e-10, "{n} {d} {i} {j}");
                }
            }
        }
    }

    #[test]
    fn instruction_sets_agree_to_the_bit() {
        let x = values(4 * 137 * WIDTH);
        let panels: Vec<&[f64]> = x.chunks(137 * WIDTH).collect();
        for count in 1..=RIGHT {
            let tile = |isa| tile(isa, panels[0], [panels[1], panels[2], panels[3]], count);
            let want = tile(Isa::Portable);
            assert!(Isa::all().into_iter().all(|isa| tile(isa) == want), "{count}");
        }
    }
}
