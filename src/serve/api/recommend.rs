//! `POST /v1/recommend`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Body, MAX_HISTORY, MAX_TOP, asked, check_length, whole};
use crate::fit::Candidate;
use crate::recommend::{Answer, Chosen, Query, Recommendation};
use crate::serve::problem::{Problem, ProblemBody};
use crate::serve::shared::Shared;

/// For whom to recommend, and among what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RecommendRequest {
    /// Ids of the items in the history, oldest first. An empty history gets popular items.
    #[schema(max_items = 1000)]
    history: Vec<String>,
    /// Titles of later items of the history, whether the catalog has them or not.
    #[schema(max_items = 1000)]
    titles: Vec<String>,
    /// Histories of several users, in the place of `history` and `titles`.
    #[schema(max_items = 1000)]
    histories: Option<Vec<Vec<String>>>,
    /// Maximum number of titles in a list.
    #[schema(minimum = 1, maximum = 100)]
    #[serde(deserialize_with = "whole")]
    top: usize,
    /// Ids of items to leave out.
    exclude: Vec<String>,
    /// Ids of the only items that may be recommended; all if absent.
    only: Option<Vec<String>>,
    /// Whether items of the history are left out; if absent, as the shop was fitted.
    exclude_history: Option<bool>,
    /// Whether to say why each title is recommended.
    why: bool,
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
            why: false,
        }
    }
}

/// A list, best first, and what made it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct List {
    items: Vec<Listed>,
    /// `popularity`, `transition`, `sasrec`, `language-model` or `guided`.
    #[schema(value_type = String)]
    model: Candidate,
}

/// A title of a list.
#[derive(Debug, Serialize, ToSchema)]
struct Listed {
    /// The first of the items that have the title.
    id: String,
    /// All of them.
    ids: Vec<String>,
    title: String,
    /// The higher, the better.
    score: f64,
    /// Why, where that was asked for and the model can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
}

/// What a title goes back to.
#[derive(Debug, Serialize, ToSchema)]
struct Why {
    /// `transitions`: how often the title followed each of the history. `attention`: how much the thought from which
    /// the whole list is made attends to each.
    by: &'static str,
    history: Vec<Share>,
}

/// A title of the history and its share.
#[derive(Debug, Serialize, ToSchema)]
struct Share {
    title: String,
    share: f64,
}

/// The list of the one history, or the lists of several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Lists {
    One(List),
    Several { lists: Vec<List> },
}

/// What was asked for, and by which models it was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecommendAnswer {
    #[serde(flatten)]
    lists: Lists,
    fingerprint: String,
}

impl From<Recommendation> for Listed {
    fn from(Recommendation { title, items, score, why, .. }: Recommendation) -> Self {
        let why = why.map(|why| Why {
            by: why.by.name(),
            history: why.history.into_iter().map(|one| Share { title: one.title, share: one.share }).collect(),
        });
        Self { id: items.first().cloned().unwrap_or_default(), ids: items, title, score, why }
    }
}

impl From<Answer> for List {
    fn from(answer: Answer) -> Self {
        Self { items: answer.recommendations.into_iter().map(Listed::from).collect(), model: answer.model }
    }
}

impl RecommendRequest {
    /// A query for each history, and whether there may be several.
    fn queries(self, excludes_history: bool) -> Result<(Vec<Query>, bool), Problem> {
        if !(1..=MAX_TOP).contains(&self.top) {
            return Err(Problem::of_field("top", format!("must be from 1 to {MAX_TOP}, got {}", self.top)));
        }
        let several = self.histories.is_some();
        if several && !(self.history.is_empty() && self.titles.is_empty()) {
            return Err(Problem::conflict("histories", "cannot be combined with history or titles"));
        }
        let own = || {
            let ids = self.history.iter().cloned().map(Chosen::Id);
            vec![ids.chain(self.titles.iter().cloned().map(Chosen::Title)).collect::<Vec<_>>()]
        };
        let ids = |ids: Vec<String>| ids.into_iter().map(Chosen::Id).collect();
        let histories: Vec<Vec<Chosen>> =
            self.histories.map_or_else(own, |histories| histories.into_iter().map(ids).collect());
        let field = if several { "histories" } else { "history" };
        check_length(field, &histories, MAX_HISTORY)?;
        histories.iter().try_for_each(|history| check_length(field, history, MAX_HISTORY))?;
        let query = Query {
            history: Vec::new(),
            top: self.top,
            exclude_history: self.exclude_history.unwrap_or(excludes_history),
            exclude: self.exclude,
            only: self.only,
            why: self.why,
        };
        Ok((histories.into_iter().map(|history| Query { history, ..query.clone() }).collect(), several))
    }
}

/// Recommend items after a history.
#[utoipa::path(post, path = "/v1/recommend", request_body = RecommendRequest, responses(
    (status = 200, description = "A list, or `lists` for several histories", body = RecommendAnswer),
    (status = "4XX", description = "What is wrong", body = ProblemBody),
    (status = 500, description = "The model failed", body = ProblemBody),
))]
pub(super) async fn recommend(State(shared): State<Arc<Shared>>, body: Body) -> Result<Json<RecommendAnswer>, Problem> {
    let request: RecommendRequest = asked(body)?;
    let served = shared.served();
    let (queries, several) = request.queries(served.recommender.excludes_history())?;
    let answers = shared.queue.recommend(&served, queries).await?;
    let mut lists: Vec<List> = answers.into_iter().map(List::from).collect();
    let lists = match several {
        true => Lists::Several { lists },
        false => Lists::One(lists.remove(0)),
    };
    Ok(Json(RecommendAnswer { lists, fingerprint: served.recommender.fingerprint().to_owned() }))
}
