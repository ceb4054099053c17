//! A directory with a data set of its own, for `heat data`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

use super::server::{Answer, Server};
use super::{text, tree};

/// Bytes that no two places share.
pub fn bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (x >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A directory with `own.toml`, which describes one data set `own`.
pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new(files: &[(&str, &str, String)]) -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        place.describe(files);
        place
    }

    /// Each: name, address, further lines.
    pub fn describe(&self, files: &[(&str, &str, String)]) {
        let mut toml = "[own]\ntitle = \"Own\"\nterms = \"none\"\n".to_owned();
        for (name, url, lines) in files {
            let base = name.rsplit('/').next().unwrap();
            toml += "[[own.files]]\n";
            toml += &format!("name = \"{name}\"\nurls = [\"{url}/{base}\"]\n{lines}\n");
        }
        fs::write(self.0.path().join("own.toml"), toml).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = super::command(self.0.path(), &["data"]);
        command.args(args).args(["--sources", "own.toml"]);
        command.env("NO_PROXY", "127.0.0.1").env_remove("HEAT_MIRROR");
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard error of a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        text(&out.stderr)
    }

    /// Standard error of a command that must fail, with code 1.
    pub fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}", text(&out.stderr));
        text(&out.stderr)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("datasets").join(name)
    }

    pub fn names(&self) -> Vec<String> {
        tree(&self.path("")).into_keys().filter(|n| !n.ends_with(".lock")).collect()
    }

    #[track_caller]
    pub fn holds(&self, name: &str, want: &[u8]) {
        assert!(fs::read(self.path(name)).unwrap() == want, "{name} has other bytes");
        assert!(!self.names().iter().any(|n| n.contains(".heat-")), "{:?}", self.names());
    }
}

/// One file `a.bin` with its SHA-256 at `server`.
pub fn vouched(server: &Server, want: &[u8]) -> Place {
    Place::new(&[("a.bin", &server.url, format!("sha256 = \"{}\"", sha256(want)))])
}

/// One file `a.bin` without any checksum.
pub fn unvouched(server: &Server) -> Place {
    Place::new(&[("a.bin", &server.url, String::new())])
}

pub fn serves(want: &[u8]) -> Server {
    let want = want.to_vec();
    Server::start(move |_, request| Answer::file(&want, "\"v1\"", request))
}

pub const GET: [&str; 2] = ["get", "own"];
