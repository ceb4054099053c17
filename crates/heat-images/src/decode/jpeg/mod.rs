//! JPEG: baseline and progressive, eight bits, to the bits of libjpeg-turbo with its usual
//! settings, which Pillow and so torchvision use: the integer inverse transform, the triangle
//! filter for sampled colours, conversion by tables. What libjpeg decodes with a warning is
//! decoded the same; a file that ends within its data is refused.
//!
//! References: ITU-T T.81, and the documentation of libjpeg-turbo.

mod entropy;
mod idct;
mod scan;
mod upsample;

use super::{Checked, Image, check_size, cmyk};
use entropy::Table;
use scan::Scan;
use upsample::Upsampler;

const TRUNCATED: &str = "a JPEG file that ends within its data: truncated; copy it again";

/// More scans than any encoder makes.
const MAX_SCANS: usize = 500;

/// Order of coefficients; what runs beyond the last stays there.
const ZIGZAG: [u8; 80] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 63, 63, 63,
];

/// One of the colours.
struct Component {
    id: u8,
    /// Samples across and down, in relation to the others'.
    sampling: [usize; 2],
    /// Number of its quantisation table, and that as it was when the component was first met.
    table: u8,
    quantisation: Option<[u16; 64]>,
    /// Samples that are shown.
    width: usize,
    height: usize,
    /// Blocks of a row and of a column, whole units of all components.
    blocks: [usize; 2],
    coefficients: Vec<[i16; 64]>,
}

/// What has been read of a file.
#[derive(Default)]
struct Decoder {
    width: usize,
    height: usize,
    progressive: bool,
    components: Vec<Component>,
    most: [usize; 2],
    quantisation: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart: usize,
    jfif: bool,
    /// Adobe's statement of the colours.
    adobe: Option<u8>,
    scans: usize,
}

pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Checked<Image> {
    let mut decoder = Decoder::default();
    decoder.read(bytes, max_pixels)?;
    decoder.image()
}

impl Decoder {
    /// All segments.
    fn read(&mut self, bytes: &[u8], max_pixels: u64) -> Checked<()> {
        let mut at = 2;
        loop {
            // Between segments lies rubbish in some files.
            let marker = next_marker(bytes, &mut at);
            let Some(marker) = marker else {
                // A baseline image is whole without its end marker.
                let whole = self.scans == 1 && !self.progressive;
                return if whole { Ok(()) } else { Err(TRUNCATED.into()) };
            };
            match marker {
                0xd9 if self.scans > 0 => return Ok(()),
                0xd9 => return Err("a JPEG file without an image".into()),
                0x01 | 0xd0..=0xd8 => continue,
                _ => {}
            }
            let length = bytes.get(at..at + 2).ok_or(TRUNCATED)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            let body = bytes.get(at + 2..at + length).ok_or(TRUNCATED)?;
            at += length;
            match marker {
                0xc0..=0xc2 => self.frame(marker == 0xc2, body, bytes.len(), max_pixels)?,
                0xc4 => self.huffman(body)?,
                0xc3 | 0xc5..=0xcf => {
                    return Err("a JPEG file of a rare kind (lossless, hierarchical or with \
                                arithmetic coding): save it again"
                        .into());
                }
                0xdb => self.quantisation(body)?,
                0xdd => {
                    let interval = body.first_chunk().ok_or(TRUNCATED)?;
                    self.restart = u16::from_be_bytes(*interval).into();
                }
                0xe0 if body.starts_with(b"JFIF\0") => self.jfif = true,
                0xee if body.starts_with(b"Adobe") && body.len() >= 12 => {
                    self.adobe = Some(body[11]);
                }
                0xda => at += self.scan(body, &bytes[at..])?,
                _ => {}
            }
        }
    }

