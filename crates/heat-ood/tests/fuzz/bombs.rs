//! Small files that mean much: made by hand, because random damage does not
//! come upon them.

use super::bytes::npy;
use super::picture_seeds::{bmp, gzip, tar, zip};
use super::seeds::npz;

/// A file with the name of its reader and its own.
pub type Bomb = (&'static str, &'static str, Vec<u8>);

/// All of them.
pub fn bombs() -> Vec<Bomb> {
    [tensors(), outlines(), archives(), recipes(), pictures(), pickles(), graphs()].concat()
}

/// A safetensors file of this header alone.
fn safetensors(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
}

fn metadata(entries: &[(&str, &str)]) -> Vec<u8> {
    let map: serde_json::Map<_, _> =
        entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    safetensors(&serde_json::json!({ "__metadata__": map }).to_string())
}

/// Headers of many small things.
fn tensors() -> Vec<Bomb> {
    let empty =
        |i: usize| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    let joined =
        |n: usize, f: &dyn Fn(usize) -> String| (0..n).map(f).collect::<Vec<_>>().join(",");
    let texts = joined(400_000, &|i| format!("\"{i}\":\"\""));
    let dims = joined(2_000_000, &|_| "0".into());
    vec![
        (
            "features_safetensors",
            "tensors",
            safetensors(&format!("{{{}}}", joined(100_000, &empty))),
        ),
        (
            "features_safetensors",
            "texts",
            safetensors(&format!("{{\"__metadata__\":{{{texts}}}}}")),
        ),
        (
            "features_safetensors",
            "dimensions",
            safetensors(&format!(
                "{{\"avg\":{{\"dtype\":\"U8\",\"shape\":[{dims}],\"data_offsets\":[0,0]}}}}"
            )),
        ),
        ("features_safetensors", "nested", safetensors(&"[".repeat(1 << 20))),
        (
            "features_safetensors",
            "unknown keys",
            safetensors(&format!("{{\"avg\":{{{}}}}}", joined(400_000, &|i| format!("\"{i}\":0")))),
        ),
    ]
}

/// Texts of detectors and checkpoints.
fn outlines() -> Vec<Bomb> {
    let file = |format: &str, key: &str, text: String| {
        let outline = "{\"kind\":\"x\",\"config\":null}";
        let other = if key == "scorer" { "x" } else { "scorer" };
        metadata(&[("format", format), ("version", "1"), (key, &text), (other, outline)])
    };
    let many = |unit: &str, n: usize| vec![unit; n].join(",");
    let numbers = format!("{{\"kind\":\"gmm\",\"config\":[{}]}}", many("0", 1_000_000));
    let part = "[\"\",{\"kind\":\"\",\"config\":0}]";
    let parts =
        format!("{{\"kind\":\"combined\",\"config\":0,\"parts\":[{}]}}", many(part, 200_000));
    let open = "{\"kind\":\"combined\",\"config\":0,\"parts\":[[\"\",";
    let deep = open.repeat(100_000);
    let means = format!(
        "{{\"kind\":\"combined\",\"config\":{{\"beta\":\"0\",\"names\":[],\"std\":[],\"mean\":[{}]}}}}",
        many("0.5", 500_000)
    );
    let train =
        format!("{{\"library_version\":\"\",\"train\":[{}]}}", many("[\"\",\"\"]", 400_000));
    vec![
        ("detector", "numbers", file("heat-detector", "scorer", numbers)),
        ("detector", "parts", file("heat-detector", "scorer", parts)),
        ("detector", "deep", file("heat-detector", "scorer", deep)),
        ("detector", "means", file("heat-detector", "scorer", means)),
        ("detector", "provenance", file("heat-detector", "provenance", train)),
        (
            "checkpoint",
            "milestones",
            file(
                "heat-checkpoint",
                "config",
                format!(
                    "{{\"ebm\":{{\"optimizer\":{{\"sch\":{{\"milestones\":[{}]}}}}}}}}",
                    many("1", 1_000_000)
                ),
            ),
        ),
        (
            "checkpoint",
            "nothing",
            file(
                "heat-checkpoint",
                "state",
                format!("{{\"history\":[{}]}}", many("{}", 1_000_000)),
            ),
        ),
    ]
}

