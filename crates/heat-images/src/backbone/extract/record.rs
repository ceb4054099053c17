//! What each shard was made of: by it a later run knows whether the shard still holds.
//!
//! A text beside the shard, `inputs-00000.txt`: the shard's digest, then a line for each image:
//! size, modification and change time of its file, and a hash of its pixels. Where size and times
//! are the same, the image is taken to be; where they are not, the pixels decide. So an image that
//! was only touched, copied back or written anew without loss is the same. 60 bytes an image: of
//! 1.3 million images 80 MB, where the features themselves take 2 to 16 GB.

use std::fmt::Write;
use std::fs::{self, Metadata};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lines;
use super::rows::Source;
use crate::{ImageDataset, Transform};
use heat_ood::io::{TensorFile, read_bounded, sha256_of, write_own};
use heat_ood::math::blocks;
use heat_ood::math::parallel::{Indices, Pieces};
use heat_ood::{Error, Result};

/// What tells without reading a file that it is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    /// When the file was last changed in any way, which nobody can set back; where the system
    /// knows.
    changed: i128,
}

/// A file that was written so shortly before it was looked at may be written once more at what
/// its file system takes for the same time: FAT counts in steps of two seconds.
const FRESH: Duration = Duration::from_secs(3);

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let modified = found.modified().ok()?;
        if modified + FRESH > SystemTime::now() {
            return None;
        }
        let modified = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos() as i128;
        Some(Stamp { size: found.len(), modified, changed: changed(&found) })
    }
}

#[cfg(unix)]
fn changed(found: &Metadata) -> i128 {
    use std::os::unix::fs::MetadataExt;
    i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> i128 {
    0
}

/// Of the files of all images, before any is read: what changes afterwards has another stamp.
/// Of files that cannot be known by one, none.
pub(super) fn stamps(dataset: &dyn ImageDataset) -> Vec<Option<Stamp>> {
    const TOGETHER: usize = 1024;
    let n = dataset.len();
    let of = |block: usize| {
        // Many images may lie in one file.
        let mut last: Option<(PathBuf, Option<Stamp>)> = None;
        let images = block * TOGETHER..n.min((block + 1) * TOGETHER);
        let stamp = |i| {
            let file = dataset.file(i)?;
            match &last {
                Some((path, stamp)) if *path == file => *stamp,
                _ => {
                    let stamp = Stamp::of(&file);
                    last = Some((file, stamp));
                    stamp
                }
            }
        };
        images.map(stamp).collect::<Vec<_>>()
    };
    (0..blocks(n, TOGETHER).count()).into_par_iter().map(of).collect().concat()
}

/// An image as it was when its features were taken.
#[derive(Debug, Clone, PartialEq)]
struct Input {
    stamp: Option<Stamp>,
    /// The first digits of the SHA-256 of its size and pixels; none if it could not be read.
    pixels: Option<String>,
}

/// Digits that are kept of each image's hash.
const DIGITS: usize = 16;

/// The record of one shard.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    /// The digest in the shard's file; none where no image of it could be read.
    shard: Option<String>,
    /// SHA-256 of the pixels of all its images.
    pub pixels: String,
    inputs: Vec<Input>,
}

/// Whether a shard that an earlier run left holds.
pub(super) enum Standing {
    Whole(Record),
    /// An image is another one now.
    Changed(String),
    /// There, but not as it was written, or without its record.
    Damaged,
    Absent,
}

/// The files of one shard.
pub(super) struct Files {
    pub shard: PathBuf,
    /// Images left out, each with the reason.
    pub unreadable: PathBuf,
    record: PathBuf,
}

impl Files {
    pub fn new(directory: &Path, i: usize) -> Self {
        Files {
            shard: directory.join(format!("shard-{i:05}.safetensors")),
            unreadable: directory.join(format!("unreadable-{i:05}.txt")),
            record: directory.join(format!("inputs-{i:05}.txt")),
        }
    }

