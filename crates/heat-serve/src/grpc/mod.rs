//! The same protocol over gRPC: its six calls, the two of Triton's that load generators make besides, and the
//! health check of `grpc.health.v1`.
//!
//! A call is one message each way: five bytes of frame, then the message, whose encoding is
//! prost's. The frame is read here, not by a framework, so that a message is charged to the
//! memory of all requests before it is there, as over HTTP.

mod messages;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use prost::Message;
use serde_json::{Number, Value, json};

use crate::budget::Charge;
use crate::http::Routers;
use crate::http::answers::{Named, told};
use crate::http::body::{self, Held, Packing, Whole};
use crate::http::infer::{Ask, about, aside, said};
use crate::protocol::{
    Asked, Column, Contents, Datatype, Given, Input, LONGEST_SETTING, Setting, Values, check_id,
    wire,
};
use crate::refusal::{Kind, Refusal, Result, no_connections};
use crate::shared::Shared;
use crate::tokens::Scope;

use messages::{Choice, Parameter};

/// Code and text of a refusal in gRPC.
fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Invalid | Kind::TooLarge => 3,
        Kind::Late | Kind::Slow => 4,
        Kind::NotFound => 5,
        Kind::Forbidden => 7,
        Kind::Busy => 8,
        Kind::Conflict => 10,
        Kind::Method | Kind::Encoding => 12,
        Kind::Internal => 13,
        Kind::Unavailable => 14,
        Kind::Unauthenticated => 16,
    }
}

const HEALTH: &str = "/grpc.health.v1.Health/{call}";

/// The addresses of gRPC.
pub fn routers(shared: &Arc<Shared>) -> Routers {
    let all = Router::new()
        .route("/inference.GRPCInferenceService/{call}", post(inference))
        .route(HEALTH, post(health))
        .fallback(nothing);
    let full = Router::new().route(HEALTH, post(health)).fallback(no_place);
    let of = |router: Router<Arc<Shared>>| router.with_state(Arc::clone(shared));
    let own = Arc::clone(shared);
    let refuse = Arc::new(move |refused: &Refusal| refuse(&own, refused));
    Routers { all: of(all), full: of(full), refuse }
}

/// An answer: one message, then the code in the trailers.
fn answer(message: &impl Message, charge: Charge) -> Response {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(5 + length);
    bytes.push(0);
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    // Into a vector, which grows: it cannot fail.
    let _ = message.encode(&mut bytes);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Held::new(bytes, charge).with_trailers(trailers);
    let mut response = Response::new(Body::new(body));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// An answer that is too small to count.
fn small(shared: &Shared, message: &impl Message) -> Result<Response> {
    Ok(answer(message, shared.budget.charge()))
}

fn refuse(shared: &Shared, refused: &Refusal) -> Response {
    shared.metrics.refused(refused.kind);
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(code(refused.kind))));
    if let Ok(text) = HeaderValue::from_str(&percent(&refused.message())) {
        headers.insert("grpc-message", text);
    }
    response
}

/// Bytes that are no plain letters as gRPC writes them in a header.
fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    })
}

async fn nothing(State(shared): State<Arc<Shared>>) -> Response {
    refuse(&shared, &Refusal::new(Kind::Method, "there is no such call"))
}

async fn no_place(State(shared): State<Arc<Shared>>) -> Response {
    refuse(&shared, &no_connections())
}

/// The message of a call, and what it holds in memory.
async fn read(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<(Bytes, Charge)> {
    let Whole { bytes, mut charge } =
        body::read(headers, body, &shared.body, &shared.budget).await?;
    let Some((&[packed, ref length @ ..], message)) = bytes.split_first_chunk::<5>() else {
        return Err(Refusal::invalid("the call has no message"));
    };
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err(Refusal::invalid("the call has not one message, as long as it says"));
    }
    if packed == 0 {
        return Ok((Bytes::from(bytes).slice(5..), charge));
    }
    let packing = match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        Some(b"gzip") => Packing::Gzip,
        Some(b"deflate") => Packing::Deflate,
        _ => {
            let text = "the message is packed by none of gzip, deflate";
            return Err(Refusal::new(Kind::Encoding, text));
        }
    };
    let limit = shared.body.bytes;
    let unpack = move || {
        let whole = body::unpack(packing, &bytes[5..], limit, &mut charge)?;
        charge.give_back(bytes.len());
        Ok((Bytes::from(whole), charge))
    };
    let failed = |_| Refusal::new(Kind::Internal, "the message could not be unpacked");
    tokio::task::spawn_blocking(unpack).await.map_err(failed)?
}

