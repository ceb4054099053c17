//! Whether a file may be given to the reader crate: a container that PyTorch
//! writes, whole, with pickles in proportion to its size.

use std::io::Cursor;
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

use super::meter::{Flaw, measure};
use crate::error::{Error, Result};
use crate::io::zip_entries;

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

/// Check a file's bytes.
pub(super) fn check(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut budget = FLOOR.max(4 * bytes.len() as u64);
    if bytes.starts_with(b"PK") {
        return check_zip(path, bytes, &mut budget);
    }
    let pickle = bytes.starts_with(b"\x80");
    let mut opening = bytes[..bytes.len().min(64)].windows(LEGACY.len());
    if pickle && opening.any(|window| window == LEGACY) {
        // That number, the protocol, the machine, the object, the list of storages.
        let whole = (0..5).try_fold(bytes, |rest, _| measure(rest, &mut budget));
        return whole.map(drop).map_err(|flaw| refuse(path, flaw));
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

fn check_zip(path: &Path, bytes: &[u8], budget: &mut u64) -> Result<()> {
    let broken = |why: &str| {
        let problem = format!("not a whole PyTorch archive ({why}): copy or create the file again");
        Error::format(path, problem)
    };
    if !zip_entries(bytes).is_some_and(|n| (1..=MAX_ENTRIES).contains(&n)) {
        return Err(broken("its zip directory is damaged"));
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| broken(&e.to_string()))?;
    let mut pickles = 0;
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(|e| broken(&e.to_string()))?;
        if entry.compression() != CompressionMethod::Stored {
            let problem = format!("its entries are compressed, which PyTorch never does; {RESAVE}");
            return Err(Error::format(path, problem));
        }
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let size = usize::try_from(entry.size()).ok();
        let data = start.zip(size).and_then(|(start, size)| bytes.get(start..)?.get(..size));
        let data = data.ok_or_else(|| broken("an entry reaches beyond its end"))?;
        if entry.name().map_err(|e| broken(&e.to_string()))?.ends_with("data.pkl") {
            pickles += 1;
            measure(data, budget).map_err(|flaw| refuse(path, flaw))?;
        }
    }
    if pickles == 0 {
        let problem = "a zip archive without `data.pkl`: not a PyTorch checkpoint";
        return Err(Error::format(path, problem));
    }
    Ok(())
}
