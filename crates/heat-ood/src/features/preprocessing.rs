//! Feature steps, in METHOD §2's order: react, normalize, pca.

use serde::{Deserialize, Serialize};

use super::{FeatureSet, Field, Pooling};
use crate::error::{Error, Result};
use crate::io::{Tensor, TensorFile, check_moments};
use crate::math::linalg::{eigh, product_nn, product_nt};
use crate::math::moments::Moments;
use crate::math::{blocks, quantile, reduce};

/// Which steps to take.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreprocessingConfig {
    /// Clip every coordinate at this quantile of all training coordinates
    /// (ReAct, Sun et al. 2021).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub react: Option<f64>,
    /// Divide each row by its L2 norm.
    pub normalize: bool,
    /// Project on this many principal components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<usize>,
    /// Divide each component by its standard deviation.
    pub whiten: bool,
}

/// Fitted steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Preprocessing {
    /// Largest value a coordinate may keep.
    pub react: Option<f32>,
    /// Whether rows are divided by their L2 norm.
    pub normalize: bool,
    /// Projection.
    pub pca: Option<Pca>,
    /// Whether the halves of a row, `avg` and `std` side by side, are normalised each.
    pub halves: bool,
}

/// A fitted projection: (z − mean)·componentsᵀ.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    /// Training mean, `[D]`.
    pub mean: Vec<f64>,
    /// Components, `[n, D]`, scaled when whitening.
    pub components: Vec<f64>,
}

impl PreprocessingConfig {
    /// Fit on the training set.
    ///
    /// # Errors
    /// If a parameter is out of range or a row is not finite.
    pub fn fit(&self, set: &FeatureSet, pooling: Pooling) -> Result<Preprocessing> {
        let field = Field::Features(pooling);
        let dim = set.require(field)?;
        self.fit_by(pooling, dim, &mut OverSet { set, field })
    }

    /// The same of rows of so many columns, by what is found about them.
    pub(crate) fn fit_by(
        &self,
        pooling: Pooling,
        dim: usize,
        found: &mut dyn Sought,
    ) -> Result<Preprocessing> {
        let mut steps = Preprocessing { halves: pooling == Pooling::AvgStd, ..Default::default() };
        if let Some(q) = self.react {
            if !(0.0..=1.0).contains(&q) {
                return Err(Error::config(
                    "react",
                    q,
                    "a quantile lies between 0 and 1, e.g. 0.95",
                ));
            }
            steps.react = Some(found.quantile(q)? as f32);
        }
        steps.normalize = self.normalize;
        if self.whiten && self.pca.is_none() {
            return Err(Error::config("whiten", true, "whitening needs `pca=<n>`"));
        }
        if let Some(n) = self.pca {
            steps.pca = Some(self.fit_pca(dim, found, &steps, n)?);
        }
        Ok(steps)
    }

    fn fit_pca(
        &self,
        dim: usize,
        found: &mut dyn Sought,
        before: &Preprocessing,
        n: usize,
    ) -> Result<Pca> {
        let check = |most: usize| match n {
            n if (1..=most).contains(&n) => Ok(()),
            _ => {
                let problem = format!("between 1 and {most} components are possible");
                Err(Error::config("pca", n, problem))
            }
        };
        check(dim)?;
        check_moments("pca", dim, 1)?;
        let moments = found.moments(before)?;
        let rows = moments.counts().iter().sum::<u64>();
        check(dim.min(usize::try_from(rows).unwrap_or(usize::MAX)))?;
        let (mean, covariance) = moments.finish();
        let (values, vectors) = eigh(&covariance, dim).ok_or_else(|| Error::Fit {
            what: "pca".into(),
            problem: "the eigenvalue iteration did not converge".into(),
        })?;
        let mut components = vectors[..n * dim].to_vec();
        if self.whiten {
            // Explained variance S²/(N−1); the covariance above divides by N.
            let unbiased = rows as f64 / (rows as f64 - 1.0).max(1.0);
            for (row, value) in components.chunks_exact_mut(dim).zip(values) {
                let scale = (value * unbiased).max(f64::MIN_POSITIVE).sqrt();
                row.iter_mut().for_each(|v| *v /= scale);
            }
        }
        Ok(Pca { mean, components })
    }
}

/// What fits of steps ask of the training rows.
pub(crate) trait Sought {
    /// A quantile of all coordinates.
    fn quantile(&mut self, q: f64) -> Result<f64>;

    /// Mean and covariance of the rows after these steps, none of which is a projection.
    fn moments(&mut self, before: &Preprocessing) -> Result<Moments>;
}

/// A set whose rows can be read.
struct OverSet<'a> {
    set: &'a FeatureSet,
    field: Field,
}

impl Sought for OverSet<'_> {
    fn quantile(&mut self, q: f64) -> Result<f64> {
        quantile::streamed(q, |f| each_block(self.set, self.field, |rows| f(rows)))
    }

    fn moments(&mut self, before: &Preprocessing) -> Result<Moments> {
        let dim = self.set.require(self.field)?;
        let mut moments = Moments::new(dim, 1);
        each_block(self.set, self.field, |rows| {
            before.clip_and_normalize(rows, dim);
            moments.update(rows, &vec![0; rows.len() / dim]);
        })?;
        Ok(moments)
    }
}

