//! Small damage to sound files, the same for the same seed: bits, boundary
//! values, cuts and splices anywhere; numbers and words of text, and the
//! header of safetensors files, whose length is then corrected.

use serde_json::{Map, Value};

/// Numbers of SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Numbers at which something overflows, is empty, or is no number.
const NUMBERS: [&str; 22] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "24",
    "255",
    "65536",
    "1048577",
    "2147483647",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "340282366920938463463374607431768211456",
    "1e308",
    "1e-320",
    "-0.5",
    "0.5",
    "null",
    "true",
];

/// Words of the formats read.
const WORDS: [&str; 47] = [
    "F32",
    "F64",
    "F16",
    "BF16",
    "I64",
    "U8",
    "BOOL",
    "avg",
    "std",
    "max",
    "logits",
    "label",
    "weight",
    "bias",
    "gmm",
    "ssd",
    "maha",
    "knn",
    "vim",
    "dice",
    "klm",
    "mean",
    "norm",
    "cosine",
    "odin",
    "scale",
    "she",
    "vra",
    "fdbd",
    "neco",
    "pnml",
    "temperature",
    "el",
    "msp",
    "max_logit",
    "heat",
    "combined",
    "data_offsets",
    "shape",
    "dtype",
    "f8",
    "i4",
    "True",
    "False",
    "nan",
    "inf",
    "[]",
];

/// `bytes` damaged in one to four places; `other` is a file to splice from.
pub fn mutate(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let kind = random.below(12);
        if kind < 5 && safetensors(&mut out, random) {
            continue;
        }
        match kind {
            0..=2 => text(&mut out, random),
            3 => cut(&mut out, random),
            4 => splice(&mut out, other, random),
            5 | 6 => integer(&mut out, random),
            7 => float(&mut out, random),
            _ => byte(&mut out, random),
        }
    }
    out
}

fn byte(out: &mut [u8], random: &mut Random) {
    let (at, bit) = (random.below(out.len()), random.below(8));
    let value = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]);
    if let Some(b) = out.get_mut(at) {
        *b = if random.below(2) == 0 { *b ^ (1 << bit) } else { value };
    }
}

fn overwrite(out: &mut [u8], at: usize, with: &[u8]) {
    out.iter_mut().skip(at).zip(with).for_each(|(o, w)| *o = *w);
}

fn integer(out: &mut [u8], random: &mut Random) {
    let value = random.pick(&[0u64, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, !0 >> 1, !0]);
    let width = *random.pick(&[2, 4, 8]);
    let at = random.below(out.len());
    overwrite(out, at, &value.to_le_bytes()[..width]);
}

fn float(out: &mut [u8], random: &mut Random) {
    let value = *random.pick(&[f64::NAN, f64::INFINITY, 3e38, -3e38, 1e300, 1e-40, -1.0, 0.0, 3.0]);
    let at = random.below(out.len()) & !3;
    match random.below(2) {
        0 => overwrite(out, at, &value.to_le_bytes()),
        _ => overwrite(out, at, &(value as f32).to_le_bytes()),
    }
}

fn cut(out: &mut Vec<u8>, random: &mut Random) {
    let (a, b) = (random.below(out.len() + 1), random.below(64));
    if random.below(2) == 0 {
        out.truncate(a);
    } else {
        out.drain(a..(a + b).min(out.len()));
    }
}

fn splice(out: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let from = random.below(other.len());
    let to = (from + random.below(256)).min(other.len());
    let at = random.below(out.len() + 1);
    let end = if random.below(2) == 0 { at } else { (at + to - from).min(out.len()) };
    out.splice(at..end, other[from..to].iter().copied());
}

