//! The command on real features, and run directories compared byte for byte.
#![allow(dead_code)]

pub mod browser;
pub mod place;
pub mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest that a command is waited for: many times what any of them takes.
pub const LONGEST: Duration = Duration::from_secs(300);

pub fn data(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("data/cifar10-densenet").join(format!("{name}.safetensors"));
    path.to_str().unwrap().to_owned()
}

pub fn command(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heat"));
    command.args(args).current_dir(directory);
    command
}

/// Begin a command whose output nobody reads.
pub fn start(directory: &Path, args: &[&str]) -> Child {
    let mut command = command(directory, args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Wait for `done`. A command that ends before it, or never gets there, is a failure.
#[track_caller]
pub fn wait_until(child: &mut Child, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "ended too early: {ended:?}");
        if start.elapsed() > LONGEST {
            let _ = child.kill();
            panic!("did not get there in {LONGEST:?}");
        }
        sleep(Duration::from_millis(2));
    }
}

/// How a command ends that is about to.
#[track_caller]
pub fn end(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > LONGEST {
            let _ = child.kill();
            panic!("did not end in {LONGEST:?}");
        }
        sleep(Duration::from_millis(2));
    }
}

/// The exit code after Ctrl-C.
#[cfg(unix)]
#[track_caller]
pub fn interrupt(child: &mut Child) -> Option<i32> {
    signal(child, "-INT")
}

/// The exit code after a signal.
#[cfg(unix)]
#[track_caller]
pub fn signal(child: &mut Child, name: &str) -> Option<i32> {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    end(child).code()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command that must succeed.
pub fn ok(directory: &Path, args: &[&str]) -> Output {
    let out = command(directory, args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    out
}

/// Exit code and standard error of a command that must fail.
pub fn fails(directory: &Path, args: &[&str]) -> (i32, String) {
    let out = command(directory, args).output().unwrap();
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

/// Every file below a directory, by its path there.
pub fn tree(directory: &Path) -> BTreeMap<String, PathBuf> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_string_lossy().into_owned();
                files.insert(name, path);
            }
        }
    }
    files
}

/// What must not depend on when a command was killed: everything but locks,
/// event files and records of images (they hold times), the seconds of a sweep and the command of a run. A temporary
/// file may vanish meanwhile: a killed sweep's runs end a moment after it.
pub fn results(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let kept = |name: &str| {
        let named = |end: &str| name.ends_with(end);
        !(named(".lock")
            || name.contains("/inputs-")
            || name.contains("events.out")
            || named("sweep.json")
            || named("run.json"))
    };
    let files = tree(directory).into_iter().filter(|(name, _)| kept(name));
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
