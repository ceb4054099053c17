//! The contrastive-divergence loss (METHOD §4, step 5).
//!
//! L = mean E(z⁺) − mean E(z⁻) + l2·(mean E(z⁺)² + mean E(z⁻)²), E the
//! network's energy divided by the temperature T. The prior has no part in it.

use serde::{Deserialize, Serialize};

/// Settings of the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Weight of the squared energies.
    pub l2_coef: f64,
    /// Standard deviation of the noise added to real and generated rows.
    pub eps_data: f32,
}

impl Default for LossConfig {
    fn default() -> Self {
        LossConfig { l2_coef: 10.0, eps_data: 1e-4 }
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

#[cfg(test)]
mod tests {
    use super::*;

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
