//! An affine subspace and what lies outside it: shared by `vim`, `residual`
//! and `kpca`.

use super::Stored;
use super::input::{by_classes, require_head};
use super::training::{By, ClassMoments, Source, Training, Want};
use crate::error::{Error, Result};
use crate::features::{Head, Tensor};
use crate::math::linalg::{eigh, pinv_times, product_nt};

/// A point o and orthonormal directions P, `[p, D]`.
pub(super) struct Subspace {
    pub origin: Vec<f64>,
    pub directions: Vec<f64>,
}

/// The statistic that [`Subspace::of_head`] asks for.
pub(super) fn want(source: &Source) -> Want {
    ClassMoments::want(source, By::All)
}

impl Subspace {
    /// Through o = −W⁺b, where all logits vanish, along the `count` directions
    /// of largest variance (by default 256, 400 or 256 as there are fewer than
    /// 100, fewer than 1000 or more classes, METHOD §3; at most half of all).
    /// Also the head for stepped features.
    ///
    /// # Errors
    /// If there is no head, `count` is not below D, or a decomposition fails.
    pub fn of_head(
        scorer: &str,
        count: Option<usize>,
        source: &Source,
        training: &mut Training<'_>,
    ) -> Result<(Self, Head)> {
        let head = source.head(require_head(scorer, training.head)?)?;
        let dim = source.dim;
        let default = by_classes(head.classes(), [256, 400, 256]).min(dim / 2);
        let p = count.unwrap_or(default);
        if p >= dim {
            let problem = format!("must be below the dimension {dim}, so that a residual remains");
            return Err(Error::config("principal_dim", p, problem));
        }
        let unsolved = || Error::Fit {
            what: scorer.into(),
            problem: "the decomposition of the head or covariance did not converge".into(),
        };
        let double = |x: &[f32]| x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let mut origin =
            pinv_times(&double(head.weight()), &double(head.bias())).ok_or_else(unsolved)?;
        origin.iter_mut().for_each(|v| *v = -*v);
        let moments = training.find::<ClassMoments>(want(source))?;
        let (_, covariance) = moments.moments.clone().finish();
        let (_, mut directions) = eigh(&covariance, dim).ok_or_else(unsolved)?;
        directions.truncate(p * dim);
        Ok((Subspace { origin, directions }, head))
    }

    /// Columns D.
    pub fn dim(&self) -> usize {
        self.origin.len()
    }

    /// Number of directions p.
    pub fn count(&self) -> usize {
        self.directions.len() / self.dim()
    }

    /// z − o, `[n, D]`.
    pub fn centred(&self, rows: &[f32]) -> Vec<f64> {
        let rows = rows.chunks_exact(self.dim());
        rows.flat_map(|row| row.iter().zip(&self.origin).map(|(&v, o)| f64::from(v) - o)).collect()
    }

    /// ‖x − P Pᵀx‖ of each row of x, and Pᵀx (`[n, p]`); the first from
    /// ‖x‖² − ‖Pᵀx‖².
    pub fn residual_norms(&self, centred: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (dim, p) = (self.dim(), self.count());
        let n = centred.len() / dim;
        let mut along = vec![0.0; n * p];
        if p > 0 {
            product_nt(centred, &self.directions, &mut along, dim);
        }
        let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>();
        let norms = centred
            .chunks_exact(dim)
            .enumerate()
            .map(|(i, x)| (square(x) - square(&along[i * p..][..p])).max(0.0).sqrt());
        (norms.collect(), along)
    }

    /// `origin`, and `principal` where there is one.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let (dim, p) = (self.dim(), self.count());
        let mut tensors = vec![("origin".into(), Tensor::f64([dim], self.origin.clone()))];
        if p > 0 {
            let principal = Tensor::f64([p, dim], self.directions.clone());
            tensors.push(("principal".into(), principal));
        }
        tensors
    }

    /// Read them back.
    pub fn load(stored: &Stored<'_>, dim: usize, count: usize) -> Result<Self> {
        let get = |name: &str, shape: &[usize]| stored.file.f64(&stored.name(name), shape);
        let origin = get("origin", &[dim])?;
        let directions = match count {
            0 => Vec::new(),
            p => get("principal", &[p, dim])?,
        };
        Ok(Subspace { origin, directions })
    }
}