/// Call `f` with every block of the set, in order.
fn each_block(set: &FeatureSet, field: Field, mut f: impl FnMut(&mut [f32])) -> Result<()> {
    let dim = set.require(field)?;
    let mut buffer = Vec::new();
    for range in blocks(set.len(), Moments::block_rows(dim)) {
        buffer.resize(range.len() * dim, 0.0);
        set.read_parallel(field, range, &mut buffer)?;
        f(&mut buffer);
    }
    Ok(())
}

impl Preprocessing {
    /// Columns after the steps, given `dim` before.
    pub fn out_dim(&self, dim: usize) -> usize {
        self.pca.as_ref().map_or(dim, |p| p.components.len() / dim.max(1))
    }

    /// Clip and normalise in place; rows of `dim`.
    pub fn clip_and_normalize(&self, rows: &mut [f32], dim: usize) {
        crate::math::arch().dispatch(
            #[inline(always)]
            || {
                if let Some(t) = self.react {
                    for v in rows.iter_mut() {
                        *v = v.min(t);
                    }
                }
                if self.normalize {
                    for row in rows.chunks_exact_mut(self.normed(dim)) {
                        reduce::normalize(row);
                    }
                }
            },
        );
    }

    /// Columns that are normalised together.
    fn normed(&self, dim: usize) -> usize {
        if self.halves { (dim / 2).max(1) } else { dim }
    }

    /// All steps for `rows` (`[n, dim]`), on the current thread.
    pub fn apply(&self, rows: &[f32], dim: usize) -> Vec<f32> {
        let mut out = rows.to_vec();
        self.clip_and_normalize(&mut out, dim);
        let Some(pca) = &self.pca else {
            return out;
        };
        let centred: Vec<f64> = out
            .chunks_exact(dim)
            .flat_map(|row| row.iter().zip(&pca.mean).map(|(&v, m)| f64::from(v) - m))
            .collect();
        let n = rows.len() / dim;
        let mut projected = vec![0.0; n * self.out_dim(dim)];
        product_nt(&centred, &pca.components, &mut projected, dim);
        projected.into_iter().map(|v| v as f32).collect()
    }

    /// The gradient with respect to `rows` (`[n, dim]`) from that with respect
    /// to the stepped rows.
    pub(crate) fn gradient(&self, rows: &[f32], dim: usize, stepped: &[f64]) -> Vec<f64> {
        let mut out = match &self.pca {
            None => stepped.to_vec(),
            Some(pca) => {
                let mut back = vec![0.0; rows.len()];
                product_nn(stepped, &pca.components, &mut back, self.out_dim(dim));
                back
            }
        };
        let width = self.normed(dim);
        for (row, g) in rows.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let clipped = |v: f32| f64::from(self.react.map_or(v, |t| v.min(t)));
            if self.normalize {
                let norm = row.iter().map(|&v| clipped(v).powi(2)).sum::<f64>().sqrt();
                // A row of norm 0 stays 0, whatever its direction.
                if norm == 0.0 {
                    g.fill(0.0);
                    continue;
                }
                let along: f64 = row.iter().zip(&*g).map(|(&v, g)| clipped(v) * g).sum();
                for (g, &v) in g.iter_mut().zip(row) {
                    *g = (*g - clipped(v) * along / (norm * norm)) / norm;
                }
            }
            if let Some(t) = self.react {
                g.iter_mut().zip(row).filter(|(_, v)| **v > t).for_each(|(g, _)| *g = 0.0);
            }
        }
        out
    }

    /// Whether there is nothing to do.
    pub fn is_identity(&self) -> bool {
        self.react.is_none() && !self.normalize && self.pca.is_none()
    }

    pub(crate) fn tensors(&self, dim: usize) -> Vec<(String, Tensor)> {
        let mut out = Vec::new();
        if let Some(t) = self.react {
            out.push(("react.threshold".into(), Tensor::f32([1], vec![t])));
        }
        if let Some(pca) = &self.pca {
            let n = self.out_dim(dim);
            out.push(("pca.mean".into(), Tensor::f64([dim], pca.mean.clone())));
            out.push(("pca.components".into(), Tensor::f64([n, dim], pca.components.clone())));
        }
        out
    }

    pub(crate) fn load(
        file: &TensorFile,
        prefix: &str,
        config: &PreprocessingConfig,
        pooling: Pooling,
    ) -> Result<Self> {
        let name = |n: &str| format!("{prefix}{n}");
        let halves = pooling == Pooling::AvgStd;
        let mut steps =
            Preprocessing { normalize: config.normalize, halves, ..Preprocessing::default() };
        if config.react.is_some() {
            steps.react = Some(file.f32(&name("react.threshold"), &[1])?[0]);
        }
        if config.pca.is_some() {
            let shape = file.shape(&name("pca.components"))?.to_vec();
            let components = file.f64(&name("pca.components"), &shape)?;
            let mean = file.f64(&name("pca.mean"), &shape[1.min(shape.len())..])?;
            steps.pca = Some(Pca { mean, components });
        }
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_normalised_each() {
        let steps = Preprocessing { normalize: true, halves: true, ..Default::default() };
        assert_eq!(steps.apply(&[3.0, 4.0, 0.0, 5.0], 4), [0.6, 0.8, 0.0, 1.0]);
        // By hand: (g − z⟨z, g⟩)/‖·‖ of each half, z the unit vector.
        let g = steps.gradient(&[3.0, 4.0, 0.0, 5.0], 4, &[1.0, 0.0, 1.0, 1.0]);
        let want = [0.128, -0.096, 0.2, 0.0];
        assert!(g.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12), "{g:?}");
    }
}
