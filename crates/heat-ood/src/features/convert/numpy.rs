//! numpy's headers and texts.

/// The header of an `.npy` file of texts of so many characters.
pub(super) fn text_header(width: usize, rows: usize) -> Vec<u8> {
    header_of(&format!("<U{width}"), &format!("({rows},)"))
}

/// One of these texts.
pub(super) fn numpy_text(text: &str, width: usize) -> impl Iterator<Item = u8> {
    let points = text.chars().map(u32::from).chain(std::iter::repeat(0)).take(width);
    points.flat_map(u32::to_le_bytes)
}

/// The header, version 1.0: 64 bytes or a multiple.
pub(super) fn header_of(descr: &str, shape: &str) -> Vec<u8> {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while !(text.len() + 11).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
}
