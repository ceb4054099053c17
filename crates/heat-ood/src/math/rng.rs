//! Counter-based random streams.
//!
//! A stream is named by (seed, purpose, a, b): for example the noise of step
//! `a` for row block `b`. Two different names give independent streams, and a
//! name always gives the same numbers, whichever thread asks and in whichever
//! order. The generator is ChaCha8 keyed by the name.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// What a stream is for; part of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights.
    Init = 1,
    /// Order of the rows in an epoch.
    Shuffle = 2,
    /// Proposals of the chains.
    Proposal = 3,
    /// Langevin noise.
    Langevin = 4,
    /// Noise added to the inputs of the loss.
    Input = 5,
    /// Choices made once per batch.
    Batch = 6,
    /// Anything a caller wants.
    User = 7,
    /// First centroids of K-means, and the rows they are fitted on.
    Clusters = 9,
    /// Rows scored with classes held out.
    HoldOut = 10,
    /// Starting points taken from the replay buffer.
    Replay = 11,
    /// Choices of rows and classes.
    Subset = 16,
    /// Ties of p-values.
    Ties = 20,
    /// Outliers made of ordinary rows.
    Outliers = 21,
    /// Rows of a bootstrap's resamples.
    Resample = 19,
    /// Rows that stand for the training set.
    Reference = 17,
    /// Random projections: frequencies, perturbed weights.
    Projection = 18,
    /// Images made of ordinary images: which, and how.
    Surrogates = 22,
    /// Noise on images as the network gets them.
    Images = 23,
    /// Which rows of given sets are negatives.
    Negatives = 30,
    /// Activations that dropout sets to zero.
    Dropout = 31,
}

/// A stream of random numbers.
pub struct Stream(ChaCha8Rng);

const CHUNK: usize = 256;

impl Stream {
    /// The stream of that name.
    pub fn new(seed: u64, purpose: Purpose, a: u64, b: u64) -> Self {
        let mut key = [0u8; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Stream(ChaCha8Rng::from_seed(key))
    }

    fn words(&mut self, out: &mut [u32; CHUNK]) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(out);
        self.0.fill_bytes(bytes);
        for w in out {
            *w = u32::from_le(*w);
        }
    }

    /// Uniform on [0, 1) with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform on 0..n without bias (Lemire, 2019).
    pub fn below(&mut self, n: u32) -> u32 {
        let threshold = n.wrapping_neg() % n;
        loop {
            let wide = u64::from(self.0.next_u32()) * u64::from(n);
            if wide as u32 >= threshold {
                return (wide >> 32) as u32;
            }
        }
    }

    /// A uniformly random order of 0..n.
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i as usize, self.below(i + 1) as usize);
        }
        order
    }

    /// Fill with uniforms on [low, high).
    pub fn fill_uniform(&mut self, out: &mut [f32], low: f32, high: f32) {
        let mut words = [0; CHUNK];
        for out in out.chunks_mut(CHUNK) {
            self.words(&mut words);
            for (o, w) in out.iter_mut().zip(words) {
                *o = low + (high - low) * ((w >> 8) as f32 * (1.0 / 16_777_216.0));
            }
        }
    }

    /// Fill with standard normals (Box and Muller, 1958).
    ///
    /// Single precision with 32-bit uniforms: values reach ±6.66.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        let arch = crate::math::arch();
        let (mut a, mut b) = ([0; CHUNK], [0; CHUNK]);
        let mut pair = [0.0; 2 * CHUNK];
        for out in out.chunks_mut(2 * CHUNK) {
            self.words(&mut a);
            self.words(&mut b);
            arch.dispatch(
                #[inline(always)]
                || box_muller(&a, &b, &mut pair),
            );
            out.copy_from_slice(&pair[..out.len()]);
        }
    }
}

#[inline(always)]
fn box_muller(a: &[u32; CHUNK], b: &[u32; CHUNK], out: &mut [f32; 2 * CHUNK]) {
    let (left, right) = out.split_at_mut(CHUNK);
    for i in 0..CHUNK {
        let u = (a[i] as f32 + 1.0) * (1.0 / 4_294_967_296.0);
        let radius = (-2.0 * ln(u)).max(0.0).sqrt();
        let x = b[i] as i32 as f32 * (1.0 / 2_147_483_648.0);
        // sin πx and cos πx for x in [−1, 1], folded onto [−1/2, 1/2].
        let size = x.abs();
        let folded = if size > 0.5 { 1.0 - size } else { size };
        left[i] = radius * sin_pi(0.5 - size);
        right[i] = radius * sin_pi(folded).copysign(x);
    }
}

