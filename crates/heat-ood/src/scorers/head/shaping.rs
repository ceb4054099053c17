//! Shaping of a row's activations by its own largest ones (`ash_p`, `ash_b`,
//! `ash_s`, `scale`, `lts`): −logsumexp(s·Wh + b).
//!
//! Of a row z with D columns the k largest are kept, k = D − round(D·p/100)
//! (halves to even), p the `percentile`; of equal ones the first. S is the sum
//! of z, S_k that of the kept.
//!
//! | | h | s | p |
//! |---|---|---|---|
//! | `ash_p` | z, all but the kept set to zero | 1 | 90 |
//! | `ash_b` | S/k where kept, else zero | 1 | 90 |
//! | `ash_s` | as `ash_p` | exp(S/S_k) | 90 |
//! | `scale` | z | exp(S/S_k) | 85 |
//! | `lts` | z | (S⁺/S⁺_k)², sums of max(z, 0); b is scaled too | 95 |
//!
//! Defaults are those of the authors' configurations, for `ash_b` and `ash_p`
//! that of OpenOOD. For rows without a positive sum
//! (never after a ReLU) exp(S/S_k) is its limit 0, and a row of zeros has
//! (S⁺/S⁺_k)² = 1. Nothing is fitted but the feature steps; cost per row
//! O(D·C).
//!
//! References: Djurisic et al., *Extremely Simple Activation Shaping for
//! Out-of-Distribution Detection*, ICLR 2023; Xu et al., *Scaling for Training
//! Time and Post-hoc Out-of-distribution Detection Enhancement*, ICLR 2024;
//! Djurisic et al., *Logit Scaling for Out-of-Distribution Detection*, 2024.

use super::with_head::WithHead;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::math::quantile::{key, unkey};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::input::{contradiction, feature_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `ash_p`, `ash_b`, `ash_s`, `scale` and `lts`.
    ShapingConfig, normalize = false;
    /// Percentile of a row's activations, in [0, 100), up to which they do not
    /// count; by default that of the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    percentile: Option<f64> = None,
}

/// Which of the methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shaping {
    /// Prune.
    AshP,
    /// Prune, and make the kept equal.
    AshB,
    /// Prune, and scale.
    AshS,
    /// Scale the activations.
    Scale,
    /// Scale the logits.
    Lts,
}

impl Shaping {
    const ALL: [Shaping; 5] =
        [Shaping::AshP, Shaping::AshB, Shaping::AshS, Shaping::Scale, Shaping::Lts];

    /// The name of its scorer.
    pub fn name(self) -> &'static str {
        match self {
            Shaping::AshP => "ash_p",
            Shaping::AshB => "ash_b",
            Shaping::AshS => "ash_s",
            Shaping::Scale => "scale",
            Shaping::Lts => "lts",
        }
    }

    fn percentile(self) -> f64 {
        match self {
            Shaping::AshP | Shaping::AshB | Shaping::AshS => 90.0,
            Shaping::Scale => 85.0,
            Shaping::Lts => 95.0,
        }
    }
}

offer! {
    AshPConfig => Shaped,
    AshBConfig => Shaped,
    AshSConfig => Shaped,
    ScaleConfig => Shaped,
    LtsConfig => Shaped,
}

/// A fitted scorer that shapes activations.
pub struct Shaped {
    shaping: Shaping,
    config: ShapingConfig,
    input: WithHead,
    /// k.
    kept: usize,
}

/// Methods that differ in their [`Shaping`] alone.
macro_rules! shaping {
    ($($config:ident, $shaping:ident, $name:literal;)*) => {$(
        #[doc = concat!("Settings of `", $name, "`.")]
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $config(pub ShapingConfig);

        impl Method for $config {
            const NAME: &'static str = $name;
            type Scorer = Shaped;

            fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Shaped> {
                let input = WithHead::fit($name, &self.0, context)?;
                Shaped::new(Shaping::$shaping, self.0.clone(), input)
            }

            fn load(stored: &Stored<'_>) -> Result<Shaped> {
                Shaped::load(stored)
            }
        }
    )*};
}

shaping! {
    AshPConfig, AshP, "ash_p";
    AshBConfig, AshB, "ash_b";
    AshSConfig, AshS, "ash_s";
    ScaleConfig, Scale, "scale";
    LtsConfig, Lts, "lts";
}

impl Shaped {
    fn new(shaping: Shaping, config: ShapingConfig, input: WithHead) -> Result<Self> {
        let p = config.percentile.unwrap_or(shaping.percentile());
        if !(0.0..100.0).contains(&p) {
            let problem = "a percentile lies between 0 and 100 (100 would keep no activation)";
            return Err(Error::config("percentile", p, problem));
        }
        let dim = input.dim();
        let kept = dim - (dim as f64 * p / 100.0).round_ties_even() as usize;
        if kept == 0 {
            let problem = format!("keeps none of {dim} activations");
            return Err(Error::config("percentile", p, problem));
        }
        Ok(Shaped { shaping, config, input, kept })
    }

    fn load(stored: &Stored<'_>) -> Result<Self> {
        let (config, input) = WithHead::load(stored)?;
        let shaping = Shaping::ALL.into_iter().find(|s| s.name() == stored.kind());
        let shaping = shaping.ok_or_else(|| contradiction(stored))?;
        Self::new(shaping, config, input)
    }

