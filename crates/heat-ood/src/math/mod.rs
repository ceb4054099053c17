//! Threads, blocks of rows and random streams; behind them the kernels, pure
//! functions of slices without files, configuration or hidden randomness.
//!
//! Matrices are row-major `f32` slices with a leading dimension unless a
//! function says `f64`. Sums that decide a fit are taken in `f64`.

pub(crate) mod columns;
pub(crate) mod gram;
pub(crate) mod int8;
mod isa;
#[cfg(feature = "kernels")]
pub mod kernels;
pub(crate) mod linalg;
pub(crate) mod logistic;
pub(crate) mod matmul;
pub(crate) mod moments;
pub mod parallel;
pub(crate) mod quantile;
pub(crate) mod reduce;
pub mod rng;

pub(crate) use isa::arch;
pub use isa::{check_instruction_set, instruction_set};

/// Rows handled by one task wherever chains run or a network is applied.
///
/// Fixed, so that results do not depend on the number of threads. The
/// activations of 64 rows of a 1024-wide network stay in a core's second-level
/// cache, and a batch of 256 still occupies four threads.
pub const BLOCK_ROWS: usize = 64;

/// The ranges of at most `size` that make up `0..n`.
pub fn blocks(n: usize, size: usize) -> impl Iterator<Item = std::ops::Range<usize>> + Clone {
    (0..n.div_ceil(size)).map(move |i| i * size..((i + 1) * size).min(n))
}

/// Ask for the cache line of `x` that starts at or before element `at`, which
/// may lie beyond its end. Processors fetch ahead by themselves, but not from
/// one page of memory to the next, nor rows in no order.
#[inline(always)]
pub(crate) fn prefetch(x: &[f32], at: usize) {
    prefetch_line(x.as_ptr().wrapping_add(at));
}

/// Ask for the cache line at `at`, which may be any address. On aarch64 there is no stable way to ask.
#[inline(always)]
pub(crate) fn prefetch_line(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Elements of a cache line.
pub(crate) const LINE: usize = 16;
