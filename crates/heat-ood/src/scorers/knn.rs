//! Distance to the k-th nearest training row (`knn`), squared L2, exact.
//!
//! The index holds the stepped training rows, centred (distances do not
//! change, rounding does) and packed for products: 4·N·D bytes. A block of
//! queries meets a block of the index in one product; ‖x‖² − 2q·x orders the
//! neighbours of a query; candidates below the current k-th are kept and cut
//! back by partial selection. The k-th distance itself is then recomputed by
//! direct subtraction in f64, so products decide only the order.
//!
//! Fitted on a share α of a training set ([`FeatureSet::proportion`]), k is
//! max(1, ⌊k·α⌋), whether given or by default (METHOD §3).
//!
//! *Differences from the published code*: no faiss; exact distances.
//!
//! Reference: Sun et al., *Out-of-Distribution Detection with Deep Nearest
//! Neighbors*, ICML 2022.

use rayon::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::input::{Input, by_classes, contradiction, feature_settings};
use super::{Prior, Scorer, Scratch, Section, Stored};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Needs, Pooling, Steps, Tensor};
use crate::math::matmul::{Aligned, Epilogue, Packed, View, gemm};
use crate::math::{blocks, parallel, reduce};
use crate::observe::{Event, Observer};

/// Index rows multiplied at a time: their products with a block of queries
/// (256·1024 floats) stay in the second-level cache.
const PIECE: usize = 1024;

/// Queries that meet a piece together: each read of the index serves so many.
const QUERIES: usize = 256;

feature_settings! {
    /// Settings of `knn`.
    KnnConfig, normalize = true;
    /// Which neighbour; by default 50, 200 or 1000 as the training set has
    /// fewer than 100, fewer than 1000 or more classes (METHOD §3).
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize> = None,
}

/// A fitted nearest-neighbour index.
pub struct Knn {
    config: KnnConfig,
    k: usize,
    input: Input,
    rows: usize,
    centre: Vec<f32>,
    pieces: Vec<Piece>,
}

/// Up to [`PIECE`] rows of the index.
struct Piece {
    rows: Packed,
    norms: Vec<f32>,
}

impl KnnConfig {
    /// Index the training set.
    ///
    /// # Errors
    /// If k is zero or larger than the set, or a value is not finite.
    pub fn fit(
        &self,
        train: &FeatureSet,
        classes: Option<usize>,
        observer: &mut dyn Observer,
    ) -> Result<Knn> {
        let classes = match classes {
            Some(c) => c,
            None if train.labelled() => train.classes()?,
            None => 0,
        };
        let k = self.k.unwrap_or(by_classes(classes, [50, 200, 1000]));
        let k = scaled(k, train.proportion());
        if k == 0 || k > train.len() {
            let problem = format!(
                "the index holds {} rows, so k must lie in 1..={}",
                train.len(),
                train.len()
            );
            return Err(Error::config("k", k, problem));
        }
        let input = Input::fit(self, train)?;
        let read = |range: std::ops::Range<usize>| -> Result<Vec<f32>> {
            let mut rows = vec![0.0; range.len() * input.input_dim];
            train.read(input.field(), range, &mut rows)?;
            Ok(input.steps.apply(&rows, input.input_dim))
        };
        let centre = centre(train.len(), input.dim, &read)?;
        observer.on(Event::Begin { task: "index training rows", total: train.len() as u64 });
        let pieces: Result<Vec<Piece>> = parallel::run(|| {
            let ranges: Vec<_> = blocks(train.len(), PIECE).collect();
            ranges.into_par_iter().map(|range| Ok(Piece::new(read(range)?, &centre))).collect()
        });
        let knn =
            Knn { config: self.clone(), k, rows: train.len(), centre, pieces: pieces?, input };
        observer.on(Event::End);
        Ok(knn)
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

/// Mean row, from the first rows only: any point near the data will do.
fn centre(
    n: usize,
    dim: usize,
    read: &impl Fn(std::ops::Range<usize>) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let rows = read(0..n.min(4096))?;
    let mut sum = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        for (s, &v) in sum.iter_mut().zip(row) {
            *s += f64::from(v);
        }
    }
    let count = (rows.len() / dim) as f64;
    Ok(sum.into_iter().map(|s| (s / count) as f32).collect())
}

impl Piece {
    fn new(mut rows: Vec<f32>, centre: &[f32]) -> Self {
        let dim = centre.len();
        for row in rows.chunks_exact_mut(dim) {
            for (v, c) in row.iter_mut().zip(centre) {
                *v -= c;
            }
        }
        Self::centred(&rows, dim)
    }