/// Replace one number or word of text by another.
fn text(out: &mut Vec<u8>, random: &mut Random) {
    let is_number = random.below(3) > 0;
    let part = |b: u8| if is_number { b.is_ascii_digit() } else { b.is_ascii_alphabetic() };
    let starts: Vec<usize> =
        (0..out.len()).filter(|i| part(out[*i]) && (*i == 0 || !part(out[*i - 1]))).collect();
    if starts.is_empty() {
        return;
    }
    let start = *random.pick(&starts);
    let end = (start..out.len()).find(|i| !part(out[*i])).unwrap_or(out.len());
    let with = if is_number { random.pick(&NUMBERS) } else { random.pick(&WORDS) };
    out.splice(start..end, with.bytes());
}

/// Change the header of a safetensors file; `false` if it is none.
fn safetensors(out: &mut Vec<u8>, random: &mut Random) -> bool {
    let Some((length, rest)) = out.split_first_chunk::<8>() else { return false };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let Some((header, data)) = rest.split_at_checked(length) else { return false };
    let (mut header, mut data) = (header.to_vec(), data.to_vec());
    if random.below(2) == 0 {
        text(&mut header, random);
    } else if let Ok(Value::Object(mut map)) = serde_json::from_slice(&header) {
        tensor(&mut map, &mut data, random);
        header = Value::Object(map).to_string().into_bytes();
    } else {
        return false;
    }
    *out = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    true
}

fn size(dtype: &Value) -> usize {
    match dtype.as_str().unwrap_or_default() {
        "F64" | "I64" => 8,
        "F32" => 4,
        "F16" | "BF16" => 2,
        _ => 1,
    }
}

/// Give one tensor another name, type or shape, its bytes at the end of the
/// file so that the header is sound again.
fn tensor(map: &mut Map<String, Value>, data: &mut Vec<u8>, random: &mut Random) {
    let names: Vec<String> = map.keys().filter(|k| *k != "__metadata__").cloned().collect();
    if names.is_empty() {
        return;
    }
    let name = random.pick(&names).clone();
    let Some(Value::Object(mut entry)) = map.remove(&name) else { return };
    let mut shape: Vec<usize> = serde_json::from_value(field(&entry, "shape")).unwrap_or_default();
    let mut name = name;
    match random.below(7) {
        0 => return compact(map, data),
        1 => name = random.pick(&names).clone(),
        2 => drop(
            entry
                .insert("dtype".into(), (*random.pick(&["F64", "F32", "F16", "I64", "U8"])).into()),
        ),
        3 => shape.reverse(),
        4 => shape = vec![shape.iter().fold(1, |n: usize, d| n.saturating_mul(*d))],
        5 => shape.push(1),
        _ => {
            let at = random.below(shape.len());
            shape.iter_mut().skip(at).take(1).for_each(|n| *n = *random.pick(&[0, 1, 2, 5, 7]));
        }
    }
    let count = shape.iter().fold(1, |n: usize, d| n.saturating_mul(*d)).min(1 << 12);
    let need = count * size(&field(&entry, "dtype"));
    let begin = data.len();
    data.extend((0..need).map(|i| if i % 4 == 3 { 0x3f } else { 0x10 }));
    entry.insert("shape".into(), shape.into());
    entry.insert("data_offsets".into(), vec![begin, begin + need].into());
    map.insert(name, entry.into());
    compact(map, data);
}

fn field(entry: &Map<String, Value>, name: &str) -> Value {
    entry.get(name).cloned().unwrap_or_default()
}

/// Lay the tensors out without gaps, as the format demands.
fn compact(map: &mut Map<String, Value>, data: &mut Vec<u8>) {
    let mut packed = Vec::new();
    for entry in map.values_mut().filter_map(Value::as_object_mut) {
        let range: Option<[usize; 2]> = serde_json::from_value(field(entry, "data_offsets")).ok();
        let Some([from, to]) = range else { continue };
        let begin = packed.len();
        packed.extend_from_slice(data.get(from..to).unwrap_or_default());
        entry.insert("data_offsets".into(), vec![begin, packed.len()].into());
    }
    *data = packed;
}
