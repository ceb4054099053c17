//! Decompositions and double-precision products, through `faer`.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};

fn view(x: &[f64], rows: usize, cols: usize) -> MatRef<'_, f64> {
    MatRef::from_row_major_slice(x, rows, cols)
}

fn row_major(m: MatRef<'_, f64>) -> Vec<f64> {
    let mut out = vec![0.0; m.nrows() * m.ncols()];
    MatMut::from_row_major_slice_mut(&mut out, m.nrows(), m.ncols()).copy_from(m);
    out
}

/// Copy the lower triangle onto the upper one.
pub fn symmetrize(a: &mut [f64], d: usize) {
    for i in 0..d {
        for j in 0..i {
            a[j * d + i] = a[i * d + j];
        }
    }
}

/// `c = a · bᵀ` in f64 on the current thread: a `[m, k]`, b `[n, k]`, c `[m, n]`.
pub fn product_nt(a: &[f64], b: &[f64], c: &mut [f64], k: usize) {
    let (m, n) = (a.len() / k, b.len() / k);
    let out = MatMut::from_row_major_slice_mut(c, m, n);
    matmul(out, Accum::Replace, view(a, m, k), view(b, n, k).transpose(), 1.0, Par::Seq);
}

/// `c = a · b` in f64 on the current thread: a `[m, k]`, b `[k, n]`, c `[m, n]`.
pub fn product_nn(a: &[f64], b: &[f64], c: &mut [f64], k: usize) {
    let (m, n) = (a.len() / k, b.len() / k);
    let out = MatMut::from_row_major_slice_mut(c, m, n);
    matmul(out, Accum::Replace, view(a, m, k), view(b, k, n), 1.0, Par::Seq);
}

/// The Cholesky factor L (row-major, lower) of the symmetric matrix whose
/// lower triangle is in `a`, or `None` when it is not positive definite.
pub fn cholesky(a: &[f64], d: usize) -> Option<Vec<f64>> {
    let factor = view(a, d, d).llt(Side::Lower).ok()?;
    let l = row_major(factor.L());
    l.iter().all(|v| v.is_finite()).then_some(l)
}

/// L⁻¹ (row-major, lower) of a lower-triangular L with non-zero diagonal.
pub fn invert_lower(l: &[f64], d: usize) -> Vec<f64> {
    let mut out = Mat::<f64>::identity(d, d);
    faer::linalg::triangular_solve::solve_lower_triangular_in_place(
        view(l, d, d),
        out.as_mut(),
        Par::Seq,
    );
    row_major(out.as_ref())
}

/// A matrix far from one in scale, times a power of two that brings it near, with the inverse of
/// that power: the iterations below stop at absolute thresholds.
fn near_one(a: &[f64]) -> (std::borrow::Cow<'_, [f64]>, f64) {
    let largest = a.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if largest == 0.0 || !largest.is_finite() || (1e-9..1e9).contains(&largest) {
        return (a.into(), 1.0);
    }
    // Of subnormal numbers two steps would be needed; they have no digits to decompose.
    let exponent = largest.log2().round().clamp(-1000.0, 1000.0) as i32;
    (a.iter().map(|v| v * 2f64.powi(-exponent)).collect(), 2f64.powi(exponent))
}

/// Eigenvalues in descending order and eigenvectors as *rows* of the returned
/// `[d, d]` matrix, of the symmetric matrix whose lower triangle is in `a`;
/// `None` when the iteration does not converge.
pub fn eigh(a: &[f64], d: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    let (a, scale) = near_one(a);
    let e = view(&a, d, d).self_adjoint_eigen(Side::Lower).ok()?;
    let values = (0..d).rev().map(|i| e.S()[i] * scale).collect();
    let u = e.U();
    let mut vectors = Vec::with_capacity(d * d);
    for i in (0..d).rev() {
        vectors.extend((0..d).map(|j| u[(j, i)]));
    }
    Some((values, vectors))
}

