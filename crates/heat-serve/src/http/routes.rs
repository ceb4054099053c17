//! Addresses. Those of the data plane that anyone may ask, those that need a token, and the
//! admin plane are three routers, so that who may ask what hangs on no text of a path.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use serde_json::{Value, json};

use super::accept::Routers;
use super::answers::{Named, answer, json_answer, ok, refusal};
use super::openapi::{Route, describe};
use super::{admin as administer, infer};
use crate::refusal::{Kind, Refusal, no_connections};
use crate::shared::Shared;
use crate::tokens::Scope;

type Handler = MethodRouter<Arc<Shared>>;

/// The routes of the data plane with what answers them.
fn data_routes() -> Vec<(Route, Handler)> {
    let public = |path, summary, handler| {
        (Route { path, method: Method::GET, open: true, summary }, handler)
    };
    let score = |path, summary, handler| {
        (Route { path, method: Method::GET, open: false, summary }, handler)
    };
    let infers = |path| {
        let (method, summary) = (Method::POST, "Score rows");
        (Route { path, method, open: false, summary }, post(infer::infer))
    };
    vec![
        public("/v2/health/live", "Whether the server runs", get(live)),
        public("/v2/health/ready", "Whether it takes requests", get(ready)),
        public("/v2", "What the server is", get(server)),
        public("/v2/", "What the server is", get(server)),
        score("/v2/models", "The names of the models", get(models)),
        score("/v2/models/stats", "Counts of all models", get(all_stats)),
        score("/v2/models/{model}", "What a model reads and gives", get(metadata)),
        score("/v2/models/{model}/ready", "Whether a model is loaded", get(model_ready)),
        score("/v2/models/{model}/config", "The same for load generators", get(config)),
        score("/v2/models/{model}/stats", "Counts of a model", get(stats)),
        infers("/v2/models/{model}/infer"),
        score(
            "/v2/models/{model}/versions/{version}",
            "What a version reads and gives",
            get(metadata),
        ),
        score(
            "/v2/models/{model}/versions/{version}/ready",
            "Whether a version is loaded",
            get(model_ready),
        ),
        score(
            "/v2/models/{model}/versions/{version}/config",
            "The same for load generators",
            get(config),
        ),
        score("/v2/models/{model}/versions/{version}/stats", "Counts of a version", get(stats)),
        infers("/v2/models/{model}/versions/{version}/infer"),
        score("/openapi.json", "This document", get(document)),
    ]
}

/// The routes of the admin plane with what answers them.
fn admin_routes() -> Vec<(Route, Handler)> {
    let all = |path, method: Method, summary, handler| {
        (Route { path, method, open: false, summary }, handler)
    };
    let page = |path, summary, handler| {
        (Route { path, method: Method::GET, open: true, summary }, handler)
    };
    let (read, write) = (Method::GET, Method::POST);
    vec![
        page("/", "The page", get(administer::page)),
        page("/page.js", "Its script", get(administer::script)),
        page("/page.css", "Its style", get(administer::style)),
        all("/metrics", read.clone(), "Counts for Prometheus", get(administer::metrics)),
        all("/heat/v1/status", read.clone(), "What the page shows", get(administer::status)),
        all("/heat/v1/models/{model}/drift", read.clone(), "Drift", get(administer::drift)),
        all("/heat/v1/models/{model}/recent", read, "The latest requests", get(administer::recent)),
        all(
            "/heat/v1/models/{model}/drift/reset",
            write.clone(),
            "Begin anew with the drift test",
            post(administer::reset),
        ),
        all(
            "/heat/v1/models/{model}/drift/acknowledge",
            write.clone(),
            "Say that an alarm was seen",
            post(administer::acknowledge),
        ),
        all("/v2/repository/index", write.clone(), "The models", post(administer::index)),
        all(
            "/v2/repository/models/{model}/load",
            write.clone(),
            "Read a model's file again",
            post(administer::load),
        ),
        all(
            "/v2/repository/models/{model}/unload",
            write,
            "Take a model out of service",
            post(administer::unload),
        ),
    ]
}

