//! What a file is, by its first bytes: for files that are not read, and for messages.

/// As many bytes as are looked at.
pub(super) const HEAD: usize = 512;

/// What other formats begin with, and what to do with them.
const KINDS: [(usize, &[u8], &str); 30] = [
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"\xfd7zXZ", "compressed with xz: unpack it"),
    (0, b"BZh", "compressed with bzip2: unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (0, b"Rar!", "a RAR archive: unpack it"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5: save its images as .npy or .npz"),
    (0, b"PAR1", "Parquet: save its images as files"),
    (0, b"ARROW1", "Arrow: save its images as files"),
    (0, b"MATLAB", "a MATLAB file"),
    (0, b"\0\0\x08\x01", "IDX, labels"),
    (0, b"\0\0\x08\x03", "IDX, images"),
    (4, b"ftypheic", "HEIC: convert it to PNG"),
    (4, b"ftypmif1", "HEIF: convert it to PNG"),
    (4, b"ftypavif", "AVIF: convert it to PNG"),
    (4, b"ftyp", "a video: take images out of it"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL: convert it to PNG"),
    (0, b"\xff\x0a", "JPEG XL: convert it to PNG"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000: convert it to PNG"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000: convert it to PNG"),
    (0, b"8BPS", "a Photoshop file: convert it to PNG"),
    (0, b"\0\0\x01\0", "an icon: convert it to PNG"),
    (128, b"DICM", "DICOM: convert it to PNG"),
    (0, b"%PDF", "a PDF: convert its pages to PNG"),
    (0, b"\x80\x02", "a pickle"),
    (0, b"\x80\x03", "a pickle"),
    (0, b"\x80\x04", "a pickle"),
];

/// In words.
pub(super) fn kind(head: &[u8]) -> &'static str {
    let is = |(at, magic, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|h| h.starts_with(magic))
    };
    match KINDS.iter().find(is) {
        Some((_, _, kind)) => kind,
        None if head.is_empty() => "empty",
        None if head.get(8) == Some(&b'{') && head[5..8] == [0; 3] => "a safetensors file",
        None => match heat_ood::io::kind_of(head) {
            Some(kind) => kind,
            None if is_text(head) => "a text",
            None => "of no known format",
        },
    }
}

/// Printable, in UTF-8 up to what was cut.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => {
            std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    text.chars().all(|c| !c.is_control() || c.is_whitespace())
}
