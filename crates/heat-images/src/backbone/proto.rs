//! The part of ONNX's protobuf messages that is read and added to, under the
//! field numbers of the standard (onnx.proto, IR version 3 and later).

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset: Vec<Opset>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Opset {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, tag = "2")]
    pub f: f32,
    #[prost(int64, tag = "3")]
    pub i: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<Tensor>,
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Packed, as they are in the file: halves and bytes have three each.
    #[prost(bytes = "vec", tag = "5")]
    pub int32_data: Vec<u8>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    pub double_data: Vec<u8>,
    /// Which part of which file, where the values are in another.
    #[prost(message, repeated, tag = "13")]
    pub external: Vec<Entry>,
    /// 1: the values are in another file.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// Values of a tensor: in single precision, or as integers where they are
/// sizes and positions.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

/// A key and its value.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    #[prost(int32, tag = "1")]
    pub element: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dim {
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
}

/// What the names of outputs added to a graph begin with.
pub const ADDED: &str = "heat_pooled_";

/// Numbers of the fields that hold a model's graph, and a graph's nodes, inputs and outputs.
pub const GRAPH: u64 = 7;
pub const NODE: u64 = 1;
pub const INPUT: u64 = 11;
pub const OUTPUT: u64 = 12;

/// Element types.
pub const FLOAT: i32 = 1;
pub const UINT8: i32 = 2;
pub const INT8: i32 = 3;
pub const UINT16: i32 = 4;
pub const INT16: i32 = 5;
pub const INT32: i32 = 6;
pub const INT64: i32 = 7;
pub const BOOL: i32 = 9;
pub const FLOAT16: i32 = 10;
pub const DOUBLE: i32 = 11;
pub const BFLOAT16: i32 = 16;

impl Attribute {
    pub fn int(name: &str, i: i64) -> Self {
        Attribute { name: name.into(), i, kind: 2, ..Attribute::default() }
    }

    pub fn text(name: &str, s: &str) -> Self {
        Attribute { name: name.into(), s: s.into(), kind: 3, ..Attribute::default() }
    }

    pub fn tensor(name: &str, t: Tensor) -> Self {
        Attribute { name: name.into(), t: Some(t), kind: 4, ..Attribute::default() }
    }

    pub fn ints(name: &str, values: &[usize]) -> Self {
        let ints = values.iter().map(|&v| v as i64).collect();
        Attribute { name: name.into(), ints, kind: 7, ..Attribute::default() }
    }
}

impl Node {
    /// A node of one output, which also names it.
    pub fn new(op: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> Self {
        Node {
            input: inputs.iter().map(|s| s.to_string()).collect(),
            output: vec![output.into()],
            name: output.into(),
            op: op.into(),
            attribute,
            domain: String::new(),
        }
    }

    /// Whether it is one of ONNX's own operators.
    pub fn is_standard(&self) -> bool {
        self.domain.is_empty() || self.domain == "ai.onnx"
    }

    /// Whether it computes with eight bits, its scales within.
    pub fn is_quantised(&self) -> bool {
        self.op.starts_with("QLinear") || self.op == "QGemm"
    }

    pub fn constant(tensor: Tensor, output: &str) -> Self {
        Node::new("Constant", &[], output, vec![Attribute::tensor("value", tensor)])
    }

    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attribute.iter().find(|a| a.name == name)
    }

    /// An integer attribute, or what it is where it is absent.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    /// A list of sizes, or `default` for each of `n`; `None` where one is
    /// negative or there are not `n`.
    pub fn sizes(&self, name: &str, n: usize, default: usize) -> Option<Vec<usize>> {
        match self.attribute(name) {
            None => Some(vec![default; n]),
            Some(a) if a.ints.len() == n => {
                a.ints.iter().map(|&v| usize::try_from(v).ok()).collect()
            }
            Some(_) => None,
        }
    }
}

impl Tensor {
    /// Single-precision values of that shape.
    pub fn of_floats(name: &str, dims: &[usize], values: &[f32]) -> Self {
        let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let dims = dims.iter().map(|&d| d as i64).collect();
        Tensor { name: name.into(), dims, data_type: FLOAT, raw_data, ..Tensor::default() }
    }

