//! What is kept of a feature map for the scorers that read more of it than poolings: maps themselves
//! are never stored.

use crate::error::{Error, Result};
use crate::math::linalg::eigh;
use crate::math::reduce;

/// Powers of the map of which Gram matrices are kept, from 1: the authors' of `gram`.
pub const GRAM_POWERS: usize = 10;

/// Logits to softmax − 1/C: the gradient of KL(uniform ‖ softmax) with respect to them.
pub fn beyond_uniform(logits: &mut [f64]) {
    let uniform = 1.0 / logits.len() as f64;
    let total = reduce::logsumexp(logits.iter().copied());
    logits.iter_mut().for_each(|l| *l = (*l - total).exp() - uniform);
}

/// ±√|v|, as products are kept: half precision holds it.
pub fn signed_root(v: f32) -> f32 {
    v.abs().sqrt().copysign(v)
}

/// What was kept as a [signed root](signed_root).
pub fn signed_square(kept: f32) -> f64 {
    let kept = f64::from(kept);
    kept * kept.abs()
}

/// Gram matrices of a map `[channels, cells]`, by their rows' sums: of Fᵖ(Fᵖ)ᵀ, p = 1 … 10, the sum of
/// each row, and of its absolute value the 2p-th root with its sign, `[10 · channels]`.
///
/// The authors take the p-th root; this is the square root of that, in the units of the map, so that
/// half precision holds it. The map is divided by its largest value first: nothing overflows.
/// O(10 · channels · cells), since a row's sum needs no matrix.
///
/// Reference: Sastry & Oore, *Detecting Out-of-Distribution Examples with Gram Matrices*, ICML 2020.
pub fn gram_rows(map: &[f32], channels: usize) -> Vec<f32> {
    let cells = map.len() / channels.max(1);
    let mut out = vec![0.0; GRAM_POWERS * channels];
    let largest = map.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if largest == 0.0 || cells == 0 {
        return out;
    }
    let scaled: Vec<f32> = map.iter().map(|v| v / largest).collect();
    let mut power = scaled.clone();
    let mut sums = vec![0.0f32; cells];
    for (p, out) in (1..).zip(out.chunks_exact_mut(channels)) {
        if p > 1 {
            power.iter_mut().zip(&scaled).for_each(|(power, v)| *power *= v);
        }
        sums.fill(0.0);
        for row in power.chunks_exact(cells) {
            sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
        }
        let root = 0.5 / f64::from(p);
        for (out, row) in out.iter_mut().zip(power.chunks_exact(cells)) {
            let sum = reduce::dot(row, &sums);
            *out = (sum.abs().powf(root) * f64::from(largest)).copysign(sum) as f32;
        }
    }
    out
}

/// The mean over the cells of a map `[channels, cells]` without its first singular component, `[channels]`.
///
/// O(m²·M), m and M the smaller and the larger side.
///
/// Reference: Song et al., *RankFeat: Rank-1 Feature Removal for Out-of-distribution Detection*,
/// NeurIPS 2022.
///
/// # Errors
/// If a map of one cell, of which nothing would be left, or the decomposition fails.
pub fn mean_without_first(map: &[f32], channels: usize) -> Result<Vec<f32>> {
    let cells = map.len() / channels.max(1);
    if cells < 2 {
        let problem = "a map of one cell is its own first component: nothing would be left";
        return Err(Error::config("rankfeat", cells, problem));
    }
    let mean = |row: &[f32]| row.iter().map(|v| f64::from(*v)).sum::<f64>() / cells as f64;
    let rows = || map.chunks_exact(cells);
    // Of the smaller side.
    let component: Vec<f64> = if cells <= channels {
        let mut gram = vec![0.0; cells * cells];
        for row in rows() {
            for (i, v) in row.iter().enumerate() {
                let v = f64::from(*v);
                let sums = gram[i * cells..][..=i].iter_mut();
                sums.zip(row).for_each(|(sum, other)| *sum += v * f64::from(*other));
            }
        }
        let first = first(&gram, cells)?;
        let share = first.iter().sum::<f64>() / cells as f64;
        let along =
            |row: &[f32]| row.iter().zip(&first).map(|(v, f)| f64::from(*v) * f).sum::<f64>();
        rows().map(|row| along(row) * share).collect()
    } else {
        let mut gram = vec![0.0; channels * channels];
        for (i, row) in rows().enumerate() {
            let sums = gram[i * channels..][..=i].iter_mut();
            sums.zip(rows()).for_each(|(sum, other)| *sum = reduce::dot(row, other));
        }
        let first = first(&gram, channels)?;
        let along: f64 = rows().zip(&first).map(|(row, f)| mean(row) * f).sum();
        first.iter().map(|f| f * along).collect()
    };
    Ok(rows().zip(component).map(|(row, taken)| (mean(row) - taken) as f32).collect())
}