    /// Make them those of another directory as well.
    pub fn link_to(&self, other: &Files) -> Result<()> {
        // The record last: where it is, the others are.
        for (from, to) in [
            (&self.shard, &other.shard),
            (&self.unreadable, &other.unreadable),
            (&self.record, &other.record),
        ] {
            let _ = fs::remove_file(to);
            // Nothing is written into these files, only under their names. Some file systems have no links.
            if from.is_file() && fs::hard_link(from, to).is_err() {
                let bytes = heat_ood::io::map(from)?;
                write_own(to, |out| out.write_all(&bytes))?;
            }
        }
        Ok(())
    }
}

/// Whether a name is one that an extraction gives.
pub(super) fn is_ours(name: &str) -> bool {
    let numbered = |(start, end): (&str, &str)| {
        let number = name.strip_prefix(start).and_then(|name| name.strip_suffix(end));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let parts = [
        ("shard-", ".safetensors"),
        ("unreadable-", ".txt"),
        ("inputs-", ".txt"),
        // Of earlier versions.
        ("pixels-", ".sha256"),
    ];
    parts.into_iter().any(numbered)
}

impl Record {
    /// Of a shard that was just written; `digests`: of each image's pixels.
    pub fn new(files: &Files, stamps: &[Option<Stamp>], digests: &[Option<String>]) -> Self {
        let short = |digest: &String| digest[..DIGITS.min(digest.len())].to_owned();
        let input = |(stamp, digest): (&Option<Stamp>, &Option<String>)| Input {
            stamp: *stamp,
            pixels: digest.as_ref().map(short),
        };
        Record {
            shard: digest(&files.shard),
            pixels: sha256_of(digests.iter().flatten()),
            inputs: stamps.iter().zip(digests).map(input).collect(),
        }
    }

    pub fn write(&self, files: &Files) -> Result<()> {
        let text = self.text();
        write_own(&files.record, |to| to.write_all(text.as_bytes()))
    }

    fn text(&self) -> String {
        let shard = self.shard.as_deref().unwrap_or(NONE);
        let mut text = format!("shard {shard}\npixels {}\n", self.pixels);
        for input in &self.inputs {
            let pixels = input.pixels.as_deref().unwrap_or(NONE);
            let line = match &input.stamp {
                Some(s) => writeln!(text, "{} {} {} {pixels}", s.size, s.modified, s.changed),
                None => writeln!(text, "{NONE} {NONE} {NONE} {pixels}"),
            };
            line.unwrap_or_default();
        }
        let end = sha256_of([&text]);
        text + "end " + &end + "\n"
    }

    fn read(files: &Files, images: usize) -> Option<Self> {
        // A line has at most twice forty digits, twenty, sixteen, and what stands between.
        let most = 200 * (images as u64 + 3);
        let text = String::from_utf8(read_bounded(&files.record, most).ok()?).ok()?;
        let (body, end) = text.rsplit_once("end ")?;
        if sha256_of([body]) != end.trim_end() {
            return None;
        }
        let mut lines = body.lines();
        let shard = lines.next()?.strip_prefix("shard ")?;
        let pixels = lines.next()?.strip_prefix("pixels ")?.to_owned();
        let inputs = lines.map(Input::read).collect::<Option<Vec<_>>>()?;
        let shard = (shard != NONE).then(|| shard.to_owned());
        (inputs.len() == images).then_some(Record { shard, pixels, inputs })
    }

    /// Whether the shard of these images, as files of an earlier run, holds: its files are those
    /// that were written, and the images those that they were made of.
    pub fn of_earlier(
        files: &Files,
        range: Range<usize>,
        stamps: &[Option<Stamp>],
        source: &Source<'_>,
    ) -> Standing {
        let Some(mut record) = Self::read(files, range.len()) else {
            let any = files.shard.exists() || files.record.exists();
            return if any { Standing::Damaged } else { Standing::Absent };
        };
        let lost = record.inputs.iter().filter(|input| input.pixels.is_none()).count();
        let listed = match files.unreadable.is_file() {
            true => lines(&files.unreadable).map_or(usize::MAX, |lines| lines.len()),
            false => 0,
        };
        if digest(&files.shard) != record.shard || listed != lost {
            return Standing::Damaged;
        }
        let stamps = &stamps[range.clone()];
        let differs = |i: &usize| stamps[*i].is_none() || record.inputs[*i].stamp != stamps[*i];
        let doubtful: Vec<usize> = (0..range.len()).filter(differs).collect();
        let same = |transform: &mut Option<Transform>, i: usize| {
            let image = source.image(transform, range.start + doubtful[i]);
            let pixels = image.as_ref().ok().map(|image| &image.digest[..DIGITS]);
            record.inputs[doubtful[i]].pixels.as_deref() == pixels
        };
        let same = (0..doubtful.len()).into_par_iter().collect_with(|| None, same);
        if let Some(other) = same.iter().position(|same| !same) {
            return Standing::Changed(source.dataset.place(range.start + doubtful[other]));
        }
        let known: Vec<&usize> = doubtful.iter().filter(|i| stamps[**i].is_some()).collect();
        if !known.is_empty() {
            known.iter().for_each(|i| record.inputs[**i].stamp = stamps[**i]);
            // So that they need not be decoded again the next time, where that can be written.
            let _ = record.write(files);
        }
        Standing::Whole(record)
    }
}

/// The numbers of the images that are the rows of a finished directory, ascending: those that could
/// be read.
///
/// # Errors
/// If a shard has no record.
pub fn images_of_rows(directory: &Path, images: usize, shard_rows: usize) -> Result<Vec<usize>> {
    let mut all = Vec::with_capacity(images);
    for (i, range) in blocks(images, shard_rows).enumerate() {
        let files = Files::new(directory, i);
        let record = Record::read(&files, range.len());
        let record = record.ok_or_else(|| Error::format(&files.record, "is damaged or missing"))?;
        let read = range.zip(&record.inputs).filter(|(_, input)| input.pixels.is_some());
        all.extend(read.map(|(image, _)| image));
    }
    Ok(all)
}

/// What stands where there is nothing to say.
const NONE: &str = "-";

impl Input {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut word = || words.next();
        let (size, modified, changed, pixels) = (word()?, word()?, word()?, word()?);
        let stamp = match size {
            NONE => None,
            size => Some(Stamp {
                size: size.parse().ok()?,
                modified: modified.parse().ok()?,
                changed: changed.parse().ok()?,
            }),
        };
        Some(Input { stamp, pixels: (pixels != NONE).then(|| pixels.to_owned()) })
    }
}

