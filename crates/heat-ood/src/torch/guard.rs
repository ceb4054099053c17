//! Whether a file may be given to the reader crate: a container that PyTorch
//! writes, whole, with pickles in proportion to its size.

use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use tempfile::NamedTempFile;
use zip::read::{ArchiveOffset, Config};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::meter::{Flaw, measure};
use crate::error::{Error, Result};
use crate::io::{has_crc, zip_entries};

/// Reading allocates at most this, or four times the file's size if that is
/// more, besides the network itself: small files hold relatively large pickles.
const FLOOR: u64 = 32 << 20;

/// Entries of an archive: a checkpoint has one for each storage.
const MAX_ENTRIES: u64 = 1 << 14;

/// The number that opens the format before PyTorch 1.6, as pickled from
/// protocol 2 on.
const LEGACY: &[u8] = b"l\xfc\x9cF\xf9 j\xa8P\x19";

const RESAVE: &str = "re-save the weights alone, in Python: \
     `torch.save({\"model_state\": checkpoint[\"model_state\"]}, path)`";

/// Entries that are compressed, which other tools write, may grow to this, or
/// to eight times the file: weights hardly shrink.
const MOST_UNPACKED: usize = 64 << 20;

const TORCHSCRIPT: &str = "a TorchScript archive (`torch.jit.save`), which holds code as well as \
     weights; in Python: `torch.save(torch.jit.load(path).state_dict(), \"weights.pth\")` for a \
     ResNet, or export any network as ONNX (`torch.onnx.export`)";

const EXPORTED: &str = "a program that `torch.export.save` wrote; in Python: \
     `torch.onnx.export(torch.export.load(path), (), \"model.onnx\")` gives a network to read";

/// Check a file's bytes. Archives that are sound, but not for the reader
/// crate, are given back as a copy that is.
pub(super) fn check(path: &Path, bytes: &[u8]) -> Result<Option<NamedTempFile>> {
    let mut budget = FLOOR.max(4 * bytes.len() as u64);
    if bytes.starts_with(b"PK") {
        return check_zip(path, bytes, &mut budget);
    }
    let pickle = bytes.starts_with(b"\x80");
    let mut opening = bytes[..bytes.len().min(64)].windows(LEGACY.len());
    if pickle && opening.any(|window| window == LEGACY) {
        // That number, the protocol, the machine, the object, the list of storages.
        let whole = (0..5).try_fold(bytes, |rest, _| measure(rest, &mut budget));
        return whole.map(|_| None).map_err(|flaw| refuse(path, flaw));
    }
    if pickle {
        let problem = "a pickle that `torch.save` did not write";
        return Err(Error::format(path, format!("{problem}; {RESAVE}")));
    }
    let problem = "not a PyTorch checkpoint: neither the zip archive nor the pickles that `torch.save` writes";
    Err(Error::format(path, problem))
}

/// What to say of a pickle.
fn refuse(path: &Path, flaw: Flaw) -> Error {
    let problem = match flaw {
        Flaw::Damaged => "its pickle is damaged or truncated: copy or create the file again".into(),
        Flaw::TooMuch => {
            format!("its pickle describes far more than the file's size explains; {RESAVE}")
        }
    };
    Error::format(path, problem)
}

/// What to say of a pickle that the reader crate does not understand.
pub(super) fn unreadable(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::format(path, format!("cannot be read without Python ({why}); {RESAVE}"))
}

