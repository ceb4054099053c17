//! What a pickle will cost the reader crate, counted without building it.
//!
//! The crate bounds copies and nesting by constants; a small hostile file may
//! still make it take some hundred megabytes: one byte can be an object, two
//! bytes the copy of a thousand, and a tensor's name repeats every key above
//! it. This walks the same instructions with sizes in place of values.

use std::collections::HashMap;

/// Bytes for one object: its place on the stack or in a table, with what such
/// a table wastes while it grows (measured: 100 to 341).
const OBJECT: u64 = 384;

/// Why a pickle is not given to the reader crate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Flaw {
    /// It ends too early, or is no pickle that PyTorch writes.
    Damaged,
    /// It describes more than the budget allows.
    TooMuch,
}

type Result<T> = std::result::Result<T, Flaw>;

/// Sizes of an object.
#[derive(Clone, Copy, Default)]
struct Size {
    /// Memory of the whole object.
    cost: u64,
    /// Length, of a string.
    text: u64,
    /// Tensors within it.
    tensors: u64,
    /// Length of their names, counted from this object.
    names: u64,
    /// Where a copy of it is remembered.
    slot: Option<u64>,
}

impl Size {
    fn add(&mut self, other: Size) {
        self.cost = self.cost.saturating_add(other.cost);
        self.tensors = self.tensors.saturating_add(other.tensors);
        self.names = self.names.saturating_add(other.names);
    }

    /// Take in an entry that goes by a key of `key` bytes.
    fn add_named(&mut self, key: u64, mut value: Size) {
        let longer = value.tensors.saturating_mul(key + OBJECT);
        value.names = value.names.saturating_add(longer);
        self.add(value);
    }
}

struct Meter<'a, 'b> {
    bytes: &'a [u8],
    stack: Vec<Size>,
    marks: Vec<usize>,
    memo: HashMap<u64, Size>,
    budget: &'b mut u64,
}

/// The bytes after the first pickle of `bytes`, its cost taken off `budget`.
pub(super) fn measure<'a>(bytes: &'a [u8], budget: &mut u64) -> Result<&'a [u8]> {
    let (stack, marks, memo) = Default::default();
    let mut meter = Meter { bytes, stack, marks, memo, budget };
    loop {
        let op = meter.take(1)?[0];
        if op == b'.' {
            break;
        }
        meter.step(op)?;
    }
    let root = meter.pop()?;
    let rest = meter.bytes;
    meter.spend(root.names)?;
    Ok(rest)
}

