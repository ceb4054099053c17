//! What a file is, told by its bytes: for the errors of files that are not
//! what was expected.

/// What the bytes of a file are, in words that go after "is"; `None` where
/// nothing tells.
pub fn kind_of(bytes: &[u8]) -> Option<&'static str> {
    // First, because the length before its header may look like anything.
    if is_safetensors(bytes) {
        return Some(SAFETENSORS);
    }
    let begins = |magic: &&(&[u8], &str)| bytes.starts_with(magic.0);
    if let Some((_, kind)) = MAGIC.iter().find(begins) {
        return Some(kind);
    }
    match bytes {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Some(zip_kind(bytes)),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(IMAGE),
        [b'P', b'1'..=b'7', b' ' | b'\n' | b'\r' | b'\t', ..] => Some(IMAGE),
        // The version of the format, then one of the first fields of a model.
        [8, 1..=20, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] => Some(ONNX),
        [0x80, 2..=5, ..] => Some(pickle_kind(bytes)),
        _ if bytes.get(257..262) == Some(b"ustar") => Some("a tar archive"),
        _ => text_kind(bytes),
    }
}

/// A safetensors file, by its header's beginning.
pub const SAFETENSORS: &str = "a safetensors file";
/// A network in ONNX.
pub const ONNX: &str = "an ONNX network";
/// What `torch.save` writes, in both formats.
pub const TORCH: &str = "a PyTorch checkpoint";
/// A picture of any format.
pub const IMAGE: &str = "an image";
/// An array of numpy's.
pub const NPY: &str = "an .npy array";
/// Arrays of numpy's.
pub const NPZ: &str = "an .npz archive";

const MAGIC: &[(&[u8], &str)] = &[
    (b"\x93NUMPY", NPY),
    (b"\x89PNG\r\n\x1a\n", IMAGE),
    (b"\xff\xd8\xff", IMAGE),
    (b"GIF8", IMAGE),
    (b"II*\0", IMAGE),
    (b"MM\0*", IMAGE),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "a Feather (Arrow) file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program or library"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
];

/// Longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

fn is_safetensors(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    length.is_some_and(|n| (2..=LONGEST_HEADER).contains(&n)) && bytes.get(8) == Some(&b'{')
}

/// Which kind of zip, by the names within it.
fn zip_kind(bytes: &[u8]) -> &'static str {
    // The first entry's header, and the directory at the end.
    const NEAR: usize = 1 << 16;
    let first = &bytes[..bytes.len().min(NEAR)];
    let last = &bytes[bytes.len().saturating_sub(NEAR)..];
    let has = |name: &[u8]| [first, last].iter().any(|b| b.windows(name.len()).any(|w| w == name));
    if has(b"constants.pkl") {
        "a TorchScript program"
    } else if has(b"data.pkl") {
        TORCH
    } else if has(b".npy") {
        NPZ
    } else if has(b"model.weights.h5") {
        "a Keras model"
    } else {
        "a zip archive"
    }
}

/// The number that PyTorch's first format begins with, as a pickle.
fn pickle_kind(bytes: &[u8]) -> &'static str {
    let torch = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.";
    if bytes[2..].starts_with(torch) { TORCH } else { "a Python pickle" }
}

fn text_kind(bytes: &[u8]) -> Option<&'static str> {
    const ENOUGH: usize = 1 << 12;
    let start = &bytes[..bytes.len().min(ENOUGH)];
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A character may be cut at the end of what is looked at.
        Err(e) if e.error_len().is_none() && bytes.len() > ENOUGH => {
            std::str::from_utf8(&start[..e.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if text.chars().any(|c| c.is_control() && !"\t\r\n\x0c".contains(c)) {
        return None;
    }
    let text = text.trim_start();
    let lower = text.get(..15).unwrap_or(text).to_lowercase();
    let first = text.lines().next().unwrap_or_default();
    Some(match () {
        _ if text.is_empty() => "blank",
        _ if lower.starts_with("<!doctype html") || lower.starts_with("<html") => {
            "an HTML page: what was downloaded was not the file itself"
        }
        _ if text.starts_with(['{', '[']) => "a JSON text",
        _ if first.contains(',') => "a CSV text",
        _ => "a text",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_bytes() {
        let padded = |start: &[u8]| [start, &[0xa5; 600]].concat();
        let tar = [&[b'a'; 257][..], b"ustar\x0000", &[0; 200]].concat();
        let header = [&9u64.to_le_bytes()[..], b"{\"a\": 1}"].concat();
        // A header whose length begins as other files do.
        let onnx_like = [&0x12_0108u64.to_le_bytes()[..], b"{\"a\": 1}"].concat();
        for (bytes, want) in [
            (padded(b"\x93NUMPY\x01\x00"), NPY),
            (padded(b"\x89PNG\r\n\x1a\n"), IMAGE),
            (padded(b"\xff\xd8\xff\xe0"), IMAGE),
            (padded(b"RIFF0000WEBPVP8 "), IMAGE),
            (padded(b"P6\n3 2\n255\n"), IMAGE),
            (padded(b"PK\x03\x04 a/data.pkl"), TORCH),
            (padded(b"PK\x03\x04 a/data.pkl a/constants.pkl"), "a TorchScript program"),
            (padded(b"PK\x03\x04 avg.npy"), NPZ),
            (padded(b"PK\x03\x04 a.png"), "a zip archive"),
            (padded(b"PK\x05\x06"), "a zip archive"),
            (padded(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."), TORCH),
            (padded(b"\x80\x04\x95"), "a Python pickle"),
            (padded(b"\x08\x08\x12\x07pytorch"), ONNX),
            (padded(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
            (tar, "a tar archive"),
            (padded(b"\x1f\x8b\x08"), "a gzip file"),
            (b"{\"id\": 1}".to_vec(), "a JSON text"),
            (b"\xef\xbb\xbff0,f1\n1,2\n".to_vec(), "a CSV text"),
            (b"airplane\ncat\n".to_vec(), "a text"),
            (b" \n".to_vec(), "blank"),
            (
                b"<!DOCTYPE HTML><p>".to_vec(),
                "an HTML page: what was downloaded was not the file itself",
            ),
            (header, SAFETENSORS),
            (onnx_like, SAFETENSORS),
            ([&b"\xc3\xa4"[..]; 2049].concat(), "a text"),
        ] {
            assert_eq!(kind_of(&bytes), Some(want), "{:?}", &bytes[..bytes.len().min(20)]);
        }
        for bytes in [&padded(b"\x00\x01")[..], &[0; 64], b"\xffabc", b""] {
            assert!(matches!(kind_of(bytes), None | Some("blank")), "{bytes:?}");
        }
    }
}
