//! `/v1/items`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Parameters, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Body, MAX_HISTORY, MAX_TOP, asked, check_length};
use crate::data::Item;
use crate::serve::problem::{Problem, ProblemBody};
use crate::serve::shared::Shared;

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FindRequest {
    /// A part of a title, typos allowed. Empty: the first items of the catalog.
    q: String,
    /// Maximum number of items.
    #[param(minimum = 1, maximum = 100, default = 10)]
    limit: usize,
}

impl Default for FindRequest {
    fn default() -> Self {
        Self { q: String::new(), limit: 10 }
    }
}

/// Items, those whose titles fit best first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FoundItems {
    items: Vec<NamedItem>,
}

/// An item of the catalog.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NamedItem {
    #[schema(pattern = r"\S")]
    id: String,
    #[schema(pattern = r"\S")]
    title: String,
}

/// Items to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddRequest {
    #[schema(max_items = 1000)]
    items: Vec<NamedItem>,
}

/// What became of them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AddAnswer {
    /// Items that the catalog did not have.
    added: usize,
    /// Items that it has now.
    items: usize,
    /// That of the models with this catalog.
    fingerprint: String,
}

/// Find items by their titles.
#[utoipa::path(get, path = "/v1/items", params(FindRequest), responses(
    (status = 200, description = "Items, those whose titles fit best first", body = FoundItems),
    (status = "4XX", description = "What is wrong", body = ProblemBody),
))]
pub(super) async fn find_items(
    State(shared): State<Arc<Shared>>,
    request: Result<Parameters<FindRequest>, QueryRejection>,
) -> Result<Json<FoundItems>, Problem> {
    let Parameters(FindRequest { q, limit }) =
        request.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    if !(1..=MAX_TOP).contains(&limit) {
        return Err(Problem::of_field("limit", format!("must be from 1 to {MAX_TOP}, got {limit}")));
    }
    let served = shared.served();
    let find = move || {
        let catalog = served.recommender.catalog().catalog.items();
        let named = |place: usize| NamedItem { id: catalog[place].id.clone(), title: catalog[place].title.clone() };
        served.titles.find(&q, limit).into_iter().map(named).collect()
    };
    // It goes through all titles, and the requests' own threads must stay free.
    let items = tokio::task::spawn_blocking(find).await.map_err(|_| Problem::failed())?;
    Ok(Json(FoundItems { items }))
}

/// Add items by their titles, to be recommended at once; they are on the disk when this is answered.
#[utoipa::path(post, path = "/v1/items", request_body = AddRequest, responses(
    (status = 200, description = "What became of them", body = AddAnswer),
    (status = "4XX", description = "What is wrong; nothing is added", body = ProblemBody),
    (status = 500, description = "They cannot be written", body = ProblemBody),
))]
pub(super) async fn add_items(State(shared): State<Arc<Shared>>, body: Body) -> Result<Json<AddAnswer>, Problem> {
    let AddRequest { items } = asked(body)?;
    check_length("items", &items, MAX_HISTORY)?;
    let items = items.into_iter().map(|NamedItem { id, title }| Item { id, title }).collect();
    let (served, added) = shared.add(items).await?;
    let recommender = &served.recommender;
    let items = recommender.catalog().catalog.len();
    Ok(Json(AddAnswer { added, items, fingerprint: recommender.fingerprint().to_owned() }))
}
