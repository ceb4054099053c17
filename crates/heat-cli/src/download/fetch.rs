//! One file from its addresses to its final name.
//!
//! An address is left for the next one when it refuses, or sends something
//! else than the file. Cut connections are taken up again at the byte where
//! they ended, after a pause that doubles, and not for ever.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use heat_ood::io::{free_space, parent};
use heat_ood::{Error, Event, Observer, Result};
use indicatif::DecimalBytes;

use super::checksum::{Digests, is_proven, is_vouched};
use super::http::{Answer, Client, Reply, Resume, Trouble};
use super::partial::{Origin, Partial};
use super::sources::RemoteFile;
use crate::progress::Progress;

/// First pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A try that brought this much does not count as failed.
const WORTHWHILE: u64 = 1 << 20;

/// What a try came to.
enum Outcome {
    /// Every byte is there.
    Complete,
    /// Try again after a pause.
    Later(String),
    /// What was there is dropped: try again at once.
    Afresh(String),
    /// Leave this address.
    Leave(String),
}

/// What is to be downloaded.
pub struct Order<'a> {
    pub file: &'a RemoteFile,
    pub urls: Vec<String>,
    /// SHA-256 of an earlier download.
    pub recorded: Option<String>,
    pub target: &'a Path,
}

impl Order<'_> {
    /// Whether wrongly joined pieces would be noticed.
    pub fn is_vouched(&self) -> bool {
        is_vouched(self.file, self.recorded.as_deref())
    }

    /// Whether an address may be asked: a file that is to come by https, and has no checksum, does
    /// not come by http because the first address fails.
    fn is_step_down(&self, i: usize) -> bool {
        let is_secure = |url: &String| url.starts_with("https://");
        !self.is_proven() && !is_secure(&self.urls[i]) && self.urls[..i].iter().any(is_secure)
    }

    /// Whether nobody could change the bytes on their way without being noticed.
    fn is_proven(&self) -> bool {
        is_proven(self.file, self.recorded.as_deref())
    }

    /// Where to go on at `url`, if the bytes that are there may be used.
    fn resume<'p>(&self, partial: &'p Partial, url: &str) -> Resume<'p> {
        let same_place = partial.origin.url == url;
        let version = partial.origin.validator().filter(|_| same_place);
        (partial.len() > 0 && (version.is_some() || self.is_vouched()))
            .then_some((partial.len(), version))
    }

    /// Why an answer cannot be the file, if that can be seen before its bytes.
    fn is_unlike(&self, answer: &Answer, partial: &Partial) -> Option<String> {
        if answer.is_page && (partial.len() > 0 || !self.is_vouched()) {
            return Some("sent a web page (text/html) in place of the file".into());
        }
        let (got, expected) = (answer.origin.total?, self.file.size?);
        let problem = "not this file, or another version of it";
        (got != expected).then(|| format!("has {got} bytes, expected {expected}: {problem}"))
    }
}

/// How often and when to try again.
struct Patience {
    /// Tries since the last that was worthwhile.
    failed: u32,
    pause: Duration,
    /// Most bytes so far.
    best: u64,
}

impl Patience {
    fn count(&mut self, len: u64) {
        if len >= self.best + WORTHWHILE {
            (self.failed, self.pause) = (0, PAUSE);
        }
        self.best = self.best.max(len);
        self.failed += 1;
    }

    fn wait(&mut self) {
        std::thread::sleep(self.pause);
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
    }
}

fn not_downloaded(target: &Path, problems: &[String], kept: u64) -> Error {
    let remedy = match kept {
        0 => String::new(),
        n => format!("\n  {} are kept: run the same command again to resume", DecimalBytes(n)),
    };
    Error::format(target, format!("not downloaded:\n  {}{remedy}", problems.join("\n  ")))
}

/// The disk is too small for a file.
pub fn no_room(target: &Path, has: &str, bytes: u64, room: u64) -> Error {
    let problem = format!(
        "{has} {bytes} bytes, and there is room for {}: make room, then run the same command again",
        DecimalBytes(room)
    );
    Error::format(target, problem)
}

