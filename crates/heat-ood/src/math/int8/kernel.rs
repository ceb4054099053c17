//! The register tiles, and the loop around them.

use std::arch::x86_64::*;

use bytemuck::cast_slice;

use super::*;

/// Queries of a register tile: 14·2 sums of 32 registers, or of 16 6·2, less
/// two where products pass through registers.
const TILE: [usize; 3] = [14, 6, 5];

/// Some queries and a panel.
struct Tile<'a> {
    first: usize,
    panel: usize,
    /// Four values of each query, then the next four.
    queries: &'a [i32],
    /// −128·Σq of each query.
    start: &'a [i32],
    bytes: &'a [u8],
    own: &'a [f32; WIDTH],
    scale: &'a [f32; WIDTH],
}

#[inline(always)]
fn each_tile(queries: &[i8], panels: &Panels, most: usize, mut run: impl FnMut(Tile<'_>)) {
    let (depth, fours) = (panels.depth, panels.depth / 4);
    let sum = |q: &[i8]| q.iter().map(|&v| i32::from(v)).sum::<i32>();
    let start: Vec<i32> = queries.chunks_exact(depth).map(|q| -128 * sum(q)).collect();
    let mut packed = vec![0i32; start.len() * fours];
    let tiles = packed.chunks_mut(most * fours).zip(queries.chunks(most * depth));
    for (out, queries) in tiles {
        let n = queries.len() / depth;
        for (i, query) in queries.chunks_exact(depth).enumerate() {
            for (p, four) in query.as_chunks::<4>().0.iter().enumerate() {
                out[p * n + i] = i32::from_le_bytes(four.map(|v| v as u8));
            }
        }
    }
    let bytes = cast_slice::<f32, u8>(&panels.data).chunks_exact(WIDTH * depth);
    let parts = panels.own.as_chunks().0.iter().zip(panels.scale.as_chunks().0);
    for (panel, (bytes, (own, scale))) in bytes.zip(parts).enumerate() {
        let tiles = packed.chunks(most * fours).zip(start.chunks(most)).enumerate();
        for (t, (queries, start)) in tiles {
            run(Tile { first: t * most, panel, queries, start, bytes, own, scale });
        }
    }
}

macro_rules! by_queries {
    ($f:ident($tile:ident, $sink:ident): $($r:literal)*) => {
        match $tile.start.len() {
            // SAFETY: the tile has as many queries of `depth` bytes and a whole panel.
            $($r => unsafe { $f::<$r, _>(&$tile, $sink) },)*
            _ => unreachable!("tiles have at most so many queries"),
        }
    };
}

#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,fma")]
pub fn run_avx512(queries: &[i8], panels: &Panels, sink: &mut impl PanelSink) {
    each_tile(queries, panels, TILE[0], |tile| {
        by_queries!(avx512(tile, sink): 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    });
}

#[target_feature(enable = "avx2,avxvnni,fma")]
pub fn run_avx_vnni(queries: &[i8], panels: &Panels, sink: &mut impl PanelSink) {
    each_tile(queries, panels, TILE[1], |tile| {
        by_queries!(avx_vnni(tile, sink): 1 2 3 4 5 6);
    });
}

#[target_feature(enable = "avx2,fma")]
pub fn run_avx2(queries: &[i8], panels: &Panels, sink: &mut impl PanelSink) {
    each_tile(queries, panels, TILE[2], |tile| {
        by_queries!(avx2(tile, sink): 1 2 3 4 5);
    });
}

#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,fma")]
unsafe fn avx512<const R: usize, S: PanelSink>(tile: &Tile<'_>, sink: &mut S) {
    // Far enough ahead that a line arrives before it is used.
    const AHEAD: usize = 16 * 4 * WIDTH;
    let (fours, mut queries) = (tile.queries.len() / R, tile.queries.as_ptr());
    let mut panel = tile.bytes.as_ptr();
    let mut sum: [[__m512i; 2]; R] = std::array::from_fn(|i| [_mm512_set1_epi32(tile.start[i]); 2]);
    // SAFETY: `fours` times R queries and WIDTH rows.
    let mut step = |queries: *const i32, panel: *const u8| unsafe {
        let x0 = _mm512_loadu_si512(panel.cast());
        let x1 = _mm512_loadu_si512(panel.add(64).cast());
        _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(AHEAD).cast());
        _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(AHEAD + 64).cast());
        for (i, sum) in sum.iter_mut().enumerate() {
            let four = _mm512_set1_epi32(*queries.add(i));
            sum[0] = _mm512_dpbusd_epi32(sum[0], x0, four);
            sum[1] = _mm512_dpbusd_epi32(sum[1], x1, four);
        }
    };
    for _ in 0..fours / 4 {
        for u in 0..4 {
            step(queries.wrapping_add(u * R), panel.wrapping_add(u * 4 * WIDTH));
        }
        (queries, panel) = (queries.wrapping_add(4 * R), panel.wrapping_add(16 * WIDTH));
    }
    for _ in 0..fours % 4 {
        step(queries, panel);
        (queries, panel) = (queries.wrapping_add(R), panel.wrapping_add(4 * WIDTH));
    }
    for (i, sum) in sum.into_iter().enumerate() {
        let query = tile.first + i;
        let q = _mm512_set1_ps(sink.scale(query));
        let limit = _mm512_set1_ps(sink.limit(query, tile.panel));
        let mut values = [0.0; WIDTH];
        let mut mask = 0;
        for (half, sum) in sum.into_iter().enumerate() {
            // SAFETY: halves of WIDTH floats.
            unsafe {
                let own = _mm512_loadu_ps(tile.own.as_ptr().add(16 * half));
                let scale = _mm512_loadu_ps(tile.scale.as_ptr().add(16 * half));
                let value = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(q, scale), own);
                mask |= u32::from(_mm512_cmp_ps_mask::<_CMP_NGE_UQ>(value, limit)) << (16 * half);
                _mm512_storeu_ps(values.as_mut_ptr().add(16 * half), value);
            }
        }
        if mask != 0 {
            sink.found(query, tile.panel, mask, &values);
        }
    }
}

