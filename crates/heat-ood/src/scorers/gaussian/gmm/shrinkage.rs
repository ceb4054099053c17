//! Shrinkage of the covariance towards a multiple of the identity.
//!
//! Σ ← keep·Σ + add·mean(diag Σ)·I. Features of trained networks vary so
//! little in many directions that an unshrunk Gaussian judges by those alone.
//!
//! With `diagonal` the variances alone are estimated, and the error that
//! shrinkage trades against its bias is theirs: the formulas are derived anew
//! for it. Those of the full matrix would also count the error of the D² − D
//! covariances, and shrink all but to the identity.
//!
//! References: Ledoit and Wolf, *A well-conditioned estimator for
//! large-dimensional covariance matrices*, 2004; Chen et al., *Shrinkage
//! Algorithms for MMSE Covariance Estimation*, 2010 (OAS), both as
//! scikit-learn computes them. The diagonal forms, the ratio and its choice by
//! held-out classes are ours.

use std::slice::from_mut;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::covariance::{keep_diagonal, mean_variance};
use super::labels::Labels;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Present};
use crate::math::linalg::{eigh, product_nt};
use crate::math::moments::Moments;
use crate::math::parallel::{Pieces, Slices};
use crate::math::reduce;
use crate::math::rng::{Purpose, Stream};
use crate::observe::{Event, Observer};
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::Input;
use crate::scorers::pieces::Slot;

/// How far the covariance is drawn towards the identity.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Shrinkage {
    /// Not at all.
    #[default]
    None,
    /// By the formula of Ledoit and Wolf.
    LedoitWolf,
    /// By the oracle-approximating formula of Chen et al.
    Oas,
    /// Σ + ρ·mean(diag Σ)·I.
    Ratio(f64),
    /// The ratio that best tells classes left out from those kept.
    HeldOutClasses,
}

/// As written in settings: a word or a number.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Ratio(f64),
    Name(String),
}

const NAMES: [(&str, Shrinkage); 4] = [
    ("none", Shrinkage::None),
    ("ledoit_wolf", Shrinkage::LedoitWolf),
    ("oas", Shrinkage::Oas),
    ("held_out_classes", Shrinkage::HeldOutClasses),
];

impl TryFrom<Written> for Shrinkage {
    type Error = String;
    fn try_from(written: Written) -> std::result::Result<Self, String> {
        match written {
            Written::Ratio(ratio) => Ok(Shrinkage::Ratio(ratio)),
            Written::Name(name) => {
                let found = NAMES.iter().find(|(n, _)| *n == name).map(|(_, s)| *s);
                found.ok_or_else(|| {
                    "expected none, ledoit_wolf, oas, held_out_classes, or a ratio such as 1.0"
                        .to_owned()
                })
            }
        }
    }
}

impl From<Shrinkage> for Written {
    fn from(shrinkage: Shrinkage) -> Self {
        match shrinkage {
            Shrinkage::Ratio(ratio) => Written::Ratio(ratio),
            other => {
                let name = NAMES.iter().find(|(_, s)| *s == other).map_or("none", |(n, _)| n);
                Written::Name(name.to_owned())
            }
        }
    }
}

impl Shrinkage {
    pub(super) fn check(self) -> Result<()> {
        match self {
            Shrinkage::Ratio(r) if !(r.is_finite() && r >= 0.0) => {
                Err(Error::config("shrinkage", r, "a ratio is a number ≥ 0"))
            }
            _ => Ok(()),
        }
    }
}

/// What has been fitted when the shrinkage is chosen.
pub(super) struct Fitted<'a> {
    pub shrinkage: Shrinkage,
    /// Whether only the diagonal of the covariance is estimated.
    pub diagonal: bool,
    /// Number of training rows, in all parts.
    pub rows: usize,
    pub train: &'a FeatureSet,
    pub input: &'a Input,
    pub labels: &'a Labels,
    pub means: &'a [f64],
    pub covariance: &'a [f64],
}