/// Downloads files.
pub struct Fetcher<'a> {
    pub client: Client,
    /// Tries of an address after the first that bring nothing.
    pub retries: u32,
    /// Most bytes of a file whose size nothing but its server tells.
    pub most: u64,
    pub progress: &'a mut Progress,
}

impl Fetcher<'_> {
    /// Download, check, call `verified` and give the file its name. Whether
    /// it was needed: another process may have done so meanwhile.
    pub fn fetch(
        &mut self,
        order: &Order<'_>,
        verified: impl FnOnce(&Digests) -> Result<()>,
    ) -> Result<bool> {
        let Some(mut partial) = Partial::open(order.target)? else {
            return Ok(false);
        };
        if partial.len() > 0 {
            let kept = DecimalBytes(partial.len());
            self.progress.say(&format!("{}: resuming after {kept}", order.file.name));
        }
        let mut problems = Vec::new();
        for (i, url) in order.urls.iter().enumerate() {
            if order.is_step_down(i) {
                problems.push(format!(
                    "{url} was not asked: it is no https, and there is no checksum of the file"
                ));
                continue;
            }
            let more = (i + 1..order.urls.len()).any(|j| !order.is_step_down(j));
            let digests = self.try_address(order, &mut partial, url, more);
            self.progress.clear();
            let digests = match digests {
                Ok(digests) => digests,
                Err(error) => {
                    partial.leave();
                    return Err(error);
                }
            };
            match digests {
                Ok(digests) => {
                    verified(&digests)?;
                    partial.finish(order.target)?;
                    return Ok(true);
                }
                Err(problem) => {
                    let problem = format!("{url} {problem}");
                    if more {
                        self.progress.say(&format!("note: {problem}; trying the next address"));
                    }
                    problems.push(problem);
                }
            }
        }
        Err(not_downloaded(order.target, &problems, partial.leave()))
    }

    /// All tries of one address: the file's digests, or what went wrong.
    fn try_address(
        &mut self,
        order: &Order<'_>,
        partial: &mut Partial,
        url: &str,
        more: bool,
    ) -> Result<std::result::Result<Digests, String>> {
        let mut patience = Patience { failed: 0, pause: PAUSE, best: partial.len() };
        loop {
            let before = partial.len();
            let mut outcome = self.attempt(order, partial, url)?;
            if let Outcome::Complete = outcome {
                match self.check(order, partial)? {
                    Ok(digests) => return Ok(Ok(digests)),
                    Err(wrong) => outcome = wrong,
                }
            }
            let (problem, wait) = match outcome {
                Outcome::Later(problem) => (problem, true),
                Outcome::Afresh(problem) => (problem, false),
                Outcome::Leave(problem) => return Ok(Err(problem)),
                Outcome::Complete => (String::new(), false),
            };
            patience.count(partial.len());
            // Another address is better than waiting for one that gives nothing.
            let idle = wait && partial.len() <= before;
            // Dropping what was there is no fault of the server's.
            let allowed = self.retries.max(u32::from(!wait));
            if patience.failed > allowed || (idle && more) {
                return Ok(Err(problem));
            }
            if wait {
                self.progress.say(&format!("note: {url} {problem}; trying again"));
                patience.wait();
            }
        }
    }

    /// One request. Bytes that are here are dropped only for an answer that
    /// looks like the file.
    fn attempt(&mut self, order: &Order<'_>, partial: &mut Partial, url: &str) -> Result<Outcome> {
        let resume = order.resume(partial, url);
        let whole = order.file.size.or(partial.origin.total);
        if resume.is_some() && whole == Some(partial.len()) {
            return Ok(Outcome::Complete);
        }
        let secure = url.starts_with("https://") && !order.is_proven();
        let (from, answer) = match self.client.get(url, resume, secure) {
            Err(Trouble::Passing(problem)) => return Ok(Outcome::Later(problem)),
            Err(Trouble::Lasting(problem)) => return Ok(Outcome::Leave(problem)),
            Ok(Reply::PastEnd) => {
                partial.restart(Origin::default())?;
                return Ok(Outcome::Afresh("has fewer bytes than are here already".into()));
            }
            Ok(Reply::Rest(from, answer)) => (from, answer),
            Ok(Reply::Whole(answer)) => (0, answer),
        };
        if let Some(problem) = order.is_unlike(&answer, partial) {
            return Ok(Outcome::Leave(problem));
        }
        let total = answer.origin.total.or(order.file.size);
        let room = free_space(parent(order.target)).map(|free| free + partial.len());
        if let Some((needed, room)) = total.zip(room).filter(|(needed, room)| needed > room) {
            return Err(no_room(order.target, "has", needed, room));
        }
        let most = match (order.file.size, total, room) {
            (Some(size), ..) => size,
            (_, Some(total), _) if total > self.most => {
                return Ok(Outcome::Leave(self.too_large(&format!("{total} bytes, and"))));
            }
            (_, Some(total), _) => total,
            // Not to the last byte of the disk.
            (_, None, room) => self.most.min(room.map_or(u64::MAX, |room| room - room / 10)),
        };
        if from == 0 {
            if partial.len() > 0 {
                let why = "the server has another version, or cannot continue";
                self.progress.say(&format!("note: {url}: starting over: {why}"));
            }
            partial.restart(answer.origin)?;
        } else if from != partial.len() || partial.origin.differs(&answer.origin) {
            partial.restart(Origin::default())?;
            return Ok(Outcome::Afresh("has another version than before".into()));
        } else {
            partial.continue_from(answer.origin)?;
            partial.pieced = true;
        }
        self.copy(order, partial, answer.body, total, most)
    }

    fn too_large(&self, said: &str) -> String {
        format!(
            "sends {said} {} are the most that a file may have whose size is not known: is it this \
             file? Then allow more with --most SIZE",
            DecimalBytes(self.most)
        )
    }

    /// Bytes from the server to the disk.
    fn copy(
        &mut self,
        order: &Order<'_>,
        partial: &mut Partial,
        mut body: Box<dyn Read>,
        total: Option<u64>,
        most: u64,
    ) -> Result<Outcome> {
        self.progress.bytes(&order.file.name, partial.len(), total);
        let mut buffer = vec![0; 128 << 10];
        let of = total.map_or("an unknown number of bytes".into(), |t| format!("{t} bytes"));
        loop {
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let problem = format!("was cut after {} of {of}: {e}", partial.len());
                    return Ok(Outcome::Later(problem));
                }
            };
            if n == 0 {
                return Ok(match total {
                    Some(total) if partial.len() < total => {
                        Outcome::Later(format!("was cut after {} of {of}", partial.len()))
                    }
                    _ if partial.len() == 0 => Outcome::Leave("sent an empty file".into()),
                    _ => Outcome::Complete,
                });
            }
            if partial.len() + n as u64 > most {
                partial.restart(Origin::default())?;
                let problem = match total {
                    Some(_) => format!("sends more than {of}: not this file"),
                    None if most < self.most => {
                        return Err(no_room(order.target, "has more than", most, most));
                    }
                    None => self.too_large("more than"),
                };
                return Ok(Outcome::Leave(problem));
            }
            partial.append(&buffer[..n])?;
            self.progress.on(Event::Advance { done: partial.len(), loss: None });
        }
    }

    /// Whether the bytes are the file's; else what to do.
    fn check(
        &mut self,
        order: &Order<'_>,
        partial: &mut Partial,
    ) -> Result<std::result::Result<Digests, Outcome>> {
        self.progress.bytes(&format!("checking {}", order.file.name), 0, Some(partial.len()));
        let progress = &mut *self.progress;
        let digests =
            partial.digests(&mut |done| progress.on(Event::Advance { done, loss: None }))?;
        let Err(wrong) = digests.check(order.file, order.recorded.as_deref()) else {
            return Ok(Ok(digests));
        };
        let pieced = partial.pieced;
        partial.restart(Origin::default())?;
        if pieced {
            let note = format!("note: {}: {wrong}; starting over", order.file.name);
            self.progress.say(&note);
            return Ok(Err(Outcome::Afresh(format!("sent pieces that do not fit: {wrong}"))));
        }
        Ok(Err(Outcome::Leave(format!(
            "sent something else: {wrong}; it was deleted. If the file has changed at its source, describe \
             it in a file of your own: --sources FILE"
        ))))
    }
}
