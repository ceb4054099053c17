//! BMP: palettes, channels by their bits, and run lengths.

use std::borrow::Cow;

use super::{Checked, Image, check_size};

const TRUNCATED: &str = "truncated: copy or create it again";

pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Checked<Image> {
    let header = Header::read(bytes)?;
    let (width, height) = (header.width, header.height);
    check_size(width, height, max_pixels)?;
    let colours = header.colours(bytes)?;
    let data = bytes.get(header.data..).ok_or(TRUNCATED)?;
    let (data, bits, stride) = match header.compression {
        1 | 2 => (Cow::from(runs(data, header.bits, width, height)?), 8, width),
        _ => {
            let stride = (width as u64 * header.bits as u64).div_ceil(32) * 4;
            (Cow::from(data), header.bits, stride as usize)
        }
    };
    if data.len() / stride < height {
        return Err(TRUNCATED.into());
    }
    let mut rgb = vec![0; width * height * 3];
    for (y, row) in data.chunks_exact(stride).take(height).enumerate() {
        let y = if header.top_down { y } else { height - 1 - y };
        let out = rgb[y * width * 3..][..width * 3].as_chunks_mut::<3>().0;
        for (x, pixel) in out.iter_mut().enumerate() {
            *pixel = colours.of(value(row, x, bits));
        }
    }
    Ok(Image { width, height, rgb })
}

struct Header {
    /// Its own bytes, after the fourteen of the file.
    size: usize,
    width: usize,
    height: usize,
    top_down: bool,
    /// Of a pixel.
    bits: usize,
    compression: u32,
    /// Colours of the palette; 0 means all.
    colours: usize,
    /// Where the pixels begin.
    data: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Checked<Self> {
        let data = long(bytes, 10)? as usize;
        let size = long(bytes, 14)? as usize;
        let header = match size {
            12 => Header {
                size,
                width: short(bytes, 18)?,
                height: short(bytes, 20)?,
                top_down: false,
                bits: short(bytes, 24)?,
                compression: 0,
                colours: 0,
                data,
            },
            40 | 52 | 56 | 108 | 124 => {
                let (width, height) = (long(bytes, 18)? as i32, long(bytes, 22)? as i32);
                Header {
                    size,
                    width: usize::try_from(width).map_err(|_| format!("a width of {width}"))?,
                    height: height.unsigned_abs() as usize,
                    top_down: height < 0,
                    bits: short(bytes, 28)?,
                    compression: long(bytes, 30)?,
                    colours: long(bytes, 46)? as usize,
                    data,
                }
            }
            _ => return Err(format!("a BMP file whose header has {size} bytes, an unknown kind")),
        };
        match (header.compression, header.bits, header.top_down) {
            (0, 1 | 2 | 4 | 8 | 16 | 24 | 32, _) | (3, 16 | 32, _) => Ok(header),
            (1, 8, false) | (2, 4, false) => Ok(header),
            (compression, bits, _) => Err(format!(
                "a BMP file of {bits} bits a pixel in compression {compression}, an unknown kind: \
                 save it uncompressed"
            )),
        }
    }

    fn colours(&self, bytes: &[u8]) -> Checked<Colours> {
        if self.bits <= 8 {
            // Red comes last, then in all but the oldest files a byte for nothing.
            let size = if self.size == 12 { 3 } else { 4 };
            let all = if self.colours == 0 { 1 << self.bits } else { self.colours.min(256) };
            let entries = bytes.get(14 + self.size..).and_then(|b| b.get(..all * size));
            let entries = entries.ok_or(TRUNCATED)?.chunks_exact(size);
            let mut palette = [[0; 3]; 256];
            palette.iter_mut().zip(entries).for_each(|(p, e)| *p = [e[2], e[1], e[0]]);
            return Ok(Colours::Palette(Box::new(palette)));
        }
        let masks = match (self.compression, self.bits) {
            (3, _) => [long(bytes, 54)?, long(bytes, 58)?, long(bytes, 62)?],
            (_, 16) => [0x7c00, 0x03e0, 0x001f],
            _ => [0x00ff_0000, 0xff00, 0x00ff],
        };
        let [r, g, b] = masks.map(|mask| Channel::new(mask, self.bits));
        Ok(Colours::Channels([r?, g?, b?]))
    }
}