impl Fitted<'_> {
    /// `[keep, add]`.
    pub fn weights(&self, source: &Source, context: &mut FitContext<'_>) -> Result<[f64; 2]> {
        let weight = match self.shrinkage {
            Shrinkage::None => return Ok([1.0, 0.0]),
            Shrinkage::Ratio(ratio) => return Ok([1.0, ratio]),
            Shrinkage::HeldOutClasses => {
                context.require_rows("gmm with shrinkage=held_out_classes")?;
                return Ok([1.0, self.held_out(context.observer)?]);
            }
            Shrinkage::LedoitWolf => self.ledoit_wolf(source, context)?,
            Shrinkage::Oas => self.oas(),
        };
        Ok([1.0 - weight, weight])
    }

    /// Mean of the squared entries, and of the diagonal, of Σ.
    fn sizes(&self) -> (f64, f64) {
        let squares: f64 = self.covariance.iter().map(|v| v * v).sum();
        let dim = self.input.dim;
        (squares / (dim * dim) as f64, mean_variance(self.covariance, dim))
    }

    fn oas(&self) -> f64 {
        let (n, dim) = (self.rows as f64, self.input.dim as f64);
        let (squares, mean) = self.sizes();
        let (error, distance) = if self.diagonal {
            // Variances s of Gaussian columns have Var s = 2σ⁴/n. With c = 2(1 − 1/D)/n,
            // T = Σ σ⁴ and m the mean of s, the best weight is cT/((1 + c)T − D·m²). Chen et
            // al. put Σ σ²s for T, σ² shrunk by the weight itself; the fixed point is the
            // ratio of c·Σ s² to (1 + c)(Σ s² − D·m²).
            let c = 2.0 * (1.0 - 1.0 / dim) / n;
            (c * squares, (1.0 + c) * (squares - mean * mean / dim))
        } else {
            (squares + mean * mean, (n + 1.0) * (squares - mean * mean / dim))
        };
        if distance <= 0.0 { 1.0 } else { (error / distance).min(1.0) }
    }

    /// Needs Σ‖z − μ‖⁴, or Σ_i (z − μ)_i⁴ where only variances are estimated,
    /// hence a second pass over the training set.
    fn ledoit_wolf(&self, source: &Source, context: &mut FitContext<'_>) -> Result<f64> {
        let dim = self.input.dim;
        let fourth = match self.labels {
            Labels::Classes(present) => {
                let key = format!("fourth powers {} {}", self.diagonal, source.key);
                let statistic = Box::new(FourthPowers {
                    source: source.clone(),
                    present: Arc::clone(present),
                    means: self.means.to_vec(),
                    diagonal: self.diagonal,
                    sum: 0.0,
                });
                context.find::<FourthPowers>(StatisticRequest { key, statistic })?.sum
            }
            Labels::Clusters(..) => {
                let mut sum = 0.0;
                context.pass(source, "fit shrinkage", |range, rows| {
                    let labels = self.labels.get(self.train, range)?;
                    sum += fourth_powers(rows, &labels, self.means, dim, self.diagonal);
                    Ok(())
                })?;
                sum
            }
        };
        let (n, p) = (self.rows as f64, dim as f64);
        let (squares, mean) = self.sizes();
        let squares = squares * p * p;
        let delta = (squares - 2.0 * mean * mean * p + p * mean * mean) / p;
        let beta = ((fourth / n - squares) / (p * n)).min(delta);
        Ok(if beta <= 0.0 { 0.0 } else { beta / delta })
    }
}

/// Σ‖z − μ‖⁴ of some rows, or Σ_i (z − μ)_i⁴.
fn fourth_powers(rows: &[f32], labels: &[u32], means: &[f64], dim: usize, diagonal: bool) -> f64 {
    let mut fourth = 0.0;
    for (row, &l) in rows.chunks_exact(dim).zip(labels) {
        let mean = &means[l as usize * dim..][..dim];
        let squares = row.iter().zip(mean).map(|(&v, m)| (f64::from(v) - m).powi(2));
        fourth +=
            if diagonal { squares.map(|s| s * s).sum() } else { squares.sum::<f64>().powi(2) };
    }
    fourth
}

/// [`fourth_powers`] of all training rows.
struct FourthPowers {
    source: Source,
    present: Arc<Present>,
    means: Vec<f64>,
    diagonal: bool,
    sum: f64,
}

impl Statistic for FourthPowers {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let labels = self.present.labels(block.train, block.range.clone())?;
        let rows = block.rows(&self.source)?;
        let dim = self.source.dim;
        self.sum += fourth_powers(&rows, &labels, &self.means, dim, self.diagonal);
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Sums(from_mut(&mut self.sum))]
    }
}

/// Ratios tried by [`Shrinkage::HeldOutClasses`].
const RATIOS: [f64; 12] = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
/// Groups of classes, each left out once.
const GROUPS: usize = 5;
/// Of each class, one row in so many is kept from the fit, to stand for test rows.
const TESTED: usize = 5;
/// Rows of each group that are scored.
const SCORED: usize = 2048;

