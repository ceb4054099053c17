//! How well scores separate out-of-distribution from in-distribution rows.
//!
//! All metrics are exact under ties and take the scores of ID test rows and of
//! OOD rows, **higher = more out-of-distribution** (METHOD §6). The two scores
//! are merged into one pass over the distinct thresholds, so each costs one
//! sort: O(n log n).
//!
//! The two FPR95 are different quantities. `fpr95_id_positive` fixes the fraction
//! of ID rows accepted at 95 % and counts the OOD rows accepted with them (the
//! paper's). `fpr95_ood_positive` fixes the fraction of OOD rows detected at 95 %
//! and counts the ID rows flagged with them (OpenOOD v1.5, pytorch-ood).

mod bootstrap;
#[cfg(test)]
mod coverage;
mod delong;
mod holm;
mod interval;
mod normal;
mod ranking;
mod spread;

pub use bootstrap::{Bootstrap, BootstrapConfig, OodScores, paired};
pub use delong::{Delong, Paired};
pub use holm::holm;
pub use interval::{Intervals, Tests, check_level};
pub use spread::Spread;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::math::quantile;

/// Every metric of one ID set against one OOD set, as fractions.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// Area under the ROC curve, OOD positive, ties counting one half.
    pub auroc: f64,
    /// Fraction of OOD rows at or below the 95th percentile of ID scores: a row that ties with
    /// the threshold is accepted, as the ID rows that tie with it are.
    pub fpr95_id_positive: f64,
    /// Fraction of ID rows flagged at the first threshold that detects 95 % of OOD rows.
    pub fpr95_ood_positive: f64,
    /// Average precision of −score, ID positive.
    pub aupr_in: f64,
    /// Average precision of score, OOD positive.
    pub aupr_out: f64,
    /// Best balanced accuracy over all thresholds.
    pub detection_accuracy: f64,
}

impl Metrics {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// Their names, in the order of the fields.
    pub const NAMES: [&'static str; Metrics::COUNT] = [
        "auroc",
        "fpr95_id_positive",
        "fpr95_ood_positive",
        "aupr_in",
        "aupr_out",
        "detection_accuracy",
    ];

    /// The values, in the order of [`Metrics::NAMES`].
    pub fn to_array(&self) -> [f64; Metrics::COUNT] {
        [
            self.auroc,
            self.fpr95_id_positive,
            self.fpr95_ood_positive,
            self.aupr_in,
            self.aupr_out,
            self.detection_accuracy,
        ]
    }

    /// Each metric minus another's.
    pub(crate) fn minus(&self, other: &Metrics) -> Self {
        let (a, b) = (self.to_array(), other.to_array());
        Metrics::from_array(std::array::from_fn(|i| a[i] - b[i]))
    }

    /// From values in the order of [`Metrics::NAMES`].
    pub const fn from_array(values: [f64; Metrics::COUNT]) -> Self {
        let [auroc, fpr95_id_positive, fpr95_ood_positive, aupr_in, aupr_out, detection_accuracy] =
            values;
        Metrics {
            auroc,
            fpr95_id_positive,
            fpr95_ood_positive,
            aupr_in,
            aupr_out,
            detection_accuracy,
        }
    }
}

/// Numbers of ID and OOD rows at one distinct score.
#[derive(Clone, Copy)]
struct Step {
    id: u64,
    ood: u64,
}

/// Both score lists merged, highest first, one entry per distinct score.
struct Curve {
    steps: Vec<Step>,
    id: u64,
    ood: u64,
}

/// Refuse no rows, and NaN.
fn check(scores: &[f32], which: &str) -> Result<()> {
    if scores.is_empty() {
        return Err(Error::missing(
            which,
            "scores",
            "a metric needs at least one row on each side",
        ));
    }
    if let Some(row) = scores.iter().position(|s| s.is_nan()) {
        return Err(Error::NotFinite {
            place: which.to_owned(),
            tensor: "score",
            row,
            column: 0,
            value: scores[row],
        });
    }
    Ok(())
}

fn ascending(scores: &[f32], which: &str) -> Result<Vec<f32>> {
    check(scores, which)?;
    let mut sorted = scores.to_vec();
    // −0 and 0 are the same score.
    sorted.iter_mut().for_each(|s| *s += 0.0);
    sorted.sort_unstable_by(f32::total_cmp);
    Ok(sorted)
}