fn check_zip(path: &Path, bytes: &[u8], budget: &mut u64) -> Result<Option<NamedTempFile>> {
    let broken = |why: &str| {
        let problem = format!("not a whole PyTorch archive ({why}): copy or create the file again");
        Error::format(path, problem)
    };
    if !zip_entries(bytes).is_some_and(|n| (1..=MAX_ENTRIES).contains(&n)) {
        return Err(broken("its zip directory is damaged"));
    }
    // The directory is where the file says; a search for it goes astray with
    // names of some lengths, in the reader crate too.
    let found = ZipArchive::new(Cursor::new(bytes)).is_ok_and(|archive| archive.offset() == 0);
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let archive = ZipArchive::with_config(config, Cursor::new(bytes));
    let mut archive = archive.map_err(|e| broken(&e.to_string()))?;
    let (mut names, mut packed) = (Vec::with_capacity(archive.len()), false);
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(|e| broken(&e.to_string()))?;
        packed |= entry.compression() != CompressionMethod::Stored;
        names.push(entry.name().map_err(|e| broken(&e.to_string()))?.into_owned());
    }
    let any = |part: &str| names.iter().any(|name| name.contains(part));
    if any("/code/") && any("/constants.pkl") {
        return Err(Error::format(path, TORCHSCRIPT));
    }
    if any("archive_format") && !any("/data.pkl") {
        return Err(Error::format(path, EXPORTED));
    }
    let mut copy = Copy::new(path, !found || packed)?;
    let mut pickles = 0;
    let mut room = MOST_UNPACKED.max(bytes.len().saturating_mul(8));
    for (i, name) in names.iter().enumerate() {
        let pickle = name.ends_with("data.pkl");
        pickles += usize::from(pickle);
        if !pickle && copy.is_none() {
            stored(bytes, &mut archive, i)
                .ok_or_else(|| broken("an entry reaches beyond its end, or is damaged"))?;
            continue;
        }
        let data = unpacked(bytes, &mut archive, i, room);
        let data = data.map_err(|flaw| match flaw {
            Flaw::Damaged => broken("an entry reaches beyond its end, or is damaged"),
            Flaw::TooMuch => refuse(path, Flaw::TooMuch),
        })?;
        room = room.saturating_sub(data.len());
        if pickle {
            measure(&data, budget).map_err(|flaw| refuse(path, flaw))?;
        }
        if let Some(copy) = &mut copy {
            copy.add(name, &data)?;
        }
    }
    if pickles == 0 {
        let problem = "a zip archive without `data.pkl`: not a PyTorch checkpoint";
        return Err(Error::format(path, problem));
    }
    copy.map(Copy::finish).transpose()
}

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// The bytes of an entry that is not compressed.
fn stored<'a>(bytes: &'a [u8], archive: &mut Archive<'a>, i: usize) -> Option<&'a [u8]> {
    let entry = archive.by_index_raw(i).ok()?;
    let start = entry.data_start().and_then(|start| usize::try_from(start).ok())?;
    let size = usize::try_from(entry.compressed_size()).ok()?;
    let content = bytes.get(start..)?.get(..size)?;
    // Without its checksums (`torch.serialization.set_crc32_options(False)`) 0 stands there.
    let checked = entry.compression() != CompressionMethod::Stored
        || entry.crc32() == 0
        || has_crc(content, entry.crc32());
    checked.then_some(content)
}

/// An entry's content, of at most `room` bytes if it is compressed.
fn unpacked<'a>(
    bytes: &'a [u8],
    archive: &mut Archive<'a>,
    i: usize,
    room: usize,
) -> std::result::Result<std::borrow::Cow<'a, [u8]>, Flaw> {
    let entry = archive.by_index_raw(i).map_err(|_| Flaw::Damaged)?;
    let (method, size) = (entry.compression(), entry.size());
    drop(entry);
    let data = stored(bytes, archive, i).ok_or(Flaw::Damaged)?;
    if method == CompressionMethod::Stored {
        return Ok(data.into());
    }
    let size = usize::try_from(size).ok().filter(|size| *size <= room).ok_or(Flaw::TooMuch)?;
    let mut out = Vec::new();
    let mut entry = archive.by_index(i).map_err(|_| Flaw::Damaged)?;
    let read = entry.by_ref().take(size as u64 + 1).read_to_end(&mut out);
    (read.is_ok() && out.len() == size).then(|| out.into()).ok_or(Flaw::Damaged)
}

/// The archive once more, its entries as they are, in a temporary file.
struct Copy<'a> {
    path: &'a Path,
    file: NamedTempFile,
    writer: ZipWriter<File>,
}

impl<'a> Copy<'a> {
    fn new(path: &'a Path, needed: bool) -> Result<Option<Self>> {
        if !needed {
            return Ok(None);
        }
        let file = NamedTempFile::new().map_err(Error::io("create", &std::env::temp_dir()))?;
        let writer = file.reopen().map_err(Error::io("open", file.path()))?;
        Ok(Some(Copy { path, file, writer: ZipWriter::new(writer) }))
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> Error {
        let place = self.file.path().display();
        Error::format(self.path, format!("its content cannot be put into {place}: {why}"))
    }

    /// Add an entry, below a directory of one name.
    fn add(&mut self, name: &str, data: &[u8]) -> Result<()> {
        let name = name.split_once('/').map_or(name, |(_, rest)| rest);
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(data.len() >= u32::MAX as usize);
        let begun = self.writer.start_file(format!("archive/{name}"), options);
        begun.map_err(|e| self.failed(&e))?;
        self.writer.write_all(data).map_err(|e| self.failed(&e))
    }

    fn finish(self) -> Result<NamedTempFile> {
        let Copy { path, file, writer } = self;
        let done = writer.finish().map(drop);
        done.map_err(|e| Error::format(path, format!("{}: {e}", file.path().display())))?;
        Ok(file)
    }
}
