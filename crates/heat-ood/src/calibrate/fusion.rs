//! Several calibrated detectors as one: their p-values combined.
//!
//! p₁…p_m of a row become one p-value, and the score is −log p:
//! - `fisher`: −2Σ log pᵢ against χ² with 2m degrees of freedom;
//! - `stouffer`: ΣΦ⁻¹(1 − pᵢ)/√m against the normal;
//! - `cauchy`: mean of tan(π(½ − pᵢ)) against the Cauchy distribution;
//! - `simes`: minᵢ m·p₍ᵢ₎/i.
//!
//! Detectors that look at the same row are not independent, which Fisher's and
//! Stouffer's laws suppose (Cauchy's nearly does not, Simes' holds under
//! positive dependence). So the combined value serves as a score, to be
//! calibrated itself, on rows that the members were not calibrated on: then
//! its verdicts keep their promise whatever the dependence. p-values have steps
//! of 1/(n + 1): rows beyond all calibration scores of every member tie.
//!
//! Reference: Fisher 1932; Stouffer et al. 1949; Liu and Xie, *Cauchy
//! Combination Test*, JASA 2020; Simes 1986; for out-of-distribution
//! detection, *Combine and Conquer*, TMLR 2024.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use statrs::function::erf::{erfc, erfc_inv};

use super::{Calibration, CalibrationScores};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, Part};
use crate::math::reduce;
use crate::provenance::Provenance;
use crate::scorers::{Fitted, Scorer, Section, Stored, joint_needs};

/// How p-values are combined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FusionRule {
    /// Product of the p-values.
    Fisher,
    /// Sum of normal quantiles.
    Stouffer,
    /// Mean of Cauchy quantiles.
    Cauchy,
    /// Smallest ratio of sorted p-values to their ranks.
    Simes,
}

impl FusionRule {
    /// log of the combined p-value of some p-values in (0, 1).
    pub fn log_p(self, p: &mut [f64]) -> f64 {
        let m = p.len() as f64;
        match self {
            FusionRule::Fisher => {
                let half: f64 = p.iter().map(|p| -p.ln()).sum();
                // Q(m, x/2) = exp(−x/2)·Σ_{i<m} (x/2)ⁱ/i!
                let mut log_factorial = 0.0;
                let terms: Vec<f64> = (0..p.len())
                    .map(|i| {
                        log_factorial += (i.max(1) as f64).ln();
                        i as f64 * half.max(f64::MIN_POSITIVE).ln() - log_factorial
                    })
                    .collect();
                (reduce::logsumexp(terms.into_iter()) - half).min(0.0)
            }
            FusionRule::Stouffer => {
                // Φ⁻¹(1 − p) = √2·erfc⁻¹(2p).
                let z: f64 = p.iter().map(|p| erfc_inv(2.0 * p)).sum::<f64>() / m.sqrt();
                (0.5 * erfc(z)).max(f64::MIN_POSITIVE).ln()
            }
            FusionRule::Cauchy => {
                let t = p.iter().map(|p| cot(*p)).sum::<f64>() / m;
                // ½ − atan(t)/π, without cancellation for large t.
                (1.0f64.atan2(t) / std::f64::consts::PI).ln()
            }
            FusionRule::Simes => {
                p.sort_unstable_by(f64::total_cmp);
                let ratio = p.iter().enumerate().map(|(i, p)| m * p / (i + 1) as f64);
                ratio.fold(1.0, f64::min).ln()
            }
        }
    }
}

/// tan(π(½ − p)) = cot(πp), exact for small p.
fn cot(p: f64) -> f64 {
    let angle = std::f64::consts::PI * p;
    angle.cos() / angle.sin()
}

/// One detector of a fusion.
struct Member {
    name: String,
    scorer: Arc<dyn Scorer>,
    calibration: Arc<Calibration>,
}

/// A fused detector.
pub struct Fusion {
    rule: FusionRule,
    members: Vec<Member>,
}

impl Fusion {
    /// Fuse calibrated scorers, by name. Their p-values are those over all
    /// classes. To the fused score the members' calibration rows are training
    /// rows.
    ///
    /// # Errors
    /// If there are fewer than two.
    pub fn fit(
        rule: FusionRule,
        members: Vec<(String, Fitted<dyn Scorer>, Arc<Calibration>)>,
    ) -> Result<Fitted<Self>> {
        let mut seen = Provenance::new();
        for (_, scorer, calibration) in &members {
            seen.include(scorer.provenance());
            seen.train.extend(calibration.files.iter().cloned());
            seen.include_rows(&calibration.rows);
        }
        let member = |(name, scorer, calibration): (String, Fitted<dyn Scorer>, _)| {
            (name, Arc::clone(scorer.scorer()), calibration)
        };
        let fusion = Self::new(rule, members.into_iter().map(member).collect())?;
        Ok(Fitted::of_parts(fusion, [&seen]))
    }

