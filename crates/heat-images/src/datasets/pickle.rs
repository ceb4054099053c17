//! Pickles of dictionaries, lists and arrays, as CIFAR's files hold them.
//!
//! Nothing is executed: a call becomes a value that holds its arguments. No
//! value is ever copied, only its number; so memory is bounded by the number
//! of instructions, which is bounded too.

use std::collections::HashMap;
use std::ops::Range;

/// Values with memory of their own, and remembered ones: a batch has one for
/// each file name, 50,000 at most.
const MAX_VALUES: usize = 1 << 18;

/// Values pushed: CIFAR-100's training set has 150,000.
const MAX_PUSHES: usize = 1 << 19;

/// Values within values that are looked through for an array's bytes.
const MAX_PARTS: usize = 64;

enum Value {
    Nothing,
    True,
    Int(i64),
    Bytes(Range<usize>),
    Text(Range<usize>),
    /// Tuples, lists, calls.
    Items(Vec<u32>),
    Dict(Vec<(u32, u32)>),
}

/// What a pickle describes.
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    root: u32,
}

/// The bytes of an array: in the pickle, or decoded from a text there.
pub(super) enum Data {
    Within(Range<usize>),
    Decoded(Vec<u8>),
}

/// A problem without its place.
type Checked<T> = std::result::Result<T, String>;

const CUT: &str = "not a whole pickle; it may be truncated: download it again";

const TOO_MUCH: &str = "describes far more than images and labels: refused";

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<u32>,
    marks: Vec<usize>,
    memo: HashMap<u32, u32>,
    pushes: usize,
}

impl<'a> Pickle<'a> {
    /// Read one.
    pub fn read(bytes: &'a [u8]) -> Checked<Self> {
        // Small numbers are there from the beginning: labels take no memory.
        let values = (0..256).map(Value::Int).collect();
        let (stack, marks, memo) = Default::default();
        let mut machine = Machine { bytes, at: 0, values, stack, marks, memo, pushes: 0 };
        while machine.step()? {}
        let root = machine.pop()?;
        Ok(Pickle { bytes, values: machine.values, root })
    }

    fn value(&self, i: u32) -> &Value {
        &self.values[i as usize]
    }

    /// The entry of that name of the dictionary that it is.
    pub fn get(&self, name: &str) -> Option<u32> {
        let Value::Dict(pairs) = self.value(self.root) else { return None };
        pairs.iter().rev().find(|(key, _)| self.is_named(*key, name)).map(|(_, value)| *value)
    }

    /// Whether a key is that name: a text, bytes, or bytes as protocol 2 has them, the call
    /// `encode(text, "latin1")`.
    fn is_named(&self, key: u32, name: &str) -> bool {
        let is = |value: &Value| match value {
            Value::Bytes(at) | Value::Text(at) => &self.bytes[at.clone()] == name.as_bytes(),
            _ => false,
        };
        let first = |items: &[u32]| items.iter().any(|i| is(self.value(*i)));
        match self.value(key) {
            Value::Items(call) => call.iter().any(|part| match self.value(*part) {
                Value::Items(arguments) => first(&arguments[..arguments.len().min(1)]),
                _ => false,
            }),
            value => is(value),
        }
    }

    /// Names of a dictionary's entries, for messages.
    pub fn names(&self) -> Vec<String> {
        let Value::Dict(pairs) = self.value(self.root) else { return Vec::new() };
        let name = |key: u32| match self.value(key) {
            Value::Bytes(at) | Value::Text(at) => {
                Some(self.bytes[at.clone()].iter().take(40).copied().collect::<Vec<u8>>())
            }
            _ => None,
        };
        let names = pairs.iter().filter_map(|(key, _)| name(*key)).take(8);
        names.map(|name| name.escape_ascii().to_string()).collect()
    }

    /// A list or an array of labels.
    pub fn labels(&self, list: u32) -> Option<Vec<u32>> {
        let Value::Items(items) = self.value(list) else { return None };
        let label = |i: &u32| match self.value(*i) {
            Value::Int(v) => u32::try_from(*v).ok(),
            _ => None,
        };
        let list: Option<Vec<u32>> = items.iter().map(label).collect();
        list.or_else(|| self.integers(items))
    }

