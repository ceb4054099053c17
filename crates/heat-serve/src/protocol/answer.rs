//! From columns of results to a body.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Datatype;

/// One output: a value for each row.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// Yes or no.
    Bool(Vec<bool>),
    /// Whole numbers.
    I64(Vec<i64>),
    /// Texts.
    Text(Vec<String>),
}

impl Column {
    /// Its type.
    pub fn datatype(&self) -> Datatype {
        match self {
            Column::F32(_) => Datatype::Fp32,
            Column::F64(_) => Datatype::Fp64,
            Column::Bool(_) => Datatype::Bool,
            Column::I64(_) => Datatype::Int64,
            Column::Text(_) => Datatype::Bytes,
        }
    }

    /// Its number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Column::F32(v) => v.len(),
            Column::F64(v) => v.len(),
            Column::Bool(v) => v.len(),
            Column::I64(v) => v.len(),
            Column::Text(v) => v.len(),
        }
    }

    /// As little-endian bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Column::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Column::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Column::Bool(v) => v.iter().map(|x| u8::from(*x)).collect(),
            Column::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Column::Text(v) => v
                .iter()
                .flat_map(|x| [&(x.len() as u32).to_le_bytes()[..], x.as_bytes()].concat())
                .collect(),
        }
    }

    /// Numbers with as few digits as give them back.
    fn json(&self, out: &mut Vec<u8>) {
        fn write(out: &mut Vec<u8>, values: &impl Serialize) {
            // Into memory, of values that are finite: it cannot fail.
            let _ = serde_json::to_writer(out, values);
        }
        match self {
            Column::F32(v) => write(out, v),
            Column::F64(v) => write(out, v),
            Column::Bool(v) => write(out, v),
            Column::I64(v) => write(out, v),
            Column::Text(v) => write(out, v),
        }
    }
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    /// The request's id.
    pub id: Option<String>,
    /// Which model scored.
    pub model: String,
    /// Which version of it.
    pub version: String,
    /// What else is said.
    pub parameters: Map<String, Value>,
    /// The outputs in the order asked for: name, values, whether as bytes.
    pub outputs: Vec<(String, Column, bool)>,
}

/// The body of an answer, and how much of it is JSON where bytes follow.
pub fn encode(answer: &Answer) -> (Vec<u8>, Option<usize>) {
    let mut out = Vec::with_capacity(256);
    let head = json!({
        "model_name": answer.model,
        "model_version": answer.version,
        "parameters": answer.parameters,
    });
    out.extend_from_slice(head.to_string().as_bytes());
    // Its closing brace, after which more follows.
    out.pop();
    if let Some(id) = &answer.id {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(Value::from(id.as_str()).to_string().as_bytes());
    }
    out.extend_from_slice(b",\"outputs\":[");
    let mut tail = Vec::new();
    for (i, (name, column, binary)) in answer.outputs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let (rows, datatype) = (column.rows(), column.datatype().name());
        let name = Value::from(name.as_str());
        let described =
            format!("{{\"name\":{name},\"shape\":[{rows}],\"datatype\":\"{datatype}\",");
        out.extend_from_slice(described.as_bytes());
        if *binary {
            let bytes = column.bytes();
            let size = format!("\"parameters\":{{\"binary_data_size\":{}}}", bytes.len());
            out.extend_from_slice(size.as_bytes());
            tail.extend_from_slice(&bytes);
        } else {
            out.extend_from_slice(b"\"data\":");
            column.json(&mut out);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    let json = answer.outputs.iter().any(|(.., binary)| *binary).then_some(out.len());
    out.extend_from_slice(&tail);
    (out, json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(binary: bool) -> Answer {
        Answer {
            id: Some("a\"b\n".into()),
            model: "m".into(),
            version: "0123".into(),
            parameters: Map::from_iter([("alpha".to_owned(), json!(0.05))]),
            outputs: vec![
                ("score".into(), Column::F32(vec![0.1, -2.5]), binary),
                ("is_ood".into(), Column::Bool(vec![true, false]), false),
            ],
        }
    }

    #[test]
    fn an_answer_in_json() {
        let (body, json) = encode(&answer(false));
        assert_eq!(json, None);
        let got: Value = serde_json::from_slice(&body).unwrap();
        let want = json!({
            "model_name": "m", "model_version": "0123", "parameters": {"alpha": 0.05},
            "id": "a\"b\n",
            "outputs": [
                {"name": "score", "shape": [2], "datatype": "FP32", "data": [0.1, -2.5]},
                {"name": "is_ood", "shape": [2], "datatype": "BOOL", "data": [true, false]},
            ],
        });
        assert_eq!(got, want);
        // The shortest digits of single precision, not those of its value in double.
        assert!(String::from_utf8(body).unwrap().contains("[0.1,-2.5]"));
    }

    #[test]
    fn bytes_after_the_json() {
        let (body, json) = encode(&answer(true));
        let (head, bytes) = body.split_at(json.unwrap());
        let got: Value = serde_json::from_slice(head).unwrap();
        assert_eq!(got["outputs"][0]["parameters"]["binary_data_size"], 8);
        assert!(got["outputs"][0].get("data").is_none());
        assert_eq!(got["outputs"][1]["data"], json!([true, false]));
        assert_eq!(bytes, [0.1f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat());
        let texts = Column::Text(vec!["ab".into(), String::new()]);
        assert_eq!(texts.bytes(), [2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0]);
    }
}
