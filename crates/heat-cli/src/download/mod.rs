//! Data sets and weights: where they come from, and a directory that holds them.
//!
//! Only `heat data get` downloads. A file has its final name only when every
//! byte of it has been checked.

mod checksum;
mod fetch;
mod http;
mod partial;
mod sources;
mod unpack;

use std::path::{Path, PathBuf};
use std::time::Duration;

use heat_ood::io::open_regular;
use heat_ood::{Error, Event, Observer, Result};
use indicatif::DecimalBytes;

use crate::progress::Progress;
use checksum::{Digests, Records, is_vouched, needs_record, vouched_by};
use fetch::{Fetcher, Order};
use http::Client;
use sources::is_address;

pub use sources::{RemoteFile, Source, Sources};

/// How to download.
pub struct Settings {
    /// Address whose files are tried first.
    mirror: Option<String>,
    retries: u32,
    /// How long a server may be silent.
    silence: Duration,
}

impl Settings {
    pub fn new(mirror: Option<String>, retries: u32, silence: Duration) -> Result<Self> {
        if let Some(mirror) = mirror.as_deref().filter(|m| !is_address(m)) {
            let problem = "expected an address that begins with https:// or http://";
            return Err(Error::config("mirror", mirror, problem));
        }
        Ok(Settings { mirror, retries, silence })
    }
}

/// What can be seen of a file without reading it.
pub enum State {
    Absent,
    /// Bytes of an unfinished download.
    Part(u64),
    /// A file of that name, of another size than it should have.
    WrongSize(u64),
    Here,
}

/// What reading a file says.
pub enum Verdict {
    Absent,
    /// What vouches for it.
    Right(&'static str),
    /// Nothing is known to compare with.
    Unknown,
    Wrong(String),
}

/// The directory of the data sets.
pub struct Directory {
    root: PathBuf,
    records: Records,
}

impl Directory {
    pub fn new(root: &Path) -> Self {
        Directory { root: root.to_owned(), records: Records::new(root) }
    }

    pub fn path(&self, file: &RemoteFile) -> PathBuf {
        self.root.join(&file.name)
    }

    pub fn state(&self, file: &RemoteFile) -> State {
        let path = self.path(file);
        let size = |p: &Path| std::fs::metadata(p).ok().filter(|m| m.is_file()).map(|m| m.len());
        match size(&path) {
            Some(n) if file.size.is_some_and(|size| size != n) => State::WrongSize(n),
            Some(_) => State::Here,
            None => size(&partial::path_of(&path)).map_or(State::Absent, State::Part),
        }
    }

    /// Read a file that is here and compare it with what is known of it.
    pub fn verify(&self, file: &RemoteFile, progress: &mut Progress) -> Result<Verdict> {
        let path = self.path(file);
        if !path.exists() {
            return Ok(Verdict::Absent);
        }
        let recorded = self.recorded(file)?;
        let digests = self.digests(file, progress)?;
        if let Err(wrong) = digests.check(file, recorded.as_deref()) {
            return Ok(Verdict::Wrong(wrong.to_string()));
        }
        if file.unpack && !unpack::is_unpacked(&path)? {
            let directory = unpack::directory_of(&path);
            return Ok(Verdict::Wrong(format!("not unpacked into {}", directory.display())));
        }
        let nothing = !is_vouched(file, recorded.as_deref());
        Ok(if nothing { Verdict::Unknown } else { Verdict::Right(vouched_by(file)) })
    }

    fn recorded(&self, file: &RemoteFile) -> Result<Option<String>> {
        if needs_record(file) { self.records.get(&file.name) } else { Ok(None) }
    }

    fn digests(&self, file: &RemoteFile, progress: &mut Progress) -> Result<Digests> {
        let path = self.path(file);
        let mut opened = open_regular(&path)?;
        let total = opened.metadata().ok().map(|m| m.len());
        progress.bytes(&format!("checking {}", file.name), 0, total);
        let digests = Digests::of(&mut opened, &path, &mut |done| {
            progress.on(Event::Advance { done, loss: None });
        });
        progress.clear();
        digests
    }

    /// Every file of a source, downloaded where it is not here.
    pub fn get(&self, source: &Source, settings: &Settings, progress: &mut Progress) -> Result<()> {
        for file in &source.files {
            let path = self.path(file);
            let here = path.exists() || !self.download(file, settings, progress)?;
            if here {
                self.accept(file, progress)?;
            }
            if file.unpack && unpack::unpack(&path)? {
                progress.say(&format!("unpacked {}", unpack::directory_of(&path).display()));
            }
        }
        Ok(())
    }

    /// A file that was here before: it must be the right one.
    fn accept(&self, file: &RemoteFile, progress: &mut Progress) -> Result<()> {
        let path = self.path(file);
        let recorded = self.recorded(file)?;
        let digests = self.digests(file, progress)?;
        if let Err(wrong) = digests.check(file, recorded.as_deref()) {
            let remedy = "delete or move it, then run the same command again";
            return Err(Error::format(path, format!("{wrong}; {remedy}")));
        }
        let shown = path.display();
        if needs_record(file) && recorded.is_none() {
            self.records.add(&file.name, &digests.sha256)?;
            progress
                .say(&format!("{shown}: already here; its SHA-256 is now kept in checksums.toml"));
        } else {
            progress.say(&format!("{shown}: already here, {}", vouched_by(file)));
        }
        Ok(())
    }

    /// Whether it was needed: another process may have done so meanwhile.
    fn download(
        &self,
        file: &RemoteFile,
        settings: &Settings,
        progress: &mut Progress,
    ) -> Result<bool> {
        let target = self.path(file);
        if let Some(directory) = target.parent() {
            std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        }
        let order = Order {
            file,
            urls: file.addresses(settings.mirror.as_deref()),
            recorded: self.recorded(file)?,
            target: &target,
        };
        let client = Client::new(settings.silence)?;
        let mut size = 0;
        let mut fetcher = Fetcher { client, retries: settings.retries, progress: &mut *progress };
        let fetched = fetcher.fetch(&order, |digests| {
            size = digests.size;
            // Before the file has its name: a file that is here without a line was put here by hand.
            match needs_record(file) && order.recorded.is_none() {
                true => self.records.add(&file.name, &digests.sha256),
                false => Ok(()),
            }
        })?;
        if fetched {
            let said = match order.is_vouched() {
                true => vouched_by(file),
                false => "no checksum is published: its SHA-256 is now kept in checksums.toml",
            };
            progress.say(&format!("wrote {} ({}), {said}", target.display(), DecimalBytes(size)));
        }
        Ok(fetched)
    }
}
