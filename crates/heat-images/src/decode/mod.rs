//! Files to pixels, as Pillow's `convert("RGB")` gives them: alpha dropped,
//! sixteen bits cut to eight, CMYK composed, EXIF rotation not applied (but TIFF's is).

mod bmp;
mod jpeg;
mod pnm;
mod tiff;

use std::io::Cursor;

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

/// Decode a JPEG, PNG, BMP, GIF (first frame), WebP, TIFF (first page), PBM, PGM or PPM file;
/// `place` names it in messages.
///
/// # Errors
/// If it is none of these, is truncated or damaged, or has more than
/// [`MAX_PIXELS`] pixels (found before any of them is decoded).
pub fn decode(place: &str, bytes: &[u8]) -> Result<Image> {
    decode_within(place, bytes, MAX_PIXELS)
}

/// [`decode`] with another bound.
pub fn decode_within(place: &str, bytes: &[u8], max_pixels: u64) -> Result<Image> {
    let decoded = match kind(bytes) {
        Some(Kind::Jpeg) => jpeg::decode(bytes, max_pixels),
        Some(Kind::Png) => png(bytes, max_pixels),
        Some(Kind::Gif) => gif(bytes, max_pixels),
        Some(Kind::Webp) => webp(bytes, max_pixels),
        Some(Kind::Bmp) => bmp::decode(bytes, max_pixels),
        Some(Kind::Tiff) => tiff::decode(bytes, max_pixels),
        Some(Kind::Pnm) => pnm::decode(bytes, max_pixels),
        None => Err("not an image: expected JPEG, PNG, BMP, GIF, WebP, TIFF or PNM".into()),
    };
    decoded.map_err(|problem| Error::format(place, problem))
}

/// A format.
enum Kind {
    Jpeg,
    Png,
    Gif,
    Webp,
    Bmp,
    Tiff,
    Pnm,
}

/// The format, by the first bytes.
fn kind(bytes: &[u8]) -> Option<Kind> {
    Some(match bytes {
        [0xff, 0xd8, ..] => Kind::Jpeg,
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Kind::Png,
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Kind::Gif,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Kind::Webp,
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Kind::Tiff,
        [b'P', b'1'..=b'6', blank, ..] if blank.is_ascii_whitespace() || *blank == b'#' => {
            Kind::Pnm
        }
        [b'B', b'M', ..] => Kind::Bmp,
        _ => return None,
    })
}

/// Whether a file with these first bytes is of a format that is decoded.
pub(crate) fn is_image(head: &[u8]) -> bool {
    match kind(head) {
        // Two letters are little; the size of the header is a small number.
        Some(Kind::Bmp) => head.get(15..18) == Some(&[0; 3]),
        kind => kind.is_some(),
    }
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

/// Bytes that the description of an image may take before its pixels: colour profiles, which may
/// be compressed.
const DESCRIPTION: usize = 8 << 20;

/// Of an APNG the image that other programs show.
fn png(bytes: &[u8], max_pixels: u64) -> Checked<Image> {
    let damaged = |e: png::DecodingError| format!("not a sound PNG file: {e}");
    let limits = png::Limits { bytes: DESCRIPTION };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_size(width, height, max_pixels)?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or("a PNG file too large")?];
    reader.next_frame(&mut pixels).map_err(damaged)?;
    let (colour, depth) = reader.output_color_type();
    let sixteen = depth == png::BitDepth::Sixteen;
    // Of sixteen bits the high byte, which comes first.
    let size = if sixteen { 2 } else { 1 };
    let n = colour.samples();
    let rgb = match (n, size) {
        // Pillow keeps sixteen-bit grey as integers, and clips them.
        (1, 2) => {
            let grey = |p: &[u8; 2]| clipped(u16::from_be_bytes(*p).into());
            pixels.as_chunks().0.iter().flat_map(|p| [grey(p); 3]).collect()
        }
        (1 | 2, _) => picked(&pixels, n * size, [0; 3]),
        (3, 1) => pixels,
        _ => picked(&pixels, n * size, [0, size, 2 * size]),
    };
    Ok(Image { width, height, rgb })
}

/// The first frame on its canvas. As Pillow has it, the canvas grows to hold the frame, and what
/// the frame leaves of it has the transparent colour, or else the palette's first.
fn gif(bytes: &[u8], max_pixels: u64) -> Checked<Image> {
    let damaged = |e: gif::DecodingError| format!("not a sound GIF file: {e}");
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::Indexed);
    let mut decoder = options.read_info(bytes).map_err(damaged)?;
    let canvas = [decoder.width(), decoder.height()].map(usize::from);
    check_size(canvas[0], canvas[1], max_pixels)?;
    let frame = decoder.next_frame_info().map_err(damaged)?.ok_or("a GIF file of no image")?;
    let [left, top, w, h] = [frame.left, frame.top, frame.width, frame.height].map(usize::from);
    let (width, height) = (canvas[0].max(left + w), canvas[1].max(top + h));
    check_size(width, height, max_pixels)?;
    let background = frame.transparent.unwrap_or(0);
    let palette = frame.palette.clone();
    let palette = palette.or_else(|| decoder.global_palette().map(<[u8]>::to_vec));
    // Colours beyond the palette are grey.
    let mut colours: [[u8; 3]; 256] = std::array::from_fn(|i| [i as u8; 3]);
    let given = palette.unwrap_or_default();
    colours.iter_mut().zip(given.as_chunks().0).for_each(|(c, p)| *c = *p);
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(damaged)?;
    let mut canvas = vec![background; width * height];
    let rows = canvas.chunks_exact_mut(width).skip(top);
    for (out, row) in rows.zip(indices.chunks_exact(w.max(1))) {
        out[left..left + w].copy_from_slice(row);
    }
    let rgb = canvas.iter().flat_map(|i| colours[usize::from(*i)]).collect();
    Ok(Image { width, height, rgb })
}

/// Of an animation the first frame.
fn webp(bytes: &[u8], max_pixels: u64) -> Checked<Image> {
    let damaged = |e: image_webp::DecodingError| format!("not a sound WebP file: {e}");
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height, max_pixels)?;
    let mut pixels = vec![0; decoder.output_buffer_size().ok_or("a WebP file too large")?];
    decoder.read_image(&mut pixels).map_err(damaged)?;
    let rgb = if decoder.has_alpha() { picked(&pixels, 4, [0, 1, 2]) } else { pixels };
    Ok(Image { width, height, rgb })
}

/// To a byte, as Pillow clips whole numbers.
fn clipped(value: i64) -> u8 {
    value.clamp(0, 255) as u8
}

/// Inks to light, as Pillow composes them.
fn cmyk([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let white = 255 - u32::from(k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * white + 128;
        white.saturating_sub(((product >> 8) + product) >> 8) as u8
    })
}

fn three_times(grey: &[u8]) -> Vec<u8> {
    picked(grey, 1, [0; 3])
}

/// Three bytes of each `size`.
fn picked(pixels: &[u8], size: usize, three: [usize; 3]) -> Vec<u8> {
    pixels.chunks_exact(size).flat_map(|p| three.map(|i| p[i])).collect()
}