impl Fitted<'_> {
    /// The ratio with the best mean AUROC, over groups of classes left out as
    /// if they were OOD; the fit of each group's complement is the merge of
    /// the other groups' moments, so that one pass does for all.
    fn held_out(&self, observer: &mut dyn Observer) -> Result<f64> {
        let classes = self.labels.classes();
        let groups = GROUPS.min(classes);
        if groups < 2 {
            let problem = "held_out_classes needs at least two classes";
            return Err(Error::config("shrinkage", "held_out_classes", problem));
        }
        let dim = self.input.dim;
        let labels = self.labels.get(self.train, 0..self.train.len())?;
        let is_tested = every_fifth_of_its_class(&labels, classes);
        let tested = self.tested_rows(&labels, &is_tested)?;
        let mut moments = vec![Moments::new(dim, classes); groups];
        self.input.each_block(self.train, "hold classes out", observer, |range, rows| {
            let (labels, is_tested) = (&labels[range.clone()], &is_tested[range]);
            for (g, moments) in moments.iter_mut().enumerate() {
                let (mut kept, mut of) = (Vec::new(), Vec::new());
                for (i, &l) in labels.iter().enumerate() {
                    if l as usize % groups == g && !is_tested[i] {
                        kept.extend_from_slice(&rows[i * dim..][..dim]);
                        of.push(l);
                    }
                }
                moments.update(&kept, &of);
            }
            Ok(())
        })?;
        let mut sums = [0.0; RATIOS.len()];
        observer.on(Event::Begin { task: "choose the shrinkage", total: groups as u64 });
        for left_out in 0..groups {
            let others = (0..groups).filter(|g| *g != left_out);
            let mut all = Moments::new(dim, classes);
            others.for_each(|g| all.merge(&moments[g]));
            for (sum, auroc) in sums.iter_mut().zip(self.try_ratios(all, left_out, &tested)?) {
                *sum += auroc / groups as f64;
            }
            observer.on(Event::Advance { done: left_out as u64 + 1, loss: None });
        }
        observer.on(Event::End);
        let best = (0..RATIOS.len()).max_by(|a, b| sums[*a].total_cmp(&sums[*b]).then(b.cmp(a)));
        Ok(best.map_or(0.0, |i| RATIOS[i]))
    }

    /// Stepped rows that stand for test rows, with their labels: at most
    /// [`SCORED`] of each group.
    fn tested_rows(&self, labels: &[u32], is_tested: &[bool]) -> Result<Vec<(Vec<f32>, usize)>> {
        let groups = GROUPS.min(self.labels.classes());
        let mut stream = Stream::new(0, Purpose::HoldOut, 0, 0);
        let mut found = vec![Vec::new(); groups];
        let order = stream.permutation(self.train.len() as u32);
        for row in order.into_iter().filter(|r| is_tested[*r as usize]) {
            let group = labels[row as usize] as usize % groups;
            if found[group].len() < SCORED {
                found[group].push(row);
            }
            if found.iter().all(|f| f.len() == SCORED) {
                break;
            }
        }
        let read = |(group, picked): (usize, Vec<u32>)| {
            let mut rows = vec![0.0; picked.len() * self.input.input_dim];
            self.train.gather(self.input.field(), &picked, &mut rows)?;
            Ok((self.input.steps.apply(&rows, self.input.input_dim), group))
        };
        found.into_iter().enumerate().map(read).collect()
    }

    /// AUROC of every ratio with one group of classes as OOD.
    fn try_ratios(
        &self,
        kept: Moments,
        left_out: usize,
        tested: &[(Vec<f32>, usize)],
    ) -> Result<Vec<f64>> {
        let dim = self.input.dim;
        let counts = kept.counts().to_vec();
        let (means, mut covariance) = kept.finish();
        if self.diagonal {
            keep_diagonal(&mut covariance, dim);
        }
        let mean_variance = mean_variance(&covariance, dim);
        if mean_variance == 0.0 {
            // The rows kept of each class are all equal: no ratio can be told from another.
            return Ok(vec![0.5; RATIOS.len()]);
        }
        let (values, vectors) = eigh(&covariance, dim).ok_or_else(|| Error::Fit {
            what: "shrinkage".into(),
            problem: "the eigenvalue iteration did not converge".into(),
        })?;
        let floor = dim as f64 * f64::EPSILON * values.first().copied().unwrap_or(0.0);
        // Class means and rows in the covariance's own coordinates.
        let rotate = |rows: &[f64]| {
            let mut out = vec![0.0; rows.len()];
            product_nt(rows, &vectors, &mut out, dim);
            out
        };
        let present = means.chunks_exact(dim).zip(&counts).filter(|(_, n)| **n > 0);
        let (means, log_counts): (Vec<&[f64]>, Vec<f64>) =
            present.map(|(m, n)| (m, (*n as f64).ln())).unzip();
        let means = rotate(&means.concat());
        let double = |rows: &[f32]| rows.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let rows: Vec<(Vec<f64>, usize)> =
            tested.iter().map(|(rows, g)| (rotate(&double(rows)), *g)).collect();
        let mut out = Vec::new();
        for ratio in RATIOS {
            let scale: Vec<f64> = values
                .iter()
                .map(|v| 1.0 / (v.max(floor) + ratio * mean_variance).max(f64::MIN_POSITIVE).sqrt())
                .collect();
            let means = scaled(&means, &scale);
            let (mut id, mut ood) = (Vec::new(), Vec::new());
            for (rows, group) in &rows {
                let scores = energies(&scaled(rows, &scale), &means, &log_counts, dim);
                if *group == left_out { &mut ood } else { &mut id }.extend(scores);
            }
            out.push(crate::metrics::auroc(&id, &ood)?);
        }
        Ok(out)
    }
}

