//! Whether a zip's directory is one that the `zip` crate reads in memory
//! proportional to the file's: it believes the number of entries, and looks for
//! other directories where the last is damaged.

/// Bytes of the record at the end, without a comment.
const END: usize = 22;

/// The number of entries, if the directory at the end is whole.
pub fn entries(bytes: &[u8]) -> Option<u64> {
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
