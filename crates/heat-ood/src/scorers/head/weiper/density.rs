//! Histograms of the values of a row, and how far one is from the training
//! rows' mean.

/// Smallest and largest value.
pub(super) type Range = [f32; 2];

/// Of no values.
pub(super) const EMPTY: Range = [f32::INFINITY, f32::NEG_INFINITY];

/// Make `range` hold `values`.
pub(super) fn widen(range: &mut Range, values: &[f32]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            // One smallest and one largest would wait for each comparison.
            let (mut low, mut high) = ([range[0]; 32], [range[1]; 32]);
            for values in values.chunks(32) {
                for ((low, high), &v) in low.iter_mut().zip(&mut high).zip(values) {
                    *low = if v < *low { v } else { *low };
                    *high = if v > *high { v } else { *high };
                }
            }
            let low = low.into_iter().fold(range[0], f32::min);
            *range = [low, high.into_iter().fold(range[1], f32::max)];
        },
    );
}

/// Counts of values in equal bins of a range; others are left out.
#[derive(Clone)]
pub(super) struct Histogram {
    low: f64,
    high: f64,
    scale: f64,
    pub counts: Vec<u64>,
}

impl Histogram {
    pub fn new([low, high]: Range, bins: usize) -> Self {
        let (low, high) = (f64::from(low), f64::from(high));
        let scale = if high > low { bins as f64 / (high - low) } else { 0.0 };
        Histogram { low, high, scale, counts: vec![0; bins] }
    }

    /// One of the same bins without counts.
    pub fn emptied(&self) -> Self {
        Histogram { counts: vec![0; self.counts.len()], ..*self }
    }

    pub fn count(&mut self, values: &[f32]) {
        let (bins, scale) = (self.counts.len() as i32, self.scale);
        let mut at = [0i32; 64];
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for values in values.chunks(64) {
                    // Bins are found many at a time, and counted one after the other.
                    for (at, &v) in at.iter_mut().zip(values) {
                        let v = f64::from(v);
                        let bin = (((v - self.low) * scale) as i32).min(bins - 1);
                        *at = if v >= self.low && v <= self.high { bin } else { bins };
                    }
                    for &at in &at[..values.len()] {
                        if let Some(count) = self.counts.get_mut(at as usize) {
                            *count += 1;
                        }
                    }
                }
            },
        );
    }

    /// Add the counts of another.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }

    /// The fraction of each bin.
    pub fn shares(&self) -> Vec<f64> {
        let total = self.counts.iter().sum::<u64>().max(1) as f64;
        self.counts.iter().map(|&n| n as f64 / total).collect()
    }
}

/// The mean histogram of the training rows, and how others are compared with it.
pub(super) struct Density {
    smoothing: usize,
    floor: f64,
    p: Vec<f64>,
    log_p: Vec<f64>,
}

impl Density {
    /// Of the mean `shares`; `floor` is ε.
    pub fn new(shares: &[f64], floor: f64, smoothing: usize) -> Self {
        let mut p: Vec<f64> = shares.iter().map(|v| v + floor).collect();
        let total: f64 = p.iter().sum();
        p.iter_mut().for_each(|v| *v /= total);
        let log_p = p.iter().map(|v| v.ln()).collect();
        Density { smoothing, floor, p, log_p }
    }

    /// The divergence of a histogram of a row of `total` values.
    pub fn divergence(&self, counts: &[u64], total: usize, q: &mut Vec<f64>) -> f64 {
        // A window of s bins from (s−1)/2 before; the ends are repeated.
        let (bins, s) = (counts.len() as isize, self.smoothing as isize);
        let at = |i: isize| counts[i.clamp(0, bins - 1) as usize] as f64;
        let before = (s - 1) / 2;
        let mut window: f64 = (-before..s - before).map(at).sum();
        let scale = 1.0 / (s as f64 * total as f64);
        q.clear();
        for i in 0..bins {
            q.push(window * scale + self.floor);
            // Counts are whole numbers: the sum is exact.
            window += at(i + s - before) - at(i - before);
        }
        let sum: f64 = q.iter().sum();
        let terms = q.iter().zip(self.p.iter().zip(&self.log_p));
        terms.map(|(q, (p, log_p))| (p - q / sum) * (log_p - (q / sum).ln())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bins [0, 1), [1, 2), [2, 3), [3, 4]; by hand.
    #[test]
    fn ends_belong_to_bins_and_others_to_none() {
        let mut h = Histogram::new([0.0, 4.0], 4);
        h.count(&[0.0, 0.5, 1.0, 3.99, 4.0, 4.01, -0.01]);
        assert_eq!(h.counts, [2, 1, 0, 2]);
        assert_eq!(h.shares(), [0.4, 0.2, 0.0, 0.4]);
    }

    /// Shares (4, 0, 0)/4 in windows of 2, the bin and the next: (½, 0, 0) and
    /// the mean (½, ½, 0) with ε = ½ are q = (1, ½, ½)/2 and p = (1, 1, ½)/2.5;
    /// Σ (p−q)(ln p − ln q), by hand.
    #[test]
    fn divergence_by_hand() {
        let density = Density::new(&[0.5, 0.5, 0.0], 0.5, 2);
        let got = density.divergence(&[4, 0, 0], 4, &mut Vec::new());
        let want = -0.1 * 0.8f64.ln() + 0.15 * 1.6f64.ln() - 0.05 * 0.8f64.ln();
        assert!((got - want).abs() < 1e-15, "{got} {want}");
    }
}
