//! Relative Mahalanobis distance (`rmds`, `rmds_pp`): min_k M_k(z) − M_0(z),
//! M_k = (z−μ_k)ᵀ Σ⁻¹ (z−μ_k) with the fit of [`gmm`](super::gmm), M_0 the same
//! for one Gaussian of all rows, with mean m and covariance
//! Σ_0 = Σ + Σ_k π_k (μ_k−m)(μ_k−m)ᵀ.
//!
//! Nothing but the moments of the classes is needed, and the part of z that
//! both distances share falls away: with w = L⁻¹(z−m), Σ = LLᵀ, the whitened
//! class means w_k as rows of A and s = Aw,
//!
//! M_k − M_0 = ‖w_k‖² − 2s_k + ‖C⁻¹ Π^½ s‖², CCᵀ = I + Π^½ A Aᵀ Π^½
//!
//! (Woodbury), where s = (A L⁻¹)(z−m) takes one product of K·D: O(K·D + K²) a
//! row in f64, in place of two whitenings of D², and without their cancellation.
//! With more classes than dimensions the two distances are cheaper: M_0 is then
//! ‖G⁻¹w‖², GGᵀ = I + AᵀΠA. Settings that change Σ change Σ_0 with it.
//!
//! `rmds_pp` normalises the features (Mahalanobis++), `rmds` does not.
//!
//! Reference: Ren et al., *A Simple Fix to Mahalanobis Distance for Improving
//! Near-OOD Detection*, 2021; Mueller and Hein, *Mahalanobis++: Improving OOD
//! Detection via Feature Normalization*, ICML 2025.

use super::gmm::{Gmm, GmmConfig, gaussian_method, gaussian_settings};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::gram::add_gram;
use crate::math::linalg::{cholesky, invert_lower, product_nn, product_nt};
use crate::scorers::context::{FitContext, StatisticRequest};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

gaussian_settings! {
    /// Settings of `rmds`: those of `gmm`, on features as they are.
    RmdsConfig, normalize = false;
}

gaussian_settings! {
    /// Settings of `rmds_pp`: those of `gmm`.
    RmdsPpConfig, normalize = true;
}

offer! { RmdsConfig => Rmds, RmdsPpConfig => Rmds }

/// A fitted `rmds` or `rmds_pp` scorer.
pub struct Rmds {
    gmm: Gmm,
    form: Form,
}

/// How M_k − M_0 is computed.
enum Form {
    Classes {
        /// A L⁻¹, `[K, D]`.
        projection: Vec<f64>,
        /// ‖w_k‖².
        squares: Vec<f64>,
        /// C⁻¹ Π^½, `[K, K]`.
        background: Vec<f64>,
    },
    Features {
        /// G⁻¹ L⁻¹, `[D, D]`.
        background: Vec<f64>,
    },
}

/// Inverse Cholesky factor of I + the lower triangle `a`, `[d, d]`.
fn inverse_factor(mut a: Vec<f64>, d: usize) -> Result<Vec<f64>> {
    (0..d).for_each(|i| a[i * d + i] += 1.0);
    let factor = cholesky(&a, d).ok_or_else(|| Error::Fit {
        what: "rmds".into(),
        problem: "the distances between the class means are beyond double precision; \
                  scale the features, or use `shrinkage`"
            .into(),
    })?;
    Ok(invert_lower(&factor, d))
}

impl Form {
    fn classes(gmm: &Gmm) -> Result<Self> {
        let (dim, k, white) = (gmm.input.dim, gmm.components(), gmm.white_means());
        let mut projection = vec![0.0; k * dim];
        product_nn(white, gmm.inverse(), &mut projection, dim);
        let squares = white.chunks_exact(dim).map(|w| w.iter().map(|v| v * v).sum()).collect();
        let roots: Vec<f64> = gmm.mixture_probs().iter().map(|p| p.sqrt()).collect();
        let mut inner = vec![0.0; k * k];
        product_nt(white, white, &mut inner, dim);
        for (row, root) in inner.chunks_exact_mut(k).zip(&roots) {
            row.iter_mut().zip(&roots).for_each(|(v, other)| *v *= root * other);
        }
        let mut background = inverse_factor(inner, k)?;
        for row in background.chunks_exact_mut(k) {
            row.iter_mut().zip(&roots).for_each(|(v, root)| *v *= root);
        }
        Ok(Form::Classes { projection, squares, background })
    }

