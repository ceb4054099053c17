//! The contrastive-divergence loss (METHOD §4, step 5).
//!
//! L = mean E(z⁺) − mean E(z⁻) + l2·(mean E(z⁺)² + mean E(z⁻)²), E the
//! network's energy divided by the temperature T. The prior has no part in it.

use serde::{Deserialize, Serialize};

/// What training minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Contrastive divergence; negatives are the chains' ends and starts.
    #[default]
    ContrastiveDivergence,
    /// Noise-contrastive estimation; negatives are the proposals.
    NoiseContrastive,
}

/// Settings of the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// What is minimised.
    pub objective: Objective,
    /// Weight of the squared energies.
    pub l2_coef: f64,
    /// Standard deviation of the noise added to real and generated rows.
    pub eps_data: f32,
}

impl Default for LossConfig {
    fn default() -> Self {
        LossConfig { objective: Objective::default(), l2_coef: 10.0, eps_data: 1e-4 }
    }
}

/// The loss of one batch, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LossValues {
    /// cd + l2.
    pub loss: f64,
    /// mean E(z⁺) − mean E(z⁻).
    pub cd: f64,
    /// l2·(mean E(z⁺)² + mean E(z⁻)²).
    pub l2: f64,
    /// mean E(z⁺).
    pub energy_real: f64,
    /// mean E(z⁻).
    pub energy_generated: f64,
}

/// The loss of the energies `nn` (before division by T) of `real` real rows
/// followed by generated ones; `nn` is replaced by ∂L/∂nn·`weight`.
pub fn contrastive_divergence(
    nn: &mut [f32],
    real: usize,
    temperature: f64,
    l2_coef: f64,
    weight: f64,
) -> LossValues {
    let (positive, negative) = nn.split_at_mut(real);
    let side = |energies: &mut [f32], sign: f64| {
        let n = energies.len() as f64;
        let (mut sum, mut squares) = (0.0, 0.0);
        for e in energies.iter_mut() {
            let energy = f64::from(*e) / temperature;
            sum += energy;
            squares += energy * energy;
            *e = (weight * (sign + 2.0 * l2_coef * energy) / (n * temperature)) as f32;
        }
        (sum / n, squares / n)
    };
    let (energy_real, squares_real) = side(positive, 1.0);
    let (energy_generated, squares_generated) = side(negative, -1.0);
    let cd = energy_real - energy_generated;
    let l2 = l2_coef * (squares_real + squares_generated);
    LossValues { loss: cd + l2, cd, l2, energy_real, energy_generated }
}

/// The noise-contrastive loss −mean log σ(−E(z⁺)) − mean log σ(E(z⁻)) + l2
/// term, with the arguments of [`contrastive_divergence`]; `cd` is then the
/// sum of the first two terms.
///
/// Reference: Gutmann and Hyvärinen, AISTATS 2010.
pub fn noise_contrastive(
    nn: &mut [f32],
    real: usize,
    temperature: f64,
    l2_coef: f64,
    weight: f64,
) -> LossValues {
    let (positive, negative) = nn.split_at_mut(real);
    // −log σ(−x) = softplus(x), whose derivative is σ(x).
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let side = |energies: &mut [f32], sign: f64| {
        let n = energies.len() as f64;
        let (mut sum, mut squares, mut terms) = (0.0, 0.0, 0.0);
        for e in energies.iter_mut() {
            let energy = f64::from(*e) / temperature;
            sum += energy;
            squares += energy * energy;
            terms += softplus(sign * energy);
            let slope = sign / (1.0 + (-sign * energy).exp());
            *e = (weight * (slope + 2.0 * l2_coef * energy) / (n * temperature)) as f32;
        }
        (sum / n, squares / n, terms / n)
    };
    let (energy_real, squares_real, real_term) = side(positive, 1.0);
    let (energy_generated, squares_generated, generated_term) = side(negative, -1.0);
    let cd = real_term + generated_term;
    let l2 = l2_coef * (squares_real + squares_generated);
    LossValues { loss: cd + l2, cd, l2, energy_real, energy_generated }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: E⁺ = 0, E⁻ = ln 3, T = 1: log 2 + log(4/3); slopes 1/2, −1/4.
    #[test]
    fn noise_contrastive_by_hand() {
        let mut nn = [0.0, 3f32.ln()];
        let v = noise_contrastive(&mut nn, 1, 1.0, 0.0, 1.0);
        assert!((v.loss - (2f64.ln() + (4f64 / 3.0).ln())).abs() < 1e-7);
        assert!((nn[0] - 0.5).abs() < 1e-7 && (nn[1] + 0.25).abs() < 1e-7, "{nn:?}");
        // Energies that would overflow exp stay finite.
        let mut nn = [1e4, -1e4];
        let v = noise_contrastive(&mut nn, 1, 1.0, 0.0, 1.0);
        assert_eq!((v.loss, nn), (2e4, [1.0, -1.0]));
    }

    /// By hand: E⁺ = {1, 3}, E⁻ = {2}, T = 2, l2 = 0.5.
    #[test]
    fn by_hand() {
        let mut nn = [2.0, 6.0, 4.0];
        let v = contrastive_divergence(&mut nn, 2, 2.0, 0.5, 1.0);
        assert_eq!((v.energy_real, v.energy_generated, v.cd), (2.0, 2.0, 0.0));
        assert_eq!(v.l2, 0.5 * (5.0 + 4.0));
        // (1 + E)/(2·2) for real, (−1 + E)/(1·2) for generated.
        assert_eq!(nn, [0.5, 1.0, 0.5]);
    }
}