    /// The values of an array of whole numbers.
    fn integers(&self, array: &[u32]) -> Option<Vec<u32>> {
        let parts = self.parts(array)?;
        let texts = parts.iter().filter_map(|i| match self.value(*i) {
            Value::Bytes(at) | Value::Text(at) => Some(&self.bytes[at.clone()]),
            _ => None,
        });
        let kind = texts.clone().find_map(|t| match t {
            [b'i' | b'u', size @ (b'1' | b'2' | b'4' | b'8')] => Some(usize::from(size - b'0')),
            _ => None,
        })?;
        if texts.clone().any(|t| t == b">") {
            return None;
        }
        let number = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..kind].copy_from_slice(bytes);
            u32::try_from(u64::from_le_bytes(word)).ok()
        };
        let shape = self.shape(&parts)?;
        let length = shape.iter().try_fold(kind, |n, d| n.checked_mul(*d))?;
        match self.bytes_of(&parts, length)? {
            Data::Within(at) => self.bytes[at].chunks_exact(kind).map(number).collect(),
            Data::Decoded(bytes) => bytes.chunks_exact(kind).map(number).collect(),
        }
    }

    /// What an array consists of, down to the last.
    fn parts(&self, array: &[u32]) -> Option<Vec<u32>> {
        let (mut open, mut all) = (array.to_vec(), Vec::new());
        while let Some(part) = open.pop() {
            all.push(part);
            if let Value::Items(items) = self.value(part) {
                open.extend(items.iter().take(MAX_PARTS));
            }
            if all.len() > MAX_PARTS {
                return None;
            }
        }
        Some(all)
    }

    /// An array's shape: the longest tuple of numbers, since numpy has a tuple of one zero too.
    fn shape(&self, parts: &[u32]) -> Option<Vec<usize>> {
        let sizes = |i: &u32| match self.value(*i) {
            Value::Items(items) if !items.is_empty() => {
                let size = |i: &u32| match self.value(*i) {
                    Value::Int(v) => usize::try_from(*v).ok(),
                    _ => None,
                };
                items.iter().map(size).collect::<Option<Vec<usize>>>()
            }
            _ => None,
        };
        parts.iter().filter_map(sizes).filter(|s| s != &[0]).max_by_key(Vec::len)
    }

    /// The bytes and the shape of an array of `length` bytes, row-major.
    pub fn array(&self, array: u32, length: usize) -> Option<(Data, Vec<usize>)> {
        let parts = self.parts(&[array])?;
        // The state is version, shape, type, whether columns lie one after the other, values;
        // arrays of protocol 5 say `F`.
        let by_column = parts.iter().any(|i| match self.value(*i) {
            Value::Items(items) => items.len() == 5 && matches!(self.value(items[3]), Value::True),
            Value::Text(at) => &self.bytes[at.clone()] == b"F",
            _ => false,
        });
        if by_column {
            return None;
        }
        Some((self.bytes_of(&parts, length)?, self.shape(&parts)?))
    }

    fn bytes_of(&self, parts: &[u32], length: usize) -> Option<Data> {
        parts.iter().find_map(|part| match self.value(*part) {
            Value::Bytes(at) if at.len() == length => Some(Data::Within(at.clone())),
            // Bytes, as Python 3 writes them for Python 2.
            Value::Text(at) if (length..=2 * length).contains(&at.len()) => {
                let text = std::str::from_utf8(&self.bytes[at.clone()]).ok()?;
                let bytes: Option<Vec<u8>> =
                    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                bytes.filter(|b| b.len() == length).map(Data::Decoded)
            }
            _ => None,
        })
    }
}

