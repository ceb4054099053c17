//! Which file is mapped at an address: for whoever handles the signal by which a system ends
//! a program that reads a mapped file another has cut short.
//!
//! A table of fixed size, of atomic numbers alone: reading it takes no lock and no memory, so
//! that a signal handler may.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Mappings at a time that are known by name; of more, the rest have none.
const SLOTS: usize = 256;

/// Bytes of a name, its last ones.
const NAME: usize = 240;

struct Slot {
    /// 0: free; 1: being filled.
    start: AtomicUsize,
    end: AtomicUsize,
    length: AtomicUsize,
    name: [AtomicU8; NAME],
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        length: AtomicUsize::new(0),
        name: [const { AtomicU8::new(0) }; NAME],
    }
}; SLOTS];

/// A place in the table, given back when dropped.
pub(super) struct Registered(Option<usize>);

/// Note that a file is mapped at these addresses.
pub(super) fn register(at: Range<usize>, path: &Path) -> Registered {
    let claim = |slot: &Slot| {
        slot.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    let found = TABLE.iter().position(claim);
    if let Some(i) = found {
        let slot = &TABLE[i];
        // Nothing that a terminal would obey.
        let name = path.display().to_string().replace(char::is_control, "?");
        let name = &name.as_bytes()[name.len().saturating_sub(NAME)..];
        for (to, byte) in slot.name.iter().zip(name) {
            to.store(*byte, Ordering::Relaxed);
        }
        slot.length.store(name.len(), Ordering::Relaxed);
        slot.end.store(at.end, Ordering::Relaxed);
        slot.start.store(at.start, Ordering::Release);
    }
    Registered(found)
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(i) = self.0 {
            TABLE[i].start.store(0, Ordering::Release);
        }
    }
}

/// The name of the file that is mapped at an address, written into `name`; its length, or `None`
/// where none is. A signal handler may call it: it waits for nothing and allocates nothing.
pub fn mapped_file(address: usize, name: &mut [u8]) -> Option<usize> {
    let slot = TABLE.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        start > 1 && (start..slot.end.load(Ordering::Relaxed)).contains(&address)
    })?;
    let length = slot.length.load(Ordering::Relaxed).min(name.len());
    for (to, byte) in name[..length].iter_mut().zip(&slot.name) {
        *to = byte.load(Ordering::Relaxed);
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses that no mapping of this process has.
    #[test]
    fn a_mapping_has_its_name_while_it_lasts() {
        let name = |address| {
            let mut name = [0; NAME];
            mapped_file(address, &mut name)
                .map(|n| String::from_utf8_lossy(&name[..n]).into_owned())
        };
        let long = "x".repeat(300);
        let a = register(10..20, Path::new("a/b\u{1b}[2J.npy"));
        let b = register(20..30, Path::new(&long));
        assert_eq!(name(10).as_deref(), Some("a/b?[2J.npy"));
        assert_eq!(name(20).as_deref(), Some(&long[..NAME]));
        assert_eq!((name(9), name(30)), (None, None));
        drop(a);
        assert_eq!(name(10), None);
        let many: Vec<_> =
            (0..2 * SLOTS).map(|i| register(40 + i..41 + i, Path::new("m"))).collect();
        assert!(name(40).is_some() && name(40 + 2 * SLOTS - 1).is_none());
        drop((b, many));
        assert_eq!(name(40), None);
    }
}
