//! In place of `lmdb`, where the library is built without it.

use std::path::Path;

use crate::error::{Error, Result};

/// There is none.
pub(super) enum Lmdb {}

impl Lmdb {
    pub fn open(folder: &Path) -> Result<Self> {
        let problem = "an LMDB database, which this program was built without: build it with the \
                       cargo feature `lmdb` (a default of `heat-cli`; it needs a C compiler)";
        Err(Error::format(folder, problem))
    }

    pub fn len(&self) -> usize {
        match *self {}
    }

    pub fn key(&self, _: usize) -> &[u8] {
        match *self {}
    }

    pub fn with<T>(&self, _: usize, _: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        match *self {}
    }
}
