//! Small files that mean much: made by hand, because random damage does not
//! come upon them.

use super::bytes::npy;
use super::seeds::npz;

/// A file with the name of its reader and its own.
pub type Bomb = (&'static str, &'static str, Vec<u8>);

/// All of them.
pub fn bombs() -> Vec<Bomb> {
    [tensors(), outlines(), archives(), recipes()].concat()
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