impl Machine<'_> {
    fn take(&mut self, n: usize) -> Checked<Range<usize>> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len()).ok_or(CUT)?;
        let start = std::mem::replace(&mut self.at, end);
        Ok(start..end)
    }

    /// A little-endian number of `n` bytes, eight at most.
    fn number(&mut self, n: usize) -> Checked<u64> {
        let mut word = [0; 8];
        let range = self.take(n)?;
        word[..n].copy_from_slice(&self.bytes[range]);
        Ok(u64::from_le_bytes(word))
    }

    fn byte(&mut self) -> Checked<u8> {
        self.number(1).map(|v| v as u8)
    }

    /// As many bytes as a number of `n` bytes says.
    fn counted(&mut self, n: usize) -> Checked<Range<usize>> {
        let length = usize::try_from(self.number(n)?).map_err(|_| CUT)?;
        self.take(length)
    }

    fn line(&mut self) -> Checked<()> {
        let length = self.bytes[self.at..].iter().position(|b| *b == b'\n').ok_or(CUT)?;
        self.take(length + 1).map(drop)
    }

    fn push(&mut self, value: u32) -> Checked<()> {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    fn count(&mut self) -> Checked<()> {
        self.pushes += 1;
        if self.pushes > MAX_PUSHES { Err(TOO_MUCH.into()) } else { Ok(()) }
    }

    fn new_value(&mut self, value: Value) -> Checked<()> {
        if self.values.len() >= MAX_VALUES {
            return Err(TOO_MUCH.into());
        }
        self.values.push(value);
        self.push(self.values.len() as u32 - 1)
    }

    fn int(&mut self, value: i64) -> Checked<()> {
        match u8::try_from(value) {
            Ok(small) => self.push(small.into()),
            Err(_) => self.new_value(Value::Int(value)),
        }
    }

    /// The top of the stack, above the last mark.
    fn pop(&mut self) -> Checked<u32> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(CUT.into());
        }
        self.stack.pop().ok_or_else(|| CUT.into())
    }

    fn pop_several(&mut self, n: usize) -> Checked<Vec<u32>> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Checked<Vec<_>>>()?;
        items.reverse();
        Ok(items)
    }

    /// All above the last mark, and the mark.
    fn pop_mark(&mut self) -> Checked<Vec<u32>> {
        let mark = self.marks.pop().ok_or(CUT)?;
        Ok(self.stack.split_off(mark))
    }

    /// Add to the list, dictionary or call on top of the stack.
    fn add(&mut self, items: &[u32]) -> Checked<()> {
        let top = *self.stack.last().ok_or(CUT)?;
        match &mut self.values[top as usize] {
            Value::Items(list) => list.extend(items),
            Value::Dict(pairs) => {
                pairs.extend(items.as_chunks::<2>().0.iter().map(|p| (p[0], p[1])))
            }
            _ => return Err(CUT.into()),
        }
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Checked<()> {
        let top = *self.stack.last().ok_or(CUT)?;
        self.memo.insert(slot, top);
        if self.memo.len() > MAX_VALUES {
            return Err(TOO_MUCH.into());
        }
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Checked<()> {
        let value = *self.memo.get(&slot).ok_or(CUT)?;
        self.push(value)
    }

    /// One instruction; `false` at the end.
    fn step(&mut self) -> Checked<bool> {
        let op = self.byte()?;
        match op {
            b'.' => return Ok(false),
            0x80 => self.take(1).map(drop)?,
            0x95 => self.take(8).map(drop)?,
            b'(' => {
                self.count()?;
                self.marks.push(self.stack.len());
            }
            b'0' => self.pop().map(drop)?,
            b'1' => self.pop_mark().map(drop)?,
            b'2' => self.stack.last().copied().ok_or(CUT.into()).and_then(|v| self.push(v))?,
            b'q' => self.byte().and_then(|slot| self.remember(slot.into()))?,
            b'r' => self.number(4).and_then(|slot| self.remember(slot as u32))?,
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => self.byte().and_then(|slot| self.recall(slot.into()))?,
            b'j' => self.number(4).and_then(|slot| self.recall(slot as u32))?,
            _ => self.build(op)?,
        }
        Ok(true)
    }

    /// An instruction that makes a value or adds to one.
    fn build(&mut self, op: u8) -> Checked<()> {
        match op {
            0x88 => self.new_value(Value::True),
            b'N' | 0x89 => self.new_value(Value::Nothing),
            b'G' => self.take(8).and_then(|_| self.new_value(Value::Nothing)),
            b'K' | b'M' | b'J' => self.integer(op),
            0x8a => {
                let at = self.counted(1)?;
                let value =
                    self.bytes[at].iter().rev().take(8).fold(0, |v, b| v << 8 | i64::from(*b));
                self.int(value)
            }
            b'U' | b'C' => self.counted(1).and_then(|at| self.new_value(Value::Bytes(at))),
            b'T' | b'B' => self.counted(4).and_then(|at| self.new_value(Value::Bytes(at))),
            0x8e | 0x96 => self.counted(8).and_then(|at| self.new_value(Value::Bytes(at))),
            0x8c => self.counted(1).and_then(|at| self.new_value(Value::Text(at))),
            b'X' => self.counted(4).and_then(|at| self.new_value(Value::Text(at))),
            0x8d => self.counted(8).and_then(|at| self.new_value(Value::Text(at))),
            b'c' => {
                self.line()?;
                self.line()?;
                self.new_value(Value::Nothing)
            }
            b')' | b']' => self.new_value(Value::Items(Vec::new())),
            b'}' => self.new_value(Value::Dict(Vec::new())),
            b't' | b'l' => self.pop_mark().and_then(|items| self.new_value(Value::Items(items))),
            b'd' => {
                let items = self.pop_mark()?;
                self.new_value(Value::Dict(Vec::new()))?;
                self.add(&items)
            }
            0x85..=0x87 => {
                let items = self.pop_several(usize::from(op - 0x84))?;
                self.new_value(Value::Items(items))
            }
            // A name from the stack; a call, of which the arguments stay.
            0x93 => self.pop_several(2).and_then(|_| self.new_value(Value::Nothing)),
            b'R' | 0x81 => {
                self.pop_several(2).and_then(|items| self.new_value(Value::Items(items)))
            }
            b'a' | b'b' => self.pop().and_then(|item| self.add(&[item])),
            b's' => self.pop_several(2).and_then(|pair| self.add(&pair)),
            b'e' | b'u' => self.pop_mark().and_then(|items| self.add(&items)),
            _ => Err(format!(
                "pickled with an instruction (0x{op:02x}) that CIFAR's files do not have; in \
                 Python: `pickle.dump(pickle.load(file, encoding=\"bytes\"), other, protocol=2)`"
            )),
        }
    }

    fn integer(&mut self, op: u8) -> Checked<()> {
        let value = match op {
            b'K' => self.number(1)? as i64,
            b'M' => self.number(2)? as i64,
            _ => i64::from(self.number(4)? as u32 as i32),
        };
        self.int(value)
    }
}
