//! One LMDB database: values by key, read where they lie.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};

use super::pages;
use crate::error::{Error, Result};
use crate::io::map;

/// What LMDB maps is a multiple of the system's pages, 64 KiB at most.
const GRANULE: usize = 1 << 16;

type Pairs = Database<'static, Bytes, Bytes>;

/// A database and the list of its keys.
pub(super) struct Lmdb {
    opened: Opened,
    pairs: Pairs,
    /// All keys, one after the other, and where each ends: 48 bytes for one of
    /// LSUN's, 150 MB for the largest category's three million.
    keys: Vec<u8>,
    ends: Vec<usize>,
}

impl Lmdb {
    /// Open the folder of a `data.mdb`, without writing to it.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("data.mdb");
        let bytes = map(&path)?;
        let count = pages::check(&path, &bytes)?;
        let opened = Opened::new(folder, bytes.len().next_multiple_of(GRANULE))?;
        let mut keys = Vec::new();
        let mut ends = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        let mut list = || {
            let pairs = main(&opened.env)?;
            let read = opened.env.read_txn()?;
            for pair in pairs.iter(&read)? {
                keys.extend_from_slice(pair?.0);
                ends.push(keys.len());
            }
            Ok(pairs)
        };
        let pairs = list().map_err(refused(&opened.folder))?;
        Ok(Lmdb { opened, pairs, keys, ends })
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Key `i`, in LMDB's order.
    pub fn key(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.keys[start..self.ends[i]]
    }

    /// Give the value of key `i` to `f`, where it lies.
    pub fn with<T>(&self, i: usize, f: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let folder = &self.opened.folder;
        let read = self.opened.env.read_txn().map_err(refused(folder))?;
        let value = self.pairs.get(&read, self.key(i)).map_err(refused(folder))?;
        f(value.ok_or_else(|| Error::format(folder, format!("data.mdb has lost its key {i}")))?)
    }
}

/// The database that has no name.
fn main(env: &Env<WithoutTls>) -> heed::Result<Pairs> {
    let opened = env.open_databases_and_commit(env.read_txn()?, |opener, read| {
        let pairs = opener.open_database::<Bytes, Bytes>(read, None)?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(pairs))
    })?;
    opened.commit().flatten().ok_or(heed::Error::Mdb(heed::MdbError::NotFound))
}

fn refused(folder: &Path) -> impl FnOnce(heed::Error) -> Error {
    let path = folder.join("data.mdb");
    move |e| Error::format(path, format!("LMDB cannot read it: {e}"))
}

type Environments = BTreeMap<PathBuf, (Env<WithoutTls>, usize)>;

/// A process may open an environment once: those that are open, with how many
/// hold each.
static ENVIRONMENTS: Mutex<Environments> = Mutex::new(BTreeMap::new());

fn environments() -> MutexGuard<'static, Environments> {
    ENVIRONMENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Opened {
    // Dropped before the hold on it, which drops the last of its kind.
    env: Env<WithoutTls>,
    folder: PathBuf,
    _hold: Hold,
}

/// One of those that hold an environment.
struct Hold(PathBuf);

impl Opened {
    fn new(folder: &Path, size: usize) -> Result<Self> {
        let folder = folder.canonicalize().map_err(Error::io("open", folder))?;
        let mut all = environments();
        let env = match all.get_mut(&folder) {
            Some((env, holders)) => {
                *holders += 1;
                env.clone()
            }
            None => {
                let env = open(&folder, size).map_err(refused(&folder))?;
                all.insert(folder.clone(), (env.clone(), 1));
                env
            }
        };
        Ok(Opened { env, _hold: Hold(folder.clone()), folder })
    }
}

fn open(folder: &Path, size: usize) -> heed::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(size);
    // SAFETY: as with every mapped file, nobody may change it meanwhile; nor
    // are there locks to tell. That all pages which LMDB can come to are sound
    // and within the file, `pages` has seen.
    unsafe {
        options.flags(EnvFlags::READ_ONLY | EnvFlags::NO_LOCK | EnvFlags::NO_READ_AHEAD);
        options.open(folder)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut all = environments();
        let Some((_, holders)) = all.get_mut(&self.0) else { return };
        *holders -= 1;
        if *holders == 0 {
            all.remove(&self.0);
        }
    }
}
