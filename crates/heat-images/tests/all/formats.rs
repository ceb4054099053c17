//! Kinds of PNG, GIF, WebP and BMP files beside those of `images.rs`, with pixels worked out by
//! hand. Pillow 13.0 agrees where it reads them, but for GIFs whose frame leaves some of the canvas.

use std::io::Write;

use heat_images::decode;

/// Its size and pixels, row by row.
#[track_caller]
fn is(file: &[u8], width: usize, height: usize, want: &[[u8; 3]]) {
    let image = decode("x", file).unwrap();
    assert_eq!((image.width, image.height), (width, height));
    assert_eq!(image.rgb.as_chunks::<3>().0, want);
}

/// The same, where red, green and blue are one.
#[track_caller]
fn is_grey(file: &[u8], width: usize, height: usize, want: &[u8]) {
    is(file, width, height, &want.iter().map(|v| [*v; 3]).collect::<Vec<_>>());
}

#[track_caller]
fn refused(file: &[u8], part: &str) {
    let said = decode("x", file).unwrap_err().to_string();
    assert!(said.contains(part), "`{part}` not in: {said}");
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes(), &kind[..], data, &crc.sum().to_be_bytes()].concat()
}

fn deflated(rows: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(rows).unwrap();
    out.finish().unwrap()
}

/// Of so many bits a sample and that kind of colour; the chunks lie before and after the pixels,
/// whose rows begin with the number of their filter.
fn png(size: [u8; 2], kind: [u8; 3], before: &[u8], rows: &[u8], after: &[u8]) -> Vec<u8> {
    let [bits, colour, interlaced] = kind;
    let header = [0, 0, 0, size[0], 0, 0, 0, size[1], bits, colour, 0, 0, interlaced];
    let pixels = chunk(b"IDAT", &deflated(rows));
    let parts = [b"\x89PNG\r\n\x1a\n", &*chunk(b"IHDR", &header), before, &pixels, after];
    [&parts.concat()[..], &chunk(b"IEND", &[])].concat()
}

#[test]
fn png_of_few_bits() {
    is_grey(&png([5, 1], [1, 0, 0], &[], &[0, 0b1011_0000], &[]), 5, 1, &[255, 0, 255, 255, 0]);
    is_grey(&png([4, 1], [2, 0, 0], &[], &[0, 0b0001_1011], &[]), 4, 1, &[0, 85, 170, 255]);
    is_grey(&png([3, 1], [4, 0, 0], &[], &[0, 0x05, 0xf0], &[]), 3, 1, &[0, 85, 255]);
    let palette = chunk(b"PLTE", &[1, 2, 3, 40, 50, 60, 7, 8, 9]);
    let colours = [[7, 8, 9], [1, 2, 3], [40, 50, 60]];
    is(&png([3, 1], [4, 3, 0], &palette, &[0, 0x20, 0x10], &[]), 3, 1, &colours);
    is(&png([3, 1], [2, 3, 0], &palette, &[0, 0b1000_0100], &[]), 3, 1, &colours);
    // Colours that are transparent remain.
    let transparent = [palette, chunk(b"tRNS", &[0, 128])].concat();
    is(&png([3, 1], [8, 3, 0], &transparent, &[0, 2, 0, 1], &[]), 3, 1, &colours);
    let transparent = chunk(b"tRNS", &[0, 1]);
    is_grey(&png([2, 1], [2, 0, 0], &transparent, &[0, 0b0111_0000], &[]), 2, 1, &[85, 255]);
}