fn archives() -> Vec<Bomb> {
    let zeros = |order: bool, n: usize| npy("<f4", order, &format!("({n}, 4)"), &vec![0; 16 * n]);
    let long = npy("<f4", false, &format!("({})", "1,".repeat(20_000)), &[0; 4]);
    let shapes = |shape: &str| npy("<f4", false, shape, &[0; 4]);
    let deep = npy("<f4", false, &"(".repeat(60_000), &[0; 4]);
    let (wide, tall) = (zeros(false, 1 << 22), zeros(true, 1 << 22));
    let whole = npz(&[("avg", &npy("<f4", false, "(1, 1)", &[0; 4]))], false);
    let end = whole.len() - 22;
    let with = |at: usize, bytes: &[u8]| {
        let mut out = whole.clone();
        out[end + at..end + at + bytes.len()].copy_from_slice(bytes);
        out
    };
    let names: Vec<String> = (0..40_000).map(|i| i.to_string()).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|n| (&**n, &[][..])).collect();
    vec![
        ("features_npy", "long", long),
        ("features_npy", "deep", deep),
        ("features_npy", "two shapes", shapes("(1, 1), 'shape': (6, 9223372036854775807)")),
        (
            "features_npy",
            "a shape in disguise",
            shapes("(1, 1), 'sh\\x61pe': (6, 9223372036854775807)"),
        ),
        ("features_npy", "hexadecimal", shapes("(0xffffffffffffff, 0xffffffffffffff)")),
        ("features_npz", "zeros", npz(&[("avg", &wide)], true)),
        ("features_npz", "columns", npz(&[("avg", &tall), ("std", &tall)], true)),
        ("features_npz", "labels", npz(&[("label", &wide)], true)),
        ("features_npz", "head", npz(&[("weight", &wide), ("bias", &wide)], true)),
        ("features_npz", "entries", with(8, &[0xff; 4])),
        ("features_npz", "size", with(12, &[0xff; 4])),
        ("features_npz", "place", with(16, &[0xff; 4])),
        ("features_npz", "many entries", npz(&many, false)),
        ("features_npz", "ends", [b"PK\x05\x06".repeat(1 << 18), whole.clone()].concat()),
        (
            "features_npz",
            "long ends",
            b"PK\x06\x06\x00\x00PK\x06\x07\x00\x00PK\x05\x06".repeat(1 << 16),
        ),
    ]
}

fn recipes() -> Vec<Bomb> {
    let args = |text: String| format!("\n---\n{text}").into_bytes();
    let many = |n: usize| (0..n).map(|i| format!("k{i}=1\n")).collect::<String>();
    vec![
        ("recipe", "deep key", args(format!("{}x=1", "a.".repeat(200_000)))),
        ("recipe", "deep dotted", format!("{}x=1", "a.".repeat(200_000)).into_bytes()),
        ("recipe", "deep header", format!("[{}x]", "a.".repeat(200_000)).into_bytes()),
        ("recipe", "deep list", format!("a={}", "[".repeat(200_000)).into_bytes()),
        ("recipe", "deep value", args(format!("a={}", "[".repeat(200_000)))),
        ("recipe", "keys", many(200_000).into_bytes()),
        ("recipe", "tables", "[[a]]\n".repeat(100_000).into_bytes()),
        ("recipe", "list", args(format!("seed={}", (0..200_000).map(|i| format!("{i},")).collect::<String>()))),
        ("recipe", "value", args(format!("seed=[{}]", "1,".repeat(400_000)))),
        ("recipe", "long key", args(format!("{}=1", "k".repeat(1 << 20)))),
        ("recipe", "settings", args(format!("knn({})", (0..100_000).map(|i| format!("k{i}=1,")).collect::<String>()))),
        ("recipe", "integers", args("gmm(kmeans=9223372036854775807)\ngmm(pca=9223372036854775807)\nknn(k=9223372036854775807)\ngmm(kmeans=1000000)".into())),
    ]
}

/// Pictures, archives and arrays that claim or become much.
fn pictures() -> Vec<Bomb> {
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
        ("picture", "wide", wide(1 << 30, 1)),
        ("picture", "square", wide(1023, 1024)),
        ("picture", "negative", wide(1000, 1000u32.wrapping_neg())),
        ("picture_archive", "many in a zip", zip(&many, false)),
        ("picture_archive", "many in a tar", tar(&many)),
        ("picture_archive", "many in a compressed tar", gzip(&tar(&many))),
        ("picture_archive", "zeros in a zip", zip(&[("a.bmp", zeros.clone())], true)),
        ("picture_archive", "zeros in a tar", gzip(&tar(&[("a.bmp", zeros.clone())]))),
        ("picture_archive", "entries", with(8, &[0xff; 4])),
        ("picture_archive", "directory", with(12, &[0xff; 8])),
        ("picture_archive", "sizes", sizes),
        ("picture_archive", "ends", [b"PK\x05\x06".repeat(1 << 18), whole.clone()].concat()),
        ("svhn", "size", matrix(14, !0, &[])),
        ("svhn", "inflated", matrix(15, deflated.len() as u32, &deflated)),
        ("svhn", "elements", matrix(1, 0, &[1, 0, 0, 0, 0, 0, 0, 0].repeat(100_000))),
        ("idx", "one large picture", [&[2, 0][..], &idx].concat()),
        ("picture_lists", "lines", b"a 0.png\n".repeat(1 << 20)),
        ("picture_lists", "short lines", b"a\n".repeat(1 << 22)),
        (
            "picture_lists",
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
