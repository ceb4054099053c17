//! Files to pixels, as Pillow's `convert("RGB")` gives them: alpha dropped,
//! sixteen bits cut to eight, CMYK composed, EXIF rotation not applied.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use heat_ood::{Error, Result};

/// Most pixels of an image, Pillow's bound for decompression bombs.
pub const MAX_PIXELS: u64 = 178_956_970;

/// An image: rows of RGB, eight bits each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

/// Decode a JPEG, PNG, BMP, GIF (first frame) or WebP file; `place` names it
/// in messages.
///
/// # Errors
/// If it is none of these, is truncated or damaged, or has more than
/// [`MAX_PIXELS`] pixels (found before any of them is decoded).
pub fn decode(place: &str, bytes: &[u8]) -> Result<Image> {
    decode_within(place, bytes, MAX_PIXELS)
}

/// [`decode`] with another bound.
pub fn decode_within(place: &str, bytes: &[u8], max_pixels: u64) -> Result<Image> {
    let is_jpeg = bytes.starts_with(&[0xff, 0xd8]);
    let decoded = if is_jpeg { jpeg(bytes, max_pixels) } else { other(bytes, max_pixels) };
    decoded.map_err(|problem| Error::format(place, problem))
}

/// A problem without its place.
type Checked<T> = std::result::Result<T, String>;

fn check_size(width: usize, height: usize, max_pixels: u64) -> Checked<()> {
    let pixels = width as u64 * height as u64;
    if pixels == 0 {
        return Err(format!("an image of {width}×{height} pixels"));
    }
    if pixels > max_pixels {
        return Err(format!(
            "{width}×{height} are {pixels} pixels, more than {max_pixels}: \
             refused as a decompression bomb; shrink the image"
        ));
    }
    Ok(())
}

fn jpeg(bytes: &[u8], max_pixels: u64) -> Checked<Image> {
    jpeg_with(bytes, max_pixels, true).or_else(|strict| {
        // Files with unusual markers or rubbish between segments decode all the
        // same, as they do elsewhere. A cut file lacks its end marker.
        let end = bytes.len() - bytes.iter().rev().take_while(|b| **b == 0).count();
        let whole = bytes[..end].ends_with(&[0xff, 0xd9]);
        if whole {
            jpeg_with(bytes, max_pixels, false)
        } else {
            Err(format!("{strict} (is it truncated?)"))
        }
    })
}

fn jpeg_with(bytes: &[u8], max_pixels: u64, strict: bool) -> Checked<Image> {
    let damaged = |e: zune_jpeg::errors::DecodeErrors| format!("not a sound JPEG file: {e}");
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let (width, height) = decoder.dimensions().ok_or("a JPEG file without a size")?;
    check_size(width, height, max_pixels)?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let wanted = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    let pixels = decoder.decode().map_err(damaged)?;
    let rgb = if grey { three_times(&pixels) } else { pixels };
    if rgb.len() != width * height * 3 {
        return Err("a JPEG file of an unknown kind of colour".into());
    }
    Ok(Image { width, height, rgb })
}

fn other(bytes: &[u8], max_pixels: u64) -> Checked<Image> {
    let damaged = |e: image::ImageError| format!("not a sound image: {e}");
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let mut reader = reader.map_err(|e| e.to_string())?;
    if reader.format().is_none() {
        return Err("not an image: expected JPEG, PNG, BMP, GIF or WebP".into());
    }
    // What comes before the pixels: colour profiles, which may be compressed.
    reader.limits(limits(0));
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height, max_pixels)?;
    decoder.set_limits(limits(width as u64 * height as u64)).map_err(damaged)?;
    let rgb = match DynamicImage::from_decoder(decoder).map_err(damaged)? {
        DynamicImage::ImageRgb8(i) => i.into_raw(),
        DynamicImage::ImageLuma8(i) => three_times(&i.into_raw()),
        DynamicImage::ImageLumaA8(i) => three_times(&every(&i.into_raw(), 2)),
        DynamicImage::ImageRgba8(i) => without_alpha(&i.into_raw()),
        // Pillow keeps sixteen-bit grey as integers, and clips them.
        DynamicImage::ImageLuma16(i) => {
            let clipped: Vec<u8> = i.into_raw().iter().map(|&v| v.min(255) as u8).collect();
            three_times(&clipped)
        }
        DynamicImage::ImageLumaA16(i) => three_times(&every(&high(&i.into_raw()), 2)),
        DynamicImage::ImageRgb16(i) => high(&i.into_raw()),
        DynamicImage::ImageRgba16(i) => without_alpha(&high(&i.into_raw())),
        _ => return Err("an image of floating-point numbers; convert it to eight bits".into()),
    };
    Ok(Image { width, height, rgb })
}

/// Bytes that decoding may take beside what it returns: an image of sixteen
/// bits and four colours, and a copy of it.
fn limits(pixels: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some((8 << 20) + 16 * pixels);
    limits
}

fn three_times(grey: &[u8]) -> Vec<u8> {
    grey.iter().flat_map(|&v| [v; 3]).collect()
}

fn every(values: &[u8], step: usize) -> Vec<u8> {
    values.iter().copied().step_by(step).collect()
}

fn high(values: &[u16]) -> Vec<u8> {
    values.iter().map(|v| (v >> 8) as u8).collect()
}

fn without_alpha(rgba: &[u8]) -> Vec<u8> {
    rgba.as_chunks::<4>().0.iter().flat_map(|p| [p[0], p[1], p[2]]).collect()
}
