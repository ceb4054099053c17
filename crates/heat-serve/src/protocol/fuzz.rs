//! Damaged bodies given to the reader of requests: no panic, no hang, no more memory than the body
//! is worth, and whatever is taken says what its bytes say.
//!
//! A short, deterministic run, as in `heat-ood/tests/fuzz`; `HEAT_FUZZ_ROUNDS` makes it longer.

#[path = "../../../heat-ood/tests/fuzz/mutate.rs"]
pub mod mutate;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use self::mutate::{Random, mutate};
use super::{Contents, Given, Input, Request, Setting, Values, parameters, parse, raw, tensor};
use crate::refusal::{Kind, Refusal, Result};

/// Hands everything to the system's allocator, and counts what this thread holds: other tests run
/// beside these.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let now = NOW.get() + bytes;
    NOW.set(now);
    MOST.set(MOST.get().max(now));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `f` gives, and how many bytes it held at once beyond what was held before.
pub fn counted<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    MOST.set(before);
    let given = f();
    (given, usize::try_from(MOST.get() - before).unwrap())
}

/// Bytes that any body may take, however small: messages, lists that grow.
pub const FLOOR: usize = 64 << 10;

/// Far more than any of these bodies takes.
const HANG: Duration = Duration::from_secs(2);

/// What `f` takes, at best: others on the machine may take its time from it.
fn at_best(f: impl Fn()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..4 {
        let began = Instant::now();
        f();
        best = best.min(began.elapsed());
        if best < HANG {
            break;
        }
    }
    best
}

/// A body, and how many of its bytes are JSON where a header says so.
struct Sent {
    json: Option<usize>,
    body: Vec<u8>,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} b\"{}\"", self.json, self.body.escape_ascii())
    }
}

impl Sent {
    fn text(body: impl Into<Vec<u8>>) -> Self {
        Sent { json: None, body: body.into() }
    }

    fn binary(head: &Value, tail: &[u8]) -> Self {
        let head = head.to_string().into_bytes();
        Sent { json: Some(head.len()), body: [&head, tail].concat() }
    }

    /// What is JSON, and what is after it.
    fn parts(&self) -> (&[u8], &[u8]) {
        self.body.split_at(self.json.unwrap_or(self.body.len()).min(self.body.len()))
    }
}

fn floats(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32 - 1.5).to_le_bytes()).collect()
}

/// Sound bodies of every kind.
fn seeds() -> Vec<Sent> {
    let flat = json!({
        "id": "seven",
        "inputs": [{"name": "avg", "shape": [2, 3], "datatype": "FP32",
                    "data": [0.25, -1.5, 3e-3, 4, 5.0, -6]}],
        "parameters": {"alpha": 0.05, "timeout": 250_000, "binary_data_output": true,
                       "priority": 0, "sequence_id": 0},
        "outputs": [{"name": "score"}, {"name": "p_value", "parameters": {"binary_data": false}}],
    });
    let nested = json!({"inputs": [
        {"name": "avg", "shape": [2, 2], "datatype": "FP64", "data": [[1, 2.5], [-3, 0.125]]},
        {"name": "std", "shape": [2, 1], "datatype": "FP32", "data": [[1e-30], [1e30]]},
    ]});
    let pixels = json!({"inputs": [
        {"name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8",
         "data": [[[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 255]]]]},
        {"name": "flat", "shape": [1, 2, 3], "datatype": "UINT8", "data": [1, 2, 3, 4, 5, 6]},
    ]});
    let files = json!({"inputs": [{"name": "image_bytes", "shape": [3], "datatype": "BYTES",
                                   "data": ["iVBORw0KGgo=", "", "YWJj"]}]});
    let spaced = " {\n\"inputs\" : [ {\"data\" :[ [ 1 , -2.5e-1 ] ,\r\n[3E2, 0.0]] , \"extra\":[{}],\
                  \"datatype\": \"FP32\",\"shape\":[2, 2],\"name\":\"\\u0061vg \\\"\\ud83d\\ude00\"} ] }\t";
    let one = |name: &str, datatype: &str, shape: &[usize], size: usize| {
        json!({"name": name, "shape": shape, "datatype": datatype,
               "parameters": {"binary_data_size": size}})
    };
    let every = json!({
        "inputs": [
            one("avg", "FP32", &[2, 2], 16),
            one("std", "FP64", &[2, 1], 16),
            one("max", "FP16", &[2, 2], 8),
            one("logits", "BF16", &[2, 1], 4),
            one("image", "UINT8", &[1, 1, 2, 3], 6),
            one("image_bytes", "BYTES", &[2], 12),
        ],
        "outputs": [{"name": "score", "parameters": {"binary_data": true}}, {"name": "is_ood"}],
    });
    let doubles: Vec<u8> = [0.5f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let halves = [0x00, 0x3e, 0x00, 0xc0, 0x01, 0x00, 0xff, 0x7b];
    let rest = [0x80, 0x3f, 0x20, 0xc0, 9, 8, 7, 6, 5, 4, 3, 0, 0, 0, b'a', b'b', b'c', 1, 0, 0, 0];
    let every_tail = [&floats(4)[..], &doubles, &halves, &rest, b"z"].concat();
    let mixed = json!({"inputs": [
        one("avg", "FP32", &[3, 2], 24),
        {"name": "label", "shape": [3], "datatype": "FP64", "data": [1, 2, 3]},
        one("std", "FP32", &[3, 1], 12),
    ], "parameters": {"binary_data_output": true}});
    vec![
        Sent::text(flat.to_string()),
        Sent::text(nested.to_string()),
        Sent::text(pixels.to_string()),
        Sent::text(files.to_string()),
        Sent::text(spaced),
        Sent::binary(&every, &every_tail),
        Sent::binary(&mixed, &floats(9)),
        Sent::binary(&json!({"inputs": [one("avg", "FP32", &[4, 8], 128)]}), &floats(32)),
        Sent::binary(&flat, b""),
    ]
}