/// Bytes of a message that says only which model is meant.
const LONGEST_NAMING: usize = 4 << 10;

/// A message that says which model or service is meant.
fn naming<M: Message + Default>(bytes: Bytes) -> Result<M> {
    if bytes.len() > LONGEST_NAMING {
        let text = format!("the message is longer than {LONGEST_NAMING} bytes");
        return Err(Refusal::invalid(text));
    }
    decode(bytes)
}

fn decode<M: Message + Default>(bytes: Bytes) -> Result<M> {
    M::decode(bytes).map_err(|error| Refusal::invalid(format!("the message is damaged: {error}")))
}

/// How long the client waits, as the header says: a number and a unit.
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n.saturating_mul(3600)),
        "M" => Duration::from_secs(n.saturating_mul(60)),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

async fn health(
    State(shared): State<Arc<Shared>>,
    call: Option<Path<String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let checked = async {
        if call.is_none_or(|Path(call)| call != "Check") {
            return Err(Refusal::new(Kind::Method, "of the health service only Check is served"));
        }
        let (bytes, _charge) = read(&shared, &headers, body).await?;
        let asked: messages::Service = naming(bytes)?;
        let known = ["", "inference.GRPCInferenceService"].contains(&asked.name.as_str());
        let ready = match shared.models.get(&asked.name) {
            Some(served) => served.current().is_ok() && shared.is_ready(),
            None if known => shared.is_ready(),
            None => return Err(Refusal::new(Kind::NotFound, "there is no such service")),
        };
        Ok(messages::Health { status: if ready { 1 } else { 2 } })
    };
    match checked.await {
        Ok(message) => answer(&message, shared.budget.charge()),
        Err(refused) => refuse(&shared, &refused),
    }
}

async fn inference(
    State(shared): State<Arc<Shared>>,
    call: Option<Path<String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // One that is no text is none that there is.
    let call = call.map_or_else(String::new, |Path(call)| call);
    match inner(&shared, &call, &headers, body).await {
        Ok(response) => response,
        Err(refused) => refuse(&shared, &refused),
    }
}