impl Curve {
    fn new(id: &[f32], ood: &[f32]) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        let (mut i, mut o) = (id.len(), ood.len());
        while i > 0 || o > 0 {
            let top = match (i.checked_sub(1), o.checked_sub(1)) {
                (Some(i), Some(o)) => id[i].max(ood[o]),
                (Some(i), None) => id[i],
                (None, Some(o)) => ood[o],
                (None, None) => break,
            };
            let (before_i, before_o) = (i, o);
            while i > 0 && id[i - 1] == top {
                i -= 1;
            }
            while o > 0 && ood[o - 1] == top {
                o -= 1;
            }
            steps.push(Step { id: (before_i - i) as u64, ood: (before_o - o) as u64 });
        }
        Curve { steps, id: id.len() as u64, ood: ood.len() as u64 }
    }

    fn auroc(&self) -> f64 {
        // Pairs (id, ood) with the OOD row above, in half units.
        let mut above = 0u64;
        let mut halves = 0u128;
        for s in &self.steps {
            halves += u128::from(s.id) * u128::from(2 * above + s.ood);
            above += s.ood;
        }
        halves as f64 / (2.0 * self.id as f64 * self.ood as f64)
    }

    fn fpr95_ood_positive(&self) -> f64 {
        let (mut id, mut ood) = (0u64, 0u64);
        for s in &self.steps {
            id += s.id;
            ood += s.ood;
            // As scikit-learn's roc_curve, the rate itself is compared.
            if ood as f64 / self.ood as f64 >= 0.95 {
                break;
            }
        }
        id as f64 / self.id as f64
    }

    fn detection_accuracy(&self) -> f64 {
        let (mut id, mut ood) = (0u64, 0u64);
        let mut best: f64 = 0.5;
        for s in &self.steps {
            id += s.id;
            ood += s.ood;
            let (tpr, fpr) = (ood as f64 / self.ood as f64, id as f64 / self.id as f64);
            best = best.max((tpr + 1.0 - fpr) / 2.0);
        }
        best
    }

    /// Step-wise average precision Σ (Rₙ − Rₙ₋₁)·Pₙ.
    fn average_precision(steps: impl Iterator<Item = (u64, u64)>, positives: u64) -> f64 {
        let (mut hits, mut all, mut sum) = (0u64, 0u64, 0.0);
        for (positive, negative) in steps {
            hits += positive;
            all += positive + negative;
            sum += positive as f64 * (hits as f64 / all as f64);
        }
        sum / positives as f64
    }

    /// The same points joined by straight lines, from precision 1 at recall 0.
    fn trapezoids(steps: impl Iterator<Item = (u64, u64)>, positives: u64) -> f64 {
        let (mut hits, mut all, mut before, mut sum) = (0u64, 0u64, 1.0, 0.0);
        for (positive, negative) in steps {
            hits += positive;
            all += positive + negative;
            let precision = hits as f64 / all as f64;
            sum += positive as f64 * (precision + before) / 2.0;
            before = precision;
        }
        sum / positives as f64
    }

    fn aupr_out(&self) -> f64 {
        Self::average_precision(self.steps.iter().map(|s| (s.ood, s.id)), self.ood)
    }

    fn aupr_in(&self) -> f64 {
        Self::average_precision(self.steps.iter().rev().map(|s| (s.id, s.ood)), self.id)
    }
}

fn fpr95_id(id: &[f32], ood: &[f32]) -> f64 {
    // Only the two neighbours of the percentile are needed.
    let position = 0.95 * (id.len() - 1) as f64;
    let low = position.floor() as usize;
    let pair = [f64::from(id[low]), f64::from(id[(low + 1).min(id.len() - 1)])];
    let threshold = quantile::sorted(&pair, position - low as f64);
    ood.partition_point(|&s| f64::from(s) <= threshold) as f64 / ood.len() as f64
}

/// All metrics at once.
///
/// # Errors
/// If either side is empty or holds NaN (infinite scores are ordinary values).
pub fn evaluate(id: &[f32], ood: &[f32]) -> Result<Metrics> {
    Ok(evaluate_named(("ID scores", id), ("OOD scores", ood))?.0)
}

/// [`evaluate`] with the names of the two sides, for errors; and the number of distinct scores.
pub(crate) fn evaluate_named(id: (&str, &[f32]), ood: (&str, &[f32])) -> Result<(Metrics, usize)> {
    let (id, ood) = (ascending(id.1, id.0)?, ascending(ood.1, ood.0)?);
    let curve = Curve::new(&id, &ood);
    let metrics = Metrics {
        auroc: curve.auroc(),
        fpr95_id_positive: fpr95_id(&id, &ood),
        fpr95_ood_positive: curve.fpr95_ood_positive(),
        aupr_in: curve.aupr_in(),
        aupr_out: curve.aupr_out(),
        detection_accuracy: curve.detection_accuracy(),
    };
    Ok((metrics, curve.steps.len()))
}

