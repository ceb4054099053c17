//! One LMDB database, read where it lies in its file.
//!
//! The format, on machines of 64 bits: pages of one size, each with its number
//! (u64), padding, flags (u16) and, of its nodes, the bounds of the free space
//! (u16 each), then the nodes' offsets. Pages 0 and 1 are the two latest
//! states of the tree. Its leaves, from left to right, hold the entries in the
//! order of their keys; a large value has pages of its own.
//!
//! The whole tree is walked once, when the file is opened: every page number
//! and length is checked, and where the keys and values lie is kept.

use std::ops::Range;
use std::path::Path;

use super::archive::{Slice, read_file};
use heat_ood::{Error, Result};

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
/// Least bytes of an entry: its offset, its node, a key of one byte.
const MIN_ENTRY: usize = 2 + NODE + 1;

/// A problem without its file.
type Checked<T> = std::result::Result<T, String>;

/// Where an entry lies in the file: 24 bytes, 72 MB for the three million of
/// LSUN's largest category.
struct Entry {
    key: usize,
    value: usize,
    value_length: u32,
    key_length: u16,
}

/// A database: values by number, in the order of their keys.
pub(super) struct Lmdb {
    file: Slice,
    entries: Vec<Entry>,
}

impl Lmdb {
    /// Open a `data.mdb`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = read_file(path)?;
        let entries = walk(&file).map_err(|problem| Error::format(path, problem))?;
        Ok(Lmdb { file, entries })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Key `i`.
    pub fn key(&self, i: usize) -> &[u8] {
        let entry = &self.entries[i];
        &self.file[entry.key..][..usize::from(entry.key_length)]
    }

    /// The value of key `i`.
    pub fn value(&self, i: usize) -> &[u8] {
        let entry = &self.entries[i];
        &self.file[entry.value..][..entry.value_length as usize]
    }
}

struct Pages<'a> {
    bytes: &'a [u8],
    size: usize,
    /// First number beyond the last page.
    end: u64,
    depth: u16,
    /// Pages that may still be met: each is met once, unless they form a loop.
    left: u64,
    entries: Vec<Entry>,
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

/// All entries, in order.
fn walk(bytes: &[u8]) -> Checked<Vec<Entry>> {
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
        return Err("its keys are not plain, as those of images are".into());
    }
    if meta.root == NONE && meta.depth == 0 {
        return Ok(Vec::new());
    }
    if !(1..=MAX_DEPTH).contains(&meta.depth) {
        return Err(format!("a tree of depth {}: it is damaged", meta.depth));
    }
    let whole = (bytes.len() / size) as u64;
    let end = whole.min(meta.last.saturating_add(1));
    // What the file says, but no more than it can hold.
    let count = usize::try_from(meta.entries).unwrap_or(usize::MAX);
    let entries = Vec::with_capacity(count.min(bytes.len() / MIN_ENTRY));
    let mut pages = Pages { bytes, size, end, depth: meta.depth, left: end, entries };
    pages.visit(meta.root, 1)?;
    if pages.entries.len() != count {
        let problem = "entries, and says that there are";
        return Err(format!("holds {} {problem} {count}: damaged", pages.entries.len()));
    }
    Ok(pages.entries)
}

impl<'a> Pages<'a> {
    /// `count` pages from number `page`, of that kind: where they begin, and
    /// their bytes.
    fn get(&mut self, page: u64, count: u64, kind: u16) -> Checked<(usize, &'a [u8])> {
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
        if sound { Ok((from, bytes)) } else { Err(damaged(page)) }
    }

    /// A page and all below it.
    fn visit(&mut self, page: u64, depth: u16) -> Checked<()> {
        let is_leaf = depth == self.depth;
        let (from, bytes) = self.get(page, 1, if is_leaf { LEAF } else { BRANCH })?;
        let lower = usize::from(u16_at(bytes, 12).unwrap_or(0));
        let nodes = lower.saturating_sub(HEADER) / 2;
        // A branch of one would be no branch.
        if lower > self.size || nodes < if is_leaf { 1 } else { 2 } {
            return Err(damaged(page));
        }
        // Nodes do not overlap, so what is kept of them is in proportion to
        // the file.
        let mut room = self.size - lower;
        for i in 0..nodes {
            let at = u16_at(bytes, HEADER + 2 * i).map(usize::from).filter(|at| *at >= lower);
            let node = at.and_then(|at| Node::read(bytes, at)).ok_or_else(|| damaged(page))?;
            let taken = node.length(is_leaf);
            room = room.checked_sub(taken).ok_or_else(|| damaged(page))?;
            if is_leaf {
                self.entry(page, from, &node)?;
            } else {
                self.visit(node.child, depth + 1)?;
            }
        }
        Ok(())
    }

    /// An entry of the leaf that begins at `from`, its value whole.
    fn entry(&mut self, page: u64, from: usize, node: &Node) -> Checked<()> {
        if !(1..=MAX_KEY).contains(&node.key.len()) {
            return Err(damaged(page));
        }
        let value = match node.flags {
            0 if node.rest.len() >= node.size as usize => from + node.key.end,
            BIG => {
                let first = u64_at(node.rest, 0).ok_or_else(|| damaged(page))?;
                let count = (HEADER + node.size as usize).div_ceil(self.size) as u64;
                let (start, bytes) = self.get(first, count, OVERFLOW)?;
                if u32_at(bytes, 12).map(u64::from) != Some(count) {
                    return Err(damaged(first));
                }
                start + HEADER
            }
            _ => return Err(damaged(page)),
        };
        let key_length = node.key.len() as u16;
        let key = from + node.key.start;
        self.entries.push(Entry { key, value, value_length: node.size, key_length });
        Ok(())
    }
}

/// An entry of a page: of a leaf, flags and the size of its value; of a
/// branch, the same bytes are the number of the page below.
struct Node<'a> {
    flags: u16,
    size: u32,
    child: u64,
    /// Where in the page its key is.
    key: Range<usize>,
    /// What follows the key in the page.
    rest: &'a [u8],
}

impl<'a> Node<'a> {
    fn read(page: &'a [u8], at: usize) -> Option<Self> {
        let (size, flags) = (u32_at(page, at)?, u16_at(page, at + 4)?);
        let start = at + NODE;
        let key = start..start + usize::from(u16_at(page, at + 6)?);
        // LMDB reads numbers of two bytes at once.
        let rest = page.get(key.end..).filter(|_| at.is_multiple_of(2))?;
        let child = u64::from(size) | u64::from(flags) << 32;
        Some(Node { flags, size, child, key, rest })
    }

    /// Bytes that it takes in its page.
    fn length(&self, is_leaf: bool) -> usize {
        let value = match (is_leaf, self.flags) {
            (false, _) => 0,
            (true, BIG) => size_of::<u64>(),
            (true, _) => self.size as usize,
        };
        NODE + self.key.len() + value
    }
}

fn damaged(page: u64) -> String {
    format!("page {page} is damaged: copy the file again")
}
