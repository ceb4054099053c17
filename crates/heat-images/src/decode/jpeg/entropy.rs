//! Huffman codes and the bits that they are made of.

/// Bits looked up at once.
const FAST: u32 = 9;

/// The codes of one table.
pub(super) struct Table {
    /// For each beginning of that many bits: length (0: longer) and symbol.
    fast: Vec<(u8, u8)>,
    /// First code that is longer than each length, aligned to sixteen bits.
    end: [u32; 17],
    /// What to add to a code of a length for its place among the symbols.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From the number of codes of each length; `None`: there are more than there is room for.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Table {
            fast: vec![(0, 0); 1 << FAST],
            end: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut place) = (0u32, 0usize);
        for (length, count) in (1u32..=16).zip(counts) {
            table.offset[length as usize] = place as i32 - code as i32;
            for _ in 0..*count {
                if length <= FAST {
                    let from = (code << (FAST - length)) as usize;
                    let room = table.fast.get_mut(from..from + (1 << (FAST - length)))?;
                    room.fill((length as u8, *symbols.get(place)?));
                }
                code += 1;
                place += 1;
            }
            if code > 1 << length {
                return None;
            }
            table.end[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }
}

/// The bits of a scan, up to the next marker.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    pub at: usize,
    buffer: u64,
    /// Bits in the buffer, those beyond the data too.
    count: u32,
    /// Of these, zeros that stand for what is not there.
    padding: u32,
    /// More was taken than there is.
    pub spent: bool,
    /// The file ends, without a marker.
    pub cut: bool,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Bits { data, at: 0, buffer: 0, count: 0, padding: 0, spent: false, cut: false }
    }

    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.data.get(self.at..) {
                Some([0xff, 0, ..]) => {
                    self.at += 2;
                    0xff
                }
                // Fill bytes, then a marker; or the end.
                Some([0xff, ..]) | Some([]) | None => {
                    self.padding += 8;
                    0
                }
                Some([byte, ..]) => {
                    self.at += 1;
                    *byte
                }
            };
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    fn take(&mut self, n: u32) {
        self.count -= n;
        if self.count < self.padding {
            self.padding = self.count;
            self.spent = true;
            self.cut |= self.at + 1 >= self.data.len();
        }
    }

    /// The next sixteen bits, which stay.
    fn peek(&mut self) -> u32 {
        if self.count < 16 {
            self.fill();
        }
        (self.buffer >> (self.count - 16)) as u32 & 0xffff
    }

    /// Up to sixteen bits as a number.
    pub fn bits(&mut self, n: u32) -> u32 {
        let value = self.peek() >> (16 - n);
        self.take(n);
        value
    }

    pub fn bit(&mut self) -> bool {
        self.bits(1) == 1
    }

    /// A number of a size: those with a first bit of 0 are negative.
    pub fn number(&mut self, size: u32) -> i32 {
        if size == 0 {
            return 0;
        }
        let value = self.bits(size) as i32;
        if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value }
    }

    /// The next symbol; 0 for what is no code.
    pub fn symbol(&mut self, table: &Table) -> u8 {
        let next = self.peek();
        let (length, symbol) = table.fast[(next >> (16 - FAST)) as usize];
        if length > 0 {
            self.take(length.into());
            return symbol;
        }
        for length in FAST + 1..=16 {
            if next < table.end[length as usize] {
                self.take(length);
                let place = (next >> (16 - length)) as i32 + table.offset[length as usize];
                return table.symbols.get(place as usize).copied().unwrap_or(0);
            }
        }
        self.take(16);
        0
    }

    /// Go on after the next restart marker, if that is what comes next.
    pub fn restart(&mut self) {
        let at =
            self.data[self.at..].windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff));
        self.at = at.map_or(self.data.len(), |at| self.at + at);
        (self.buffer, self.count, self.padding) = (0, 0, 0);
        let found = matches!(self.data.get(self.at + 1), Some(0xd0..=0xd7));
        self.cut |= at.is_none();
        self.spent = !found;
        if found {
            self.at += 2;
        }
    }
}
