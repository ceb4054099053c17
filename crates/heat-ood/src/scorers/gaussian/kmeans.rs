//! K-means clusters of plain features, for Gaussian scorers without labels.
//!
//! Lloyd's iterations on a random part of the rows (at most 256 a cluster and
//! 512 MiB), started by k-means++; then one pass assigns every row. The seed
//! fixes the result. Rows are taken about their mean: distances are expanded
//! to ‖c‖² − 2x·c in single precision, which far from the origin would leave
//! nothing of the differences.
//!
//! Reference: Lloyd, 1982; Arthur and Vassilvitskii, *k-means++*, SODA 2007.

use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field};
use crate::math::matmul::{Aligned, Keep, Packed, View, gemm};
use crate::math::moments::ClassMeans;
use crate::math::parallel::{Pieces, Slices, SlicesMut};
use crate::math::rng::{Purpose, Stream};
use crate::math::{blocks, reduce};
use crate::observe::{Event, Observer};

/// Most iterations.
const ITERATIONS: usize = 25;
/// Rows among which the first centroids are drawn.
const START_ROWS: usize = 8192;
/// Rows that one task assigns.
const ROWS: usize = 256;

/// Fitted clusters.
pub(super) struct KMeans {
    field: Field,
    dim: usize,
    /// The mean of the rows that were fitted, `[D]`: subtracted from all.
    centre: Vec<f32>,
    /// `[K, D]`, about the centre.
    centroids: Vec<f32>,
}

impl KMeans {
    pub fn fit(
        train: &FeatureSet,
        field: Field,
        k: usize,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let dim = train.require(field)?;
        if k == 0 || k > train.len() {
            let problem = format!("must lie in 1..={}, the number of rows", train.len());
            return Err(Error::config("kmeans", k, problem));
        }
        let mut stream = Stream::new(seed, Purpose::Clusters, 0, 0);
        let most = (k.saturating_mul(256)).min((1 << 27) / dim).max(k);
        let mut picked = stream.permutation(train.len() as u32);
        picked.truncate(most);
        let mut rows = vec![0.0; picked.len() * dim];
        train.gather(field, &picked, &mut rows)?;
        let centre = mean(&rows, dim);
        subtract(&mut rows, &centre);
        let start = &rows[..rows.len().min(START_ROWS.max(k) * dim)];
        let centroids = plus_plus(start, dim, k, &mut stream);
        let mut clusters = KMeans { field, dim, centre, centroids };
        let mut labels = Vec::new();
        observer.on(Event::Begin { task: "k-means", total: ITERATIONS as u64 });
        for i in 0..ITERATIONS {
            let (new, distances) = clusters.nearest(&rows);
            if new == labels {
                break;
            }
            labels = new;
            clusters.move_to_means(&rows, &mut labels, &distances);
            observer.on(Event::Advance { done: i as u64 + 1, loss: None });
        }
        observer.on(Event::End);
        Ok(clusters)
    }

    /// The cluster of every row of the set.
    pub fn assign(&self, train: &FeatureSet, observer: &mut dyn Observer) -> Result<Vec<u32>> {
        let mut labels = Vec::with_capacity(train.len());
        let mut rows = Vec::new();
        observer.on(Event::Begin { task: "assign clusters", total: train.len() as u64 });
        for range in blocks(train.len(), 16 * ROWS) {
            rows.resize(range.len() * self.dim, 0.0);
            train.read_parallel(self.field, range.clone(), &mut rows)?;
            subtract(&mut rows, &self.centre);
            labels.extend(self.nearest(&rows).0);
            observer.on(Event::Advance { done: range.end as u64, loss: None });
        }
        observer.on(Event::End);
        Ok(labels)
    }

    /// The nearest centroid of each centred row, and ‖c‖² − 2x·c to it.
    fn nearest(&self, rows: &[f32]) -> (Vec<u32>, Vec<f32>) {
        let (dim, k) = (self.dim, self.centroids.len() / self.dim);
        let packed = Packed::new(View::rows(&self.centroids, dim).t(), dim, k);
        let norms: Vec<f32> =
            self.centroids.chunks_exact(dim).map(|c| reduce::norm2(c) as f32).collect();
        let piece = |rows: &[f32]| {
            let n = rows.len() / dim;
            let mut products = vec![0.0; n * k];
            let mut scratch = Aligned::default();
            gemm(View::rows(rows, dim), n, &packed, &mut products, k, &mut scratch, &mut Keep);
            let nearest = products.chunks_exact_mut(k).map(|p| {
                p.iter_mut().zip(&norms).for_each(|(p, norm)| *p = 2.0 * *p - norm);
                let best = reduce::argmax(p);
                (best, -p[best as usize])
            });
            nearest.collect::<Vec<_>>()
        };
        let pieces: Vec<Vec<(u32, f32)>> = rows.par_chunks(ROWS * dim).map(piece).collect();
        pieces.into_iter().flatten().unzip()
    }

