//! Variance of the AUROC and paired tests of two, without assumptions on the
//! scores (DeLong, DeLong and Clarke-Pearson, Biometrics 1988).
//!
//! With ψ = 1, ½ or 0 for an OOD score above, at or below an ID score, the
//! AUROC is the mean of ψ over all pairs. The placement of an ID row is the
//! mean of ψ over the OOD rows, that of an OOD row the mean over the ID rows,
//! and Var(AUROC) = Var(ID placements)/n + Var(OOD placements)/m. All
//! placements cost one sort of each side (Sun and Xu, IEEE Signal Processing
//! Letters 2014) and are exact under ties.
//!
//! The average over several OOD sets is as linear as one AUROC: an ID row's
//! placement is its mean over the sets, because the sets share the ID rows.

use super::{check, check_level, normal};
use crate::error::{Error, Result};

/// The AUROC of one scorer, with what its variance is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Delong {
    auroc: f64,
    /// Placement of each ID row.
    id: Vec<f64>,
    /// Placements of each set's OOD rows, divided by the number of sets.
    ood: Vec<Vec<f64>>,
}

/// The difference of two AUROCs on the same rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paired {
    /// The first minus the second.
    pub difference: f64,
    /// Its standard error; NaN where a side has one row only.
    pub standard_error: f64,
    /// Two-sided p-value of no difference; NaN likewise, and where scores that
    /// differ show no variance, as scorers that separate few rows perfectly.
    pub p: f64,
}

impl Delong {
    /// Of the scores of ID and OOD rows.
    ///
    /// # Errors
    /// If either side is empty or holds NaN.
    pub fn new(id: &[f32], ood: &[f32]) -> Result<Self> {
        check(id, "ID scores")?;
        check(ood, "OOD scores")?;
        let id_below = placements(id, ood);
        let ood_above = placements(ood, id).iter().map(|below| 1.0 - below).collect();
        let auroc = id_below.iter().sum::<f64>() / id_below.len() as f64;
        Ok(Delong { auroc, id: ood_above, ood: vec![id_below] })
    }

    /// The plain average over OOD sets, of the same ID rows.
    ///
    /// # Errors
    /// If there is none, or the numbers of ID rows differ.
    pub fn average(sets: &[Delong]) -> Result<Self> {
        let Some(first) = sets.first() else {
            return Err(Error::needs("an average AUROC", "OOD sets", "give at least one"));
        };
        sets.iter().try_for_each(|s| same_rows(first.id.len(), s.id.len(), "ID rows"))?;
        let share = 1.0 / sets.len() as f64;
        let mut id = vec![0.0; first.id.len()];
        for set in sets {
            id.iter_mut().zip(&set.id).for_each(|(sum, p)| *sum += share * p);
        }
        let scaled = |rows: &Vec<f64>| rows.iter().map(|p| share * p).collect();
        Ok(Delong {
            auroc: sets.iter().map(|s| s.auroc).sum::<f64>() * share,
            id,
            ood: sets.iter().flat_map(|s| &s.ood).map(scaled).collect(),
        })
    }

    /// The AUROC, or the average of several.
    pub fn auroc(&self) -> f64 {
        self.auroc
    }

    /// Its variance; NaN where a side has one row only.
    pub fn variance(&self) -> f64 {
        variance_of_mean(&self.id) + self.ood.iter().map(|o| variance_of_mean(o)).sum::<f64>()
    }

    /// AUROC ± z·√variance, cut off at 0 and 1.
    ///
    /// # Errors
    /// If `level` is not between 0 and 1.
    pub fn interval(&self, level: f64) -> Result<[f64; 2]> {
        check_level(level)?;
        let half = normal::critical(level) * self.variance().sqrt();
        Ok([self.auroc - half, self.auroc + half].map(|end| end.clamp(0.0, 1.0)))
    }

    /// This minus another scorer on the same rows, with a test.
    ///
    /// # Errors
    /// If the numbers of rows differ.
    pub fn minus(&self, other: &Delong) -> Result<Paired> {
        same_rows(self.id.len(), other.id.len(), "ID rows")?;
        same_rows(self.ood.len(), other.ood.len(), "OOD sets")?;
        for (a, b) in self.ood.iter().zip(&other.ood) {
            same_rows(a.len(), b.len(), "OOD rows")?;
        }
        let gap =
            |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
        let mut variance = variance_of_mean(&gap(&self.id, &other.id));
        for (a, b) in self.ood.iter().zip(&other.ood) {
            variance += variance_of_mean(&gap(a, b));
        }
        let difference = self.auroc - other.auroc;
        let standard_error = variance.sqrt();
        let p = match (difference == 0.0, standard_error == 0.0) {
            (true, true) => 1.0,
            (false, true) => f64::NAN,
            _ => normal::two_sided(difference / standard_error),
        };
        Ok(Paired { difference, standard_error, p })
    }
}

impl Paired {
    /// Difference ± z·standard error.
    ///
    /// # Errors
    /// If `level` is not between 0 and 1.
    pub fn interval(&self, level: f64) -> Result<[f64; 2]> {
        check_level(level)?;
        let half = normal::critical(level) * self.standard_error;
        Ok([self.difference - half, self.difference + half])
    }
}