/// A⁺b: the shortest x that minimises ‖Ax − b‖, A `[m, n]` row-major; `None`
/// when the iteration does not converge. Singular values below
/// max(m, n)·ε·largest count as zero, ε that of single precision, from which
/// weights come (as `torch.linalg.pinv` of a float32 matrix).
pub fn pinv_times(a: &[f64], b: &[f64]) -> Option<Vec<f64>> {
    let (m, n) = (b.len(), a.len() / b.len());
    let (a, scale) = near_one(a);
    let svd = view(&a, m, n).thin_svd().ok()?;
    let (u, v, s) = (svd.U(), svd.V(), svd.S());
    let values: Vec<f64> = (0..m.min(n)).map(|i| s[i]).collect();
    let floor = m.max(n) as f64 * f64::from(f32::EPSILON) * values.first()?;
    let mut x = vec![0.0; n];
    for (i, value) in values.into_iter().enumerate().filter(|(_, s)| *s > floor) {
        let along = (0..m).map(|r| u[(r, i)] * b[r]).sum::<f64>() / (value * scale);
        x.iter_mut().enumerate().for_each(|(j, x)| *x += along * v[(j, i)]);
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [[2, 1], [1, 2]] has eigenvalues 3 and 1 along (1, 1) and (1, −1), by hand; in other units too.
    #[test]
    fn units_do_not_matter() {
        for scale in [1e-30, 1.0, 1e30] {
            let a = [2.0, 1.0, 1.0, 2.0].map(|v| v * scale);
            let (values, vectors) = eigh(&a, 2).unwrap();
            assert!((values[0] / scale - 3.0).abs() < 1e-12, "{values:?}");
            assert!((values[1] / scale - 1.0).abs() < 1e-12, "{values:?}");
            assert!((vectors[0].abs() - 0.5f64.sqrt()).abs() < 1e-12);
            let x = pinv_times(&a, &[3.0, 3.0]).unwrap();
            assert!(x.iter().all(|x| (x * scale - 1.0).abs() < 1e-12), "{x:?}");
        }
    }

    /// [[4, 2], [2, 5]] = L Lᵀ with L = [[2, 0], [1, 2]], by hand.
    #[test]
    fn cholesky_and_inverse_by_hand() {
        let l = cholesky(&[4.0, 2.0, 2.0, 5.0], 2).unwrap();
        assert_eq!(l, [2.0, 0.0, 1.0, 2.0]);
        assert_eq!(invert_lower(&l, 2), [0.5, 0.0, -0.25, 0.5]);
        assert!(cholesky(&[1.0, 1.0, 1.0, 1.0], 2).is_none());
        assert!(cholesky(&[f64::NAN, 0.0, 0.0, 1.0], 2).is_none());
    }

    #[test]
    fn eigenvectors_are_rows_in_descending_order() {
        let (values, vectors) = eigh(&[2.0, 1.0, 1.0, 2.0], 2).unwrap();
        assert!((values[0] - 3.0).abs() < 1e-12 && (values[1] - 1.0).abs() < 1e-12);
        assert!((vectors[0].abs() - 0.5f64.sqrt()).abs() < 1e-12);
        assert!((vectors[0] - vectors[1]).abs() < 1e-12);
    }

    /// A = [[1, 0, 1], [0, 2, 0]], b = (2, 3): x = (1, 1.5, 1), by hand; the
    /// same with a row twice, which has no inverse.
    #[test]
    fn pseudoinverse_by_hand() {
        let close = |x: Vec<f64>, want: [f64; 3]| {
            assert!(x.iter().zip(want).all(|(x, w)| (x - w).abs() < 1e-12), "{x:?}");
        };
        let a = [1.0, 0.0, 1.0, 0.0, 2.0, 0.0];
        close(pinv_times(&a, &[2.0, 3.0]).unwrap(), [1.0, 1.5, 1.0]);
        let twice = [a, a].concat();
        close(pinv_times(&twice, &[2.0, 3.0, 2.0, 3.0]).unwrap(), [1.0, 1.5, 1.0]);
    }

    #[test]
    fn product_by_hand() {
        let mut c = [0.0; 2];
        product_nt(&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0], &mut c, 2);
        assert_eq!(c, [11.0, 17.0]);
    }
}