/// A tile on registers of 256 bits: `$add` adds to sums the products of four
/// values of each of eight rows with those of a query.
macro_rules! tile_of_256 {
    ($name:ident, $features:literal, $add:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, S: PanelSink>(tile: &Tile<'_>, sink: &mut S) {
            let mut values = [[0.0; WIDTH]; R];
            // The panel is done in halves.
            for half in 0..2 {
                let mut sum: [[__m256i; 2]; R] =
                    std::array::from_fn(|i| [_mm256_set1_epi32(tile.start[i]); 2]);
                let mut panel = tile.bytes[64 * half..].as_ptr();
                for queries in tile.queries.chunks_exact(R) {
                    // SAFETY: half of the WIDTH rows.
                    unsafe {
                        let x0 = _mm256_loadu_si256(panel.cast());
                        let x1 = _mm256_loadu_si256(panel.add(32).cast());
                        for (sum, four) in sum.iter_mut().zip(queries) {
                            let four = _mm256_set1_epi32(*four);
                            sum[0] = $add(sum[0], x0, four);
                            sum[1] = $add(sum[1], x1, four);
                        }
                        panel = panel.wrapping_add(4 * WIDTH);
                    }
                }
                for (i, sum) in sum.into_iter().enumerate() {
                    let q = _mm256_set1_ps(sink.scale(tile.first + i));
                    for (quarter, sum) in sum.into_iter().enumerate() {
                        let at = 16 * half + 8 * quarter;
                        // SAFETY: quarters of WIDTH floats.
                        unsafe {
                            let own = _mm256_loadu_ps(tile.own.as_ptr().add(at));
                            let scale = _mm256_loadu_ps(tile.scale.as_ptr().add(at));
                            let value = _mm256_fnmadd_ps(
                                _mm256_cvtepi32_ps(sum),
                                _mm256_mul_ps(q, scale),
                                own,
                            );
                            _mm256_storeu_ps(values[i].as_mut_ptr().add(at), value);
                        }
                    }
                }
            }
            for (i, values) in values.iter().enumerate() {
                let query = tile.first + i;
                let limit = _mm256_set1_ps(sink.limit(query, tile.panel));
                let mut mask = 0;
                for (quarter, values) in values.as_chunks::<8>().0.iter().enumerate() {
                    // SAFETY: eight floats.
                    let value = unsafe { _mm256_loadu_ps(values.as_ptr()) };
                    let near = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NGE_UQ>(value, limit));
                    mask |= (near as u32) << (8 * quarter);
                }
                if mask != 0 {
                    sink.found(query, tile.panel, mask, values);
                }
            }
        }
    };
}

tile_of_256!(avx_vnni, "avx2,avxvnni,fma", _mm256_dpbusd_avx_epi32);

// Pairs of products do not saturate, by the range of queries.
tile_of_256!(avx2, "avx2,fma", |sum, x, four| {
    let pairs = _mm256_maddubs_epi16(x, four);
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
});
