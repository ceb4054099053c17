//! Small files that mean much: made by hand, because random damage does not
//! come upon them.

use super::seeds::{bmp, gzip, tar, zip};

/// A file with the name of its reader and its own.
pub type Bomb = (&'static str, &'static str, Vec<u8>);

/// All of them.
pub fn bombs() -> Vec<Bomb> {
    [images(), pickles(), graphs(), databases()].concat()
}

/// Images, archives and arrays that claim or become much.
fn images() -> Vec<Bomb> {
    let zeros = vec![0; 30 << 20];
    let names: Vec<String> = (0..100_000).map(|i| format!("{i}.png")).collect();
    let many: Vec<(&str, Vec<u8>)> = names.iter().map(|n| (&**n, Vec::new())).collect();
    let whole = zip(&[("0.bmp", bmp(2, 2))], true);
    let end = whole.len() - 22;
    let with = |at: usize, bytes: &[u8]| {
        let mut out = whole.clone();
        out[end + at..end + at + bytes.len()].copy_from_slice(bytes);
        out
    };
    // Sizes in the directory: of the file packed, and unpacked.
    let directory = whole.windows(4).rposition(|w| w == b"PK\x01\x02").expect("there is one");
    let mut sizes = whole.clone();
    sizes[directory + 20..directory + 28].fill(0xfe);
    let wide = |width: u32, height: u32| {
        let mut out = bmp(2, 2);
        out[18..22].copy_from_slice(&width.to_le_bytes());
        out[22..26].copy_from_slice(&height.to_le_bytes());
        out
    };
    let matrix = |kind: u32, size: u32, body: &[u8]| {
        let mut out = vec![b' '; 124];
        out.extend([0, 1, b'I', b'M']);
        out.extend(kind.to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend(body);
        out
    };
    let mut deflated = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut deflated, &[&[14, 0, 0, 0, 0, 0, 0, 200][..], &zeros].concat())
        .expect("in memory");
    let deflated = deflated.finish().expect("in memory");
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0, 7, 0x80][..], &zeros].concat();
    vec![
        ("image", "wide", wide(1 << 30, 1)),
        ("image", "square", wide(1023, 1024)),
        ("image", "negative", wide(1000, 1000u32.wrapping_neg())),
        ("image_archive", "many in a zip", zip(&many, false)),
        ("image_archive", "many in a tar", tar(&many)),
        ("image_archive", "many in a compressed tar", gzip(&tar(&many))),
        ("image_archive", "zeros in a zip", zip(&[("a.bmp", zeros.clone())], true)),
        ("image_archive", "zeros in a tar", gzip(&tar(&[("a.bmp", zeros.clone())]))),
        ("image_archive", "entries", with(8, &[0xff; 4])),
        ("image_archive", "directory", with(12, &[0xff; 8])),
        ("image_archive", "sizes", sizes),
        ("image_archive", "ends", [b"PK\x05\x06".repeat(1 << 18), whole.clone()].concat()),
        ("svhn", "size", matrix(14, !0, &[])),
        ("svhn", "inflated", matrix(15, deflated.len() as u32, &deflated)),
        ("svhn", "elements", matrix(1, 0, &[1, 0, 0, 0, 0, 0, 0, 0].repeat(100_000))),
        ("idx", "one large image", [&[2, 0][..], &idx].concat()),
        ("image_lists", "lines", b"a 0.png\n".repeat(1 << 20)),
        ("image_lists", "short lines", b"a\n".repeat(1 << 22)),
        (
            "image_lists",
            "names",
            (0..1 << 20).map(|i| format!("{i:x}\n")).collect::<String>().into_bytes(),
        ),
    ]
}

