//! An affine subspace and what lies outside it: shared by `vim`, `residual`
//! and `kpca`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::features::Head;
use crate::io::Tensor;
use crate::math::linalg::{eigh, pinv_times, product_nn, product_nt};
use crate::math::matmul::{Keep, Packed, View, gemm, with_scratch};
use crate::math::reduce;
use crate::scorers::Stored;
use crate::scorers::context::{By, ClassMoments, FitContext, Source, StatisticRequest};
use crate::scorers::input::{by_classes, require_head};

/// A point o and orthonormal directions P, `[p, D]`, with what is left of a
/// row x = z − o outside them: ‖x − P Pᵀx‖.
#[derive(Clone)]
pub(super) struct Subspace {
    origin: Vec<f64>,
    basis: Basis,
}

/// What the directions of largest variance are taken about, and where logits are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Center {
    /// Second moments of z − o about o itself, logits of z: Wang et al., OpenOOD, pytorch-ood.
    #[default]
    Origin,
    /// Covariance about the mean; scores with the logits of z − o: the published code of HEAT.
    Mean,
}

impl Center {
    /// Of stored settings: files from before there was a choice hold the mean's.
    pub(super) fn stored(stored: &Stored<'_>, now: Self) -> Result<Self> {
        let config: Value = stored.config()?;
        let said = config.get("settings").is_some_and(|s| s.get("center").is_some());
        Ok(if said { now } else { Center::Mean })
    }
}

/// The smaller way to what is outside.
#[derive(Clone)]
enum Basis {
    /// P: ‖x‖² − ‖Pᵀx‖² in f64, because the difference is small.
    Inside(Vec<f64>),
    /// R, the directions orthogonal to P: ‖Rᵀx‖ in single precision, which
    /// costs half as much for each.
    Outside { directions: Vec<f32>, packed: Packed },
}

impl Basis {
    fn outside(directions: Vec<f32>, dim: usize) -> Self {
        let packed = Packed::new(View::rows(&directions, dim).t(), dim, directions.len() / dim);
        Basis::Outside { directions, packed }
    }
}

/// The statistic that [`Subspace::of_head`] asks for.
pub(super) fn request(scorer: &str, source: &Source) -> Result<StatisticRequest> {
    ClassMoments::request(scorer, source, By::All)
}

fn unsolved(scorer: &str) -> Error {
    let problem = "the decomposition of the head or covariance did not converge";
    Error::Fit { what: scorer.into(), problem: problem.into() }
}

impl Subspace {
    /// Through o = −W⁺b, where all logits vanish, along the `count` directions
    /// of largest variance about `center` (by default 256, 400 or 256 as there are fewer than
    /// 100, fewer than 1000 or more classes, METHOD §3; at most half of all).
    /// Also the head for stepped features.
    ///
    /// # Errors
    /// If there is no head, `count` is not below D, or a decomposition fails.
    pub fn of_head(
        scorer: &str,
        count: Option<usize>,
        center: Center,
        source: &Source,
        context: &mut FitContext<'_>,
    ) -> Result<(Self, Head)> {
        let head = source.head(require_head(scorer, context.head)?)?;
        let default = by_classes(head.classes(), [256, 400, 256]);
        let double = |x: &[f32]| x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let origin = pinv_times(&double(head.weight()), &double(head.bias()));
        let mut origin = origin.ok_or_else(|| unsolved(scorer))?;
        origin.iter_mut().for_each(|v| *v = -*v);
        let space = Self::along(scorer, (count, default), center, Some(origin), source, context)?;
        Ok((space, head))
    }

    /// Through the mean, along the directions of largest variance about it: by default 256, at
    /// most half of all.
    ///
    /// # Errors
    /// As [`Subspace::of_head`].
    pub fn of_mean(
        scorer: &str,
        count: Option<usize>,
        source: &Source,
        context: &mut FitContext<'_>,
    ) -> Result<Self> {
        Self::along(scorer, (count, 256), Center::Mean, None, source, context)
    }