impl<'a> Meter<'a, '_> {
    fn step(&mut self, op: u8) -> Result<()> {
        match op {
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                self.spend(OBJECT)
            }
            b'N' | b')' | b']' | b'}' | 0x88 | 0x89 | 0x8f => self.push(0),
            b'K' | b'M' | b'J' | b'G' => {
                self.take(match op {
                    b'K' => 1,
                    b'M' => 2,
                    b'J' => 4,
                    _ => 8,
                })?;
                self.push(0)
            }
            b'I' | b'L' | b'F' | b'V' | b'P' => {
                let text = self.line()?.len() as u64;
                self.push(text)
            }
            b'c' => {
                let text = self.line()?.len() + self.line()?.len();
                self.push(text as u64)
            }
            b'U' | b'C' | 0x8a | 0x8c => self.text(1),
            b'X' | b'B' | b'T' | 0x8b => self.text(4),
            0x8d | 0x8e | 0x96 => self.text(8),
            _ => self.combine(op),
        }
    }

    /// The instructions that work on what is already there.
    fn combine(&mut self, op: u8) -> Result<()> {
        match op {
            b't' | b'l' | 0x91 => {
                let from = self.mark()?;
                self.list(from)
            }
            0x85..=0x87 => self.list(self.depth(usize::from(op - 0x84))?),
            b'd' => {
                let from = self.mark()?;
                self.stack.insert(from, Size::default());
                self.spend(OBJECT)?;
                self.entries(from + 1, true)
            }
            b'a' => self.entries(self.depth(1)?, false),
            b's' => self.entries(self.depth(2)?, true),
            b'e' | 0x90 => {
                let from = self.mark()?;
                self.entries(from, false)
            }
            b'u' => {
                let from = self.mark()?;
                self.entries(from, true)
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => {
                let from = self.mark()?;
                self.stack.truncate(from);
                Ok(())
            }
            b'2' => {
                let top = *self.stack.last().ok_or(Flaw::Damaged)?;
                self.copy(top)
            }
            b'g' | b'h' | b'j' => {
                let slot = self.slot(op == b'g', op == b'h')?;
                let object = *self.memo.get(&slot).ok_or(Flaw::Damaged)?;
                self.copy(object)
            }
            b'p' | b'q' | b'r' | 0x94 => self.put(op),
            b'Q' => self.call(1, 0),
            b'R' => self.call(2, 1),
            0x81 | 0x93 => self.call(2, 0),
            0x92 => self.call(3, 0),
            b'b' => self.build(),
            _ => Err(Flaw::Damaged),
        }
    }

    fn spend(&mut self, cost: u64) -> Result<()> {
        *self.budget = self.budget.checked_sub(cost).ok_or(Flaw::TooMuch)?;
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(n).ok_or(Flaw::Damaged)?;
        self.bytes = rest;
        Ok(head)
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let end = self.bytes.iter().position(|b| *b == b'\n').ok_or(Flaw::Damaged)?;
        Ok(&self.take(end + 1)?[..end])
    }

    fn number(&mut self, width: usize) -> Result<u64> {
        let mut word = [0; 8];
        word[..width].copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(word))
    }

    /// A string or number behind its length of `width` bytes.
    fn text(&mut self, width: usize) -> Result<()> {
        let length = self.number(width)?;
        self.take(usize::try_from(length).map_err(|_| Flaw::Damaged)?)?;
        self.push(length)
    }

    fn push(&mut self, text: u64) -> Result<()> {
        let cost = OBJECT + 2 * text;
        self.spend(cost)?;
        self.stack.push(Size { cost, text, ..Size::default() });
        Ok(())
    }

    fn pop(&mut self) -> Result<Size> {
        self.stack.pop().ok_or(Flaw::Damaged)
    }

    fn copy(&mut self, object: Size) -> Result<()> {
        self.spend(object.cost)?;
        self.stack.push(object);
        Ok(())
    }

    /// Where the last `n` objects begin.
    fn depth(&self, n: usize) -> Result<usize> {
        self.stack.len().checked_sub(n).ok_or(Flaw::Damaged)
    }

    /// Where the objects since the last mark begin.
    fn mark(&mut self) -> Result<usize> {
        let mark = self.marks.pop().ok_or(Flaw::Damaged)?;
        if mark > self.stack.len() { Err(Flaw::Damaged) } else { Ok(mark) }
    }

    /// Make one list of all objects `from..`.
    fn list(&mut self, from: usize) -> Result<()> {
        self.stack.insert(from, Size { cost: OBJECT, ..Size::default() });
        self.spend(OBJECT)?;
        self.entries(from + 1, false)
    }

    /// Move the objects `from..` into the one before them, by key if `keyed`.
    fn entries(&mut self, from: usize, keyed: bool) -> Result<()> {
        let items = self.stack.split_off(from);
        let into = self.stack.last_mut().ok_or(Flaw::Damaged)?;
        if keyed {
            for pair in items.chunks(2) {
                into.add(Size { cost: pair[0].cost, ..Size::default() });
                pair.get(1).into_iter().for_each(|value| into.add_named(pair[0].text, *value));
            }
        } else {
            items.into_iter().for_each(|item| into.add_named(0, item));
        }
        Ok(())
    }

    /// One object of the last `n`; a call (`tensors` = 1) may make a tensor.
    fn call(&mut self, n: usize, tensors: u64) -> Result<()> {
        let mut all = Size::default();
        let from = self.depth(n)?;
        self.stack.drain(from..).for_each(|object| all.add(object));
        all.tensors = all.tensors.max(tensors);
        self.stack.push(all);
        Ok(())
    }

    /// An object takes its state; a copy of it replaces the remembered one.
    fn build(&mut self) -> Result<()> {
        let slot = self.stack[self.depth(2)?].slot;
        self.call(2, 0)?;
        let built = self.stack[self.depth(1)?];
        self.spend(built.cost)?;
        if let Some(slot) = slot {
            self.memo.insert(slot, Size { slot: Some(slot), ..built });
        }
        Ok(())
    }

    fn put(&mut self, op: u8) -> Result<()> {
        let slot = match op {
            0x94 => self.memo.len() as u64,
            _ => self.slot(op == b'p', op == b'q')?,
        };
        let top = self.stack.last_mut().ok_or(Flaw::Damaged)?;
        top.slot = Some(slot);
        let top = *top;
        self.memo.insert(slot, top);
        self.spend(top.cost)
    }

    fn slot(&mut self, line: bool, short: bool) -> Result<u64> {
        if !line {
            return self.number(if short { 1 } else { 4 });
        }
        let text = std::str::from_utf8(self.line()?).map_err(|_| Flaw::Damaged)?;
        text.trim().parse().map_err(|_| Flaw::Damaged)
    }
}
