//! Distance to the k-th nearest training row (`knn`), squared L2, exact.
//!
//! The index (`neighbours.rs`) holds the stepped training rows, centred. A
//! distance is computed by direct subtraction in f64.
//!
//! Fitted on a fraction α of a training set ([`FeatureSet::proportion`]), k is
//! max(1, ⌊k·α⌋), whether given or by default (METHOD §3).
//!
//! *Differences from the published code*: no faiss; exact distances.
//!
//! Reference: Sun et al., *Out-of-Distribution Detection with Deep Nearest
//! Neighbors*, ICML 2022.

use super::bank::subtract;
use super::indexed::Indexed;
use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet, Pooling, Preprocessing};
use crate::scorers::context::FitContext;
use crate::scorers::input::{by_classes, feature_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Prior, Scorer, Scratch, Section, Stored};

feature_settings! {
    /// Settings of `knn`.
    KnnConfig, normalize = true;
    /// Which neighbour; by default 50, 200 or 1000 as the training set has
    /// fewer than 100, fewer than 1000 or more classes (METHOD §3).
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize> = None,
}

offer! { KnnConfig => Knn }

/// A fitted nearest-neighbour index.
pub struct Knn {
    config: KnnConfig,
    k: usize,
    index: Indexed,
}

impl Method for KnnConfig {
    const NAME: &'static str = "knn";
    type Scorer = Knn;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Knn> {
        let classes = context.known_classes()?.unwrap_or(0);
        let k = self.k.unwrap_or(by_classes(classes, [50, 200, 1000]));
        let k = scaled(k, context.train.proportion());
        Ok(Knn { config: self.clone(), k, index: Indexed::fit(self, k, context)? })
    }

    fn load(stored: &Stored<'_>) -> Result<Knn> {
        let (config, k, index) = Indexed::load(stored)?;
        Ok(Knn { config, k, index })
    }
}

/// max(1, ⌊k·α⌋); a k of zero stays what it is, to be refused.
fn scaled(k: usize, proportion: f64) -> usize {
    if k == 0 || proportion == 1.0 {
        return k;
    }
    // 50 · 0.58 is 28.999999999999996 in f64, and 29 is meant.
    ((k as f64 * proportion + 1e-9).floor() as usize).max(1)
}

impl Knn {
    /// Which neighbour.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Squared distance and row number of the k-th neighbour of each stepped,
    /// centred query.
    fn kth(&self, queries: &[f32]) -> impl Iterator<Item = (f64, u32)> {
        let found = self.index.rows.nearest(queries, self.k);
        found.into_iter().map(|nearest| nearest[self.k - 1])
    }

    /// Squared distances to the k-th neighbour of stepped rows.
    fn score_rows(&self, rows: &mut [f32], out: &mut [f32]) {
        subtract(rows, &self.index.centre);
        out.iter_mut().zip(self.kth(rows)).for_each(|(o, (distance, _))| *o = distance as f32);
    }
}

impl Scorer for Knn {
    fn name(&self) -> &'static str {
        "knn"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.index.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.index.each_nearest(batch, self.k, |row, nearest| {
            out[row] = nearest[self.k - 1].0 as f32;
        });
    }

    fn section(&self) -> Section {
        Section::new("knn", self.index.config(&self.config, self.k)).with("", self.index.tensors())
    }
}

/// Differentiable where the k-th neighbour stays the same:
/// ∇‖z − x_(k)‖² = 2(z − x_(k)). There is no sampler.
impl Prior for Knn {
    fn pooling(&self) -> Pooling {
        self.config.pooling
    }

    fn steps(&self) -> &Preprocessing {
        &self.index.input.steps
    }

    fn dim(&self) -> usize {
        self.index.input.dim
    }

    fn energy(&self, z: &[f32], out: &mut [f32]) {
        self.score_rows(&mut z.to_vec(), out);
    }

