//! Images as the network gets them, seen otherwise.

use heat_ood::Result;
use heat_ood::features::View;
use heat_ood::math::rng::{Purpose, Stream};

use crate::TransformConfig;

/// That view of images `[n, 3, height, width]`, normalised as `transform` says, as it is passed through
/// the network the first time (`pass` 0), or a further time.
///
/// - `mirror`: left and right exchanged.
/// - `bitsN`: r(x·s)/s, s = 2ᴺ − 1, of values x in 0..1, r to the nearest whole number.
/// - `medianN`: of N × N pixels, those above and to the left of the one in the middle, which of an
///   even number is the greater of the two; beyond the edge the image is reflected.
/// - `nudgedN`: `nudged` tells, to which the network is known.
/// - `noiseNxK`: with noise, uniform within ±N/1000, the same for all images and another in each of K passes.
/// - `dropoutK`: as they are; it is the network that drops.
///
/// # Errors
/// Those of `nudged`.
///
/// Reference: the code of Xu, Evans, Qi, *Feature Squeezing*, NDSS 2018, and SciPy's
/// `ndimage.median_filter`, which it calls.
pub(crate) fn seen(
    view: View,
    pass: u32,
    images: &[f32],
    [.., height, width]: [usize; 4],
    transform: &TransformConfig,
    nudged: impl FnOnce(u32) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let plane = (height * width).max(1);
    Ok(match view {
        View::Nudged(percent) => nudged(percent)?,
        View::Dropout(_) => images.to_vec(),
        View::Noise { thousandths, .. } => {
            let bound = thousandths as f32 / 1000.0;
            let mut noise = vec![0.0; 3 * plane];
            Stream::new(0, Purpose::Images, pass.into(), 0).fill_uniform(&mut noise, -bound, bound);
            images.iter().zip(noise.iter().cycle()).map(|(v, noise)| v + noise).collect()
        }
        View::Mirror => {
            images.chunks_exact(width.max(1)).flat_map(|row| row.iter().rev().copied()).collect()
        }
        View::Bits(bits) => {
            let steps = ((1u32 << bits) - 1) as f32;
            let mut out = images.to_vec();
            for (i, plane) in out.chunks_exact_mut(plane).enumerate() {
                let (mean, std) = (transform.mean[i % 3], transform.std[i % 3]);
                for v in plane {
                    let squeezed = ((*v * std + mean) * steps).round_ties_even() / steps;
                    *v = (squeezed - mean) / std;
                }
            }
            out
        }
        View::Median(side) => images
            .chunks_exact(plane)
            .flat_map(|plane| median(plane, width, side as usize))
            .collect(),
    })
}

/// The place that stands for `i` in a row of `n` cells that is reflected at both ends.
fn reflected(i: isize, n: usize) -> usize {
    let n = n as isize;
    let i = i.rem_euclid(2 * n);
    (if i < n { i } else { 2 * n - 1 - i }) as usize
}