    /// Through `origin`, or the mean, along `count` directions or the default.
    fn along(
        scorer: &str,
        (count, default): (Option<usize>, usize),
        center: Center,
        origin: Option<Vec<f64>>,
        source: &Source,
        context: &mut FitContext<'_>,
    ) -> Result<Self> {
        let dim = source.dim;
        let p = count.unwrap_or(default.min(dim / 2));
        if p >= dim {
            let problem = format!("must be below the dimension {dim}, so that a residual remains");
            return Err(Error::config("principal_dim", p, problem));
        }
        let moments = context.find::<ClassMoments>(request(scorer, source)?)?;
        let (mean, mut covariance) = moments.moments.clone().finish();
        let origin = origin.unwrap_or_else(|| mean.clone());
        if center == Center::Origin {
            // E (z−o)(z−o)ᵀ = Σ + (m−o)(m−o)ᵀ.
            let off: Vec<f64> = mean.iter().zip(&origin).map(|(m, o)| m - o).collect();
            for (row, a) in covariance.chunks_exact_mut(dim).zip(&off) {
                row.iter_mut().zip(&off).for_each(|(v, b)| *v += a * b);
            }
        }
        let (_, vectors) = eigh(&covariance, dim).ok_or_else(|| unsolved(scorer))?;
        Ok(Subspace::new(origin, vectors, p))
    }

    /// Through `origin` along the first `count` of all directions (`[D, D]`).
    pub fn new(origin: Vec<f64>, mut directions: Vec<f64>, count: usize) -> Self {
        let dim = origin.len();
        let basis = if Self::is_outside(dim, count) {
            let outside = directions[count * dim..].iter().map(|&v| v as f32).collect();
            Basis::outside(outside, dim)
        } else {
            directions.truncate(count * dim);
            Basis::Inside(directions)
        };
        Subspace { origin, basis }
    }

    fn is_outside(dim: usize, count: usize) -> bool {
        dim - count <= 2 * count
    }

    /// Columns D.
    pub fn dim(&self) -> usize {
        self.origin.len()
    }

    /// Number of directions p.
    pub fn count(&self) -> usize {
        match &self.basis {
            Basis::Inside(directions) => directions.len() / self.dim(),
            Basis::Outside { packed, .. } => self.dim() - packed.n(),
        }
    }

    /// x = z − o of each row, `[n, D]`.
    pub fn centred(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = rows.to_vec();
        crate::math::arch().dispatch(
            #[inline(always)]
            || {
                for row in out.chunks_exact_mut(self.dim()) {
                    for (v, o) in row.iter_mut().zip(&self.origin) {
                        *v = (f64::from(*v) - o) as f32;
                    }
                }
            },
        );
        out
    }

    /// ‖x − P Pᵀx‖ of each row x.
    pub fn outside(&self, centred: &[f32]) -> Vec<f64> {
        match &self.basis {
            Basis::Outside { packed, .. } => {
                let along = self.along_outside(centred, packed);
                along.chunks_exact(packed.n()).map(reduce::norm2).map(f64::sqrt).collect()
            }
            Basis::Inside(_) if self.count() == 0 => {
                centred.chunks_exact(self.dim()).map(reduce::norm2).map(f64::sqrt).collect()
            }
            Basis::Inside(directions) => {
                let along = self.along_inside(centred, directions);
                let pairs = centred.chunks_exact(self.dim()).zip(along.chunks_exact(self.count()));
                let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>();
                pairs.map(|(x, a)| (reduce::norm2(x) - square(a)).max(0.0).sqrt()).collect()
            }
        }
    }

