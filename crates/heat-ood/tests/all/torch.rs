//! Checkpoints that PyTorch wrote, and files for PyTorch.
//!
//! `golden/make_torch.py` made `golden/torch` with torch 2.15.0: checkpoints,
//! and in `expected.safetensors` the energies that torch computes with them
//! (in double precision) for the rows `probe`.

use crate::common;

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use common::{close, path};
use heat_ood::ebm::mlp::{Architecture, Mlp, Workspace};
use heat_ood::ebm::torch::{self, ReadOptions};
use heat_ood::io::TensorFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const D: usize = 12;
const H: usize = 16;

fn file(name: &str) -> PathBuf {
    path("torch").join(name)
}

fn read(name: &str) -> heat_ood::Result<Mlp> {
    torch::read(file(&format!("{name}.pt")), &ReadOptions::default())
}

fn refusal(path: &Path) -> String {
    torch::read(path, &ReadOptions::default()).err().expect("refused").to_string()
}

/// What the reader says of these bytes.
fn refused(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.pt");
    fs::write(&path, bytes).unwrap();
    refusal(&path)
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` not in: {text}");
    }
}

fn energies(net: &Mlp) -> Vec<f32> {
    let expected = TensorFile::open(&file("expected.safetensors")).unwrap();
    let probe = expected.f32("probe", &[7, D]).unwrap();
    let mut out = vec![0.0; 7];
    net.energy(&probe, D, 7, &mut Workspace::default(), &mut out);
    out
}

fn shape(n_hidden_layers: usize, tied: bool, tapered: bool) -> Architecture {
    Architecture { input_dim: D, hidden_dim: H, n_hidden_layers, tied, tapered }
}

/// Each file, the key of its energies, and the network it holds.
fn files() -> Vec<(&'static str, &'static str, Architecture)> {
    let tied = shape(4, true, false);
    vec![
        ("tied", "tied", tied),
        ("legacy", "tied", tied),
        ("protocol4", "tied", tied),
        ("bare", "tied", tied),
        ("parameters", "tied", tied),
        ("untied", "untied", shape(2, false, false)),
        ("cuda", "untied", shape(2, false, false)),
        ("evil", "untied", shape(2, false, false)),
        ("one", "one", shape(1, false, false)),
        ("tapered", "tapered", shape(2, false, true)),
        ("f16", "f16", shape(3, true, false)),
        ("bf16", "bf16", shape(3, true, false)),
        ("f64", "f64", shape(3, true, false)),
        ("strided", "strided", shape(2, false, false)),
    ]
}

/// `evil` names `os.system`: nothing here could call it.
#[test]
fn energies_are_those_of_pytorch() {
    let expected = TensorFile::open(&file("expected.safetensors")).unwrap();
    for (name, key, architecture) in files() {
        let net = read(name).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(net.architecture(), architecture, "{name}");
        close(name, &energies(&net), &expected.f32(key, &[7]).unwrap(), 1e-6);
    }
}

#[test]
fn the_caller_may_say_whether_layers_are_shared() {
    let with = |name: &str, tied| {
        let options = ReadOptions { tied: Some(tied), ..ReadOptions::default() };
        torch::read(file(name), &options)
    };
    let net = with("tied.pt", false).unwrap();
    assert_eq!(net.architecture(), shape(4, false, false));
    assert_eq!(energies(&net), energies(&read("tied").unwrap()));
    assert!(with("one.pt", true).unwrap().architecture().tied);
    let error = with("untied.pt", true).err().unwrap().to_string();
    contains(&error, &["untied.pt", "`mlp.4.bias` differs", "ebm.model.tied=false"]);
}

#[test]
fn several_networks_need_a_prefix() {
    contains(&refusal(&file("two.pt")), &["several networks", "`first.`, `second.`"]);
    let with = |prefix: &str| {
        let options = ReadOptions { prefix: Some(prefix.into()), ..ReadOptions::default() };
        torch::read(file("two.pt"), &options)
    };
    assert_eq!(with("second.").unwrap().parameters(), read("untied").unwrap().parameters());
    let error = with("third.").err().unwrap().to_string();
    contains(&error, &["no `third.mlp.0.weight`", "`first.`, `second.`"]);
}

#[test]
fn everything_wrong_with_the_tensors_is_listed() {
    let error = refusal(&file("incomplete.pt"));
    let missing = ["`mlp.2.bias` [16] is missing", "`mlp.6.weight` [1, 16] is missing"];
    contains(&error, &missing);
    let wrong = "`mlp.4.weight` has shape [16, 17], expected [16, 16]";
    contains(&error, &["incomplete.pt", wrong, "`mlp.4.weight_u` is unexpected"]);
}

#[test]
fn tensors_that_are_no_weights() {
    contains(&refusal(&file("integers.pt")), &["`mlp.0.weight` has type I64", "float type"]);
    contains(&refusal(&file("nan.pt")), &["`mlp.2.weight` holds NaN"]);
    contains(&refusal(&file("other.pt")), &["no tensors named `mlp.0.weight`", "model_state.bias"]);
}

/// One value that claims to be 8192 × 8192.
#[test]
fn expanded_views() {
    contains(&refusal(&file("expanded.pt")), &["268500996 bytes", "views", "clone()"]);
}

#[test]
fn pickles_that_need_python() {
    let error = refusal(&file("unreadable.pt"));
    contains(&error, &["unreadable.pt", "without Python", "dict key", "torch.save("]);
    contains(&refusal(&file("plain.pkl")), &["`torch.save` did not write"]);
}

#[test]
fn files_of_other_kinds() {
    let safetensors = refusal(&file("expected.safetensors"));
    contains(&safetensors, &["expected.safetensors", "not a PyTorch checkpoint"]);
    contains(&refused(b""), &["empty"]);
    contains(&refused(b"hello"), &["not a PyTorch checkpoint"]);
    contains(&refused(b"PK\x03\x04"), &["directory is damaged"]);
    contains(&refusal(&path("torch")), &["is a directory"]);
    contains(&refusal(&file("absent.pt")), &["absent.pt does not exist"]);
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    contains(&refused(&tar), &["not a PyTorch checkpoint"]);
    let zip = rebuilt("bare", CompressionMethod::Stored, |name, bytes| {
        *name = name.replace("data.pkl", "data.json");
        bytes.clear();
    });
    contains(&refused(&zip), &["without `data.pkl`"]);
}

#[test]
fn compressed_archives() {
    let zip = rebuilt("bare", CompressionMethod::Deflated, |_, _| {});
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.pt");
    fs::write(&path, zip).unwrap();
    let compressed = torch::read(&path, &ReadOptions::default()).unwrap();
    assert_eq!(energies(&compressed), energies(&read("bare").unwrap()));
}

#[test]
fn every_truncation_is_refused() {
    for name in ["bare", "cuda", "legacy"] {
        let whole = fs::read(file(&format!("{name}.pt"))).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pt");
        for n in (0..whole.len()).step_by(13) {
            fs::write(&path, &whole[..n]).unwrap();
            assert!(torch::read(&path, &ReadOptions::default()).is_err(), "{name} {n}");
        }
    }
}

/// The archive of a golden file, each entry changed by `change`: checksums hold.
fn rebuilt(
    name: &str,
    method: CompressionMethod,
    mut change: impl FnMut(&mut String, &mut Vec<u8>),
) -> Vec<u8> {
    let bytes = fs::read(file(&format!("{name}.pt"))).unwrap();
    let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).unwrap();
        let mut name = entry.name().unwrap().to_string();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        change(&mut name, &mut data);
        zip.start_file(name, options).unwrap();
        zip.write_all(&data).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A few numbers from a linear congruence.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % n
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.roll(3) {
            let at = self.roll(bytes.len());
            match self.roll(4) {
                0 => bytes[at] = self.roll(256) as u8,
                1 => bytes[at] ^= 1 << self.roll(8),
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"(tuQRbh\x81\x94.]}N"[self.roll(13)]),
            }
        }
    }
}

/// Whatever is changed, the reader refuses or reads: it neither panics nor hangs.
#[test]
fn damaged_files_are_refused_or_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.pt");
    let mut dice = Dice(7);
    let mut read = 0;
    for (name, ..) in files() {
        let whole = fs::read(file(&format!("{name}.pt"))).unwrap();
        for i in 0..200 {
            let mut bytes = whole.clone();
            if i % 2 == 0 && name != "legacy" {
                bytes = rebuilt(name, CompressionMethod::Stored, |name, data| {
                    if name.ends_with("data.pkl") {
                        dice.mutate(data);
                    }
                });
            } else {
                dice.mutate(&mut bytes);
            }
            fs::write(&path, &bytes).unwrap();
            read += usize::from(torch::read(&path, &ReadOptions::default()).is_ok());
        }
    }
    assert!(read > 50, "{read}");
}

#[test]
fn what_is_written_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    for (name, _, architecture) in files() {
        let net = read(name).unwrap();
        let paths = [directory.path().join("a.pt"), directory.path().join("b.pt")];
        paths.iter().for_each(|path| torch::write(path, &net).unwrap());
        let bytes = paths.each_ref().map(|path| fs::read(path).unwrap());
        assert_eq!(bytes[0], bytes[1], "{name}");
        let again = torch::read(&paths[0], &ReadOptions::default()).unwrap();
        assert_eq!(again.architecture(), architecture, "{name}");
        assert_eq!(again.parameters(), net.parameters(), "{name}");
    }
}

/// The layout of `torch.save`: stored entries on multiples of 64 bytes, shared
/// layers once; names and values by the reader crate.
#[test]
fn written_files_are_laid_out_as_pytorch_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("net.pt");
    let net = read("tied").unwrap();
    torch::write(&path, &net).unwrap();
    let mut archive = ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
    let mut names = Vec::new();
    for i in 0..archive.len() {
        let entry = archive.by_index(i).unwrap();
        assert_eq!(entry.compression(), CompressionMethod::Stored);
        assert_eq!(entry.data_start().unwrap() % 64, 0);
        names.push(entry.name().unwrap().to_string());
    }
    let storages = names.iter().filter(|n| n.starts_with("archive/data/")).count();
    assert_eq!((storages, names[0].as_str()), (6, "archive/data.pkl"));
    let reader = pytorch_reader::PytorchReader::new(&path).unwrap();
    let mut keys = reader.keys();
    keys.sort();
    let layers = [0, 10, 2, 4, 6, 8].iter().flat_map(|i| [(i, "bias"), (i, "weight")]);
    let expected: Vec<String> =
        layers.map(|(i, end)| format!("model_state.mlp.{i}.{end}")).collect();
    assert_eq!(keys, expected);
    let golden = pytorch_reader::PytorchReader::new(file("tied.pt")).unwrap();
    for key in keys {
        let (ours, theirs) = (reader.get(&key).unwrap(), golden.get(&key).unwrap());
        assert_eq!(ours.read().unwrap(), theirs.read().unwrap(), "{key}");
    }
}

#[test]
fn a_failed_write_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no/such/directory/net.pt");
    let error = torch::write(&path, &read("one").unwrap()).unwrap_err().to_string();
    contains(&error, &["write", "net.pt"]);
}