    fn new(
        rule: FusionRule,
        members: Vec<(String, Arc<dyn Scorer>, Arc<Calibration>)>,
    ) -> Result<Self> {
        if members.len() < 2 {
            let problem = "p-values of at least two calibrated detectors are combined";
            return Err(Error::config("detectors", members.len(), problem));
        }
        let member = |(name, scorer, calibration)| Member { name, scorer, calibration };
        Ok(Fusion { rule, members: members.into_iter().map(member).collect() })
    }

    pub(crate) fn load(
        stored: &Stored<'_>,
        load: impl Fn(&Stored<'_>) -> Result<Arc<dyn Scorer>>,
    ) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            rule: FusionRule,
            names: Vec<String>,
        }
        let c: Config = stored.config()?;
        let members = c.names.into_iter().enumerate().map(|(i, name)| {
            let scorer = load(&stored.part(&i.to_string())?)?;
            let calibration = Calibration::load(&stored.part(&format!("{i}.calibration"))?)?;
            Ok((name, scorer, Arc::new(calibration)))
        });
        Fusion::new(c.rule, members.collect::<Result<_>>()?)
    }
}

/// Kept off 1, which has no finite normal or Cauchy quantile.
fn inner(p: f64, reference: &CalibrationScores) -> f64 {
    p.min(1.0 - 0.5 / (reference.len() + 1) as f64)
}

impl Scorer for Fusion {
    fn name(&self) -> &'static str {
        "fusion"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        joint_needs(self.members.iter().map(|m| &*m.scorer), set)
    }

    fn parts(&self) -> Vec<Part> {
        self.members.iter().flat_map(|m| m.scorer.parts()).collect()
    }

    fn of_maps(&self) -> Vec<Field> {
        self.members.iter().flat_map(|m| m.scorer.of_maps()).collect()
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let width = self.members.len();
        let mut p = vec![0.0; out.len() * width];
        let mut scores = vec![0.0; out.len()];
        for (m, member) in self.members.iter().enumerate() {
            member.scorer.score_batch(batch, &mut scores);
            let reference = member.calibration.scores();
            for (row, &score) in p.chunks_exact_mut(width).zip(&scores) {
                // Not a number, or lower than any: for the caller to refuse, as of one alone.
                row[m] = match score.is_finite() {
                    true => inner(reference.p_value(score), reference),
                    false => f64::NAN,
                };
            }
        }
        for (o, p) in out.iter_mut().zip(p.chunks_exact_mut(width)) {
            let known = p.iter().all(|p| !p.is_nan());
            *o = if known { -self.rule.log_p(p) as f32 } else { f32::NAN };
        }
    }

    fn section(&self) -> Section {
        let names: Vec<&str> = self.members.iter().map(|m| &*m.name).collect();
        let section = Section::new("fusion", json!({ "rule": self.rule, "names": names }));
        self.members.iter().enumerate().fold(section, |s, (i, m)| {
            s.with_part(i.to_string(), m.scorer.section())
                .with_part(format!("{i}.calibration"), m.calibration.section())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: `combine_pvalues(p, method)` for Fisher and Stouffer;
    /// for Cauchy `cauchy.sf(np.mean(np.tan(np.pi * (0.5 - p))))`; Simes by hand.
    #[test]
    fn equal_scipy() {
        for (p, fisher, stouffer, cauchy, simes) in EXPECTED {
            for (rule, want) in [
                (FusionRule::Fisher, fisher),
                (FusionRule::Stouffer, stouffer),
                (FusionRule::Cauchy, cauchy),
                (FusionRule::Simes, simes),
            ] {
                let got = rule.log_p(&mut p.clone()).exp();
                assert!((got - want).abs() <= 1e-9 * want, "{rule:?} {p:?}: {got} {want}");
            }
        }
    }

    const EXPECTED: [([f64; 3], f64, f64, f64, f64); 4] = [
        ([0.01, 0.2, 0.7], 0.04082702883527948, 0.06347193574465713, 0.029326020610498545, 0.03),
        (
            [0.0001, 0.001, 0.9995],
            1.469496490907074e-05,
            0.02110036989048172,
            0.00033333328459478903,
            0.00030000000000000003,
        ),
        ([0.5, 0.5, 0.5], 0.6551850130389678, 0.5, 0.5, 0.5),
        (
            [0.04, 0.04, 0.06],
            0.0050921438334851025,
            0.0017548401601649316,
            0.04501113536302845,
            0.06,
        ),
    ];
}
