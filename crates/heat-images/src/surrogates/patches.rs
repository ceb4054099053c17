//! Images whose parts are others': patches in another order, two images in one, a window enlarged,
//! a turn.

use crate::{Filter, Image, transform};
use heat_ood::Result;
use heat_ood::math::rng::Stream;

/// An order of `n` things, at least two, that is not their own.
pub(super) fn another_order(n: u32, stream: &mut Stream) -> Vec<u32> {
    loop {
        let order = stream.permutation(n);
        if order.iter().zip(0..).any(|(at, own)| *at != own) {
            return order;
        }
    }
}

/// k×k patches, row by row; in the place of patch `i` lies patch `order[i]`.
///
/// Where a side is no multiple of k the patches differ by one pixel: then a place takes as much
/// as it has room for, from where the other patch begins (or as far in as fits), so that nothing is resampled.
pub(super) fn rearranged(image: &Image, k: usize, order: &[u32]) -> Image {
    let border = |side: usize, i: usize| (2 * side * i + k) / (2 * k);
    let mut out = image.clone();
    let width = image.width * 3;
    for (to, from) in order.iter().enumerate() {
        let from = *from as usize;
        let place = |side: usize, to: usize, from: usize| {
            let start = border(side, to);
            let length = border(side, to + 1) - start;
            (start, border(side, from).min(side - length), length)
        };
        let (y, from_y, rows) = place(image.height, to / k, from / k);
        let (x, from_x, columns) = place(image.width, to % k, from % k);
        for row in 0..rows {
            let source = (from_y + row) * width + from_x * 3;
            let target = (y + row) * width + x * 3;
            let pixels = &image.rgb[source..source + columns * 3];
            out.rgb[target..target + columns * 3].copy_from_slice(pixels);
        }
    }
    out
}

/// The mean of two images of one size, halves rounded up.
pub(super) fn mean(a: &Image, b: &Image) -> Image {
    let mean = |(a, b): (&u8, &u8)| (u16::from(*a) + u16::from(*b)).div_ceil(2) as u8;
    Image { rgb: a.rgb.iter().zip(&b.rgb).map(mean).collect(), ..*a }
}

/// The left or the upper half of one image, and the other half of another of its size.
pub(super) fn halves(a: &Image, b: &Image, beside: bool) -> Image {
    let mut out = a.clone();
    let width = a.width * 3;
    if beside {
        let left = a.width / 2 * 3;
        let rows = out.rgb.chunks_exact_mut(width).zip(b.rgb.chunks_exact(width));
        rows.for_each(|(out, b)| out[left..].copy_from_slice(&b[left..]));
    } else {
        let upper = a.height / 2 * width;
        out.rgb[upper..].copy_from_slice(&b.rgb[upper..]);
    }
    out
}

/// A quarter of each side, from that row and column on, enlarged to the whole.
pub(super) fn enlarged(image: &Image, top: usize, left: usize) -> Result<Image> {
    let (height, width) = (image.height / 4, image.width / 4);
    let rows = image.rgb.chunks_exact(image.width * 3).skip(top).take(height);
    let rgb = rows.flat_map(|row| &row[left * 3..][..width * 3]).copied().collect();
    transform::resized(&Image { width, height, rgb }, image.width, image.height, Filter::Bilinear)
}

/// Turned to the left by that many right angles; where that makes an upright image of a lying one,
/// resized to the size that it had.
pub(super) fn turned(image: &Image, quarters: u32) -> Result<Image> {
    let mut now = image.clone();
    for _ in 0..quarters {
        let Image { width, height, rgb } = &now;
        let (width, height) = (*width, *height);
        let pixel = |x: usize, y: usize| &rgb[(y * width + x) * 3..][..3];
        let columns = (0..width).rev();
        let turned = columns.flat_map(|x| (0..height).flat_map(move |y| pixel(x, y))).copied();
        now = Image { rgb: turned.collect(), width: height, height: width };
    }
    if now.width == image.width {
        return Ok(now);
    }
    transform::resized(&now, image.width, image.height, Filter::Bilinear)
}
