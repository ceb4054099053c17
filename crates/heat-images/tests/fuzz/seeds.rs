//! Sound images, data sets and graphs, small and always the same.

use std::io::{Cursor, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Files for the reader of that name.
pub fn seeds(reader: &str, _: &Path) -> Vec<Vec<u8>> {
    match reader {
        "image" => images(),
        "image_archive" => archives(),
        "cifar" => batches(),
        "image_arrays" => arrays(),
        "svhn" => vec![golden("images/digits.mat"), matlab()],
        "idx" => digits(),
        "image_lists" => lists(),
        "lsun" => {
            ["bedroom", "tower"].map(|c| golden(&format!("images/{c}_val_lmdb/data.mdb"))).into()
        }
        "onnx" => ["anysize", "fixed", "future", "half", "headless", "matmul", "plain", "vector"]
            .map(|name| golden(&format!("onnx/{name}.onnx")))
            .into(),
        other => panic!("no reader of the name {other}"),
    }
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(super::IMAGE_GOLDEN).join(name)).expect("in the source")
}

/// A bitmap of 24 bits.
pub fn bmp(width: u32, height: u32) -> Vec<u8> {
    let row = (3 * width).next_multiple_of(4);
    let size = row * height;
    let mut out = b"BM".to_vec();
    for value in [54 + size, 0, 54, 40, width, height, 1 | 24 << 16, 0, size, 0, 0, 0, 0] {
        out.extend(value.to_le_bytes());
    }
    out.extend((0..size).map(|i| (i * 37 % 251) as u8));
    out
}

fn images() -> Vec<Vec<u8>> {
    let names = "bits.png cmyk.jpg full.jpg grey.jpg grey16.png la.png la16.png palette.png progressive.jpg \
                 rgb.bmp rgb.gif rgb.jpg rgb.png rgb.webp rgb16.png rgba.png rgba16.png rotated.jpg \
                 transparent.png";
    let mut all: Vec<_> =
        names.split_whitespace().map(|name| golden(&format!("images/{name}"))).collect();
    all.push(bmp(5, 3));
    // One of each kind that is decoded in a way of its own.
    let forms = "coarse_45x37.jpg uneven_45x37.jpg restarts.jpg restarts_progressive.jpg ycck.jpg \
                 q30_420_progressive.jpg offset_local.gif beyond.gif interlaced.gif P.tif \
                 rgb_tiff_lzw.tif rgb_packbits.tif rgb_tiff_adobe_deflate.tif grey16.tif turned6.tif \
                 premultiplied.tif black_is_zero1.tif raw.ppm most1000.ppm plain.pgm plain.pbm";
    all.extend(forms.split_whitespace().map(|name| golden(&format!("forms/{name}"))));
    all
}

type Files = Vec<(&'static str, Vec<u8>)>;

/// The files of some data sets.
fn sets() -> Vec<Files> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        vec![("p/cat/0.bmp", bmp(3, 2)), ("p/dog/1.bmp", bmp(2, 3)), ("p/dog/2.BMP", bmp(1, 1))],
        vec![
            ("dtd/images/dotted/0.jpg", bmp(3, 2)),
            ("dtd/images/banded/1.jpg", bmp(2, 3)),
            ("dtd/labels/test1.txt", text("dotted/0.jpg\nbanded/1.jpg\n")),
        ],
        vec![
            ("wnids.txt", text("n02\nn01\n")),
            ("val/images/val_0.JPEG", bmp(3, 2)),
            ("val/val_annotations.txt", text("val_0.JPEG\tn01\t0\t0\t9\t9\n")),
            ("train/n02/images/n02_0.JPEG", bmp(2, 2)),
        ],
        vec![
            ("val_256/Places365_val_00000001.jpg", bmp(3, 2)),
            ("places365_val.txt", text("Places365_val_00000001.jpg 1\n")),
            ("categories_places365.txt", text("/a/b 0\n/a/c 1\n")),
        ],
        vec![("c/test_batch.bin", vec![3; 3073]), ("c/batches.meta.txt", text("a\nb\n"))],
    ]
}

pub fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).expect("in memory");
    }
    tar.into_inner().expect("in memory")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(bytes).expect("in memory");
    gz.finish().expect("in memory")
}