/// Numbers at which something overflows, is empty, or is none.
const NUMBERS: [&str; 26] = [
    "-1",
    "0",
    "1",
    "2",
    "3",
    "4",
    "6",
    "255",
    "256",
    "-0",
    "1.0",
    "65536",
    "2147483648",
    "4294967296",
    "4611686018427387904",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "1e999",
    "-1e999",
    "3.5e38",
    "1e-999",
    "0.00000000000000000000000000000000000000000000000000000000001e58",
    "NaN",
    "Infinity",
    "+1",
];

/// Words of the protocol, and others where these are expected.
const WORDS: [&str; 32] = [
    "FP32",
    "FP64",
    "FP16",
    "BF16",
    "UINT8",
    "BYTES",
    "INT64",
    "BOOL",
    "fp32",
    "avg",
    "std",
    "image",
    "",
    "inputs",
    "outputs",
    "parameters",
    "name",
    "shape",
    "datatype",
    "data",
    "id",
    "binary_data_size",
    "binary_data",
    "binary_data_output",
    "alpha",
    "timeout",
    "sequence_id",
    "classification",
    "shared_memory_region",
    "YQ==",
    "!",
    "\\u0000\\ud800",
];

/// Values in the place of others.
const OTHERS: [&str; 9] = ["null", "true", "{}", "[]", "\"\"", "[[]]", "[null]", "{\"a\":1}", "1"];

fn pick<T: Copy>(from: &[T], random: &mut Random) -> T {
    from[random.below(from.len())]
}

/// Runs of bytes of a kind.
fn runs(text: &[u8], is_part: impl Fn(u8) -> bool) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for at in (0..text.len()).filter(|at| is_part(text[*at])) {
        match found.last_mut() {
            Some(last) if last.end == at => last.end = at + 1,
            _ => found.push(at..at + 1),
        }
    }
    found
}

/// The array or object that begins there, or what is left.
fn tree(text: &[u8], start: usize) -> Range<usize> {
    let mut depth = 0usize;
    for (at, byte) in text.iter().enumerate().skip(start) {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return start..at + 1;
        }
    }
    start..text.len()
}

