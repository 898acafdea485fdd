//! What operators and people ask for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

use super::{Body, Description, asked};
use crate::serve::problem::{Problem, ProblemBody};
use crate::serve::served::Info;
use crate::serve::shared::Shared;

/// The page for people.
const PAGE: &str = include_str!("../page.html");

/// Whether it is there.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
}

/// An empty object.
#[derive(Debug, serde::Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadRequest {}

/// What is served now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReloadAnswer {
    fingerprint: String,
}

/// The models, their metrics and the data.
#[utoipa::path(get, path = "/info", responses(
    (status = 200, description = "What is served", body = Info),
    (status = "4XX", description = "What is wrong", body = ProblemBody),
))]
pub(super) async fn info(State(shared): State<Arc<Shared>>) -> Json<Info> {
    Json(shared.served().info.clone())
}

/// Whether the server runs.
#[utoipa::path(get, path = "/health/live", responses((status = 200, description = "It runs", body = Health)))]
pub(super) async fn live() -> Json<Health> {
    Json(Health { status: "live" })
}

/// Whether the server answers requests; it listens once its models are loaded.
#[utoipa::path(get, path = "/health/ready", responses((status = 200, description = "It answers", body = Health)))]
pub(super) async fn ready() -> Json<Health> {
    Json(Health { status: "ready" })
}

/// Metrics, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
))]
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let items = shared.served().recommender.catalog().catalog.len();
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text(items)).into_response()
}

/// Load the folder again, without a lost request: what was asked before is answered by the models of before.
#[utoipa::path(post, path = "/admin/reload", request_body = ReloadRequest, responses(
    (status = 200, description = "It is loaded", body = ReloadAnswer),
    (status = "4XX", description = "What is wrong", body = ProblemBody),
    (status = 500, description = "It cannot be loaded; what was served before still is", body = ProblemBody),
))]
pub(super) async fn reload(State(shared): State<Arc<Shared>>, body: Body) -> Result<Json<ReloadAnswer>, Problem> {
    let ReloadRequest {} = asked(body)?;
    let served = shared.reload().await?;
    Ok(Json(ReloadAnswer { fingerprint: served.recommender.fingerprint().to_owned() }))
}

/// The description of all routes (OpenAPI 3.1).
pub(super) async fn description() -> Json<Value> {
    Json(serde_json::to_value(Description::openapi()).unwrap_or_default())
}

/// The page needs nothing from elsewhere, and may load nothing.
pub(super) async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE)).into_response()
}
