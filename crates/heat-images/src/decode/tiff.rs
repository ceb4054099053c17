//! TIFF: the first page, as Pillow converts it.

use std::borrow::Cow;
use std::io::Cursor;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::{Checked, DESCRIPTION, Image, check_size, clipped, cmyk};

/// The tag of how values are to be understood, and two of its values.
const PHOTOMETRIC: usize = 262;
const PALETTE: usize = 3;
const BLACK_IS_ZERO: u8 = 1;

const DAMAGED: &str = "a TIFF file with a damaged directory: copy or create it again";

/// What a palette takes in the crate, at most.
const PALETTE_SIZE: usize = 1 << 17;

pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Checked<Image> {
    let damaged = |e: TiffError| match e {
        TiffError::UnsupportedError(e) => format!("a TIFF file of a kind that is not read: {e}"),
        e => format!("not a sound TIFF file: {e}"),
    };
    let bytes = as_grey(bytes)?;
    let mut decoder = Decoder::new(Cursor::new(&bytes[..])).map_err(damaged)?;
    let (width, height) = decoder.dimensions().map_err(damaged)?;
    let (width, height) = (width as usize, height as usize);
    check_size(width, height, max_pixels)?;
    let colour = decoder.colortype().map_err(damaged)?;
    match colour {
        ColorType::Gray(_)
        | ColorType::GrayA(8)
        | ColorType::RGB(8 | 16)
        | ColorType::RGBA(8 | 16)
        | ColorType::CMYK(8 | 16) => {}
        ColorType::Multiband { num_samples: 2.., bit_depth: 8 } => {}
        other => return Err(format!("a TIFF file of colours that are not read: {other:?}")),
    }
    let (samples, depth) = (usize::from(colour.num_samples()), usize::from(colour.bit_depth()));
    let n = width * height * samples;
    // A tile may be larger than the image, and so may a palette.
    let mut limits = Limits::default();
    limits.decoding_buffer_size = n.saturating_mul(depth.div_ceil(8)).max(PALETTE_SIZE);
    limits.intermediate_buffer_size =
        limits.decoding_buffer_size.saturating_mul(4).max(DESCRIPTION);
    let mut decoder = decoder.with_limits(limits);
    let premultiplied = decoder.find_tag(Tag::ExtraSamples).map_err(damaged)?;
    let premultiplied = premultiplied.and_then(|v| v.into_u16_vec().ok());
    let premultiplied = premultiplied.is_some_and(|kinds| kinds.first() == Some(&1));
    let orientation = decoder.find_tag_unsigned(Tag::Orientation).ok().flatten().unwrap_or(1);
    let palette = match bytes {
        Cow::Owned(_) => decoder.get_tag_u16_vec(Tag::ColorMap).map_err(damaged)?,
        Cow::Borrowed(_) => Vec::new(),
    };
    let mut pixels = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut pixels).map_err(damaged)?;
    let planes = layout.planes;
    let scaled = palette.is_empty();
    let values = bytes_of(pixels, colour, width * samples / planes.max(1), scaled)?;
    if values.len() < n {
        return Err("a TIFF file with other values than its size says".into());
    }
    // Sample c of pixel i.
    let at = |i: usize, c: usize| match planes {
        0 | 1 => values[i * samples + c],
        _ => values[c * width * height + i],
    };
    let unpremultiplied = |v: u8, alpha: u8| match alpha {
        _ if !premultiplied => v,
        0 => 0,
        a => (u32::from(v) * 255 / u32::from(a)).min(255) as u8,
    };
    let pixel = |i: usize| -> [u8; 3] {
        match colour {
            ColorType::Gray(_) if !palette.is_empty() => {
                let (index, n) = (usize::from(at(i, 0)), palette.len() / 3);
                let colour = |c: usize| palette[c * n..][..n].get(index);
                [0, 1, 2].map(|c| colour(c).map_or(0, |v| (v >> 8) as u8))
            }
            ColorType::Gray(_) => [at(i, 0); 3],
            ColorType::GrayA(_) | ColorType::Multiband { num_samples: 2, .. } => {
                [unpremultiplied(at(i, 0), at(i, 1)); 3]
            }
            ColorType::RGBA(_) => [0, 1, 2].map(|c| unpremultiplied(at(i, c), at(i, 3))),
            ColorType::CMYK(_) => cmyk([0, 1, 2, 3].map(|c| at(i, c))),
            _ => [0, 1, 2].map(|c| at(i, c)),
        }
    };
    let image = Image { width, height, rgb: (0..width * height).flat_map(pixel).collect() };
    Ok(if (2..=8).contains(&orientation) { turned(image, orientation) } else { image })
}

