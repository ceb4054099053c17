//! From a body to tensors.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Datatype, numbers};
use crate::refusal::{Refusal, Result};

/// Longest id that is taken, in bytes; it is echoed.
const LONGEST_ID: usize = 256;

/// What a client asks for.
#[derive(Debug, Default)]
pub struct Request {
    /// Its own name for it.
    pub id: Option<String>,
    /// What else it says.
    pub parameters: Parameters,
    /// The tensors, each once.
    pub inputs: Vec<Input>,
    /// The outputs asked for, if it says which.
    pub outputs: Option<Vec<Asked>>,
}

/// What a request says besides its tensors.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Parameters {
    /// The rate that verdicts are decided at.
    pub alpha: Option<f64>,
    /// How long the answer may take, in microseconds.
    pub timeout: Option<u64>,
    /// Whether outputs are bytes, where they do not say so themselves.
    pub binary: bool,
}

/// A tensor of a request.
#[derive(Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its shape; no side is 0.
    pub shape: Vec<usize>,
    /// Its values, as many as the shape says.
    pub values: Values,
}

/// Values of a tensor.
#[derive(Debug, PartialEq)]
pub enum Values {
    /// Numbers.
    Floats(Vec<f32>),
    /// Bytes, such as pixels.
    Bytes(Vec<u8>),
    /// Strings of bytes, such as image files.
    Texts(Vec<Vec<u8>>),
}

/// An output that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// Whether as bytes.
    pub binary: bool,
}

/// The JSON of a body. Unknown keys are let pass: clients send some of their own.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    #[serde(borrow)]
    inputs: Vec<Tensor<'a>>,
    #[serde(default)]
    outputs: Option<Vec<Output>>,
}

#[derive(Deserialize)]
struct Tensor<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
}

/// Read a body whose first `json` bytes are JSON, or all of it. `reserve` is told how many bytes
/// the values will take before they are read.
///
/// # Errors
/// If it is no request, or its tensors contradict what is said of them.
pub fn parse(
    body: &[u8],
    json: Option<usize>,
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Request> {
    let (text, mut rest) = match json {
        None => (body, &[][..]),
        Some(length) => body.split_at_checked(length).ok_or_else(|| {
            Refusal::invalid(format!(
                "Inference-Header-Content-Length is {length}, and the body has {} bytes",
                body.len()
            ))
        })?,
    };
    if text.is_empty() {
        return Err(Refusal::invalid("the body is empty, expected a JSON object with `inputs`"));
    }
    let body: Body<'_> = serde_json::from_slice(text).map_err(|error| {
        let hint = match error.is_syntax() {
            true => " (NaN and Infinity are no JSON)",
            false => "",
        };
        Refusal::invalid(format!("the body is not a request: {error}{hint}"))
    })?;
    let id = body.id.filter(|id| !id.is_empty());
    if id.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
        return Err(Refusal::invalid(format!("`id` is longer than {LONGEST_ID} bytes")));
    }
    if body.inputs.is_empty() {
        return Err(Refusal::invalid("`inputs` is empty"));
    }
    let mut inputs: Vec<Input> = Vec::with_capacity(body.inputs.len());
    for tensor in body.inputs {
        if inputs.iter().any(|input| input.name == tensor.name) {
            return Err(Refusal::invalid(format!("the input `{}` is given twice", tensor.name)));
        }
        inputs.push(read(tensor, &mut rest, reserve)?);
    }
    if !rest.is_empty() {
        return Err(Refusal::invalid(format!(
            "{} bytes are left after the last tensor",
            rest.len()
        )));
    }
    let parameters = parameters(body.parameters.unwrap_or_default())?;
    let asked = |output: Output| {
        let given = output.parameters.unwrap_or_default();
        if given.contains_key("classification") {
            return Err(unsupported("classification"));
        }
        refuse_shared(&given)?;
        let binary = flag(&given, "binary_data")?.unwrap_or(parameters.binary);
        Ok(Asked { name: output.name, binary })
    };
    // None named: all that are given by default, as with no list.
    let outputs = body.outputs.filter(|outputs| !outputs.is_empty());
    let outputs = outputs.map(|all| all.into_iter().map(asked).collect::<Result<Vec<_>>>());
    let outputs = outputs.transpose()?;
    Ok(Request { id, parameters, inputs, outputs })
}