    fn centred(rows: &[f32], dim: usize) -> Self {
        let norms = rows.chunks_exact(dim).map(|r| reduce::norm2(r) as f32).collect();
        let packed = Packed::new(View::rows(rows, dim).t(), dim, rows.len() / dim);
        Piece { rows: packed, norms }
    }
}

/// Turns q·x into ‖x‖² − 2q·x, which orders the neighbours of q.
struct ToOrder<'a>(&'a [f32]);

impl Epilogue for ToOrder<'_> {
    #[inline(always)]
    fn apply(&mut self, _: usize, column: usize, values: &mut [f32]) {
        for (v, norm) in values.iter_mut().zip(&self.0[column..]) {
            *v = norm - 2.0 * *v;
        }
    }
}

/// The nearest rows seen so far by one query.
struct Nearest {
    found: Vec<(f32, u32)>,
    bound: f32,
    k: usize,
}

impl Nearest {
    fn new(k: usize) -> Self {
        Nearest { found: Vec::with_capacity(3 * k + PIECE), bound: f32::NAN, k }
    }

    /// Take in the orders of rows `start..`.
    ///
    /// "Not at or above the bound", so that everything is taken before there
    /// is a bound, and orders that overflowed are not lost.
    #[inline(always)]
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    fn take(&mut self, orders: &[f32], start: usize) {
        for (i, orders) in orders.chunks(16).enumerate() {
            // A comparison of sixteen at a time; nearly always none is nearer.
            let near = orders.iter().fold(0u32, |n, &v| n | u32::from(!(v >= self.bound)));
            if near == 0 {
                continue;
            }
            for (j, &v) in orders.iter().enumerate() {
                if !(v >= self.bound) {
                    self.found.push((v, (start + i * 16 + j) as u32));
                }
            }
        }
        if self.found.len() >= 2 * self.k + 64 {
            self.cut();
        }
    }

    /// Keep the k nearest; ties are broken by row, so that order never matters.
    fn cut(&mut self) {
        if self.found.len() >= self.k {
            let by = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            self.found.select_nth_unstable_by(self.k - 1, by);
            self.found.truncate(self.k);
            self.bound = self.found[self.k - 1].0;
        }
    }
}

impl Knn {
    /// Which neighbour.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Row number of the k-th neighbour of each stepped, centred query.
    fn kth(&self, queries: &[f32]) -> Vec<u32> {
        let n = queries.len() / self.input.dim;
        let mut nearest: Vec<Nearest> = (0..n).map(|_| Nearest::new(self.k)).collect();
        let mut orders = Aligned::zeros(n * PIECE);
        let mut scratch = Aligned::default();
        let arch = pulp::Arch::new();
        for (i, piece) in self.pieces.iter().enumerate() {
            let width = piece.norms.len();
            let q = View::rows(queries, self.input.dim);
            let order = &mut ToOrder(&piece.norms);
            gemm(q, n, &piece.rows, &mut orders, PIECE, &mut scratch, order);
            for (nearest, orders) in nearest.iter_mut().zip(orders.chunks_exact(PIECE)) {
                arch.dispatch(
                    #[inline(always)]
                    || nearest.take(&orders[..width], i * PIECE),
                );
            }
        }
        let last = |mut n: Nearest| {
            n.cut();
            n.found[self.k - 1].1
        };
        nearest.into_iter().map(last).collect()
    }