    /// Make h of a row, and return s.
    fn shape(&self, row: &mut [f32], keys: &mut Vec<u32>) -> f64 {
        let top = Top::of(row, self.kept, keys);
        match self.shaping {
            Shaping::AshP => {
                top.keep(row, |v| v);
                1.0
            }
            Shaping::AshB => {
                let fill = (reduce::sum_of(row, |v| v) / self.kept as f64) as f32;
                top.keep(row, |_| fill);
                1.0
            }
            Shaping::AshS => {
                let factor = top.exponential(row);
                top.keep(row, |v| v);
                factor
            }
            Shaping::Scale => top.exponential(row),
            Shaping::Lts => {
                let positive = |v: f64| v.max(0.0);
                let sum = top.sum(row, positive);
                if sum > 0.0 { (reduce::sum_of(row, positive) / sum).powi(2) } else { 1.0 }
            }
        }
    }
}

/// The k largest values of a row: those above `least`, and the first `ties`
/// of those equal to it.
pub(in crate::scorers) struct Top {
    least: f32,
    ties: usize,
}

impl Top {
    pub fn of(row: &[f32], k: usize, keys: &mut Vec<u32>) -> Self {
        keys.clear();
        // Zeros of both signs are equal.
        keys.extend(row.iter().map(|v| key(v + 0.0)));
        let (_, least, above) = keys.select_nth_unstable(row.len() - k);
        let least = *least;
        let ties = k - above.iter().filter(|k| **k > least).count();
        Top { least: unkey(least), ties }
    }

    /// Σ f over the k largest.
    pub fn sum(&self, row: &[f32], f: impl Fn(f64) -> f64) -> f64 {
        let least = f64::from(self.least);
        let above = reduce::sum_of(row, |v| if v > least { f(v) } else { 0.0 });
        above + self.ties as f64 * f(least)
    }

    /// exp of the sum of all over the sum of these.
    fn exponential(&self, row: &[f32]) -> f64 {
        let sum = self.sum(row, |v| v);
        if sum > 0.0 { (reduce::sum_of(row, |v| v) / sum).exp() } else { 0.0 }
    }

    /// Where these are, ascending.
    pub fn places(&self, row: &[f32]) -> impl Iterator<Item = usize> {
        let mut ties = self.ties;
        row.iter().enumerate().filter_map(move |(i, v)| {
            let tied = *v == self.least && ties > 0;
            ties -= usize::from(tied);
            (tied || *v > self.least).then_some(i)
        })
    }

    /// Replace these by `f` of them, all others by zero.
    fn keep(&self, row: &mut [f32], f: impl Fn(f32) -> f32) {
        let mut ties = self.ties;
        for v in row {
            let tied = *v == self.least && ties > 0;
            ties -= usize::from(tied);
            *v = if tied || *v > self.least { f(*v) } else { 0.0 };
        }
    }
}

impl Scorer for Shaped {
    fn name(&self) -> &'static str {
        self.shaping.name()
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let (dim, head) = (self.input.dim(), &self.input.head);
        let mut rows = self.input.input.stepped(batch).into_owned();
        let mut keys = Vec::with_capacity(dim);
        let scales: Vec<f64> =
            rows.chunks_exact_mut(dim).map(|row| self.shape(row, &mut keys)).collect();
        let logits = self.input.logits(&rows);
        // The bias comes after the scale, but for `lts`.
        let late = if self.shaping == Shaping::Lts { 0.0 } else { 1.0 };
        for ((o, s), row) in out.iter_mut().zip(scales).zip(logits.chunks_exact(head.classes())) {
            let pairs = row.iter().zip(head.bias());
            let scaled = pairs.map(|(&l, &b)| {
                let b = late * f64::from(b);
                s * (f64::from(l) - b) + b
            });
            *o = -reduce::logsumexp(scaled) as f32;
        }
    }

    fn section(&self) -> Section {
        self.input.section(self.name(), &self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(row: &[f32], k: usize) -> Top {
        Top::of(row, k, &mut Vec::new())
    }

    #[test]
    fn the_first_of_equal_activations_are_kept() {
        let mut row = [1.0, 3.0, 0.0, 3.0, 3.0, -0.0, 5.0];
        let three = top(&row, 3);
        assert_eq!((three.least, three.ties), (3.0, 2));
        assert_eq!(three.sum(&row, |v| v), 11.0);
        assert_eq!(three.places(&row).collect::<Vec<_>>(), [1, 3, 6]);
        three.keep(&mut row, |v| v + 1.0);
        assert_eq!(row, [0.0, 4.0, 0.0, 4.0, 0.0, 0.0, 6.0]);
        let all = top(&row, 7);
        assert_eq!(all.sum(&row, |v| v), 14.0);
    }

    /// exp(10/7): S = 10, the three largest sum to 7.
    #[test]
    fn scale_of_a_row() {
        let row = [1.0, 2.0, 4.0, 1.0, 1.0, 1.0, 0.0];
        assert_eq!(top(&row, 3).exponential(&row), (10.0f64 / 7.0).exp());
        let negative = [-1.0, -2.0, -3.0];
        assert_eq!(top(&negative, 1).exponential(&negative), 0.0);
    }
}