/// The digest of a shard whose bytes are right by it.
fn digest(shard: &Path) -> Option<String> {
    TensorFile::open(shard).ok()?.digest().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path(), 3);
        let stamp = Stamp { size: 5, modified: 1_700_000_000_123_456_789, changed: -7 };
        let pixels = Some("0123456789abcdef".to_owned());
        let record = Record {
            shard: Some("xxh3-1m:0123456789abcdef".into()),
            pixels: sha256_of(["x"]),
            inputs: vec![
                Input { stamp: Some(stamp), pixels: pixels.clone() },
                Input { stamp: None, pixels },
                Input { stamp: Some(stamp), pixels: None },
            ],
        };
        record.write(&files).unwrap();
        assert_eq!(Record::read(&files, 3).as_ref(), Some(&record));
        assert_eq!(Record::read(&files, 2), None);
        let bytes = fs::read(&files.record).unwrap();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            fs::write(&files.record, &other).unwrap();
            let read = Record::read(&files, 3);
            // The line's end alone says nothing.
            assert!(read.is_none() || at == bytes.len() - 1, "byte {at}");
            fs::write(&files.record, &bytes[..at]).unwrap();
            assert!(Record::read(&files, 3).is_none() || at == bytes.len() - 1, "{at}");
        }
        assert!(is_ours("shard-00012.safetensors") && is_ours("inputs-00000.txt"));
        assert!(!is_ours("shard-x.safetensors") && !is_ours("inputs-.txt") && !is_ours("my.txt"));
    }
}