pub fn zip(files: &[(&str, Vec<u8>)], compressed: bool) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let method = if compressed { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    let options = SimpleFileOptions::default()
        .compression_method(method)
        .last_modified_time(zip::DateTime::default());
    for (name, bytes) in files {
        zip.start_file(*name, options).expect("in memory");
        zip.write_all(bytes).expect("in memory");
    }
    zip.finish().expect("in memory").into_inner()
}

fn archives() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for files in sets() {
        all.extend([tar(&files), gzip(&tar(&files)), zip(&files, false), zip(&files, true)]);
    }
    all.push(golden("cases/images/13_links.tar"));
    all.push(golden("cases/images/14_backslash.zip"));
    all
}

fn npy(kind: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (text.len() as u16).to_le_bytes();
    [&b"\x93NUMPY\x01\0"[..], &length, text.as_bytes(), values].concat()
}

fn arrays() -> Vec<Vec<u8>> {
    let images = npy("|u1", "(10, 2, 3, 3)", &[7; 180]);
    let labels = npy("<i8", "(10,)", &[0; 80]);
    let texts = npy("<U2", "(10, 1)", &[0; 80]);
    let named =
        |labels: &[u8]| [("test_images.npy", images.clone()), ("test_labels.npy", labels.to_vec())];
    vec![images.clone(), zip(&named(&labels), true), zip(&named(&texts), false)]
}

fn batches() -> Vec<Vec<u8>> {
    let values = |i: usize| (i * 31 % 256) as u8;
    let ten = (0..2 * 3073).map(|i| if i % 3073 == 0 { 3 } else { values(i) });
    let hundred = (0..2 * 3074).map(|i| if i % 3074 < 2 { 9 } else { values(i) });
    // As Python 3 pickles it with protocol 4.
    let mut four = b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04data\x94\
                     \x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94\
                     (K\x01K\x01M\x00\x0c\x86\x94N\x89B\x00\x0c\x00\x00".to_vec();
    four.extend((0..3072).map(values));
    four.extend(b"\x94t\x94b\x8c\x06labels\x94]\x94K\x05a\x8c\x0bfine_labels\x94]\x94(K\x07eu.");
    vec![
        golden("images/python2.pkl"),
        golden("images/python3.pkl"),
        four,
        ten.collect(),
        hundred.collect(),
    ]
}

/// The arrays of one image, not compressed.
fn matlab() -> Vec<u8> {
    let element = |kind: u32, body: &[u8]| {
        let mut out = [kind.to_le_bytes(), (body.len() as u32).to_le_bytes()].concat();
        out.extend(body);
        out.resize(out.len().next_multiple_of(8), 0);
        out
    };
    let numbers = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let array = |class: u32, shape: &[u32], name: u8, values: Vec<u8>| {
        let parts = [
            element(6, &numbers(&[class, 0])),
            element(5, &numbers(shape)),
            vec![1, 0, 1, 0, name, 0, 0, 0],
            values,
        ];
        element(14, &parts.concat())
    };
    let pixels: Vec<u8> = (0..4 * 3 * 3).collect();
    let mut out = vec![b' '; 124];
    out.extend([0, 1, b'I', b'M']);
    out.extend(array(9, &[4, 3, 3, 1], b'X', element(2, &pixels)));
    out.extend(array(6, &[1, 1], b'y', element(9, &10f64.to_le_bytes())));
    out
}

fn digits() -> Vec<Vec<u8>> {
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2][..], &[7; 12]].concat();
    let labels = [0, 0, 8, 1, 0, 0, 0, 2, 4, 9];
    let packed = gzip(&labels);
    vec![
        [&[0, 0][..], &images].concat(),
        [&[1, 10][..], &labels, &images].concat(),
        [&[2, 10][..], &labels, &images].concat(),
        [&[2, packed.len() as u8][..], &packed, &gzip(&images)].concat(),
    ]
}

fn lists() -> Vec<Vec<u8>> {
    [
        "# two\na 0.png 5\n\na 0.png\t0\n",
        "a 0.png\n",
        "val_0.JPEG\tn01\t0\t0\t9\t9\n",
        "a/0.jpg\n",
        "Places365_val_00000001.jpg 0\n",
        "n02\nn01\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