/// Natural logarithm of a normal positive number (Cephes `logf`), written
/// without branches or calls so that loops over it are vectorised.
#[inline(always)]
fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    // Mantissa in [√½, √2).
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = ((shifted as i32) >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    let mut p = 7.037_683_6e-2;
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.5e-1,
        3.333_333e-1,
    ] {
        p = p * m + c;
    }
    let z = m * m;
    (m * z * p - 0.5 * z) + m + exponent * std::f32::consts::LN_2
}

/// sin πy for |y| ≤ ½ (Taylor to degree 11: error below 6e-8).
#[inline(always)]
pub(crate) fn sin_pi(y: f32) -> f32 {
    let t = std::f32::consts::PI * y;
    let q = t * t;
    let mut p = -2.505_210_8e-8;
    for c in [2.755_732e-6, -1.984_127e-4, 8.333_334e-3, -1.666_666_7e-1] {
        p = p * q + c;
    }
    t + t * q * p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_and_sine_agree_with_the_standard_library() {
        for i in 1..100_000u32 {
            let x = i as f32 / 100_000.0;
            let want = f64::from(x).ln();
            assert!((f64::from(ln(x)) - want).abs() <= 2e-7 * want.abs().max(0.3), "ln {x}");
            let y = x - 0.5;
            let want = (std::f64::consts::PI * f64::from(y)).sin();
            assert!((f64::from(sin_pi(y)) - want).abs() <= 2e-7, "sin {y}");
        }
        assert!((f64::from(ln(2f32.powi(-32))) + 32.0 * std::f64::consts::LN_2).abs() < 4e-6);
    }

    /// Moments of the normal: 0, 1, 0, 3; 6σ/√n bounds for n = 2^20.
    #[test]
    fn normals_have_the_moments_and_tails_of_the_normal() {
        let mut x = vec![0.0; 1 << 20];
        Stream::new(1, Purpose::User, 2, 3).fill_normal(&mut x);
        let n = x.len() as f64;
        let moment = |p: i32| x.iter().map(|&v| f64::from(v).powi(p)).sum::<f64>() / n;
        assert!(moment(1).abs() < 6.0 / n.sqrt());
        assert!((moment(2) - 1.0).abs() < 6.0 * 2f64.sqrt() / n.sqrt());
        assert!(moment(3).abs() < 6.0 * 15f64.sqrt() / n.sqrt());
        assert!((moment(4) - 3.0).abs() < 6.0 * 96f64.sqrt() / n.sqrt());
        // P(|x| > 3) = 0.0026998.
        let tail = x.iter().filter(|v| v.abs() > 3.0).count() as f64 / n;
        assert!((tail - 0.002_699_8).abs() < 6.0 * (0.0027f64 / n).sqrt());
        // Neighbours and the two halves of a pair are uncorrelated.
        for lag in [1, CHUNK] {
            let c = x.windows(lag + 1).map(|w| f64::from(w[0] * w[lag])).sum::<f64>() / n;
            assert!(c.abs() < 6.0 / n.sqrt(), "lag {lag}: {c}");
        }
    }

    #[test]
    fn names_fix_the_numbers_and_differ() {
        let draw = |seed, purpose, a, b| {
            let mut x = [0.0; 700];
            Stream::new(seed, purpose, a, b).fill_normal(&mut x);
            x
        };
        let base = draw(1, Purpose::User, 0, 0);
        assert_eq!(base, draw(1, Purpose::User, 0, 0));
        for other in [
            draw(2, Purpose::User, 0, 0),
            draw(1, Purpose::Langevin, 0, 0),
            draw(1, Purpose::User, 1, 0),
            draw(1, Purpose::User, 0, 1),
        ] {
            assert!(base.iter().zip(other).filter(|(a, b)| **a == *b).count() < 5);
        }
    }

    #[test]
    fn permutations_are_permutations() {
        let mut p = Stream::new(5, Purpose::Shuffle, 0, 0).permutation(1000);
        assert_ne!(p, (0..1000).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..1000).collect::<Vec<_>>());
        assert!(Stream::new(5, Purpose::Shuffle, 0, 0).permutation(0).is_empty());
    }

    #[test]
    fn uniforms_fill_their_interval() {
        let mut x = vec![0.0; 100_000];
        Stream::new(1, Purpose::User, 0, 0).fill_uniform(&mut x, -4.0, -2.0);
        assert!(x.iter().all(|v| (-4.0..-2.0).contains(v)));
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / 1e5;
        assert!((mean + 3.0).abs() < 6.0 * (2.0 / 12f64.sqrt()) / 1e5f64.sqrt());
    }
}
