//! From a body to tensors.

use serde_json::value::RawValue;

use super::Datatype;
use super::json::{Body, LONGEST_NAME, Output, Tensor, text};
use super::numbers::{self, Data};
use super::parameters::{Parameters, parameters};
use crate::refusal::{Refusal, Result};

/// Longest id that is taken, in characters; it is echoed.
pub const LONGEST_ID: usize = 256;

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
    let text = std::str::from_utf8(text).map_err(|error| {
        let at = error.valid_up_to();
        Refusal::invalid(format!("the body is not UTF-8: byte {at} begins no character"))
    })?;
    // What is passed over is remembered by its brackets, a byte each; a string with escapes is written
    // out. Either grows by doubling.
    let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let written_out = if text.contains('\\') { text.len() } else { 0 };
    reserve(2 * brackets.max(written_out))?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| {
        let hint = match error.is_syntax() {
            true => " (NaN and Infinity are no JSON)",
            false => "",
        };
        let (line, column) = (error.line(), error.column());
        Refusal::invalid(format!("the body is not a request: {error}{hint}"))
            .unquoted(format!("the body is not a request, at line {line} column {column}"))
    })?;
    let id = body.id.map(id).transpose()?.filter(|id| !id.is_empty());
    let parameters = parameters(&body.parameters.unwrap_or_default())?;
    let given = body.inputs.map(|inputs| inputs.0);
    let given = given.ok_or_else(|| Refusal::invalid("the body has no `inputs`"))?;
    if given.is_empty() {
        return Err(Refusal::invalid("`inputs` is empty"));
    }
    let mut inputs: Vec<Input> = Vec::with_capacity(given.len());
    for (i, tensor) in given.into_iter().enumerate() {
        let input = read(i, tensor, &inputs, &mut rest, reserve)?;
        inputs.push(input);
    }
    if !rest.is_empty() {
        return Err(Refusal::invalid(format!(
            "{} bytes are left after the last tensor",
            rest.len()
        )));
    }
    let asked = |(i, output): (usize, Output<'_>)| {
        let name = word(output.name, "output", i, "name")?;
        let given = output.parameters.unwrap_or_default();
        given.refuse_unsupported()?;
        let binary = given.flag("binary_data")?.unwrap_or(parameters.binary);
        Ok(Asked { name, binary })
    };
    // None named: all that are given by default, as with no list.
    let outputs = body.outputs.map(|outputs| outputs.0).filter(|outputs| !outputs.is_empty());
    let outputs =
        outputs.map(|all| all.into_iter().enumerate().map(asked).collect::<Result<Vec<_>>>());
    let outputs = outputs.transpose()?;
    Ok(Request { id, parameters, inputs, outputs })
}

fn id(raw: &RawValue) -> Result<String> {
    let is_text = raw.get().starts_with('"');
    let id = text(raw, 4 * LONGEST_ID).map_err(|wrong| match is_text {
        true => long_id(),
        false => Refusal::invalid(format!("`id` {wrong}")),
    })?;
    check_id(&id)?;
    Ok(id.into_owned())
}

fn long_id() -> Refusal {
    Refusal::invalid(format!("`id` is longer than {LONGEST_ID} characters"))
}

/// Whether an id is short enough.
///
/// # Errors
/// If not.
pub fn check_id(id: &str) -> Result<()> {
    match id.chars().count() <= LONGEST_ID {
        true => Ok(()),
        false => Err(long_id()),
    }
}