/// A request whose whole body is the one tensor of a model that reads one: `name`, with rows of
/// `dim` values in single precision.
///
/// # Errors
/// If it is no whole number of rows.
pub fn raw(
    body: &[u8],
    name: &str,
    dim: usize,
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Request> {
    let row = dim * 4;
    if body.is_empty() || !body.len().is_multiple_of(row) {
        return Err(Refusal::invalid(format!(
            "a raw body of {} bytes, expected rows of {dim} values in single precision, {row} \
             bytes each, of `{name}`",
            body.len()
        )));
    }
    reserve(body.len())?;
    let shape = vec![body.len() / row, dim];
    let values = Values::Floats(decode(name, Datatype::Fp32, body, &shape)?);
    let parameters = Parameters { binary: true, ..Parameters::default() };
    let inputs = vec![Input { name: name.to_owned(), shape, values }];
    Ok(Request { parameters, inputs, ..Request::default() })
}

fn unsupported(what: &str) -> Refusal {
    Refusal::invalid(format!("`{what}` is not supported"))
}

fn refuse_shared(given: &Map<String, Value>) -> Result<()> {
    match given.keys().find(|key| key.starts_with("shared_memory")) {
        Some(_) => Err(unsupported("shared memory")),
        None => Ok(()),
    }
}

fn flag(given: &Map<String, Value>, key: &str) -> Result<Option<bool>> {
    match given.get(key) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => {
            Err(Refusal::invalid(format!("the parameter `{key}` is {other}, expected a boolean")))
        }
    }
}

/// What a request says besides its tensors.
///
/// # Errors
/// If a value is none, or asks for what is not supported.
pub fn parameters(given: Map<String, Value>) -> Result<Parameters> {
    refuse_shared(&given)?;
    // 0 and "" say that there is no sequence, as some clients send.
    let sequence = given.get("sequence_id");
    if sequence.is_some_and(|id| id.as_u64() != Some(0) && id.as_str() != Some("")) {
        return Err(unsupported("sequence_id"));
    }
    let wrong = |key: &str, value: &Value, expected: &str| {
        Refusal::invalid(format!("the parameter `{key}` is {value}, expected {expected}"))
    };
    let alpha = given.get("alpha").map(|value| {
        let alpha = value.as_f64().filter(|alpha| *alpha > 0.0 && *alpha < 1.0);
        alpha.ok_or_else(|| wrong("alpha", value, "a number between 0 and 1"))
    });
    let timeout = given.get("timeout").map(|value| {
        let timeout = value.as_u64().filter(|timeout| *timeout > 0);
        timeout.ok_or_else(|| wrong("timeout", value, "a whole number of microseconds above 0"))
    });
    Ok(Parameters {
        alpha: alpha.transpose()?,
        timeout: timeout.transpose()?,
        binary: flag(&given, "binary_data_output")?.unwrap_or(false),
    })
}

