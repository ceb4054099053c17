//! Images moved against an energy before they are scored (`odin`, and the
//! input preprocessing of Mahalanobis distances): x′ = x − ε·sign(∇ₓE(x)), in all
//! values or, for I-ODIN, in those of the largest gradient alone.
//!
//! With `odin` E is −max softmax(logits/T), so that x′ raises the probability
//! of the predicted class (METHOD §3); with `ssd`, `gmm` and `heat` it is their
//! own energy of the features of x. x is the normalised image, so ε is in
//! units of each channel's standard deviation.
//!
//! AdaSCALE's moved image ([`View::Nudged`](heat_ood::features::View)) goes the other way, and
//! where it matters least.
//!
//! References: Liang et al., ICLR 2018; Lee et al., NeurIPS 2018; Regmi, *Going Beyond Conventional
//! OOD Detection* (I-ODIN) and *AdaSCALE*, 2025.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Network, Pooled};
use heat_ood::features::{Batch, Field};
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
    /// How many values of each image were moved; nothing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<usize>,
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
        let identity =
            PerturbedBy { scorer: scorer.name().to_owned(), sha256, epsilon, values: None };
        Ok(Perturbation { scorer, identity })
    }

    /// Move only so many values of each image, those of the largest gradient.
    ///
    /// # Errors
    /// If none.
    pub fn of_largest(mut self, values: Option<usize>) -> Result<Self> {
        if values == Some(0) {
            let problem = "at least one value of each image is moved";
            return Err(Error::config("perturb_values", 0, problem));
        }
        self.identity.values = values;
        Ok(self)
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
        match self.identity.values {
            None => {
                let all = images.iter_mut().zip(&gradient);
                all.for_each(|(x, g)| *x -= epsilon * sign(*g));
            }
            Some(values) => {
                let size = shape[1..].iter().product();
                let each = images.chunks_exact_mut(size).zip(gradient.chunks_exact(size));
                for (image, gradient) in each {
                    for i in first_by(gradient, values, |g| -g) {
                        image[i] -= epsilon * sign(gradient[i]);
                    }
                }
            }
        }
        Ok(())
    }
}

/// −1, 0 or 1. (Not `signum`: the sign of 0 is 0 here.)
fn sign(g: f32) -> f32 {
    f32::from(u8::from(g > 0.0)) - f32::from(u8::from(g < 0.0))
}

/// Where the `k` values with the smallest `order` of their magnitude lie; of equal ones the first.
fn first_by(gradient: &[f32], k: usize, order: fn(f32) -> f32) -> Vec<usize> {
    let mut places: Vec<usize> = (0..gradient.len()).collect();
    if k < places.len() {
        places.select_nth_unstable_by(k, |a, b| {
            let [x, y] = [a, b].map(|i| order(gradient[*i].abs()));
            x.total_cmp(&y).then(a.cmp(b))
        });
        places.truncate(k);
    }
    places
}

impl Network {
    /// Images `[n, 3, height, width]` of which `percent` hundredths of the values, those with the
    /// smallest gradient of the largest of the logits `[n, C]`, are moved by half of its sign.
    ///
    /// # Errors
    /// As [`Perturbation::apply`]; if the network has no logits.
    pub fn nudged(
        &mut self,
        images: &[f32],
        logits: &[f32],
        shape: [usize; 4],
        percent: u32,
    ) -> Result<Vec<f32>> {
        const STEP: f32 = 0.5;
        let classes = logits.len() / shape[0].max(1);
        if classes == 0 {
            let remedy = "the view `nudged` follows the gradient of the largest";
            return Err(Error::missing("the network", "logits", remedy));
        }
        let mut seeds = vec![0.0; shape[0] * classes];
        let rows = logits.chunks_exact(classes);
        for (seeds, logits) in seeds.chunks_exact_mut(classes).zip(rows) {
            let first = (0..classes).reduce(|a, b| if logits[b] > logits[a] { b } else { a });
            seeds[first.unwrap_or(0)] = 1.0;
        }
        let seeds = Batch::of(shape[0], [(Field::Logits, seeds)])?;
        let gradient = self.gradient(images, shape, &seeds)?;
        let size: usize = shape[1..].iter().product();
        let count = (size as f64 * f64::from(percent) / 100.0) as usize;
        let mut moved = images.to_vec();
        let each = moved.chunks_exact_mut(size.max(1)).zip(gradient.chunks_exact(size.max(1)));
        for (image, gradient) in each {
            for i in first_by(gradient, count, |g| g) {
                image[i] += STEP * sign(gradient[i]);
            }
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_the_smallest_and_the_largest() {
        let gradient = [0.5, -2.0, 0.0, 2.0, -0.1];
        let sorted = |k, order| {
            let mut places = first_by(&gradient, k, order);
            places.sort_unstable();
            places
        };
        assert_eq!(sorted(1, |g| -g), [1]);
        assert_eq!(sorted(2, |g| -g), [1, 3]);
        assert_eq!(sorted(2, |g| g), [2, 4]);
        assert_eq!(sorted(9, |g| g), [0, 1, 2, 3, 4]);
        assert_eq!(gradient.map(sign), [1.0, -1.0, 0.0, 1.0, -1.0]);
    }
}
