//! A digest of everything in a file, in its header: what was damaged on its way is refused.
//!
//! A detector with one flipped bit mostly opens, and gives other scores. The text `digest` of a
//! safetensors file's header holds the XXH3 of the XXH3s of the file's pieces of 1 MiB, the
//! digest's own digits as zeros. It finds accidents, not forgers.

use std::borrow::Cow;
use std::io::{Seek, SeekFrom, Write};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::math::parallel::{Indices, Pieces};

/// Its name among the header's texts.
pub(crate) const KEY: &str = "digest";

/// What stands for it until it is known.
pub(crate) const UNKNOWN: &str = "xxh3-1m:0000000000000000";

/// Digits at its end.
const DIGITS: usize = 16;

/// Bytes hashed at a time.
const PIECE: usize = 1 << 20;

/// Pieces that are worth waking other threads.
const MANY: usize = 4;

fn text(pieces: &[u64]) -> String {
    let bytes: Vec<u8> = pieces.iter().flat_map(|h| h.to_le_bytes()).collect();
    format!("{}{:016x}", &UNKNOWN[..UNKNOWN.len() - DIGITS], xxh3_64(&bytes))
}

/// Where the digits are, in bytes that hold the whole header.
fn digits(header: &[u8], value: &str) -> Option<usize> {
    let key = format!("\"{KEY}\":\"{value}\"");
    let at = header.windows(key.len()).position(|w| w == key.as_bytes())?;
    Some(at + key.len() - 1 - DIGITS)
}

/// The digest of a whole file whose header ends at `header` and says `told`.
pub(super) fn of(bytes: &[u8], header: usize, told: &str) -> Option<String> {
    let zeros = digits(bytes.get(..header)?, told)?;
    let zeros = zeros..zeros + DIGITS;
    let hash = |i: usize| {
        let piece = &bytes[i * PIECE..bytes.len().min((i + 1) * PIECE)];
        let (start, end) = (i * PIECE, i * PIECE + piece.len());
        if zeros.end <= start || zeros.start >= end {
            return xxh3_64(piece);
        }
        let mut piece = Cow::from(piece);
        let own = zeros.start.max(start) - start..zeros.end.min(end) - start;
        piece.to_mut()[own].fill(b'0');
        xxh3_64(&piece)
    };
    let count = bytes.len().div_ceil(PIECE);
    let pieces: Vec<u64> = if count < MANY {
        (0..count).map(hash).collect()
    } else {
        (0..count).into_par_iter().map(hash).collect()
    };
    Some(text(&pieces))
}

/// Hashes what is written, and puts the digest in its place at the end, where the first thing
/// written is a header with [`UNKNOWN`].
pub(super) struct Sealing<W> {
    to: W,
    at: Option<u64>,
    begun: bool,
    /// Bytes of the piece so far.
    filled: usize,
    piece: Box<Xxh3>,
    pieces: Vec<u64>,
}

impl<W: Write + Seek> Sealing<W> {
    pub fn new(to: W) -> Self {
        let piece = Box::new(Xxh3::new());
        Sealing { to, at: None, begun: false, filled: 0, piece, pieces: Vec::new() }
    }

    /// Put the digest into its place, and hand back what was written to.
    pub fn finish(mut self) -> std::io::Result<W> {
        if let Some(at) = self.at {
            if self.filled > 0 {
                self.pieces.push(self.piece.digest());
            }
            let text = text(&self.pieces);
            self.to.seek(SeekFrom::Start(at))?;
            self.to.write_all(&text.as_bytes()[text.len() - DIGITS..])?;
            self.to.seek(SeekFrom::End(0))?;
        }
        self.to.flush()?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if !self.begun {
            self.begun = true;
            self.at = digits(bytes, UNKNOWN).map(|at| at as u64);
        }
        let n = self.to.write(bytes)?;
        if self.at.is_some() {
            let mut rest = &bytes[..n];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(PIECE - self.filled));
                self.piece.update(now);
                self.filled += now.len();
                if self.filled == PIECE {
                    self.pieces.push(self.piece.digest());
                    self.piece.reset();
                    self.filled = 0;
                }
                rest = later;
            }
        }
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A header, and so many bytes behind it.
    fn sealed(bytes: usize) -> (Vec<u8>, usize) {
        let header = format!("{{\"__metadata__\":{{\"{KEY}\":\"{UNKNOWN}\"}}}}").into_bytes();
        let mut out = Sealing::new(Cursor::new(Vec::new()));
        out.write_all(&header).unwrap();
        let body: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
        body.chunks(70_001).for_each(|part| out.write_all(part).unwrap());
        (out.finish().unwrap().into_inner(), header.len())
    }

    fn told(bytes: &[u8], header: usize) -> String {
        let text = String::from_utf8(bytes[..header].to_vec()).unwrap();
        text.split('"').nth(5).unwrap().to_owned()
    }

    /// What was written is what is read, and no other bit will do.
    #[test]
    fn a_flipped_bit_is_another_digest() {
        for size in [0, 1, 1000, PIECE - 50, 5 * PIECE + 3] {
            let (mut bytes, header) = sealed(size);
            let told = told(&bytes, header);
            assert_ne!(told, UNKNOWN);
            assert_eq!(of(&bytes, header, &told).as_ref(), Some(&told), "{size}");
            for at in [header, header + size / 2, header + size.saturating_sub(1)] {
                if at < bytes.len() {
                    bytes[at] ^= 4;
                    assert_ne!(of(&bytes, header, &told).unwrap(), told, "{size}, byte {at}");
                    bytes[at] ^= 4;
                }
            }
        }
    }

    /// By hand: one piece is the hash of its hash. XXH3 of nothing is 2d06800538d394c2 (xxHash's
    /// own test vectors).
    #[test]
    fn the_pieces_hashes_are_hashed() {
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
        let (bytes, header) = sealed(10);
        let mut zeroed = bytes.clone();
        let at = digits(&bytes, &told(&bytes, header)).unwrap();
        zeroed[at..at + DIGITS].fill(b'0');
        let want = xxh3_64(&xxh3_64(&zeroed).to_le_bytes());
        assert_eq!(told(&bytes, header), format!("xxh3-1m:{want:016x}"));
    }
}