/// One tensor: from its own JSON, or from the bytes after it.
fn read(
    given: Tensor<'_>,
    rest: &mut &[u8],
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Input> {
    let Tensor { name, shape, datatype, parameters, data } = given;
    let bad = |problem: String| Refusal::invalid(format!("the input `{name}`: {problem}"));
    let given = parameters.unwrap_or_default();
    refuse_shared(&given)?;
    let size = given.get("binary_data_size").map(|value| {
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.ok_or_else(|| bad(format!("binary_data_size is {value}, expected a number of bytes")))
    });
    let contents = match (size.transpose()?, data) {
        (Some(_), Some(_)) => {
            return Err(bad("has both `data` and `binary_data_size`; give one".into()));
        }
        (None, None) => return Err(bad("has neither `data` nor `binary_data_size`".into())),
        (Some(size), None) => {
            let Some((own, after)) = rest.split_at_checked(size) else {
                return Err(bad(format!(
                    "binary_data_size is {size}, and {} bytes are left of the body (is the \
                     header Inference-Header-Content-Length there?)",
                    rest.len()
                )));
            };
            *rest = after;
            Contents::Raw(own)
        }
        (None, Some(data)) => Contents::Json(data.get()),
    };
    tensor(name, &shape, &datatype, contents, reserve)
}

/// Where the values of a tensor are.
pub enum Contents<'a> {
    /// In bytes, little-endian.
    Raw(&'a [u8]),
    /// In an array of JSON.
    Json(&'a str),
    /// Here.
    Values(Values),
}

/// A tensor whose contents go with its shape and type, and are finite.
///
/// # Errors
/// If they do not.
pub fn tensor(
    name: String,
    shape: &[i64],
    datatype: &str,
    contents: Contents<'_>,
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Input> {
    let bad = |problem: String| Refusal::invalid(format!("the input `{name}`: {problem}"));
    let Some(kind) = Datatype::of_input(datatype) else {
        return Err(bad(format!(
            "datatype {datatype}, expected FP32, FP64, FP16 or BF16 (features), UINT8 or BYTES \
             (images)"
        )));
    };
    let sides: Option<Vec<usize>> =
        shape.iter().map(|side| usize::try_from(*side).ok().filter(|side| *side > 0)).collect();
    let total = sides.as_ref().and_then(|sides| {
        sides.iter().try_fold(1usize, |product, side| product.checked_mul(*side))
    });
    let (Some(shape), Some(total)) = (sides, total.filter(|_| !shape.is_empty())) else {
        return Err(bad(format!("shape {shape:?}, expected sides of at least 1")));
    };
    let values = match contents {
        Contents::Raw(own) => {
            let size = own.len();
            match kind.size() {
                Some(each) if total.checked_mul(each) != Some(size) => {
                    return Err(bad(format!(
                        "binary_data_size is {size}, and {shape:?} of {datatype} takes {}",
                        total.saturating_mul(each)
                    )));
                }
                _ => {}
            }
            match kind {
                Datatype::Uint8 => {
                    reserve(size)?;
                    Values::Bytes(own.to_vec())
                }
                Datatype::Bytes => {
                    reserve(size)?;
                    Values::Texts(strings(own, total).map_err(bad)?)
                }
                _ => {
                    reserve(total.saturating_mul(4))?;
                    Values::Floats(decode(&name, kind, own, &shape)?)
                }
            }
        }
        Contents::Json(text) => {
            // No value takes less than two bytes of text.
            let bound = total.min(text.len() / 2 + 1);
            match kind {
                Datatype::Fp16 | Datatype::Bf16 => {
                    return Err(bad(format!("{datatype} cannot be written as JSON: send bytes")));
                }
                Datatype::Uint8 => {
                    reserve(bound)?;
                    Values::Bytes(numbers::bytes(text, &shape).map_err(bad)?)
                }
                Datatype::Bytes => {
                    reserve(text.len())?;
                    Values::Texts(numbers::texts(text, &shape).map_err(bad)?)
                }
                _ => {
                    reserve(bound * 4)?;
                    Values::Floats(numbers::floats(text, &shape).map_err(bad)?)
                }
            }
        }
        Contents::Values(values) => {
            let (count, bytes) = match &values {
                Values::Floats(v) => (v.len(), v.len() * 4),
                Values::Bytes(v) => (v.len(), v.len()),
                Values::Texts(v) => (v.len(), v.iter().map(Vec::len).sum()),
            };
            reserve(bytes)?;
            if count != total {
                return Err(bad(format!("{count} values where the shape {shape:?} has {total}")));
            }
            if let Values::Floats(v) = &values {
                check_finite(&name, v, &shape)?;
            }
            values
        }
    };
    Ok(Input { name, shape, values })
}

/// Strings, each after its length in four bytes.
fn strings(mut bytes: &[u8], total: usize) -> std::result::Result<Vec<Vec<u8>>, String> {
    let mut out = Vec::with_capacity(total.min(bytes.len() / 4 + 1));
    for i in 0..total {
        let short = || format!("its bytes end within element {i} of {total}");
        let (length, after) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (own, after) = after.split_at_checked(length).ok_or_else(short)?;
        out.push(own.to_vec());
        bytes = after;
    }
    match bytes.len() {
        0 => Ok(out),
        left => Err(format!("{left} bytes are left after its {total} elements")),
    }
}

/// Finite numbers of little-endian bytes, as many as the shape says.
fn decode(name: &str, kind: Datatype, bytes: &[u8], shape: &[usize]) -> Result<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], of: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| of(*chunk)).collect()
    }
    let values = match kind {
        Datatype::Fp64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Datatype::Fp16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
        Datatype::Bf16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
        _ => each(bytes, f32::from_le_bytes),
    };
    check_finite(name, &values, shape)?;
    Ok(values)
}

