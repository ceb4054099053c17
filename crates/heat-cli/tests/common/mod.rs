//! The command on real features, and run folders compared byte for byte.
#![allow(dead_code)]

pub mod browser;
pub mod place;
pub mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub fn data(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../../examples/cifar10-densenet").join(format!("{name}.safetensors"));
    path.to_str().unwrap().to_owned()
}

pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heat"));
    command.args(args).current_dir(folder);
    command
}

/// Begin a command whose output nobody reads.
pub fn start(folder: &Path, args: &[&str]) -> Child {
    let mut command = command(folder, args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command that must succeed.
pub fn ok(folder: &Path, args: &[&str]) -> Output {
    let out = command(folder, args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    out
}

/// Exit code and standard error of a command that must fail.
pub fn fails(folder: &Path, args: &[&str]) -> (i32, String) {
    let out = command(folder, args).output().unwrap();
    assert!(!out.status.success(), "{args:?}");
    (out.status.code().unwrap(), text(&out.stderr))
}

/// A matrix as .npy.
pub fn npy(path: &Path, rows: &[&[f32]]) {
    let shape = format!("({}, {})", rows.len(), rows[0].len());
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(rows.iter().flat_map(|row| row.iter()).flat_map(|v| v.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

pub fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` not in: {text}");
    }
}

/// Every file below a folder, by its path there.
pub fn tree(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                files.insert(name, path);
            }
        }
    }
    files
}

/// What must not depend on when a command was killed: everything but locks,
/// event files (they hold the time) and the seconds of a sweep. A temporary
/// file may vanish meanwhile: a killed sweep's runs end a moment after it.
pub fn results(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let kept = |name: &str| {
        !(name.ends_with(".lock") || name.contains("events.out") || name.ends_with("sweep.json"))
    };
    let files = tree(folder).into_iter().filter(|(name, _)| kept(name));
    let read = |(name, path): (String, PathBuf)| match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound && name.contains(".heat-") => None,
        bytes => Some((name, bytes.unwrap())),
    };
    files.filter_map(read).collect()
}

/// Names and bytes agree; the message names the file.
pub fn assert_same(got: &BTreeMap<String, Vec<u8>>, want: &BTreeMap<String, Vec<u8>>, when: &str) {
    let names = |m: &BTreeMap<String, Vec<u8>>| m.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(got), names(want), "{when}");
    for (name, bytes) in want {
        assert!(got[name] == *bytes, "{name} {when}");
    }
}

/// Whether networks can be run here.
pub fn runtime(test: &str) -> bool {
    let found = heat_images::backbone::find_library(None);
    if let Err(error) = &found {
        // Past the harness, which keeps what passing tests print to itself.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED {test}: {error}\n"),
        );
    }
    found.is_ok()
}