/// Another number, word, bracket or part, so that most of it stays JSON.
fn structure(text: &mut Vec<u8>, random: &mut Random) {
    let kind = random.below(8);
    let places = match kind {
        0..=2 => runs(text, |b| b.is_ascii_digit() || b"+-.eE".contains(&b)),
        3 => runs(text, |b| b.is_ascii_alphanumeric() || b == b'_'),
        4 => (0..text.len()).filter(|i| b"[]{}".contains(&text[*i])).map(|i| i..i + 1).collect(),
        5 => runs(text, |b| b == b','),
        _ => (0..text.len()).filter(|i| b"[{".contains(&text[*i])).map(|i| tree(text, i)).collect(),
    };
    if places.is_empty() {
        return;
    }
    let place = places[random.below(places.len())].clone();
    let own = text[place.clone()].to_vec();
    let with = match kind {
        0..=2 => pick(&NUMBERS, random).into(),
        3 => pick(&WORDS, random).into(),
        // Doubled, gone, or another.
        4 => match random.below(3) {
            0 => [own.clone(), own].concat(),
            1 => Vec::new(),
            _ => vec![pick(b"[]{}", random)],
        },
        5 => pick(&[",1,", ":", " ", ",,", ",null,"], random).into(),
        // A part twice, or another in its place.
        6 => [&own[..], b",", &own].concat(),
        _ => pick(&OTHERS, random).into(),
    };
    text.splice(place, with);
}

/// `seed` damaged in one to three places.
fn damage(seed: &Sent, other: &Sent, random: &mut Random) -> Sent {
    let (mut head, mut tail) = (seed.parts().0.to_vec(), seed.parts().1.to_vec());
    let mut json = seed.json.map(|_| 0isize);
    for _ in 0..=random.below(3) {
        match random.below(12) {
            0..=6 => structure(&mut head, random),
            7 => head = mutate(&head, other.parts().0, random),
            8 | 9 => tail = mutate(&tail, other.parts().1, random),
            10 => match random.below(3) {
                0 => tail.extend_from_slice(&floats(random.below(8))),
                1 => tail.truncate(random.below(tail.len() + 1)),
                _ => drop(tail.drain(..random.below(tail.len().min(9)))),
            },
            // The header is wrong, new, or absent.
            _ => {
                let off = pick(&[-8, -4, -1, 1, 4, 8, 1 << 40, isize::MIN], random);
                json = if random.below(4) == 0 { None } else { Some(off) };
            }
        }
    }
    let length = |off: isize| usize::try_from(head.len() as isize + off).unwrap_or(0);
    let json = json.map(|off| if off == isize::MIN { usize::MAX } else { length(off) });
    Sent { json, body: [head, tail].concat() }
}

/// How many values a tensor has, all of them sound.
pub fn sound(input: &Input) -> usize {
    let count = match &input.values {
        Values::Floats(v) => {
            assert!(v.iter().all(|v| v.is_finite()), "{v:?}");
            v.len()
        }
        Values::Bytes(v) => v.len(),
        Values::Texts(v) => v.len(),
    };
    assert!(!input.shape.contains(&0) && !input.shape.is_empty());
    let total = input.shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
    assert_eq!(Some(count), total, "{:?}", input.shape);
    count
}

/// Bytes of the values themselves.
pub fn size(input: &Input) -> usize {
    match &input.values {
        Values::Floats(v) => 4 * v.len(),
        Values::Bytes(v) => v.len(),
        Values::Texts(v) => v.iter().map(Vec::len).sum(),
    }
}

/// The values of an array of that shape, nested or flat, in their order.
fn leaves<'a>(data: &'a Value, shape: &[usize]) -> Vec<&'a Value> {
    fn walk<'a>(data: &'a Value, shape: &[usize], out: &mut Vec<&'a Value>) {
        match shape.split_first() {
            None => out.push(data),
            Some((side, inner)) => {
                let all = data.as_array().expect("an array");
                assert_eq!(all.len(), *side);
                all.iter().for_each(|data| walk(data, inner, out));
            }
        }
    }
    let mut out = Vec::new();
    let all = data.as_array().expect("an array");
    match all.iter().any(Value::is_array) {
        true => walk(data, shape, &mut out),
        false => out.extend(all),
    }
    out
}

/// The distance of two numbers in steps of single precision.
fn steps(a: f32, b: f32) -> u32 {
    let order = |v: f32| match v.to_bits() as i32 {
        bits if bits < 0 => i64::from(i32::MIN) - i64::from(bits),
        bits => i64::from(bits),
    };
    u32::try_from((order(a) - order(b)).unsigned_abs()).unwrap_or(u32::MAX)
}