    fn add_gradient(&self, z: &[f32], scale: f32, grad: &mut [f32], scratch: &mut Scratch) {
        let dim = self.index.input.dim;
        scratch.a.reserve(z.len());
        let rows = &mut scratch.a[..z.len()];
        rows.copy_from_slice(z);
        subtract(rows, &self.index.centre);
        let rows = rows.chunks_exact(dim).zip(grad.chunks_exact_mut(dim)).zip(self.kth(rows));
        for ((row, grad), (_, j)) in rows {
            for ((g, v), x) in grad.iter_mut().zip(row).zip(self.index.rows.row(j)) {
                *g += scale * 2.0 * (v - x);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::SubsetConfig;
    use crate::observe::Silent;
    use crate::scorers::{Fit, TrainingData};
    use ndarray::Array2;

    fn rows(n: usize, d: usize, salt: u32) -> Array2<f32> {
        Array2::from_shape_fn((n, d), |(i, j)| {
            let x = ((i * d + j) as u32 + salt).wrapping_mul(2_654_435_761);
            (x % 1999) as f32 / 1000.0
        })
    }

    /// The oracle: all distances, sorted.
    #[test]
    fn equals_sorting_all_distances() {
        let (train, test) = (rows(2500, 19, 0), rows(40, 19, 777));
        let set = FeatureSet::from_arrays(train.view(), None).unwrap();
        let queries = FeatureSet::from_arrays(test.view(), None).unwrap();
        for k in [1, 7, 2500] {
            let config = KnnConfig { k: Some(k), normalize: false, ..KnnConfig::default() };
            let knn = config.fit(&TrainingData::new(&set), &mut Silent).unwrap();
            let got = knn.score(&queries).unwrap();
            for (g, q) in got.iter().zip(test.rows()) {
                let distance = |x: ndarray::ArrayView1<f32>| {
                    x.iter().zip(q).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
                };
                let mut all: Vec<f64> = train.rows().into_iter().map(distance).collect();
                all.sort_by(f64::total_cmp);
                let want = all[k - 1];
                assert!((f64::from(*g) - want).abs() < 1e-5 * want.max(0.1), "{k}: {g} {want}");
            }
        }
    }

    #[test]
    fn refuses_more_neighbours_than_rows() {
        let set = FeatureSet::from_arrays(rows(30, 4, 0).view(), None).unwrap();
        let config = KnnConfig { k: Some(31), ..KnnConfig::default() };
        let error = config.fit(&TrainingData::new(&set), &mut Silent).err().unwrap().to_string();
        assert_eq!(error, "`k` = 31: the index holds 30 rows, so k must lie in 1..=30");
    }

    #[test]
    fn k_follows_the_share_of_a_subset() {
        assert_eq!(scaled(50, 0.1), 5);
        assert_eq!(scaled(50, 0.58), 29);
        assert_eq!(scaled(200, 0.0149), 2);
        assert_eq!(scaled(50, 0.001), 1);
        assert_eq!((scaled(7, 1.0), scaled(0, 0.5)), (7, 0));
        let whole = FeatureSet::from_arrays(rows(400, 3, 0).view(), None).unwrap();
        let config = SubsetConfig { proportion: Some(0.25), ..SubsetConfig::default() };
        let part = config.fit(&whole).unwrap().apply(&whole).unwrap();
        let k = |k, set: &FeatureSet| {
            let config = KnnConfig { k, ..KnnConfig::default() };
            config.fit(&TrainingData::new(set), &mut Silent).unwrap().k()
        };
        assert_eq!((k(None, &whole), k(None, &part), k(Some(9), &part)), (50, 12, 2));
    }

    #[test]
    fn many_equal_rows_are_no_trouble() {
        let same = Array2::from_elem((3000, 3), 1.5f32);
        let set = FeatureSet::from_arrays(same.view(), None).unwrap();
        let knn = KnnConfig::default().fit(&TrainingData::new(&set), &mut Silent).unwrap();
        assert_eq!(knn.score(&set).unwrap(), vec![0.0; 3000]);
    }
}
