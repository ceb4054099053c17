//! Whether a zip's directory is one that the `zip` crate reads in memory
//! proportional to the file's: it believes the number of entries, and looks for
//! other directories where the last is damaged.

use crate::math::parallel::{Pieces, Slices};

/// Bytes of the record at the end, without a comment.
const END: usize = 22;

/// The number of entries of a zip archive, if the directory at the end is whole.
pub fn zip_entries(bytes: &[u8]) -> Option<u64> {
    let (start, end, entries) = directory(bytes)?;
    let mut rest = bytes.get(start..end)?;
    for _ in 0..entries {
        let header = rest.first_chunk::<46>()?;
        let length = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let whole = 46 + length(28) + length(30) + length(32);
        rest = rest.get(whole..).filter(|_| header.starts_with(b"PK\x01\x02"))?;
    }
    rest.is_empty().then_some(entries)
}

/// Whether what a zip archive says twice of an entry agrees, and its content with its checksum.
pub struct ZipCheck<'a> {
    /// The archive.
    pub bytes: &'a [u8],
    /// Where the header before the content begins, as the directory says.
    pub header: u64,
    /// The entry's name, as the directory has it.
    pub name: &'a [u8],
}

impl ZipCheck<'_> {
    /// Whether the header before the content has the name and the method of compression that
    /// the directory has.
    pub fn header(&self, method: zip::CompressionMethod) -> bool {
        let stored = u16::from(method != zip::CompressionMethod::Stored) * 8;
        let found = || {
            let rest = self.bytes.get(usize::try_from(self.header).ok()?..)?;
            let header = rest.first_chunk::<30>()?;
            let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
            let name = rest.get(30..)?.get(..usize::from(short(26)))?;
            Some(header.starts_with(b"PK\x03\x04") && short(8) == stored && name == self.name)
        };
        found() == Some(true)
    }
}

/// Bytes whose checksum is computed at a time.
const PIECE: usize = 1 << 20;

/// Whether the content of an entry, as it is stored, has this CRC-32.
pub(crate) fn has_crc(content: &[u8], crc: u32) -> bool {
    let of = |piece: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(piece);
        hasher
    };
    if content.len() <= 4 * PIECE {
        return of(content).finalize() == crc;
    }
    let pieces: Vec<_> = content.par_chunks(PIECE).map(of).collect();
    let mut whole = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| whole.combine(piece));
    whole.finalize() == crc
}

/// Where the directory begins and ends, and how many entries it says it has.
fn directory(bytes: &[u8]) -> Option<(usize, usize, u64)> {
    let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let end = end_record(bytes)?;
    let record = &bytes[end + 4..];
    let locator = end.checked_sub(20);
    if let Some(locator) = locator.filter(|at| bytes[*at..].starts_with(b"PK\x06\x07")) {
        let at = usize::try_from(word(locator + 8)?).ok()?;
        let size = usize::try_from(word(at.checked_add(4)?)?).ok()?;
        let whole = at.checked_add(12)?.checked_add(size)? == locator;
        let start = usize::try_from(word(at.checked_add(48)?)?).ok()?;
        let sound = whole && bytes[at..].starts_with(b"PK\x06\x06");
        return sound.then_some((start, at, word(at.checked_add(32)?)?));
    }
    let short = |at: usize| u64::from(u16::from_le_bytes([record[at], record[at + 1]]));
    let start = u32::from_le_bytes(*record[12..].first_chunk()?);
    Some((usize::try_from(start).ok()?, end, short(6)))
}

/// Where the last record begins. A comment of the right length may follow it.
fn end_record(bytes: &[u8]) -> Option<usize> {
    let from = bytes.len().saturating_sub(END + usize::from(u16::MAX));
    let at = from + bytes[from..].windows(4).rposition(|w| w == b"PK\x05\x06")?;
    let length = bytes.get(at + END - 2..at + END)?;
    let comment = usize::from(u16::from_le_bytes([length[0], length[1]]));
    (at + END + comment == bytes.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "123456789", as its definition has it; and of pieces put together.
    #[test]
    fn checksums_by_hand() {
        assert!(has_crc(b"123456789", 0xcbf4_3926) && !has_crc(b"123456788", 0xcbf4_3926));
        let long: Vec<u8> = (0..5 * PIECE + 77).map(|i| (i * 31 % 251) as u8).collect();
        let crc = crc32fast::hash(&long);
        assert!(has_crc(&long, crc) && !has_crc(&long[1..], crc));
    }
}