fn same_rows(a: usize, b: usize, what: &str) -> Result<()> {
    if a == b {
        return Ok(());
    }
    Err(Error::Shape {
        place: "paired scores".into(),
        tensor: what.into(),
        expected: a.to_string(),
        got: b.to_string(),
    })
}

/// Fraction of `of` below each row, ties counting one half.
fn placements(of: &[f32], rows: &[f32]) -> Vec<f64> {
    let mut sorted: Vec<f32> = of.iter().map(|s| s + 0.0).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by(|&a, &b| rows[a].total_cmp(&rows[b]));
    let (mut below, mut upto) = (0, 0);
    let mut out = vec![0.0; rows.len()];
    for row in order {
        let score = rows[row];
        while below < sorted.len() && sorted[below] < score {
            below += 1;
        }
        upto = upto.max(below);
        while upto < sorted.len() && sorted[upto] <= score {
            upto += 1;
        }
        out[row] = (below + upto) as f64 / (2 * of.len()) as f64;
    }
    out
}

/// Unbiased variance of the rows, divided by their number.
fn variance_of_mean(rows: &[f64]) -> f64 {
    let n = rows.len() as f64;
    let mean = rows.iter().sum::<f64>() / n;
    rows.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0) / n
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers with many ties: (a·i² + b·i) mod m + shift.
    fn scores(n: u32, [a, b, m, shift]: [u32; 4]) -> Vec<f32> {
        (0..n).map(|i| ((a * i * i + b * i) % m + shift) as f32).collect()
    }

    /// Two scorers on 40 ID rows and two OOD sets of 30 and 20 rows.
    fn two() -> [[Delong; 2]; 2] {
        let sets = |id: [u32; 4], first: [u32; 4], second: [u32; 4]| {
            let id = scores(40, id);
            [(30, first), (20, second)].map(|(n, s)| Delong::new(&id, &scores(n, s)).unwrap())
        };
        [
            sets([7, 3, 23, 0], [5, 1, 23, 6], [2, 9, 23, 2]),
            sets([11, 2, 19, 0], [3, 7, 19, 3], [4, 1, 19, 8]),
        ]
    }

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }

    /// numpy 2.4.6, scipy 1.17.1: ψ as an n × m matrix, V₁₀ and V₀₁ its means
    /// over rows and columns, `np.cov(u, v, ddof=1)`, `2 * norm.sf(|z|)`; the
    /// variance of the difference as Var(a) + Var(b) − 2 Cov(a, b).
    #[test]
    fn equals_the_definition() {
        let [[a, _], [b, _]] = two();
        near(a.auroc(), 0.7275);
        near(b.auroc(), 0.515_833_333_333_333_4);
        near(a.variance(), 0.003_650_406_474_113_369_4);
        near(b.variance(), 0.005_070_692_111_209_351);
        let [low, high] = a.interval(0.95).unwrap();
        near(low, 0.609_081_732_198_525_5);
        near(high, 0.845_918_267_801_474_6);
        let paired = a.minus(&b).unwrap();
        near(paired.difference, 0.211_666_666_666_666_67);
        near(paired.standard_error, 0.088_644_698_942_210_1);
        near(paired.p, 0.016_949_118_312_736_34);
    }

    /// Likewise; covariances of the sets through their ID rows are added.
    #[test]
    fn averages_share_their_id_rows() {
        let [a, b] = two().map(|sets| Delong::average(&sets).unwrap());
        near(a.auroc(), 0.695_625);
        near(a.variance(), 0.003_225_881_462_770_358);
        let paired = a.minus(&b).unwrap();
        near(paired.difference, 0.063_958_333_333_333_23);
        near(paired.standard_error, 0.080_441_034_452_960_25);
        near(paired.p, 0.426_557_743_676_682_4);
    }

    #[test]
    fn degenerate_scores() {
        let apart = Delong::new(&[0.0, -0.0, 1.0], &[2.0, 3.0]).unwrap();
        assert_eq!((apart.auroc(), apart.variance()), (1.0, 0.0));
        assert_eq!(apart.interval(0.95).unwrap(), [1.0, 1.0]);
        assert_eq!(apart.minus(&apart).unwrap().p, 1.0);
        let constant = Delong::new(&[1.0; 3], &[1.0; 2]).unwrap();
        assert_eq!((constant.auroc(), constant.variance()), (0.5, 0.0));
        // No variance is seen, but two rows prove nothing.
        assert!(apart.minus(&constant).unwrap().p.is_nan());
        // One row has no variance to be estimated.
        let single = Delong::new(&[0.0, 1.0], &[0.5]).unwrap();
        assert_eq!(single.auroc(), 0.5);
        assert!(single.variance().is_nan() && single.interval(0.9).unwrap()[0].is_nan());
        assert!(single.minus(&single).unwrap().p.is_nan());
    }

    #[test]
    fn refusals() {
        let a = Delong::new(&[0.0; 3], &[1.0; 2]).unwrap();
        let b = Delong::new(&[0.0; 3], &[1.0; 4]).unwrap();
        let text = a.minus(&b).unwrap_err().to_string();
        assert!(text.contains("OOD rows"), "{text}");
        assert!(Delong::average(&[]).is_err());
        assert!(Delong::new(&[], &[1.0]).is_err());
        assert!(Delong::new(&[0.0], &[f32::NAN]).is_err());
        assert!(a.interval(1.0).is_err());
    }
}
