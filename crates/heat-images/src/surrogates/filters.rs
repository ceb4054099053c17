//! Images whose values are changed where they are: blurred, inverted, noisy, their edges.

use crate::Image;

/// The nearest byte, halves to the even one.
pub(super) fn byte(value: f64) -> u8 {
    value.round_ties_even().clamp(0.0, 255.0) as u8
}

/// Convolved with a Gaussian of that deviation in pixels, cut at four deviations; beyond the borders
/// the outermost pixels go on.
pub(super) fn blurred(image: &Image, deviation: f64) -> Image {
    let reach = (4.0 * deviation + 0.5) as isize;
    let weight = |x: isize| (-0.5 * (x as f64 / deviation).powi(2)).exp();
    let total: f64 = (-reach..=reach).map(weight).sum();
    let weights: Vec<f64> = (-reach..=reach).map(|x| weight(x) / total).collect();
    let values: Vec<f64> = image.rgb.iter().map(|v| f64::from(*v)).collect();
    let down = along_columns(&values, image.width, image.height, &weights);
    let turned = transposed(&down, image.width, image.height);
    let across = along_columns(&turned, image.height, image.width, &weights);
    let out = transposed(&across, image.height, image.width);
    Image { rgb: out.into_iter().map(byte).collect(), ..*image }
}

/// Each column of pixels convolved with these weights, an odd number of them.
fn along_columns(values: &[f64], width: usize, height: usize, weights: &[f64]) -> Vec<f64> {
    let (row, reach) = (width * 3, weights.len() / 2);
    let mut out = vec![0.0; values.len()];
    for (y, out) in out.chunks_exact_mut(row.max(1)).enumerate() {
        for (k, weight) in weights.iter().enumerate() {
            let from = (y + k).saturating_sub(reach).min(height - 1);
            let source = &values[from * row..][..row];
            out.iter_mut().zip(source).for_each(|(out, v)| *out += weight * v);
        }
    }
    out
}

/// Columns of pixels as rows.
fn transposed(values: &[f64], width: usize, height: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(values.len());
    for x in 0..width {
        (0..height).for_each(|y| out.extend(&values[(y * width + x) * 3..][..3]));
    }
    out
}

/// Each value from the other end.
pub(super) fn inverted(image: &Image) -> Image {
    Image { rgb: image.rgb.iter().map(|v| 255 - v).collect(), ..*image }
}

/// With that times `deviation` added to each value.
pub(super) fn noisy(image: &Image, noise: &[f32], deviation: f64) -> Image {
    let add = |(v, n): (&u8, &f32)| byte(f64::from(*v) + deviation * f64::from(*n));
    Image { rgb: image.rgb.iter().zip(noise).map(add).collect(), ..*image }
}

/// Four times the length of the gradient, of each channel: central differences, one-sided at the
/// borders.
pub(super) fn edges(image: &Image) -> Image {
    let (width, height) = (image.width, image.height);
    let value = |x: usize, y: usize, c: usize| f64::from(image.rgb[(y * width + x) * 3 + c]);
    // The two neighbours, and how far apart they are.
    let beside = |at: usize, side: usize| {
        let (low, high) = (at.saturating_sub(1), (at + 1).min(side - 1));
        (low, high, (high - low).max(1) as f64)
    };
    let mut rgb = Vec::with_capacity(image.rgb.len());
    for y in 0..height {
        let (above, below, rows) = beside(y, height);
        for x in 0..width {
            let (left, right, columns) = beside(x, width);
            for c in 0..3 {
                let dx = (value(right, y, c) - value(left, y, c)) / columns;
                let dy = (value(x, below, c) - value(x, above, c)) / rows;
                rgb.push(byte(4.0 * (dx * dx + dy * dy).sqrt()));
            }
        }
    }
    Image { rgb, ..*image }
}
