//! Class means and the pooled scatter matrix, in one pass.
//!
//! Kept *centred*: raw Σzzᵀ − nμμᵀ would lose the small eigenvalues, which
//! decide the Gaussian scores. The first block in which a class appears fixes
//! a centre c_k for it, the mean of its rows there; from then on sums are of
//! z − c_k. What is left to subtract at the end, Σ_k n_k δ_kδ_kᵀ with
//! δ_k = μ_k − c_k, is as small as the sampling error of a block's mean.
//! [`Moments::merge`] brings both sides to their true means and combines them
//! by the rule of Chan, Golub and LeVeque (1979).

use std::ops::Range;

use super::gram::{self, GROUP, Panels, WIDTH, add_gram};
use super::linalg::symmetrize;
use crate::math::parallel::{Pieces, SlicesMut};

/// Mean of the rows of each of `K` classes; sums in f64.
#[derive(Debug, Clone)]
pub struct ClassMeans {
    d: usize,
    count: Vec<u64>,
    /// c_k, `[K, d]`.
    centre: Vec<f64>,
    /// Σ (z − c_k), by groups of columns: `[d / GROUP, K, GROUP]`. A group is
    /// summed by one task, over the rows in order: sums do not depend on how
    /// groups are dealt to threads.
    sum: Vec<f64>,
}

impl ClassMeans {
    /// No rows yet.
    pub fn new(d: usize, classes: usize) -> Self {
        ClassMeans {
            d,
            count: vec![0; classes],
            centre: vec![0.0; classes * d],
            sum: vec![0.0; classes * d.next_multiple_of(GROUP)],
        }
    }

    /// Add `rows` (`[n, d]`) with a label below K each, on the current pool.
    pub fn update(&mut self, rows: &[f32], labels: &[u32]) {
        self.fix_centres(rows, labels);
        let (d, centre, classes) = (self.d, &self.centre, self.count.len());
        let groups = self.sum.par_chunks_mut(classes * GROUP).enumerate();
        groups.for_each(|(g, sum)| {
            let columns = g * GROUP..((g + 1) * GROUP).min(d);
            add_group(rows, labels, d, columns, centre, sum, |_, _, _| ());
        });
        self.count(labels);
    }

    /// The same; z − c_k of every row goes to `panels` too.
    fn update_into(&mut self, rows: &[f32], labels: &[u32], panels: &mut Panels) {
        let (d, centre, classes) = (self.d, &self.centre, self.count.len());
        let (n, sums) = (labels.len(), self.sum.par_chunks_mut(classes * GROUP));
        panels.fill(n, d, sums, |columns, out, sum| {
            if columns.len() < GROUP {
                out.fill(0.0);
            }
            add_group(rows, labels, d, columns, centre, sum, |row, column, values| {
                let at = (column / WIDTH * n + row) * WIDTH + column % WIDTH;
                out[at..at + values.len()].copy_from_slice(values);
            });
        });
        self.count(labels);
    }

    fn count(&mut self, labels: &[u32]) {
        for &l in labels {
            self.count[l as usize] += 1;
        }
    }

    /// Centres of the classes that appear for the first time.
    fn fix_centres(&mut self, rows: &[f32], labels: &[u32]) {
        let d = self.d;
        let mut fresh = vec![0u64; self.count.len()];
        for &l in labels.iter().filter(|l| self.count[**l as usize] == 0) {
            fresh[l as usize] += 1;
        }
        if fresh.iter().all(|n| *n == 0) {
            return;
        }
        for (row, &l) in rows.chunks_exact(d).zip(labels) {
            if fresh[l as usize] > 0 {
                let centre = &mut self.centre[l as usize * d..][..d];
                centre.iter_mut().zip(row).for_each(|(c, &v)| *c += f64::from(v));
            }
        }
        for (centre, &n) in self.centre.chunks_exact_mut(d).zip(&fresh).filter(|(_, n)| **n > 0) {
            centre.iter_mut().for_each(|c| *c /= n as f64);
        }
    }