    /// x − P Pᵀx of each row x, `[n, D]`.
    pub fn residuals(&self, centred: &[f32]) -> Vec<f64> {
        let double = |x: &[f32]| x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let dim = self.dim();
        let mut out = double(centred);
        match &self.basis {
            Basis::Inside(_) if self.count() == 0 => {}
            Basis::Inside(directions) => {
                let along = self.along_inside(centred, directions);
                let mut inside = vec![0.0; centred.len()];
                product_nn(&along, directions, &mut inside, directions.len() / dim);
                out.iter_mut().zip(inside).for_each(|(x, v)| *x -= v);
            }
            Basis::Outside { directions, packed } => {
                let along = double(&self.along_outside(centred, packed));
                product_nn(&along, &double(directions), &mut out, packed.n());
            }
        }
        out
    }

    fn along_inside(&self, centred: &[f32], directions: &[f64]) -> Vec<f64> {
        let x: Vec<f64> = centred.iter().map(|&v| f64::from(v)).collect();
        let mut along = vec![0.0; x.len() / self.dim() * self.count()];
        product_nt(&x, directions, &mut along, self.dim());
        along
    }

    fn along_outside(&self, centred: &[f32], packed: &Packed) -> Vec<f32> {
        let (n, width) = (centred.len() / self.dim(), packed.n());
        let mut along = vec![0.0; n * width];
        let x = View::rows(centred, self.dim());
        with_scratch(|scratch| gemm(x, n, packed, &mut along, width, scratch, &mut Keep));
        along
    }

    /// `origin`, and the directions `principal` or `residual` where there are any.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let (dim, p) = (self.dim(), self.count());
        let mut tensors = vec![("origin".into(), Tensor::f64([dim], self.origin.clone()))];
        match &self.basis {
            Basis::Inside(_) if p == 0 => {}
            Basis::Inside(directions) => {
                tensors.push(("principal".into(), Tensor::f64([p, dim], directions.clone())));
            }
            Basis::Outside { directions, .. } => {
                tensors.push(("residual".into(), Tensor::f32([dim - p, dim], directions.clone())));
            }
        }
        tensors
    }

    /// Read them back; `count` is below `dim`.
    pub fn load(stored: &Stored<'_>, dim: usize, count: usize) -> Result<Self> {
        let name = |name: &str| stored.name(name);
        let origin = stored.file.f64(&name("origin"), &[dim])?;
        let basis = if Self::is_outside(dim, count) {
            let directions = stored.file.f32(&name("residual"), &[dim - count, dim])?;
            Basis::outside(directions, dim)
        } else if count > 0 {
            Basis::Inside(stored.file.f64(&name("principal"), &[count, dim])?)
        } else {
            Basis::Inside(Vec::new())
        };
        Ok(Subspace { origin, basis })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Axes as directions, by hand: x = (3, 4, −12), so that (4, −12) or −12 is left.
    #[test]
    fn both_ways_lead_outside() {
        let identity = vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        for (count, outside, residual) in [
            (0, 13.0, [3.0, 4.0, -12.0]),
            (1, 160f64.sqrt(), [0.0, 4.0, -12.0]),
            (2, 12.0, [0.0, 0.0, -12.0]),
        ] {
            let space = Subspace::new(vec![1.0, 0.0, 0.0], identity.clone(), count);
            assert_eq!(space.count(), count);
            let centred = space.centred(&[4.0, 4.0, -12.0]);
            assert_eq!(space.outside(&centred), [outside]);
            assert_eq!(space.residuals(&centred), residual);
        }
        // One direction of four: from inside.
        let mut four = vec![0.0; 16];
        (0..4).for_each(|i| four[i * 5] = 1.0);
        let space = Subspace::new(vec![0.0; 4], four, 1);
        assert!(matches!(space.basis, Basis::Inside(_)));
        assert_eq!(space.outside(&[7.0, 3.0, 4.0, 12.0]), [13.0]);
        assert_eq!(space.residuals(&[7.0, 3.0, 4.0, 12.0]), [0.0, 3.0, 4.0, 12.0]);
    }
}