    fn frame(
        &mut self,
        progressive: bool,
        body: &[u8],
        file: usize,
        max_pixels: u64,
    ) -> Checked<()> {
        let (&[depth, h1, h0, w1, w0, n], rest) = body.split_first_chunk().ok_or(TRUNCATED)?;
        let (height, width) =
            (usize::from(h1) << 8 | usize::from(h0), usize::from(w1) << 8 | usize::from(w0));
        if !self.components.is_empty() {
            return Err("a JPEG file of several images in one".into());
        }
        if depth != 8 {
            return Err(format!("a JPEG file of {depth} bits: save it with 8"));
        }
        check_size(width, height, max_pixels)?;
        if !matches!(n, 1 | 3 | 4) || rest.len() < 3 * usize::from(n) {
            return Err(format!("a JPEG file of {n} colours"));
        }
        let parts = &rest.as_chunks::<3>().0[..n.into()];
        let factors = |part: &[u8; 3]| [usize::from(part[1] >> 4), usize::from(part[1] & 15)];
        if parts.iter().flat_map(factors).any(|f| !(1..=4).contains(&f)) {
            return Err("a JPEG file with a damaged header".into());
        }
        let most = |i: usize| parts.iter().map(|part| factors(part)[i]).max().unwrap_or(1);
        (self.width, self.height, self.progressive) = (width, height, progressive);
        self.most = [most(0), most(1)];
        let units = [width.div_ceil(8 * self.most[0]), height.div_ceil(8 * self.most[1])];
        let count = |part: &[u8; 3]| units[0] * units[1] * factors(part)[0] * factors(part)[1];
        let blocks: usize = parts.iter().map(count).sum();
        // The first coefficient of each block takes a bit.
        if blocks / 8 > file {
            return Err(TRUNCATED.into());
        }
        for part in parts {
            let sampling = factors(part);
            let blocks = [units[0] * sampling[0], units[1] * sampling[1]];
            self.components.push(Component {
                id: part[0],
                sampling,
                table: part[2],
                quantisation: None,
                width: (width * sampling[0]).div_ceil(self.most[0]),
                height: (height * sampling[1]).div_ceil(self.most[1]),
                blocks,
                coefficients: vec![[0; 64]; blocks[0] * blocks[1]],
            });
        }
        Ok(())
    }

    fn quantisation(&mut self, mut body: &[u8]) -> Checked<()> {
        while let Some((&kind, rest)) = body.split_first() {
            let wide = kind >> 4 != 0;
            let size = if wide { 128 } else { 64 };
            let (values, rest) = rest.split_at_checked(size).ok_or(TRUNCATED)?;
            let slot = self.quantisation.get_mut(usize::from(kind & 15));
            let mut table = [0; 64];
            for (i, place) in ZIGZAG[..64].iter().enumerate() {
                table[usize::from(*place)] = match wide {
                    true => u16::from_be_bytes([values[2 * i], values[2 * i + 1]]),
                    false => values[i].into(),
                };
            }
            *slot.ok_or("a JPEG file with a damaged table")? = Some(table);
            body = rest;
        }
        Ok(())
    }