    /// Move the centres to the means; returns √n_k·(μ_k − c_k) of every class
    /// that has moved, `[m, d]`.
    fn settle(&mut self) -> Vec<f64> {
        let (d, classes) = (self.d, self.count.len());
        let mut moved = Vec::new();
        for (k, (centre, &n)) in self.centre.chunks_exact_mut(d).zip(&self.count).enumerate() {
            let of_class = self.sum.chunks_exact(classes * GROUP);
            let sum = of_class.flat_map(|group| &group[k * GROUP..][..GROUP]).take(d);
            if sum.clone().all(|s| *s == 0.0) {
                continue;
            }
            let root = (n as f64).sqrt();
            moved.extend(sum.clone().map(|s| s / root));
            centre.iter_mut().zip(sum).for_each(|(c, s)| *c += s / n as f64);
        }
        self.sum.fill(0.0);
        moved
    }

    /// Of two that are settled; returns √(nₐn_b/(nₐ+n_b))·δ of every class
    /// present on both sides, `[m, d]`.
    fn combine(&mut self, other: &ClassMeans) -> Vec<f64> {
        let d = self.d;
        let mut rows = Vec::new();
        for (k, &nb) in other.count.iter().enumerate().filter(|(_, n)| **n > 0) {
            let (na_f, nb_f) = (self.count[k] as f64, nb as f64);
            let weight = (na_f * nb_f / (na_f + nb_f)).sqrt();
            let theirs = &other.centre[k * d..][..d];
            let ours = &mut self.centre[k * d..][..d];
            if self.count[k] > 0 {
                rows.extend(theirs.iter().zip(ours.iter()).map(|(b, a)| weight * (b - a)));
            }
            for (a, b) in ours.iter_mut().zip(theirs) {
                *a += (b - *a) * (nb_f / (na_f + nb_f));
            }
            self.count[k] += nb;
        }
        rows
    }

    /// Rows in each class.
    pub fn counts(&self) -> &[u64] {
        &self.count
    }

    /// Add the rows of another, as if they followed this one's.
    pub fn merge(&mut self, other: &ClassMeans) {
        let mut other = other.clone();
        self.settle();
        other.settle();
        self.combine(&other);
    }

    /// Rows of classes and columns, which those that are merged share.
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.count.len(), self.d]
    }

    /// Columns, rows in each class, and the means, `[K, d]`.
    pub(crate) fn into_parts(mut self) -> (usize, Vec<u64>, Vec<f64>) {
        self.settle();
        (self.d, self.count, self.centre)
    }

    /// Of such parts; `None` if they do not fit each other.
    pub(crate) fn of_parts(d: usize, count: Vec<u64>, means: Vec<f64>) -> Option<Self> {
        if d == 0 || count.len().checked_mul(d) != Some(means.len()) {
            return None;
        }
        let sum = vec![0.0; count.len() * d.next_multiple_of(GROUP)];
        Some(ClassMeans { d, count, centre: means, sum })
    }

    /// Those of some classes.
    pub(crate) fn of_classes(self, classes: &[usize]) -> Option<Self> {
        let (d, count, means) = self.into_parts();
        let counts = classes.iter().map(|k| count.get(*k).copied()).collect::<Option<_>>()?;
        let means = classes.iter().flat_map(|k| &means[k * d..][..d]).copied().collect();
        Self::of_parts(d, counts, means)
    }

    /// The means, `[K, d]`; zero for a class without rows.
    pub fn finish(mut self) -> Vec<f64> {
        self.settle();
        self.centre
    }
}