/// A string that an input or output must have.
fn word(raw: Option<&RawValue>, of: &str, i: usize, key: &str) -> Result<String> {
    let raw = raw.ok_or_else(|| Refusal::invalid(format!("{of} {i} has no `{key}`")))?;
    let wrong = |wrong| Refusal::invalid(format!("the `{key}` of {of} {i} {wrong}"));
    Ok(text(raw, LONGEST_NAME).map_err(wrong)?.into_owned())
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

/// Tensor `i`, after those before it: from its own JSON, or from the bytes after it.
fn read(
    i: usize,
    given: Tensor<'_>,
    before: &[Input],
    rest: &mut &[u8],
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Input> {
    let Tensor { name, shape, datatype, parameters, data } = given;
    let name = word(name, "input", i, "name")?;
    if before.iter().any(|input| input.name == name) {
        return Err(Refusal::invalid(format!("the input `{name}` is given twice")));
    }
    let datatype = word(datatype, "input", i, "datatype")?;
    let bad = |problem: String| Refusal::invalid(format!("the input `{name}`: {problem}"));
    let shape = shape.ok_or_else(|| bad("has no `shape`".into()))?.0;
    let side = |(i, raw): (usize, &RawValue)| {
        let side = raw.get().parse::<i64>();
        side.map_err(|_| bad(format!("side {i} of its shape is no whole number of 64 bits")))
    };
    let shape: Vec<i64> = shape.into_iter().enumerate().map(side).collect::<Result<_>>()?;
    let given = parameters.unwrap_or_default();
    given.refuse_unsupported()?;
    let size = given.get("binary_data_size").map(|value| {
        let size = value.whole().and_then(|size| usize::try_from(size).ok());
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
    /// Here, and charged for.
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
                    // Each has its length before it, in four bytes.
                    reserve(size + total.min(size / 4 + 1) * size_of::<Vec<u8>>())?;
                    Values::Texts(strings(own, total).map_err(bad)?)
                }
                _ => {
                    reserve(total.saturating_mul(4))?;
                    Values::Floats(decode(&name, kind, own, &shape)?)
                }
            }
        }
        Contents::Json(text) => {
            // No value takes less than two bytes of text, no string less than three.
            let bound = total.min(text.len() / 2 + 1);
            let strings = total.min(text.len() / 3 + 1);
            let data = Data { name: &name, text, shape: &shape };
            match kind {
                Datatype::Fp16 | Datatype::Bf16 => {
                    return Err(bad(format!("{datatype} cannot be written as JSON: send bytes")));
                }
                Datatype::Uint8 => {
                    reserve(bound)?;
                    Values::Bytes(numbers::bytes(data)?)
                }
                Datatype::Bytes => {
                    reserve(text.len() + strings * size_of::<Vec<u8>>())?;
                    Values::Texts(numbers::texts(data)?)
                }
                _ => {
                    reserve(bound * 4)?;
                    Values::Floats(numbers::floats(data)?)
                }
            }
        }
        Contents::Values(values) => {
            let count = match &values {
                Values::Floats(v) => v.len(),
                Values::Bytes(v) => v.len(),
                Values::Texts(v) => v.len(),
            };
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
    let width = (values.len() / shape.first().copied().unwrap_or(1).max(1)).max(1);
    let (row, column) = (at / width, at % width);
    Err(Refusal::invalid(format!(
        "the input `{name}`: row {row}, column {column} is {} in single precision, expected a \
         finite number",
        values[at]
    ))
    .unquoted(format!("the input `{name}`: row {row}, column {column} is not finite")))
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
            ("[]".into(), "expected an object with `inputs`"),
            (r#"[null,null,[["avg",[1],"FP32",null,[1]]]]"#.into(), "expected an object"),
            (
                r#"{"inputs":[["avg",[1,2],"FP32",null,[1,2]]]}"#.into(),
                "expected an object with `name`",
            ),
            (
                r#"{"inputs":[{"shape":[1],"datatype":"FP32","data":[1]}]}"#.into(),
                "input 0 has no `name`",
            ),
            (avg(r#""data":[1,2],"name":"avg""#), "`name` is given twice"),
            (avg(r#""data":[1,2]"#).replace("\"avg\"", "7"), "the `name` of input 0 is no string"),
            (avg(r#""data":[1,2]"#).replace("\"FP32\"", "[]"), "the `datatype` of input 0"),
            (
                avg(r#""data":[1,2]"#).replace("[1,2],\"d", "[1,2.5],\"d"),
                "side 1 of its shape is no",
            ),
            (avg(r#""data":[1,2]"#).replace("[1,2],\"d", "[1,1,1,1,1,1,1,1,2],\"d"), "at most 8"),
            (format!(r#"{{"inputs":[{}]}}"#, "{},".repeat(65)), "at most 64"),
            ("{}".into(), "has no `inputs`"),
            (r#"{"inputs":[]}"#.into(), "`inputs` is empty"),
            (r#"{"inputs":[],"inputs":[]}"#.into(), "`inputs` is given twice"),
            (deep.clone(), "not a request"),
            (format!(r#"{{"x":{deep}"#), "not a request"),
            (avg(r#""data":[1,NaN]"#), "NaN and Infinity are no JSON"),
            (avg(r#""data":[1,1e999]"#), "element 1 is 1e999"),
            (avg(r#""data":["1",2]"#), "element 0"),
            (avg(r#""data":[1]"#), "1 values where the shape [1, 2] has 2"),
            (avg(r#""data":[[1,2],[3,4]]"#), "the shape [1, 2]"),
            (avg(r#""data":{"a":1}"#), "no array"),
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
            (
                avg(r#""data":[]"#).replace("[1,2]", "[9223372036854775808]"),
                "no whole number of 64",
            ),
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
            (r#"{"sequence_start":true}"#, "`sequence_start` is not supported"),
            (r#"{"classification":3}"#, "`classification` is not supported"),
            (r#"{"alpha":0.1,"alpha":0.1}"#, "`alpha` is given twice"),
            (r#"{"alpha":[0.1]}"#, "is no such value"),
            (r#"[0.1]"#, "expected an object of parameters"),
            (r#"{"binary_data_output":1}"#, "expected a boolean"),
        ] {
            let text = with(parameters);
            assert!(text.contains(part), "{parameters}: {text}");
        }
        let twice = r#"{"name":"avg","shape":[1],"datatype":"FP32","data":[1]}"#;
        assert!(error(&format!(r#"{{"inputs":[{twice},{twice}]}}"#)).contains("given twice"));
        let long = format!(r#"{{"id":"{}","inputs":[{twice}]}}"#, "x".repeat(1 << 20));
        assert!(error(&long).contains("`id` is longer than 256 characters"));
        assert!(error(&format!(r#"{{"id":7,"inputs":[{twice}]}}"#)).contains("`id` is no string"));
        let with_id = |id: &str| of(&format!(r#"{{"id":"{id}","inputs":[{twice}]}}"#));
        assert_eq!(with_id(&"é".repeat(256)).unwrap().id.unwrap().len(), 512);
        assert!(with_id(&"é".repeat(257)).unwrap_err().text.contains("256 characters"));
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