    /// A list of integers.
    pub fn of_ints(name: &str, values: &[i64]) -> Self {
        let dims = vec![values.len() as i64];
        let (name, int64_data) = (name.into(), values.to_vec());
        Tensor { name, dims, data_type: INT64, int64_data, ..Tensor::default() }
    }

    /// The shape, if it has no negative size.
    pub fn shape(&self) -> Option<Vec<usize>> {
        self.dims.iter().map(|&d| usize::try_from(d).ok()).collect()
    }

    /// How many values its shape has.
    pub fn count(&self) -> Option<usize> {
        self.shape()?.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
    }

    /// Its values, of any type that weights have; integers of 32 bits and more
    /// as integers.
    pub fn values(&self) -> Option<Values> {
        if self.data_location != 0 {
            return None;
        }
        let raw = &self.raw_data[..];
        let floats = |values: Vec<f32>| Some(Values::Floats(values));
        let small = |read: fn(u8) -> f32| {
            let stored = varints(&self.int32_data)?;
            let bytes = stored.into_iter().map(|v| read(v as u8));
            floats(raw.iter().map(|b| read(*b)).chain(bytes).collect())
        };
        let short = |read: fn(u16) -> f32| {
            let stored = varints(&self.int32_data)?;
            let words = raw.as_chunks::<2>().0.iter().map(|w| u16::from_le_bytes(*w));
            floats(words.chain(stored.into_iter().map(|v| v as u16)).map(read).collect())
        };
        match self.data_type {
            FLOAT => {
                let words = raw.as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w));
                floats(words.chain(self.float_data.iter().copied()).collect())
            }
            DOUBLE => {
                let words = raw.as_chunks::<8>().0.iter();
                let words = words.chain(self.double_data.as_chunks::<8>().0);
                floats(words.map(|w| f64::from_le_bytes(*w) as f32).collect())
            }
            FLOAT16 => short(|w| half::f16::from_bits(w).to_f32()),
            BFLOAT16 => short(|w| half::bf16::from_bits(w).to_f32()),
            UINT16 => short(f32::from),
            INT16 => short(|w| f32::from(w.cast_signed())),
            UINT8 | BOOL => small(f32::from),
            INT8 => small(|b| f32::from(b.cast_signed())),
            INT32 => {
                let words = raw.as_chunks::<4>().0.iter().map(|w| i32::from_le_bytes(*w));
                let stored = varints(&self.int32_data)?.into_iter().map(|v| v as i32);
                Some(Values::Ints(words.chain(stored).map(i64::from).collect()))
            }
            INT64 => {
                let words = raw.as_chunks::<8>().0.iter().map(|w| i64::from_le_bytes(*w));
                Some(Values::Ints(words.chain(self.int64_data.iter().copied()).collect()))
            }
            _ => None,
        }
    }

    /// Values in single precision.
    pub fn floats(&self) -> Option<Vec<f32>> {
        match self.values()? {
            Values::Floats(values) if self.data_type == FLOAT => Some(values),
            _ => None,
        }
    }
}

/// Packed numbers of any length.
fn varints(mut rest: &[u8]) -> Option<Vec<u64>> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        all.push(varint(&mut rest)?);
    }
    Some(all)
}

/// The number at the beginning of `rest`, which is taken off.
pub fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The next field of a message, which is taken off: its key, and its body where it has a length.
pub fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let key = varint(rest)?;
    let length = match key & 7 {
        0 => {
            varint(rest)?;
            return Some((key, None));
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (body, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((key, (key & 7 == 2).then_some(body)))
}

impl Value {
    /// A single-precision tensor; `dims` are sizes or names of free ones.
    pub fn floats(name: &str, dims: Option<&[Result<usize, &str>]>) -> Self {
        let dim = |d: &Result<usize, &str>| match d {
            Ok(size) => Dim { value: Some(*size as i64), name: None },
            Err(free) => Dim { value: None, name: Some(free.to_string()) },
        };
        let shape = dims.map(|dims| Shape { dim: dims.iter().map(dim).collect() });
        let tensor = TensorType { element: FLOAT, shape };
        Value { name: name.into(), kind: Some(Type { tensor: Some(tensor) }) }
    }
}