    fn features(gmm: &Gmm) -> Result<Self> {
        let dim = gmm.input.dim;
        let rows = gmm.white_means().chunks_exact(dim).zip(gmm.mixture_probs());
        let scaled: Vec<f64> = rows.flat_map(|(w, p)| w.iter().map(|v| v * p.sqrt())).collect();
        let mut outer = vec![0.0; dim * dim];
        add_gram(&mut outer, &scaled, dim, 1.0);
        let mut background = vec![0.0; dim * dim];
        product_nn(&inverse_factor(outer, dim)?, gmm.inverse(), &mut background, dim);
        Ok(Form::Features { background })
    }

    /// M_k − M_0 of the nearest class, of stepped rows.
    fn scores(&self, gmm: &Gmm, rows: &[f32], out: &mut [f32]) {
        let (dim, k) = (gmm.input.dim, gmm.components());
        let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>();
        let least = |x: &mut dyn Iterator<Item = f64>| x.fold(f64::INFINITY, f64::min);
        let centred = gmm.centred(rows);
        match self {
            Form::Classes { projection, squares, background } => {
                let (mut s, mut b) = (vec![0.0; out.len() * k], vec![0.0; out.len() * k]);
                product_nt(&centred, projection, &mut s, dim);
                product_nt(&s, background, &mut b, k);
                for ((o, s), b) in out.iter_mut().zip(s.chunks_exact(k)).zip(b.chunks_exact(k)) {
                    let near = least(&mut s.iter().zip(squares).map(|(s, w)| w - 2.0 * s));
                    *o = (near + square(b)) as f32;
                }
            }
            Form::Features { background } => {
                let (m, mut b) = (gmm.distances(rows), vec![0.0; centred.len()]);
                product_nt(&centred, background, &mut b, dim);
                for ((o, m), b) in out.iter_mut().zip(m.chunks_exact(k)).zip(b.chunks_exact(dim)) {
                    *o = (least(&mut m.iter().copied()) - square(b)) as f32;
                }
            }
        }
    }
}

impl Rmds {
    /// The scorer of a fitted mixture.
    fn of(gmm: Gmm) -> Result<Self> {
        let few = gmm.components() <= gmm.input.dim;
        let form = if few { Form::classes(&gmm)? } else { Form::features(&gmm)? };
        Ok(Rmds { gmm, form })
    }

    /// The mixture behind it.
    pub fn gmm(&self) -> &Gmm {
        &self.gmm
    }

    fn load(stored: &Stored<'_>) -> Result<Self> {
        Self::of(Gmm::load(stored)?)
    }
}

gaussian_method!(
    RmdsConfig => Rmds, "rmds", Rmds::of,
    refuse true: "`rmds` does not normalise; use `rmds_pp`"
);
gaussian_method!(
    RmdsPpConfig => Rmds, "rmds_pp", Rmds::of,
    refuse false: "`rmds_pp` normalises; use `rmds`"
);

impl Scorer for Rmds {
    fn name(&self) -> &'static str {
        if self.gmm.config().normalize { "rmds_pp" } else { "rmds" }
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.gmm.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.form.scores(&self.gmm, &self.gmm.input.stepped(batch), out);
    }

    fn section(&self) -> Section {
        self.gmm.section_as(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Silent;
    use crate::scorers::{Fit, TrainingData};
    use ndarray::Array2;

    /// Both forms say the same, with fewer classes than dimensions and more.
    #[test]
    fn forms_agree() {
        for (classes, dim) in [(3, 7), (9, 4)] {
            let value = |(i, j)| {
                let noise = ((i * dim + j) as u32).wrapping_mul(2_654_435_761) % 997;
                noise as f32 / 500.0 + ((i % classes) * (j + 1) % 5) as f32
            };
            let rows = Array2::from_shape_fn((200, dim), value);
            let labels: Vec<u32> = (0..200).map(|i| i % classes as u32).collect();
            let set = FeatureSet::from_arrays(rows.view(), Some(&labels)).unwrap();
            let config = GmmConfig { normalize: false, ..GmmConfig::default() };
            let gmm = config.fit(&TrainingData::new(&set), &mut Silent).unwrap();
            let scores = |form: Form| {
                let mut out = vec![0.0; 200];
                form.scores(&gmm, rows.as_slice().unwrap(), &mut out);
                out
            };
            let (a, b) = (Form::classes(&gmm).unwrap(), Form::features(&gmm).unwrap());
            for (a, b) in scores(a).into_iter().zip(scores(b)) {
                assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{classes}: {a} {b}");
            }
        }
    }
}
