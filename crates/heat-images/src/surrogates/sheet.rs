//! A contact sheet: what the kinds look like.

use std::path::Path;

use super::{Kind, Sources, Surrogates};
use crate::{Image, ImageDataset, Transform, TransformConfig};
use heat_ood::io::write_atomically;
use heat_ood::{Error, Result};

/// Images in a row.
const IMAGES: usize = 8;

/// Pixels between images, and around them.
const GAP: usize = 4;

/// Small images are shown with their pixels this many times as large, until their side is this.
const SIDE: usize = 96;

/// Write a PNG file with a row of the images themselves and one of each kind, the name at its left: the first
/// eight of the set that the same seed gives.
///
/// # Errors
/// If an image cannot be read or made, or the file cannot be written.
pub fn contact_sheet(
    sources: &Sources<'_>,
    kinds: &[Kind],
    seed: u64,
    transform: &TransformConfig,
    file: &Path,
) -> Result<()> {
    let mut pixels = Transform::new(transform)?;
    let first = sources.images().iter().take(IMAGES);
    let plain: Result<Vec<Image>> =
        first.map(|i| pixels.pixels(&sources.dataset().image(*i)?)).collect();
    let mut rows = vec![("id", plain?)];
    for kind in kinds {
        let set = Surrogates::new(sources, *kind, IMAGES, seed, transform)?;
        let images: Result<Vec<Image>> = (0..set.len()).map(|i| set.image(i)).collect();
        rows.push((kind.name(), images?));
    }
    write_png(&sheet(&rows), file)
}

fn sheet(rows: &[(&str, Vec<Image>)]) -> Image {
    let all = || rows.iter().flat_map(|(_, images)| images);
    let largest = all().map(|image| image.width.max(image.height)).max().unwrap_or(1);
    let scale = (SIDE / largest).max(1);
    let cell = |side: usize| side * scale + GAP;
    let row_height = cell(all().map(|image| image.height).max().unwrap_or(1)).max(GLYPH[1] * 2);
    let column = cell(all().map(|image| image.width).max().unwrap_or(1));
    let letters = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let text = letters * GLYPH[0] * 2 + 2 * GAP;
    let (width, height) = (text + IMAGES * column + GAP, rows.len() * row_height + GAP);
    let mut out = Image { width, height, rgb: vec![255; width * height * 3] };
    for (r, (name, images)) in rows.iter().enumerate() {
        let top = GAP + r * row_height;
        write_text(&mut out, name, GAP, top + (row_height - GAP - GLYPH[1] * 2) / 2);
        for (i, image) in images.iter().enumerate() {
            let left = text + i * column;
            for y in 0..image.height * scale {
                for x in 0..image.width * scale {
                    let from = ((y / scale) * image.width + x / scale) * 3;
                    let to = ((top + y) * width + left + x) * 3;
                    out.rgb[to..to + 3].copy_from_slice(&image.rgb[from..from + 3]);
                }
            }
        }
    }
    out
}

/// Columns and rows of a letter with the space after it.
const GLYPH: [usize; 2] = [6, 8];

/// The letters of the kinds' names, 5×7, each row five bits.
const FONT: [(char, [u8; 7]); 26] = [
    ('2', [0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111]),
    ('4', [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010]),
    ('8', [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110]),
    ('a', [0b00000, 0b00000, 0b01110, 0b00001, 0b01111, 0b10001, 0b01111]),
    ('b', [0b10000, 0b10000, 0b10110, 0b11001, 0b10001, 0b10001, 0b11110]),
    ('c', [0b00000, 0b00000, 0b01110, 0b10000, 0b10000, 0b10001, 0b01110]),
    ('d', [0b00001, 0b00001, 0b01101, 0b10011, 0b10001, 0b10001, 0b01111]),
    ('e', [0b00000, 0b00000, 0b01110, 0b10001, 0b11111, 0b10000, 0b01110]),
    ('g', [0b00000, 0b01111, 0b10001, 0b10001, 0b01111, 0b00001, 0b01110]),
    ('h', [0b10000, 0b10000, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001]),
    ('i', [0b00100, 0b00000, 0b01100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('j', [0b00010, 0b00000, 0b00110, 0b00010, 0b00010, 0b10010, 0b01100]),
    ('k', [0b10000, 0b10000, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010]),
    ('l', [0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('m', [0b00000, 0b00000, 0b11010, 0b10101, 0b10101, 0b10001, 0b10001]),
    ('n', [0b00000, 0b00000, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001]),
    ('o', [0b00000, 0b00000, 0b01110, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('p', [0b00000, 0b00000, 0b11110, 0b10001, 0b11110, 0b10000, 0b10000]),
    ('r', [0b00000, 0b00000, 0b10110, 0b11001, 0b10000, 0b10000, 0b10000]),
    ('s', [0b00000, 0b00000, 0b01110, 0b10000, 0b01110, 0b00001, 0b11110]),
    ('t', [0b01000, 0b01000, 0b11100, 0b01000, 0b01000, 0b01001, 0b00110]),
    ('u', [0b00000, 0b00000, 0b10001, 0b10001, 0b10001, 0b10011, 0b01101]),
    ('v', [0b00000, 0b00000, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100]),
    ('w', [0b00000, 0b00000, 0b10001, 0b10001, 0b10101, 0b10101, 0b01010]),
    ('x', [0b00000, 0b00000, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001]),
    ('z', [0b00000, 0b00000, 0b11111, 0b00010, 0b00100, 0b01000, 0b11111]),
];

/// Write black on it, in letters of twice their size.
fn write_text(image: &mut Image, text: &str, left: usize, top: usize) {
    for (i, letter) in text.chars().enumerate() {
        let Some((_, rows)) = FONT.iter().find(|(known, _)| *known == letter) else { continue };
        for y in 0..14 {
            for x in 0..10 {
                if rows[y / 2] >> (4 - x / 2) & 1 == 1 {
                    let at = (top + y) * image.width + left + i * GLYPH[0] * 2 + x;
                    image.rgb[at * 3..at * 3 + 3].fill(0);
                }
            }
        }
    }
}

fn write_png(image: &Image, file: &Path) -> Result<()> {
    let failed = |e: png::EncodingError| Error::format(file, e.to_string());
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width as u32, image.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&image.rgb).map_err(failed)?;
    writer.finish().map_err(failed)?;
    write_atomically(file, |to| to.write_all(&bytes))
}
