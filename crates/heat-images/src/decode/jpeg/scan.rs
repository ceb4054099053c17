//! One scan: some coefficients of some components.

use super::entropy::{Bits, Table};
use super::{Component, Decoder, TRUNCATED, ZIGZAG};
use crate::decode::Checked;

const DAMAGED: &str = "a JPEG file with a damaged scan";

pub(super) struct Scan {
    /// Components, with the numbers of their tables.
    pub parts: Vec<(usize, usize, usize)>,
    /// First and last coefficient.
    first: usize,
    last: usize,
    /// Bits known before, and bits left after it.
    high: u32,
    low: u32,
    progressive: bool,
}

/// What goes on from block to block.
struct State {
    /// The last first coefficient of each component.
    last: [i32; 4],
    /// Blocks that are still to end at once.
    ended: u32,
}

impl Scan {
    pub fn read(header: &[u8], components: &[Component], progressive: bool) -> Checked<Self> {
        let (&n, rest) = header.split_first().ok_or(DAMAGED)?;
        let n = usize::from(n);
        if !(1..=4).contains(&n) || rest.len() < 2 * n + 3 {
            return Err(DAMAGED.into());
        }
        let mut parts: Vec<(usize, usize, usize)> = Vec::new();
        for part in &rest.as_chunks::<2>().0[..n] {
            let i = components.iter().position(|c| c.id == part[0]).ok_or(DAMAGED)?;
            if parts.iter().any(|(j, ..)| *j == i) {
                return Err(DAMAGED.into());
            }
            parts.push((i, usize::from(part[1] >> 4), usize::from(part[1] & 15)));
        }
        let [first, last, bits] = [rest[2 * n], rest[2 * n + 1], rest[2 * n + 2]];
        let mut scan = Scan {
            parts,
            first: first.into(),
            last: last.into(),
            high: (bits >> 4).into(),
            low: (bits & 15).into(),
            progressive,
        };
        if !progressive {
            (scan.first, scan.last, scan.high, scan.low) = (0, 63, 0, 0);
        }
        let ordered = scan.first <= scan.last && scan.last < 64 && scan.low < 14;
        // First coefficients come alone, others of one component at a time.
        let alone = !progressive || (scan.first == 0) == (scan.last == 0);
        let single = !progressive || scan.first == 0 || n == 1;
        if ordered && alone && single { Ok(scan) } else { Err(DAMAGED.into()) }
    }

    /// Decode it; how many bytes it takes.
    pub fn decode(&self, to: &mut Decoder, data: &[u8]) -> Checked<usize> {
        let mut components = std::mem::take(&mut to.components);
        let decoded = self.blocks(to, &mut components, data);
        to.components = components;
        decoded
    }

    fn blocks(
        &self,
        tables: &Decoder,
        components: &mut [Component],
        data: &[u8],
    ) -> Checked<usize> {
        let mut bits = Bits::new(data);
        let mut state = State { last: [0; 4], ended: 0 };
        // A component alone has no blocks beyond its edge.
        let single = self.parts.len() == 1;
        let units = match (&self.parts[..], single) {
            ([(i, ..)], true) => {
                [components[*i].width.div_ceil(8), components[*i].height.div_ceil(8)]
            }
            _ => [
                tables.width.div_ceil(8 * tables.most[0]),
                tables.height.div_ceil(8 * tables.most[1]),
            ],
        };
        for unit in 0..units[0] * units[1] {
            if tables.restart > 0 && unit > 0 && unit % tables.restart == 0 {
                bits.restart();
                state = State { last: [0; 4], ended: 0 };
            }
            // What is not there stays as it is.
            if bits.spent {
                if bits.cut {
                    return Err(TRUNCATED.into());
                }
                if tables.restart == 0 {
                    break;
                }
                continue;
            }
            let (x, y) = (unit % units[0], unit / units[0]);
            for (i, dc, ac) in &self.parts {
                let [across, down] = if single { [1, 1] } else { components[*i].sampling };
                let (dc, ac) = (table(&tables.dc, *dc), table(&tables.ac, *ac));
                for block in 0..across * down {
                    let (x, y) = (x * across + block % across, y * down + block / across);
                    let component = &mut components[*i];
                    let at = y * component.blocks[0] + x;
                    let block = &mut component.coefficients[at];
                    self.block(&mut bits, block, dc, ac, &mut state, *i)?;
                }
            }
        }
        if bits.spent && bits.cut {
            return Err(TRUNCATED.into());
        }
        Ok(bits.at)
    }

