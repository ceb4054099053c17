//! What the addresses have in common: which model a path names, answers in JSON, refusals, the line
//! that each request is in the log.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::model::Model;
use crate::protocol;
use crate::refusal::{Kind, Refusal, Result};
use crate::served::Served;
use crate::shared::Shared;

/// A refusal as an answer.
pub fn refusal(shared: &Shared, refused: &Refusal) -> Response {
    shared.metrics.refused(refused.kind);
    let status = StatusCode::from_u16(refused.kind.status()).unwrap_or_default();
    let mut answer = json_answer(status, &json!({"error": refused.message()}));
    let headers = answer.headers_mut();
    match refused.kind {
        Kind::Busy | Kind::Unavailable => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Kind::Unauthenticated => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // What is left of the body is not read: the next request would begin within it.
        Kind::TooLarge | Kind::Slow => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    answer
}

/// JSON as an answer.
pub fn json_answer(status: StatusCode, value: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, Body::from(value.to_string())).into_response()
}

/// JSON as the answer that all is well.
pub fn ok(value: &Value) -> Response {
    json_answer(StatusCode::OK, value)
}

/// What was asked for, or why not.
pub fn answer(shared: &Shared, found: Result<Value>) -> Response {
    match found {
        Ok(value) => ok(&value),
        Err(refused) => refusal(shared, &refused),
    }
}

/// The model and version of a path.
#[derive(serde::Deserialize)]
pub struct Named {
    /// The name of the model.
    pub model: String,
    /// That of the version, if the path has one.
    #[serde(default)]
    pub version: Option<String>,
}

impl FromRequestParts<Arc<Shared>> for Named {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        shared: &Arc<Shared>,
    ) -> std::result::Result<Self, Response> {
        let named = Path::<Named>::from_request_parts(parts, shared).await;
        let wrong = |text: &str| refusal(shared, &Refusal::new(Kind::NotFound, text));
        let Path(named) = named.map_err(|_| wrong("the address names no model: it is no UTF-8"))?;
        if named.version.as_deref() == Some("") {
            return Err(wrong("the address names no version"));
        }
        Ok(named)
    }
}

impl Named {
    /// The model of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn served<'a>(&self, shared: &'a Shared) -> Result<&'a Arc<Served>> {
        shared.models.get(&self.model).ok_or_else(|| {
            Refusal::new(Kind::NotFound, format!("there is no model `{}`", self.model))
        })
    }

    /// What is loaded of it, in the version that is named.
    ///
    /// # Errors
    /// If there is none such.
    pub fn loaded(&self, shared: &Shared) -> Result<Arc<Model>> {
        self.served(shared)?.version(self.version.as_deref())
    }

    /// What Triton's protocol calls the configuration of a model.
    ///
    /// # Errors
    /// As [`loaded`](Self::loaded).
    pub fn config(&self, shared: &Shared) -> Result<Value> {
        let model = self.loaded(shared)?;
        let metadata = model.metadata(self.served(shared)?.network.is_some());
        let rename = |tensors: &Value| -> Vec<Value> {
            let tensors = tensors.as_array().into_iter().flatten();
            let one = |t: &Value| {
                let kind = t["datatype"].as_str().unwrap_or_default().replace("BYTES", "STRING");
                let dims = t["shape"].as_array().map(|s| s.iter().skip(1).cloned().collect());
                let dims: Vec<Value> = dims.unwrap_or_default();
                json!({"name": t["name"], "data_type": format!("TYPE_{kind}"), "dims": dims})
            };
            tensors.map(one).collect()
        };
        Ok(json!({
            "name": model.name,
            "platform": metadata["platform"],
            "max_batch_size": shared.settings.max_request_rows,
            "input": rename(&metadata["inputs"]),
            "output": rename(&metadata["outputs"]),
        }))
    }

    /// The name for counts, of a closed set.
    pub fn counted<'a>(&'a self, shared: &Shared) -> &'a str {
        if shared.models.contains_key(&self.model) { &self.model } else { "unknown" }
    }
}

/// Count a request and say it, whatever was answered.
pub fn told(
    shared: &Shared,
    named: &Named,
    headers: &HeaderMap,
    began: Instant,
    status: u16,
    about: Value,
) {
    let took = began.elapsed();
    shared.metrics.answered(named.counted(shared), status, took);
    if !shared.settings.log_requests {
        return;
    }
    let mut fields = json!({
        "model": named.counted(shared), "code": status, "us": took.as_micros() as u64,
    });
    if let (Value::Object(fields), Value::Object(about)) = (&mut fields, about) {
        fields.extend(about);
        let trace = headers.get("traceparent").and_then(|value| value.to_str().ok());
        if let Some(trace) = trace.filter(|trace| is_trace(trace)) {
            fields.insert("traceparent".into(), trace.into());
        }
    }
    shared.log.say("info", "request", fields);
}

/// Whether that is a `traceparent`: version, trace, parent and flags in lower-case hexadecimal
/// digits (<https://www.w3.org/TR/trace-context>). Anything else of a client's belongs in no log.
fn is_trace(text: &str) -> bool {
    let digits = |part: &str, n: usize| {
        part.len() == n && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<&str> = text.split('-').collect();
    let &[version, trace, parent, flags] = &parts[..] else { return false };
    digits(version, 2) && digits(trace, 32) && digits(parent, 16) && digits(flags, 2)
}

/// The name of the header for axum.
pub fn length_header() -> header::HeaderName {
    header::HeaderName::from_static(protocol::LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first is the example of the recommendation.
    #[test]
    fn traces() {
        assert!(is_trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        for wrong in [
            "",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-secret",
            "an address and a name",
        ] {
            assert!(!is_trace(wrong), "{wrong}");
        }
    }
}
