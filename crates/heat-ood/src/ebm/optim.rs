//! Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019) as PyTorch computes them,
//! and the schedule.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::math::parallel::{Pieces, Slices, SlicesMut};

/// Settings of the optimiser, under the published keys.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Adam.
    pub opt: AdamConfig,
    /// MultiStepLR.
    pub sch: ScheduleConfig,
}

/// Settings of Adam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamConfig {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first and second moment.
    pub betas: [f64; 2],
    /// Decoupled weight decay: with it, Adam is AdamW. Every parameter is multiplied by
    /// 1 − lr·`weight_decay` before the step, biases too.
    #[serde(skip_serializing_if = "is_zero")]
    pub weight_decay: f64,
}

impl Default for AdamConfig {
    fn default() -> Self {
        AdamConfig { lr: 1e-5, betas: [0.0, 0.999], weight_decay: 0.0 }
    }
}

/// Whether a setting is off, so that it is not written.
pub(super) fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// Settings of the schedule: the rate is multiplied by `gamma` after each of
/// the epochs in `milestones`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Epochs after which the rate falls: a list, or one number.
    #[serde(deserialize_with = "one_or_many")]
    pub milestones: Vec<usize>,
    /// Factor.
    pub gamma: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        ScheduleConfig { milestones: vec![10], gamma: 0.1 }
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(
    d: D,
) -> std::result::Result<Vec<usize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an epoch or a list of epochs")]
    enum Either {
        One(usize),
        Many(Vec<usize>),
    }
    Ok(match Either::deserialize(d)? {
        Either::One(n) => vec![n],
        Either::Many(list) => list,
    })
}

impl ScheduleConfig {
    /// The factor on the learning rate once `finished` epochs are over.
    pub fn factor(&self, finished: usize) -> f64 {
        let passed = self.milestones.iter().filter(|m| **m <= finished).count();
        self.gamma.powi(passed as i32)
    }
}

impl OptimizerConfig {
    pub(crate) fn check(&self) -> Result<()> {
        let AdamConfig { lr, betas, weight_decay } = &self.opt;
        for (key, value) in [
            ("ebm.optimizer.sch.gamma", self.sch.gamma),
            ("ebm.optimizer.opt.lr", *lr),
            ("ebm.optimizer.opt.weight_decay", *weight_decay),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::config(key, value, "must be a number ≥ 0"));
            }
        }
        if betas.iter().any(|b| !(0.0..1.0).contains(b)) {
            let value = format!("{betas:?}");
            return Err(Error::config("ebm.optimizer.opt.betas", value, "both must lie in [0, 1)"));
        }
        Ok(())
    }
}

/// Adam's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Adam {
    betas: [f64; 2],
    weight_decay: f64,
    /// Steps taken.
    pub steps: u64,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
}

impl Adam {
    /// Fresh state for `n` parameters.
    pub fn new(betas: [f64; 2], n: usize) -> Self {
        let (first, second) = (vec![0.0; n], vec![0.0; n]);
        Adam { betas, weight_decay: 0.0, steps: 0, first, second }
    }

    /// The same with decoupled weight decay (Loshchilov and Hutter, 2019).
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// One step of rate `lr` along `grad`; runs on the current pool.
    pub fn step(&mut self, parameters: &mut [f32], grad: &[f32], lr: f64) {
        const CHUNK: usize = 1 << 14;
        self.steps += 1;
        let [b1, b2] = self.betas;
        let power = self.steps as i32;
        let rate = (lr / (1.0 - b1.powi(power))) as f32;
        let root = (1.0 - b2.powi(power)).sqrt() as f32;
        let keep = (1.0 - lr * self.weight_decay) as f32;
        let (b1, c1) = (b1 as f32, (1.0 - b1) as f32);
        let (b2, c2) = (b2 as f32, (1.0 - b2) as f32);
        parameters
            .par_chunks_mut(CHUNK)
            .zip(grad.par_chunks(CHUNK))
            .zip(self.first.par_chunks_mut(CHUNK))
            .zip(self.second.par_chunks_mut(CHUNK))
            .for_each(|(((p, g), m), v)| {
                for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                    *m = b1 * *m + c1 * g;
                    *v = b2 * *v + c2 * g * g;
                    *p = keep * *p - rate * *m / (v.sqrt() / root + 1e-8);
                }
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Algorithm 1 of the paper in f64, with bias-corrected moments.
    #[test]
    fn three_steps_by_the_formulas() {
        let mut adam = Adam::new([0.5, 0.9], 1);
        let mut p = [1.0];
        let (mut m, mut v, mut want) = (0.0f64, 0.0f64, 1.0f64);
        for (t, g) in [0.3f64, -0.2, 0.5].into_iter().enumerate() {
            adam.step(&mut p, &[g as f32], 0.1);
            m = 0.5 * m + 0.5 * g;
            v = 0.9 * v + 0.1 * g * g;
            let t = t as i32 + 1;
            let (mh, vh) = (m / (1.0 - 0.5f64.powi(t)), v / (1.0 - 0.9f64.powi(t)));
            want -= 0.1 * mh / (vh.sqrt() + 1e-8);
            assert!((f64::from(p[0]) - want).abs() < 1e-6, "{t}: {} {want}", p[0]);
        }
        // The first step of Adam is the rate itself, whatever the gradient.
        let mut p = [1.0];
        Adam::new([0.0, 0.999], 1).step(&mut p, &[1e-4], 0.1);
        assert!((p[0] - 0.9).abs() < 1e-4);
    }

    #[test]
    fn schedule_falls_after_its_milestones() {
        let s = ScheduleConfig { milestones: vec![2, 4], gamma: 0.1 };
        let factors: Vec<f64> = (0..6).map(|e| s.factor(e)).collect();
        let want = [1.0, 1.0, 0.1, 0.1, 0.01, 0.01];
        assert!(factors.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
