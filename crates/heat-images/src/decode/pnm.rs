//! Netpbm's formats: PBM, PGM and PPM, plain (`P1` to `P3`) and raw (`P4` to `P6`).

use super::{Checked, Image, check_size};

const TRUNCATED: &str = "truncated: copy or create it again";

/// Longest number of a header or of a plain file, in digits.
const MAX_DIGITS: usize = 10;

pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Checked<Image> {
    let mut text = Text(bytes.get(2..).ok_or(TRUNCATED)?);
    let (kind, plain) = match bytes[1] {
        digit @ b'1'..=b'3' => (digit - b'1', true),
        digit => (digit - b'4', false),
    };
    let (width, height) = (text.number()?, text.number()?);
    check_size(width as usize, height as usize, max_pixels)?;
    let (width, height) = (width as usize, height as usize);
    let most = if kind == 0 { 1 } else { text.number()? };
    if !(1..=65535).contains(&most) {
        return Err(format!("a PNM file whose largest value is {most}; expected 1 to 65535"));
    }
    let samples = if kind == 2 { 3 } else { 1 };
    let n = width * height * samples;
    let values: Vec<u8> = match (plain, kind) {
        (true, 0) => text.bits(n)?,
        (true, _) => {
            (0..n).map(|_| Ok(scaled(text.number()?, most, samples))).collect::<Checked<_>>()?
        }
        (false, 0) => {
            let stride = width.div_ceil(8);
            let data = text.raw(stride * height)?;
            let bit = |(x, row): (usize, &[u8])| 255 * (1 - (row[x / 8] >> (7 - x % 8) & 1));
            data.chunks_exact(stride)
                .flat_map(|row| (0..width).map(move |x| bit((x, row))))
                .collect()
        }
        (false, _) if most < 256 => {
            text.raw(n)?.iter().map(|v| scaled((*v).into(), most, samples)).collect()
        }
        _ => {
            let words = text.raw(2 * n)?.as_chunks().0;
            words.iter().map(|v| scaled(u16::from_be_bytes(*v).into(), most, samples)).collect()
        }
    };
    let rgb = if samples == 3 { values } else { super::three_times(&values) };
    Ok(Image { width, height, rgb })
}

/// To a byte, as Pillow does it: of grey in sixteen bits it keeps all, and cuts it off at 255.
fn scaled(value: u32, most: u32, samples: usize) -> u8 {
    let top = if most > 255 && samples == 1 { 65535.0 } else { 255.0 };
    let value = f64::from(value) / f64::from(most) * top;
    // Python's round: halves go to the even number.
    value.round_ties_even().min(255.0) as u8
}

/// What is left of the file.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// Over blanks and comments.
    fn skip(&mut self) {
        while let Some((first, rest)) = self.0.split_first() {
            match first {
                b'#' => {
                    let end = self.0.iter().position(|b| matches!(b, b'\n' | b'\r'));
                    self.0 = &self.0[end.unwrap_or(self.0.len())..];
                }
                b if b.is_ascii_whitespace() || *b == 0x0b => self.0 = rest,
                _ => break,
            }
        }
    }

    fn number(&mut self) -> Checked<u32> {
        self.skip();
        let length = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let digits = std::str::from_utf8(&self.0[..length.min(MAX_DIGITS)]).unwrap_or_default();
        let number = digits.parse().ok().filter(|_| length <= MAX_DIGITS);
        let problem =
            if self.0.is_empty() { TRUNCATED } else { "a PNM file with a damaged number" };
        self.0 = &self.0[length..];
        number.ok_or_else(|| problem.into())
    }

    /// Digits that are bits, with or without blanks between them; 1 is black.
    fn bits(&mut self, n: usize) -> Checked<Vec<u8>> {
        let mut out = Vec::with_capacity(n.min(self.0.len()));
        for _ in 0..n {
            self.skip();
            let (first, rest) = self.0.split_first().ok_or(TRUNCATED)?;
            out.push(match first {
                b'0' => 255,
                b'1' => 0,
                _ => return Err("a PBM file with another digit than 0 and 1".into()),
            });
            self.0 = rest;
        }
        Ok(out)
    }

    /// `n` bytes after the one blank that ends the header.
    fn raw(&self, n: usize) -> Checked<&'a [u8]> {
        self.0.get(1..).and_then(|data| data.get(..n)).ok_or_else(|| TRUNCATED.into())
    }
}