    fn block(
        &self,
        bits: &mut Bits,
        block: &mut [i16; 64],
        dc: Option<&Table>,
        ac: Option<&Table>,
        state: &mut State,
        component: usize,
    ) -> Checked<()> {
        const NO_TABLE: &str = "a JPEG file without a table";
        let refined = self.high > 0;
        if self.first == 0 {
            if refined {
                if bits.bit() {
                    block[0] |= 1 << self.low;
                }
            } else {
                let size = bits.symbol(dc.ok_or(NO_TABLE)?).min(15);
                let last = &mut state.last[component];
                *last = last.wrapping_add(bits.number(size.into()));
                block[0] = (*last << self.low) as i16;
            }
        }
        if self.last == 0 {
            return Ok(());
        }
        let ac = ac.ok_or(NO_TABLE)?;
        match (self.progressive, refined) {
            (true, true) => self.refine(bits, block, ac, state),
            _ => self.coefficients(bits, block, ac, state),
        }
        Ok(())
    }

    /// Coefficients that are met for the first time.
    fn coefficients(&self, bits: &mut Bits, block: &mut [i16; 64], ac: &Table, state: &mut State) {
        if state.ended > 0 {
            state.ended -= 1;
            return;
        }
        let mut k = self.first.max(1);
        while k <= self.last {
            let symbol = bits.symbol(ac);
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 {
                if run != 15 {
                    if self.progressive {
                        // Some blocks end, this one among them.
                        state.ended = (1 << run) + bits.bits(run) - 1;
                    }
                    break;
                }
                k += 16;
                continue;
            }
            k += run as usize;
            block[usize::from(ZIGZAG[k])] = (bits.number(size) << self.low) as i16;
            k += 1;
        }
    }

    /// One more bit of the coefficients that are not zero, and new ones among them.
    fn refine(&self, bits: &mut Bits, block: &mut [i16; 64], ac: &Table, state: &mut State) {
        let bit = 1i16 << self.low;
        let correct = |bits: &mut Bits, value: &mut i16| {
            if bits.bit() && *value & bit == 0 {
                *value = value.wrapping_add(if *value >= 0 { bit } else { -bit });
            }
        };
        let mut k = self.first;
        if state.ended == 0 {
            while k <= self.last {
                let symbol = bits.symbol(ac);
                let (mut run, size) = (u32::from(symbol >> 4), symbol & 15);
                let mut new = 0;
                if size != 0 {
                    new = if bits.bit() { bit } else { -bit };
                } else if run != 15 {
                    state.ended = (1 << run) + bits.bits(run);
                    break;
                }
                while k <= self.last {
                    let value = &mut block[usize::from(ZIGZAG[k])];
                    if *value != 0 {
                        correct(bits, value);
                    } else if run == 0 {
                        break;
                    } else {
                        run -= 1;
                    }
                    k += 1;
                }
                if new != 0 {
                    block[usize::from(ZIGZAG[k])] = new;
                }
                k += 1;
            }
        }
        if state.ended > 0 {
            for place in ZIGZAG[k.min(64)..64].iter().take((self.last + 1).saturating_sub(k)) {
                let value = &mut block[usize::from(*place)];
                if *value != 0 {
                    correct(bits, value);
                }
            }
            state.ended -= 1;
        }
    }
}

fn table(tables: &[Option<Table>; 4], i: usize) -> Option<&Table> {
    tables.get(i)?.as_ref()
}