/// A file whose first page has a palette, with that page said to be grey: the crate reads no
/// palettes, and its values are the same.
fn as_grey(bytes: &[u8]) -> Checked<Cow<'_, [u8]>> {
    let little = bytes.first() == Some(&b'I');
    let word = |at: usize| -> Option<usize> {
        let word = *bytes.get(at..)?.first_chunk()?;
        Some(if little { u16::from_le_bytes(word) } else { u16::from_be_bytes(word) }.into())
    };
    let long = |at: usize| -> Option<usize> {
        let long = *bytes.get(at..)?.first_chunk()?;
        Some(if little { u32::from_le_bytes(long) } else { u32::from_be_bytes(long) } as usize)
    };
    let page = long(4).filter(|_| word(2) == Some(42)).ok_or("a BigTIFF file: save it as TIFF")?;
    let entries = (0..word(page).ok_or(DAMAGED)?).map(|i| page + 2 + 12 * i);
    // The crate makes room for as many values as a tag says.
    if { entries.clone() }.any(|at| long(at + 4).is_none_or(|count| count > bytes.len())) {
        return Err(DAMAGED.into());
    }
    let place = || {
        let at = { entries }.find(|at| word(*at) == Some(PHOTOMETRIC))? + 8;
        (word(at) == Some(PALETTE)).then_some(at)
    };
    let Some(at) = place() else { return Ok(bytes.into()) };
    let mut copy = bytes.to_vec();
    copy[at + usize::from(!little)] = BLACK_IS_ZERO;
    Ok(copy.into())
}

/// Bytes, one for each sample. `row`: samples of a row, of which several share a byte where they
/// have less than eight bits.
fn bytes_of(
    pixels: DecodingResult,
    colour: ColorType,
    row: usize,
    scaled: bool,
) -> Checked<Vec<u8>> {
    let depth = usize::from(colour.bit_depth());
    let grey = matches!(colour, ColorType::Gray(_));
    Ok(match pixels {
        DecodingResult::U8(values) if matches!(depth, 1 | 2 | 4) => {
            let (most, per_byte) = ((1u8 << depth) - 1, 8 / depth);
            // Indices of colours stay what they are.
            let scale = if scaled { 255 / most } else { 1 };
            let sample = move |bytes: &[u8], x: usize| {
                (bytes[x / per_byte] >> (8 - depth - x % per_byte * depth) & most) * scale
            };
            let rows = values.chunks_exact(row.div_ceil(per_byte));
            rows.flat_map(|bytes| (0..row).map(move |x| sample(bytes, x))).collect()
        }
        DecodingResult::U8(values) if depth == 8 => values,
        DecodingResult::I8(values) => values.into_iter().map(|v| v as u8).collect(),
        // Pillow keeps grey as it is, and cuts it off.
        DecodingResult::U16(values) if depth == 16 => values
            .into_iter()
            .map(|v| if grey { clipped(v.into()) } else { (v >> 8) as u8 })
            .collect(),
        DecodingResult::I16(values) if grey => {
            values.into_iter().map(|v| clipped(v.into())).collect()
        }
        DecodingResult::U32(values) if grey => {
            values.into_iter().map(|v| clipped(v.into())).collect()
        }
        DecodingResult::I32(values) if grey => {
            values.into_iter().map(|v| clipped(v.into())).collect()
        }
        DecodingResult::F32(values) if grey => values.into_iter().map(|v| v as u8).collect(),
        _ => {
            return Err(format!("a TIFF file of {depth} bits a value, of a kind that is not read"));
        }
    })
}

/// Turned as the tag says; Pillow turns TIFF files, but no others.
fn turned(image: Image, orientation: u16) -> Image {
    let (w, h) = (image.width, image.height);
    let across = (5..=8).contains(&orientation);
    let (width, height) = if across { (h, w) } else { (w, h) };
    let from = |x: usize, y: usize| match orientation {
        2 => (w - 1 - x, y),
        3 => (w - 1 - x, h - 1 - y),
        4 => (x, h - 1 - y),
        5 => (y, x),
        6 => (y, h - 1 - x),
        7 => (w - 1 - y, h - 1 - x),
        8 => (w - 1 - y, x),
        _ => (x, y),
    };
    let pixels = image.rgb.as_chunks::<3>().0;
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let rgb = places.flat_map(|(x, y)| {
        let (x, y) = from(x, y);
        pixels[y * w + x]
    });
    Image { width, height, rgb: rgb.collect() }
}