/// The first eigenvector of a symmetric matrix without negative eigenvalues, whose lower triangle this is.
///
/// By powers of the matrix where these settle soon, as they do for maps after a ReLU, whose first component
/// is far ahead; else by the decomposition.
fn first(matrix: &[f64], side: usize) -> Result<Vec<f64>> {
    const STEPS: usize = 60;
    let at = |i: usize, j: usize| matrix[i.max(j) * side + i.min(j)];
    let whole: Vec<f64> = (0..side * side).map(|k| at(k / side, k % side)).collect();
    // Not orthogonal to any of them by the map's symmetry.
    let mut vector: Vec<f64> = (0..side).map(|i| 1.0 + (i as f64 * 0.754_877).fract()).collect();
    normalize(&mut vector);
    for _ in 0..STEPS {
        let product = |row: &[f64]| row.iter().zip(&vector).map(|(a, b)| a * b).sum::<f64>();
        let mut next: Vec<f64> = whole.chunks_exact(side).map(product).collect();
        if !normalize(&mut next) {
            break;
        }
        let moved = next.iter().zip(&vector).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        vector = next;
        if moved < 1e-12 {
            return Ok(vector);
        }
    }
    let found = eigh(matrix, side).ok_or_else(|| {
        let problem = "the singular components of a map of such values cannot be found";
        Error::config("rankfeat", side, problem)
    })?;
    Ok(found.1[..side].to_vec())
}

/// Divide by the length; whether there is one.
fn normalize(vector: &mut [f64]) -> bool {
    let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
    vector.iter_mut().for_each(|v| *v /= length);
    length > 0.0 && length.is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two channels of two cells, by hand: F = [[1, 2], [3, −1]]. F·Fᵀ = [[5, 1], [1, 10]], rows sum to 6 and
    /// 11; with squares [[1, 4], [9, 1]] they sum to 17 + 13 and 13 + 82; with cubes [[1, 8], [27, −1]]
    /// to 65 + 19 and 19 + 730.
    #[test]
    fn gram_by_hand() {
        let got = gram_rows(&[1.0, 2.0, 3.0, -1.0], 2);
        let want = [(6.0f64, 2), (11.0, 2), (30.0, 4), (95.0, 4), (84.0, 6), (749.0, 6)];
        for (got, (sum, root)) in got.iter().zip(want) {
            assert!((f64::from(*got) - sum.powf(1.0 / f64::from(root))).abs() < 1e-6);
        }
        assert_eq!(got.len(), 20);
        let negative = gram_rows(&[1.0, 2.0, -4.0, -1.0], 2);
        assert!((negative[0] + 1.0).abs() < 1e-6, "5 − 6 = −1");
        assert!(gram_rows(&[1e30, 2e30, 3e30, 1e30], 2).iter().all(|v| v.is_finite()));
        assert_eq!(gram_rows(&[0.0; 6], 3), [0.0; 30]);
    }

    /// Of a map of rank one nothing is left; of two orthogonal components the smaller.
    #[test]
    fn the_first_component_is_taken_away() {
        let of = |u: &[f32], v: &[f32]| -> Vec<f32> {
            u.iter().flat_map(|u| v.iter().map(move |v| u * v)).collect()
        };
        for (u, v) in
            [(&[1.0f32, 2.0, 3.0][..], &[1.0f32, -2.0][..]), (&[1.0, 2.0], &[3.0, 1.0, 1.0])]
        {
            let left = mean_without_first(&of(u, v), u.len()).unwrap();
            assert!(left.iter().all(|v| v.abs() < 1e-5), "{left:?}");
        }
        // Of lengths 2·√5 and √1.25·√5: by hand.
        let (large, small) =
            (of(&[2.0, 0.0, 0.0], &[1.0, 2.0]), of(&[0.0, 0.5, 1.0], &[2.0, -1.0]));
        let both: Vec<f32> = large.iter().zip(&small).map(|(a, b)| a + b).collect();
        let left = mean_without_first(&both, 3).unwrap();
        for (got, want) in left.iter().zip([0.0, 0.25, 0.5]) {
            assert!((got - want).abs() < 1e-6, "{left:?}");
        }
        assert!(mean_without_first(&[1.0, 2.0], 2).is_err());
        assert_eq!(mean_without_first(&[0.0; 6], 3).unwrap(), [0.0; 3]);
        // Of two components of one length either may be taken.
        let left = mean_without_first(&[1.0, 0.0, 0.0, 1.0], 2).unwrap();
        assert!(left.iter().all(|v| v.abs() < 0.6), "{left:?}");
    }

    /// What a network gives of a broken image is refused, or shown as it is; nothing fails to return.
    #[test]
    fn maps_that_are_not_finite() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for channels in [2, 8] {
                let mut map = vec![1.0; 16];
                map[5] = bad;
                let left = mean_without_first(&map, channels);
                assert!(left.is_err() || left.unwrap().iter().any(|v| !v.is_finite()), "{bad}");
                assert!(gram_rows(&map, channels).iter().any(|v| !v.is_finite()), "{bad}");
            }
        }
    }
}
