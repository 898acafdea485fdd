//! Routes, and what requests and answers look like.

mod items;
mod operations;
mod recommend;
mod rerank;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use utoipa::OpenApi;

use super::guard::guard;
use super::problem::Problem;
use super::shared::Shared;
use super::watch::watch;

/// Most bytes of a body.
const LARGEST_BODY: usize = 1 << 20;

/// Longest list.
const MAX_TOP: usize = 100;

/// Longest history, and most histories, items or documents of a request.
const MAX_HISTORY: usize = 1000;

/// The description of all routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "LatentR3", description = "Recommendations of one shop's catalog."),
    paths(
        recommend::recommend,
        rerank::rerank,
        items::find_items,
        items::add_items,
        operations::info,
        operations::live,
        operations::ready,
        operations::metrics,
        operations::reload,
    )
)]
pub(super) struct Description;

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/recommend", post(recommend::recommend))
        .route("/v1/rerank", post(rerank::rerank))
        .route("/v1/items", get(items::find_items).post(items::add_items))
        .route("/info", get(operations::info))
        .route("/health/live", get(operations::live))
        .route("/health/ready", get(operations::ready))
        .route("/metrics", get(operations::metrics))
        .route("/admin/reload", post(operations::reload))
        .route("/openapi.json", get(operations::description))
        .route("/", get(operations::page))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not accept this method")
        })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(from_fn_with_state(shared.clone(), guard))
        .layer(from_fn_with_state(shared.clone(), watch))
        .with_state(shared)
}

/// The body of a request.
type Body = Result<Json<Map<String, Value>>, JsonRejection>;

/// What a body asks for.
fn asked<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let Json(body) = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    serde_path_to_error::deserialize(Value::Object(body)).map_err(|error| {
        // A dot stands for the whole body.
        let field = Some(error.path().to_string()).filter(|path| path != ".");
        Problem { field, ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.into_inner().to_string()) }
    })
}

/// A whole number, written with a point or without, as JSON schemas have it.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let number = Number::deserialize(from)?;
    let written_with_point = || number.as_f64().filter(|value| value.fract() == 0.0 && (0.0..=1e15).contains(value));
    let value = number.as_u64().or_else(|| written_with_point().map(|value| value as u64));
    let problem = || D::Error::custom(format!("`{number}` is not a non-negative whole number"));
    value.and_then(|value| usize::try_from(value).ok()).ok_or_else(problem)
}

/// [`whole`], or none.
fn whole_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    #[derive(Deserialize)]
    struct Whole(#[serde(deserialize_with = "whole")] usize);
    Ok(Option::<Whole>::deserialize(from)?.map(|Whole(value)| value))
}

/// Refuses a list that is too long.
fn check_length<T>(field: &'static str, list: &[T], most: usize) -> Result<(), Problem> {
    match list.len() > most {
        true => Err(Problem::of_field(field, format!("must have at most {most} entries"))),
        false => Ok(()),
    }
}