async fn inner(
    shared: &Arc<Shared>,
    call: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response> {
    let began = Instant::now();
    let open = ["ServerLive", "ServerReady", "ServerMetadata"].contains(&call);
    if !open {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        shared.permit(given, Scope::Score)?;
    }
    let (bytes, charge) = read(shared, headers, body).await?;
    match call {
        "ServerLive" => small(shared, &messages::Flag { value: true }),
        "ServerReady" => small(shared, &messages::Flag { value: shared.is_ready() }),
        "ServerMetadata" => {
            let (name, version) = ("heat".into(), env!("CARGO_PKG_VERSION").into());
            let extensions = ["binary_tensor_data", "statistics", "model_configuration"];
            let extensions = extensions.map(String::from).into();
            small(shared, &messages::ServerMetadata { name, version, extensions })
        }
        "ModelReady" => {
            let named = named(naming(bytes)?);
            let value = match named.loaded(shared) {
                Ok(_) => shared.is_ready(),
                Err(refused) if refused.kind == Kind::Unavailable => false,
                Err(refused) => return Err(refused),
            };
            small(shared, &messages::Flag { value })
        }
        "ModelMetadata" => {
            let named = named(naming(bytes)?);
            let model = named.loaded(shared)?;
            let network = named.served(shared)?.network.is_some();
            small(shared, &metadata(&model.metadata(network)))
        }
        "ModelConfig" => {
            let named = named(naming(bytes)?);
            small(shared, &config(&named.config(shared)?))
        }
        "ModelStatistics" => {
            let model = naming::<messages::OfModel>(bytes)?;
            let all = match model.name.is_empty() {
                true => shared.models.values().filter_map(|served| served.current().ok()).collect(),
                false => vec![named(model).loaded(shared)?],
            };
            let found = all.iter().map(|model| statistics(&shared.metrics.statistics(model)));
            small(shared, &messages::OfStatistics { model_stats: found.collect() })
        }
        "ModelInfer" => {
            let length = bytes.len();
            let request = request(bytes)?;
            let model = messages::OfModel {
                name: request.model_name.clone(),
                version: request.model_version.clone(),
            };
            let named = named(model);
            let done = infer(shared, &named, headers, request, began, charge, length).await;
            let (status, about) = match &done {
                Ok((_, about)) => (200, about.clone()),
                Err(refused) => (refused.kind.status(), json!({"error": refused.for_log()})),
            };
            told(shared, &named, headers, began, status, about);
            done.map(|(response, _)| response)
        }
        _ => Err(Refusal::new(Kind::Method, "there is no such call")),
    }
}

/// A request to score, of which nothing becomes more than it may be.
fn request(bytes: Bytes) -> Result<messages::Request> {
    wire::check_request(&bytes)?;
    decode(bytes)
}

fn named(model: messages::OfModel) -> Named {
    Named { model: model.name, version: Some(model.version).filter(|version| !version.is_empty()) }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn sides(value: &Value) -> Vec<i64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}

/// Types of values in a configuration, by number.
const TYPES: [&str; 15] = [
    "TYPE_INVALID",
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_UINT16",
    "TYPE_UINT32",
    "TYPE_UINT64",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_FP64",
    "TYPE_STRING",
    "TYPE_BF16",
];

fn config(json: &Value) -> messages::OfConfig {
    let kind = |value: &Value| {
        TYPES.iter().position(|name| value.as_str() == Some(*name)).unwrap_or(0) as i32
    };
    let tensors = |value: &Value| {
        let one = |t: &Value| (text(&t["name"]), kind(&t["data_type"]), sides(&t["dims"]));
        value.as_array().into_iter().flatten().map(one).collect::<Vec<_>>()
    };
    let config = messages::ModelConfig {
        name: text(&json["name"]),
        platform: text(&json["platform"]),
        max_batch_size: json["max_batch_size"].as_i64().map_or(0, |n| n.min(1 << 30) as i32),
        input: tensors(&json["input"])
            .into_iter()
            .map(|(name, data_type, dims)| messages::ConfigInput { name, data_type, dims })
            .collect(),
        output: tensors(&json["output"])
            .into_iter()
            .map(|(name, data_type, dims)| messages::ConfigOutput { name, data_type, dims })
            .collect(),
    };
    messages::OfConfig { config: Some(config) }
}

fn statistics(json: &Value) -> messages::Statistics {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let times = &json["inference_stats"];
    let spent = |key: &str| {
        let found = &times[key];
        Some(messages::Spent { count: number(&found["count"]), ns: number(&found["ns"]) })
    };
    messages::Statistics {
        name: text(&json["name"]),
        version: text(&json["version"]),
        inference_count: number(&json["inference_count"]),
        execution_count: number(&json["execution_count"]),
        inference_stats: Some(messages::Times {
            success: spent("success"),
            queue: spent("queue"),
            compute_input: spent("compute_input"),
            compute_infer: spent("compute_infer"),
            compute_output: spent("compute_output"),
        }),
    }
}

fn metadata(json: &Value) -> messages::ModelMetadata {
    let tensors = |value: &Value| {
        let one = |tensor: &Value| messages::TensorMetadata {
            name: text(&tensor["name"]),
            datatype: text(&tensor["datatype"]),
            shape: sides(&tensor["shape"]),
        };
        value.as_array().into_iter().flatten().map(one).collect()
    };
    messages::ModelMetadata {
        name: text(&json["name"]),
        versions: vec![text(&json["versions"][0])],
        platform: text(&json["platform"]),
        inputs: tensors(&json["inputs"]),
        outputs: tensors(&json["outputs"]),
    }
}

async fn infer(
    shared: &Arc<Shared>,
    named: &Named,
    headers: &HeaderMap,
    request: messages::Request,
    began: Instant,
    mut charge: Charge,
    length: usize,
) -> Result<(Response, Value)> {
    let served = Arc::clone(named.served(shared)?);
    let model = served.version(named.version.as_deref())?;
    if shared.is_ending() {
        return Err(Refusal::new(Kind::Unavailable, "the server is about to end"));
    }
    let messages::Request { id, parameters, inputs, outputs, raw_inputs, .. } = request;
    check_id(&id)?;
    let parameters = crate::protocol::parameters(&given(&parameters)?)?;
    let read = move || {
        let tensors = tensors(inputs, &raw_inputs, &mut |bytes| charge.add(bytes))?;
        drop(raw_inputs);
        charge.give_back(length);
        Ok((tensors, charge))
    };
    let deadline = began + shared.settings.request_timeout;
    let (tensors, charge) = aside(length, deadline, read).await?;
    let asked = |output: &messages::Output| {
        given(&output.parameters)?.refuse_unsupported()?;
        Ok(Asked { name: output.name.clone(), binary: true })
    };
    let asked: Vec<Asked> = outputs.iter().map(asked).collect::<Result<_>>()?;
    let asked = model.asked(Some(&asked[..]).filter(|asked| !asked.is_empty()), true)?;
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    let patience = patience(headers).map(micros);
    let timeout = parameters.timeout.into_iter().chain(patience).min();
    let own = Some(id.as_str()).filter(|id| !id.is_empty());
    let scored = Ask { shared, served: &served, model: &model, began, id: own }
        .score(tensors, parameters.alpha, timeout, charge)
        .await?;
    let about = about(own, &model, &scored);
    // Its columns, their bytes, and the message of these.
    let mut held = shared.budget.charge();
    let expected = 3 * model.answer_bytes(&asked, scored.scores.len());
    held.take(expected);
    let (mut outputs, mut raw_outputs) = (Vec::new(), Vec::new());
    for (output, _) in asked {
        let column: Column = model.column(output, &scored);
        outputs.push(messages::Tensor {
            name: model.output_name(output).to_owned(),
            datatype: column.datatype().name().to_owned(),
            shape: vec![column.rows() as i64],
            ..messages::Tensor::default()
        });
        // Clients read numbers from here alone.
        raw_outputs.push(Bytes::from(column.bytes()));
    }
    let size: usize = raw_outputs.iter().map(Bytes::len).sum();
    let said = said(&model, parameters.alpha, &scored);
    let parameters = said.into_iter().map(|(key, value)| (key, of_json(&value))).collect();
    let message = messages::Answer {
        model_name: model.name.clone(),
        model_version: model.version.clone(),
        id,
        parameters,
        outputs,
        raw_outputs,
    };
    let mut sent = shared.budget.charge();
    sent.take(size);
    Ok((answer(&message, sent), about))
}

/// The parameters that mean something here.
fn given(parameters: &HashMap<String, Parameter>) -> Result<Given> {
    let mut out = Given::default();
    for (key, parameter) in parameters {
        let Some(key) = Given::known(key) else { continue };
        let value = match &parameter.choice {
            Some(Choice::Bool(v)) => Setting::Flag(*v),
            Some(Choice::Int(v)) => Setting::Number((*v).into()),
            Some(Choice::Unsigned(v)) => Setting::Number((*v).into()),
            Some(Choice::Double(v)) => Number::from_f64(*v).map_or(Setting::Other, Setting::Number),
            Some(Choice::Text(v)) if v.len() <= LONGEST_SETTING => Setting::Text(v.clone()),
            _ => Setting::Other,
        };
        out.set(key, value).map_err(Refusal::invalid)?;
    }
    Ok(out)
}

fn of_json(value: &Value) -> Parameter {
    let choice = match value {
        Value::Bool(v) => Choice::Bool(*v),
        Value::Number(n) => match n.as_i64() {
            Some(v) => Choice::Int(v),
            None => Choice::Double(n.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Choice::Text(text.clone()),
        other => Choice::Text(other.to_string()),
    };
    Parameter { choice: Some(choice) }
}

/// The tensors: all as raw bytes, or all in their own fields.
fn tensors(
    inputs: Vec<messages::Tensor>,
    raw: &[Bytes],
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Input>> {
    if inputs.is_empty() {
        return Err(Refusal::invalid("there are no inputs"));
    }
    if !raw.is_empty() && raw.len() != inputs.len() {
        return Err(Refusal::invalid(format!(
            "{} raw contents for {} inputs; give one each, or none",
            raw.len(),
            inputs.len()
        )));
    }
    let mut all: Vec<Input> = Vec::with_capacity(inputs.len());
    for (i, tensor) in inputs.into_iter().enumerate() {
        let messages::Tensor { name, datatype, shape, parameters, contents } = tensor;
        if all.iter().any(|other| other.name == name) {
            return Err(Refusal::invalid(format!("the input `{name}` is given twice")));
        }
        given(&parameters)?.refuse_unsupported()?;
        let contents = match raw.get(i) {
            Some(_) if !contents.is_empty() => {
                return Err(Refusal::invalid(format!(
                    "the input `{name}` has raw and typed contents; give one"
                )));
            }
            Some(raw) => Contents::Raw(raw),
            None => Contents::Values(typed(&name, &datatype, &contents, reserve)?),
        };
        all.push(crate::protocol::tensor(name, &shape, &datatype, contents, reserve)?);
    }
    Ok(all)
}

/// Values in their own fields.
fn typed(
    name: &str,
    datatype: &str,
    contents: &[u8],
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Values> {
    let values = match Datatype::of_input(datatype) {
        Some(kind) => wire::values(kind, contents, reserve)?,
        None => None,
    };
    values.ok_or_else(|| {
        Refusal::invalid(format!(
            "the input `{name}` of {datatype} has no typed contents of that type; send raw contents"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::fuzz::mutate::{Random, mutate};
    use crate::protocol::fuzz::{FLOOR, check_refusal, counted, fuzz, size, sound};

    #[test]
    fn headers_of_calls() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            patience(&headers)
        };
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("3S"), Some(Duration::from_secs(3)));
        assert_eq!((of("S"), of("3x"), of("")), (None, None, None));
        assert_eq!(percent("a é%\n"), "a %C3%A9%25%0A");
    }

    fn length_delimited(number: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        prost::encode_length_delimiter(value.len(), &mut out).unwrap();
        [&out, value].concat()
    }

    fn tensor(datatype: &str, shape: &[u8], contents: &[u8]) -> Vec<u8> {
        let parts = [(1, &b"x"[..]), (2, datatype.as_bytes()), (3, shape), (5, contents)];
        let parts = parts.map(|(number, value)| length_delimited(number, value));
        length_delimited(5, &parts.concat())
    }

    /// Messages as clients send them.
    fn seeds() -> Vec<Vec<u8>> {
        let floats: Vec<u8> = [0.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let doubles: Vec<u8> = [0.5f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let texts = [length_delimited(8, b"ab"), length_delimited(8, b"")].concat();
        let number = [&length_delimited(1, b"alpha")[..], &[0x12, 9, 0x21], &0.05f64.to_le_bytes()];
        let more = [
            length_delimited(1, b"model"),
            length_delimited(3, b"id"),
            length_delimited(4, &number.concat()),
            length_delimited(6, &length_delimited(1, b"score")),
        ];
        let raw = [tensor("FP32", &[1, 2], b""), length_delimited(7, &floats)].concat();
        let inputs = [
            tensor("FP32", &[1, 2], &length_delimited(6, &floats)),
            tensor("FP64", &[1, 2], &length_delimited(7, &doubles)),
            tensor("UINT8", &[1, 1, 1, 3], &length_delimited(4, &[1, 2, 0xff, 1])),
            tensor("BYTES", &[2], &texts),
            raw,
        ];
        inputs.map(|input| [&more.concat()[..], &input].concat()).into()
    }

    /// Read a message, as soundly as there is room for it; whether it is a request.
    fn check(message: &[u8]) -> bool {
        let mut told = 0;
        let length = message.len();
        let read = || {
            let request = request(Bytes::copy_from_slice(message))?;
            crate::protocol::parameters(&given(&request.parameters)?)?;
            tensors(request.inputs, &request.raw_inputs, &mut |bytes| {
                told += bytes;
                Ok(())
            })
        };
        let (read, most) = counted(read);
        // A string of two bytes has a place of 24.
        assert!(told <= 13 * length, "{told} bytes asked for, for {length}");
        assert!(most <= FLOOR + told + 2 * length, "{most} held, {told} asked for, for {length}");
        match read {
            Ok(inputs) => {
                for input in &inputs {
                    sound(input);
                }
                assert!(inputs.iter().map(size).sum::<usize>() <= told);
                true
            }
            Err(refused) => {
                check_refusal(&refused);
                false
            }
        }
    }

    #[test]
    fn damaged_messages() {
        let seeds = seeds();
        for seed in &seeds {
            assert!(check(seed), "{seed:?}");
        }
        let make = |random: &mut Random| {
            let [seed, other] = [0, 1].map(|_| random.below(seeds.len()));
            mutate(&seeds[seed], &seeds[other], random)
        };
        fuzz(30_000, make, |message| check(message));
    }

    /// Small parts, many times: none is worth more than its bytes.
    #[test]
    fn many_small_parts() {
        const SIZE: usize = 1 << 18;
        let repeated = |part: &[u8]| part.repeat(SIZE / part.len());
        let bombs = [
            ("inputs", repeated(&[0x2a, 0])),
            ("inputs with contents", repeated(&[0x2a, 2, 0x2a, 0])),
            ("outputs", repeated(&[0x32, 0])),
            ("raw contents", repeated(&[0x3a, 0])),
            ("parameters", repeated(&length_delimited(4, &length_delimited(1, b"a")))),
            ("a packed shape", tensor("FP32", &repeated(&[1]), b"")),
            ("strings", tensor("BYTES", &[1], &repeated(&[0x42, 0]))),
            ("pixels one by one", tensor("UINT8", &[1], &repeated(&[0x20, 1]))),
            ("numbers one by one", tensor("FP32", &[1], &repeated(&[0x35, 0, 0, 0, 0]))),
            ("values of no use", tensor("FP32", &[1], &length_delimited(3, &repeated(&[1])))),
            ("a long name", length_delimited(1, &repeated(b"x"))),
            ("a group", repeated(&[0x0b])),
        ];
        for (name, message) in bombs {
            assert!(!check(&message), "{name}");
        }
    }
}
