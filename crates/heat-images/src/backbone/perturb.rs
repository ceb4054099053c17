//! Images moved against an energy before they are scored (`odin`, and the
//! input preprocessing of Mahalanobis distances): x′ = x − ε·sign(∇ₓE(x)).
//!
//! With `odin` E is −max softmax(logits/T), so that x′ raises the probability
//! of the predicted class (METHOD §3); with `ssd`, `gmm` and `heat` it is their
//! own energy of the features of x. x is the normalised image, so ε is in
//! units of each channel's standard deviation.
//!
//! Reference: Liang et al., ICLR 2018; Lee et al., NeurIPS 2018.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Network, Pooled};
use heat_ood::features::Batch;
use heat_ood::scorers::Scorer;
use heat_ood::{Error, Result};

/// A perturbation of images.
#[derive(Clone)]
pub struct Perturbation {
    scorer: Arc<dyn Scorer>,
    identity: PerturbedBy,
}

/// What images were perturbed by, for the manifest of their features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerturbedBy {
    /// Name of the scorer whose energy E is.
    pub scorer: String,
    /// SHA-256 of all its parameters.
    pub sha256: String,
    /// ε, in normalised pixel values.
    pub epsilon: f64,
}

impl Perturbation {
    /// Check the settings.
    ///
    /// # Errors
    /// If ε is not a positive number.
    pub fn new(scorer: Arc<dyn Scorer>, epsilon: f64) -> Result<Self> {
        if !(epsilon.is_finite() && epsilon > 0.0) {
            let problem = "the size of the perturbation is a positive number, such as 0.0014";
            return Err(Error::config("epsilon", epsilon, problem));
        }
        let sha256 = scorer.section().digest()?;
        let identity = PerturbedBy { scorer: scorer.name().to_owned(), sha256, epsilon };
        Ok(Perturbation { scorer, identity })
    }

    /// The scorer, its parameters and ε.
    pub fn identity(&self) -> &PerturbedBy {
        &self.identity
    }

    /// Move images `[n, 3, height, width]` in place.
    ///
    /// # Errors
    /// If the scorer or an operator of the network has no gradient, or the
    /// runtime refuses them.
    pub fn apply(
        &self,
        network: &mut Network,
        images: &mut [f32],
        shape: [usize; 4],
    ) -> Result<()> {
        let before: Pooled = network.run(images.to_vec(), shape)?;
        let batch = before.batch(shape[0])?;
        let mut seeds = Batch::of(batch.rows(), [])?;
        self.scorer.gradient_batch(&batch, 1.0, &mut seeds)?;
        let gradient = network.gradient(images, shape, &seeds)?;
        let epsilon = self.identity.epsilon as f32;
        for (x, g) in images.iter_mut().zip(&gradient) {
            // Not `signum`: the sign of 0 is 0 here.
            let sign = f32::from(u8::from(*g > 0.0)) - f32::from(u8::from(*g < 0.0));
            *x -= epsilon * sign;
        }
        Ok(())
    }
}
