//! What a model recommends to a few validation users, to read how it learns.

use serde::{Deserialize, Serialize};

use super::description::RunData;
use crate::data::PreparedRow;
use crate::eval::{EvalConfig, Shard, UserRank, evaluate};
use crate::models::LatentRecommender;
use crate::models::decode::BeamConfig;
use crate::train::TrainError;

/// Titles of a history that a sample shows.
const NEWEST: usize = 2;

/// Titles of a list that a sample shows.
const TOP: usize = 3;

/// What is recommended to one user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The user's id.
    pub user: String,
    /// The newest titles of the history, oldest first.
    pub after: Vec<String>,
    /// The title that the user chose next.
    pub chose: String,
    /// Its rank, from 1; absent where it was not found.
    pub rank: Option<f64>,
    /// The titles that are recommended first, best first.
    pub top: Vec<String>,
}

/// What the model recommends to the users of some rows; `batch` users are searched for together.
pub(super) fn samples(
    model: &LatentRecommender,
    data: &RunData,
    rows: &[&PreparedRow],
    batch: usize,
) -> Result<Vec<Sample>, TrainError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let beam = BeamConfig::default();
    let config = EvalConfig { beam, batch, shard: Shard::WHOLE, exclude_history: false };
    let evaluation = evaluate(model, &data.prepared, &data.objective, rows, config, &mut |_, _| {})?;
    let title = |item: usize| data.prepared.catalog.title(item).to_owned();
    let sample = |(row, found): (&&PreparedRow, &UserRank)| {
        let newest = row.history.len().saturating_sub(NEWEST);
        let mut top: Vec<String> = Vec::new();
        for items in &found.list {
            let title = title(items[0] as usize);
            if top.len() < TOP && !top.contains(&title) {
                top.push(title);
            }
        }
        Sample {
            user: row.user.clone(),
            after: row.history[newest..].iter().map(|&item| title(item)).collect(),
            chose: title(row.item),
            rank: found.rank,
            top,
        }
    };
    Ok(rows.iter().zip(&evaluation.ranks).map(sample).collect())
}