/// Add z − c_k of some columns of every row to `sum` (`[K, GROUP]`), and give
/// WIDTH of them at a time (fewer at the end) to `take`, with the numbers of
/// the row and of the first among these columns.
fn add_group(
    rows: &[f32],
    labels: &[u32],
    d: usize,
    columns: Range<usize>,
    centre: &[f64],
    sum: &mut [f64],
    mut take: impl FnMut(usize, usize, &[f64]),
) {
    crate::math::arch().dispatch(
        #[inline(always)]
        || {
            for (r, (row, &l)) in rows.chunks_exact(d).zip(labels).enumerate() {
                let l = l as usize;
                let (row, centre) = (&row[columns.clone()], &centre[l * d..][columns.clone()]);
                let sum = &mut sum[l * GROUP..][..columns.len()];
                let (wholes, rest) = row.as_chunks::<WIDTH>();
                let (centres, centre_rest) = centre.as_chunks::<WIDTH>();
                let (sums, sum_rest) = sum.as_chunks_mut::<WIDTH>();
                for (p, ((row, centre), sum)) in wholes.iter().zip(centres).zip(sums).enumerate() {
                    let off: [f64; WIDTH] = std::array::from_fn(|i| f64::from(row[i]) - centre[i]);
                    for (s, o) in sum.iter_mut().zip(off) {
                        *s += o;
                    }
                    take(r, p * WIDTH, &off);
                }
                for (j, ((v, c), s)) in rest.iter().zip(centre_rest).zip(sum_rest).enumerate() {
                    let off = f64::from(*v) - c;
                    *s += off;
                    take(r, wholes.len() * WIDTH + j, &[off]);
                }
            }
        },
    );
}

/// Class means and the scatter matrix about them; sums in f64.
#[derive(Debug, Clone)]
pub struct Moments {
    means: ClassMeans,
    /// Lower triangle of Σ (z − c_k)(z − c_k)ᵀ.
    scatter: Vec<f64>,
}

impl Moments {
    /// No rows yet.
    pub fn new(d: usize, classes: usize) -> Self {
        Moments { means: ClassMeans::new(d, classes), scatter: vec![0.0; d * d] }
    }

    /// Rows to hand to [`Moments::update`] at a time: 8 MiB of f32.
    pub fn block_rows(d: usize) -> usize {
        ((1 << 21) / d).clamp(256, 1 << 14)
    }

    /// Add `rows` (`[n, d]`) with a label below K each, on the current pool.
    pub fn update(&mut self, rows: &[f32], labels: &[u32]) {
        let d = self.means.d;
        self.means.fix_centres(rows, labels);
        gram::with_panels(|panels| {
            for (rows, labels) in rows.chunks(gram::ROWS * d).zip(labels.chunks(gram::ROWS)) {
                self.means.update_into(rows, labels, panels);
                panels.add_gram(&mut self.scatter, d, 1.0);
            }
        });
    }

    fn settle(&mut self) {
        let moved = self.means.settle();
        add_gram(&mut self.scatter, &moved, self.means.d, -1.0);
    }

    /// Add the rows of another, as if they followed this one's.
    pub fn merge(&mut self, other: &Moments) {
        let mut other = other.clone();
        self.settle();
        other.settle();
        let rows = self.means.combine(&other.means);
        add_gram(&mut self.scatter, &rows, self.means.d, 1.0);
        for (s, o) in self.scatter.iter_mut().zip(&other.scatter) {
            *s += o;
        }
    }

    /// Rows in each class.
    pub fn counts(&self) -> &[u64] {
        self.means.counts()
    }