/// Which rows stand for test rows: counted within each class, so that no
/// order of the classes in the set leaves one without.
fn every_fifth_of_its_class(labels: &[u32], classes: usize) -> Vec<bool> {
    let mut seen = vec![0usize; classes];
    let mut next = |&l: &u32| {
        let before = seen[l as usize];
        seen[l as usize] += 1;
        before.is_multiple_of(TESTED)
    };
    labels.iter().map(&mut next).collect()
}

fn scaled(rows: &[f64], scale: &[f64]) -> Vec<f64> {
    let rows = rows.chunks_exact(scale.len());
    rows.flat_map(|row| row.iter().zip(scale).map(|(v, s)| v * s)).collect()
}

/// −log Σ_k n_k exp(−½‖x − μ_k‖²) of whitened rows and means.
fn energies(rows: &[f64], means: &[f64], log_counts: &[f64], dim: usize) -> Vec<f32> {
    let k = log_counts.len();
    let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>();
    let squares: Vec<f64> = means.chunks_exact(dim).map(square).collect();
    let piece = |rows: &[f64]| {
        let mut products = vec![0.0; rows.len() / dim * k];
        product_nt(rows, means, &mut products, dim);
        let all = rows.chunks_exact(dim).zip(products.chunks_exact(k));
        all.map(|(row, products)| {
            let own = square(row);
            let terms = products.iter().zip(&squares).zip(log_counts);
            let terms = terms.map(|((p, m), n)| n - 0.5 * (own - 2.0 * p + m));
            -reduce::logsumexp(terms) as f32
        })
        .collect::<Vec<_>>()
    };
    let pieces: Vec<Vec<f32>> = rows.par_chunks(256 * dim).map(piece).collect();
    pieces.concat()
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::observe::Silent;
    use crate::scorers::{Fit, GmmConfig, TrainingData};

    /// Ten classes whose labels repeat every ten rows, a multiple of the step
    /// between tested rows, choose as the same rows sorted by class do.
    #[test]
    fn the_order_of_the_classes_does_not_matter() {
        let (rows, dim, classes) = (400, 6, 10);
        let mut stream = Stream::new(3, Purpose::HoldOut, 1, 0);
        let mut values = vec![0.0f32; rows * dim];
        stream.fill_uniform(&mut values, 0.0, 1.0);
        for (i, row) in values.chunks_exact_mut(dim).enumerate() {
            row[i % classes % dim] += (1 + i % classes) as f32 / 4.0;
        }
        let chosen = |order: &[usize]| {
            let of = |i: &usize| values[i * dim..][..dim].to_vec();
            let rows = Array2::from_shape_vec((rows, dim), order.iter().flat_map(of).collect());
            let labels: Vec<u32> = order.iter().map(|i| (i % classes) as u32).collect();
            let set = FeatureSet::from_arrays(rows.unwrap().view(), Some(&labels)).unwrap();
            let config = GmmConfig { shrinkage: Shrinkage::HeldOutClasses, ..GmmConfig::default() };
            config.fit(&TrainingData::new(&set), &mut Silent).unwrap().shrinkage_weights()
        };
        let mixed: Vec<usize> = (0..rows).collect();
        let mut sorted = mixed.clone();
        sorted.sort_by_key(|i| i % classes);
        assert_eq!(chosen(&mixed), chosen(&sorted));
    }
}
