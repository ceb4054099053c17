//! Class means and the pooled scatter matrix, in one pass.
//!
//! Kept *centred*: raw Σzzᵀ − nμμᵀ would lose the small eigenvalues, which
//! decide the Gaussian scores. Blocks are combined by the rule of Chan, Golub
//! and LeVeque (1979): for each class, the scatter about the joint mean is the
//! sum of both scatters plus nₐn_b/(nₐ+n_b)·δδᵀ, δ the difference of the means.

use rayon::prelude::*;

use super::linalg::{add_gram, symmetrize};

/// Statistics of rows in `K` classes; sums in f64.
#[derive(Debug, Clone)]
pub struct Moments {
    d: usize,
    count: Vec<u64>,
    mean: Vec<f64>,
    scatter: Vec<f64>,
    work: Vec<f64>,
}

impl Moments {
    /// No rows yet.
    pub fn new(d: usize, classes: usize) -> Self {
        Moments {
            d,
            count: vec![0; classes],
            mean: vec![0.0; classes * d],
            scatter: vec![0.0; d * d],
            work: Vec::new(),
        }
    }

    /// Rows to hand to [`Moments::update`] at a time: 64 MiB of f64.
    pub fn block_rows(d: usize) -> usize {
        ((1 << 23) / d).clamp(256, 1 << 14)
    }

    /// Add `rows` (`[n, d]`) with a label below K each, on the current pool.
    pub fn update(&mut self, rows: &[f32], labels: &[u32]) {
        let d = self.d;
        let mut count = vec![0u64; self.count.len()];
        let mut mean = vec![0.0; self.mean.len()];
        for &l in labels {
            count[l as usize] += 1;
        }
        // Sums of a column do not depend on how columns are dealt to threads.
        let columns = 64;
        let sums: Vec<Vec<f64>> = (0..d.div_ceil(columns))
            .into_par_iter()
            .map(|c| {
                let range = c * columns..((c + 1) * columns).min(d);
                let mut sum = vec![0.0; count.len() * range.len()];
                for (row, &l) in rows.chunks_exact(d).zip(labels) {
                    let sum = &mut sum[l as usize * range.len()..][..range.len()];
                    for (s, &v) in sum.iter_mut().zip(&row[range.clone()]) {
                        *s += f64::from(v);
                    }
                }
                sum
            })
            .collect();
        for (c, sum) in sums.iter().enumerate() {
            let width = columns.min(d - c * columns);
            for (k, sum) in sum.chunks_exact(width).enumerate() {
                for (j, s) in sum.iter().enumerate() {
                    mean[k * d + c * columns + j] = s / count[k].max(1) as f64;
                }
            }
        }
        let mut work = std::mem::take(&mut self.work);
        work.resize(rows.len(), 0.0);
        work.par_chunks_mut(d).zip(rows.par_chunks(d)).zip(labels).for_each(|((out, row), &l)| {
            let mean = &mean[l as usize * d..][..d];
            for ((o, &v), m) in out.iter_mut().zip(row).zip(mean) {
                *o = f64::from(v) - m;
            }
        });
        self.combine(&count, &mean, &mut work);
        add_gram(&mut self.scatter, &work, d);
        self.work = work;
    }

    /// Add the rows of another, as if they followed this one's.
    pub fn merge(&mut self, other: &Moments) {
        let mut work = Vec::new();
        self.combine(&other.count, &other.mean, &mut work);
        add_gram(&mut self.scatter, &work, self.d);
        for (s, o) in self.scatter.iter_mut().zip(&other.scatter) {
            *s += o;
        }
    }

    /// Update counts and means; append to `work` the row √(nₐn_b/(nₐ+n_b))·δ of
    /// every class present on both sides.
    fn combine(&mut self, count: &[u64], mean: &[f64], work: &mut Vec<f64>) {
        let d = self.d;
        for (k, &nb) in count.iter().enumerate().filter(|(_, n)| **n > 0) {
            let na = self.count[k];
            let (na_f, nb_f) = (na as f64, nb as f64);
            let total = na_f + nb_f;
            let weight = (na_f * nb_f / total).sqrt();
            let theirs = &mean[k * d..][..d];
            let ours = &mut self.mean[k * d..][..d];
            if na > 0 {
                work.extend(theirs.iter().zip(ours.iter()).map(|(b, a)| weight * (b - a)));
            }
            for (a, b) in ours.iter_mut().zip(theirs) {
                *a += (b - *a) * (nb_f / total);
            }
            self.count[k] = na + nb;
        }
    }

    /// Rows in each class.
    pub fn counts(&self) -> &[u64] {
        &self.count
    }

    /// Class means `[K, d]` and the pooled covariance `[d, d]`, divided by N.
    pub fn finish(mut self) -> (Vec<f64>, Vec<f64>) {
        let n: u64 = self.count.iter().sum();
        for v in &mut self.scatter {
            *v /= n.max(1) as f64;
        }
        symmetrize(&mut self.scatter, self.d);
        (self.mean, self.scatter)
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
    }
}
