//! From a request to be scored to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::answers::{Named, length_header, refusal, told};
use super::body::{self, Held, Whole};
use crate::budget::Charge;
use crate::metrics::Told;
use crate::model::Model;
use crate::protocol::{self, Answer, Request, encode};
use crate::queue::{self, Job};
use crate::refusal::{Kind, Refusal, Result};
use crate::rows;
use crate::scored::Scored;
use crate::served::Served;
use crate::shared::Shared;

/// Bodies of more bytes are read elsewhere than where connections are waited for.
const LONG: usize = 64 << 10;

/// `POST /v2/models/{model}/infer`
pub async fn infer(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let began = Instant::now();
    match answer(&shared, &named, &headers, body, began).await {
        Ok((response, about)) => {
            told(&shared, &named, &headers, began, response.status().as_u16(), about);
            response
        }
        Err(refused) => {
            let about = json!({"error": refused.for_log()});
            told(&shared, &named, &headers, began, refused.kind.status(), about);
            refusal(&shared, &refused)
        }
    }
}

async fn answer(
    shared: &Arc<Shared>,
    named: &Named,
    headers: &HeaderMap,
    body: Body,
    began: Instant,
) -> Result<(Response, Value)> {
    let served = Arc::clone(named.served(shared)?);
    let model = served.version(named.version.as_deref())?;
    if shared.is_ending() {
        return Err(Refusal::new(Kind::Unavailable, "the server is about to end"));
    }
    let length = length(headers)?;
    let whole = body::read(headers, body, &shared.body, &shared.budget).await?;
    let deadline = began + shared.settings.request_timeout;
    let (request, charge) = parse(&model, whole, length, deadline).await?;
    let Request { id, parameters, inputs, outputs } = request;
    let asked = model.asked(outputs.as_deref(), parameters.binary)?;
    let scored = Ask { shared, served: &served, model: &model, began, id: id.as_deref() }
        .score(inputs, parameters.alpha, parameters.timeout, charge)
        .await?;
    let about = about(id.as_deref(), &model, &scored);
    // Its columns, and their bytes.
    let mut held = shared.budget.charge();
    let expected = 2 * model.answer_bytes(&asked, scored.scores.len());
    held.take(expected);
    let columns = asked
        .into_iter()
        .map(|(output, binary)| {
            (model.output_name(output).to_owned(), model.column(output, &scored), binary)
        })
        .collect();
    let answer = Answer {
        id,
        model: model.name.clone(),
        version: model.version.clone(),
        parameters: said(&model, parameters.alpha, &scored),
        outputs: columns,
    };
    let (mut bytes, json) = encode(&answer);
    drop(answer);
    held.give_back(expected);
    held.take(bytes.capacity());
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    let kind = match json {
        Some(length) => {
            out.insert(length_header(), HeaderValue::from(length));
            "application/octet-stream"
        }
        None => "application/json",
    };
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(packing) = body::accepted(headers).filter(|_| shared.settings.compress) {
        let packed = tokio::task::spawn_blocking(move || body::pack(packing, &bytes)).await;
        let failed = |_| Refusal::new(Kind::Internal, "the answer could not be packed");
        bytes = packed
            .map_err(failed)?
            .map_err(|_| Refusal::new(Kind::Internal, "the answer could not be packed"))?;
        let name = match packing {
            body::Packing::Gzip => "gzip",
            body::Packing::Deflate => "deflate",
        };
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    *response.body_mut() = Body::new(Held::new(bytes, held));
    *response.status_mut() = StatusCode::OK;
    Ok((response, about))
}

/// What the header of the binary extension says.
fn length(headers: &HeaderMap) -> Result<Option<usize>> {
    let mut given = headers.get_all(length_header()).iter();
    let Some(first) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Refusal::invalid("Inference-Header-Content-Length is given twice"));
    }
    let text = first.to_str().unwrap_or_default();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let length = text.parse::<usize>().ok().filter(|_| digits);
    length.map(Some).ok_or_else(|| {
        Refusal::invalid(format!("Inference-Header-Content-Length is {text:?}, expected a number"))
    })
}