/// Those that anyone may ask, and those that take a token of that scope.
fn router(routes: Vec<(Route, Handler)>, scope: Scope, shared: &Arc<Shared>) -> Router {
    let (mut open, mut guarded) = (Router::new(), Router::new());
    for (route, handler) in routes {
        let to = if route.open { &mut open } else { &mut guarded };
        *to = std::mem::take(to).route(route.path, handler);
    }
    let check = move |State(shared): State<Arc<Shared>>, request: Request, next: Next| async move {
        let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        match shared.permit(given, scope) {
            Ok(()) => next.run(request).await,
            Err(refused) => refusal(&shared, &refused),
        }
    };
    let guarded = guarded.layer(from_fn_with_state(Arc::clone(shared), check));
    open.merge(guarded)
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing)
        .with_state(Arc::clone(shared))
}

/// The data plane.
pub fn data(shared: &Arc<Shared>) -> Routers {
    routers(router(data_routes(), Scope::Score, shared), shared)
}

fn routers(all: Router, shared: &Arc<Shared>) -> Routers {
    let own = Arc::clone(shared);
    Routers { all, full: full(shared), refuse: Arc::new(move |refused| refusal(&own, refused)) }
}

/// What is there for a connection beyond the limit: who asks for the server's health must not wait
/// until others have ended.
fn full(shared: &Arc<Shared>) -> Router {
    let health =
        data_routes().into_iter().filter(|(route, _)| route.path.starts_with("/v2/health"));
    let health = health.fold(Router::new(), |to, (route, handler)| to.route(route.path, handler));
    health.fallback(no_place).with_state(Arc::clone(shared))
}

async fn no_place(State(shared): State<Arc<Shared>>) -> Response {
    refusal(&shared, &no_connections())
}

/// The admin plane, which pages of other sites may not use.
pub fn admin(shared: &Arc<Shared>) -> Routers {
    let check = |State(shared): State<Arc<Shared>>, request: Request, next: Next| async move {
        match administer::check_site(&shared, request.headers()) {
            Ok(()) => next.run(request).await,
            Err(refused) => refusal(&shared, &refused),
        }
    };
    let all = router(admin_routes(), Scope::Admin, shared)
        .layer(from_fn_with_state(Arc::clone(shared), check));
    routers(all, shared)
}

async fn nothing(State(shared): State<Arc<Shared>>) -> Response {
    refusal(&shared, &Refusal::new(Kind::NotFound, "nothing is at this address"))
}

// Which are, axum says in `Allow`.
async fn wrong_method(State(shared): State<Arc<Shared>>, method: Method) -> Response {
    let text = format!("{method} is not possible at this address");
    refusal(&shared, &Refusal::new(Kind::Method, text))
}

async fn live() -> Response {
    ok(&json!({"live": true, "ready": true}))
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let ready = shared.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_answer(status, &json!({"live": true, "ready": ready}))
}

async fn server() -> Response {
    ok(&json!({
        "name": "heat",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "model_repository", "statistics", "model_configuration"],
    }))
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    let names: Vec<&String> = shared.models.keys().collect();
    ok(&json!({"models": names}))
}

async fn metadata(State(shared): State<Arc<Shared>>, named: Named) -> Response {
    let found = named.served(&shared).and_then(|served| {
        let model = served.version(named.version.as_deref())?;
        Ok(model.metadata(served.network.is_some()))
    });
    answer(&shared, found)
}

async fn model_ready(State(shared): State<Arc<Shared>>, named: Named) -> Response {
    match named.loaded(&shared) {
        Ok(model) => ok(&json!({"name": model.name, "ready": shared.is_ready()})),
        Err(refused) if refused.kind == Kind::Unavailable => {
            let unready = json!({"name": named.model, "ready": false});
            json_answer(StatusCode::SERVICE_UNAVAILABLE, &unready)
        }
        Err(refused) => refusal(&shared, &refused),
    }
}

async fn config(State(shared): State<Arc<Shared>>, named: Named) -> Response {
    answer(&shared, named.config(&shared))
}

async fn stats(State(shared): State<Arc<Shared>>, named: Named) -> Response {
    let found = named
        .loaded(&shared)
        .map(|model| json!({"model_stats": [shared.metrics.statistics(&model)]}));
    answer(&shared, found)
}

async fn all_stats(State(shared): State<Arc<Shared>>) -> Response {
    let loaded = shared.models.values().filter_map(|served| served.current().ok());
    let all: Vec<Value> = loaded.map(|model| shared.metrics.statistics(&model)).collect();
    ok(&json!({"model_stats": all}))
}

async fn document() -> Response {
    let routes: Vec<Route> = data_routes().into_iter().map(|(route, _)| route).collect();
    ok(&describe(&routes))
}