/// Instructions of one byte that make an object, or copies of one.
fn pickles() -> Vec<Bomb> {
    let of = |body: &[u8]| [b"\x80\x02", body, b"."].concat();
    // Each list holds the one before twice.
    let doubled = [b"]q\x000".to_vec(), b"](h\x00h\x00eq\x000".repeat(60)].concat();
    let labels = [&doubled[..], b"}U\x06labelsh\x00s"].concat();
    let doubled = [&doubled[..], b"h\x00"].concat();
    vec![
        ("cifar", "lists", of(&b"]".repeat(1 << 20))),
        ("cifar", "marks", of(&b"(".repeat(1 << 20))),
        ("cifar", "copies", of(&[&b"]"[..], &b"2".repeat(1 << 20)].concat())),
        ("cifar", "doubled", of(&doubled)),
        ("cifar", "doubled labels", of(&labels)),
        ("cifar", "remembered", of(&[&b"N"[..], &b"\x94".repeat(1 << 20)].concat())),
        ("cifar", "deep", of(&[&b")"[..], &b"\x85".repeat(200_000)].concat())),
        ("cifar", "size", of(b"B\xff\xff\xff\xff")),
        ("cifar", "itself", of(b"}q\x00U\x04datah\x00sU\x06labels]s")),
    ]
}

/// A model of one message repeated.
fn graphs() -> Vec<Bomb> {
    let within = |field: u8, body: &[u8]| {
        let mut out = vec![field << 3 | 2];
        let mut length = body.len();
        while length > 127 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend(body);
        out
    };
    let graph = |body: &[u8]| within(7, body);
    let identity = [within(1, b"a"), within(2, b"a"), within(4, b"Identity")].concat();
    let input = within(11, &[within(1, b"x"), within(2, &within(1, &[8, 1]))].concat());
    let output = within(12, &within(1, b"a"));
    let product =
        [within(1, b"x"), within(1, b"w"), within(2, b"a"), within(4, b"MatMul")].concat();
    // A weight of no rows and of very many columns.
    let columns = [8, 0, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 16, 1];
    let weight = within(5, &[&columns[..], &within(8, b"w")].concat());
    vec![
        ("onnx", "nodes", graph(&b"\x0a\0".repeat(1 << 20))),
        ("onnx", "dimensions", graph(&within(5, &within(1, &vec![0; 1 << 22])))),
        ("onnx", "names", graph(&within(1, &b"\x0a\0".repeat(1 << 20)))),
        ("onnx", "operators", b"\x42\0".repeat(1 << 20)),
        (
            "onnx",
            "a node before itself",
            graph(&[within(1, &identity), input.clone(), output.clone()].concat()),
        ),
        ("onnx", "no rows", graph(&[within(1, &product), weight, input, output].concat())),
    ]
}

/// Leaves whose entries are all one and the same node.
fn databases() -> Vec<Bomb> {
    const PAGE: usize = 1 << 15;
    const LEAVES: usize = 120;
    let page = |number: usize, flags: u16, nodes: &[(usize, [u8; 8])]| {
        let mut out = (number as u64).to_le_bytes().to_vec();
        let lower = (16 + 2 * nodes.len()) as u16;
        out.extend([0, flags, lower, PAGE as u16].iter().flat_map(|v| v.to_le_bytes()));
        out.extend(nodes.iter().flat_map(|(at, _)| (*at as u16).to_le_bytes()));
        out.resize(PAGE, 0);
        nodes.iter().for_each(|(at, node)| out[*at..*at + 8].copy_from_slice(node));
        out
    };
    // One byte of key, no value.
    let node = (PAGE - 10, [0, 0, 0, 0, 0, 0, 1, 0]);
    let nodes = vec![node; (PAGE - 10 - 16) / 2];
    let mut meta = page(0, 8, &[]);
    let mut put = |at: usize, value: u64, width: usize| {
        meta[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    };
    let entries = (LEAVES * nodes.len()) as u64;
    let header = [(16, 0xbeef_c0de, 4), (20, 1, 4), (40, PAGE as u64, 4), (94, 2, 2)];
    let tree = [(120, entries, 8), (128, 2, 8), (136, 2 + LEAVES as u64, 8)];
    header.into_iter().chain(tree).for_each(|(at, value, width)| put(at, value, width));
    let child = |i: usize| (PAGE - 8 * (i + 1), ((3 + i) as u64).to_le_bytes());
    let children: Vec<_> = (0..LEAVES).map(child).collect();
    let mut out = [meta.clone(), meta, page(2, 1, &children)].concat();
    (0..LEAVES).for_each(|i| out.extend(page(3 + i, 2, &nodes)));
    vec![("lsun", "one node", out)]
}
