//! Components that have fewer samples than the image: the triangle filter where one sample stands
//! for two across, down or both ways; repetition otherwise, and where there are at most two across.

use super::{Component, idct};
use crate::decode::Checked;

/// A component's samples, and one row of the image's.
pub(super) struct Upsampler {
    samples: Vec<u8>,
    /// Of a row of them.
    stride: usize,
    width: usize,
    height: usize,
    /// How many pixels a sample stands for.
    across: usize,
    down: usize,
    row: Vec<u8>,
    /// Sums of two rows.
    sums: Vec<u16>,
    /// Pixels of a row.
    pixels: usize,
}

impl Upsampler {
    pub fn new(component: Component, most: [usize; 2], pixels: usize) -> Checked<Self> {
        let [h, v] = component.sampling;
        if !most[0].is_multiple_of(h) || !most[1].is_multiple_of(v) {
            return Err("a JPEG file whose colours are sampled by fractions: save it again".into());
        }
        let quantisation = component.quantisation.unwrap_or([1; 64]);
        let [columns, rows] = component.blocks;
        let stride = 8 * columns;
        let mut samples = vec![0; stride * 8 * rows];
        for (i, block) in component.coefficients.iter().enumerate() {
            let at = i / columns * 8 * stride + i % columns * 8;
            let values = idct::samples(block, &quantisation);
            for (y, row) in values.as_chunks::<8>().0.iter().enumerate() {
                samples[at + y * stride..][..8].copy_from_slice(row);
            }
        }
        let (across, down) = (most[0] / h, most[1] / v);
        let (width, height) = (component.width, component.height);
        let row = vec![0; (width * across).max(pixels)];
        Ok(Upsampler {
            samples,
            stride,
            width,
            height,
            across,
            down,
            row,
            sums: vec![0; width],
            pixels,
        })
    }

    /// The row made last.
    pub fn row(&self) -> &[u8] {
        &self.row[..self.pixels]
    }

    /// Make row `y` of the image.
    pub fn go_to(&mut self, y: usize) {
        let own = (y / self.down).min(self.height - 1);
        // The nearest other row: above for the upper of two pixels, below for the lower.
        let upper = y.is_multiple_of(2);
        let other = if upper { own.saturating_sub(1) } else { (own + 1).min(self.height - 1) };
        let line = |y: usize| &self.samples[y * self.stride..][..self.width];
        let (near, far) = (line(own), line(other));
        let wide = self.width > 2;
        match (self.across, self.down) {
            (1, 1) => self.row[..self.width].copy_from_slice(near),
            (1, 2) => {
                let bias = if upper { 1 } else { 2 };
                for ((out, a), b) in self.row.iter_mut().zip(near).zip(far) {
                    *out = ((3 * u16::from(*a) + u16::from(*b) + bias) >> 2) as u8;
                }
            }
            (2, 1) if wide => {
                self.sums.iter_mut().zip(near).for_each(|(s, v)| *s = (*v).into());
                triangle(&self.sums, &mut self.row, [1, 2], 2);
            }
            (2, 2) if wide => {
                let pairs = near.iter().zip(far);
                self.sums
                    .iter_mut()
                    .zip(pairs)
                    .for_each(|(s, (a, b))| *s = 3 * u16::from(*a) + u16::from(*b));
                triangle(&self.sums, &mut self.row, [8, 7], 4);
            }
            (across, _) => {
                for (out, v) in self.row.chunks_mut(across).zip(near) {
                    out.fill(*v);
                }
            }
        }
    }
}

/// Two pixels of each sum: three quarters of it and a quarter of the next to that side.
fn triangle(sums: &[u16], out: &mut [u8], bias: [u16; 2], shift: u32) {
    let last = sums.len() - 1;
    for (i, (sum, out)) in sums.iter().zip(out.as_chunks_mut::<2>().0).enumerate() {
        let (left, right) = (sums[i.saturating_sub(1)], sums[(i + 1).min(last)]);
        *out = [
            ((3 * sum + left + bias[0]) >> shift) as u8,
            ((3 * sum + right + bias[1]) >> shift) as u8,
        ];
    }
}
