//! Recommendations within a web service of one's own: a shop's folder is loaded once, and a handler asks it.
//!
//! cargo run --release --example embed -- SHOP
//! curl -s localhost:3000/next -H 'Content-Type: application/json' -d '["SKU-3", "SKU-11"]'

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use latentr3::recommend::{Answer, Chosen, Query, Recommender, RecommenderConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shop = std::env::args_os().nth(1).ok_or("usage: embed SHOP")?;
    let recommender = Arc::new(Recommender::load(&RecommenderConfig::new(shop))?);
    let routes = Router::new().route("/next", post(next)).with_state(recommender);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, routes).await?)
}

/// Recommendations for a customer who bought these items, oldest first.
async fn next(
    State(recommender): State<Arc<Recommender>>,
    Json(bought): Json<Vec<String>>,
) -> Result<Json<Answer>, (StatusCode, String)> {
    let history = bought.into_iter().map(Chosen::Id).collect();
    let query = Query { history, top: 5, exclude_history: true, ..Default::default() };
    // Computing blocks: it must not run on the threads that serve requests.
    let answers = tokio::task::spawn_blocking(move || recommender.recommend(&[query])).await;
    let answers = answers.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let mut answers = answers.map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    Ok(Json(answers.remove(0)))
}