    /// Centroids become the means of their rows. One without rows takes the
    /// row that lies furthest from its own centroid.
    fn move_to_means(&mut self, rows: &[f32], labels: &mut [u32], orders: &[f32]) {
        let dim = self.dim;
        let k = self.centroids.len() / dim;
        let mut counts = vec![0u32; k];
        labels.iter().for_each(|l| counts[*l as usize] += 1);
        let mut distances: Vec<f64> = rows
            .chunks_exact(dim)
            .zip(orders)
            .map(|(row, o)| reduce::norm2(row) + f64::from(*o))
            .collect();
        for empty in 0..k as u32 {
            if counts[empty as usize] > 0 {
                continue;
            }
            let furthest = (0..labels.len())
                .filter(|i| counts[labels[*i] as usize] > 1)
                .max_by(|a, b| distances[*a].total_cmp(&distances[*b]).then(b.cmp(a)));
            if let Some(i) = furthest {
                counts[labels[i] as usize] -= 1;
                counts[empty as usize] = 1;
                (labels[i], distances[i]) = (empty, 0.0);
            }
        }
        let mut means = ClassMeans::new(dim, k);
        means.update(rows, labels);
        let means = means.finish();
        self.centroids.iter_mut().zip(means).for_each(|(c, m)| *c = m as f32);
    }
}

/// The mean of rows of `dim`.
fn mean(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut mean = ClassMeans::new(dim, 1);
    mean.update(rows, &vec![0; rows.len() / dim]);
    mean.finish().into_iter().map(|m| m as f32).collect()
}

/// Take the centre from every row.
fn subtract(rows: &mut [f32], centre: &[f32]) {
    let piece = |rows: &mut [f32]| {
        for row in rows.chunks_exact_mut(centre.len()) {
            row.iter_mut().zip(centre).for_each(|(v, c)| *v -= c);
        }
    };
    rows.par_chunks_mut(ROWS * centre.len()).for_each(piece);
}

/// k-means++: each next centroid is a row, drawn with the probability of its
/// squared distance to the nearest one so far.
fn plus_plus(rows: &[f32], dim: usize, k: usize, stream: &mut Stream) -> Vec<f32> {
    let n = rows.len() / dim;
    let row = |i: usize| &rows[i * dim..][..dim];
    let mut centroids = row(stream.below(n as u32) as usize).to_vec();
    let mut nearest = vec![f64::INFINITY; n];
    for c in 1..k {
        let last = centroids[(c - 1) * dim..].to_vec();
        let pieces = nearest.par_chunks_mut(ROWS).zip(rows.par_chunks(ROWS * dim));
        pieces.for_each(|(nearest, rows)| {
            for (d, row) in nearest.iter_mut().zip(rows.chunks_exact(dim)) {
                *d = d.min(reduce::distance2(row, &last));
            }
        });
        let total: f64 = nearest.iter().sum();
        let mut left = stream.uniform() * total;
        let drawn = nearest.iter().position(|d| {
            left -= d;
            left < 0.0
        });
        // All rows equal some centroid: any row will do.
        let i = drawn.unwrap_or_else(|| stream.below(n as u32) as usize);
        centroids.extend_from_slice(row(i));
    }
    centroids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Pooling;
    use crate::observe::Silent;
    use ndarray::Array2;

    /// Three well separated groups are found whatever the seed, and however far
    /// from the origin: at 10⁵ the squares are spaced by 2048 in single
    /// precision, and the groups by 100.
    #[test]
    fn finds_separated_groups() {
        let field = Field::Features(Pooling::Avg);
        for origin in [0.0f32, 1e5, -1e5] {
            let rows = Array2::from_shape_fn((300, 2), |(i, j)| {
                let centre = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]][i % 3][j];
                origin + centre + ((i * 7 + j * 3) % 11) as f32 / 128.0
            });
            let set = FeatureSet::from_arrays(rows.view(), None).unwrap();
            for seed in 0..5 {
                let clusters = KMeans::fit(&set, field, 3, seed, &mut Silent).unwrap();
                let labels = clusters.assign(&set, &mut Silent).unwrap();
                assert!((0..300).all(|i| labels[i] == labels[i % 3]), "{origin} {seed}");
                let mut three = labels[..3].to_vec();
                three.sort_unstable();
                assert_eq!(three, [0, 1, 2], "{origin} {seed}");
            }
        }
    }

    #[test]
    fn equal_rows_do_not_leave_a_cluster_empty() {
        let rows = Array2::from_elem((10, 2), 1.0f32);
        let set = FeatureSet::from_arrays(rows.view(), None).unwrap();
        let field = Field::Features(Pooling::Avg);
        let clusters = KMeans::fit(&set, field, 3, 0, &mut Silent).unwrap();
        assert_eq!(clusters.assign(&set, &mut Silent).unwrap(), vec![0; 10]);
        let error = KMeans::fit(&set, field, 11, 0, &mut Silent).err().unwrap().to_string();
        assert_eq!(error, "`kmeans` = 11: must lie in 1..=10, the number of rows");
    }
}