/// What the value of a pixel means.
enum Colours {
    /// Black where the file has none.
    Palette(Box<[[u8; 3]; 256]>),
    Channels([Channel; 3]),
}

impl Colours {
    fn of(&self, value: u32) -> [u8; 3] {
        match self {
            Colours::Palette(palette) => palette[value as usize],
            Colours::Channels(channels) => [0, 1, 2].map(|c| channels[c].of(value)),
        }
    }
}

struct Channel {
    shift: u32,
    /// From its bits, at most eight, to a byte, rounded down as Pillow does.
    levels: Vec<u8>,
}

impl Channel {
    fn new(mask: u32, bits: usize) -> Checked<Self> {
        let (length, shift) = (mask.count_ones(), mask.trailing_zeros());
        let whole = length > 0 && (mask >> shift).trailing_ones() == length;
        if !whole || u64::from(mask) >> bits != 0 {
            return Err(format!("a BMP file with the mask {mask:#010x} for a colour"));
        }
        let kept = length.min(8);
        let most = (1 << kept) - 1;
        let levels = (0..=most).map(|v: u32| (v * 255 / most) as u8).collect();
        Ok(Channel { shift: shift + length - kept, levels })
    }

    fn of(&self, value: u32) -> u8 {
        self.levels[(value >> self.shift) as usize & (self.levels.len() - 1)]
    }
}

/// Pixel `x` of a row; the first of those that share a byte is in its high bits.
fn value(row: &[u8], x: usize, bits: usize) -> u32 {
    match bits {
        8 => row[x].into(),
        16 => u16::from_le_bytes([row[2 * x], row[2 * x + 1]]).into(),
        24 => u32::from_le_bytes([row[3 * x], row[3 * x + 1], row[3 * x + 2], 0]),
        32 => u32::from_le_bytes([row[4 * x], row[4 * x + 1], row[4 * x + 2], row[4 * x + 3]]),
        _ => {
            let first = x * bits;
            u32::from(row[first / 8]) >> (8 - bits - first % 8) & ((1 << bits) - 1)
        }
    }
}

/// Indices in the palette from runs of four or eight bits each, the lowest row first; 0 for pixels
/// that are left out.
fn runs(mut data: &[u8], bits: usize, width: usize, height: usize) -> Checked<Vec<u8>> {
    let index = |byte: u8, i: usize| match (bits, i % 2) {
        (8, _) => byte,
        (_, 0) => byte >> 4,
        _ => byte & 15,
    };
    let mut take = |n: usize| -> Checked<&[u8]> {
        let (taken, rest) = data.split_at_checked(n).ok_or(TRUNCATED)?;
        data = rest;
        Ok(taken)
    };
    let mut out = vec![0; width * height];
    let (mut x, mut y) = (0, 0);
    while y < height {
        let code = take(2)?;
        let row = &mut out[y * width + x..(y + 1) * width];
        match (usize::from(code[0]), usize::from(code[1])) {
            (0, 0) => (x, y) = (0, y + 1),
            (0, 1) => break,
            (0, 2) => {
                let skip = take(2)?;
                x += usize::from(skip[0]);
                y += usize::from(skip[1]);
            }
            (0, n) => {
                let size = (n * bits).div_ceil(8);
                let packed = take(size.next_multiple_of(2))?;
                let row = row.get_mut(..n).ok_or("a run of pixels beyond the end of its row")?;
                for (i, out) in row.iter_mut().enumerate() {
                    *out = index(packed[i * bits / 8], i);
                }
                x += n;
            }
            (n, _) => {
                // Some programs write more than the row has left.
                let n = n.min(row.len());
                row[..n].iter_mut().enumerate().for_each(|(i, out)| *out = index(code[1], i));
                x += n;
            }
        }
        if x > width {
            return Err("a run of pixels beyond the end of its row".into());
        }
    }
    Ok(out)
}

fn short(bytes: &[u8], at: usize) -> Checked<usize> {
    let number = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(TRUNCATED)?;
    Ok(u16::from_le_bytes(*number).into())
}

fn long(bytes: &[u8], at: usize) -> Checked<u32> {
    let number = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(TRUNCATED)?;
    Ok(u32::from_le_bytes(*number))
}
