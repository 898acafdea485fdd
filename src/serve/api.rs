//! Routes, and what requests and answers look like.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query as Parameters, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::guard::guard;
use super::problem::Problem;
use super::server::Shared;
use crate::fit::Candidate;
use crate::recommend::{Answer, Chosen, Query};

/// Bytes of a body at most.
const LARGEST_BODY: usize = 1 << 20;

/// Longest list.
const MOST: usize = 100;

/// Longest history, and most histories of a request.
const LONGEST: usize = 1000;

/// The page for people.
const PAGE: &str = include_str!("page.html");

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/recommend", post(recommend))
        .route("/v1/items", get(items))
        .route("/info", get(info))
        .route("/health/live", get(|| async { Json(json!({ "status": "live" })) }))
        .route("/health/ready", get(|| async { Json(json!({ "status": "ready" })) }))
        .route("/", get(page))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// For whom to recommend, and among what.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RecommendRequest {
    history: Vec<String>,
    titles: Vec<String>,
    histories: Option<Vec<Vec<String>>>,
    top: usize,
    exclude: Vec<String>,
    only: Option<Vec<String>>,
    exclude_history: Option<bool>,
}

impl Default for RecommendRequest {
    fn default() -> Self {
        Self {
            history: Vec::new(),
            titles: Vec::new(),
            histories: None,
            top: 10,
            exclude: Vec::new(),
            only: None,
            exclude_history: None,
        }
    }
}

/// A list and what made it.
#[derive(Debug, Serialize)]
struct List {
    items: Vec<Listed>,
    model: Candidate,
}

/// An item of a list.
#[derive(Debug, Serialize)]
struct Listed {
    /// The first of the items that have the title.
    id: String,
    /// All of them.
    ids: Vec<String>,
    title: String,
    score: f64,
}

impl From<Answer> for List {
    fn from(answer: Answer) -> Self {
        let listed = |one: crate::recommend::Recommendation| Listed {
            id: one.items.first().cloned().unwrap_or_default(),
            ids: one.items,
            title: one.title,
            score: one.score,
        };
        Self { items: answer.recommendations.into_iter().map(listed).collect(), model: answer.model }
    }
}

impl RecommendRequest {
    /// A query for each history, and whether there may be several.
    fn queries(self, excludes_history: bool) -> Result<(Vec<Query>, bool), Problem> {
        if !(1..=MOST).contains(&self.top) {
            return Err(Problem::of_field("top", format!("is {}; must be from 1 to {MOST}", self.top)));
        }
        let several = self.histories.is_some();
        if several && !(self.history.is_empty() && self.titles.is_empty()) {
            return Err(Problem::of_field("histories", "cannot be given beside history or titles"));
        }
        let own = || {
            let ids = self.history.iter().cloned().map(Chosen::Id);
            vec![ids.chain(self.titles.iter().cloned().map(Chosen::Title)).collect::<Vec<_>>()]
        };
        let ids = |ids: Vec<String>| ids.into_iter().map(Chosen::Id).collect();
        let histories: Vec<Vec<Chosen>> =
            self.histories.map_or_else(own, |histories| histories.into_iter().map(ids).collect());
        let field = if several { "histories" } else { "history" };
        if histories.len() > LONGEST || histories.iter().any(|history| history.len() > LONGEST) {
            return Err(Problem::of_field(field, format!("is too long; at most {LONGEST}")));
        }
        let query = Query {
            history: Vec::new(),
            top: self.top,
            exclude_history: self.exclude_history.unwrap_or(excludes_history),
            exclude: self.exclude,
            only: self.only,
        };
        Ok((histories.into_iter().map(|history| Query { history, ..query.clone() }).collect(), several))
    }
}

async fn recommend(
    State(shared): State<Arc<Shared>>,
    request: Result<Json<Map<String, Value>>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    let Json(request) = request.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let request: RecommendRequest = serde_json::from_value(Value::Object(request))
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let (queries, several) = request.queries(shared.recommender.excludes_history())?;
    let lists: Vec<List> = shared.queue.ask(queries).await?.into_iter().map(List::from).collect();
    let mut body = match several {
        true => json!({ "lists": lists }),
        false => json!(lists.first()),
    };
    body["fingerprint"] = json!(shared.fingerprint);
    Ok(Json(body))
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ItemsRequest {
    q: String,
    limit: usize,
}

impl Default for ItemsRequest {
    fn default() -> Self {
        Self { q: String::new(), limit: 10 }
    }
}

async fn items(
    State(shared): State<Arc<Shared>>,
    request: Result<Parameters<ItemsRequest>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Parameters(ItemsRequest { q, limit }) =
        request.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    if !(1..=MOST).contains(&limit) {
        return Err(Problem::of_field("limit", format!("is {limit}; must be from 1 to {MOST}")));
    }
    let catalog = &shared.recommender.catalog().catalog;
    let named = |place: usize| json!({ "id": catalog.items()[place].id, "title": catalog.items()[place].title });
    let found: Vec<Value> = shared.titles.find(&q, limit).into_iter().map(named).collect();
    Ok(Json(json!({ "items": found })))
}

async fn info(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.info.clone())
}

/// The page needs nothing from elsewhere, and may load nothing.
async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE)).into_response()
}