/// AUPR in and out as OpenOOD has them: the points of the precision-recall
/// curve joined by straight lines, which is a little off the average precision
/// of [`Metrics`] (Davis and Goadrich, ICML 2006).
///
/// # Errors
/// As [`evaluate`].
pub fn openood_aupr(id: &[f32], ood: &[f32]) -> Result<[f64; 2]> {
    let curve = Curve::new(&ascending(id, "ID scores")?, &ascending(ood, "OOD scores")?);
    let steps = curve.steps.iter();
    Ok([
        Curve::trapezoids(steps.clone().rev().map(|s| (s.id, s.ood)), curve.id),
        Curve::trapezoids(steps.map(|s| (s.ood, s.id)), curve.ood),
    ])
}

/// Area under the ROC curve, OOD positive, ties counting one half.
///
/// # Errors
/// As [`evaluate`].
pub fn auroc(id: &[f32], ood: &[f32]) -> Result<f64> {
    Ok(evaluate(id, ood)?.auroc)
}

/// The AUROC of the same ID scores against each of some OOD scores.
///
/// # Errors
/// As [`evaluate`].
pub(crate) fn aurocs<'a>(id: &[f32], ood: impl Iterator<Item = &'a [f32]>) -> Result<Vec<f64>> {
    let id = ascending(id, "ID scores")?;
    let below = |score: f32| {
        let less = id.partition_point(|s| *s < score);
        // Those that are equal count one half.
        let equal = id[less..].partition_point(|s| *s == score);
        (2 * less + equal) as u64
    };
    let one = |ood: &[f32]| {
        check(ood, "OOD scores")?;
        let halves: u64 = ood.iter().map(|s| below(*s)).sum();
        Ok(halves as f64 / (2.0 * id.len() as f64 * ood.len() as f64))
    };
    ood.map(one).collect()
}

/// The plain average of some metrics (zero for none).
pub fn average(all: &[Metrics]) -> Metrics {
    let sum = |i: usize| all.iter().map(|m| m.to_array()[i]).sum::<f64>();
    Metrics::from_array(std::array::from_fn(|i| sum(i) / all.len().max(1) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: id {1, 2}, ood {2, 3}: pairs (1,2) (1,3) (2,3) won, (2,2) tied.
    #[test]
    fn by_hand() {
        let m = evaluate(&[1.0, 2.0], &[2.0, 3.0]).unwrap();
        assert_eq!(m.auroc, 3.5 / 4.0);
        assert_eq!(m.fpr95_ood_positive, 0.5);
        // The threshold is 1.95, between the ID scores.
        assert_eq!(m.fpr95_id_positive, 0.0);
        assert_eq!(m.detection_accuracy, 0.75);
    }

    /// METHOD §6: what ties with the threshold is accepted. `numpy.percentile(id, 95)` is 2, 2 and ∞.
    #[test]
    fn ties_with_the_threshold_are_accepted() {
        let fpr95 = |id: &[f32], ood: &[f32]| evaluate(id, ood).unwrap().fpr95_id_positive;
        assert_eq!(fpr95(&[1.0, 2.0, 2.0, 2.0], &[1.0, 2.0, 2.0, 3.0]), 0.75);
        assert_eq!(fpr95(&[2.0; 9], &[2.0; 5]), 1.0);
        assert_eq!(fpr95(&[f32::INFINITY; 9], &[f32::INFINITY, 0.0]), 1.0);
        // Between 2 and 3: ties with either do not matter.
        assert_eq!(fpr95(&[1.0, 2.0, 3.0], &[2.0, 3.0]), 0.5);
    }

    /// scikit-learn 1.9.1: `auc(recall, precision)` of `precision_recall_curve`.
    #[test]
    fn straight_lines_between_the_points() {
        let [aupr_in, aupr_out] = openood_aupr(&[1.0, 2.0, 2.0, 5.0], &[2.0, 3.0, 6.0]).unwrap();
        assert!((aupr_in - 0.845_833_333_333_333_3).abs() < 1e-15, "{aupr_in}");
        assert!((aupr_out - 0.722_222_222_222_222_1).abs() < 1e-15, "{aupr_out}");
    }

    #[test]
    fn separated_reversed_and_constant() {
        let m = evaluate(&[0.0; 10], &[1.0; 5]).unwrap();
        assert_eq!((m.auroc, m.aupr_in, m.aupr_out, m.detection_accuracy), (1.0, 1.0, 1.0, 1.0));
        assert_eq!(evaluate(&[1.0; 10], &[0.0; 5]).unwrap().auroc, 0.0);
        assert_eq!(evaluate(&[1.0; 10], &[1.0; 5]).unwrap().auroc, 0.5);
        assert_eq!(evaluate(&[0.0], &[-0.0]).unwrap().auroc, 0.5);
    }

    #[test]
    fn refuses_nothing_and_nan() {
        assert!(evaluate(&[], &[1.0]).is_err());
        let error = evaluate(&[1.0, f32::NAN], &[1.0]).unwrap_err().to_string();
        assert!(error.contains("row 1"), "{error}");
        assert_eq!(auroc(&[1.0], &[f32::INFINITY]).unwrap(), 1.0);
    }
}