#[test]
fn interlaced_png() {
    // Passes: the corner; every fourth; of row 2 every second; between them; row 1.
    let rows = [0, 1, 0, 3, 0, 7, 9, 0, 2, 0, 8, 0, 4, 5, 6];
    is_grey(&png([3, 3], [8, 0, 1], &[], &rows, &[]), 3, 3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn animated_png_is_its_default_image() {
    let mut frame = [0; 26];
    (frame[7], frame[11]) = (2, 1);
    let pixels = [&[0, 0, 0, 1], &*deflated(&[0, 30, 40])].concat();
    let after = [chunk(b"fcTL", &frame), chunk(b"fdAT", &pixels)].concat();
    let control = chunk(b"acTL", &[0, 0, 0, 1, 0, 0, 0, 0]);
    is_grey(&png([2, 1], [8, 0, 0], &control, &[0, 10, 20], &after), 2, 1, &[10, 20]);
}

#[test]
fn png_with_rows_missing() {
    refused(&png([2, 2], [8, 0, 0], &[], &[0, 1, 2], &[]), "not a sound PNG file");
    let whole = png([2, 1], [8, 0, 0], &[], &[0, 1, 2], &[]);
    refused(&whole[..whole.len() - 13], "not a sound PNG file");
}

/// Colours 0 to 3 of a canvas and its one frame, of `[left, top, width, height]`.
fn gif(canvas: [u8; 2], frame: [u8; 4], flags: u8, pixels: &[u8]) -> Vec<u8> {
    let mut out = b"GIF89a".to_vec();
    out.extend([canvas[0], 0, canvas[1], 0, 0x81, 2, 0]);
    out.extend([1, 2, 3, 40, 50, 60, 70, 80, 90, 100, 110, 120]);
    // Colour 3 is transparent.
    out.extend([b'!', 0xf9, 4, 1, 0, 0, 3, 0, b',']);
    out.extend(frame.iter().flat_map(|v| [*v, 0]));
    // Codes of three bits, begun anew before they would get longer; 4 begins, 5 ends.
    let codes = pixels.chunks(2).flat_map(|two| [&[4], two].concat()).chain([5]);
    let bits: Vec<u8> = codes.flat_map(|code| [0, 1, 2].map(|i| code >> i & 1)).collect();
    let packed = bits.chunks(8).map(|b| b.iter().rev().fold(0, |byte, bit| byte << 1 | bit));
    let packed: Vec<u8> = packed.collect();
    out.extend([flags, 2, packed.len() as u8]);
    out.extend(&packed);
    out.extend([0, b';']);
    out
}

#[test]
fn gif_with_a_frame_anywhere() {
    // Pillow 13: around the frame lies the transparent colour, and the canvas grows with it.
    let colours = [[1, 2, 3], [40, 50, 60], [70, 80, 90], [100, 110, 120]];
    let around = colours[3];
    // Transparent pixels keep their colour.
    is(&gif([2, 2], [0, 0, 2, 2], 0, &[0, 1, 2, 3]), 2, 2, &colours);
    // Rows 0, 2, 1 of three.
    let rows = [0, 1, 2].map(|i| colours[i]);
    is(&gif([1, 3], [0, 0, 1, 3], 0x40, &[0, 2, 1]), 1, 3, &rows);
    let mut offset = [around; 12];
    (offset[5], offset[6], offset[9], offset[10]) =
        (colours[0], colours[1], colours[2], colours[3]);
    is(&gif([4, 3], [1, 1, 2, 2], 0, &[0, 1, 2, 3]), 4, 3, &offset);
    let beyond = [around, colours[0], colours[1], around, colours[2], around];
    is(&gif([2, 1], [1, 0, 2, 2], 0, &[0, 1, 2, 3]), 3, 2, &beyond);
    let mut far = [around; 9 * 11];
    (far[88], far[89], far[97]) = (colours[0], colours[1], colours[2]);
    is(&gif([2, 1], [7, 9, 2, 2], 0, &[0, 1, 2, 3]), 9, 11, &far);
    refused(&gif([2, 2], [0, 0, 2, 2], 0, &[0, 1]), "not a sound GIF file");
}

#[test]
fn animated_webp_is_its_first_frame() {
    // Written by Pillow: a frame of these colours, and one of the opposite ones.
    let file = [
        82, 73, 70, 70, 172, 0, 0, 0, 87, 69, 66, 80, 86, 80, 56, 88, 10, 0, 0, 0, 2, 0, 0, 0, 1,
        0, 0, 0, 0, 0, 65, 78, 73, 77, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 65, 78, 77, 70, 56, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 86, 80, 56, 76, 32, 0, 0, 0, 47, 1, 0, 0,
        0, 15, 160, 16, 64, 0, 20, 52, 10, 1, 4, 64, 65, 163, 16, 64, 0, 20, 52, 243, 31, 249, 31,
        42, 16, 209, 255, 0, 65, 78, 77, 70, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 86, 80, 56, 76, 39, 0, 0, 0, 47, 1, 0, 0, 0, 15, 64, 144, 109, 179, 237, 254, 194,
        39, 33, 147, 182, 105, 59, 255, 138, 247, 144, 73, 219, 180, 157, 127, 193, 251, 230, 63,
        254, 223, 6, 25, 209, 255, 0, 0,
    ];
    is(&file, 2, 1, &[[1, 2, 3], [4, 5, 6]]);
    refused(&file[..file.len() / 2], "not a sound WebP file");
}

/// With a header of 40 bytes; a negative height begins with the upper row.
fn bmp(size: [i32; 2], bits: u32, compression: u32, colours: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = b"BM".to_vec();
    let values = [0, 0, 54 + colours.len() as u32, 40, size[0] as u32, size[1] as u32];
    let values = values.into_iter().chain([1 | bits << 16, compression, 0, 0, 0, 0, 0]);
    values.for_each(|v| out.extend(v.to_le_bytes()));
    [&out[..], colours, data].concat()
}

/// Four colours, the others black.
fn palette(n: usize) -> Vec<u8> {
    let mut out = vec![3, 2, 1, 0, 60, 50, 40, 0, 90, 80, 70, 0, 120, 110, 100, 0];
    out.resize(4 * n, 0);
    out
}

const A: [u8; 3] = [1, 2, 3];
const B: [u8; 3] = [40, 50, 60];
const C: [u8; 3] = [70, 80, 90];
const D: [u8; 3] = [100, 110, 120];

#[test]
fn bmp_with_a_palette() {
    let one = bmp([3, 2], 1, 0, &palette(2)[..8], &[0b0100_0000, 0, 0, 0, 0b1100_0000, 0, 0, 0]);
    is(&one, 3, 2, &[B, B, A, A, B, A]);
    let four = bmp([3, -2], 4, 0, &palette(16), &[0x01, 0x20, 0, 0, 0x30, 0x10, 0, 0]);
    is(&four, 3, 2, &[A, B, C, D, A, B]);
    let eight = bmp([3, 1], 8, 0, &palette(256), &[2, 3, 0, 0]);
    is(&eight, 3, 1, &[C, D, A]);
    // Of the oldest kind: a header of twelve bytes, three for a colour.
    let mut old = b"BM\0\0\0\0\0\0\0\0\x20\0\0\0\x0c\0\0\0\x02\0\x01\0\x01\0\x01\0".to_vec();
    old.extend([3, 2, 1, 60, 50, 40, 0b1000_0000, 0, 0, 0]);
    is(&old, 2, 1, &[B, A]);
    for file in [one, four, eight, old] {
        refused(&file[..file.len() - 1], "truncated");
    }
}

#[test]
fn bmp_of_many_bits() {
    let three = bmp([1, 2], 24, 0, &[], &[3, 2, 1, 0, 60, 50, 40, 0]);
    is(&three, 1, 2, &[B, A]);
    is(&bmp([2, 1], 32, 0, &[], &[3, 2, 1, 9, 60, 50, 40, 9]), 2, 1, &[A, B]);
    let masks = |masks: [u32; 3]| masks.map(u32::to_le_bytes).concat();
    let turned = masks([0xff00_0000, 0x00ff_0000, 0xff00]);
    is(&bmp([2, 1], 32, 3, &turned, &[9, 3, 2, 1, 9, 60, 50, 40]), 2, 1, &[A, B]);
    // 13, 20 and 19 of 31; of 31, 63 and 31: rounded down, as Pillow does.
    let pixel = |value: u16| value.to_le_bytes().repeat(2);
    let fifteen = bmp([2, 1], 16, 0, &[], &pixel(13 << 10 | 20 << 5 | 19));
    is(&fifteen, 2, 1, &[[106, 164, 156]; 2]);
    let sixteen =
        bmp([2, 1], 16, 3, &masks([0xf800, 0x7e0, 0x1f]), &pixel(13 << 11 | 20 << 5 | 19));
    is(&sixteen, 2, 1, &[[106, 80, 156]; 2]);
    refused(&bmp([2, 1], 16, 3, &masks([0xf800, 0x5e0, 0x1f]), &pixel(0)), "mask 0x000005e0");
    refused(&bmp([2, 1], 16, 3, &masks([0x1f0000, 0x7e0, 0x1f]), &pixel(0)), "mask 0x001f0000");
    refused(&bmp([2, 1], 15, 0, &[], &pixel(0)), "15 bits a pixel in compression 0");
    refused(&three[..three.len() - 1], "truncated");
    refused(&bmp([0, 1], 24, 0, &[], &[0; 4]), "0×1");
}

#[test]
fn bmp_of_runs() {
    // The lower row: a run and three pixels as they are; the upper one: more than it has room for.
    let runs = [2, 1, 0, 3, 0, 2, 3, 0, 0, 0, 9, 2, 0, 0, 0, 1];
    is(&bmp([5, 2], 8, 1, &palette(256), &runs), 5, 2, &[C, C, C, C, C, B, B, A, C, D]);
    // Two colours in turn.
    let runs = [3, 0x12, 0, 3, 0x31, 0x20, 0, 0, 9, 0x10, 0, 0, 0, 1];
    is(&bmp([6, 2], 4, 2, &palette(16), &runs), 6, 2, &[B, A, B, A, B, A, B, C, B, D, B, C]);
    // Two to the right and one up; what is left out has the first colour.
    let runs = [1, 1, 0, 2, 1, 1, 2, 3, 0, 0, 4, 2, 0, 1];
    is(&bmp([4, 3], 8, 1, &palette(256), &runs), 4, 3, &[C, C, C, C, A, A, D, D, B, A, A, A]);
    let file = bmp([4, 3], 8, 1, &palette(256), &runs[..12]);
    for n in 0..runs.len() - 2 {
        refused(&file[..file.len() - 12 + n], "truncated");
    }
    let beyond = "beyond the end of its row";
    refused(&bmp([2, 1], 8, 1, &palette(256), &[0, 3, 1, 1, 1, 0, 0, 1]), beyond);
    refused(&bmp([2, 1], 8, 1, &palette(256), &[0, 2, 3, 0, 0, 1]), beyond);
    refused(&bmp([2, -1], 8, 1, &palette(256), &[2, 1, 0, 1]), "save it uncompressed");
}