    /// As [`ClassMeans::shape`].
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.means.shape()
    }

    /// The means, and the lower triangle of the scatter matrix, row after row.
    pub(crate) fn into_parts(mut self) -> (ClassMeans, Vec<f64>) {
        self.settle();
        let rows = self.scatter.chunks_exact(self.means.d).enumerate();
        let triangle = rows.flat_map(|(i, row)| &row[..=i]).copied().collect();
        (self.means, triangle)
    }

    /// Of such parts; `None` if they do not fit each other.
    pub(crate) fn of_parts(means: ClassMeans, triangle: &[f64]) -> Option<Self> {
        let d = means.d;
        if triangle.len() != d * (d + 1) / 2 {
            return None;
        }
        let mut scatter = vec![0.0; d * d];
        for (i, row) in scatter.chunks_exact_mut(d).enumerate() {
            row[..=i].copy_from_slice(&triangle[i * (i + 1) / 2..][..=i]);
        }
        Some(Moments { means, scatter })
    }

    /// Those of some classes; the others must have no rows.
    pub(crate) fn of_classes(self, classes: &[usize]) -> Option<Self> {
        let all: u64 = self.counts().iter().sum();
        let (means, triangle) = self.into_parts();
        let means = means.of_classes(classes)?;
        if means.counts().iter().sum::<u64>() != all {
            return None;
        }
        Self::of_parts(means, &triangle)
    }

    /// Class means `[K, d]` and the pooled covariance `[d, d]`, divided by N.
    pub fn finish(mut self) -> (Vec<f64>, Vec<f64>) {
        self.settle();
        let d = self.means.d;
        let n: u64 = self.counts().iter().sum();
        for v in &mut self.scatter {
            *v /= n.max(1) as f64;
        }
        symmetrize(&mut self.scatter, d);
        (self.means.centre, self.scatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(n: usize, d: usize) -> (Vec<f32>, Vec<u32>) {
        let value = |i: u32| (i.wrapping_mul(2_654_435_761) % 4001) as f32 / 500.0 + 100.0;
        let labels = (0..n as u32).map(|i| i.wrapping_mul(40_503) % 7 % 3).collect();
        ((0..(n * d) as u32).map(value).collect(), labels)
    }

    /// Two passes, the textbook way.
    fn naive(rows: &[f32], labels: &[u32], d: usize) -> (Vec<f64>, Vec<f64>) {
        let mut mean = vec![0.0; 3 * d];
        for k in 0..3 {
            let of_k = || rows.chunks(d).zip(labels).filter(|(_, l)| **l as usize == k);
            for j in 0..d {
                mean[k * d + j] =
                    of_k().map(|(r, _)| f64::from(r[j])).sum::<f64>() / of_k().count() as f64;
            }
        }
        let mut cov = vec![0.0; d * d];
        for (r, &l) in rows.chunks(d).zip(labels) {
            let c = |j: usize| f64::from(r[j]) - mean[l as usize * d + j];
            for i in 0..d {
                for j in 0..d {
                    cov[i * d + j] += c(i) * c(j) / labels.len() as f64;
                }
            }
        }
        (mean, cov)
    }

    fn close(a: &[f64], b: &[f64]) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= 1e-10 * b.abs().max(1.0), "{a} {b}");
        }
    }

    #[test]
    fn blocks_and_merges_equal_two_passes() {
        let (n, d) = (500, 70);
        let (rows, labels) = data(n, d);
        let want = naive(&rows, &labels, d);
        let fit = |from: usize, to: usize, step: usize| {
            let mut m = Moments::new(d, 3);
            for start in (from..to).step_by(step) {
                let end = (start + step).min(to);
                m.update(&rows[start * d..end * d], &labels[start..end]);
            }
            m
        };
        for step in [1, 37, 500] {
            let (mean, cov) = fit(0, n, step).finish();
            close(&mean, &want.0);
            close(&cov, &want.1);
        }
        let mut left = fit(0, 200, 50);
        left.merge(&fit(200, n, 100));
        left.merge(&Moments::new(d, 3));
        let (mean, cov) = left.finish();
        close(&mean, &want.0);
        close(&cov, &want.1);
        let mut means = ClassMeans::new(d, 3);
        means.update(&rows[..90 * d], &labels[..90]);
        means.update(&rows[90 * d..], &labels[90..]);
        assert_eq!(means.counts().iter().sum::<u64>(), n as u64);
        close(&means.finish(), &want.0);
    }
}