/// Compare what was taken with what another reader makes of the same bytes.
fn compare(sent: &Sent, request: &Request) {
    let (head, mut tail) = sent.parts();
    // What it does not read may be beyond what the other takes.
    let Ok(whole) = serde_json::from_slice::<Value>(head) else { return };
    let given = whole["inputs"].as_array().unwrap();
    assert_eq!(given.len(), request.inputs.len());
    for (given, input) in given.iter().zip(&request.inputs) {
        assert_eq!(given["name"], input.name.as_str());
        assert_eq!(given["shape"], json!(input.shape));
        let kind = given["datatype"].as_str().unwrap();
        let size = given["parameters"]["binary_data_size"].as_u64();
        let Some(size) = size else {
            let leaves = leaves(&given["data"], &input.shape);
            assert_eq!(leaves.len(), sound(input));
            for (i, leaf) in leaves.into_iter().enumerate() {
                match &input.values {
                    // Rounded twice, it may be one step away.
                    Values::Floats(v) => assert!(steps(v[i], leaf.as_f64().unwrap() as f32) <= 1),
                    Values::Bytes(v) => assert_eq!(leaf.as_u64(), Some(u64::from(v[i]))),
                    Values::Texts(v) => {
                        assert_eq!(STANDARD.decode(leaf.as_str().unwrap()).unwrap(), v[i]);
                    }
                }
            }
            continue;
        };
        let (own, after) = tail.split_at(size as usize);
        tail = after;
        let floats = |each: usize, of: &dyn Fn(&[u8]) -> f32| {
            Values::Floats(own.chunks(each).map(of).collect())
        };
        let wanted = match kind {
            "FP32" => floats(4, &|b| f32::from_le_bytes(b.try_into().unwrap())),
            "FP64" => floats(8, &|b| f64::from_le_bytes(b.try_into().unwrap()) as f32),
            "UINT8" => Values::Bytes(own.to_vec()),
            "FP16" => floats(2, &|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()),
            "BF16" => floats(2, &|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32()),
            _ => {
                let Values::Texts(texts) = &input.values else { panic!("{kind}") };
                let with_length =
                    |text: &Vec<u8>| [&(text.len() as u32).to_le_bytes()[..], text].concat();
                assert_eq!(texts.iter().flat_map(with_length).collect::<Vec<u8>>(), own);
                continue;
            }
        };
        assert_eq!(input.values, wanted);
    }
    assert!(tail.is_empty());
    let id = whole["id"].as_str().filter(|id| !id.is_empty());
    assert_eq!(request.id.as_deref(), id);
}

/// A text for the client: one line, and short, whatever was sent.
pub fn check_refusal(refused: &Refusal) {
    let message = refused.message();
    assert!(refused.kind == Kind::Invalid && !message.is_empty());
    // A thousand characters, each of which may be written as an escape.
    assert!(message.len() < 10_000 && !message.contains(char::is_control), "{message}");
}

/// Read a body, as soundly as there is room for it; whether it is a request.
fn check(sent: &Sent) -> bool {
    let mut told = 0;
    let mut reserve = |bytes: usize| {
        told += bytes;
        Ok(())
    };
    let length = sent.body.len();
    let began = Instant::now();
    let (read, most) = counted(|| parse(&sent.body, sent.json, &mut reserve));
    if began.elapsed() > HANG {
        let took = at_best(|| drop(parse(&sent.body, sent.json, &mut |_| Ok(()))));
        assert!(took < HANG, "took {took:?}");
    }
    // Strings take most: three bytes of text can be one, whose place alone takes 24; with escapes they
    // are written out first.
    let strings = sent.body.windows(5).any(|word| word == b"BYTES");
    let most_told = if strings { 11 * length + 24 } else { 4 * length };
    assert!(told <= most_told, "{told} bytes asked for, for {length}");
    assert!(most <= FLOOR + told + 2 * length, "{most} bytes held, {told} asked for, for {length}");
    let request = match read {
        Ok(request) => request,
        Err(refused) => {
            check_refusal(&refused);
            return false;
        }
    };
    assert!(request.inputs.iter().map(size).sum::<usize>() <= told);
    for (i, input) in request.inputs.iter().enumerate() {
        sound(input);
        assert!(request.inputs[..i].iter().all(|other| other.name != input.name));
    }
    assert!(request.id.as_ref().is_none_or(|id| (1..=256).contains(&id.len())));
    let said = &request.parameters;
    assert!(said.alpha.is_none_or(|alpha| alpha > 0.0 && alpha < 1.0) && said.timeout != Some(0));
    compare(sent, &request);
    // Without the last byte of what it takes there is no room.
    let mut left = told - 1;
    let mut full = |bytes: usize| match left.checked_sub(bytes) {
        Some(rest) => {
            left = rest;
            Ok(())
        }
        None => Err(Refusal::new(Kind::Busy, "full")),
    };
    assert_eq!(parse(&sent.body, sent.json, &mut full).unwrap_err().kind, Kind::Busy);
    true
}