/// Read the body, which then is held no more.
async fn parse(
    model: &Arc<Model>,
    whole: Whole,
    length: Option<usize>,
    deadline: Instant,
) -> Result<(Request, Charge)> {
    let model = Arc::clone(model);
    let size = whole.bytes.len();
    let run = move || {
        let Whole { bytes, mut charge } = whole;
        let mut reserve = |more| charge.add(more);
        let request = match length {
            Some(0) => {
                let &[(field, dim)] = &model.inputs[..] else {
                    return Err(Refusal::invalid(
                        "a raw body, without JSON, is for models that read one tensor",
                    ));
                };
                protocol::raw(&bytes, field.name(), dim, &mut reserve)
            }
            length => protocol::parse(&bytes, length, &mut reserve),
        }?;
        let held = bytes.len();
        drop(bytes);
        charge.give_back(held);
        Ok((request, charge))
    };
    aside(size, deadline, run).await
}

/// Read what is in a body of that many bytes: a long one not where connections are waited for, and
/// within the time that an answer has.
///
/// # Errors
/// As `run`, or if it takes too long.
pub async fn aside<T: Send + 'static>(
    size: usize,
    deadline: Instant,
    run: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if size <= LONG {
        return run();
    }
    let failed = |_| Refusal::new(Kind::Internal, "the body could not be read");
    let reading = tokio::time::timeout_at(deadline.into(), tokio::task::spawn_blocking(run));
    reading.await.map_err(|_| queue::late())?.map_err(failed)?
}

/// Rows that are to be scored by a model.
pub struct Ask<'a> {
    /// The server.
    pub shared: &'a Arc<Shared>,
    /// The name asked for.
    pub served: &'a Served,
    /// What is loaded of it.
    pub model: &'a Arc<Model>,
    /// When the request came.
    pub began: Instant,
    /// The client's name for it.
    pub id: Option<&'a str>,
}

impl Ask<'_> {
    /// Wait until the rows are scored, or their time is over.
    ///
    /// # Errors
    /// If they do not go with the model, there is no room, or it took too long.
    pub async fn score(
        &self,
        inputs: Vec<protocol::Input>,
        alpha: Option<f64>,
        timeout: Option<u64>,
        charge: Charge,
    ) -> Result<Scored> {
        let Ask { shared, served, model, began, id } = self;
        let network = served.network.as_ref();
        let limit = shared.settings.max_request_rows;
        let (input, rows) = rows::of(model, network.is_some(), inputs, limit)?;
        let calibration = alpha.map(|alpha| model.at_rate(alpha)).transpose()?;
        let most = shared.settings.request_timeout;
        let timeout = timeout.map_or(most, |micros| Duration::from_micros(micros).min(most));
        let deadline = *began + timeout;
        let (reply, found) = oneshot::channel();
        let queue = match (&input, network) {
            (queue::Rows::Images(_), Some((_, queue))) => queue,
            _ => &served.queue,
        };
        let model = Arc::clone(model);
        queue.push(Job {
            model: Arc::clone(&model),
            input,
            rows,
            calibration,
            deadline,
            reply,
            _charge: charge,
        })?;
        let found = tokio::time::timeout_at(deadline.into(), found).await;
        let ended = |_| Refusal::new(Kind::Unavailable, "the server is about to end");
        let scored = found.map_err(|_| queue::late())?.map_err(ended)??;
        shared.metrics.told(Told {
            model: &model,
            id: *id,
            scored: &scored,
            took: began.elapsed(),
        });
        Ok(scored)
    }
}

/// What the log says of a request that was scored.
pub fn about(id: Option<&str>, model: &Model, scored: &Scored) -> Value {
    json!({
        "id": id, "version": model.version, "rows": scored.scores.len(),
        "queue_us": scored.waited.as_micros() as u64, "score_us": scored.took.as_micros() as u64,
    })
}

/// What an answer says besides its outputs.
pub fn said(model: &Model, alpha: Option<f64>, scored: &Scored) -> Map<String, Value> {
    let mut said = Map::new();
    if let Some(own) = model.detector.calibration() {
        let alpha = alpha.unwrap_or(own.config().alpha);
        said.insert("alpha".into(), alpha.into());
        let promised = match own.forced {
            true => "nothing is promised".into(),
            false => json!(own.config().guarantee),
        };
        said.insert("guarantee".into(), promised);
    }
    said.insert("queue_us".into(), (scored.waited.as_micros() as u64).into());
    said.insert("score_us".into(), (scored.took.as_micros() as u64).into());
    said
}
