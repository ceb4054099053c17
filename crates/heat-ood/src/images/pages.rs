//! Whether LMDB may be given a file. It follows page numbers and lengths
//! without looking at them, so a truncated or damaged file would end the
//! process. Every page that a reader can come to is looked at before.
//!
//! The format, on machines of 64 bits: pages of one size, each with its number
//! (u64), padding, flags (u16) and, of its nodes, the bounds of the free space
//! (u16 each), then the nodes' offsets. Pages 0 and 1 are the two latest
//! states of the tree.

use std::path::Path;

use crate::error::{Error, Result};

const MAGIC: u32 = 0xbeef_c0de;
const HEADER: usize = 16;
const NODE: usize = 8;
/// The root of an empty tree.
const NONE: u64 = u64::MAX;

const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
const META: u16 = 8;
/// Kind of a page, of what is stored of it.
const KIND: u16 = 0x6f;
/// A leaf's value is on pages of its own.
const BIG: u16 = 1;
/// Longest key that LMDB looks up.
const MAX_KEY: usize = 511;
/// Deepest tree that LMDB walks.
const MAX_DEPTH: u16 = 32;

/// A problem without its file.
type Checked<T> = std::result::Result<T, String>;

struct Pages<'a> {
    bytes: &'a [u8],
    size: usize,
    /// First number beyond the last page.
    end: u64,
    depth: u16,
    /// Pages that may still be met: each is met once, unless they form a loop.
    left: u64,
    entries: u64,
}

/// Check a `data.mdb`; the number of its entries.
pub(super) fn check(path: &Path, bytes: &[u8]) -> Result<u64> {
    walk(bytes).map_err(|problem| Error::format(path, problem))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// One of the two states: what is read of it.
struct Meta {
    page_size: u32,
    flags: u16,
    depth: u16,
    entries: u64,
    root: u64,
    last: u64,
    transaction: u64,
}

fn meta(bytes: &[u8], at: usize) -> Checked<Meta> {
    let other = "not an LMDB database of a 64-bit machine; was another `data.mdb` meant?";
    let page = bytes.get(at..).ok_or("ends within its first pages: copy it again")?;
    if u32_at(page, HEADER) != Some(MAGIC) || u16_at(page, 10).is_none_or(|f| f & META == 0) {
        return Err(other.into());
    }
    if let Some(version) = u32_at(page, 20).filter(|v| *v != 1) {
        return Err(format!("an LMDB database of version {version}; version 1 is read"));
    }
    let read = || {
        Some(Meta {
            page_size: u32_at(page, 40)?,
            // Of the environment and of the tree.
            flags: u16_at(page, 44)? & 1 | u16_at(page, 92)?,
            depth: u16_at(page, 94)?,
            entries: u64_at(page, 120)?,
            root: u64_at(page, 128)?,
            last: u64_at(page, 136)?,
            transaction: u64_at(page, 144)?,
        })
    };
    read().ok_or_else(|| "ends within its first pages: copy it again".into())
}

fn walk(bytes: &[u8]) -> Checked<u64> {
    let first = meta(bytes, 0)?;
    let size = first.page_size as usize;
    if !size.is_power_of_two() || !(512..=1 << 15).contains(&size) {
        return Err(format!("pages of {size} bytes; expected a power of 2 from 512 to 32768"));
    }
    let second = meta(bytes, size)?;
    if second.page_size != first.page_size {
        return Err("its first two pages contradict each other: copy it again".into());
    }
    let meta = if first.transaction < second.transaction { second } else { first };
    if meta.flags != 0 {
        return Err("its keys are not plain, as those of pictures are".into());
    }
    if meta.root == NONE && meta.depth == 0 {
        return Ok(0);
    }
    let whole = (bytes.len() / size) as u64;
    let end = whole.min(meta.last.saturating_add(1));
    let mut pages = Pages { bytes, size, end, depth: meta.depth, left: end, entries: 0 };
    if !(1..=MAX_DEPTH).contains(&meta.depth) {
        return Err(format!("a tree of depth {}: it is damaged", meta.depth));
    }
    pages.visit(meta.root, 1)?;
    if pages.entries != meta.entries {
        let problem = "entries, and says that there are";
        return Err(format!("holds {} {problem} {}: damaged", pages.entries, meta.entries));
    }
    Ok(pages.entries)
}

impl<'a> Pages<'a> {
    /// `count` pages from number `page`, of that kind.
    fn get(&mut self, page: u64, count: u64, kind: u16) -> Checked<&'a [u8]> {
        if page.checked_add(count).is_none_or(|end| end > self.end) {
            return Err(format!(
                "page {page} is needed, and it ends after {}: truncated; copy it again",
                self.end
            ));
        }
        let met = self.left.checked_sub(count);
        self.left = met.ok_or("pages that lead back to themselves: it is damaged")?;
        let from = page as usize * self.size;
        let bytes = &self.bytes[from..from + count as usize * self.size];
        let sound = u64_at(bytes, 0) == Some(page)
            && u16_at(bytes, 10).is_some_and(|flags| flags & KIND == kind);
        if sound { Ok(bytes) } else { Err(damaged(page)) }
    }

    /// A page and all below it.
    fn visit(&mut self, page: u64, depth: u16) -> Checked<()> {
        let is_leaf = depth == self.depth;
        let bytes = self.get(page, 1, if is_leaf { LEAF } else { BRANCH })?;
        let lower = usize::from(u16_at(bytes, 12).unwrap_or(0));
        let nodes = lower.saturating_sub(HEADER) / 2;
        // LMDB takes for granted that a branch has two.
        if lower > self.size || nodes < if is_leaf { 1 } else { 2 } {
            return Err(damaged(page));
        }
        for i in 0..nodes {
            let node = u16_at(bytes, HEADER + 2 * i).and_then(|at| Node::read(bytes, at.into()));
            let node = node.ok_or_else(|| damaged(page))?;
            if is_leaf {
                self.entries += 1;
                self.value(page, &node)?;
            } else {
                self.visit(node.child, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Whether a leaf's value is whole.
    fn value(&mut self, page: u64, node: &Node) -> Checked<()> {
        let keyed = (1..=MAX_KEY).contains(&node.key);
        match node.flags {
            0 if keyed && node.rest.len() >= node.size => Ok(()),
            BIG if keyed => {
                let first = u64_at(node.rest, 0).ok_or_else(|| damaged(page))?;
                let count = (HEADER + node.size).div_ceil(self.size) as u64;
                let bytes = self.get(first, count, OVERFLOW)?;
                let says = u32_at(bytes, 12).map(u64::from);
                if says == Some(count) { Ok(()) } else { Err(damaged(first)) }
            }
            _ => Err(damaged(page)),
        }
    }
}

/// An entry of a page: of a leaf, flags and the size of its value; of a
/// branch, the same bytes are the number of the page below.
struct Node<'a> {
    flags: u16,
    size: usize,
    child: u64,
    /// Length of its key.
    key: usize,
    /// What follows the key in the page.
    rest: &'a [u8],
}

impl<'a> Node<'a> {
    fn read(page: &'a [u8], at: usize) -> Option<Self> {
        let (size, flags) = (u32_at(page, at)?, u16_at(page, at + 4)?);
        let key = usize::from(u16_at(page, at + 6)?);
        // LMDB reads numbers of two bytes at once.
        let rest = page.get(at + NODE + key..).filter(|_| at.is_multiple_of(2))?;
        let child = u64::from(size) | u64::from(flags) << 32;
        Some(Node { flags, size: size as usize, child, key, rest })
    }
}

fn damaged(page: u64) -> String {
    format!("page {page} is damaged: copy the file again")
}
