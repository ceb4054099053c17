//! The admin plane: what the server does, and what an operator can do with it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answers::{Named, answer, ok};
use super::body;
use crate::log::seconds;
use crate::refusal::{Kind, Refusal, Result};
use crate::served::Served;
use crate::shared::Shared;

/// What the page may do: nothing but show what comes from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Body::from(text)).into_response()
}

/// `GET /`
pub async fn page() -> Response {
    file("text/html; charset=utf-8", include_str!("../page/page.html"))
}

/// `GET /page.js`
pub async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../page/page.js"))
}

/// `GET /page.css`
pub async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../page/page.css"))
}

/// Refuse pages of other sites, and names that were made to lead here.
///
/// # Errors
/// If the request comes from another site's page.
pub fn check_site(shared: &Shared, headers: &HeaderMap) -> Result<()> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let foreign = |text: &str| Err(Refusal::new(Kind::Forbidden, text));
    let host = text(header::HOST).unwrap_or_default();
    if !host.is_empty() && !shared.is_own_host(host) {
        return foreign("the header Host names another server; add it by `--admin-host`");
    }
    match text(header::ORIGIN) {
        Some(origin) if origin.split_once("://").map(|(_, host)| host) != Some(host) => {
            foreign("requests of other sites' pages are not taken")
        }
        _ => Ok(()),
    }
}

/// `GET /metrics`
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let models: Vec<_> =
        shared.models.values().filter_map(|served| served.current().ok()).collect();
    let text = shared.metrics.text(&models, shared.budget.used(), shared.log.dropped());
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, Body::from(text)).into_response()
}

fn models(shared: &Shared) -> Vec<Value> {
    let one = |served: &Arc<Served>| {
        let loaded = served.loaded();
        let model = served.current().ok();
        let state = if model.is_some() { "READY" } else { "UNAVAILABLE" };
        let mut value = json!({
            "name": served.name,
            "version": model.as_ref().map(|m| m.version.clone()).unwrap_or_default(),
            "state": state,
            "reason": loaded.problem.clone().unwrap_or_else(|| {
                if loaded.unloaded { "taken out of service".into() } else { String::new() }
            }),
            "loaded": seconds(loaded.at),
        });
        if let Some(model) = model {
            value["sha256"] = model.sha256.clone().into();
            value["scorer"] = model.detector.scorer().name().into();
            value["calibrated"] = model.detector.calibration().is_some().into();
        }
        value
    };
    shared.models.values().map(one).collect()
}

/// `POST /v2/repository/index`
pub async fn index(State(shared): State<Arc<Shared>>) -> Response {
    ok(&models(&shared).into())
}

/// `GET /heat/v1/status`
pub async fn status(State(shared): State<Arc<Shared>>) -> Response {
    let mut all = models(&shared);
    for model in &mut all {
        let name = model["name"].as_str().unwrap_or_default().to_owned();
        model["watched"] = shared.metrics.monitor().drift(&name).unwrap_or_default();
        model["recent"] = shared.metrics.monitor().recent(&name).unwrap_or_default();
    }
    ok(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": shared.is_ready(),
        "uptime_seconds": shared.began.elapsed().as_secs(),
        "queue_rows": shared.metrics.queue_rows(),
        "memory_bytes": shared.budget.used(),
        "traffic": shared.metrics.monitor().traffic(),
        "models": all,
    }))
}

/// `GET /heat/v1/models/{model}/drift`
pub async fn drift(State(shared): State<Arc<Shared>>, named: Named) -> Response {
    let found =
        named.served(&shared).map(|served| {
            shared.metrics.monitor().drift(&served.name).unwrap_or_else(
                || json!({"state": "too few rows", "watched_rows": 0, "alarms": []}),
            )
        });
    answer(&shared, found)
}

/// `GET /heat/v1/models/{model}/recent`
pub async fn recent(State(shared): State<Arc<Shared>>, named: Named) -> Response {
    let found = named.served(&shared);
    let found =
        found.map(|s| shared.metrics.monitor().recent(&s.name).unwrap_or_else(|| json!([])));
    answer(&shared, found)
}

/// `POST /heat/v1/models/{model}/drift/reset`
pub async fn reset(State(shared): State<Arc<Shared>>, named: Named) -> Response {
    let found = named.loaded(&shared);
    let found = found.map(|model| json!({"reset": shared.metrics.monitor().reset(&model)}));
    answer(&shared, found)
}

/// `POST /heat/v1/models/{model}/drift/acknowledge`
pub async fn acknowledge(State(shared): State<Arc<Shared>>, named: Named) -> Response {
    let found = named.served(&shared);
    let found =
        found.map(|s| json!({"acknowledged": shared.metrics.monitor().acknowledge(&s.name)}));
    answer(&shared, found)
}

/// Refuse what Triton's clients may send along: another configuration, or files.
fn check_empty(body: &[u8]) -> Result<()> {
    let given: Value = serde_json::from_slice(body).unwrap_or_default();
    let parameters = given["parameters"].as_object();
    let unwanted = |key: &String| key == "config" || key.starts_with("file:");
    match parameters.and_then(|p| p.keys().find(|key| unwanted(key))) {
        Some(key) => Err(Refusal::invalid(format!(
            "the parameter `{key}` is not taken: what is served is told when the server is started"
        ))),
        None => Ok(()),
    }
}

/// `POST /v2/repository/models/{model}/load`
pub async fn load(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let loaded = async {
        let served = Arc::clone(named.served(&shared)?);
        let whole = body::read(&headers, body, &shared.body, &shared.budget).await?;
        check_empty(&whole.bytes)?;
        let own = Arc::clone(&shared);
        let reload = tokio::task::spawn_blocking(move || own.reload(&served));
        let failed = |_| Refusal::new(Kind::Internal, "the file could not be read");
        let version = reload.await.map_err(failed)??;
        Ok(json!({"name": named.served(&shared)?.name, "version": version}))
    };
    answer(&shared, loaded.await)
}

/// `POST /v2/repository/models/{model}/unload`
pub async fn unload(State(shared): State<Arc<Shared>>, named: Named) -> Response {
    let found = named.served(&shared).map(|served| {
        served.unload();
        shared.log.say("info", "a model was taken out of service", json!({"model": served.name}));
        json!({})
    });
    answer(&shared, found)
}