/// A whole body of one tensor: taken if it is rows of finite numbers, and only then.
fn check_raw(body: &[u8], dim: usize) -> bool {
    let mut told = 0;
    let mut reserve = |bytes: usize| {
        told += bytes;
        Ok(())
    };
    let (read, most) = counted(|| raw(body, "avg", dim, &mut reserve));
    assert!(told <= body.len() && most <= FLOOR + 2 * body.len(), "{told} {most}");
    let values: Vec<f32> =
        body.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
    let whole = !body.is_empty() && body.len().is_multiple_of(4 * dim);
    match read {
        Ok(request) => {
            let [input] = &request.inputs[..] else { panic!("one tensor") };
            assert_eq!((input.shape[1], sound(input)), (dim, values.len()));
            assert_eq!(input.values, Values::Floats(values));
            true
        }
        Err(refused) => {
            check_refusal(&refused);
            assert!(!whole || values.iter().any(|v| !v.is_finite()));
            false
        }
    }
}

/// Check what is made of one random seed after another.
pub fn fuzz<T: fmt::Debug>(
    rounds: u64,
    make: impl Fn(&mut Random) -> T,
    check: impl Fn(&T) -> bool,
) {
    let more = std::env::var("HEAT_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok());
    let rounds = more.unwrap_or(rounds);
    let mut taken = 0;
    for i in 0..rounds {
        let input = make(&mut Random(i));
        match catch_unwind(AssertUnwindSafe(|| check(&input))) {
            Ok(is_taken) => taken += u64::from(is_taken),
            Err(_) => panic!("round {i}: {input:?}"),
        }
    }
    // Neither all sound nor all broken: else it would test little.
    assert!(taken > rounds / 50 && taken < rounds, "{taken} of {rounds} were taken");
    eprintln!("{taken} of {rounds} were taken");
}

#[test]
fn bodies() {
    let seeds = seeds();
    for seed in &seeds {
        assert!(check(seed), "{seed:?}");
    }
    let make = |random: &mut Random| {
        let [seed, other] = [0, 1].map(|_| random.below(seeds.len()));
        damage(&seeds[seed], &seeds[other], random)
    };
    fuzz(30_000, make, check);
}

#[test]
fn whole_bodies() {
    let seeds: Vec<Vec<u8>> = [6, 24, 48].map(floats).into();
    let make = |random: &mut Random| {
        let [seed, other] = [0, 1].map(|_| random.below(seeds.len()));
        (mutate(&seeds[seed], &seeds[other], random), pick(&[1, 2, 3, 8, 24], random))
    };
    fuzz(5_000, make, |(body, dim)| check_raw(body, *dim));
}

/// Tensors as gRPC gives them: a shape, a word, and values or bytes.
#[test]
fn tensors() {
    const SIDES: [i64; 12] = [-1, 0, 1, 1, 2, 2, 3, 4, 1 << 32, 1 << 62, i64::MAX, i64::MIN];
    const KINDS: [&str; 8] = ["FP32", "FP64", "FP16", "BF16", "UINT8", "BYTES", "INT64", ""];
    const FLOATS: [f32; 8] =
        [0.0, 1.0, -2.5, f32::MAX, f32::MIN_POSITIVE, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let make = |random: &mut Random| {
        let shape: Vec<i64> = (0..random.below(4)).map(|_| pick(&SIDES, random)).collect();
        let total = shape.iter().fold(1i64, |n, side| n.wrapping_mul(*side));
        // As many as there should be, or about as many.
        let count = match usize::try_from(total) {
            Ok(n) if n <= 64 => n + random.below(8).saturating_sub(6),
            _ => random.below(5),
        };
        let kind = pick(&KINDS, random);
        let each = match kind {
            "FP64" => 8,
            "FP32" => 4,
            "FP16" | "BF16" => 2,
            _ => 1,
        };
        // Finite ones alone, most often.
        let most = pick(&[5, 5, 5, 8], random);
        let floats: Vec<f32> = (0..count).map(|_| FLOATS[random.below(most)]).collect();
        let bytes: Vec<u8> = (0..count * each).map(|_| random.below(128) as u8).collect();
        (shape, kind, random.below(4), floats, bytes)
    };
    fuzz(20_000, make, |(shape, kind, which, floats, bytes)| {
        let contents = match which {
            0 => Contents::Values(Values::Floats(floats.clone())),
            1 => Contents::Values(Values::Bytes(bytes.clone())),
            2 => Contents::Values(Values::Texts(bytes.iter().map(|b| vec![*b; 3]).collect())),
            _ => Contents::Raw(bytes),
        };
        let mut reserve = |_| -> Result<()> { Ok(()) };
        let read = || tensor("x".into(), shape, kind, contents, &mut reserve);
        let (read, most) = counted(read);
        assert!(most <= FLOOR + 8 * bytes.len(), "{most}");
        match read {
            Ok(input) => sound(&input) > 0,
            Err(refused) => {
                check_refusal(&refused);
                false
            }
        }
    });
}

/// Parameters of either protocol.
#[test]
fn parameters_of_requests() {
    const KEYS: [&str; 8] = [
        "alpha",
        "timeout",
        "binary_data_output",
        "sequence_id",
        "sequence_start",
        "shared_memory_region",
        "priority",
        "",
    ];
    const NUMBERS: [f64; 7] = [-0.0, 5e-324, 0.05, 0.5, 0.999, 1.0, 1e308];
    let make = |random: &mut Random| {
        let mut value = || match random.below(12) {
            0 | 1 => Setting::Flag(random.below(2) == 0),
            2 => Setting::Number(pick(&[i64::MIN, -1, 0, 1, i64::MAX], random).into()),
            3 => Setting::Number(u64::MAX.into()),
            4 => Setting::Text(String::new()),
            5 => Setting::Text("0.5".into()),
            6 => Setting::Other,
            _ => Setting::Number(serde_json::Number::from_f64(pick(&NUMBERS, random)).unwrap()),
        };
        let values = [value(), value(), value()];
        let mut given = Given::default();
        for value in values {
            if let Some(key) = Given::known(pick(&KEYS, random)) {
                // One that is there already stays as it is.
                let _ = given.set(key, value);
            }
        }
        given
    };
    fuzz(5_000, make, |given| match parameters(given) {
        Ok(said) => {
            assert!(said.alpha.is_none_or(|alpha| alpha > 0.0 && alpha < 1.0));
            assert!(said.timeout != Some(0));
            true
        }
        Err(refused) => {
            check_refusal(&refused);
            false
        }
    });
}

/// A body of about that size that is tensors of one number.
fn many_inputs(size: usize) -> Sent {
    let one = |i: usize| format!(r#"{{"name":"{i}","shape":[1],"datatype":"UINT8","data":[1]}}"#);
    Sent::text(format!(r#"{{"inputs":[{}]}}"#, numbered(size, one)))
}

/// Parts with a number each, of about that size together.
fn numbered(size: usize, part: impl Fn(usize) -> String) -> String {
    let mut out = part(0);
    for i in 1.. {
        if out.len() >= size {
            break;
        }
        out.push(',');
        out.push_str(&part(i));
    }
    out
}

/// Bodies of about that size whose bytes are worth more than others: small parts, many times.
fn bombs(size: usize) -> Vec<(&'static str, Sent)> {
    let repeated = |part: &str| part.repeat(size / part.len());
    let list = |part: &str| repeated(part).trim_end_matches(',').to_owned();
    let one = r#"{"name":"avg","shape":[1,1],"datatype":"FP32","data":[1]}"#;
    let with = |more: String| Sent::text(format!(r#"{{"inputs":[{one}],{more}}}"#));
    let input = |shape: String, kind: &str, data: String| {
        let head = format!(r#"{{"name":"x","shape":[{shape}],"datatype":"{kind}","data":{data}}}"#);
        Sent::text(format!(r#"{{"inputs":[{head}]}}"#))
    };
    let binary = |shape: usize, kind: &str, tail: Vec<u8>| {
        let parameters = json!({"binary_data_size": tail.len()});
        let head =
            json!({"name": "x", "shape": [shape], "datatype": kind, "parameters": parameters});
        Sent::binary(&json!({"inputs": [head]}), &tail)
    };
    let array = |part: &str| format!("[{}]", list(part));
    let deep = || format!("{}{}", "[".repeat(size / 2), "]".repeat(size / 2));
    vec![
        ("numbers", input((size / 2).to_string(), "FP32", array("1,"))),
        ("pixels", input((size / 2).to_string(), "UINT8", array("1,"))),
        ("empty strings", input((size / 3).to_string(), "BYTES", array("\"\","))),
        ("short strings", input((size / 7).to_string(), "BYTES", array("\"YQ==\","))),
        ("more strings claimed", input("9000000000".into(), "BYTES", array("\"\","))),
        ("empty strings as bytes", binary(size / 4, "BYTES", vec![0; size / 4 * 4])),
        ("short strings as bytes", binary(size / 5, "BYTES", [1, 0, 0, 0, 7].repeat(size / 5))),
        ("half precision", binary(size / 2, "FP16", vec![0; size / 2 * 2])),
        ("a long shape", input(list("1,"), "FP32", "[1]".into())),
        ("a long shape of zeros", input(list("0,"), "FP32", "[1]".into())),
        ("arrays in arrays", input("1,1".into(), "FP32", deep())),
        ("a long number", input("1".into(), "FP32", format!("[0.{}1]", repeated("0")))),
        ("a long string", input("1".into(), "BYTES", format!("[\"{}\"]", repeated("YWJj")))),
        (
            "a long escaped string",
            input("1".into(), "BYTES", format!("[\"{}\"]", repeated("\\u0041"))),
        ),
        ("a long name", Sent::text(one.replace("avg", &repeated("x")))),
        ("many inputs", many_inputs(size)),
        (
            "inputs of one name",
            Sent::text(format!(r#"{{"inputs":[{}]}}"#, list(&format!("{one},")))),
        ),
        ("many outputs", with(format!(r#""outputs":{}"#, array(r#"{"name":""},"#)))),
        ("an array as parameter", with(format!(r#""parameters":{{"x":{}}}"#, array("0,")))),
        (
            "many parameters",
            with(format!(r#""parameters":{{{}}}"#, numbered(size, |i| format!("\"{i}\":0")))),
        ),
        ("objects as parameters", with(format!(r#""parameters":{{"x":{}}}"#, array(r#"{"":0},"#)))),
        ("an array beside", with(format!(r#""x":{}"#, array("0,")))),
        ("a long id", with(format!(r#""id":"{}""#, repeated("x")))),
        ("no request", Sent::text(repeated("["))),
        // Quoted, each of these characters takes six bytes.
        ("a string", Sent::text(format!("\"{}\"", repeated("\u{7f}")))),
        ("a string with escapes", Sent::text(format!("\"{}\"", repeated("\\u007f")))),
        ("a string for inputs", Sent::text(format!(r#"{{"inputs":"{}"}}"#, repeated("\u{7f}")))),
        (
            "a string for an input",
            Sent::text(format!(r#"{{"inputs":["{}"]}}"#, repeated("\u{7f}"))),
        ),
        ("a string for parameters", with(format!(r#""parameters":"{}""#, repeated("\u{7f}")))),
        (
            "a string for a shape",
            Sent::text(one.replace("[1,1]", &format!("\"{}\"", repeated("\u{7f}")))),
        ),
    ]
}

/// No part of a body, however often it stands there, takes more memory or time than the body's
/// length is worth.
#[test]
fn many_small_parts() {
    let mut failed = Vec::new();
    for (name, sent) in bombs(1 << 18) {
        let length = sent.body.len();
        let mut told = 0;
        let mut reserve = |bytes: usize| {
            told += bytes;
            Ok(())
        };
        let (read, most) = counted(|| parse(&sent.body, sent.json, &mut reserve).map(drop));
        let took = at_best(|| drop(parse(&sent.body, sent.json, &mut |_| Ok(()))));
        let end = if read.is_ok() { "taken" } else { "refused" };
        let times = most as f64 / length as f64;
        let line = format!(
            "{name}: {length} bytes, {told} asked for, {times:.1} times as many held, {took:?}, {end}"
        );
        eprintln!("{line}");
        if most > FLOOR + told + 2 * length || took > HANG {
            failed.push(line);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Names are compared with those before them, of which there are few.
#[test]
fn many_inputs_end_in_time() {
    let sent = many_inputs(4 << 20);
    let took = at_best(|| drop(parse(&sent.body, sent.json, &mut |_| Ok(()))));
    assert!(took < HANG, "{took:?}");
}
