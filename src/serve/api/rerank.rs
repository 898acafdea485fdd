//! `POST /v1/rerank`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Body, MAX_HISTORY, asked, check_length, whole_if_any};
use crate::fit::Candidate;
use crate::recommend::Chosen;
use crate::serve::problem::{Problem, ProblemBody};
use crate::serve::shared::Shared;

/// What to rank, and after what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum RerankRequest {
    Items(RerankItems),
    Texts(RerankTexts),
}

/// Items of the catalog after a history.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RerankItems {
    /// Ids of the items in the history, oldest first.
    #[serde(default)]
    #[schema(max_items = 1000)]
    history: Vec<String>,
    /// Ids of the items to rank.
    #[schema(min_items = 1, max_items = 1000)]
    items: Vec<String>,
    /// Maximum number of results; all if absent.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole_if_any")]
    top_n: Option<usize>,
}

/// Texts, as rerankers of texts take them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RerankTexts {
    /// Titles of the history, oldest first, one per line.
    #[schema(pattern = r"\S")]
    query: String,
    /// Titles to rank, whether the catalog has them or not.
    #[schema(min_items = 1, max_items = 1000)]
    documents: Vec<String>,
    /// Maximum number of results; all if absent.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole_if_any")]
    top_n: Option<usize>,
    /// Whether results have their document too.
    #[serde(default)]
    return_documents: bool,
    /// Not looked at: there is one.
    #[expect(dead_code, reason = "clients of common rerankers send it")]
    model: Option<String>,
}

/// Best first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RerankAnswer {
    results: Vec<RerankResult>,
    /// What ranked them: `popularity`, `transition`, `sasrec`, `language-model` or `guided`.
    #[schema(value_type = String)]
    model: Candidate,
    fingerprint: String,
}

/// One of the items or documents.
#[derive(Debug, Serialize, ToSchema)]
struct RerankResult {
    /// Its place in the request, from 0.
    index: usize,
    /// From 0 to 1. For an item of the catalog, the probability that it comes next; for a document that the catalog
    /// lacks, the probability among all documents of the request.
    relevance_score: f64,
    /// The document, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
}

/// What is ranked, after what, and what of it is wanted.
struct Asked {
    history: Vec<Chosen>,
    items: Vec<Chosen>,
    documents: Vec<String>,
    top: usize,
}

impl RerankRequest {
    /// What a body asks for. The names of its fields tell the two kinds apart.
    fn read(body: Body) -> Result<Self, Problem> {
        let is_of_texts =
            |body: &Json<Map<String, Value>>| ["query", "documents"].iter().any(|key| body.contains_key(*key));
        match body.as_ref().is_ok_and(is_of_texts) {
            true => asked(body).map(Self::Texts),
            false => asked(body).map(Self::Items),
        }
    }

    fn asked(self) -> Result<Asked, Problem> {
        match self {
            Self::Items(items) => items.asked(),
            Self::Texts(texts) => texts.asked(),
        }
    }
}

impl RerankItems {
    fn asked(self) -> Result<Asked, Problem> {
        let ids = |ids: Vec<String>| ids.into_iter().map(Chosen::Id).collect::<Vec<_>>();
        check_length("history", &self.history, MAX_HISTORY)?;
        check("items", &self.items, self.top_n)?;
        let top = self.top_n.unwrap_or(usize::MAX);
        Ok(Asked { history: ids(self.history), items: ids(self.items), documents: Vec::new(), top })
    }
}

impl RerankTexts {
    fn asked(self) -> Result<Asked, Problem> {
        check("documents", &self.documents, self.top_n)?;
        let lines = self.query.lines().map(str::trim).filter(|line| !line.is_empty());
        let history: Vec<Chosen> = lines.map(|title| Chosen::Title(title.to_owned())).collect();
        if history.is_empty() {
            return Err(Problem::of_field("query", "must not be empty"));
        }
        check_length("query", &history, MAX_HISTORY)?;
        let items = self.documents.iter().cloned().map(Chosen::Title).collect();
        let documents = if self.return_documents { self.documents } else { Vec::new() };
        Ok(Asked { history, items, documents, top: self.top_n.unwrap_or(usize::MAX) })
    }
}

fn check(field: &'static str, list: &[String], top_n: Option<usize>) -> Result<(), Problem> {
    match (list.is_empty(), top_n) {
        (true, _) => Err(Problem::of_field(field, "must not be empty")),
        (_, Some(0)) => Err(Problem::of_field("top_n", "must be at least 1, got 0")),
        _ => check_length(field, list, MAX_HISTORY),
    }
}

/// Rank some items or texts after a history.
#[utoipa::path(post, path = "/v1/rerank", request_body = RerankRequest, responses(
    (status = 200, description = "The items or documents, best first", body = RerankAnswer),
    (status = "4XX", description = "What is wrong", body = ProblemBody),
    (status = 500, description = "The model failed", body = ProblemBody),
))]
pub(super) async fn rerank(State(shared): State<Arc<Shared>>, body: Body) -> Result<Json<RerankAnswer>, Problem> {
    let Asked { history, items, documents, top } = RerankRequest::read(body)?.asked()?;
    let served = shared.served();
    let (scores, model) = shared.queue.rank(&served, history, items).await?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let result = |index: usize| RerankResult {
        index,
        relevance_score: scores[index].exp().clamp(0.0, 1.0),
        document: documents.get(index).cloned(),
    };
    let results = order.into_iter().take(top).map(result).collect();
    Ok(Json(RerankAnswer { results, model, fingerprint: served.recommender.fingerprint().to_owned() }))
}