    fn huffman(&mut self, mut body: &[u8]) -> Checked<()> {
        while let Some((&kind, rest)) = body.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(TRUNCATED)?;
            let n: usize = counts.iter().map(|c| usize::from(*c)).sum();
            let (symbols, rest) = rest.split_at_checked(n).ok_or(TRUNCATED)?;
            let tables = if kind >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let slot = tables.get_mut(usize::from(kind & 15));
            let table = Table::new(counts, symbols).ok_or("a JPEG file with a damaged table")?;
            *slot.ok_or("a JPEG file with a damaged table")? = Some(table);
            body = rest;
        }
        Ok(())
    }

    /// The data after a scan's header; how many bytes they are.
    fn scan(&mut self, header: &[u8], data: &[u8]) -> Checked<usize> {
        self.scans += 1;
        if self.scans > MAX_SCANS {
            return Err(format!("a JPEG file of more than {MAX_SCANS} scans: refused"));
        }
        let scan = Scan::read(header, &self.components, self.progressive)?;
        for (i, ..) in &scan.parts {
            let component = &mut self.components[*i];
            if component.quantisation.is_none() {
                let table = self.quantisation.get(usize::from(component.table)).copied().flatten();
                component.quantisation = Some(table.ok_or("a JPEG file without a table")?);
            }
        }
        scan.decode(self, data)
    }

    fn image(self) -> Checked<Image> {
        let (width, height, most) = (self.width, self.height, self.most);
        let colours = self.colours();
        let mut rows: Vec<Upsampler> = Vec::new();
        for component in self.components {
            rows.push(Upsampler::new(component, most, width)?);
        }
        let mut rgb = vec![0; width * height * 3];
        let convert = Conversion::new();
        for (y, out) in rgb.chunks_exact_mut(3 * width).enumerate() {
            rows.iter_mut().for_each(|r| r.go_to(y));
            let out = out.as_chunks_mut::<3>().0.iter_mut();
            match (&rows[..], colours) {
                ([grey], _) => out.zip(grey.row()).for_each(|(out, v)| *out = [*v; 3]),
                ([a, b, c], Colours::Plain) => {
                    let pixels = a.row().iter().zip(b.row()).zip(c.row());
                    out.zip(pixels).for_each(|(out, ((a, b), c))| *out = [*a, *b, *c]);
                }
                ([a, b, c], Colours::Luma) => {
                    let pixels = a.row().iter().zip(b.row()).zip(c.row());
                    out.zip(pixels).for_each(|(out, ((a, b), c))| *out = convert.rgb(*a, *b, *c));
                }
                ([a, b, c, k], colours) => {
                    let pixels = a.row().iter().zip(b.row()).zip(c.row()).zip(k.row());
                    // Adobe's are inverted, and Pillow takes all for such.
                    out.zip(pixels).for_each(|(out, (((a, b), c), k))| {
                        let inks = match colours {
                            Colours::Plain => [*a, *b, *c].map(|v| 255 - v),
                            Colours::Luma => convert.rgb(*a, *b, *c),
                        };
                        *out = cmyk([inks[0], inks[1], inks[2], 255 - k]);
                    });
                }
                _ => return Err("a JPEG file of an unknown kind of colour".into()),
            }
        }
        Ok(Image { width, height, rgb })
    }

    fn colours(&self) -> Colours {
        let ids: Vec<u8> = self.components.iter().map(|c| c.id).collect();
        match (ids.len(), self.jfif, self.adobe) {
            (3, true, _) => Colours::Luma,
            (3 | 4, _, Some(0)) => Colours::Plain,
            (3, _, None) if ids == *b"RGB" => Colours::Plain,
            (4, _, None) => Colours::Plain,
            _ => Colours::Luma,
        }
    }
}

/// How colours are stored.
#[derive(Clone, Copy)]
enum Colours {
    /// Red, green and blue, or inks.
    Plain,
    /// Luma and two differences, of red, green and blue or of their inverse.
    Luma,
}

/// What the differences add, in sixteen bits after the point.
struct Conversion {
    red: [i32; 256],
    blue: [i32; 256],
    green: [[i32; 256]; 2],
}

impl Conversion {
    fn new() -> Self {
        let table =
            |factor: i32, half: i32| std::array::from_fn(|i| factor * (i as i32 - 128) + half);
        let whole = |factor| table(factor, 1 << 15).map(|v: i32| v >> 16);
        Conversion {
            red: whole(91881),
            blue: whole(116130),
            green: [table(-22554, 1 << 15), table(-46802, 0)],
        }
    }

    fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let (y, cb, cr) = (i32::from(y), usize::from(cb), usize::from(cr));
        let green = (self.green[0][cb] + self.green[1][cr]) >> 16;
        [y + self.red[cr], y + green, y + self.blue[cb]].map(|v| v.clamp(0, 255) as u8)
    }
}

/// The next marker, `at` then being after it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let from = *at + bytes.get(*at..)?.iter().position(|b| *b == 0xff)?;
        let fill = bytes[from..].iter().take_while(|b| **b == 0xff).count();
        let marker = *bytes.get(from + fill)?;
        *at = from + fill + 1;
        if marker != 0 {
            return Some(marker);
        }
    }
}