fn median(plane: &[f32], width: usize, side: usize) -> Vec<f32> {
    let height = plane.len() / width.max(1);
    let places = |i: usize, n: usize| -> Vec<usize> {
        let first = i as isize - (side / 2) as isize;
        (first..first + side as isize).map(|i| reflected(i, n)).collect()
    };
    let columns: Vec<_> = (0..width).map(|x| places(x, width)).collect();
    let mut window = Vec::with_capacity(side * side);
    let mut out = Vec::with_capacity(plane.len());
    for y in 0..height {
        let rows = places(y, height);
        for columns in &columns {
            window.clear();
            for row in &rows {
                window.extend(columns.iter().map(|x| plane[row * width + x]));
            }
            let middle = window.len() / 2;
            out.push(*window.select_nth_unstable_by(middle, f32::total_cmp).1);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A view that needs no network.
    fn seen(view: View, images: &[f32], shape: [usize; 4], by: &TransformConfig) -> Vec<f32> {
        super::seen(view, 0, images, shape, by, |_| unreachable!()).unwrap()
    }

    fn plain() -> TransformConfig {
        TransformConfig { mean: [0.0; 3], std: [1.0; 3], ..TransformConfig::imagenet() }
    }

    fn image(values: &[f32]) -> Vec<f32> {
        values.repeat(3)
    }

    /// SciPy 1.17.1: `ndimage.median_filter(x, size=(N, N))` (mode `reflect`).
    #[test]
    fn medians_as_by_scipy() {
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0];
        for (side, want) in [
            (2, [3.0, 3.0, 4.0, 4.0, 5.0, 5.0, 4.0, 4.0, 5.0, 5.0, 5.0, 6.0]),
            (3, [3.0, 3.0, 2.0, 2.0, 5.0, 4.0, 4.0, 5.0, 5.0, 5.0, 5.0, 6.0]),
            (5, [4.0, 4.0, 4.0, 4.0, 3.0, 4.0, 4.0, 4.0, 5.0, 5.0, 5.0, 5.0]),
            (15, [4.0, 4.0, 4.0, 4.0, 4.0, 5.0, 5.0, 4.0, 5.0, 5.0, 5.0, 5.0]),
        ] {
            let got = seen(View::Median(side), &image(&values), [1, 3, 3, 4], &plain());
            assert_eq!(got, image(&want), "{side}");
        }
    }

    /// NumPy: `np.rint(x * 3) / 3` of 0, 0.2, 0.5 (even: 2), 0.9; normalised alike.
    #[test]
    fn bits_and_mirror_by_hand() {
        let values = [0.0, 0.2, 0.5, 0.9];
        let third = 1.0 / 3.0;
        let got = seen(View::Bits(2), &image(&values), [1, 3, 2, 2], &plain());
        assert_eq!(got, image(&[0.0, third, 2.0 * third, 1.0]));
        let transform = TransformConfig::imagenet();
        let normalised = |values: &[f32]| -> Vec<f32> {
            let channels = (0..3).flat_map(|c| {
                let (mean, std) = (transform.mean[c], transform.std[c]);
                values.iter().map(move |v| (v - mean) / std)
            });
            channels.collect()
        };
        let got = seen(View::Bits(2), &normalised(&values), [1, 3, 2, 2], &transform);
        for (got, want) in got.iter().zip(normalised(&[0.0, third, 2.0 * third, 1.0])) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        // Eight bits are what bytes have.
        let bytes: Vec<f32> = (0..=255u8).map(|b| f32::from(b) / 255.0).collect();
        assert_eq!(seen(View::Bits(8), &image(&bytes), [1, 3, 16, 16], &plain()), image(&bytes));
        let got = seen(View::Mirror, &image(&values), [1, 3, 2, 2], &plain());
        assert_eq!(got, image(&[0.2, 0.0, 0.9, 0.5]));
    }

    /// The same for every image, whatever comes beside it; another in each pass; within its bound.
    #[test]
    fn noise_is_that_of_its_pass() {
        let view = View::Noise { thousandths: 8, samples: 2 };
        let of = |pass, images: &[f32]| {
            let shape = [images.len() / 12, 3, 2, 2];
            super::seen(view, pass, images, shape, &plain(), |_| unreachable!()).unwrap()
        };
        let zeros = of(0, &[0.0; 24]);
        assert_eq!(zeros[..12], zeros[12..]);
        assert_eq!(zeros[..12], of(0, &[0.0; 12]));
        assert!(zeros.iter().all(|v| v.abs() <= 0.008) && zeros.iter().any(|v| v.abs() > 0.004));
        let more = of(1, &[0.0; 12]);
        assert!(more.iter().zip(&zeros).all(|(a, b)| a != b));
        let ones = of(1, &[1.0; 12]);
        assert!(ones.iter().zip(&more).all(|(a, b)| *a == 1.0 + b));
    }
}