/// Refuse what is no number: it must not reach rows of others.
fn check_finite(name: &str, values: &[f32], shape: &[usize]) -> Result<()> {
    // Whether any is, without a branch in the loop.
    if values.iter().fold(0.0f32, |sum, v| sum + v * 0.0) == 0.0 {
        return Ok(());
    }
    let Some(at) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let row = values.len() / shape.first().copied().unwrap_or(1).max(1);
    Err(Refusal::invalid(format!(
        "the input `{name}`: row {}, column {} is {} in single precision, expected a finite number",
        at / row.max(1),
        at % row.max(1),
        values[at]
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Result<Request> {
        parse(body.as_bytes(), None, &mut |_| Ok(()))
    }

    fn error(body: &str) -> String {
        of(body).unwrap_err().text
    }

    fn avg(parts: &str) -> String {
        format!(r#"{{"inputs":[{{"name":"avg","shape":[1,2],"datatype":"FP32",{parts}}}]}}"#)
    }

    #[test]
    fn a_request_in_json() {
        // Keys in any order; what a client adds of its own is let pass.
        let body = r#"{"model_name":"m","inputs":[{"data":[[1,2.5]],"datatype":"FP32",
            "shape":[1,2],"name":"avg"}],"id":"7","parameters":{"alpha":0.01,"timeout":5000,
            "priority":0,"sequence_id":0},"outputs":[{"name":"score"}]}"#;
        let got = of(body).unwrap();
        assert_eq!(got.id.as_deref(), Some("7"));
        let parameters = Parameters { alpha: Some(0.01), timeout: Some(5000), binary: false };
        assert_eq!(got.parameters, parameters);
        let values = Values::Floats(vec![1.0, 2.5]);
        assert_eq!(got.inputs, [Input { name: "avg".into(), shape: vec![1, 2], values }]);
        assert_eq!(got.outputs, Some(vec![Asked { name: "score".into(), binary: false }]));
    }

    #[test]
    fn tensors_as_bytes() {
        let json = br#"{"inputs":[{"name":"avg","shape":[1,2],"datatype":"FP16",
            "parameters":{"binary_data_size":4}},{"name":"image_bytes","shape":[2],
            "datatype":"BYTES","parameters":{"binary_data_size":11}}],
            "parameters":{"binary_data_output":true},
            "outputs":[{"name":"score"},{"name":"is_ood","parameters":{"binary_data":false}}]}"#;
        // 1.5 and -2 in half precision; "abc" and "".
        let bytes = [0x00, 0x3e, 0x00, 0xc0, 3, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0];
        let body = [&json[..], &bytes].concat();
        let got = parse(&body, Some(json.len()), &mut |_| Ok(())).unwrap();
        assert_eq!(got.inputs[0].values, Values::Floats(vec![1.5, -2.0]));
        assert_eq!(got.inputs[1].values, Values::Texts(vec![b"abc".to_vec(), Vec::new()]));
        let outputs = got.outputs.unwrap();
        assert_eq!(outputs.iter().map(|o| o.binary).collect::<Vec<_>>(), [true, false]);
        // Cut short, or longer.
        for n in 0..body.len() {
            assert!(parse(&body[..n], Some(json.len()), &mut |_| Ok(())).is_err(), "{n}");
        }
        let longer = [&body[..], b"x"].concat();
        let error = parse(&longer, Some(json.len()), &mut |_| Ok(())).unwrap_err();
        assert!(error.text.contains("1 bytes are left"), "{}", error.text);
    }

    #[test]
    fn a_whole_body_of_one_tensor() {
        let bytes: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let got = raw(&bytes, "avg", 2, &mut |_| Ok(())).unwrap();
        assert_eq!((got.inputs[0].shape[0], got.parameters.binary), (2, true));
        assert!(raw(&bytes[1..], "avg", 2, &mut |_| Ok(())).is_err());
        assert!(raw(&[], "avg", 2, &mut |_| Ok(())).is_err());
    }

    #[test]
    fn bad_requests_are_refused() {
        let deep = "[".repeat(100_000);
        for (body, part) in [
            (String::new(), "empty"),
            ("{".into(), "not a request"),
            ("[]".into(), "not a request"),
            ("{}".into(), "missing field `inputs`"),
            (r#"{"inputs":[]}"#.into(), "`inputs` is empty"),
            (r#"{"inputs":[],"inputs":[]}"#.into(), "duplicate field"),
            (deep.clone(), "not a request"),
            (format!(r#"{{"x":{deep}"#), "not a request"),
            (avg(r#""data":[1,NaN]"#), "NaN and Infinity are no JSON"),
            (avg(r#""data":[1,1e999]"#), "element 1 is 1e999"),
            (avg(r#""data":["1",2]"#), "element 0"),
            (avg(r#""data":[1]"#), "1 values where the shape [1, 2] has 2"),
            (avg(r#""data":[[1,2],[3,4]]"#), "the shape [1, 2]"),
            (avg(r#""data":{"a":1}"#), "expected an array"),
            (avg(r#""parameters":{}"#), "neither `data` nor"),
            (avg(r#""data":[1,2],"parameters":{"binary_data_size":8}"#), "both"),
            (avg(r#""parameters":{"binary_data_size":8}"#), "0 bytes are left of the body"),
            (avg(r#""parameters":{"binary_data_size":-1}"#), "expected a number of bytes"),
            (avg(r#""parameters":{"shared_memory_region":"x"}"#), "shared memory"),
            (avg(r#""data":[1,2]"#).replace("FP32", "fp32"), "datatype fp32"),
            (avg(r#""data":[1,2]"#).replace("FP32", "INT8"), "datatype INT8"),
            (avg(r#""data":[1,2]"#).replace("FP32", "FP16"), "send bytes"),
            (avg(r#""data":[]"#).replace("[1,2]", "[0,2]"), "sides of at least 1"),
            (avg(r#""data":[]"#).replace("[1,2]", "[-1,2]"), "sides of at least 1"),
            (avg(r#""data":[]"#).replace("[1,2]", "[]"), "sides of at least 1"),
            (avg(r#""data":[]"#).replace("[1,2]", "[4294967296,4294967296]"), "sides"),
            (avg(r#""data":[]"#).replace("[1,2]", "[9223372036854775808]"), "not a request"),
            (avg(r#""data":[1,2]"#).replace('}', r#"},"id":"#) + "1", "not a request"),
        ] {
            let text = error(&body);
            assert!(text.contains(part), "{}: {text}", &body[..body.len().min(200)]);
        }
        let with = |parameters: &str| {
            let body = avg(r#""data":[1,2]"#);
            error(&format!("{},\"parameters\":{parameters}}}", &body[..body.len() - 1]))
        };
        for (parameters, part) in [
            (r#"{"alpha":0}"#, "`alpha` is 0"),
            (r#"{"alpha":1}"#, "between 0 and 1"),
            (r#"{"alpha":"x"}"#, "between 0 and 1"),
            (r#"{"timeout":0}"#, "microseconds"),
            (r#"{"timeout":-5}"#, "microseconds"),
            (r#"{"timeout":"5"}"#, "microseconds"),
            (r#"{"sequence_id":3}"#, "not supported"),
            (r#"{"binary_data_output":1}"#, "expected a boolean"),
        ] {
            let text = with(parameters);
            assert!(text.contains(part), "{parameters}: {text}");
        }
        let twice = r#"{"name":"avg","shape":[1],"datatype":"FP32","data":[1]}"#;
        assert!(error(&format!(r#"{{"inputs":[{twice},{twice}]}}"#)).contains("given twice"));
        let long = format!(r#"{{"id":"{}","inputs":[{twice}]}}"#, "x".repeat(1 << 20));
        assert!(error(&long).contains("longer than 256"));
        let asked = format!(
            r#"{{"inputs":[{twice}],"outputs":[{{"name":"score","parameters":{{"classification":3}}}}]}}"#
        );
        assert!(error(&asked).contains("classification"));
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let json = br#"{"inputs":[{"name":"avg","shape":[2,2],"datatype":"FP64",
            "parameters":{"binary_data_size":32}}]}"#;
        for wrong in [f64::NAN, f64::INFINITY, 1e300] {
            let values = [1.0, 2.0, 3.0, wrong];
            let bytes = values.iter().flat_map(|v| v.to_le_bytes());
            let body: Vec<u8> = json.iter().copied().chain(bytes).collect();
            let error = parse(&body, Some(json.len()), &mut |_| Ok(())).unwrap_err();
            assert!(error.text.contains("`avg`: row 1, column 1"), "{}", error.text);
        }
    }

    /// Memory is asked for before it is taken, and no more than the body can fill.
    #[test]
    fn what_is_claimed_is_bounded_by_the_body() {
        let mut asked = 0;
        let body =
            avg(r#""data":[1,2]"#).replace("[1,2],\"datatype\"", "[1,9000000000],\"datatype\"");
        let refused = parse(body.as_bytes(), None, &mut |n| {
            asked += n;
            Ok(())
        });
        assert!(refused.is_err() && asked < 100, "{asked}");
    }
}