    fn centre_rows(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.input.dim) {
            row.iter_mut().zip(&self.centre).for_each(|(v, c)| *v -= c);
        }
    }

    /// A row of the index, centred.
    fn row(&self, i: usize, out: &mut [f32]) {
        self.pieces[i / PIECE].rows.column(i % PIECE, out);
    }

    /// Squared distances to the k-th neighbour of stepped rows.
    fn score_rows(&self, rows: &mut [f32], out: &mut [f32]) {
        self.centre_rows(rows);
        let mut neighbour = vec![0.0; self.input.dim];
        let kth = self.kth(rows);
        for ((o, row), &j) in out.iter_mut().zip(rows.chunks_exact(self.input.dim)).zip(&kth) {
            self.row(j as usize, &mut neighbour);
            *o = reduce::distance2(row, &neighbour) as f32;
        }
    }

    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            k: usize,
            dim: usize,
            rows: usize,
        }
        let (config, input) = Input::load(stored)?;
        let c: Config = stored.config()?;
        if input.dim != c.dim || !(1..=c.rows).contains(&c.k) {
            return Err(contradiction(stored));
        }
        let rows = stored.file.f32(&stored.name("index"), &[c.rows, c.dim])?;
        Ok(Knn {
            k: c.k,
            input,
            rows: c.rows,
            centre: stored.file.f32(&stored.name("centre"), &[c.dim])?,
            pieces: rows.chunks(PIECE * c.dim).map(|r| Piece::centred(r, c.dim)).collect(),
            config,
        })
    }
}

impl Scorer for Knn {
    fn name(&self) -> &'static str {
        "knn"
    }

    fn needs(&self, set: &FeatureSet) -> Result<Needs> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let mut rows = self.input.stepped(batch);
        let blocks = rows.chunks_mut(QUERIES * self.input.dim);
        for (rows, out) in blocks.zip(out.chunks_mut(QUERIES)) {
            self.score_rows(rows, out);
        }
    }

    fn section(&self) -> Section {
        let config = json!({
            "settings": self.config,
            "k": self.k,
            "input_dim": self.input.input_dim,
            "dim": self.input.dim,
            "rows": self.rows,
        });
        let mut index = vec![0.0; self.rows * self.input.dim];
        for (i, row) in index.chunks_exact_mut(self.input.dim).enumerate() {
            self.row(i, row);
        }
        let tensors = vec![
            ("index".into(), Tensor::f32([self.rows, self.input.dim], index)),
            ("centre".into(), Tensor::f32([self.input.dim], self.centre.clone())),
        ];
        Section::new("knn", config).with("", tensors).with("", self.input.tensors())
    }
}

/// Differentiable where the k-th neighbour stays the same:
/// ∇‖z − x_(k)‖² = 2(z − x_(k)). There is no sampler.
impl Prior for Knn {
    fn pooling(&self) -> Pooling {
        self.config.pooling
    }

    fn steps(&self) -> &Steps {
        &self.input.steps
    }

    fn dim(&self) -> usize {
        self.input.dim
    }

    fn energy(&self, z: &[f32], out: &mut [f32]) {
        self.score_rows(&mut z.to_vec(), out);
    }

    fn add_gradient(&self, z: &[f32], scale: f32, grad: &mut [f32], scratch: &mut Scratch) {
        let dim = self.input.dim;
        scratch.a.reserve(z.len());
        let rows = &mut scratch.a[..z.len()];
        rows.copy_from_slice(z);
        self.centre_rows(rows);
        let mut neighbour = vec![0.0; dim];
        let rows = rows.chunks_exact(dim).zip(grad.chunks_exact_mut(dim)).zip(self.kth(rows));
        for ((row, grad), j) in rows {
            self.row(j as usize, &mut neighbour);
            for ((g, v), x) in grad.iter_mut().zip(row).zip(&neighbour) {
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
            let knn = config.fit(&set, None, &mut Silent).unwrap();
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
        let error = config.fit(&set, None, &mut Silent).err().unwrap().to_string();
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
            config.fit(set, None, &mut Silent).unwrap().k()
        };
        assert_eq!((k(None, &whole), k(None, &part), k(Some(9), &part)), (50, 12, 2));
    }

    #[test]
    fn many_equal_rows_are_no_trouble() {
        let same = Array2::from_elem((3000, 3), 1.5f32);
        let set = FeatureSet::from_arrays(same.view(), None).unwrap();
        let knn = KnnConfig::default().fit(&set, None, &mut Silent).unwrap();
        assert_eq!(knn.score(&set).unwrap(), vec![0.0; 3000]);
    }
}
