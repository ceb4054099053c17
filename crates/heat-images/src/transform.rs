//! Pixels to the network's input, as torchvision on Pillow images does it:
//! resize (antialiased), centre crop, to [0, 1], normalise.

use fast_image_resize::images::TypedImage;
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::{Filter, Image, Resize, TransformConfig};
use heat_ood::{Error, Result};

/// Largest side of what comes out.
const MAX_SIDE: usize = 1 << 14;

/// A checked [`TransformConfig`] with the memory it needs; one for each thread.
pub struct Transform {
    config: TransformConfig,
    /// Normalised value of each byte, for each channel.
    table: [[f32; 256]; 3],
    resizer: Resizer,
}

impl Transform {
    /// Check the settings.
    ///
    /// # Errors
    /// If a size is zero or absurd, or a deviation is not positive.
    pub fn new(config: &TransformConfig) -> Result<Self> {
        let sides = match config.resize {
            None => [1, 1],
            Some(Resize::Short(side)) => [side, side],
            Some(Resize::Exact(sides)) => sides,
        };
        for (key, side) in
            [("resize", sides[0]), ("resize", sides[1]), ("crop", config.crop.unwrap_or(1))]
        {
            if !(1..=MAX_SIDE).contains(&side) {
                return Err(Error::config(key, side, format!("expected 1 to {MAX_SIDE} pixels")));
            }
        }
        if let Some(v) = config.mean.iter().find(|v| !v.is_finite()) {
            return Err(Error::config("mean", v, "expected finite numbers"));
        }
        if let Some(v) = config.std.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
            return Err(Error::config("std", v, "expected positive numbers"));
        }
        let mut table = [[0.0; 256]; 3];
        for (c, values) in table.iter_mut().enumerate() {
            for (byte, v) in (0..=255u8).zip(values) {
                *v = (f32::from(byte) / 255.0 - config.mean[c]) / config.std[c];
            }
        }
        Ok(Transform { config: config.clone(), table, resizer: Resizer::new() })
    }

    /// Resize and crop, still in bytes.
    ///
    /// # Errors
    /// If the image would be larger than 2¹⁴ on a side.
    pub fn pixels(&mut self, image: &Image) -> Result<Image> {
        let mut now = match self.target(image) {
            Some([h, w]) if (h, w) != (image.height, image.width) => self.resize(image, w, h)?,
            _ => image.clone(),
        };
        if let Some(side) = self.config.crop {
            now = centre_crop(&now, side);
        }
        Ok(now)
    }

    /// `[3, height, width]`, normalised.
    ///
    /// # Errors
    /// As [`Transform::pixels`].
    pub fn apply(&mut self, image: &Image) -> Result<(usize, usize, Vec<f32>)> {
        let pixels = self.pixels(image)?;
        Ok(self.normalised(&pixels))
    }

    /// `[3, height, width]` of an image that has been resized and cropped.
    pub fn normalised(&self, pixels: &Image) -> (usize, usize, Vec<f32>) {
        let plane = pixels.width * pixels.height;
        let mut out = vec![0.0; 3 * plane];
        for ((c, out), table) in out.chunks_exact_mut(plane).enumerate().zip(&self.table) {
            for (o, pixel) in out.iter_mut().zip(pixels.rgb.as_chunks::<3>().0) {
                *o = table[usize::from(pixel[c])];
            }
        }
        (pixels.height, pixels.width, out)
    }

    /// Height and width after resizing.
    fn target(&self, image: &Image) -> Option<[usize; 2]> {
        match self.config.resize? {
            Resize::Exact(sides) => Some(sides),
            Resize::Short(side) => {
                let (h, w) = (image.height, image.width);
                Some(if h <= w { [side, side * w / h] } else { [side * h / w, side] })
            }
        }
    }

    fn resize(&mut self, image: &Image, width: usize, height: usize) -> Result<Image> {
        resize(&mut self.resizer, image, width, height, self.config.filter)
    }
}

/// An image of another size.
///
/// # Errors
/// If it would be larger than 2¹⁴ on a side.
pub(crate) fn resized(image: &Image, width: usize, height: usize, filter: Filter) -> Result<Image> {
    resize(&mut Resizer::new(), image, width, height, filter)
}

fn resize(
    resizer: &mut Resizer,
    image: &Image,
    width: usize,
    height: usize,
    filter: Filter,
) -> Result<Image> {
    let place = format!("an image of {}×{}", image.width, image.height);
    if width.max(height) > MAX_SIDE || width.min(height) == 0 {
        let problem = format!("would be resized to {width}×{height}; crop it first");
        return Err(Error::format(place, problem));
    }
    let filter = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    let mut step = |from: &Image, width: usize, height: usize| -> Result<Image> {
        let failed = |e: String| Error::format(&place, e);
        let mut rgb = vec![0; width * height * 3];
        let (w, h) = (from.width as u32, from.height as u32);
        // A copy, so that all images are of one type: the resizer is compiled for each,
        // and that takes longer than a twentieth of its work is worth.
        let mut from = from.rgb.clone();
        let source = TypedImage::<U8x3>::from_buffer(w, h, &mut from);
        let source = source.map_err(|e| failed(e.to_string()))?;
        let to = TypedImage::<U8x3>::from_buffer(width as u32, height as u32, &mut rgb);
        let mut to = to.map_err(|e| failed(e.to_string()))?;
        // Typed, because `resize` would be compiled for pixels of every kind.
        let done = resizer.resize_typed(&source, &mut to, &options);
        done.map_err(|e| failed(e.to_string()))?;
        Ok(Image { width, height, rgb })
    };
    // Pillow rounds to bytes after the rows and then takes the columns.
    let rows = match width == image.width {
        true => None,
        false => Some(step(image, width, image.height)?),
    };
    match (rows, height == image.height) {
        (Some(rows), true) => Ok(rows),
        (rows, _) => step(rows.as_ref().unwrap_or(image), width, height),
    }
}

/// The middle square; black where the image is smaller, as torchvision pads.
fn centre_crop(image: &Image, side: usize) -> Image {
    // Python's round: halves go to the even number.
    let half = |n: isize| match (n.div_euclid(2), n.rem_euclid(2)) {
        (q, 0) => q,
        (q, _) => q + (q & 1),
    };
    let first = |have: usize| {
        let difference = have as isize - side as isize;
        if difference >= 0 { half(difference) } else { -(-difference / 2) }
    };
    let (top, left) = (first(image.height), first(image.width));
    let mut rgb = vec![0; side * side * 3];
    for (y, row) in rgb.chunks_exact_mut(side * 3).enumerate() {
        let from = top + y as isize;
        if !(0..image.height as isize).contains(&from) {
            continue;
        }
        let source = &image.rgb[from as usize * image.width * 3..][..image.width * 3];
        let skip = (-left).max(0) as usize;
        let start = left.max(0) as usize;
        let n = (side - skip.min(side)).min(image.width - start.min(image.width));
        row[skip * 3..][..n * 3].copy_from_slice(&source[start * 3..][..n * 3]);
    }
    Image { width: side, height: side, rgb }
}
